"""Runs the ```python blocks of a page, in order and as one program, so that pages stay true.

A line `expression  # → text` holds the page to it: the expression's repr is to be `text`. Lines
keep their numbers, so a traceback points into the page. What is to be shown only is no `python`.
"""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

FENCE = re.compile(r"^```(\w*)")
_SHOWN = re.compile(r"^(?P<indent> *)(?P<expression>\S.*?) +# → (?P<text>.*)$")


def source_of(page: str) -> str:
    """The python blocks of `page`, everything else blank lines."""
    lines, language = [], ""
    for line in page.splitlines():
        fence = FENCE.match(line)
        if fence:
            language = "" if language else fence[1] or "text"
            lines.append("")
        else:
            lines.append(_checked(line) if language == "python" else "")
    return "\n".join(lines) + "\n"


def run_page(path: Path, folder: Path) -> dict[str, Any]:
    """Run the page's program, written into `folder`; its globals at the end.

    Raises: what the program raises, AssertionError for a value other than the page shows.
    """
    source = source_of(path.read_text("utf-8"))
    assert source.strip(), f"{path.name} has no python block"
    program = folder / f"{path.stem}.py"
    program.write_text(source, "utf-8")
    return runpy.run_path(str(program), {"__shown__": _check}, run_name=path.stem)


def _checked(line: str) -> str:
    match = _SHOWN.match(line)
    if match is None:
        return line
    return f"{match['indent']}__shown__(({match['expression']}), {match['text']!r})"


def _check(value: object, text: str) -> None:
    assert repr(value) == text, f"the page shows {text}, it is {value!r}"

"""Every program of the pages and of examples/ passes pyright and mypy.

A page is one module, as tests/docs_runner.py runs it; a page whose blocks have file names is a
folder of modules. Pyright comes from npm (tests/typing); without it its test skips and says so.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_readme import BLOCK, NAMED, SAVED
from tests.docs_runner import FENCE

ROOT = Path(__file__).parents[1]
PYRIGHT = ROOT / "tests/typing/node_modules/pyright/index.js"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHOWS_THE_CORE = {"architecture"}
"""Pages whose blocks show declarations, and no program."""
UNTYPED = (
    "--allow-untyped-defs",
    "--allow-incomplete-defs",
    "--allow-untyped-calls",
    "--allow-untyped-decorators",
)
"""A handler of a page may leave out its annotations."""

PUBLIC = """
from typing import Annotated, assert_type

from majordomus import Client, Request
from majordomus.messages import Record


class Note(Record):
    text: Annotated[str, 1]


def handler(request: Request, note: Note, client: Client) -> None:
    reply = client.call("notes.put", note)
    assert_type(reply.frames, list[bytes])
    assert_type(reply.body, bytes)
    assert_type(request.frames, list[bytes])
    assert_type(Note.from_bytes(note.to_bytes()), Note)
    assert_type(note.text, str)
"""
"""What both checkers have to know of the public API."""


def programs(page: Path) -> dict[str, str]:
    """Name → text of the modules of a page."""
    text = page.read_text("utf-8")
    named: dict[str, str] = {}
    for language, block, after in BLOCK.findall(text):
        name = NAMED.match(block) or SAVED.match(after)
        if language == "python" and name:
            named[name[1]] = block
    if named:
        return named
    lines, language = [], ""
    for line in text.splitlines():
        fence = FENCE.match(line)
        if fence:
            language = "" if language else fence[1] or "text"
        lines.append(line if language == "python" and not fence else "")
    source = "\n".join(lines)
    return {"page.py": source} if source.strip() else {}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sub-folder for each page and each example."""
    made = tmp_path_factory.mktemp("programs")
    for page in PAGES:
        if page.stem in SHOWS_THE_CORE:
            continue
        for name, text in programs(page).items():
            (made / module(page.stem)).mkdir(exist_ok=True)
            (made / module(page.stem) / name).write_text(text, "utf-8")
    for example in (ROOT / "examples").iterdir():
        shutil.copytree(example, made / "examples" / module(example.name))
    (made / "public").mkdir()
    (made / "public/api.py").write_text(PUBLIC, "utf-8")
    return made


def module(name: str) -> str:
    """A folder's name that mypy takes for a package."""
    return name.replace("-", "_")


def test_every_block_of_a_page_is_checked(folder: Path) -> None:
    for page in PAGES:
        blocks = re.findall(r"^```python$", page.read_text("utf-8"), re.MULTILINE)
        assert not blocks or page.stem in SHOWS_THE_CORE or (folder / module(page.stem)).is_dir()


@pytest.mark.skipif(not PYRIGHT.exists(), reason="pyright is not here: npm ci in tests/typing")
def test_pyright_finds_nothing_in_pages_and_examples(folder: Path) -> None:
    config = {"include": ["."], "extraPaths": [str(ROOT / "src")], "typeCheckingMode": "standard"}
    (folder / "pyrightconfig.json").write_text(json.dumps(config), "utf-8")
    done = subprocess.run(
        ["node", str(PYRIGHT), "--outputjson", "--pythonpath", sys.executable],
        cwd=folder,
        capture_output=True,
        timeout=110,
        check=False,
    )
    found = json.loads(done.stdout)
    assert found["summary"]["filesAnalyzed"] > 20
    assert [
        f"{Path(one['file']).relative_to(folder)}:{one['range']['start']['line'] + 1}: "
        f"{one['message']}"
        for one in found["generalDiagnostics"]
        if one["severity"] == "error"
    ] == []


def test_mypy_finds_nothing_in_pages_and_examples(folder: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--explicit-package-bases",
            "--disable-error-code=import-not-found",  # of another file of the page; pyright has it
            *UNTYPED,
            *(str(path.relative_to(folder)) for path in sorted(folder.rglob("*.py"))),
        ],
        cwd=folder,
        env=os.environ | {"MYPYPATH": f"{folder}:{ROOT / 'src'}"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.stderr == ""
    assert [line for line in done.stdout.splitlines() if " error: " in line] == []

"""Writes the parts of the pages that the code already says: settings and the commands' help.

``python docs/generate.py`` rewrites what stands between the ``generated`` marks; a test holds it
up to date.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import msgspec

from majordomus.cli import COMMANDS, majordomus
from majordomus.cli.run.broker import FLAGS
from majordomus.core.broker import settings
from majordomus.core.broker.settings import BrokerSettings

DOCS = Path(__file__).parent
MARKED = re.compile(r"(<!-- generated: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
KIB = 1024
TYPE_NAMES = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "true or false",
    dict[str, str]: "table of texts",
}


def descriptions() -> dict[str, str]:
    """What each setting is, from the line below it in settings.py."""
    module = ast.parse(inspect.getsource(settings))
    body = next(
        node.body
        for node in module.body
        if isinstance(node, ast.ClassDef) and node.name == BrokerSettings.__name__
    )
    found: dict[str, str] = {}
    for field, below in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
            name, text = ast.unparse(field.target), ast.literal_eval(below.value)
            found[name] = " ".join(str(text).split())
    return found


def settings_table() -> Iterator[str]:
    """One row for every field of BrokerSettings, in its order."""
    what = descriptions()
    yield "| setting | type | default | what it is |"
    yield "|---|---|---|---|"
    for field in msgspec.structs.fields(BrokerSettings):
        flag = f" (flag `--{field.name.replace('_', '-')}`)" if field.name in FLAGS else ""
        kind = TYPE_NAMES.get(field.type, "table of numbers")
        yield f"| `{field.name}` | {kind} | {shown(field)} | {what[field.name]}{flag} |"


def shown(field: msgspec.structs.FieldInfo) -> str:
    """The default as one writes it, and in KiB or MiB where that is easier to read."""
    if field.default is msgspec.NODEFAULT:
        return "empty"
    default = field.default
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, int) and default >= KIB and default % KIB == 0:
        mib, rest = divmod(default, KIB * KIB)
        return f"`{default}` ({mib} MiB)" if not rest else f"`{default}`"
    if isinstance(default, float):
        return f"`{default:g}`"
    return f"`{default}`" if default != "" else "empty"


def commands_help() -> Iterator[str]:
    """``--help`` of every command, eighty columns wide."""
    group = click.Context(majordomus, info_name="majordomus", terminal_width=88)
    for name in COMMANDS:
        command = majordomus.get_command(group, name)
        assert command is not None  # noqa: S101 - COMMANDS is what get_command reads
        context = click.Context(command, info_name=name, parent=group, terminal_width=88)
        yield f"## majordomus {name}\n\n```text"
        yield command.get_help(context)
        yield "```\n"


PARTS: dict[str, Callable[[], Iterator[str]]] = {
    "settings": settings_table,
    "commands": commands_help,
}


def generated(page: str) -> str:
    """`page` with every marked part written anew."""
    return MARKED.sub(lambda mark: mark[1] + "\n".join(PARTS[mark[2]]()) + "\n" + mark[4], page)


def main() -> int:
    """Rewrite the pages; with ``--check`` only say which are out of date."""
    stale = 0
    for path in sorted(DOCS.glob("*.md")):
        before = path.read_text("utf-8")
        after = generated(before)
        if after != before:
            stale += 1
            click.echo(f"{path.name}: {'out of date' if '--check' in sys.argv else 'written'}")
            if "--check" not in sys.argv:
                path.write_text(after, "utf-8")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())

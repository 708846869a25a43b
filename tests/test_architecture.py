"""Imports point one way (docs/architecture.md), and the rules know neither sockets nor clocks nor
chance."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import majordomus

ROOT = Path(majordomus.__file__).parent

MIDDLE = {"security", "durable", "observe"}
OUTER = {"middleware", "gateway", "contrib"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "messages": {"errors"},
    "protocol": {"errors"},
    "core": {"errors", "protocol"},
    **{name: {"errors", "protocol", "core"} for name in MIDDLE},
    "net": {"errors", "messages", "protocol", "core"} | MIDDLE,
    **{name: {"", "errors", "messages", "protocol", "core", "net"} | MIDDLE for name in OUTER},
    "cli": {"", "errors", "messages", "protocol", "core", "net"} | MIDDLE | OUTER,
    "": {"errors", "messages", "protocol", "core", "net"} | MIDDLE,
}
"""Which rooms of the harness a room may import from, besides itself. "" is majordomus/__init__.py,
the public API.
"""

EXCEPTIONS = {
    (
        "messages/checksum.py",
        "majordomus.protocol.murmur",
    ),  # one hash function, no second copy of it
}

FORBIDDEN = {
    "time",
    "random",
    "socket",
    "asyncio",
    "threading",
    "logging",
    "zmq",
    "datetime",
    "secrets",
    "os",
}
RULES = ("core", "protocol")


class Import(NamedTuple):
    file: str
    line: int
    module: str

    @property
    def room(self) -> str:
        return room_of(self.file)


def room_of(file: str) -> str:
    first = file.partition("/")[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def imports() -> Iterator[Import]:
    for path in sorted(ROOT.rglob("*.py")):
        file = path.relative_to(ROOT).as_posix()
        package = ["majordomus", *Path(file).parent.parts]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (Import(file, node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = package[: len(package) - node.level + 1] if node.level else []
                module = ".".join([*base, *([node.module] if node.module else [])])
                yield Import(file, node.lineno, module)
                if module == "majordomus" or node.module is None:
                    yield from (
                        Import(file, node.lineno, f"{module}.{one.name}") for one in node.names
                    )


ALL = list(imports())


def test_every_room_of_the_house_is_known_to_this_test() -> None:
    assert {one.room for one in ALL} <= set(MAY_IMPORT)
    assert len(ALL) > 100


def test_imports_point_one_way() -> None:
    wrong = []
    for one in ALL:
        if one.module.split(".")[0] != "majordomus":
            continue
        rest = one.module.split(".")[1:]
        target = (
            rest[0]
            if rest and ((ROOT / rest[0]).is_dir() or (ROOT / f"{rest[0]}.py").exists())
            else ""
        )
        if target == one.room or (one.file, one.module) in EXCEPTIONS:
            continue
        if target not in MAY_IMPORT[one.room]:
            wrong.append(one)
    assert wrong == []


def test_every_exception_is_still_needed() -> None:
    assert {(one.file, one.module) for one in ALL} >= EXCEPTIONS


@pytest.mark.parametrize("room", RULES)
def test_rules_know_neither_sockets_nor_clocks_nor_chance(room: str) -> None:
    wrong = [one for one in ALL if one.room == room and one.module.split(".")[0] in FORBIDDEN]
    assert wrong == []


def test_zeromq_is_known_at_the_edge_only() -> None:
    allowed = {"net", "cli", "messages"} | OUTER  # a Message can be sent by whoever has a socket
    wrong = [one for one in ALL if one.module.split(".")[0] == "zmq" and one.room not in allowed]
    assert wrong == []


def dangers() -> Iterator[str]:
    """Checks that `python -O` leaves out, and what runs what it is given."""
    for path in sorted(ROOT.rglob("*.py")):
        file = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Assert):
                yield f"{file}:{node.lineno}: assert"
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                if node.func.id in ("eval", "exec", "compile", "__import__"):
                    yield f"{file}:{node.lineno}: {node.func.id}"
            elif isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
                if {"pickle", "marshal", "shelve"}.intersection(names):
                    yield f"{file}:{node.lineno}: pickle"


def test_nothing_is_asserted_evaluated_or_unpickled() -> None:
    assert list(dangers()) == []

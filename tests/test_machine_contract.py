"""The program around the broker's machine uses the contract (core/broker/contract.py) and nothing
behind it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import majordomus
from majordomus.core.broker.contract import Machine
from majordomus.core.broker.machine import BrokerMachine

ROOT = Path(majordomus.__file__).parent
OUTSIDE = ("net", "cli", "middleware")
CONTRACT = frozenset(name for name in vars(Machine) if not name.startswith("_"))
NAMES = frozenset(("machine", "_machine"))


def is_machine(node: ast.expr) -> bool:
    if isinstance(node, ast.Name):
        return node.id in NAMES
    return isinstance(node, ast.Attribute) and node.attr in NAMES


def violations(source: str) -> Iterator[str]:
    """Attributes of machines that are not in the contract, and reads of one by a computed name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and is_machine(node.value):
            if node.attr not in CONTRACT:
                yield f"{node.lineno}: {node.attr}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            reads = node.func.id in ("getattr", "setattr", "hasattr", "vars")
            if reads and node.args and is_machine(node.args[0]):
                yield f"{node.lineno}: {node.func.id}"


def imported(source: str) -> set[str]:
    return {
        alias.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.module == "majordomus.core.broker.machine"
        for alias in node.names
    }


def files() -> list[Path]:
    return [path for name in OUTSIDE for path in sorted((ROOT / name).rglob("*.py"))]


def test_program_uses_no_attribute_of_a_machine_that_is_not_in_the_contract() -> None:
    found = {str(path): list(violations(path.read_text("utf-8"))) for path in files()}
    assert {path: lines for path, lines in found.items() if lines} == {}
    assert len(found) > 50


def test_machine_itself_is_imported_only_where_it_is_constructed() -> None:
    importing = [path.relative_to(ROOT) for path in files() if imported(path.read_text("utf-8"))]
    assert importing == [Path("net/broker/broker.py")]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("self._machine.registry.count_dropped('revoked', peer)", ["1: registry"]),
        ("machine.hooks.holds", ["1: hooks"]),
        ("waiting, self._machine.calls.pending = {}, {}", ["1: calls"]),
        ("loop._machine._next_tick = 0.0", ["1: _next_tick"]),
        ("getattr(machine, 'registry')", ["1: getattr"]),
        ("machine.tick(now)\nself._machine.settings.drain_timeout", []),
    ],
)
def test_reach_behind_the_contract_is_found(source: str, found: list[str]) -> None:
    assert list(violations(source)) == found


def test_every_verb_of_the_contract_is_used_by_the_program_and_has_a_docstring() -> None:
    used = {
        node.attr
        for path in files()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and is_machine(node.value)
    }
    assert used == CONTRACT
    assert [name for name in CONTRACT if not getattr(Machine, name).__doc__] == []


def test_machine_of_the_broker_has_every_verb_of_the_contract() -> None:
    assert [name for name in CONTRACT - {"settings"} if not hasattr(BrokerMachine, name)] == []

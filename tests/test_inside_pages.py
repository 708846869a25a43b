"""docs/rules.md and docs/architecture.md name modules and tests that exist, and every module."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import majordomus

SOURCE = Path(majordomus.__file__).parent
TESTS = Path(__file__).parent
DOCS = TESTS.parent / "docs"
RULE = re.compile(r"^\| (\d+) \| (.+) \| (.+) \| (.+) \|$", re.MULTILINE)
MAP = re.compile(r"<!-- modules: (\w+) -->\n```text\n(.*?)```", re.DOTALL)
NAMED = re.compile(r"`((?:core|net|protocol|security|cli)/[\w/]+)(\.pyx?)?`")
TABLE_NAMES = re.compile(r"`([\w/.]+)`")


def page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text("utf-8")


def exists(name: str) -> bool:
    """Whether `name`, a path without suffix, is a module or package of majordomus."""
    path = SOURCE / name
    return path.is_dir() or any(path.with_suffix(end).exists() for end in (".py", ".pyx"))


def mapped(text: str) -> dict[str, set[str]]:
    """Folder → the modules that the map of a package names in it."""
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        if not line.startswith(" "):
            folder = line.split()[0].rstrip("/")
            found[folder] = set()
            continue
        names = re.split(r"\s{2,}", line.strip())[0]
        found[folder].update(names.split(", "))
    return found


def present(package: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for path in (SOURCE / package).rglob("*.py*"):
        if path.suffix in (".py", ".pyx") and path.name != "__init__.py":
            folder = path.parent.relative_to(SOURCE).as_posix()
            found.setdefault(folder, set()).add(path.stem)
    return found


def test_every_rule_has_a_row_with_modules_and_tests_that_exist() -> None:
    rows = RULE.findall(page("rules"))
    assert [int(number) for number, *_ in rows] == list(range(1, 13))
    tests = {path.name for path in TESTS.rglob("test_*.py")}
    wrong = []
    for number, _, modules, names in rows:
        wrong += [name for name in TABLE_NAMES.findall(modules) if not (SOURCE / name).exists()]
        wrong += [name for name in TABLE_NAMES.findall(names) if name not in tests]
        assert TABLE_NAMES.findall(modules), number
        assert TABLE_NAMES.findall(names) or number == "12", number
    assert wrong == []


def test_a_rule_s_own_test_file_is_in_its_row() -> None:
    rows = {int(number): names for number, _, _, names in RULE.findall(page("rules"))}
    own = sorted(path.name for path in TESTS.rglob("test_rule_*.py"))
    assert own
    assert [name for name in own if name not in rows[int(name.split("_")[2])]] == []


@pytest.mark.parametrize("package", ["core", "net", "cli"])
def test_the_map_of_a_package_names_every_module_and_no_other(package: str) -> None:
    maps = dict(MAP.findall(page("architecture")))
    named = {folder: names for folder, names in mapped(maps[package]).items() if names}
    assert {folder: sorted(names) for folder, names in named.items()} == {
        folder: sorted(names) for folder, names in present(package).items()
    }


def test_every_module_that_the_architecture_names_exists() -> None:
    names = {name for name, _ in NAMED.findall(page("architecture"))}
    assert len(names) > 40
    assert sorted(name for name in names if not exists(name)) == []


def test_the_glossary_has_each_term_once_in_order_with_a_known_source() -> None:
    rows = [line.split(" | ") for line in page("glossary").splitlines() if line.startswith("| ")]
    terms = [row[0].removeprefix("| ").lower() for row in rows[1:]]
    assert len(terms) >= 40
    assert terms == sorted(set(terms))
    sources = {row[2] for row in rows[1:]}
    known = {"ZeroMQ", "NATS", "gRPC", "OpenTelemetry", "W3C", "ours"}
    assert {one for one in sources if not one.startswith("RFC ")} == known

"""Modules with a `.pxd` can be compiled: every attribute that their classes assign is declared."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from majordomus.protocol import spec

SOURCE = Path(__file__).parents[2] / "src"
DECLARATIONS = [path for path in sorted(SOURCE.rglob("*.pxd")) if path.with_suffix(".py").exists()]
"""Declarations of Python modules; a wire's belong to a module of Cython."""
CLASS = re.compile(r"cdef class (\w+)(?:\((\w+)\))?:")
ATTRIBUTE = re.compile(r"    cdef (?:public |readonly )?([\w\[\] ]*?[\w\]]) (\w+(?:, \w+)*)$")
NUMBERS = re.compile(r"\b(double|int|bint|long|Py_ssize_t|char)\b")


def name(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def declared(text: str) -> dict[str, dict[str, str]]:
    """Of each class that is compiled, its attributes and their types, inherited ones included."""
    classes: dict[str, dict[str, str]] = {}
    here: dict[str, str] = {}
    for line in text.splitlines():
        if found := CLASS.match(line):
            here = classes[found[1]] = dict(classes.get(found[2] or "", {}))
        elif found := ATTRIBUTE.match(line):
            here.update(dict.fromkeys(found[2].split(", "), found[1]))
    return classes


def assigned(made: ast.ClassDef) -> Iterator[tuple[str, ast.AST, str]]:
    """Every attribute that the class gives its instances: name, where, and what type it is said
    to have."""
    for node in ast.walk(made):
        targets: list[ast.expr] = []
        said = ""
        if isinstance(node, ast.Assign):
            targets = [t for one in node.targets for t in getattr(one, "elts", [one])]
            said = ast.unparse(node.value)
        elif isinstance(node, ast.AnnAssign):
            targets, said = [node.target], ast.unparse(node.annotation)
        for target in targets:
            if (
                isinstance(target, ast.Attribute)
                and isinstance(target.value, ast.Name)
                and target.value.id == "self"
            ):
                yield target.attr, node, said


MODULE = re.compile(r"^from (majordomus(?:\.\w+)*) cimport (.+)$", re.MULTILINE)


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.p[xy][dx]")), ids=name)
def test_compiler_sees_which_modules_a_declaration_depends_on(path: Path) -> None:
    """Cython does not see them in `from package cimport module`, and compiles nothing anew."""
    for package, names in MODULE.findall(path.read_text("utf-8")):
        folder = SOURCE.joinpath(*package.split("."))
        modules = [one for one in names.split(", ") if (folder / f"{one}.pxd").exists()]
        assert not modules, f"cimport {package}.{modules[0]} as {modules[0]}"


@pytest.mark.parametrize("path", DECLARATIONS, ids=name)
def test_every_attribute_is_declared_for_the_compiler(path: Path) -> None:
    known = declared(path.read_text())
    page = path.with_suffix(".py")
    problems = []
    for node in ast.parse(page.read_text()).body:
        if not isinstance(node, ast.ClassDef) or node.name not in known:
            continue
        types = known[node.name]
        for attribute, where, said in assigned(node):
            at = f"{name(page)}:{getattr(where, 'lineno', 0)}: {node.name}.{attribute}"
            if attribute not in types:
                if attribute not in inherited(path, node):
                    problems.append(
                        f"{at} is not in {path.name}: add `cdef public object {attribute}` there"
                    )
            elif NUMBERS.search(types[attribute]) and "None" in said:
                problems.append(
                    f"{at} may be None, and {path.name} says {types[attribute]}: make it `object`"
                )
    assert not problems, "\n" + "\n".join(problems) + "\n(docs/adr/0008-compiled-rules.md)"


def inherited(path: Path, node: ast.ClassDef) -> set[str]:
    """Attributes that come from a base class of another module."""
    found: set[str] = set()
    for base in node.bases:
        wanted = ast.unparse(base)
        for other in DECLARATIONS:
            found |= set(declared(other.read_text()).get(wanted, {}))
    return found


@pytest.mark.parametrize("path", DECLARATIONS, ids=name)
def test_every_declaration_has_a_module_with_its_classes(path: Path) -> None:
    body = ast.parse(path.with_suffix(".py").read_text()).body
    there = {node.name for node in body if isinstance(node, ast.ClassDef)}
    assert set(declared(path.read_text())) <= there


def test_attribute_that_is_not_declared_would_be_found() -> None:
    made = ast.parse("class A:\n  def f(self):\n    self.x: int | None = None; self.y = 1").body[0]
    assert isinstance(made, ast.ClassDef)
    assert {(attribute, said) for attribute, _, said in assigned(made)} == {
        ("x", "int | None"),
        ("y", "1"),
    }
    text = "cdef class A:\n    cdef public Py_ssize_t x, z\n    cdef list w"
    assert declared(text) == {"A": {"x": "Py_ssize_t", "z": "Py_ssize_t", "w": "list"}}


def test_constants_of_the_compiler_are_those_of_the_specification() -> None:
    text = (SOURCE / "majordomus/protocol/spec.pxd").read_text()
    constants = dict(re.findall(r"^    (\w+) = (\d+)$", text, re.MULTILINE))
    assert {n: int(value) for n, value in constants.items()} == {
        n: value for n, value in vars(spec).items() if n in constants
    }
    assert len(constants) > 40

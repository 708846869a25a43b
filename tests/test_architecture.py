"""Imports point one way (docs/architecture.md); the rules use no socket, clock or randomness.

MAY_IMPORT is the table of packages, SUB_PACKAGES the table of the packages inside `core` and `net`.
Both count imports under TYPE_CHECKING, imports inside functions, and the imports and cimports of
Cython files. Each rule is a function from a source tree to a list of violations, and each is also
tried on a seeded violation, so that a rule that can no longer fail is noticed.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import majordomus

ROOT = Path(majordomus.__file__).parent

MIDDLE = {"security", "durable", "observe"}
OUTER = {"middleware", "gateway", "contrib"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "system": {"errors"},
    "messages": {"errors"},
    "protocol": {"errors"},
    "contracts": {"errors", "messages"},
    "core": {"errors", "protocol", "contracts"},
    **{name: {"errors", "system", "protocol", "core"} for name in MIDDLE},
    "net": {"errors", "system", "messages", "contracts", "protocol", "core"} | MIDDLE,
    **{
        name: {"", "errors", "messages", "contracts", "protocol", "core", "net"} | MIDDLE
        for name in OUTER
    },
    "testing": {"", "errors", "system", "messages", "contracts", "protocol", "core", "net"}
    | MIDDLE,
    "cli": {"", "errors", "system", "messages", "contracts", "protocol", "core", "net"}
    | MIDDLE
    | OUTER,
    "": {"errors", "messages", "protocol", "core", "net"} | MIDDLE,
}
"""Package of `majordomus` → the packages that it may import, besides itself.

"" is majordomus/__init__.py, the public API.
"""

EXCEPTIONS = {
    # one hash function, no second copy of it
    ("messages/checksum.py", "majordomus.protocol.murmur"),
}

SUB_PACKAGES: dict[str, set[str]] = {
    "core": set(),
    "core.broker.settings": set(),
    "core.broker.accel": set(),
    "core.broker.state": {"core.broker.accel", "core.broker.settings"},
    "core.broker.balancing": {"core.broker.accel", "core.broker.state", "core.broker.settings"},
    "core.broker": {
        "core.broker.accel",
        "core.broker.state",
        "core.broker.balancing",
        "core.broker.settings",
    },
    "core.session": set(),
    "core.client": {"core.session"},
    "core.worker": {"core.session"},
    "net": set(),
    "net.zmtp": {"net"},
    "net.zmq": {"net"},
    "net.connection": {"net", "net.zmtp", "net.zmq"},
    "net.typed": {"net"},
    "net.client": {"net", "net.zmtp", "net.zmq", "net.connection", "net.typed"},
    "net.worker": {"net", "net.zmtp", "net.zmq", "net.connection", "net.typed"},
    "net.broker": {"net", "net.zmtp", "net.zmq"},
}
"""Sub-package → the sub-packages of the same package that it may import, besides itself.

A module belongs to the longest name that fits. `core.broker.commands` and `core.broker.hooks` are
part of `core.broker`; `net.broker.security` and `net.broker.limits` are part of `net.broker`. All
sub-packages may import the modules at the top of their package. `core.broker.settings` is one
module without imports of its own, so every part of the broker's machine may read it.
"""

TYPES_BOTH_WAYS = {
    # a service has a strategy, a strategy picks workers
    ("core.broker.state", "core.broker.balancing"),
    # a C hint follows the pointers of a struct, so its .pxd needs the layout of what it fetches
    ("core.broker.accel", "core.broker.state"),
    ("core.broker.accel", "core.broker.balancing"),
}
"""(sub-package, sub-package): the first may import the second for types alone."""

LATE_IMPORTS: dict[str, str] = {
    "majordomus.net.worker.processes.pool": "loaded with the first handler of run='process'",
    "majordomus.contracts.derive": "typed handlers alone need the protobuf library",
    "majordomus.net.broker.zmq_listener": "libzmq's endpoints alone need it",
    "majordomus.net.broker.security.authentication": "libzmq's endpoints alone need it",
    "majordomus.net.zmq._pump": "optional: built where a C compiler is",
    "majordomus.net.zmtp._engine": "optional: built where a C compiler is",
    "majordomus.net.broker.open_store": "loaded by a broker with a store",
    "majordomus.net.connection.zmtp_link": "needs the optional net.zmtp._engine",
    "majordomus.net.broker.zmtp_listener": "needs the optional net.zmtp._engine",
    "majordomus.net.broker.security.direct_authentication": "needs the optional net.zmtp._engine",
    "majordomus.net.zmtp.sodium": "optional: built where a C compiler is",
}
"""Module that a function in `net` may import → why it is not imported with its importer."""

TWINS: dict[str, str] = {
    "Pump": "net.zmq: native and plain pyzmq, one test class",
    "Mover": "net.zmq: native and plain pyzmq, one test class",
}
"""Class name that is meant to be defined twice → why."""

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
MOST_MODULES = 24
MOST_TOP_MODULES = 10
MACHINE = "core/broker/machine"
ACCEL = "core/broker/accel/"
BALANCING = "core/broker/balancing/"
RING = "core/broker/balancing/ring"


Tree = dict[str, str]
"""Path below src/majordomus → source text."""


class Import(NamedTuple):
    file: str
    line: int
    module: str
    kind: str
    """"run", "types" (TYPE_CHECKING, or a .pxd file) or "late" (inside a function)."""

    @property
    def package(self) -> str:
        first = self.file.partition("/")[0]
        return "" if first == "__init__.py" else first.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module} ({self.kind})"


def read_tree() -> Tree:
    return {
        path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
        for suffix in ("py", "pyx", "pxd")
        for path in sorted(ROOT.rglob(f"*.{suffix}"))
    }


def imports(tree: Tree) -> list[Import]:
    found: list[Import] = []
    for file, text in tree.items():
        found += (
            _python_imports(file, text, tree) if file.endswith(".py") else _cimports(file, text)
        )
    return found


CIMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+c?import\b|c?import\s+([\w.]+))")


def _cimports(file: str, text: str) -> Iterator[Import]:
    kind = "types" if file.endswith(".pxd") else "run"
    for number, line in enumerate(text.splitlines(), 1):
        if match := CIMPORT.match(line):
            yield Import(file, number, match[1] or match[2], kind)


def _python_imports(file: str, text: str, tree: Tree) -> Iterator[Import]:
    package = ["majordomus", *Path(file).parent.parts]
    for node, kind in _import_nodes_of(text):
        if isinstance(node, ast.Import):
            yield from (Import(file, node.lineno, alias.name, kind) for alias in node.names)
            continue
        base = package[: len(package) - node.level + 1] if node.level else []
        module = ".".join([*base, *([node.module] if node.module else [])])
        modules = {f"{module}.{alias.name}" for alias in node.names}
        modules = {one for one in modules if _is_module(one, tree)} or {module}
        yield from (Import(file, node.lineno, one, kind) for one in sorted(modules))


@cache
def _import_nodes_of(text: str) -> list[tuple[ast.Import | ast.ImportFrom, str]]:
    """Parsed once for each text: every rule reads the whole tree, and every seed again."""
    return list(_import_nodes(ast.parse(text), "run"))


def _import_nodes(node: ast.AST, kind: str) -> Iterator[tuple[ast.Import | ast.ImportFrom, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, kind
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _import_nodes(child, "late")
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from _import_nodes(child, "types")
        else:
            yield from _import_nodes(child, kind)


def _is_module(name: str, tree: Tree) -> bool:
    path = name.removeprefix("majordomus.").replace(".", "/")
    return any(f"{path}{end}" in tree for end in (".py", ".pyx", "/__init__.py"))


def sub_package(module: str) -> str:
    """The longest name in SUB_PACKAGES that `module` (without "majordomus.") begins with."""
    fits = [name for name in SUB_PACKAGES if module == name or module.startswith(f"{name}.")]
    return max(fits, key=len, default="")


# -- the rules -----------------------------------------------------------------------------------


def wrong_packages(tree: Tree) -> list[str]:
    """Imports between packages that MAY_IMPORT does not list."""
    wrong = []
    for one in imports(tree):
        first, _, rest = one.module.partition(".")
        if first != "majordomus":
            continue
        name = rest.partition(".")[0]
        target = name if name in MAY_IMPORT else ""
        if target == one.package or (one.file, one.module) in EXCEPTIONS:
            continue
        if target not in MAY_IMPORT[one.package]:
            wrong.append(str(one))
    return wrong


def wrong_sub_packages(tree: Tree) -> list[str]:
    """Imports inside `core` and inside `net` that SUB_PACKAGES does not list."""
    wrong = []
    for one in imports(tree):
        importer = sub_package(one.file.rpartition(".")[0].replace("/", "."))
        target = sub_package(one.module.removeprefix("majordomus."))
        if not importer or not target or importer == target:
            continue
        if importer.partition(".")[0] != target.partition(".")[0]:
            continue
        if one.kind == "types" and (importer, target) in TYPES_BOTH_WAYS:
            continue
        if target not in SUB_PACKAGES[importer]:
            wrong.append(str(one))
    return wrong


def circles(tree: Tree) -> list[str]:
    """Modules that import each other in a circle while the program runs."""
    after: dict[str, set[str]] = defaultdict(set)
    for one in imports(tree):
        if one.kind == "late" and one.module in LATE_IMPORTS:
            continue
        if one.kind != "types" and one.module.startswith("majordomus.") and ".py" in one.file:
            name = one.file.rpartition(".")[0].removesuffix("/__init__").replace("/", ".")
            after[name].add(one.module.removeprefix("majordomus."))
    return [f"{name} imports itself by way of others" for name in after if _reaches(after, name)]


def _reaches(after: dict[str, set[str]], name: str) -> bool:
    seen: set[str] = set()
    waiting = list(after[name] - {name})
    while waiting:
        module = waiting.pop()
        if module == name:
            return True
        if module not in seen:
            seen.add(module)
            waiting += after.get(module, ())
    return False


def impure_rules(tree: Tree) -> list[str]:
    """Imports of clocks, sockets, threads or chance in `core` and `protocol`."""
    return [
        str(one)
        for one in imports(tree)
        if one.package in RULES and one.module.split(".")[0] in FORBIDDEN
    ]


def zeromq_inside(tree: Tree) -> list[str]:
    """Imports of pyzmq outside the packages that use sockets."""
    allowed = {"net", "cli", "messages"} | OUTER  # Message.send writes to a pyzmq socket
    return [
        str(one)
        for one in imports(tree)
        if one.module.split(".")[0] == "zmq" and one.package not in allowed
    ]


def late_imports(tree: Tree) -> list[str]:
    """Imports inside functions: none in `core`, and in `net` only those in LATE_IMPORTS."""
    return [
        str(one)
        for one in imports(tree)
        if one.kind == "late"
        and one.package in ("core", "net")
        and (one.package == "core" or one.module not in LATE_IMPORTS)
    ]


def modules_by_folder(tree: Tree) -> dict[str, set[str]]:
    """Folder → names of its modules, a .pyx file being one and a .pxd file none."""
    found: dict[str, set[str]] = defaultdict(set)
    for file in tree:
        folder, _, name = f"./{file}".rpartition("/")
        stem, _, suffix = name.partition(".")
        if suffix != "pxd" and stem != "__init__":
            found[folder.removeprefix(".").removeprefix("/")].add(stem)
    return found


def crowded_folders(tree: Tree) -> list[str]:
    """Folders of more than MOST_MODULES modules."""
    return [
        f"{folder}: {len(names)} modules"
        for folder, names in modules_by_folder(tree).items()
        if len(names) > MOST_MODULES
    ]


def too_many_at_the_top(tree: Tree) -> list[str]:
    """The modules at the top of `core` and `net`, when there are more than MOST_TOP_MODULES."""
    folders = modules_by_folder(tree)
    top = sorted(f"{name}/{one}" for name in ("core", "net") for one in folders.get(name, ()))
    return top if len(top) > MOST_TOP_MODULES else []


def unmapped(tree: Tree) -> list[str]:
    """Modules and sub-packages without a line `name: what it does` in their package's docstring."""
    members = modules_by_folder(tree)
    for file in tree:
        if file.endswith("/__init__.py"):
            folder, _, name = file.removesuffix("/__init__.py").rpartition("/")
            members[folder].add(name)
    wrong = []
    for folder, names in members.items():
        init = f"{folder}/__init__.py".removeprefix("/")
        docstring = ast.get_docstring(ast.parse(tree.get(init, ""))) or ""
        mapped = {
            word
            for line in docstring.splitlines()
            if ":" in line
            for word in re.findall(r"\w+", line.partition(":")[0])
        }
        wrong += [f"{init} does not name {name}" for name in sorted(names - mapped)]
    return wrong


CLASS = re.compile(r"^(?:cdef\s+)?class\s+(\w+)", re.MULTILINE)


def same_names(tree: Tree) -> list[str]:
    """Class names defined twice that TWINS does not list.

    `contrib` is left out: applications on top of the public API choose their own names.
    """
    where: dict[str, list[str]] = defaultdict(list)
    for file, text in tree.items():
        if not file.endswith(".pxd") and not file.startswith("contrib/"):
            for name in CLASS.findall(text):
                where[name].append(file)
    return [
        f"{name}: {', '.join(files)}"
        for name, files in sorted(where.items())
        if len(files) > 1 and name not in TWINS
    ]


def prefetch_in_rules(tree: Tree) -> list[str]:
    """Rule modules of the broker, besides the machine, that name prefetching or its hints.

    The ring is a data structure, not a rule module: it may ask for its own next nodes. Types live
    in the .pxd, so these may name the class.
    """
    return [
        file
        for file, text in tree.items()
        if file.startswith("core/")
        and not file.startswith(ACCEL)
        and file.partition(".")[0] not in (MACHINE, RING)
        and not file.endswith(".pxd")
        and re.search(r"prefetch|(?<![a-z])hints?(?![a-z])", text, re.IGNORECASE)
    ]


def lone_worker_outside(tree: Tree) -> list[str]:
    """Modules that name `only_worker`: a strategy may, and nothing else."""
    return [
        file
        for file, text in tree.items()
        if "only_worker" in text and not file.startswith(BALANCING)
    ]


def dangers(tree: Tree) -> list[str]:
    """Checks that `python -O` leaves out, and calls that run data as code."""
    found = []
    for file, text in tree.items():
        if not file.endswith(".py"):
            continue
        found += [f"{file}:{line}: {what}" for line, what in _dangers_of(text)]
    return found


@cache
def _dangers_of(text: str) -> list[tuple[int, str]]:
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Assert):
            found.append((node.lineno, "assert"))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in ("eval", "exec", "compile", "__import__"):
                found.append((node.lineno, node.func.id))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
            if {"pickle", "marshal", "shelve"}.intersection(names):
                found.append((node.lineno, "pickle"))
    return found


# -- the tests -----------------------------------------------------------------------------------

TREE = read_tree()


def seeded(**files: str) -> Tree:
    """The source tree with `files` added: `__` in a name is a folder's end."""
    return TREE | {f"{name.replace('__', '/')}.py": text for name, text in files.items()}


FULL = {f"seed_{number}.py": "" for number in range(MOST_MODULES + 1)}
SEEDS: list[tuple[Callable[[Tree], list[str]], Tree, str]] = [
    (wrong_packages, seeded(core__seed="import majordomus.net.waker"), "core/seed.py"),
    (wrong_packages, seeded(protocol__seed="from majordomus.core import broker"), "protocol/seed"),
    (
        wrong_sub_packages,
        seeded(
            core__client__seed=(
                "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"
                "    from majordomus.core.worker.session import WorkerSession"
            )
        ),
        "core/client/seed.py",
    ),
    *(
        (
            wrong_sub_packages,
            seeded(**{f"{importer.replace('.', '__')}__seed": f"import majordomus.{target}"}),
            f"{importer.replace('.', '/')}/seed.py",
        )
        for importer, target in [
            ("core.broker.accel", "core.broker.state.workers"),
            ("core.broker.state", "core.broker.balancing.strategy"),
            ("core.broker.balancing", "core.broker.admission"),
            ("core.session", "core.client.session"),
            ("core.session", "core.broker.state.topics"),
            ("core.worker", "core.client.calls"),
            ("core.broker", "core.session.connection"),
            ("net.zmtp", "net.zmq.sockets"),
            ("net.zmq", "net.connection.link"),
            ("net.connection", "net.client.client"),
            ("net.client", "net.worker.worker"),
            ("net.worker", "net.broker.broker"),
            ("net.broker", "net.client.client"),
            ("net.broker", "net.connection.link"),
        ]
    ),
    (
        wrong_sub_packages,
        TREE | {"core/client/seed.pxd": "from majordomus.core.worker.session cimport A"},
        "core/client/seed.pxd",
    ),
    (
        circles,
        seeded(net__one="import majordomus.net.two", net__two="import majordomus.net.one"),
        "net.one",
    ),
    (impure_rules, seeded(core__seed="import time"), "core/seed.py"),
    (zeromq_inside, seeded(core__seed="import zmq"), "core/seed.py"),
    (late_imports, seeded(core__seed="def f():\n    import json"), "core/seed.py"),
    (late_imports, seeded(net__seed="def f():\n    import majordomus.net.waker"), "net/seed.py"),
    (crowded_folders, TREE | {f"core/session/{name}": "" for name in FULL}, "core/session"),
    (too_many_at_the_top, TREE | {f"core/{name}": "" for name in FULL}, "core/seed_0"),
    (unmapped, seeded(core__session__seed=""), "core/session/__init__.py does not name seed"),
    (same_names, seeded(core__seed="class Waker: ..."), "Waker"),
    (prefetch_in_rules, seeded(core__broker__seed="prefetcher.batch(frames)"), "broker/seed.py"),
    (prefetch_in_rules, seeded(core__broker__state__seed="self.hints = 1"), "state/seed.py"),
    (lone_worker_outside, seeded(core__broker__seed="service.only_worker"), "broker/seed.py"),
    (dangers, seeded(net__seed="assert True"), "net/seed.py"),
    (dangers, seeded(net__seed="eval('1')"), "net/seed.py"),
    (dangers, seeded(net__seed="import pickle"), "net/seed.py"),
]
ALL_RULES = list(dict.fromkeys(rule for rule, _, _ in SEEDS))


@pytest.mark.parametrize("rule", ALL_RULES, ids=lambda rule: rule.__name__)
def test_the_source_tree_keeps_the_rule(rule: Callable[[Tree], list[str]]) -> None:
    assert rule(TREE) == []


@pytest.mark.parametrize(
    ("rule", "tree", "expected"),
    SEEDS,
    ids=[f"{rule.__name__}-{expected}" for rule, _, expected in SEEDS],
)
def test_the_rule_finds_a_seeded_violation(
    rule: Callable[[Tree], list[str]], tree: Tree, expected: str
) -> None:
    found = set(rule(tree)) - set(rule(TREE))
    assert [one for one in found if expected in one]


def test_state_may_import_balancing_for_types_alone() -> None:
    line = "from majordomus.core.broker.balancing.strategy import Strategy"
    typed = f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {line}"
    assert "core/broker/state/seed.py" not in str(
        wrong_sub_packages(seeded(core__broker__state__seed=typed))
    )
    assert "core/broker/state/seed.py" in str(
        wrong_sub_packages(seeded(core__broker__state__seed=line))
    )


def test_every_package_is_in_the_table() -> None:
    assert {one.package for one in imports(TREE)} <= set(MAY_IMPORT)
    assert len(imports(TREE)) > 100


def test_every_folder_of_core_and_net_is_in_the_table() -> None:
    folders = [name for name in modules_by_folder(TREE) if name.startswith(("core", "net"))]
    assert {sub_package(name.replace("/", ".")) for name in folders} == (
        set(SUB_PACKAGES) - {"core.broker.settings"} - ({"core"} - set(folders))
    )


def test_the_table_has_no_circle() -> None:
    assert not [name for name in SUB_PACKAGES if _reaches(SUB_PACKAGES, name)]


def test_every_exception_is_still_needed() -> None:
    assert {(one.file, one.module) for one in imports(TREE)} >= EXCEPTIONS


def test_every_pair_of_twins_is_still_there() -> None:
    names: Iterable[str] = CLASS.findall("\n".join(t for f, t in TREE.items() if f[-3:] != "pxd"))
    counted = list(names)
    assert [name for name in TWINS if counted.count(name) < 2] == []

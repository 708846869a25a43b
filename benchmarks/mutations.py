"""Do the tests notice a fault? Seeded random mutations of `net/` and `middleware/`, made by mutmut.

    python -m benchmarks.mutations draw           a sample: the seed decides
    python -m benchmarks.mutations run            each mutation against the tests of its module
    python -m benchmarks.mutations report         how many were killed, and those that survived

`run` applies each mutation to a copy of the tree and starts the tests of the mutated module there,
until one fails or all have passed. A test that fails is run again by itself, without the mutation
and with it. The mutation is killed if the test then passes and fails; if not, the test is left out
and the others are run. A test that does not end in its time fails: the mutation is killed by time.
`run` may be ended and goes on where it was; `--seconds` bounds it. `--again` runs those that
survived against more tests. `draw` needs `pip install mutmut`; the other two do not.
"""

from __future__ import annotations

import argparse
import ast
import collections
import contextlib
import difflib
import json
import os
import random
import re
import shutil
import signal
import sys
import time
import traceback
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest

ROOT: Final = Path(__file__).parent.parent
MUTATED: Final = ("src/majordomus/net", "src/majordomus/middleware")
LEFT_OUT: Final = (
    "tests/net/any_outcome/",
    "tests/net/broker/test_siege.py",
    "tests/net/client/test_bad_network.py",
    "tests/net/test_ledger.py",
    "tests/test_",
)
"""Tests that take minutes of real time, and those that read the text of the sources."""
SEED: Final = 13
COUNT: Final = 150
MOST: Final = {False: 12.0, True: 60.0}
"""Seconds after which no further test is started for one mutation: at first, and with `--again`."""
COVERING: Final = {False: 3, True: 12}
"""How many test files are taken that do not mirror the module but use its public names."""
TEST_SECONDS: Final = 25
"""A test that takes longer has failed."""
CERTAIN: Final = ("TypeError", "AttributeError", "NameError", "UnboundLocalError")
"""A test that fails with one of these does not fail by chance: it is not run again."""
PRELOADED: Final = (
    "_pytest.assertion.rewrite",
    "asyncio",
    "click",
    "google.protobuf.descriptor_pool",
    "google.protobuf.message",
    "hypothesis.stateful",
    "hypothesis.strategies",
    "msgspec.json",
    "sqlite3",
    "zmq.asyncio",
    "zmq.auth",
)
"""What most tests import, beside the package itself."""
NEAR: Final = {
    "middleware/calls": ("testing/test_call_middleware",),
    "net/broker/loop": ("net/broker/test_turns",),
    "net/broker/security/authentication": ("net/broker/test_revocation",),
    "net/broker/security/direct_authentication": ("net/zmtp/test_secured",),
    "net/broker/security/policy": ("net/zmtp/test_secured",),
    "net/broker/zmq_listener": ("net/broker/test_listener",),
    "net/broker/zmtp_listener": ("net/broker/test_listener", "net/zmtp/test_zmtp"),
    "net/client/async_client": ("net/client/test_async_client", "testing/test_call_middleware"),
    "net/client/calls": ("net/client/test_async_client", "net/broker/security/test_curve"),
    "net/client/client": ("net/client/test_client", "net/test_durable"),
    "net/client/durable": ("net/test_durable",),
    "net/client/middleware": ("testing/test_call_middleware",),
    "net/client/proxy": ("testing/test_typed_calls",),
    "net/client/typed": ("testing/test_typed_calls",),
    "net/client/streams": ("net/client/test_async_client", "net/client/test_lifetime"),
    "net/connection/home_probe": ("net/client/test_spread", "net/client/test_lifetime"),
    "net/connection/inline": ("testing/test_test_broker", "testing/test_typed_calls"),
    "net/connection/link": ("net/client/test_lifetime", "net/connection/test_addresses"),
    "net/connection/memory_link": ("testing/test_test_broker", "testing/test_typed_calls"),
    "net/typed/events": ("testing/test_typed_calls", "testing/test_declare"),
    "net/worker/base": ("net/worker/test_refused", "net/test_durable", "testing/test_declare"),
    "net/worker/declare/lifespan": ("testing/test_declare",),
    "net/worker/declare/router": ("testing/test_declare",),
    "net/worker/declare/services": ("testing/test_declare",),
    "net/worker/events": ("net/client/test_events", "testing/test_typed_calls"),
    "net/worker/parts": ("net/client/test_conversations",),
    "net/worker/processes/child": ("net/worker/processes/test_process_pool",),
    "net/worker/processes/target": ("net/worker/processes/test_process_pool",),
    "net/worker/run": ("net/worker/test_refused", "net/client/test_lifetime"),
    "net/worker/typed": ("net/worker/test_typed", "testing/test_typed_calls"),
}
"""Tests of modules that no test file mirrors and whose names the tests of them do not use."""
FALLBACK: Final = {
    "src/majordomus/net/worker/processes": ("net/worker/processes/test_process_pool",),
    "src/majordomus/net/worker": ("net/worker/test_outcomes", "net/worker/test_worker"),
    "src/majordomus/net/client": ("net/client/test_client", "net/client/test_async_client"),
    "src/majordomus/net/connection": (
        "net/connection/test_link",
        "net/connection/test_addresses",
        "net/connection/test_environment",
        "net/connection/test_secure_links",
    ),
    "src/majordomus/net/broker/security": ("net/broker/security/test_curve",),
    "src/majordomus/net/broker": ("net/broker/test_broker", "net/broker/test_hooks"),
    "src/majordomus/net/zmq": ("net/zmq/test_wire",),
    "src/majordomus/net/zmtp": ("net/zmtp/test_zmtp",),
    "src/majordomus/net": ("net/client/test_client", "net/worker/test_worker"),
    "src/majordomus/middleware": ("middleware/test_middleware", "middleware/test_at_work"),
}
"""Tests of a package, after those of the module. The first entry that fits counts."""


# ── the sample ────────────────────────────────────────────────────────────────────────────────────


def draw(arguments: argparse.Namespace) -> None:
    """Write the sample: for each mutation its file and the whole text of the mutated file."""
    from mutmut.mutation.file_mutation import create_mutations  # type: ignore[import-not-found]

    root: Path = arguments.root
    places: list[tuple[str, int]] = []
    parsed: dict[str, tuple[Any, list[Any]]] = {}
    for folder in MUTATED:
        for path in sorted((root / folder).rglob("*.py")):
            name = str(path.relative_to(root))
            module, mutations, *_ = create_mutations(name, path.read_text())
            parsed[name] = module, mutations
            inside = [
                number
                for number, one in enumerate(mutations)
                if one.contained_by_top_level_function is not None
            ]
            places += [(name, number) for number in inside]
    print(f"{len(places)} mutations in all")
    chosen = sorted(random.Random(arguments.seed).sample(places, arguments.count))
    sample: list[dict[str, Any]] = []
    for name, number in chosen:
        text = (root / name).read_text()
        module, mutations = parsed[name]
        one = mutations[number]
        mutated = module.deep_replace(one.original_node, one.mutated_node).code
        diff = list(difflib.unified_diff(text.splitlines(), mutated.splitlines(), n=0, lineterm=""))
        line = int(diff[2].split()[1].partition(",")[0].lstrip("-"))
        sample.append(
            {"file": name, "number": number, "line": line, "diff": diff[3:], "text": mutated}
        )
    # A part of the sample, in this order, is a sample as well.
    random.Random(arguments.seed).shuffle(sample)
    state(root).mkdir(parents=True, exist_ok=True)
    drawn = {"seed": arguments.seed, "all": len(places), "sample": sample}
    (state(root) / "sample.json").write_text(json.dumps(drawn))
    print(f"{len(sample)} drawn with seed {arguments.seed}")


def state(root: Path) -> Path:
    """Return the folder of the sample and the results."""
    return root / "build" / "mutations"


def read_results(root: Path) -> dict[str, dict[str, Any]]:
    """Return the last result of each mutation."""
    path = state(root) / "results.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return {one["key"]: one for one in map(json.loads, lines)}


# ── the tests of a module ─────────────────────────────────────────────────────────────────────────


@cache
def test_words(root: Path) -> dict[str, collections.Counter[str]]:
    """Return each test file's words, dotted names included, with how often they occur."""
    found: dict[str, collections.Counter[str]] = {}
    for path in sorted((root / "tests").rglob("test_*.py")):
        name = str(path.relative_to(root))
        if not name.startswith(LEFT_OUT):
            text = path.read_text()
            words = re.findall(r"[A-Za-z_][\w]*", text) + re.findall(r"[a-z_]+(?:\.[a-z_]+)+", text)
            found[name] = collections.Counter(words)
    return found


@cache
def test_files(root: Path, module: str, more: bool) -> list[str]:
    """Return the test files of a module, the nearest first.

    First the one that mirrors it: `tests/net/worker/test_load.py` for `net/worker/load.py`. Then
    those that import it or use its public names most. Then those of its package.
    """
    words = test_words(root)
    inner = module.removeprefix("src/majordomus/")
    mirror = str(Path("tests", inner).with_name(f"test_{Path(inner).name}"))
    dotted = module.removeprefix("src/").removesuffix(".py").replace("/", ".")
    public = [
        node.name
        for node in ast.parse((root / module).read_text()).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith("_")
    ]
    # A name that many test files have, as Client, says little about where the module is tested.
    weights = {
        name: 1 / max(1, sum(name in file for file in words.values())) for name in (*public, dotted)
    }
    scores = {
        name: sum(file[word] * weight for word, weight in weights.items())
        for name, file in words.items()
    }
    covering = sorted((name for name in words if scores[name]), key=lambda name: -scores[name])
    package = next(value for name, value in FALLBACK.items() if module.startswith(f"{name}/"))
    found = [
        mirror,
        *(f"tests/{name}.py" for name in NEAR.get(inner.removesuffix(".py"), ())),
        *covering[: COVERING[more]],
        *(f"tests/{name}.py" for name in package),
    ]
    if more:
        folder = str(Path(mirror).parent)
        found += [name for name in words if str(Path(name).parent) == folder]
    return list(dict.fromkeys(name for name in found if name in words))


# ── one mutation after the other ──────────────────────────────────────────────────────────────────


class Tree:
    """A copy of the tree, in which one module at a time is mutated."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root = root
        self.folder = folder
        known = state(root) / "green.json"
        self.green: dict[str, bool] = json.loads(known.read_text()) if known.exists() else {}
        self._stamp = time.time_ns() // 10**9
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for path in root.iterdir():
            if path.name.startswith(".") or path.name in ("build", "dist"):
                continue
            if path.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "node_modules")
                shutil.copytree(path, folder / path.name, ignore=ignored)
            else:
                shutil.copy(path, folder / path.name)

    def test(self, one: dict[str, Any], more: bool) -> dict[str, Any]:
        """Return the outcome of one mutation, and the test that has decided it."""
        files = list(test_files(self.root, one["file"], more))
        red: list[str] = []
        while True:
            failed, why, ended = (
                self.mutated(one, files, MOST[more], red) if files else ("", "", True)
            )
            if failed and not self.passes(failed):
                if failed in files and why == "crash":
                    sys.exit(f"{failed} cannot be run: see {self.folder / 'output'}")
                red.append(failed)  # it fails without the mutation as well
                if failed in files:
                    files.remove(failed)
            elif (
                failed
                and not why.startswith(CERTAIN)
                and not self.mutated(one, [failed], TEST_SECONDS, [])[0]
            ):
                red.append(failed)  # it passes with the mutation: its failure was chance
            else:
                return {
                    "outcome": "killed" if failed else "survived",
                    "by": failed,
                    "why": why,
                    "files": files,
                    "all": ended,
                    "red": red,
                }

    def mutated(
        self, one: dict[str, Any], tests: list[str], most: float, without: list[str]
    ) -> tuple[str, str, bool]:
        """Run tests with the mutation, until one fails."""
        target = self.folder / one["file"]
        original = target.read_text()
        try:
            self._write(target, one["text"])
            return self.first_failure(tests, most, without)
        finally:
            self._write(target, original)

    def _write(self, target: Path, text: str) -> None:
        """Write a module with a time of its own: no bytecode of another text is used for it."""
        self._stamp += 2
        target.write_text(text)
        os.utime(target, (self._stamp, self._stamp))

    def passes(self, test: str) -> bool:
        """Tell whether a test, or all of a file, passes without a mutation."""
        if test not in self.green:
            self.green[test] = not self.first_failure([test], TEST_SECONDS, [])[0]
            (state(self.root) / "green.json").write_text(json.dumps(self.green))
        return self.green[test]

    def first_failure(
        self, tests: list[str], most: float, without: list[str]
    ) -> tuple[str, str, bool]:
        """Return the test that failed, why, and whether all tests were run.

        A fork runs them: to import what the tests need would take longer than most of them.
        """
        outcome = self.folder / "outcome.json"
        outcome.unlink(missing_ok=True)
        running = self.folder / "running"
        running.write_text(tests[0])
        pid = os.fork()
        if not pid:
            _run_tests(tests, self.folder, most, without, outcome)
        ended = 0
        # pytest's own timeout does not end a test that is in a loop of C.
        while not ended and time.time() - running.stat().st_mtime < TEST_SECONDS + 5:
            ended, _ = os.waitpid(pid, os.WNOHANG)
            time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # and what the tests have started and not ended
        if not ended:
            os.waitpid(pid, 0)
            return running.read_text(), "time", False
        if not outcome.exists():
            return running.read_text(), "crash", False
        failed, why, complete = json.loads(outcome.read_text())
        return failed, why, complete


class Outcome:
    """A pytest plugin: which test has failed first; it ends a session that takes too long."""

    def __init__(self, most: float, running: Path) -> None:
        self._running = running
        self.failed = ""
        self.why = ""
        self.complete = True
        self._until = time.monotonic() + most

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and not self.failed:
            self.failed, self.why = report.nodeid, reason(report)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.failed:
            self.failed, self.why = report.nodeid, reason(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        if time.monotonic() < self._until:
            self._running.write_text(item.nodeid)
            return None
        item.session.shouldstop = "the time is over"
        self.complete = False
        return True


def reason(report: pytest.CollectReport | pytest.TestReport) -> str:
    """Return the exception that a test has failed with, "time" for its timeout."""
    text = report.longreprtext
    raised = [line[1:].strip() for line in text.splitlines() if line.startswith("E ")]
    return "time" if "Timeout (>" in text else raised[0][:200] if raised else "failure"


def _run_tests(
    tests: list[str], folder: Path, most: float, without: list[str], outcome: Path
) -> NoReturn:
    """Run tests in this process, write the outcome, and end it."""
    os.setsid()
    output = os.open(folder / "output", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(folder)
    sys.path[:] = [str(folder), str(folder / "src"), *sys.path]
    os.environ["PYTHONPATH"] = str(folder / "src")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False  # to compile all modules each time would take seconds
    plugin = Outcome(most, folder / "running")
    code = 99
    try:
        flags = ["-x", "-q", "-p", "no:cacheprovider", "--timeout", str(TEST_SECONDS)]
        flags += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # they are preloaded
        flags += [f"--deselect={name}" for name in without]
        code = int(pytest.main([*flags, *tests], plugins=[plugin]))
        if plugin.failed or code in (0, 2, 5):
            written = outcome.with_suffix(".new")
            written.write_text(json.dumps([plugin.failed, plugin.why, plugin.complete]))
            written.rename(outcome)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(arguments: argparse.Namespace) -> None:
    """Test the mutations of the sample that have no result yet, or those that survived."""
    until = time.monotonic() + arguments.seconds
    for name in PRELOADED:
        with contextlib.suppress(ImportError):
            import_module(name)
    root: Path = arguments.root
    results = read_results(root)
    sample = json.loads((state(root) / "sample.json").read_text())["sample"]
    tree = Tree(root, arguments.copy or state(root) / "copy")
    for place, one in enumerate(sample):
        key = f"{one['file']}:{one['number']}"
        last = results.get(key)
        if last and not (arguments.again and last["outcome"] == "survived" and not last["more"]):
            continue
        if time.monotonic() > until:
            break
        began = time.monotonic()
        result = {"key": key, "more": arguments.again, **tree.test(one, arguments.again)}
        took = time.monotonic() - began
        with (state(root) / "results.jsonl").open("a") as file:
            file.write(json.dumps(result) + "\n")
        what = f"{result['outcome']} {result['by']} {result['why'][:60]}"
        print(f"{place + 1} {one['file']}:{one['line']} {what} ({took:.0f} s)", flush=True)
    print(f"{len(read_results(root))} have a result")


def report(arguments: argparse.Namespace) -> None:
    """Print the counts and the survivors."""
    root: Path = arguments.root
    drawn = json.loads((state(root) / "sample.json").read_text())
    results = read_results(root)
    counts: collections.Counter[str] = collections.Counter()
    for one in sorted(drawn["sample"], key=lambda one: (one["file"], one["line"])):
        found = results.get(f"{one['file']}:{one['number']}")
        if not found:
            counts["no result"] += 1
        elif found["outcome"] == "killed":
            counts["killed by time" if found["why"] == "time" else "killed by a test"] += 1
        else:
            counts["survived"] += 1
            cut = "" if found["all"] else ", ended before all tests were run"
            print(f"\n{one['file']}:{one['line']} ({len(found['files'])} test files{cut})")
            print("\n".join(one["diff"]))
    killed = counts["killed by time"] + counts["killed by a test"]
    total = killed + counts["survived"]
    print(f"\nseed {drawn['seed']}, {drawn['all']} mutations, {len(drawn['sample'])} drawn")
    print(", ".join(f"{name}: {count}" for name, count in sorted(counts.items())))
    print(f"{killed} of {total} killed: {100 * killed / max(1, total):.1f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("draw", "run", "report"))
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--seconds", type=float, default=1e9, help="of `run`; begin none later")
    parser.add_argument("--again", action="store_true", help="`run`: survivors, with more tests")
    parser.add_argument("--root", type=Path, default=ROOT, help="the tree that is mutated")
    parser.add_argument("--copy", type=Path, help="`run`: folder of the copy, best in memory")
    arguments = parser.parse_args()
    {"draw": draw, "run": run, "report": report}[arguments.what](arguments)


if __name__ == "__main__":
    main()

"""The runner of `make mutations`, on a tree of one module: what is killed and what survives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from benchmarks import mutations

MODULE: Final = "src/majordomus/net/waiting.py"
TEXT: Final = """\
def waiting(queued: int, served: int) -> int:
    left = queued - served
    return max(left, 0)
"""
TESTS: Final = """\
import pathlib
from majordomus.net.waiting import waiting

def test_queue_that_is_empty_has_none_waiting():
    assert waiting(3, 3) == 0

def test_queue_has_what_is_not_served():
    assert waiting(3, 1) == 2
"""
CHANCE: Final = """
def test_fails_once():
    path = pathlib.Path("failed")
    failed = path.exists()
    path.touch()
    assert failed
"""
KILLED: Final = ("queued - served", "queued + served")
EQUIVALENT: Final = ("max(left, 0)", "max(left, +0)")


def make_tree(root: Path, changes: list[tuple[str, str]], tests: str) -> None:
    """Write a tree of one module and one test file, and a sample of these changes."""
    for name, text in (
        (MODULE, TEXT),
        ("src/majordomus/__init__.py", ""),
        ("src/majordomus/net/__init__.py", ""),
        ("tests/net/test_waiting.py", tests),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    sample = [
        {
            "file": MODULE,
            "number": number,
            "line": 2,
            "diff": [f"-{old}", f"+{new}"],
            "text": TEXT.replace(old, new),
        }
        for number, (old, new) in enumerate(changes)
    ]
    folder = root / "build" / "mutations"
    folder.mkdir(parents=True)
    (folder / "sample.json").write_text(json.dumps({"seed": 1, "all": 9, "sample": sample}))


def run_tool(root: Path, *words: str) -> str:
    command = [sys.executable, "-m", "benchmarks.mutations", *words, "--root", str(root)]
    # The plugin of majordomus is not in this tree.
    own = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "pytest_timeout"}
    ended = subprocess.run(
        command,
        cwd=mutations.ROOT,
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_fault_that_a_test_notices_is_killed_and_an_equivalent_change_survives(
    tmp_path: Path,
) -> None:
    make_tree(tmp_path, [KILLED, EQUIVALENT], TESTS)
    run_tool(tmp_path, "run")
    results = mutations.read_results(tmp_path)
    assert [(one["outcome"], one["by"], one["all"]) for one in results.values()] == [
        (
            "killed",
            "tests/net/test_waiting.py::test_queue_that_is_empty_has_none_waiting",
            True,
        ),
        ("survived", "", True),
    ]
    assert run_tool(tmp_path, "report").splitlines() == [
        "",
        f"{MODULE}:2 (1 test files)",
        "-max(left, 0)",
        "+max(left, +0)",
        "",
        "seed 1, 9 mutations, 2 drawn",
        "killed by a test: 1, survived: 1",
        "1 of 2 killed: 50.0 %",
    ]


def test_test_that_fails_by_chance_kills_nothing(tmp_path: Path) -> None:
    make_tree(tmp_path, [EQUIVALENT], TESTS + CHANCE)
    run_tool(tmp_path, "run")
    (result,) = mutations.read_results(tmp_path).values()
    assert result["outcome"] == "survived"
    assert result["red"] == ["tests/net/test_waiting.py::test_fails_once"]


def test_module_is_tested_first_by_the_file_that_mirrors_it() -> None:
    files = mutations.test_files(mutations.ROOT, "src/majordomus/net/worker/load.py", False)
    assert files[0] == "tests/net/worker/test_load.py"
    assert "tests/net/worker/test_worker.py" in files


def test_each_module_that_may_be_mutated_has_tests() -> None:
    for folder in mutations.MUTATED:
        for path in (mutations.ROOT / folder).rglob("*.py"):
            assert mutations.test_files(
                mutations.ROOT, str(path.relative_to(mutations.ROOT)), False
            )

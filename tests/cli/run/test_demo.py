"""`majordomus demo`: all of it happens, in time, and nothing is left, however it ends."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from majordomus.cli.run import demo
from majordomus.cli.run.demo import SCRIPT, DemoStepError, Stage, perform
from tests.cli.shell import LIMIT, Running, Shell, gone


def children_of(pid: int) -> set[int]:
    """The processes that `pid` has started."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        found |= {int(child) for child in (task / "children").read_text().split()}
    return found


def wait_for_children(running: Running, wanted: int) -> set[int]:
    until = time.monotonic() + LIMIT
    while len(children := children_of(running.process.pid)) < wanted:
        assert time.monotonic() < until
        time.sleep(0.02)
    return children


def test_demo_shows_every_step_in_less_than_15_seconds(shell: Shell) -> None:
    began = time.monotonic()
    done = shell.run("demo")
    assert time.monotonic() - began < 15
    assert (done.code, done.err) == (0, "")
    lines = done.out.decode().splitlines()
    assert lines[0].split() == ["STEP", "HAPPENED", "MS", "STATE"]
    assert [line[: len(name)] for line, (name, _) in zip(lines[1:], SCRIPT, strict=True)] == [
        name for name, _ in SCRIPT
    ]
    assert all(line.endswith("  ok") for line in lines[1:])


def test_demo_s_json_says_the_same_and_its_processes_are_gone(shell: Shell) -> None:
    running = shell.start("demo", "--json")
    children = wait_for_children(running, 4)
    assert running.process.wait(LIMIT) == 0
    report = json.loads("\n".join(running.out.rest()))
    assert report["ok"] is True
    assert [step["step"] for step in report["steps"]] == [name for name, _ in SCRIPT]
    assert all(gone(pid) for pid in children)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_demo_that_is_interrupted_leaves_nothing_running(
    number: signal.Signals, shell: Shell
) -> None:
    running = shell.start("demo")
    children = wait_for_children(running, 4)
    code = running.stop(number)
    assert all(gone(pid) for pid in children)
    if number is not signal.SIGKILL:
        assert code == 130
        assert running.err.rest() == ["majordomus demo: interrupted"]


def test_step_that_fails_is_the_last_one_and_everything_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stages: list[Stage] = []

    def remember(stage: Stage) -> str:
        stages.append(stage)
        raise DemoStepError("it went wrong")

    script = (*SCRIPT[:2], ("sabotage", remember), *SCRIPT[2:])
    steps = list(perform(script))
    assert [(step.step, step.state) for step in steps] == [
        ("a broker starts", "ok"),
        ("3 workers start", "ok"),
        ("sabotage", "failed"),
    ]
    assert steps[-1].happened == "it went wrong"
    everyone = [*stages[0].workers, stages[0].broker]
    assert len(everyone) == 4
    assert all(one is not None and one.child.returncode is not None for one in everyone)


def test_failed_step_is_exit_1_and_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_stage: Stage) -> str:
        raise DemoStepError("it went wrong")

    from majordomus import cli

    monkeypatch.setattr(demo, "perform", lambda: perform((("a broker starts", fail),)))
    assert cli.run_command(["demo", "--json"]) == 1
    captured = capsys.readouterr()
    assert captured.err == "majordomus demo: a broker starts: it went wrong\n"
    assert json.loads(captured.out)["ok"] is False

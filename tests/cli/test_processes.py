"""How a process of ours ends when it is told to before it listens to signals itself."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

LIMIT = 30.0
BEGIN = """
import os, select, signal
from majordomus.cli import processes
processes.exit_on_sigterm()
"""
WAIT = """
print("waits", flush=True)
os.read(0, 1)
os._exit(7)
"""
IN_A_CALL_THAT_THE_SIGNAL_DOES_NOT_INTERRUPT = "signal.pthread_sigmask(signal.SIG_BLOCK, [15])"
LISTENS_ITSELF = "signal.signal(signal.SIGTERM, lambda *_: print('heard', flush=True))"
IN_SHORT_CALLS = """
print("waits", flush=True)
while not select.select([0], [], [], 0.02)[0]:
    pass
os._exit(7)
"""
CATCHES_EVERYTHING = """
print("waits", flush=True)
while True:
    try:
        sum(range(1000))
    except BaseException as error:
        print("raised", type(error).__name__, flush=True)
"""

Begin = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def begin() -> Iterator[Begin]:
    begun: list[subprocess.Popen[str]] = []

    def one(more: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-c", BEGIN + more + WAIT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        begun.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "waits\n"
        return child

    yield one
    for child in begun:
        child.kill()
        child.communicate()


@pytest.mark.parametrize("more", ["", IN_A_CALL_THAT_THE_SIGNAL_DOES_NOT_INTERRUPT])
def test_sigterm_ends_it_wherever_it_waits(begin: Begin, more: str) -> None:
    child = begin(more)
    child.send_signal(signal.SIGTERM)
    assert child.wait(LIMIT) == 0


def test_sigterm_is_not_raised_into_the_code_that_runs(begin: Begin) -> None:
    child = begin(CATCHES_EVERYTHING)
    child.send_signal(signal.SIGTERM)
    assert child.wait(LIMIT) == 0
    assert child.stdout is not None
    assert child.stdout.read() == ""


def test_sigint_is_none_of_its_business(begin: Begin) -> None:
    child = begin(IN_SHORT_CALLS)
    child.send_signal(signal.SIGINT)
    assert child.wait(LIMIT) == -signal.SIGINT


def test_who_listens_itself_is_left_alone(begin: Begin) -> None:
    child = begin(LISTENS_ITSELF + IN_SHORT_CALLS)
    assert child.stdout is not None
    for _ in range(3):
        child.send_signal(signal.SIGTERM)
        assert child.stdout.readline() == "heard\n"
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.5)
    assert child.communicate("x")[0] == ""
    assert child.returncode == 7

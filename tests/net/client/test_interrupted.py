"""A signal handler that raises, at any point of a call: the client serves the next call.

Alarms come at random moments of many calls. What they may leave behind (the I/O owned by nobody, a
lock held) shows as a later call that does not return.
"""

from __future__ import annotations

import contextlib
import faulthandler
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError

import pytest

from majordomus.core.client.session import ClientSettings
from majordomus.errors import LocalProtocolError, MajordomusError
from majordomus.net.client.client import Client
from majordomus.net.gate import Gate, SafeCondition
from majordomus.net.worker.worker import Worker
from tests.net.conftest import eventually

ROUNDS = 200
LATEST = 0.0008
"""Seconds: about twice as long as a call takes on a quiet machine."""


class Alarm(Exception):
    """Raised by the signal handler, anywhere."""


@pytest.fixture
def client(url: str, worker: Worker) -> Iterator[Client]:
    """A client whose test fails with the stacks of all threads if it hangs."""
    faulthandler.dump_traceback_later(100, exit=True)
    quick = ClientSettings(retry_first=0.001, retry_most=0.01)
    with Client(url, timeout=10.0, settings=quick) as made:
        yield made
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def alarm() -> Iterator[Callable[[], None]]:
    """A function that sets the alarm to a random moment."""

    def handler(*_: object) -> None:
        raise Alarm

    before = signal.signal(signal.SIGALRM, handler)
    yield lambda: signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00001, LATEST)) and None
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def call(client: Client) -> None:
    client.call("echo", b"x")


def future(client: Client) -> None:
    client.submit("echo", b"x").result(10.0)


def stream(client: Client) -> None:
    with client.stream("count", b"3") as parts:
        assert [part.body for part in parts] == [b"0", b"1", b"2"]


def hedged(client: Client) -> None:
    client.call("echo", b"x", hedge_after=0.0001)


def event(client: Client) -> None:
    with client.subscribe("topic") as events:
        client.publish("topic", b"x")
        events.get(10.0)


def running() -> list[threading.Thread]:
    """The threads of clients. One that an alarm has kept from its start is listed for ever."""
    listed = threading.enumerate()
    return [one for one in listed if one.name == "majordomus-client" and one.is_alive()]


# An alarm within a finalizer is printed by the interpreter, and has no other effect.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
@pytest.mark.parametrize("background", [False, True], ids=["alone", "background"])
@pytest.mark.parametrize("use", [call, future, stream, hedged, event])
def test_client_serves_after_a_signal_handler_has_raised_anywhere(
    client: Client,
    alarm: Callable[[], None],
    use: Callable[[Client], None],
    background: bool,
) -> None:
    if background:
        client.submit("echo", b"x").result(10.0)
    interrupted = 0
    for _ in range(ROUNDS):
        try:
            try:
                alarm()
                use(client)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except (Alarm, RuntimeError, MajordomusError, CancelledError):
            interrupted += 1
        except KeyError as error:  # of CPython's Thread.start, which the alarm has broken off
            assert isinstance(error.__context__, Alarm)
            interrupted += 1
        with contextlib.suppress(Alarm):
            began = time.monotonic()
            assert client.call("echo", b"after").body == b"after"
            assert time.monotonic() - began < 9.0
    assert interrupted > ROUNDS // 20
    eventually(lambda: len(running()) <= 1)


def test_gate_that_is_opened_twice_ends_one_wait() -> None:
    gate = Gate()
    gate.open()
    gate.open()
    assert (gate.wait(), gate.wait(0.01)) == (True, False)


def test_condition_is_entered_and_left_by_methods_of_its_lock() -> None:
    condition = SafeCondition()
    with condition:
        condition.notify_all()
        assert condition._is_owned()  # type: ignore[attr-defined]
    assert not condition._is_owned()  # type: ignore[attr-defined]
    assert "builtin" in type(condition.__exit__).__name__


def test_call_from_within_a_call_of_the_same_thread_is_refused(client: Client) -> None:
    found: list[Exception] = []

    def nested() -> bool:
        with pytest.raises(LocalProtocolError, match="from within a call") as raised:
            client.call("echo", b"inner")
        found.append(raised.value)
        with pytest.raises(LocalProtocolError, match="from within a call"):
            client.submit("echo", b"inner")
        return True

    client._runner.driver.drive(nested)
    assert len(found) == 1
    assert client.call("echo", b"x").body == b"x"

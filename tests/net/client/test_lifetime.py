"""How the sync client begins and ends: dropped unclosed, at the exit of the interpreter, after a
fork, and where threads are replaced."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest

from majordomus.core.session.connection import CLOSED
from majordomus.errors import LocalProtocolError
from majordomus.net.broker.broker import Broker
from majordomus.net.client.client import Client
from majordomus.net.worker.worker import Worker
from tests.net.conftest import complaints, eventually

THREAD = "majordomus-client"


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def client_threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == THREAD]


def use(client: Client, how: str) -> None:
    if how == "call":
        assert client.call("echo", b"x").body == b"x"
    elif how == "submit":
        assert client.submit("echo", b"x").result(5.0).body == b"x"


# ── dropped ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
@pytest.mark.parametrize("how", ["call", "submit"])
def test_client_that_is_dropped_unclosed_warns_and_leaves_nothing_open(
    url: str, worker: Worker, how: str
) -> None:
    with Client(url) as before:  # whatever the first client of a process opens for good
        use(before, how)
    gc.collect()
    eventually(lambda: not client_threads())
    open_before = descriptors()
    with pytest.warns(ResourceWarning, match="dropped without close"):
        client = Client(url)
        use(client, how)
        assert descriptors() > open_before
        del client
        gc.collect()
    eventually(lambda: (client_threads(), descriptors()) == ([], open_before))


def test_client_that_was_never_used_is_dropped_without_a_warning(url: str) -> None:
    gc.collect()  # what other tests have dropped is not counted
    open_before = descriptors()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        client = Client(url)
        del client
        gc.collect()
    assert descriptors() == open_before


def test_client_that_is_dropped_runs_no_step_of_its_session(url: str, worker: Worker) -> None:
    """A finalizer may run wherever memory is allocated. Every step begins with the commands, and
    the last one ends the session."""
    client = Client(url)
    use(client, "call")
    driver, session, steps = client._runner.driver, client._runner.session, []
    driver._commands.append(steps.append)
    with pytest.warns(ResourceWarning, match="dropped without close"):
        del client
        gc.collect()
    assert (steps, driver.ended, driver.up) == ([], True, False)
    assert session.connection.state is not CLOSED


def test_future_and_stream_keep_a_dropped_client_until_they_have_ended(
    url: str, worker: Worker
) -> None:
    with pytest.warns(ResourceWarning, match="dropped without close"):
        future = Client(url, timeout=5.0).submit("echo", b"x")
        gc.collect()
        assert future.result(5.0).body == b"x"
        del future
        parts = Client(url, timeout=5.0).stream("count", b"3")
        gc.collect()
        assert [part.body for part in parts] == [b"0", b"1", b"2"]
        del parts
        gc.collect()
    eventually(lambda: not client_threads())


# ── the exit of the interpreter ───────────────────────────────────────────────────────────────────

AT_EXIT = """
import sys
from majordomus import Client

class Holder:
    def __init__(self):
        self.client = Client(sys.argv[1])
        if sys.argv[2] == "submit":
            self.client.submit("echo", b"first").result()
        else:
            self.client.call("echo", b"first")
    def __del__(self):
        for body in ("1", "2"):
            try:
                print(self.client.call("echo", body, timeout=2).text, flush=True)
            except Exception as error:
                print(type(error).__name__, error, flush=True)
        try:
            print(self.client.submit("echo", b"3").result(2).text, flush=True)
        except Exception as error:
            print(type(error).__name__, flush=True)
        self.client.close()

holder = Holder()
"""


@pytest.mark.parametrize("first", ["call", "submit"])
def test_calls_at_the_exit_of_the_interpreter_end(url: str, worker: Worker, first: str) -> None:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", AT_EXIT, url, first],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, complaints(done.stderr)) == (0, [])
    assert done.stdout.split() == ["1", "2", "LocalProtocolError"], done.stdout
    assert time.monotonic() - began < 20


# ── forks ─────────────────────────────────────────────────────────────────────────────────────────

FORKED = """
import os, sys
from majordomus import Client

client = Client(sys.argv[1], timeout=10)
children = []
for number in range(3):
    child = os.fork()
    if not child:
        first, second = client.call("echo", b"%d" % number), client.submit("echo", b"y").result()
        texts = f"{first.text} {second.text}"
        print(f"{texts} {client._session._hello[0].hex()}\\n", end="", flush=True)
        os._exit(0)
    children.append(child)
text = client.call("echo", b"p").text
print(f"{text} y {client._session._hello[0].hex()}\\n", end="", flush=True)
child = os.fork()
if not child:
    try:
        client.call("echo", b"x")
    except Exception as error:
        print(f"refused {error}\\n", end="", flush=True)
    client.close()
    os._exit(0)
for one in [*children, child]:
    os.waitpid(one, 0)
print(client.call("echo", b"still").text, flush=True)
client.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_client_that_was_not_used_before_a_fork_may_be_used_in_the_child(
    url: str, worker: Worker
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED, url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, complaints(done.stderr)) == (0, [])
    lines = sorted(done.stdout.splitlines())
    calls = [line.split() for line in lines[:4]]
    assert [line[:2] for line in calls] == [["0", "y"], ["1", "y"], ["2", "y"], ["p", "y"]]
    assert len({line[2] for line in calls}) == 4
    assert lines[4:] == [
        "refused forked: this client belongs to the parent process; make a new one after a fork",
        "still",
    ]


# ── replaced threads ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("module", "found"),
    [
        ("gevent.monkey", SimpleNamespace(is_module_patched=lambda name: name == "threading")),
        ("eventlet.patcher", SimpleNamespace(is_monkey_patched=lambda name: name == "thread")),
    ],
)
def test_submit_is_refused_in_one_sentence_where_threads_are_replaced(
    broker: Broker,
    worker: Worker,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    found: SimpleNamespace,
) -> None:
    monkeypatch.setitem(sys.modules, module, found)  # type: ignore[arg-type]
    with Client(broker.endpoints[0], timeout=5.0) as client:
        use(client, "call")
        with pytest.raises(LocalProtocolError, match="gevent or eventlet has replaced threads"):
            client.submit("echo", b"x")
        use(client, "call")


# ── callbacks ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration])
def test_callback_that_raises_a_base_exception_is_logged_and_the_client_goes_on(
    url: str, worker: Worker, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    seen: list[int] = []

    def fails(_: object) -> None:
        seen.append(1)
        raise error

    with Client(url, timeout=5.0) as client:
        future = client.submit("sleep", b"0.1")
        future.add_done_callback(fails)
        future.add_done_callback(lambda _: seen.append(2))
        future.result(5.0)
        eventually(lambda: seen == [1, 2])
        assert client.submit("echo", b"x").result(5.0).body == b"x"
        assert client.call("echo", b"x").body == b"x"
    assert error.__name__ in caplog.text


ASYNC_FORKED = """
import asyncio, os, sys
from majordomus import AsyncClient

client = AsyncClient(sys.argv[1], timeout=10)

async def use():
    text = (await client.call("echo", b"x")).text
    await client.close()
    return f"{text} {client._session._hello[0].hex()}\\n"

child = os.fork()
print(asyncio.run(use()), end="", flush=True)
if child:
    os.waitpid(child, 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_async_client_that_was_not_used_before_a_fork_may_be_used_in_the_child(
    url: str, worker: Worker
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASYNC_FORKED, url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, complaints(done.stderr)) == (0, [])
    calls = [line.split() for line in done.stdout.splitlines()]
    assert [text for text, _ in calls] == ["x", "x"]
    assert len({session for _, session in calls}) == 2

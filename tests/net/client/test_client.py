"""The sync client: calls in its only thread or in the background thread, and their outcomes."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from pathlib import Path

import pytest

from majordomus.errors import (
    BrokerLost,
    Cancelled,
    ConfigurationError,
    DeadlineExceeded,
    HandlerFailed,
    LocalProtocolError,
    NotFound,
    TooLarge,
    Unavailable,
)
from majordomus.messages import Message
from majordomus.net.broker.broker import Broker
from majordomus.net.client import driver
from majordomus.net.client.client import Client
from majordomus.net.connection.zmtp_link import ZmtpLink
from majordomus.net.worker.request import Request
from majordomus.net.worker.worker import Worker
from majordomus.net.zmq import select as wires
from tests.net.conftest import QUICK, Seen, eventually, serve_all

NO_BROKER = "tcp://127.0.0.1:1"


@pytest.fixture
def client(url: str, worker: Worker) -> Iterator[Client]:
    with Client(url, timeout=5.0) as made:
        yield made


def threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name == "majordomus-client"]


@pytest.mark.parametrize(
    ("body", "frames"),
    [
        (b"x", [b"x"]),
        (None, []),
        (b"", [b""]),
        ("é", ["é".encode()]),
        ([b"a", "b", b""], [b"a", b"b", b""]),
        (Message([b"a", b"b"]), [b"a", b"b"]),
        (b"x" * 1_000_000, [b"x" * 1_000_000]),
    ],
)
def test_echo_comes_back_as_it_was_sent(client: Client, body: object, frames: list[bytes]) -> None:
    reply = client.call("echo", body)  # type: ignore[arg-type]
    assert (reply.frames, reply.status, reply.body) == (frames, 200, b"".join(frames))
    assert len(reply.worker) > 0


def test_calls_of_one_thread_need_no_other_thread(client: Client) -> None:
    for number in range(100):
        assert client.call("echo", b"%d" % number).body == b"%d" % number
    assert [reply.body for reply in client.stream("count", b"3")] == [b"0", b"1", b"2"]
    client.send("log", b"x")
    assert threads() == []


def received_before_sends(client: Client) -> list[int]:
    """Count the receives before the send of each of two calls, one after the other."""
    client.call("echo", b"this connects")
    link = client._runner.driver._connection.link
    assert link is not None
    before, receives, receive, send = [], 0, link.receive, link.send

    def receiving(most: int) -> list[list[bytes]]:
        nonlocal receives
        receives += 1
        return receive(most)

    def sending(batch: list[list[bytes]]) -> list[tuple[int, int]]:
        nonlocal receives
        before.append(receives)
        receives = 0
        return send(batch)

    link.receive, link.send = receiving, sending  # type: ignore[method-assign]
    assert client.call("echo", b"1").body == b"1"
    receives = 0
    assert client.call("echo", b"2").body == b"2"
    return before


@pytest.mark.skipif(not wires.OWN_ZMTP, reason="a link of libzmq is always checked")
class TestConnectionIsCheckedBeforeASend:
    def test_call_that_follows_another_at_once_sends_before_it_receives(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(driver, "JUST_CHECKED", 3600.0)
        assert received_before_sends(client) == [0, 0]

    def test_call_after_a_pause_receives_before_it_sends(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(driver, "JUST_CHECKED", 0.0)
        assert received_before_sends(client) == [1, 1]

    def test_request_that_is_sent_once_is_always_sent_after_a_check(
        self, client: Client, seen: Seen, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(driver, "JUST_CHECKED", 3600.0)

        def call() -> None:
            assert client.call("echo", b"1", timeout=20.0, once=True).body == b"1"

        def stream() -> None:
            parts = client.stream("count", b"3", timeout=20.0, once=True)
            assert [part.body for part in parts] == [b"0", b"1", b"2"]

        def send() -> None:
            client.send("log", b"noted")

        for sent_once in (call, stream, send):
            assert client.call("echo", b"before", timeout=20.0).body == b"before"
            link = client._runner.driver._connection.link
            assert isinstance(link, ZmtpLink)
            cut(link)
            sent_once()
            assert client._runner.driver._connection.link is not link
        # the worker's connection was cut as well: it may take a while to reconnect
        eventually(lambda: seen.bodies == [b"noted"], within=20.0)

    def test_call_into_a_connection_that_has_just_ended_is_sent_again(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(driver, "JUST_CHECKED", 3600.0)
        assert client.call("echo", b"before").body == b"before"
        link = client._runner.driver._connection.link
        assert isinstance(link, ZmtpLink)
        cut(link)
        assert client.call("echo", b"after").body == b"after"
        assert client._runner.driver._connection.link is not link


def cut(link: ZmtpLink) -> None:
    """End the connection as a network does, without the knowledge of the link."""
    for one in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(OSError):
            if not one.is_socket():
                continue
            there = socket.socket(fileno=os.dup(int(one.name)))
            with there:
                if there.family == socket.AF_INET and there.getpeername() == place_of(link.url):
                    there.shutdown(socket.SHUT_RDWR)


def place_of(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("tcp://").rpartition(":")
    return host, int(port)


def test_nothing_is_connected_before_the_first_call() -> None:
    with Client(NO_BROKER):
        assert threads() == []


class TestErrors:
    def test_exception_of_a_handler_arrives_with_type_and_text(self, client: Client) -> None:
        with pytest.raises(HandlerFailed) as raised:
            client.call("boom", "no good")
        assert (raised.value.status, raised.value.text) == (500, "ValueError: no good")
        assert client.call("echo", b"still there").body == b"still there"

    def test_status_error_of_a_handler_arrives_as_itself(self, client: Client) -> None:
        with pytest.raises(NotFound) as raised:
            client.call("absent", "spoon")
        assert raised.value.text == "no spoon here"

    def test_call_of_a_service_without_workers_fails_at_its_deadline(self, client: Client) -> None:
        began = time.monotonic()
        with pytest.raises(Unavailable, match="no worker"):
            client.call("nothing", timeout=0.3)
        assert 0.2 < time.monotonic() - began < 1.0

    def test_call_of_a_service_without_workers_fails_at_once_with_fail_fast(
        self, client: Client
    ) -> None:
        began = time.monotonic()
        with pytest.raises(Unavailable):
            client.call("nothing", timeout=5.0, fail_fast=True)
        assert time.monotonic() - began < 1.0

    def test_call_past_its_deadline_raises_a_timeout_error_and_cancels_the_handler(
        self, client: Client, seen: Seen
    ) -> None:
        with pytest.raises(TimeoutError) as raised:
            client.call("sleep", b"30", timeout=0.2)
        assert isinstance(raised.value, DeadlineExceeded)
        eventually(lambda: seen.cancelled == ["sleep"])

    def test_without_a_broker_the_error_names_the_endpoints(self) -> None:
        client = Client([NO_BROKER, "tcp://127.0.0.1:2"])
        with client, pytest.raises(DeadlineExceeded) as raised:
            client.call("echo", timeout=0.3)
        why = "connection refused" if wires.OWN_ZMTP else "not reachable"
        assert raised.value.text == (
            f"no broker was reachable within 0.3 s at tcp://127.0.0.1:1 ({why}),"
            f" tcp://127.0.0.1:2 ({why})"
        )

    def test_body_that_is_too_large_is_refused_by_the_broker(self, client: Client) -> None:
        with pytest.raises(TooLarge):
            client.call("echo", b"x" * (QUICK.max_message + 1))

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            ({"service": ""}, LocalProtocolError),
            ({"service": "x" * 256}, LocalProtocolError),
            ({"service": "echo", "body": 3}, LocalProtocolError),
            ({"service": "echo", "timeout": 0}, ConfigurationError),
            ({"service": "echo", "metadata": {"x": b"y" * 5000}}, LocalProtocolError),
        ],
    )
    def test_call_with_invalid_arguments_is_refused_by_the_client(
        self, client: Client, arguments: dict[str, object], error: type[Exception]
    ) -> None:
        with pytest.raises(error):
            client.call(**arguments)  # type: ignore[arg-type]
        assert client.call("echo", b"x").body == b"x"

    def test_unknown_dialect_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="no dialect 'mdp04'"):
            Client(NO_BROKER, dialect="mdp04")


def test_call_to_a_worker_id_is_answered_by_that_worker(url: str, seen: Seen) -> None:
    workers = [Worker(url), Worker(url)]
    for worker in workers:
        serve_all(worker, seen)
        worker.start()
    try:
        with Client(url) as client:
            found: dict[bytes, bytes] = {}
            while len(found) < 2:
                reply = client.call("who")
                found[reply.worker] = reply.body
            for id, name in found.items():
                for _ in range(4):
                    reply = client.call("who", to=id)
                    assert (reply.worker, reply.body) == (id, name)
    finally:
        for worker in workers:
            worker.stop()


def test_metadata_and_deadline_reach_the_handler(client: Client, seen: Seen) -> None:
    client.call("who", metadata={"type": "text/plain", "n": 1}, timeout=4.0)
    (request,) = seen.requests
    assert request.metadata == {"type": "text/plain", "n": 1}
    assert 3.0 < request.remaining <= 4.0
    assert request.service == "who"
    assert len(request.client) > 0


def test_broker_answers_ping_and_serves(client: Client) -> None:
    assert client.serves("echo")
    assert not client.serves("nothing")
    assert 0.0 < client.ping() < 1.0


class TestStreams:
    def test_parts_come_one_by_one(self, client: Client) -> None:
        assert [reply.body for reply in client.stream("count", b"100")] == [
            b"%d" % number for number in range(100)
        ]
        assert [reply.frames for reply in client.stream("acount", b"2")] == [
            [b"0", b"x"],
            [b"1", b"x"],
        ]
        assert list(client.stream("count", b"0")) == []

    def test_single_answer_is_the_only_part(self, client: Client) -> None:
        assert [reply.frames for reply in client.stream("echo", [b"a", b"b"])] == [[b"a", b"b"]]

    def test_call_joins_the_parts(self, client: Client) -> None:
        assert client.call("acount", b"2").frames == [b"0", b"x", b"1", b"x"]

    def test_stream_that_is_closed_early_is_cancelled(self, client: Client, seen: Seen) -> None:
        stream = client.stream("trickle")
        assert next(stream).body == b"0"
        stream.close()
        stream.close()
        eventually(lambda: seen.cancelled == ["trickle"])
        assert list(stream) == []

    def test_stream_that_is_dropped_is_cancelled_with_the_next_call(
        self, client: Client, seen: Seen
    ) -> None:
        for part in client.stream("trickle"):
            assert part.body == b"0"
            break
        assert client.call("echo", b"x").body == b"x"
        eventually(lambda: seen.cancelled == ["trickle"])

    def test_stream_that_is_dropped_in_a_step_of_its_session_runs_no_other_step(
        self, client: Client
    ) -> None:
        """A finalizer may run wherever memory is allocated. A step owns the I/O, and begins with
        the commands: those that are left show that there was none."""
        stream = client.stream("trickle")
        assert next(stream).body == b"0"
        driver, driven = client._runner.driver, []
        with driver._io:
            driver._commands.append(driven.append)
            del stream
            gc.collect()
            assert driven == []
            assert len(driver._commands) == 2

    def test_call_of_a_stream_without_pauses_ends_with_its_deadline(
        self, url: str, worker: Worker
    ) -> None:
        @worker.service("numbers")
        def numbers(request: Request) -> Iterator[str]:
            yield from map(str, itertools.count())

        worker.wait_ready()
        with Client(url, timeout=20.0) as client:
            for _ in range(3):
                with pytest.raises(DeadlineExceeded):
                    client.call("numbers", timeout=0.3)

    def test_name_of_a_service_that_is_a_number_is_refused(self, client: Client) -> None:
        with pytest.raises(ConfigurationError, match="text or bytes, not int"):
            client.call(5)  # type: ignore[call-overload]

    def test_stream_whose_deadline_passes_ends_with_that_error(self, client: Client) -> None:
        parts = []
        with pytest.raises(DeadlineExceeded):
            for part in client.stream("trickle", timeout=0.3):
                parts.append(int(part.body))
        assert parts == list(range(len(parts)))
        assert len(parts) > 3

    def test_two_streams_and_a_call_take_turns(self, client: Client) -> None:
        one, two = client.stream("count", b"50"), client.stream("count", b"50")
        for number in range(50):
            assert next(one).body == next(two).body == b"%d" % number
            assert client.call("echo", b"%d" % number).body == b"%d" % number
        assert list(one) == list(two) == []

    def test_stream_begun_alone_goes_on_when_other_threads_have_come(self, client: Client) -> None:
        stream = client.stream("trickle")
        assert next(stream).body == b"0"
        assert client.submit("echo", b"x").result().body == b"x"
        assert [next(stream).body for _ in range(5)] == [b"1", b"2", b"3", b"4", b"5"]
        stream.close()


class LateLock:
    """A lock that `thread` takes after `go`, however early it asks."""

    def __init__(self) -> None:
        self.thread = 0
        self.reached, self.go = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self.acquire, self.release = self._lock.acquire, self._lock.release
        self.locked = self._lock.locked

    def __enter__(self) -> bool:
        if threading.get_ident() == self.thread:
            self.reached.set()
            self.go.wait(5)
        return self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class TestThreads:
    def test_submitted_calls_are_under_way_together(self, client: Client) -> None:
        began = time.monotonic()
        futures = [client.submit("sleep", b"0.3") for _ in range(50)]
        assert {future.result().body for future in as_completed(futures)} == {b"slept"}
        assert time.monotonic() - began < 2.0
        assert threads() == ["majordomus-client"]

    def test_future_of_a_failed_call_raises_its_error(self, client: Client) -> None:
        with pytest.raises(NotFound):
            client.submit("absent", b"x").result()

    def test_cancelled_future_cancels_the_handler(self, client: Client, seen: Seen) -> None:
        future = client.submit("sleep", b"30")
        assert seen.running.acquire(timeout=2)
        assert future.cancel()
        with pytest.raises(CancelledError):
            future.result()
        eventually(lambda: seen.cancelled == ["sleep"])
        done = client.submit("echo", b"x")
        assert done.result().body == b"x"
        assert not done.cancel()

    def test_second_thread_does_not_disturb_a_call_in_progress(
        self, client: Client, seen: Seen
    ) -> None:
        with ThreadPoolExecutor(1) as first:
            slow = first.submit(client.call, "sleep", b"0.5")
            assert seen.running.acquire(timeout=2)
            assert threads() == []
            assert client.call("echo", b"x").body == b"x"
            assert not slow.done()
            assert slow.result().body == b"slept"
        assert threads() == ["majordomus-client"]

    def test_many_threads_share_one_client(self, client: Client) -> None:
        def work(thread: int) -> None:
            for number in range(50):
                body = b"%d %d" % (thread, number)
                assert client.call("echo", body).body == body
                assert len(list(client.stream("count", b"5"))) == 5

        with ThreadPoolExecutor(10) as pool:
            for future in [pool.submit(work, thread) for thread in range(10)]:
                future.result()

    def test_call_that_waits_for_the_io_goes_on_when_the_background_thread_takes_it(
        self, client: Client
    ) -> None:
        """Between its look whether there is a background thread and the lock, one is started."""
        driver = client._runner.driver
        late = LateLock()
        pool = ThreadPoolExecutor(1)
        assert pool.submit(client.call, "echo", b"1").result(5).body == b"1"
        late.thread = driver._main
        driver._io = late
        call = pool.submit(client.call, "echo", b"2")
        pool.shutdown(wait=False)
        assert late.reached.wait(5)
        assert client.submit("echo", b"3").result(5).body == b"3"
        late.go.set()
        assert call.result(5).body == b"2"

    def test_callback_of_a_future_may_submit_but_not_wait(self, client: Client) -> None:
        found: list[object] = []
        done = threading.Event()

        def callback(_: object) -> None:
            try:
                client.call("echo")
            except LocalProtocolError as error:
                found.append(error.reason)
            client.submit("echo", b"2").add_done_callback(
                lambda future: (found.append(future.result().body), done.set())
            )

        client.submit("echo", b"1").add_done_callback(callback)
        assert done.wait(5)
        assert found == ["nested", b"2"]

    def test_client_announces_presence_when_its_thread_starts(
        self, client: Client, broker: Broker
    ) -> None:
        client.call("echo")
        assert client._session.peer_id == b""
        client.submit("echo").result()
        eventually(lambda: client._session.peer_id != b"")


class TestEnd:
    def test_closed_client_raises_closed(self, url: str) -> None:
        client = Client(url)
        client.close()
        client.close()
        for use in (client.call, client.submit, client.send, client.stream):
            with pytest.raises(LocalProtocolError, match="this client is closed"):
                use("echo")

    def test_close_ends_the_calls_of_other_threads(self, client: Client, seen: Seen) -> None:
        with ThreadPoolExecutor(1) as pool:
            inline = pool.submit(client.call, "sleep", b"30")
            assert seen.running.acquire(timeout=2)
            client.close()
            with pytest.raises(Cancelled):
                inline.result(2)
        eventually(lambda: seen.cancelled == ["sleep"])

    def test_close_ends_the_calls_of_the_background(self, client: Client, seen: Seen) -> None:
        futures = [client.submit("sleep", b"30") for _ in range(3)]
        for _ in futures:
            assert seen.running.acquire(timeout=2)
        client.close()
        for future in futures:
            with pytest.raises(Cancelled):
                future.result(0)
        assert threads() == []
        eventually(lambda: seen.cancelled == ["sleep"] * 3)

    def test_interrupted_call_is_cancelled_and_the_client_goes_on(
        self, client: Client, seen: Seen
    ) -> None:
        client.call("echo")

        def interrupt() -> None:
            assert seen.running.acquire(timeout=20)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            client.call("sleep", b"30")
        thread.join()
        assert client.call("echo", b"x").body == b"x"
        eventually(lambda: seen.cancelled == ["sleep"])

    def test_forked_process_is_told_to_make_its_own(self, client: Client, url: str) -> None:
        client.call("echo")
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            try:
                with pytest.raises(LocalProtocolError) as raised:
                    client.call("echo")
                os.write(writer, raised.value.reason.encode())
                client.close()
                with Client(url) as own:
                    os.write(writer, b" " + own.call("echo", b"own").body)
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            assert pipe.read() == b"forked own"
        os.waitpid(child, 0)
        assert client.call("echo", b"parent").body == b"parent"


SENDER = """
import sys
from majordomus import Client
with Client(sys.argv[1]) as client:
    for number in range(100):
        client.send("log", b"%d" % number)
"""


class TestOneWay:
    def test_everything_sent_arrives_though_the_process_ends_at_once(
        self, url: str, worker: Worker, seen: Seen
    ) -> None:
        for _ in range(3):
            seen.bodies.clear()
            subprocess.run([sys.executable, "-W", "error", "-c", SENDER, url], check=True)
            eventually(lambda: len(seen.bodies) == 100)
            assert sorted(map(int, seen.bodies)) == list(range(100))

    def test_send_waits_for_a_broker_until_its_deadline(self) -> None:
        text = r"no broker was reachable within 0\.2 s"
        with Client(NO_BROKER) as client, pytest.raises(DeadlineExceeded, match=text):
            client.send("log", b"x", timeout=0.2)

    def test_one_way_request_can_be_sent_from_any_thread(
        self, client: Client, worker: Worker, seen: Seen
    ) -> None:
        with ThreadPoolExecutor(5) as pool:
            for number in range(50):
                pool.submit(client.send, "log", b"%d" % number)
        eventually(lambda: len(seen.bodies) == 50)


class TestBrokers:
    def test_call_waits_for_a_broker_that_comes_later(self, seen: Seen) -> None:
        with Broker(QUICK, bind="tcp://127.0.0.1:0") as broker:
            (url,) = broker.endpoints
        worker = Worker(url)
        serve_all(worker, seen)
        with worker, Client(url) as client, ThreadPoolExecutor(1) as pool:
            future = pool.submit(client.call, "echo", b"x", timeout=10.0)
            time.sleep(0.7)
            began = time.monotonic()
            with Broker(QUICK, bind=url):
                assert future.result().body == b"x"
                assert time.monotonic() - began < 2.0

    def test_call_after_a_broker_was_replaced_reaches_the_new_broker(self, seen: Seen) -> None:
        with Broker(QUICK, bind="tcp://127.0.0.1:0") as broker:
            (url,) = broker.endpoints
            worker = Worker(url)
            serve_all(worker, seen)
            worker.start()
            client = Client(url)
            assert client.call("echo", b"1").body == b"1"
        with Broker(QUICK, bind=url), worker, client:
            assert client.call("echo", b"2", timeout=5.0).body == b"2"

    def test_client_uses_the_next_broker_when_the_first_is_down(
        self, url: str, worker: Worker
    ) -> None:
        with Client([NO_BROKER, url]) as client:
            assert client.call("echo", b"x", timeout=5.0).body == b"x"

    def test_call_that_may_not_be_sent_again_is_lost_with_its_broker(self, seen: Seen) -> None:
        broker = Broker(QUICK, bind="tcp://127.0.0.1:0")
        broker.start()
        worker = Worker(broker.endpoints)
        serve_all(worker, seen)
        with worker, Client(broker.endpoints) as client:
            once = client.submit("sleep", b"30", once=True)
            assert seen.running.acquire(timeout=2)
            broker.stop(drain=False)
            with pytest.raises(BrokerLost, match="sleep was called"):
                once.result(3)

    def test_call_after_a_broker_was_replaced_behind_inproc_reaches_the_new_broker(
        self, seen: Seen
    ) -> None:
        worker = Worker("inproc://replaced")
        serve_all(worker, seen)
        client = Client("inproc://replaced", timeout=5.0)
        with worker, client:
            for number in range(3):
                with Broker(QUICK, bind="inproc://replaced"):
                    assert client.call("echo", b"%d" % number).body == b"%d" % number
        assert threads() == []

    def test_broker_of_the_same_process_is_reached_over_inproc(self, seen: Seen) -> None:
        with Broker(QUICK, bind="inproc://client"):
            worker = Worker("inproc://client")
            serve_all(worker, seen)
            with worker, Client("inproc://client") as client:
                assert client.call("echo", b"x").body == b"x"
                assert client.submit("count", b"3").result().frames == [b"0", b"1", b"2"]

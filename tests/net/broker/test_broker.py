"""The broker's loop: endpoints, its life in threads and processes, ends of connections, drain.

Peers are raw sockets.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from majordomus.core.broker.machine import BrokerMachine
from majordomus.core.broker.settings import BrokerSettings
from majordomus.errors import ConfigurationError
from majordomus.net.broker.broker import Broker
from majordomus.net.zmq import select as wires
from majordomus.net.zmq import sockets
from majordomus.protocol import spec
from tests.net.conftest import QUICK, RawPeer, complaints, eventually

Peers = Callable[[str], RawPeer]


def test_every_endpoint_serves_the_same_broker(peers: Peers, tmp_path: Path) -> None:
    bind = ["tcp://127.0.0.1:0", "tcp://127.0.0.1:*", f"ipc://{tmp_path / 's'}", "inproc://several"]
    with Broker(QUICK, bind=bind) as broker:
        assert len({*broker.endpoints}) == 4
        assert broker.endpoints[2:] == bind[2:]
        worker = peers(broker.endpoints[0])
        worker.ready(b"echo", capacity=4)
        for number, url in enumerate(broker.endpoints):
            client = peers(url)
            client.request(b"echo", b"%d" % number)
            header, body = worker.receive()
            worker.final(header[3], *body)
            header, body = client.receive()
            assert (header[0], header[2], body) == (spec.FINAL, 200, [b"%d" % number])


def test_endpoint_is_free_again_when_the_broker_has_stopped(peers: Peers) -> None:
    with Broker(QUICK, bind="tcp://127.0.0.1:0") as broker:
        (url,) = broker.endpoints
    for _ in range(10):
        with Broker(QUICK, bind=url) as broker:
            assert broker.endpoints == [url]
            peers(url).ready(b"echo")


def test_endpoint_in_the_place_of_the_settings_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="not str: its endpoints are given as bind="):
        Broker("tcp://127.0.0.1:5555")  # type: ignore[arg-type]


def test_endpoint_that_cannot_be_bound_is_an_error_at_once_and_leaves_nothing_open() -> None:
    with Broker(QUICK, bind="tcp://127.0.0.1:0") as broker:
        second = Broker(QUICK, bind=["inproc://left", broker.endpoints[0]])
        with pytest.raises(ConfigurationError, match="Address already in use"):
            second.start()
        second.stop()
        with Broker(QUICK, bind="inproc://left"):
            pass


def test_bound_broker_that_never_ran_can_be_stopped() -> None:
    broker = Broker(QUICK, bind="tcp://127.0.0.1:0")
    broker.open()
    (url,) = broker.endpoints
    broker.open()
    assert broker.endpoints == [url]
    broker.stop()
    with Broker(QUICK, bind=url):
        pass


def test_stop_may_be_repeated_and_the_broker_started_again(peers: Peers) -> None:
    threads_before = set(threading.enumerate())
    broker = Broker(QUICK, bind="tcp://127.0.0.1:0")
    broker.stop()
    for _ in range(2):
        broker.start()
        broker.start()
        peers(broker.endpoints[0]).ready(b"echo")
        broker.stop()
        broker.stop()
    assert set(threading.enumerate()) <= threads_before


def test_broker_serves_inside_an_asyncio_program(peers: Peers) -> None:
    async def program() -> str:
        async with Broker(QUICK, bind="tcp://127.0.0.1:0") as broker:
            await asyncio.to_thread(peers(broker.endpoints[0]).ready, b"echo")
            return broker.endpoints[0]

    url = asyncio.run(program())
    with Broker(QUICK, bind=url):
        pass


def test_run_in_a_thread_ends_with_stop(peers: Peers) -> None:
    broker = Broker(QUICK, bind="tcp://127.0.0.1:0")
    broker.open()
    thread = threading.Thread(target=broker.run)
    thread.start()
    peers(broker.endpoints[0]).ready(b"echo")
    broker.stop()
    thread.join(2.0)
    assert not thread.is_alive()


class TestConnections:
    """Events of the monitor reach the machine at once: the interval is far longer than any wait
    of these tests.
    """

    @pytest.fixture
    def with_long_intervals(self, tmp_path: Path) -> Iterator[Broker]:
        settings = BrokerSettings(worker_interval=60.0, client_interval=60.0, drain_timeout=0.1)
        with Broker(settings, bind=["tcp://127.0.0.1:0", f"ipc://{tmp_path / 's'}"]) as broker:
            yield broker

    @pytest.mark.parametrize("transport", [0, 1], ids=["tcp", "ipc"])
    def test_request_of_a_worker_whose_connection_ends_goes_to_another_within_a_second(
        self, with_long_intervals: Broker, peers: Peers, transport: int
    ) -> None:
        url = with_long_intervals.endpoints[transport]
        first, second, client = peers(url), peers(url), peers(url)
        first.ready(b"echo")
        client.request(b"echo", b"x")
        first.receive()
        second.ready(b"echo")
        first.close()
        header, body = second.receive(within=1.0)
        assert (header[0], body) == (spec.REQUEST, [b"x"])

    def test_last_reply_of_a_worker_that_leaves_without_disconnect_still_counts(
        self, with_long_intervals: Broker, peers: Peers
    ) -> None:
        url = with_long_intervals.endpoints[0]
        client = peers(url)
        for id in range(1, 30):
            worker = peers(url)
            worker.socket.setsockopt(17, 1000)  # LINGER: sent messages may leave
            worker.ready(b"echo")
            client.request(b"echo", b"x", id=id)
            header, _ = worker.receive()
            worker.final(header[3], b"done")
            worker.close()
            header, body = client.receive(within=1.0)
            assert (header[0], header[3], header[2], body) == (spec.FINAL, id, 200, [b"done"])

    def test_request_of_a_client_whose_connection_ends_is_cancelled_at_its_worker(
        self, with_long_intervals: Broker, peers: Peers
    ) -> None:
        url = with_long_intervals.endpoints[0]
        worker, client = peers(url), peers(url)
        worker.ready(b"echo")
        client.request(b"echo", b"x")
        request, _ = worker.receive()
        client.close()
        header, _ = worker.receive(within=1.0)
        assert (header[0], header[3]) == (spec.CANCEL, request[3])

    def test_hundred_workers_that_leave_at_once_are_detected_at_once(
        self, with_long_intervals: Broker, peers: Peers, caplog: pytest.LogCaptureFixture
    ) -> None:
        url = with_long_intervals.endpoints[0]
        workers = [peers(url) for _ in range(100)]
        for worker in workers:
            worker.ready(b"echo")
        asker = peers(url)

        def living() -> bytes:
            asker.request(b"mmi.service", b"echo", id=next(numbers))
            return asker.receive()[1][0]

        numbers = iter(range(1, 10_000))
        assert living() == b"200"
        for worker in workers:
            worker.close()
        eventually(lambda: living() == b"404", within=2.0)


@pytest.mark.skipif(not wires.OWN_ZMTP, reason="libzmq ends the connection")
class TestTooLarge:
    """A message of many times `max_message` costs its sender a 413, and others nothing."""

    SETTINGS = BrokerSettings(max_message=100_000, drain_timeout=0.2)

    @pytest.mark.parametrize("size", [150_000, 1_000_000, 20_000_000])
    def test_client_gets_413_and_continues_on_its_connection(self, peers: Peers, size: int) -> None:
        with Broker(self.SETTINGS, bind="tcp://127.0.0.1:0") as broker:
            client = peers(broker.endpoints[0])
            client.request(b"mmi.service", bytes(size))
            header, _ = client.receive()
            assert (header[0], header[3], header[2]) == (spec.FINAL, 1, 413)
            client.request(b"mmi.service", b"echo", id=2)
            header, body = client.receive(within=10.0)
            assert (header[3], header[2], body) == (2, 200, [b"404"])

    def test_worker_that_answers_too_much_stays_and_answers_the_others(self, peers: Peers) -> None:
        with Broker(self.SETTINGS, bind="tcp://127.0.0.1:0") as broker:
            worker, one, other = (peers(broker.endpoints[0]) for _ in range(3))
            worker.ready(b"echo", capacity=2)
            one.request(b"echo", b"much")
            first, _ = worker.receive()
            other.request(b"echo", b"little", flags=spec.ONCE)
            second, _ = worker.receive()
            worker.final(first[3], bytes(5_000_000))
            worker.final(second[3], b"done")
            assert one.receive()[0][2] == 413
            header, body = other.receive(within=10.0)
            assert (header[2], body) == (200, [b"done"])


@pytest.fixture
def slow_peers() -> Iterator[Peers]:
    """A function that makes raw peers whose sockets hold 300 messages that were not read."""
    made: list[RawPeer] = []

    def make(url: str) -> RawPeer:
        peer = RawPeer.__new__(RawPeer)
        peer.socket = sockets.dealer()
        for option, value in ((zmq.RCVHWM, 300), (zmq.RCVBUF, 10_000), (zmq.LINGER, 0)):
            peer.socket.setsockopt(option, value)
        peer.socket.setsockopt(zmq.IMMEDIATE, 0)
        peer.socket.connect(url)
        made.append(peer)
        return peer

    yield make
    for peer in made:
        peer.close()


class TestDrain:
    def test_open_request_is_answered_and_a_new_one_refused(self, peers: Peers) -> None:
        broker = Broker(QUICK, bind="tcp://127.0.0.1:0")
        broker.start()
        url = broker.endpoints[0]
        worker, client = peers(url), peers(url)
        worker.ready(b"echo", capacity=2)
        client.request(b"echo", b"old", id=1)
        header, body = worker.receive()
        stopping = threading.Thread(target=broker.stop)
        stopping.start()
        drains, _ = worker.receive()
        assert (drains[0], drains[2]) == (spec.CAPACITY, 0)
        client.request(b"echo", b"new", id=2)
        refused, _ = client.receive()
        assert (refused[0], refused[3], refused[2]) == (spec.FINAL, 2, 503)
        assert stopping.is_alive()
        worker.final(header[3], *body)
        answered, body = client.receive()
        assert (answered[0], answered[3], answered[2], body) == (spec.FINAL, 1, 200, [b"old"])
        stopping.join(1.0)
        assert not stopping.is_alive()
        assert worker.receive()[0][0] == spec.DISCONNECT

    def test_unanswered_request_delays_the_end_by_the_drain_timeout_at_most(
        self, peers: Peers
    ) -> None:
        broker = Broker(BrokerSettings(drain_timeout=0.3), bind="tcp://127.0.0.1:0")
        broker.start()
        client = peers(broker.endpoints[0])
        worker = peers(broker.endpoints[0])
        worker.ready(b"echo")
        client.request(b"echo")
        worker.receive()
        began = time.monotonic()
        broker.stop()
        assert 0.3 <= time.monotonic() - began < 1.0

    @pytest.mark.skipif(not wires.OWN_ZMTP, reason="libzmq does not tell what it has not sent")
    def test_answers_that_wait_for_a_slow_client_arrive_before_the_broker_ends(
        self, peers: Peers, slow_peers: Peers
    ) -> None:
        """1,000 answers of 20 KB fill the sockets' buffers, and the outbox behind them."""
        settings = BrokerSettings(send_hwm=100, drain_timeout=20.0)
        broker = Broker(settings, bind="tcp://127.0.0.1:0")
        broker.start()
        url = broker.endpoints[0]
        worker, client = peers(url), slow_peers(url)
        worker.ready(b"echo", capacity=1000)
        for id in range(1, 1001):
            client.request(b"echo", id=id, ttl=30_000, flags=spec.ONCE)
            header, _ = worker.receive()
            worker.final(header[3], bytes(20_000))
        stopping = threading.Thread(target=broker.stop)
        stopping.start()
        time.sleep(0.5)
        got = [client.receive(within=10.0) for _ in range(1000)]
        assert [(header[0], header[2], header[3]) for header, _ in got] == [
            (spec.FINAL, 200, id) for id in range(1, 1001)
        ]
        stopping.join(10.0)
        assert not stopping.is_alive()

    def test_answers_that_are_given_up_are_counted_in_the_log(
        self, peers: Peers, slow_peers: Peers, caplog: pytest.LogCaptureFixture
    ) -> None:
        broker = Broker(BrokerSettings(send_hwm=10, drain_timeout=0.3), bind="tcp://127.0.0.1:0")
        broker.start()
        url = broker.endpoints[0]
        worker, client = peers(url), slow_peers(url)
        worker.ready(b"echo", capacity=1000)
        for id in range(1, 501):
            client.request(b"echo", id=id, ttl=30_000)
            header, _ = worker.receive()
            worker.final(header[3], bytes(40_000))
        broker.stop()
        (line,) = [r.getMessage() for r in caplog.records if "open requests" in r.getMessage()]
        answers, messages = (int(word) for word in line.split() if word.isdigit() and word != "0")
        assert line.startswith("ended with 0 open requests, and with ")
        assert answers >= 50 and messages > 0

    def test_idle_broker_stops_at_once(self) -> None:
        with Broker(bind="tcp://127.0.0.1:0"):
            began = time.monotonic()
        assert time.monotonic() - began < 0.5


PROGRAM = """
import sys
from majordomus import Broker, BrokerSettings
broker = Broker(BrokerSettings(drain_timeout=float(sys.argv[1])), bind="tcp://127.0.0.1:0")
broker.open()
print(broker.endpoints[0], flush=True)
broker.run()
print("left", flush=True)
"""


class TestSignals:
    """A broker in the main thread of a process."""

    def start(self, drain_timeout: float) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PROGRAM, str(drain_timeout)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout
        return process, process.stdout.readline().strip()

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_signal_ends_an_idle_broker_cleanly(self, number: signal.Signals, peers: Peers) -> None:
        process, url = self.start(10.0)
        worker = peers(url)
        worker.ready(b"echo")
        process.send_signal(number)
        out, err = process.communicate(timeout=5)
        assert (process.returncode, out, complaints(err)) == (0, "left\n", [])
        commands = [worker.receive()[0][0], worker.receive()[0][0]]
        assert commands == [spec.CAPACITY, spec.DISCONNECT]

    def test_signal_before_any_traffic_is_handled(self) -> None:
        process, _ = self.start(10.0)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=5)
        assert (process.returncode, out) in ((0, "left\n"), (-signal.SIGTERM, ""))

    def test_second_signal_ends_a_draining_broker_at_once(self, peers: Peers) -> None:
        process, url = self.start(60.0)
        worker, client = peers(url), peers(url)
        worker.ready(b"echo")
        client.request(b"echo")
        worker.receive()
        process.send_signal(signal.SIGTERM)
        assert worker.receive()[0][0] == spec.CAPACITY
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=3)
        assert (process.returncode, out, complaints(err)) == (0, "left\n", [])


def test_facts_are_logged_one_line_each(peers: Peers, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="majordomus.broker"):
        with Broker(QUICK, bind="inproc://facts") as broker:
            worker = peers(broker.endpoints[0])
            worker.ready(b"evil\n\x1b[31mname")
            worker.close()
        text = [record.getMessage() for record in caplog.records]
    assert text[0] == "listening on inproc://facts"
    assert any(line.startswith("worker-ready ") for line in text)
    assert all(line.isprintable() for line in text)


class Faulty(BrokerMachine):
    """A machine that raises for one message."""

    def handle_message(self, peer_id: bytes, frames: list[bytes], now: float) -> None:
        if frames[-1] == b"fault":
            raise KeyError(frames[-1])
        super().handle_message(peer_id, frames, now)


def test_fault_of_the_core_costs_one_message_and_is_logged(
    peers: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    with Broker(QUICK, bind="tcp://127.0.0.1:0", machine=Faulty) as broker:
        peer = peers(broker.endpoints[0])
        peer.send(b"x", b"fault")
        peer.request(b"mmi.service", b"echo")
        assert peer.receive()[1] == [b"404"]
    assert [record.levelname for record in caplog.records if record.exc_info] == ["CRITICAL"]


def test_ten_thousand_messages_at_once_are_all_answered(broker: Broker, peers: Peers) -> None:
    client = peers(broker.endpoints[0])
    for id in range(1, 10_001):
        client.request(b"mmi.service", b"echo", id=id)
        if id % 500 == 0:
            for _ in range(500):
                assert client.receive()[1] == [b"404"]


def test_stopped_process_leaves_no_ipc_file(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with Broker(QUICK, bind=f"ipc://{path}"):
        assert path.exists()
    eventually(lambda: not os.path.lexists(path))

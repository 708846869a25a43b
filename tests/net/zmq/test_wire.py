"""The wire: batches in, batches out, refusals by number, descriptors of new routing ids."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import zmq

from majordomus.net.waker import Waker
from majordomus.net.zmq import sockets
from majordomus.net.zmq.monitor import Monitor, MonitorEvent
from majordomus.net.zmq.wire import ASSIGNED, FULL, GONE, DealerWire, RouterWire, Wait

LARGE = 100_000


@pytest.fixture
def router() -> Iterator[zmq.Socket[bytes]]:
    with sockets.router(max_message=1 << 20, send_hwm=10) as made:
        made.setsockopt(zmq.LINGER, 0)
        yield made


def connect(router: zmq.Socket[bytes], url: str = "tcp://127.0.0.1:*") -> zmq.Socket[bytes]:
    real = sockets.bind(router, url)
    dealer = sockets.dealer()
    dealer.setsockopt(zmq.LINGER, 0)
    dealer.setsockopt(zmq.IMMEDIATE, 0)
    sockets.connect(dealer, real)
    return dealer


def all_of(
    socket: zmq.Socket[bytes], wire: RouterWire, count: int
) -> list[tuple[bytes, list[bytes]]]:
    found: list[tuple[bytes, list[bytes]]] = []
    while len(found) < count:
        assert socket.poll(2000), f"{len(found)} of {count}"
        found += wire.receive(1000)
    return found


def test_message_whose_first_part_is_refused_sends_none_of_its_parts() -> None:
    sent: list[bytes] = []

    class Refusing:
        """A DEALER whose queue has room again right after it has refused a part."""

        closed = False
        type = zmq.DEALER

        def send(self, part: bytes, flags: int) -> None:
            if part == b"first":
                raise zmq.Again
            sent.append(part)

    wire = DealerWire(cast(Any, Refusing()))
    assert wire.send([[b"first", b"second", b"third"]]) == [(0, FULL)]
    assert sent == []


def test_socket_without_messages_returns_an_empty_batch(router: zmq.Socket[bytes]) -> None:
    assert RouterWire(router).receive(10) == []


def test_full_peer_refuses_in_order_and_delays_no_other_peer(router: zmq.Socket[bytes]) -> None:
    wire = RouterWire(router)
    url = sockets.bind(router, f"inproc://full.{id(router)}")
    with zmq.Context.instance().socket(zmq.DEALER) as slow, sockets.dealer() as quick:
        slow.setsockopt(zmq.RCVHWM, 10)
        slow.setsockopt(zmq.ROUTING_ID, b"slow")
        slow.connect(url)
        quick.connect(url)
        slow.send(b"hello")
        quick.send(b"hello")
        id_of_quick = quick.getsockopt(zmq.ROUTING_ID)
        all_of(router, wire, 2)
        batch = [(b"slow", [b"%d" % number]) for number in range(50)] + [(id_of_quick, [b"hi"])]
        refused = wire.send(batch)
        taken = 50 - len(refused)
        assert 0 < taken < 50
        assert refused == [(index, FULL) for index in range(taken, 50)]
        received = []
        while slow.poll(100):
            received += [int(frames[0]) for frames in DealerWire(slow).receive(100)]
        assert received == list(range(taken))
        assert quick.poll(2000)
        assert quick.recv() == b"hi"


def test_dealer_without_a_connection_refuses_all_from_the_first_on() -> None:
    with sockets.dealer() as dealer:
        dealer.setsockopt(zmq.LINGER, 0)
        sockets.connect(dealer, "tcp://127.0.0.1:1")
        assert DealerWire(dealer).send([[b"a"], [b"b", b"c"]]) == [(0, FULL), (1, FULL)]


def test_dealer_reports_whether_a_message_can_be_received(router: zmq.Socket[bytes]) -> None:
    with connect(router) as dealer:
        wire, broker = DealerWire(dealer), RouterWire(router)
        assert not wire.readable()
        dealer.send(b"hello")
        [(peer, _)] = all_of(router, broker, 1)
        broker.send([(peer, [b"answer"])])
        until = time.monotonic() + 10
        while not wire.readable():
            assert time.monotonic() < until
        assert wire.receive(10) == [[b"answer"]]
        assert not wire.readable()


class TestDescriptors:
    """The descriptor of the connection of a routing id."""

    @pytest.mark.parametrize("transport", ["tcp", "ipc"])
    def test_new_routing_id_is_reported_once_with_the_descriptor_whose_end_the_monitor_reports(
        self,
        router: zmq.Socket[bytes],
        transport: str,
        tmp_path: Path,
    ) -> None:
        wire = RouterWire(router)
        monitor = Monitor(router, MonitorEvent.LOST)
        url = "tcp://127.0.0.1:*" if transport == "tcp" else f"ipc://{tmp_path / 's'}"
        dealer = connect(router, url)
        try:
            peer = dealer.getsockopt(zmq.ROUTING_ID)
            DealerWire(dealer).send([[b"a", b"b"], [b"c"]])
            all_of(router, wire, 2)
            ((told, fd),) = wire.connections()
            assert told == peer
            assert wire.connections() == []
            dealer.close()
            assert monitor.socket.poll(2000)
            assert [(seen.event, seen.value) for seen in monitor.read()] == [
                (MonitorEvent.LOST, fd)
            ]
        finally:
            dealer.close()
            monitor.close()

    def test_forgotten_routing_id_is_reported_again(self, router: zmq.Socket[bytes]) -> None:
        wire = RouterWire(router)
        with connect(router) as dealer:
            dealer.send(b"a")
            ((peer, _),) = all_of(router, wire, 1)
            (before,) = wire.connections()
            wire.forget(peer)
            wire.forget(peer)
            dealer.send(b"b")
            all_of(router, wire, 1)
            assert wire.connections() == [before]

    def test_inproc_has_no_descriptor_and_is_not_reported(self, router: zmq.Socket[bytes]) -> None:
        wire = RouterWire(router)
        with connect(router, f"inproc://descriptors.{id(router)}") as dealer:
            for _ in range(3):
                dealer.send(b"a")
            assert len(all_of(router, wire, 3)) == 3
            assert wire.connections() == []


# ── reserved routing ids: libzmq ends its process when it assigns one that a peer has chosen ──────


@pytest.fixture(params=["tcp", "inproc"])
def url(request: pytest.FixtureRequest, router: zmq.Socket[bytes]) -> str:
    if request.param == "tcp":
        return sockets.bind(router, "tcp://127.0.0.1:*")
    return sockets.bind(router, f"inproc://reserved-{id(router)}")


def dealer_as(url: str, identity: bytes) -> zmq.Socket[bytes]:
    dealer = sockets.context().socket(zmq.DEALER)
    dealer.setsockopt(zmq.LINGER, 0)
    if identity:
        dealer.setsockopt(zmq.ROUTING_ID, identity)
    dealer.connect(url)
    return dealer


def test_peer_without_an_id_gets_one_that_shows_nothing_of_libzmqs(
    url: str, router: zmq.Socket[bytes]
) -> None:
    wire = RouterWire(router)
    with dealer_as(url, b"") as first, dealer_as(url, b"") as second:
        first.send(b"1")
        second.send(b"2")
        batch = {frames[0]: peer for peer, frames in all_of(router, wire, 2)}
        assert len(set(batch.values())) == 2
        assert all(peer.startswith(ASSIGNED) and len(peer) == 13 for peer in batch.values())
        assert wire.send([(batch[b"2"], [b"two"]), (batch[b"1"], [b"one"])]) == []
        assert (first.recv(), second.recv()) == (b"one", b"two")
        first.send(b"again")
        assert all_of(router, wire, 1) == [(batch[b"1"], [b"again"])]
        for peer in batch.values():
            wire.forget(peer)
            wire.forget(peer)
        assert wire.send([(batch[b"1"], [b"late"])]) == [(0, GONE)]
        assert wire.rejected == 0


@pytest.mark.parametrize("identity", [b"\0", b"\0tcp", b"\0" + bytes(16), ASSIGNED + b"12345678"])
@pytest.mark.parametrize("users", [False, True])
def test_messages_of_a_peer_that_chose_a_reserved_id_are_dropped(
    url: str, router: zmq.Socket[bytes], identity: bytes, users: bool
) -> None:
    wire = RouterWire(router)
    receive: Any = wire.receive_with_users if users else wire.receive
    with dealer_as(url, identity) as thief, dealer_as(url, b"honest") as honest:
        thief.send_multipart([b"a", b"", b"b"])
        thief.send(b"c")
        until = time.monotonic() + 10
        while wire.rejected < 2:
            assert time.monotonic() < until
            assert receive(10) == []
        honest.send_multipart([b"x", b"y"])
        assert router.poll(2000)
        assert [message[:2] for message in receive(10)] == [(b"honest", [b"x", b"y"])]
    assert [peer for peer, _ in wire.connections() if peer != b"honest"] == []


def test_message_to_an_unknown_id_with_a_zero_octet_is_refused(router: zmq.Socket[bytes]) -> None:
    assert RouterWire(router).send([(b"\0" + bytes(4), [b"x"])]) == [(0, GONE)]


@pytest.fixture
def zap_handler() -> Iterator[None]:
    """Accept every connection with the user name that it gives (PLAIN)."""
    ended = threading.Event()
    with sockets.context().socket(zmq.REP) as zap:
        bind_inproc(zap, "inproc://zeromq.zap.01")

        def answer() -> None:
            while not ended.is_set():
                if zap.poll(20):
                    asked = zap.recv_multipart()
                    zap.send_multipart([b"1.0", asked[1], b"200", b"OK", asked[6], b""])

        thread = threading.Thread(target=answer)
        thread.start()
        yield
        ended.set()
        thread.join()


def bind_inproc(socket: zmq.Socket[bytes], url: str) -> None:
    """Bind a name that libzmq frees some time after its socket was closed."""
    until = time.monotonic() + 3
    while True:
        try:
            socket.bind(url)
        except zmq.ZMQError:
            assert time.monotonic() < until
            time.sleep(0.01)
        else:
            return


class TestUsers:
    """The User-Id that a ZAP handler set for a connection comes with its messages."""

    @pytest.mark.usefixtures("zap_handler")
    def test_each_message_names_the_user_of_its_connection(self, router: zmq.Socket[bytes]) -> None:
        router.setsockopt(zmq.PLAIN_SERVER, 1)
        wire = RouterWire(router)
        url = sockets.bind(router, "tcp://127.0.0.1:*")
        dealers = [sockets.dealer() for _ in range(2)]
        try:
            for dealer, name in zip(dealers, (b"alice", b"b\xc3\xb6rk"), strict=True):
                dealer.setsockopt(zmq.PLAIN_USERNAME, name)
                dealer.setsockopt(zmq.PLAIN_PASSWORD, b"-")
                dealer.setsockopt(zmq.IMMEDIATE, 0)
                sockets.connect(dealer, url)
                for number in range(2):
                    dealer.send_multipart([name, b"%d" % number])
            found: list[tuple[bytes, list[bytes], str]] = []
            while len(found) < 4:
                assert router.poll(3000)
                found += wire.receive_with_users(10)
            assert len(wire.connections()) == 2
        finally:
            for dealer in dealers:
                dealer.close(linger=0)
        assert {user for _, _, user in found} == {"alice", "börk"}
        assert all(frames[0].decode() == user for _, frames, user in found)

    def test_without_a_handler_there_is_no_user(self, router: zmq.Socket[bytes]) -> None:
        wire = RouterWire(router)
        with connect(router) as dealer:
            peer = dealer.getsockopt(zmq.ROUTING_ID)
            dealer.send(b"hello")
            assert router.poll(2000)
            assert wire.receive_with_users(10) == [(peer, [b"hello"], "")]
            assert [told for told, _ in wire.connections()] == [peer]


class TestMisuse:
    """Invalid arguments are refused before anything is sent."""

    def test_message_without_frames_is_refused_and_no_message_stays_open(
        self, router: zmq.Socket[bytes]
    ) -> None:
        wire = RouterWire(router)
        with connect(router) as dealer:
            dealer.send(b"hello")
            ((peer, _),) = all_of(router, wire, 1)
            with pytest.raises(ValueError, match="at least one frame"):
                wire.send([(peer, [])])
            with pytest.raises(ValueError, match="at least one frame"):
                DealerWire(dealer).send([[]])
            assert wire.send([(peer, [b"whole"])]) == []
            assert dealer.poll(2000)
            assert DealerWire(dealer).receive(10) == [[b"whole"]]

    def test_socket_of_another_kind_is_refused(self, router: zmq.Socket[bytes]) -> None:
        with sockets.dealer() as dealer:
            with pytest.raises(TypeError):
                RouterWire(dealer)
            with pytest.raises(TypeError):
                DealerWire(router)

    def test_closed_socket_is_an_error_not_a_crash(self, router: zmq.Socket[bytes]) -> None:
        wire, wait = RouterWire(router), Wait(router)
        with sockets.dealer() as dealer:
            dealer_wire = DealerWire(dealer)
        router.close()
        for call in (
            lambda: wire.receive(1),
            lambda: wire.receive_with_users(1),
            lambda: wire.send([(b"somebody", [b"x"])]),
            lambda: dealer_wire.receive(1),
            lambda: dealer_wire.send([[b"x"]]),
            lambda: wait(0),
            lambda: RouterWire(router),
        ):
            with pytest.raises(zmq.ZMQError) as caught:
                call()
            assert caught.value.errno == zmq.ENOTSOCK


class TestLongBatches:
    """Batches longer than a wire handles at once."""

    def test_refusals_of_a_batch_of_thousands_are_in_order(self, router: zmq.Socket[bytes]) -> None:
        peers = [b"peer%d" % (n % 7) for n in range(2000)]
        refused = RouterWire(router).send([(peer, [b"x"]) for peer in peers])
        assert refused == [(index, GONE) for index in range(2000)]

    def test_dealer_whose_pipe_is_full_accepts_the_start_of_the_batch(self) -> None:
        with sockets.dealer() as dealer:
            dealer.setsockopt(zmq.SNDHWM, 300)
            dealer.setsockopt(zmq.IMMEDIATE, 0)
            dealer.setsockopt(zmq.LINGER, 0)
            sockets.connect(dealer, "tcp://127.0.0.1:1")
            refused = DealerWire(dealer).send([[b"%d" % n, b"x"] for n in range(1000)])
            taken = 1000 - len(refused)
            assert taken == 300
            assert refused == [(index, FULL) for index in range(taken, 1000)]


class TestWaiting:
    """Wait: bits say which of the sources is readable."""

    def test_each_source_has_its_bit(self, router: zmq.Socket[bytes]) -> None:
        waker = Waker()
        wait = Wait(router, waker.fd)
        try:
            assert wait(0) == 0
            waker.wake()
            assert wait(1000) == 0b10
            with connect(router) as dealer:
                dealer.send(b"hello")
                assert router.poll(2000)
                assert wait(1000) == 0b11
                waker.clear()
                assert wait(1000) == 0b01
        finally:
            waker.close()

    def test_it_ends_after_its_time(self, router: zmq.Socket[bytes]) -> None:
        start = time.monotonic()
        assert Wait(router)(30) == 0
        assert 0.02 < time.monotonic() - start < 2

    def test_other_threads_run_while_it_waits(self, router: zmq.Socket[bytes]) -> None:
        waker = Waker()
        thread = threading.Timer(0.02, waker.wake)
        try:
            thread.start()
            assert Wait(router, waker.fd)(5000) == 0b10
        finally:
            thread.join()
            waker.close()

    def test_signal_is_handled_while_it_waits(self, router: zmq.Socket[bytes]) -> None:
        seen: list[int] = []
        waker = Waker()
        before = signal.signal(signal.SIGALRM, lambda number, _: seen.append(number))
        fd = signal.set_wakeup_fd(waker.writer_fd, warn_on_full_buffer=False)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            wait = Wait(router, waker.fd)
            until = time.monotonic() + 3
            while not seen and time.monotonic() < until:
                wait(3000)
            assert seen == [signal.SIGALRM]
        finally:
            signal.set_wakeup_fd(fd)
            signal.signal(signal.SIGALRM, before)
            waker.close()


class TestConnectionThatEndsInAMessage:
    """A message whose connection ends while it is sent is completed all the same."""

    def test_dealer_sends_whole_messages_after_it(self) -> None:
        """The message is long enough for the connection to end while it is being sent.

        libzmq then answers EAGAIN in its middle, or swallows the rest without a word.
        """
        with sockets.dealer() as dealer:
            dealer.setsockopt(zmq.LINGER, 0)
            dealer.setsockopt(zmq.RECONNECT_IVL, 10)
            router = sockets.router(max_message=1 << 20, send_hwm=10)
            url = sockets.bind(router, "tcp://127.0.0.1:*")

            def close_when_called() -> None:
                router.poll(5000)
                router.close(linger=0)

            thread = threading.Thread(target=close_when_called)
            sockets.connect(dealer, url)
            assert dealer.poll(2000, zmq.POLLOUT)
            thread.start()
            wire = DealerWire(dealer)
            refused = wire.send([[b"go"], [b"x"] * 400_000, [b"y"]])
            thread.join()
            assert refused in ([], [(1, FULL), (2, FULL)], [(2, FULL)])
            with sockets.router(max_message=1 << 20, send_hwm=10) as again:
                sockets.bind(again, url)
                assert dealer.poll(3000, zmq.POLLOUT)
                assert wire.send([[b"whole", b"message"]]) == []
                assert again.poll(2000)
                assert again.recv_multipart()[1:] == [b"whole", b"message"]

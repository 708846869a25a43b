"""The wire: batches in, batches out, refusals by number, descriptors of new routing ids.

The native wire and its twin on pyzmq both run through all of this.
"""

from __future__ import annotations

import importlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import zmq

from majordomus.net.bodies import Cut
from majordomus.net.waker import Waker
from majordomus.net.zmq import sockets
from majordomus.net.zmq.monitor import Monitor, MonitorEvent
from majordomus.net.zmq.select import Dealer, Router
from majordomus.net.zmq.wire import FULL, GONE

LARGE = 100_000


@pytest.fixture(params=["wire", "_native"], ids=["pyzmq", "native"])
def kind(request: pytest.FixtureRequest) -> ModuleType:
    """The module of the wire. test_select.py fails where the native one should be built."""
    name = f"majordomus.net.zmq.{request.param}"
    if request.param == "_native":
        return pytest.importorskip(name, reason="the native wire is not built")  # type: ignore[no-any-return]
    return importlib.import_module(name)


@pytest.fixture
def router_wire(kind: ModuleType) -> Callable[..., Router]:
    return kind.RouterWire  # type: ignore[no-any-return]


@pytest.fixture
def dealer_wire(kind: ModuleType) -> Callable[..., Dealer]:
    return kind.DealerWire  # type: ignore[no-any-return]


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


def all_of(socket: zmq.Socket[bytes], wire: Router, count: int) -> list[tuple[bytes, list[bytes]]]:
    found: list[tuple[bytes, list[bytes]]] = []
    while len(found) < count:
        assert socket.poll(2000), f"{len(found)} of {count}"
        found += wire.receive(1000)
    return found


def test_socket_without_messages_returns_an_empty_batch(
    router: zmq.Socket[bytes], router_wire: Any
) -> None:
    assert router_wire(router).receive(10) == []


def test_messages_come_in_order_with_all_their_frames(
    router: zmq.Socket[bytes], router_wire: Any, dealer_wire: Any
) -> None:
    with connect(router) as dealer:
        peer = dealer.getsockopt(zmq.ROUTING_ID)
        sent = [[b"one"], [b"", b"", b""], [b"two", b"x" * 100_000, b""], [b"three"]]
        assert dealer_wire(dealer).send(sent) == []
        assert all_of(router, router_wire(router), 4) == [(peer, frames) for frames in sent]


def test_batch_is_not_longer_than_its_limit(
    router: zmq.Socket[bytes], router_wire: Any, dealer_wire: Any
) -> None:
    wire = router_wire(router)
    with connect(router) as dealer:
        dealer_wire(dealer).send([[bytes([number])] for number in range(5)])
        assert len(all_of(router, wire, 5)) == 5
        dealer_wire(dealer).send([[bytes([number])] for number in range(5)])
        batches: list[list[list[bytes]]] = []
        while sum(map(len, batches)) < 5:
            assert router.poll(2000)
            batches.append([frames for _, frames in wire.receive(2)])
        assert max(map(len, batches)) <= 2
        assert [frames for batch in batches for frames in batch] == [
            [bytes([number])] for number in range(5)
        ]


def test_reply_goes_to_the_routing_id_it_is_for(
    router: zmq.Socket[bytes], router_wire: Any, dealer_wire: Any
) -> None:
    wire = router_wire(router)
    url = sockets.bind(router, "tcp://127.0.0.1:*")
    dealers = [sockets.dealer() for _ in range(3)]
    try:
        for number, dealer in enumerate(dealers):
            dealer.setsockopt(zmq.IMMEDIATE, 0)
            sockets.connect(dealer, url)
            dealer.send(bytes([number]))
        batch = all_of(router, wire, 3)
        assert wire.send([(peer, [b"for", *frames]) for peer, frames in batch]) == []
        for number, dealer in enumerate(dealers):
            assert dealer.poll(2000)
            assert dealer_wire(dealer).receive(10) == [[b"for", bytes([number])]]
    finally:
        for dealer in dealers:
            dealer.close()


def test_unknown_routing_id_is_gone_and_all_its_messages_with_it(
    router: zmq.Socket[bytes], router_wire: Any, dealer_wire: Any
) -> None:
    wire = router_wire(router)
    with connect(router) as dealer:
        dealer.send(b"hello")
        ((peer, _),) = all_of(router, wire, 1)
        batch = [(b"nobody", [b"1"]), (peer, [b"2"]), (b"nobody", [b"3"]), (peer, [b"4"])]
        assert wire.send(batch) == [(0, GONE), (2, GONE)]
        assert dealer.poll(2000)
        received: list[list[bytes]] = []
        while len(received) < 2 and dealer.poll(2000):
            received += dealer_wire(dealer).receive(10)
        assert received == [[b"2"], [b"4"]]


def test_full_peer_refuses_in_order_and_delays_no_other_peer(
    router: zmq.Socket[bytes], router_wire: Any, dealer_wire: Any
) -> None:
    wire = router_wire(router)
    url = sockets.bind(router, f"inproc://full.{router_wire.__module__}")
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
            received += [int(frames[0]) for frames in dealer_wire(slow).receive(100)]
        assert received == list(range(taken))
        assert quick.poll(2000)
        assert quick.recv() == b"hi"


def test_dealer_without_a_connection_refuses_all_from_the_first_on(dealer_wire: Any) -> None:
    with sockets.dealer() as dealer:
        dealer.setsockopt(zmq.LINGER, 0)
        sockets.connect(dealer, "tcp://127.0.0.1:1")
        assert dealer_wire(dealer).send([[b"a"], [b"b", b"c"]]) == [(0, FULL), (1, FULL)]


def test_dealer_reports_whether_a_message_can_be_received(
    router: zmq.Socket[bytes], router_wire: Any, dealer_wire: Any
) -> None:
    with connect(router) as dealer:
        wire, broker = dealer_wire(dealer), router_wire(router)
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
        router_wire: Any,
        dealer_wire: Any,
    ) -> None:
        wire = router_wire(router)
        monitor = Monitor(router, MonitorEvent.LOST)
        url = "tcp://127.0.0.1:*" if transport == "tcp" else f"ipc://{tmp_path / 's'}"
        dealer = connect(router, url)
        try:
            peer = dealer.getsockopt(zmq.ROUTING_ID)
            dealer_wire(dealer).send([[b"a", b"b"], [b"c"]])
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

    def test_forgotten_routing_id_is_reported_again(
        self, router: zmq.Socket[bytes], router_wire: Any
    ) -> None:
        wire = router_wire(router)
        with connect(router) as dealer:
            dealer.send(b"a")
            ((peer, _),) = all_of(router, wire, 1)
            (before,) = wire.connections()
            wire.forget(peer)
            wire.forget(peer)
            dealer.send(b"b")
            all_of(router, wire, 1)
            assert wire.connections() == [before]

    def test_inproc_has_no_descriptor_and_is_not_reported(
        self, router: zmq.Socket[bytes], router_wire: Any
    ) -> None:
        wire = router_wire(router)
        with connect(router, f"inproc://{router_wire.__module__}") as dealer:
            for _ in range(3):
                dealer.send(b"a")
            assert len(all_of(router, wire, 3)) == 3
            assert wire.connections() == []


class TestBounds:
    """A message beyond the bounds is read to its end and truncated."""

    def receive(
        self, wire: Router, router: zmq.Socket[bytes], *messages: list[bytes]
    ) -> list[list[bytes]]:
        with connect(router) as dealer:
            for frames in messages:
                dealer.send_multipart(frames)
            return [frames for _, frames in all_of(router, wire, len(messages))]

    def test_message_at_the_bounds_is_whole(
        self, router: zmq.Socket[bytes], router_wire: Any
    ) -> None:
        wire = router_wire(router, max_frames=3, max_bytes=10)
        message = [b"head", b"", b"123456"]
        assert self.receive(wire, router, message) == [message]

    def test_bytes_beyond_the_bound_are_dropped_and_counted_and_the_next_message_is_whole(
        self, router: zmq.Socket[bytes], router_wire: Any
    ) -> None:
        wire = router_wire(router, max_bytes=LARGE)
        message = [b"head", b"x" * LARGE, b"", b"tail"]
        cut, after = self.receive(wire, router, message, [b"next"])
        assert cut[:-1] == [b"head"]
        assert isinstance(cut[-1], Cut)
        assert sum(map(len, cut)) == sum(map(len, message))
        assert after == [b"next"]

    def test_frames_beyond_the_bound_are_dropped_but_it_stays_visible_that_there_were_more(
        self, router: zmq.Socket[bytes], router_wire: Any
    ) -> None:
        wire = router_wire(router, max_frames=3)
        cut, after = self.receive(wire, router, [b"%d" % n for n in range(6)], [b"next"])
        assert cut[:-1] == [b"0", b"1", b"2"]
        assert len(cut[-1]) == 3
        assert after == [b"next"]

    def test_empty_frames_beyond_the_bound_are_visible_too(
        self, router: zmq.Socket[bytes], router_wire: Any
    ) -> None:
        (cut,) = self.receive(router_wire(router, max_frames=2), router, [b"1", b"", b"", b""])
        assert len(cut) == 3


class TestLargeFrames:
    """A large frame may be a view of libzmq's memory that behaves like bytes."""

    @pytest.fixture
    def frame(self, router: zmq.Socket[bytes], router_wire: Any) -> bytes:
        with connect(router) as dealer:
            dealer.send_multipart([b"head", LETTERS])
            ((_, frames),) = all_of(router, router_wire(router), 1)
        return frames[1]

    def test_it_is_equal_to_its_bytes_and_hashes_like_them(self, frame: bytes) -> None:
        assert frame == LETTERS
        assert frame == LETTERS
        assert frame != LETTERS[:-1]
        assert frame != 5
        assert hash(frame) == hash(LETTERS)
        assert frame in {LETTERS}

    def test_parts_of_it_are_bytes(self, frame: bytes) -> None:
        assert (frame[:4], frame[-3:], frame[5]) == (LETTERS[:4], LETTERS[-3:], LETTERS[5])
        assert type(frame[:4]) is bytes
        assert len(frame) == len(LETTERS)

    def test_it_can_be_joined_and_made_bytes(self, frame: bytes) -> None:
        assert b"".join([b"<", frame, b">"]) == b"<" + LETTERS + b">"
        assert bytes(frame) == LETTERS

    def test_it_outlives_the_socket_it_came_from(
        self, frame: bytes, router: zmq.Socket[bytes]
    ) -> None:
        router.close()
        assert frame == LETTERS

    def test_it_is_sent_again_and_again_and_stays(
        self, router: zmq.Socket[bytes], router_wire: Any, dealer_wire: Any
    ) -> None:
        wire = router_wire(router)
        with connect(router) as dealer:
            dealer.send(LETTERS)
            ((peer, (frame,)),) = all_of(router, wire, 1)
            assert wire.send([(b"nobody", [frame])]) == [(0, GONE)]
            assert wire.send([(peer, [b"1", frame]), (peer, [frame, frame])]) == []
            received: list[list[bytes]] = []
            while len(received) < 2 and dealer.poll(2000):
                received += dealer_wire(dealer).receive(10)
            assert received == [[b"1", LETTERS], [LETTERS, LETTERS]]
            assert [type(part) for message in received for part in message] == [bytes] * 4
            assert frame == LETTERS


LETTERS = bytes(range(256)) * 400


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
    def test_each_message_names_the_user_of_its_connection(
        self, router: zmq.Socket[bytes], router_wire: Any
    ) -> None:
        router.setsockopt(zmq.PLAIN_SERVER, 1)
        wire = router_wire(router)
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

    def test_without_a_handler_there_is_no_user(
        self, router: zmq.Socket[bytes], router_wire: Any
    ) -> None:
        wire = router_wire(router)
        with connect(router) as dealer:
            peer = dealer.getsockopt(zmq.ROUTING_ID)
            dealer.send(b"hello")
            assert router.poll(2000)
            assert wire.receive_with_users(10) == [(peer, [b"hello"], "")]
            assert [told for told, _ in wire.connections()] == [peer]


class TestMisuse:
    """Invalid arguments are refused before anything is sent."""

    def test_message_without_frames_is_refused_and_no_message_stays_open(
        self, router: zmq.Socket[bytes], router_wire: Any, dealer_wire: Any
    ) -> None:
        wire = router_wire(router)
        with connect(router) as dealer:
            dealer.send(b"hello")
            ((peer, _),) = all_of(router, wire, 1)
            with pytest.raises(ValueError, match="at least one frame"):
                wire.send([(peer, [])])
            with pytest.raises(ValueError, match="at least one frame"):
                dealer_wire(dealer).send([[]])
            assert wire.send([(peer, [b"whole"])]) == []
            assert dealer.poll(2000)
            assert dealer_wire(dealer).receive(10) == [[b"whole"]]

    def test_socket_of_another_kind_is_refused(
        self, router: zmq.Socket[bytes], router_wire: Any, dealer_wire: Any
    ) -> None:
        with sockets.dealer() as dealer:
            with pytest.raises(TypeError):
                router_wire(dealer)
            with pytest.raises(TypeError):
                dealer_wire(router)

    def test_closed_socket_is_an_error_not_a_crash(
        self, router: zmq.Socket[bytes], kind: ModuleType
    ) -> None:
        wire, wait = kind.RouterWire(router), kind.Wait(router)
        with sockets.dealer() as dealer:
            dealer_wire = kind.DealerWire(dealer)
        router.close()
        for call in (
            lambda: wire.receive(1),
            lambda: wire.receive_with_users(1),
            lambda: wire.send([(b"somebody", [b"x"])]),
            lambda: dealer_wire.receive(1),
            lambda: dealer_wire.send([[b"x"]]),
            lambda: wait(0),
            lambda: kind.RouterWire(router),
        ):
            with pytest.raises(zmq.ZMQError) as caught:
                call()
            assert caught.value.errno == zmq.ENOTSOCK

    def test_object_that_is_not_a_frame_is_a_type_error(
        self, router: zmq.Socket[bytes], router_wire: Any
    ) -> None:
        wire = router_wire(router)
        with connect(router) as dealer:
            dealer.send(b"hello")
            ((peer, _),) = all_of(router, wire, 1)
            with pytest.raises(TypeError):
                wire.send([(peer, ["text"])])


class TestLongBatches:
    """Batches longer than a wire handles at once."""

    def test_order_is_kept_over_a_batch_of_thousands(
        self, router_wire: Any, dealer_wire: Any
    ) -> None:
        with sockets.router(max_message=1 << 20, send_hwm=0) as router:
            wire = router_wire(router)
            with connect(router) as dealer:
                dealer.send(b"hello")
                ((peer, _),) = all_of(router, wire, 1)
                batch = [(peer, [b"%d" % n, b"x" * (n % 70)]) for n in range(3000)]
                assert wire.send(batch) == []
                received: list[list[bytes]] = []
                while len(received) < 3000 and dealer.poll(2000):
                    received += dealer_wire(dealer).receive(1000)
                assert received == [frames for _, frames in batch]

    def test_refusals_of_a_batch_of_thousands_are_in_order(
        self, router: zmq.Socket[bytes], router_wire: Any
    ) -> None:
        peers = [b"peer%d" % (n % 7) for n in range(2000)]
        refused = router_wire(router).send([(peer, [b"x"]) for peer in peers])
        assert refused == [(index, GONE) for index in range(2000)]

    def test_dealer_whose_pipe_is_full_accepts_the_start_of_the_batch(
        self, dealer_wire: Any
    ) -> None:
        with sockets.dealer() as dealer:
            dealer.setsockopt(zmq.SNDHWM, 300)
            dealer.setsockopt(zmq.IMMEDIATE, 0)
            dealer.setsockopt(zmq.LINGER, 0)
            sockets.connect(dealer, "tcp://127.0.0.1:1")
            refused = dealer_wire(dealer).send([[b"%d" % n, b"x"] for n in range(1000)])
            taken = 1000 - len(refused)
            assert taken == 300
            assert refused == [(index, FULL) for index in range(taken, 1000)]


class TestWaiting:
    """Wait: bits say which of the sources is readable."""

    def test_each_source_has_its_bit(self, router: zmq.Socket[bytes], kind: ModuleType) -> None:
        waker = Waker()
        wait = kind.Wait(router, waker.fd)
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

    def test_it_ends_after_its_time(self, router: zmq.Socket[bytes], kind: ModuleType) -> None:
        start = time.monotonic()
        assert kind.Wait(router)(30) == 0
        assert 0.02 < time.monotonic() - start < 2

    def test_other_threads_run_while_it_waits(
        self, router: zmq.Socket[bytes], kind: ModuleType
    ) -> None:
        waker = Waker()
        thread = threading.Timer(0.02, waker.wake)
        try:
            thread.start()
            assert kind.Wait(router, waker.fd)(5000) == 0b10
        finally:
            thread.join()
            waker.close()

    def test_signal_is_handled_while_it_waits(
        self, router: zmq.Socket[bytes], kind: ModuleType
    ) -> None:
        seen: list[int] = []
        waker = Waker()
        before = signal.signal(signal.SIGALRM, lambda number, _: seen.append(number))
        fd = signal.set_wakeup_fd(waker.writer_fd, warn_on_full_buffer=False)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            wait = kind.Wait(router, waker.fd)
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

    def test_dealer_sends_whole_messages_after_it(self, dealer_wire: Any) -> None:
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
            wire = dealer_wire(dealer)
            refused = wire.send([[b"go"], [b"x"] * 400_000, [b"y"]])
            thread.join()
            assert refused in ([], [(1, FULL), (2, FULL)], [(2, FULL)])
            with sockets.router(max_message=1 << 20, send_hwm=10) as again:
                sockets.bind(again, url)
                assert dealer.poll(3000, zmq.POLLOUT)
                assert wire.send([[b"whole", b"message"]]) == []
                assert again.poll(2000)
                assert again.recv_multipart()[1:] == [b"whole", b"message"]

"""What every wire of a broker does: our own ZMTP over TCP and ipc, with NULL, PLAIN and CURVE, and
the sockets of libzmq. The peers are libzmq's.

What one wire alone promises is tested beside it: in `zmtp/` and in `zmq/test_wire.py`.
"""

from __future__ import annotations

import resource
import socket as plain
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import zmq

from majordomus.net.bodies import Cut
from majordomus.net.zmq import sockets
from majordomus.net.zmq.wire import FULL, GONE, RouterWire

LINUX = sys.platform == "linux"
OURS = {
    "tcp": "null",
    "ipc": "null ipc",
    "plain": "plain",
    "curve": "curve",
    "curve over ipc": "curve ipc",
}
"""The wires of our own ZMTP, as `test_zmtp.Router` names them."""
WIRES = (*(OURS if LINUX else ()), "libzmq")
with_exact_bounds = pytest.mark.parametrize("name", [one for one in WIRES if one != "libzmq"])
"""libzmq has no bound for the frames of a message that has not come to its end (docs/limits.md)."""
WITHIN = 5.0
LARGE = bytes(range(256)) * 1000
MIB = 1 << 20


class Wire:
    """One end of a wire: the router of a broker, with an endpoint that peers connect to."""

    url: str
    kind = "null"

    def __init__(self) -> None:
        self.got: list[tuple[bytes, list[Any]]] = []
        self.peers = ExitStack()

    def receive(self, most: int) -> list[tuple[bytes, list[Any]]]:
        """Wait a little, and return up to `most` messages."""
        raise NotImplementedError

    def send(self, batch: list[Any]) -> list[tuple[int, int]]:
        raise NotImplementedError

    def raw(self) -> Any:
        """Return a connection that is open, and sends frames in the clear, or in boxes."""
        raise NotImplementedError

    def close(self) -> None:
        self.peers.close()

    def turn(self, most: int = 1000) -> list[tuple[bytes, list[Any]]]:
        batch = self.receive(most)
        self.got += batch
        return batch

    def until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + WITHIN
        while not condition():
            assert time.monotonic() < end, self.got
            self.turn()

    def all_of(self, count: int) -> list[tuple[bytes, list[Any]]]:
        """Receive until there are `count` messages, and return them."""
        self.until(lambda: len(self.got) >= count)
        got, self.got = self.got, []
        assert len(got) == count
        return got

    def dealer(self, identity: bytes | None = None, most: int = 1000) -> zmq.Socket[bytes]:
        """Connect a peer of libzmq. It keeps at most `most` messages that are not read."""
        made = sockets.dealer() if identity is None else sockets.context().socket(zmq.DEALER)
        self.peers.enter_context(made)
        if identity:
            made.setsockopt(zmq.ROUTING_ID, identity)
        made.setsockopt(zmq.LINGER, 0)
        made.setsockopt(zmq.IMMEDIATE, 0)
        made.setsockopt(zmq.RCVHWM, most)
        if LINUX:
            test_zmtp.secure(made, self.kind)
        sockets.connect(made, self.url)
        return made

    def introduced(self, dealer: zmq.Socket[bytes]) -> bytes:
        """Let a peer send its first message; return its routing id."""
        dealer.send(b"hello")
        ((peer, frames),) = self.all_of(1)
        assert frames == [b"hello"]
        return peer

    def read(self, dealer: zmq.Socket[bytes], count: int) -> list[list[bytes]]:
        """Return the next `count` messages that a peer receives."""
        got: list[list[bytes]] = []

        def done() -> bool:
            while dealer.poll(0):
                got.append(dealer.recv_multipart())
            return len(got) >= count

        self.until(done)
        assert len(got) == count
        return got


if LINUX:
    from tests.net.zmtp import test_zmtp

    class OwnZmtp(Wire):
        """A TcpRouter. Ended connections are released at once, as the listener does it."""

        def __init__(self, name: str, **bounds: Any) -> None:
            super().__init__()
            self.of = test_zmtp.Router(OURS[name], max_dropped=200_000, **bounds)
            self.url, self.kind = self.of.url, self.of.kind

        def receive(self, most: int) -> list[tuple[bytes, list[Any]]]:
            batch = self.of.turn(most)
            for event, _, peer, _ in self.of.events:
                if event == test_zmtp.zmtp.CONNECTION_ENDED and peer is not None:
                    self.of.router.release(peer)
            self.of.events.clear()
            return batch

        def send(self, batch: list[Any]) -> list[tuple[int, int]]:
            return self.of.router.send(batch)  # type: ignore[no-any-return]

        def raw(self) -> Any:
            made = self.peers.enter_context(self.of.connect())
            test_zmtp.introduce(self.of, made)
            return made

        def close(self) -> None:
            super().close()
            self.of.close()


class Libzmq(Wire):
    """A ROUTER of libzmq over TCP, through pyzmq."""

    def __init__(self, _: str = "", *, hwm: int = 1000, **bounds: Any) -> None:
        super().__init__()
        self.socket = sockets.router(max_message=MIB, send_hwm=hwm)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.url = sockets.bind(self.socket, "tcp://127.0.0.1:*")
        self.wire = RouterWire(self.socket, **bounds)

    def receive(self, most: int) -> list[tuple[bytes, list[Any]]]:
        self.socket.poll(20)
        return self.wire.receive(most)

    def send(self, batch: list[Any]) -> list[tuple[int, int]]:
        return self.wire.send(batch)

    def raw(self) -> Any:
        port = int(self.url.rpartition(":")[2])
        made = self.peers.enter_context(plain.create_connection(("127.0.0.1", port), WITHIN))
        kind = b"\x0bSocket-Type\0\0\0\6DEALER"
        made.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32))
        made.sendall(bytes([4, 6 + len(kind)]) + b"\x05READY" + kind)
        said = b""
        while len(said) < 64 + 2:
            said += made.recv(1000)
        return made

    def close(self) -> None:
        super().close()
        self.socket.close()


@contextmanager
def closing(wires: list[Wire]) -> Iterator[None]:
    try:
        yield
    finally:
        for one in wires:
            one.close()


@pytest.fixture(params=WIRES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(name: str) -> Iterator[Callable[..., Wire]]:
    made: list[Wire] = []

    def begin(**bounds: Any) -> Wire:
        made.append(Libzmq(**bounds) if name == "libzmq" else OwnZmtp(name, **bounds))
        return made[-1]

    with closing(made):
        yield begin


@pytest.fixture
def wire(make: Callable[..., Wire]) -> Wire:
    return make()


def memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


class TestEveryWire:
    """Messages, routing ids, refusals, bounds and ends."""

    # ── messages ──────────────────────────────────────────────────────────────────────────────────

    def test_messages_of_a_peer_come_whole_in_order_with_its_routing_id(self, wire: Wire) -> None:
        dealer = wire.dealer()
        sent = [[b""], [b"a", b"", b"c"], [LARGE], [b"x" * 255, b"y" * 256], [b"z"] * 40]
        for frames in sent:
            dealer.send_multipart(frames)
        peer = dealer.getsockopt(zmq.ROUTING_ID)
        assert wire.all_of(len(sent)) == [(peer, frames) for frames in sent]

    def test_messages_to_a_peer_come_whole_and_in_order(self, wire: Wire) -> None:
        dealer = wire.dealer()
        peer = wire.introduced(dealer)
        sent = [[b""], [b"a", b"", LARGE, b"c"], [b"y" * 256, b"z" * 4097], [b"z"] * 40]
        assert wire.send([(peer, frames) for frames in sent]) == []
        assert wire.read(dealer, len(sent)) == sent

    def test_order_is_kept_over_a_batch_of_thousands(self, make: Callable[..., Wire]) -> None:
        wire = make(hwm=100_000)
        dealer = wire.dealer(most=0)
        peer = wire.introduced(dealer)
        sent = [[b"%d" % n, b"x" * (n % 700)] for n in range(3000)]
        assert wire.send([(peer, frames) for frames in sent]) == []
        assert wire.read(dealer, 3000) == sent

    def test_batch_is_not_longer_than_its_limit_and_the_rest_comes_next(self, wire: Wire) -> None:
        dealer = wire.dealer()
        peer = wire.introduced(dealer)
        for n in range(100):
            dealer.send(b"%d" % n)
        time.sleep(0.1)  # all of them are there, on most machines
        sizes: list[int] = []

        def done() -> bool:
            sizes.append(len(wire.turn(7)))
            return len(wire.got) == 100

        wire.until(done)
        assert max(sizes) <= 7
        assert wire.got == [(peer, [b"%d" % n]) for n in range(100)]

    def test_frames_of_other_buffer_types_are_sent_as_bytes(self, wire: Wire) -> None:
        dealer = wire.dealer()
        peer = wire.introduced(dealer)
        assert wire.send([(peer, [memoryview(b"view"), bytearray(b"array")])]) == []
        assert wire.read(dealer, 1) == [[b"view", b"array"]]

    def test_message_without_frames_is_refused_and_no_message_stays_open(self, wire: Wire) -> None:
        dealer = wire.dealer()
        peer = wire.introduced(dealer)
        with pytest.raises(ValueError, match="at least one frame"):
            wire.send([(peer, [])])
        assert wire.send([(peer, [b"whole"])]) == []
        assert wire.read(dealer, 1) == [[b"whole"]]

    def test_object_that_is_not_a_frame_is_a_type_error(self, wire: Wire) -> None:
        peer = wire.introduced(wire.dealer())
        with pytest.raises(TypeError):
            wire.send([(peer, ["text"])])

    # ── routing ids ───────────────────────────────────────────────────────────────────────────────

    def test_reply_goes_to_the_routing_id_it_is_for(self, wire: Wire) -> None:
        dealers = [wire.dealer(b"" if n == 0 else None) for n in range(3)]
        for n, dealer in enumerate(dealers):
            dealer.send(bytes([n]))
        batch = wire.all_of(3)
        assert len({peer for peer, _ in batch}) == 3
        assert wire.send([(peer, [b"for", *frames]) for peer, frames in batch]) == []
        for n, dealer in enumerate(dealers):
            assert wire.read(dealer, 1) == [[b"for", bytes([n])]]

    def test_messages_of_a_peer_whose_routing_id_begins_with_zero_are_not_received(
        self, wire: Wire
    ) -> None:
        wire.dealer(b"\0longer").send(b"stolen")
        honest = wire.dealer(b"honest")
        for _ in range(5):
            wire.turn()
        assert wire.introduced(honest) == b"honest"
        for _ in range(5):
            wire.turn()
        assert wire.got == []

    def test_second_peer_with_a_routing_id_in_use_gets_nothing_of_the_first(
        self, wire: Wire
    ) -> None:
        owner = wire.dealer(b"taken")
        assert wire.introduced(owner) == b"taken"
        thief = wire.dealer(b"taken")
        thief.send(b"stolen")
        for _ in range(10):
            wire.turn()
        assert wire.got == []
        assert wire.send([(b"taken", [b"mine"])]) == []
        assert wire.read(owner, 1) == [[b"mine"]]
        assert not thief.poll(0)

    # ── refusals ──────────────────────────────────────────────────────────────────────────────────

    def test_unknown_routing_id_is_gone_and_all_its_messages_with_it(self, wire: Wire) -> None:
        dealer = wire.dealer()
        peer = wire.introduced(dealer)
        batch = [(b"nobody", [b"1"]), (peer, [b"2"]), (b"nobody", [b"3"]), (peer, [b"4"])]
        assert wire.send(batch) == [(0, GONE), (2, GONE)]
        assert wire.read(dealer, 2) == [[b"2"], [b"4"]]

    def test_peer_that_does_not_read_is_full_in_order_and_delays_no_other_peer(
        self, make: Callable[..., Wire]
    ) -> None:
        wire = make(hwm=10)
        stuck, other = wire.dealer(most=2), wire.dealer()
        slow, quick = wire.introduced(stuck), wire.introduced(other)
        sent = 0
        while not (refused := wire.send([(slow, [b"%d" % sent, LARGE])])):
            sent += 1
            assert sent < 1000
        assert refused == [(0, FULL)]
        while not wire.send([(slow, [b"%d" % sent, LARGE])]):  # libzmq's thread was not done
            sent += 1
        batch = [(slow, [b"late"]), (quick, [b"now"]), (slow, [b"later"])]
        refused = wire.send(batch)
        late = [frames for _, frames in batch[::2]][: 2 - len(refused)]
        assert [index for index, _ in refused] == [0, 2][2 - len(refused) :]
        assert {number for _, number in refused} <= {FULL}
        assert wire.read(other, 1) == [[b"now"]]
        got = wire.read(stuck, sent + len(late))
        assert got == [[b"%d" % n, LARGE] for n in range(sent)] + late
        assert wire.send([(slow, [b"again"])]) == []
        assert wire.read(stuck, 1) == [[b"again"]]

    # ── ends ──────────────────────────────────────────────────────────────────────────────────────

    def test_last_messages_of_a_peer_are_received_and_then_it_is_gone(self, wire: Wire) -> None:
        dealer = wire.dealer(b"leaving")
        for n in range(300):
            dealer.send(b"%d" % n)
        dealer.close(linger=5000)
        assert wire.all_of(300) == [(b"leaving", [b"%d" % n]) for n in range(300)]
        wire.until(lambda: wire.send([(b"leaving", [b"late"])]) == [(0, GONE)])

    def test_routing_id_of_a_peer_that_has_left_may_be_used_again(self, wire: Wire) -> None:
        first = wire.dealer(b"me")
        assert wire.introduced(first) == b"me"
        first.close()
        wire.until(lambda: wire.send([(b"me", [b"late"])]) == [(0, GONE)])
        for _ in range(10):  # libzmq refuses messages before it lets go of the routing id
            wire.turn()
        second = wire.dealer(b"me")
        assert wire.introduced(second) == b"me"
        assert wire.send([(b"me", [b"mine"])]) == []
        assert wire.read(second, 1) == [[b"mine"]]

    # ── bounds ────────────────────────────────────────────────────────────────────────────────────

    def test_message_at_the_bounds_is_whole(self, make: Callable[..., Wire]) -> None:
        wire = make(max_frames=3, max_bytes=10)
        sent = [b"head", b"", b"123456"]
        wire.dealer().send_multipart(sent)
        assert [frames for _, frames in wire.all_of(1)] == [sent]

    @pytest.mark.parametrize(
        ("sent", "kept"),
        [
            ([b"a" * 600, b"b" * 401], [b"a" * 600]),
            ([b"c"] * 6, [b"c"] * 4),
            ([b"d", b"", b"", b"", b"", b""], [b"d", b"", b"", b""]),
            ([b"e" * 50_000, b""], []),
            ([b"f", b"g" * 50_000, b"h" * 50_000], [b"f"]),
        ],
        ids=["bytes", "frames", "empty-frames", "large", "two-large"],
    )
    def test_excess_of_a_message_is_dropped_and_the_next_message_is_whole(
        self, make: Callable[..., Wire], sent: list[bytes], kept: list[bytes]
    ) -> None:
        wire = make(max_frames=4, max_bytes=1000)
        dealer = wire.dealer()
        dealer.send_multipart(sent)
        dealer.send_multipart([b"", b"whole"])
        (_, cut), (_, whole) = wire.all_of(2)
        assert cut[:-1] == kept
        assert isinstance(cut[-1], Cut)
        assert whole == [b"", b"whole"]

    def test_frame_without_an_end_ends_its_connection(self, make: Callable[..., Wire]) -> None:
        wire = make(max_frames=4, max_bytes=1000)
        raw = wire.raw()
        before = memory()
        self.flood(wire, raw, b"\x02" + (1 << 40).to_bytes(8) + bytes(4 * MIB))
        assert memory() - before < 64 * MIB

    @with_exact_bounds
    @pytest.mark.parametrize("frame", [b"\x01\x00" * 100_000, b"\x03" + (60_000).to_bytes(8)])
    def test_message_with_frames_without_an_end_ends_its_connection(
        self, make: Callable[..., Wire], frame: bytes
    ) -> None:
        wire = make(max_frames=4, max_bytes=1000)
        raw = wire.raw()
        before = memory()
        self.flood(wire, raw, frame if frame[0] == 1 else (frame + bytes(60_000)) * 20)
        assert memory() - before < 64 * MIB

    def flood(self, wire: Wire, raw: Any, data: bytes) -> None:
        """Send it until the connection is ended."""
        socket = getattr(raw, "socket", raw)
        if getattr(raw, "boxes", None) is not None:
            if data[0] == 2:  # the head of a box is genuine; the box has no end
                data = data[:9] + raw.boxed(b"\x00\x05begin")[2:] + data[9:]
            else:
                data = raw.boxed(data)
        socket.setblocking(False)
        rest = memoryview(data)

        def ended() -> bool:
            nonlocal rest
            try:
                while True:
                    rest = rest[socket.send(rest[: 1 << 16]) :] if rest else memoryview(data)
            except BlockingIOError:
                pass
            except OSError:
                return True
            with suppress(BlockingIOError):
                try:
                    return not socket.recv(1 << 16)
                except OSError as error:
                    if isinstance(error, BlockingIOError):
                        raise
                    return True
            return False

        wire.until(ended)

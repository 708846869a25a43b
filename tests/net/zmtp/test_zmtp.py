"""Our own ZMTP with peers of libzmq, with peers that send in pieces, and with other protocols.

A test that uses `make` or `router` runs once for each mechanism, NULL, PLAIN and CURVE, over TCP,
and for NULL and CURVE over ipc. Its raw peers send and read frames in the clear; with CURVE,
`RawPeer` puts each of them into a box.
"""

from __future__ import annotations

import errno
import importlib
import os
import random
import select
import socket as plain
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from zmq.utils import z85

from majordomus.net.bodies import Cut
from majordomus.net.zmq import sockets
from majordomus.net.zmq.monitor import Monitor, MonitorEvent
from majordomus.net.zmq.wire import FULL, GONE
from majordomus.net.zmtp import ipc, tcp

KINDS = ("null", "plain", "curve", "null ipc", "curve ipc")
in_the_clear = pytest.mark.parametrize("kind", ["null", "plain", "null ipc"])
"""For tests that send a part of a frame: a box is sent as a whole."""
with_null = pytest.mark.parametrize("kind", ["null", "null ipc"])
"""For tests that send the handshake of NULL by hand."""

zmtp: Any = pytest.importorskip(
    "majordomus.net.zmtp.engine", reason="our own ZMTP is for Linux alone"
)
mechanisms: Any = importlib.import_module("majordomus.net.zmtp.mechanisms")
TcpRouter: Any = importlib.import_module("majordomus.net.zmtp.router").TcpRouter
TcpDealer: Any = importlib.import_module("majordomus.net.zmtp.dealer").TcpDealer

WITHIN = 5.0
SERVER = tuple(z85.decode(key) for key in zmq.curve_keypair())
CLIENT = tuple(z85.decode(key) for key in zmq.curve_keypair())
USER = (b"ann", b"secret")
SIGNATURE = b"\xff" + bytes(8) + b"\x7f"
GREETING = SIGNATURE + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
LARGE = bytes(range(256)) * 1000


def ready(identity: bytes = b"", kind: bytes = b"DEALER") -> bytes:
    return mechanisms.ready(kind, identity)  # type: ignore[no-any-return]


def packed(*frames: bytes) -> bytes:
    """A message as it is on the wire."""
    data = b""
    for n, frame in enumerate(frames):
        more = n + 1 < len(frames)
        if len(frame) < 256:
            data += bytes([more, len(frame)]) + frame
        else:
            data += bytes([more | 2]) + len(frame).to_bytes(8) + frame
    return data


def greeting(kind: str) -> bytes:
    return GREETING.replace(b"NULL".ljust(20, b"\0"), kind.upper().encode().ljust(20, b"\0"))


def server_of(kind: str) -> Callable[[], Any]:
    """Return what makes the server's side of a handshake."""
    if kind == "curve":
        keys = mechanisms.CurveKeys(*SERVER)
        return lambda: mechanisms.CurveServer(keys, b"ROUTER")
    return lambda: (mechanisms.PlainServer if kind == "plain" else mechanisms.Null)(b"ROUTER")


def client_of(kind: str, identity: bytes = b"", **named: Any) -> Any:
    """Make the client's side of a handshake."""
    if kind == "curve":
        return mechanisms.CurveClient(SERVER[0], *CLIENT, b"DEALER", identity, **named)
    if kind == "plain":
        return mechanisms.PlainClient(*USER, b"DEALER", identity)
    return mechanisms.Null(b"DEALER", identity)


def secure(socket: zmq.Socket[bytes], kind: str) -> None:
    """Give a client of libzmq what it needs for a mechanism."""
    if kind == "curve":
        socket.setsockopt(zmq.CURVE_SERVERKEY, z85.encode(SERVER[0]))
        socket.setsockopt(zmq.CURVE_PUBLICKEY, z85.encode(CLIENT[0]))
        socket.setsockopt(zmq.CURVE_SECRETKEY, z85.encode(CLIENT[1]))
    elif kind == "plain":
        socket.setsockopt(zmq.PLAIN_USERNAME, USER[0])
        socket.setsockopt(zmq.PLAIN_PASSWORD, USER[1])


class RawPeer:
    """A socket whose owner sends and reads frames in the clear.

    Once `boxes` is set, each whole frame is sent as a box, and each box is read as a frame.
    """

    def __init__(self, router: Router) -> None:
        self.router = router
        self.socket = connected(router.url)
        self.socket.setblocking(True)
        self.boxes: Any = None
        self._unsent = b""
        self._boxed = bytearray()
        self._read = bytearray()
        self.settimeout, self.setblocking = self.socket.settimeout, self.socket.setblocking
        self.setsockopt, self.close = self.socket.setsockopt, self.socket.close

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def boxed(self, data: bytes) -> bytes:
        """Return the boxes of these frames; a part of a frame waits for its rest."""
        self._unsent += data
        made = []
        while (frame := first_frame(self._unsent)) is not None:
            flags, body, self._unsent = frame
            made.append(self.boxes.seal_frame(2 if flags & 4 else flags & 1, body))
        return b"".join(made)

    def sendall(self, data: bytes) -> None:
        """Send everything. The router reads while the kernel's buffer is full, which is small for a
        Unix socket. Returns as well when the router has ended the connection meanwhile."""
        rest = memoryview(data if self.boxes is None else self.boxed(data))
        end = time.monotonic() + WITHIN
        while rest:
            try:
                rest = rest[self.socket.send(rest, plain.MSG_DONTWAIT) :]
            except BlockingIOError:
                assert time.monotonic() < end
                self.router.turn()
            except (BrokenPipeError, ConnectionResetError):
                return

    def send(self, data: bytes) -> int:
        return self.socket.send(data if self.boxes is None else self.boxed(data))

    def recv(self, size: int) -> bytes:
        if self.boxes is None:
            return self.socket.recv(size)
        end = time.monotonic() + (self.socket.gettimeout() or WITHIN)
        while not self._read:
            if not becomes_ready(self.socket, select.POLLIN, 0):
                if self.socket.gettimeout() == 0:
                    raise BlockingIOError
                if time.monotonic() > end:
                    raise TimeoutError
                self.router.turn()  # a box is read as a whole, and the kernel's buffer may be small
                continue
            got = self.socket.recv(1 << 20)
            if not got:
                return b""
            self._boxed += got
            while (frame := first_frame(self._boxed)) is not None:
                _, body, rest = frame
                self._boxed = bytearray(rest)
                opened = self.boxes.open_body(bytes(body))
                assert opened is not None
                flags, text = opened
                self._read += b"\x04" + bytes([len(text)]) + text if flags & 2 else b""
                self._read += text if flags & 64 else b""
                if not flags & 66:
                    head = bytes([flags & 1, min(len(text), 255)])
                    if len(text) > 255:
                        head = bytes([flags & 1 | 2]) + len(text).to_bytes(8)
                    self._read += head + text
        taken = bytes(self._read[:size])
        del self._read[:size]
        return taken


def first_frame(data: bytes | bytearray) -> tuple[int, bytes, bytes] | None:
    """Return the flags and body of the first frame, and what follows; None when it is not whole."""
    head = 9 if data and data[0] & 2 else 2
    if len(data) < head:
        return None
    end = head + int.from_bytes(data[1:head])
    return None if len(data) < end else (data[0], bytes(data[head:end]), bytes(data[end:]))


def becomes_ready(waited_for: plain.socket | int, events: int, seconds: float) -> bool:
    """Tell whether it is ready within `seconds`; its number may be over select's 1,023."""
    poll = select.poll()
    poll.register(waited_for, events)
    return bool(poll.poll(seconds * 1000))


def connecting(url: str) -> plain.socket:
    if url.startswith("ipc://"):
        return ipc.connect(url)
    (place,) = tcp.parse_addresses(url)
    return tcp.connect(place)


def connected(url: str) -> plain.socket:
    made = connecting(url)
    becomes_ready(made, select.POLLOUT, WITHIN)
    return made


class Router:
    """A TcpRouter with a listening socket. `kind` is a mechanism, and ipc where that is meant."""

    def __init__(self, kind: str = "null", **bounds: Any) -> None:
        self.kind, _, transport = kind.partition(" ")
        self.router = TcpRouter(os.urandom, make_mechanism=server_of(self.kind), **bounds)
        self.listening: plain.socket | ipc.UnixListener
        if transport == "ipc":
            self.listening = ipc.listen("ipc://*")
            self.url = self.listening.url
        else:
            self.listening, self.url = tcp.listen("tcp://127.0.0.1:*")
        self.router.listen(self.listening.fileno())
        self.events: list[tuple[int, int, bytes | None, str]] = []
        self.got: list[tuple[bytes, list[bytes]]] = []

    def connect(self) -> RawPeer:
        return RawPeer(self)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def turn(self, most: int = 1000) -> list[tuple[bytes, list[bytes]]]:
        self.router.wait(20)
        batch: list[tuple[bytes, list[bytes]]] = self.router.receive(most, time.monotonic())
        self.got += batch
        self.events += self.router.events()
        return batch

    def all_of(self, count: int) -> list[tuple[bytes, list[bytes]]]:
        """Receive until there are `count` messages, and return them."""
        self.until(lambda: len(self.got) >= count)
        got, self.got = self.got, []
        assert len(got) == count
        return got

    def until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + WITHIN
        while not condition():
            assert time.monotonic() < end, self.events
            self.turn()

    def wait_for(self, what: int) -> tuple[int, int, bytes | None, str]:
        """Wait for the next event of this kind; earlier events are dropped."""

        def found() -> bool:
            while self.events and self.events[0][0] != what:
                self.events.pop(0)
            return bool(self.events)

        self.until(found)
        return self.events.pop(0)

    def close(self) -> None:
        self.router.close()
        self.listening.close()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(kind: str) -> Iterator[Callable[..., Router]]:
    made: list[Router] = []

    def begin(**bounds: Any) -> Router:
        made.append(Router(kind, **bounds))
        return made[-1]

    yield begin
    for one in made:
        one.close()


@pytest.fixture
def router(make: Callable[..., Router]) -> Router:
    return make()


@pytest.fixture
def raw(router: Router) -> Iterator[RawPeer]:
    with router.connect() as made:
        made.settimeout(WITHIN)
        yield made


def received(raw: RawPeer, size: int) -> bytes:
    data = b""
    while len(data) < size:
        got = raw.recv(size - len(data))
        assert got, f"the end after {data!r}"
        data += got
    return data


def is_ended(raw: RawPeer) -> bool:
    raw.settimeout(0.5)
    try:
        while raw.recv(65536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


def shaken(router: Router, raw: plain.socket, client: Any) -> Any:
    """Run the handshake of a raw peer; return its boxes."""
    raw.sendall(greeting(router.kind) + client.begin())
    data = b""
    raw.setblocking(False)
    end = time.monotonic() + WITHIN
    while client.stage == mechanisms.WORKING:
        assert time.monotonic() < end, router.events
        router.turn()
        with suppress(BlockingIOError):
            got = raw.recv(4096)
            assert got, router.events
            data += got
        if len(data) > 64 and (frame := first_frame(data[64:])) is not None:
            _, body, rest = frame
            data = data[:64] + rest
            raw.sendall(client.receive(body, 0.0))
    assert client.stage == mechanisms.DONE, client.failure
    assert len(data) == 64
    raw.settimeout(WITHIN)
    return client.boxes


def introduce(router: Router, raw: RawPeer, identity: bytes = b"") -> bytes:
    """Complete the handshake of a raw peer; return its routing id."""
    if router.kind != "null":
        raw.boxes = shaken(router, raw.socket, client_of(router.kind, identity))
        peer = router.wait_for(zmtp.HANDSHAKE_DONE)[2]
        assert peer is not None
        return peer
    raw.sendall(GREETING + ready(identity))
    peer = router.wait_for(zmtp.HANDSHAKE_DONE)[2]
    expected = 64 + len(ready(b"", b"ROUTER"))
    assert received(raw, expected)[64:] == ready(b"", b"ROUTER")
    assert peer is not None
    return peer


# ── messages ──────────────────────────────────────────────────────────────────────────────────────


def test_order_is_kept_over_thousands_and_through_a_full_kernel(
    make: Callable[..., Router],
) -> None:
    router = make(hwm=100_000)
    with router.connect() as raw:
        raw.settimeout(WITHIN)
        peer = introduce(router, raw)
        sent = [[b"%d" % n, bytes(n % 700), LARGE[: n % 9000]] for n in range(4000)]
        assert router.router.send([(peer, frames) for frames in sent]) == []
        expected = b"".join(packed(*frames) for frames in sent)
        raw.setblocking(False)
        data = bytearray()

        def done() -> bool:
            while True:
                try:
                    data.extend(raw.recv(1 << 20))
                except BlockingIOError:
                    return len(data) >= len(expected)

        router.until(done)
        assert data == expected
        assert router.router.unsent() == 0


def test_batch_for_more_connections_than_there_are_buffers_reaches_all_in_order(
    router: Router,
) -> None:
    with ExitStack() as stack:
        there = {b"\1peer-%03d" % n: stack.enter_context(router.connect()) for n in range(130)}
        for peer, connection in there.items():
            connection.settimeout(WITHIN)
            introduce(router, connection, peer)
        batch = [(peer, [b"%d" % n, peer]) for n in range(3) for peer in there]
        assert router.router.send(batch) == []
        for peer, connection in there.items():
            expected = b"".join(packed(b"%d" % n, peer) for n in range(3))
            assert received(connection, len(expected)) == expected


def test_batch_is_not_longer_than_its_limit_and_the_rest_needs_no_further_input(
    router: Router, raw: RawPeer
) -> None:
    peer = introduce(router, raw)
    raw.sendall(b"".join(packed(b"%d" % n) for n in range(2500)))
    got: list[tuple[bytes, list[bytes]]] = []
    sizes = []
    while len(got) < 2500:
        assert router.router.wait(int(WITHIN * 1000)) == 2
        batch = router.router.receive(7, 0.0)
        sizes.append(len(batch))
        got += batch
    assert max(sizes) == 7
    assert got == [(peer, [b"%d" % n]) for n in range(2500)]


@in_the_clear
@pytest.mark.parametrize("loud", [1, 4, 20])
def test_peers_that_send_a_lot_leave_turns_to_others(router: Router, loud: int) -> None:
    with ExitStack() as stack:
        crowd = [stack.enter_context(router.connect()) for _ in range(loud + 1)]
        peers = [introduce(router, one) for one in crowd]
        for _ in range(3):
            router.turn()
        for one in crowd[1:]:
            one.setblocking(False)
            one.send(packed(b"l") * 40_000)
        for _ in range(loud):
            router.turn(256)
        router.got.clear()
        crowd[0].sendall(packed(b"q"))
        router.until(lambda: router.turn(256) and (peers[0], [b"q"]) in router.got)
        assert router.got.index((peers[0], [b"q"])) <= 256 + 32 * (loud + 1)


def test_fewer_messages_than_the_limit_mean_that_there_are_no_more(
    router: Router, raw: RawPeer
) -> None:
    introduce(router, raw)
    raw.sendall(packed(b"x" * 200) * 250)
    time.sleep(0.1)
    batches = [router.router.receive(100, 0.0) for _ in range(4)]
    assert [len(batch) for batch in batches] == [100, 100, 50, 0]


@pytest.mark.parametrize("size", [1, 200, 255, 256, 900, 4096, 4097])
def test_message_that_comes_byte_by_byte_is_counted_once(
    make: Callable[..., Router], size: int
) -> None:
    router = make(max_bytes=size, max_frames=2, max_unfinished=100_000)
    with router.connect() as raw:
        peer = introduce(router, raw)
        data = packed(b"", b"x" * size)
        step = max(1, len(data) // 40)
        for at in range(0, len(data), step):
            raw.sendall(data[at : at + step])
            router.turn()
        assert router.all_of(1) == [(peer, [b"", b"x" * size])]


@in_the_clear
def test_peer_that_pings_and_never_reads_fills_no_buffer(router: Router, raw: RawPeer) -> None:
    peer = introduce(router, raw)
    ping = b"\x04\x07\x04PING\x00\x00"
    raw.setblocking(False)
    for _ in range(400):
        with suppress(BlockingIOError):
            raw.send(ping * 10_000)
        router.turn()
    while not router.router.send([(peer, [LARGE])]):
        pass
    assert router.router.unsent() == 1
    before = Path("/proc/self/statm").read_text().split()[1]
    for _ in range(400):
        with suppress(BlockingIOError):
            raw.send(ping * 10_000)
        router.turn()
    grown = int(Path("/proc/self/statm").read_text().split()[1]) - int(before)
    assert grown * 4096 < 8 << 20


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.binary(max_size=600), min_size=1, max_size=4), max_size=8), st.data())
def test_bytes_in_any_pieces_make_the_same_messages(
    messages: list[list[bytes]], data: st.DataObject
) -> None:
    stream = GREETING + ready(b"me") + b"".join(packed(*frames) for frames in messages)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=12)))
    router = Router()
    try:
        with router.connect() as raw:
            for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
                raw.sendall(stream[start:end])
                router.turn(3)
            assert router.all_of(len(messages)) == [(b"me", frames) for frames in messages]
    finally:
        router.close()


# ── refusals ──────────────────────────────────────────────────────────────────────────────────────


def test_peer_that_does_not_read_is_full_in_order_and_delays_no_other_peer(
    make: Callable[..., Router],
) -> None:
    router = make(hwm=10)
    with (
        router.connect() as stuck,
        router.connect() as other,
    ):
        other.settimeout(WITHIN)
        slow, quick = introduce(router, stuck), introduce(router, other)
        sent = 0
        while not (refused := router.router.send([(slow, [b"%d" % sent, LARGE])])):
            sent += 1
            assert sent < 1000
        assert refused == [(0, FULL)]
        batch = [(slow, [b"late"]), (quick, [b"now"]), (slow, [b"later"])]
        assert router.router.send(batch) == [(0, FULL), (2, FULL)]
        assert received(other, 5) == packed(b"now")
        stuck.settimeout(WITHIN)
        expected = b"".join(packed(b"%d" % n, LARGE) for n in range(sent))
        data = bytearray()
        while len(data) < len(expected):
            data += stuck.recv(1 << 20)
            router.turn()
        assert data == expected
        assert router.router.send([(slow, [b"again"])]) == []
        assert received(stuck, 7) == packed(b"again")


def test_last_messages_are_received_before_the_end_is_reported(
    router: Router, raw: RawPeer
) -> None:
    peer = introduce(router, raw)
    raw.sendall(b"".join(packed(b"%d" % n) for n in range(600)))
    raw.close()
    while not any(what == zmtp.CONNECTION_ENDED for what, *_ in router.events):
        router.turn(100)
    assert [frames[0] for _, frames in router.got] == [b"%d" % n for n in range(600)]
    assert router.wait_for(zmtp.CONNECTION_ENDED)[2:] == (peer, zmtp.BROKEN_OFF)
    assert router.router.send([(peer, [b"too late"])]) == [(0, GONE)]


def test_descriptor_of_an_ended_connection_is_closed_and_its_buffers_with_it(
    router: Router,
) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        with router.connect() as raw:
            introduce(router, raw)
            raw.sendall(packed(b"half")[:-2])
        router.wait_for(zmtp.CONNECTION_ENDED)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert router.router.open_count == 0


# ── bounds ────────────────────────────────────────────────────────────────────────────────────────


def test_excess_of_a_message_is_dropped_and_the_next_message_is_whole(
    make: Callable[..., Router],
) -> None:
    router = make(max_frames=4, max_bytes=1000, max_dropped=100_000)
    with router.connect() as raw:
        introduce(router, raw)
        raw.sendall(
            packed(b"a" * 600, b"b" * 400)
            + packed(b"a" * 600, b"b" * 401)
            + packed(*[b"c"] * 6)
            + packed(b"d" * 50_000, b"")
            + packed(b"", b"whole")
        )
        got = [frames for _, frames in router.all_of(5)]
    assert got[0] == [b"a" * 600, b"b" * 400]
    assert [len(frame) for frame in got[1]] == [600, 401]
    assert isinstance(got[1][1], Cut)
    assert [len(frame) for frame in got[2]] == [1, 1, 1, 1, 1]
    assert [len(frame) for frame in got[3]] == [50_000]
    assert got[4] == [b"", b"whole"]


@in_the_clear
@pytest.mark.parametrize("rest", [1, 100, 99_000])
def test_message_that_is_too_large_is_delivered_before_its_rest_has_arrived(
    make: Callable[..., Router], rest: int
) -> None:
    router = make(max_frames=10, max_bytes=1000, max_dropped=100_000)
    with router.connect() as raw:
        peer = introduce(router, raw)
        sent = packed(b"head", b"x" * 99_500)
        raw.sendall(sent[:-rest])
        ((who, (head, cut)),) = router.all_of(1)
        assert (who, head, len(cut), type(cut)) == (peer, b"head", 99_500, Cut)
        raw.sendall(sent[-rest:] + packed(b"", b"whole"))
        assert router.all_of(1) == [(peer, [b"", b"whole"])]


@in_the_clear
def test_message_that_is_too_large_may_go_on_for_a_bounded_time(
    make: Callable[..., Router],
) -> None:
    router = make(max_bytes=1000, max_dropped=1_000_000, max_dropping=0.2)
    with router.connect() as raw:
        peer = introduce(router, raw)
        raw.sendall(packed(b"head", b"x" * 500_000)[:2000])
        assert [who for who, _ in router.all_of(1)] == [peer]
        raw.sendall(b"x" * 100)
        for _ in range(5):
            router.turn()
        time.sleep(0.25)
        raw.sendall(b"x" * 100)
        assert router.wait_for(zmtp.CONNECTION_ENDED)[2:] == (peer, zmtp.ENDLESS)


@in_the_clear
@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"\x02" + (200_000).to_bytes(8) + bytes(110_000), zmtp.ENDLESS),
        (packed(*[b"x" * 60_000] * 3), zmtp.ENDLESS),
        (packed(*[b""] * 60_000), zmtp.ENDLESS),
        (packed(*[b""] * 1_600), zmtp.ENDLESS),
        (b"\x02" + b"\xff" * 8, zmtp.TOO_LARGE),
        (b"\x08\x01x", zmtp.MALFORMED),
        (b"\x06" + (5000).to_bytes(8), zmtp.MALFORMED),
    ],
    ids=["frame", "message", "empty-frames", "few-empty-frames", "length", "flags", "command"],
)
def test_connection_with_a_message_whose_rest_is_too_long_is_ended(
    make: Callable[..., Router], sent: bytes, why: str
) -> None:
    router = make(max_frames=10, max_bytes=1000, max_dropped=100_000)
    with router.connect() as raw:
        peer = introduce(router, raw)
        with suppress(ConnectionError):
            raw.sendall(sent)
        assert router.wait_for(zmtp.CONNECTION_ENDED)[2:] == (peer, why)
        assert is_ended(raw)


@pytest.mark.parametrize("kind", ["null", "plain"])  # by ipc, 600 kB do not come at once
def test_unfinished_messages_are_bounded_together_and_the_largest_is_ended(
    make: Callable[..., Router],
) -> None:
    router = make(max_unfinished=1_000_000)
    with ExitStack() as stack:
        peers = []
        for n in range(4):
            raw = stack.enter_context(router.connect())
            peers.append(introduce(router, raw))
            raw.sendall(packed(b"x" * 100_000, b"")[:-2])
            raw.sendall(b"\x02" + (10_000_000).to_bytes(8) + bytes(20_000 * n))
            for _ in range(5):
                router.turn()
        greedy = stack.enter_context(router.connect())
        peers.append(introduce(router, greedy))
        greedy.sendall(b"\x02" + (10_000_000).to_bytes(8) + bytes(600_000))
        assert router.wait_for(zmtp.CONNECTION_ENDED)[2:] == (peers[4], zmtp.UNFINISHED)
        assert router.router.open_count == 4


def test_complete_messages_count_no_longer(make: Callable[..., Router]) -> None:
    router = make(max_unfinished=300_000)
    with router.connect() as raw:
        introduce(router, raw)
        for n in range(20):
            raw.sendall(packed(b"%d" % n, bytes(200_000)))
            assert len(router.all_of(1)[0][1][1]) == 200_000
        assert router.router.open_count == 1


def test_bytes_that_wait_for_a_peer_are_bounded(make: Callable[..., Router]) -> None:
    router = make(max_unsent=1_000_000)
    with router.connect() as stuck:
        peer = introduce(router, stuck)
        sent = 0
        while not router.router.send([(peer, [LARGE])]):
            sent += 1
            assert sent < 200
        assert sent * len(LARGE) >= 1_000_000


def test_bytes_that_wait_for_all_peers_are_bounded_and_small_messages_still_leave(
    make: Callable[..., Router],
) -> None:
    router = make(max_all_unsent=1_000_000)
    with ExitStack() as stack:
        stuck, reader = (stack.enter_context(router.connect()) for _ in range(2))
        slow, quick = introduce(router, stuck), introduce(router, reader)
        while not router.router.send([(slow, [LARGE])]):
            assert router.router.buffered()[0] < 1_000_000 + 2 * len(LARGE)
        assert router.router.send([(slow, [b"x"])]) == [(0, FULL)]
        assert router.router.send([(quick, [LARGE])]) == [(0, FULL)]
        assert router.router.send([(quick, [b"small"])]) == []
        assert received(reader, 7) == packed(b"small")
        stuck.close()
        router.wait_for(zmtp.CONNECTION_ENDED)
        assert router.router.buffered() == (0, 0)
        assert router.router.send([(quick, [LARGE])]) == []


def test_connection_that_reads_nothing_is_ended_for_room_in_all(
    make: Callable[..., Router],
) -> None:
    router = make(max_all_unsent=1_000_000)
    with ExitStack() as stack:
        stuck, reader = (stack.enter_context(router.connect()) for _ in range(2))
        slow, quick = introduce(router, stuck), introduce(router, reader)
        while not router.router.send([(slow, [LARGE])]):
            pass
        now = time.monotonic()
        router.router.receive(10, now + 4)
        assert router.router.events() == []
        router.router.receive(10, now + 6)
        ((event, _, peer, why),) = router.router.events()
        assert (event, peer, why) == (zmtp.CONNECTION_ENDED, slow, zmtp.STALLED)
        assert router.router.has_peer(quick)


@in_the_clear
def test_announced_frame_takes_no_memory_before_its_bytes_arrive(
    router: Router, raw: RawPeer
) -> None:
    introduce(router, raw)
    raw.sendall(b"\x02" + (1 << 40).to_bytes(8) + b"x" * 5000)
    for _ in range(5):
        router.turn()
    raw.sendall(b"y")
    router.turn()
    assert router.router.open_count == 1


# ── handshakes ────────────────────────────────────────────────────────────────────────────────────


def test_ping_is_answered_with_its_context(router: Router, raw: RawPeer) -> None:
    introduce(router, raw)
    raw.sendall(b"\x04\x0c\x04PING\x00\x0ahello" + packed(b"and on"))
    assert [frames for _, frames in router.all_of(1)] == [[b"and on"]]
    assert received(raw, 12) == b"\x04\x0a\x04PONGhello"


def test_peer_without_a_routing_id_gets_one_that_begins_with_zero(
    router: Router, raw: RawPeer
) -> None:
    peer = introduce(router, raw)
    assert (peer[0], len(peer)) == (0, 5)


@with_null
def test_routing_id_that_is_in_use_is_refused(router: Router, raw: RawPeer) -> None:
    introduce(router, raw, b"taken")
    with router.connect() as thief:
        thief.sendall(GREETING + ready(b"taken") + packed(b"stolen"))
        assert router.wait_for(zmtp.HANDSHAKE_FAILED)[3] == zmtp.ID_IN_USE
        assert is_ended(thief)
    assert router.router.send([(b"taken", [b"mine"])]) == []
    assert received(raw, 6) == packed(b"mine")


@with_null
def test_new_owner_of_a_routing_id_is_accepted_once_the_old_one_is_released(
    router: Router, raw: RawPeer
) -> None:
    introduce(router, raw, b"taken")
    raw.sendall(packed(b"last words"))
    raw.close()
    with router.connect() as heir:
        heir.sendall(GREETING + ready(b"taken") + packed(b"first words"))
        router.wait_for(zmtp.CONNECTION_ENDED)
        for _ in range(5):
            router.turn()
        assert router.all_of(1) == [(b"taken", [b"last words"])]
        assert router.router.pending
        router.router.release(b"taken")
        assert router.all_of(1) == [(b"taken", [b"first words"])]
        assert router.wait_for(zmtp.HANDSHAKE_DONE)[2] == b"taken"


@with_null
def test_routing_id_that_begins_with_zero_is_refused(router: Router, raw: RawPeer) -> None:
    raw.sendall(GREETING + ready(b"\0mine"))
    assert router.wait_for(zmtp.HANDSHAKE_FAILED)[3] == zmtp.MALFORMED


@with_null
def test_peer_of_zmtp_2_0_is_served(router: Router, raw: RawPeer) -> None:
    """RFC 15: signature, revision 1, socket type, and an identity in a frame."""
    raw.sendall(SIGNATURE + b"\x01\x05" + b"\x00\x03old" + packed(b"hello", b"there"))
    assert router.all_of(1) == [(b"old", [b"hello", b"there"])]
    assert received(raw, 14) == b"\xff" + bytes(7) + b"\x01\x7f\x03" + b"\x06" + b"\x00\x00"
    assert router.router.send([(b"old", [b"a", b"b"])]) == []
    assert received(raw, 6) == packed(b"a", b"b")


@with_null
@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", zmtp.NOT_ZMTP),
        (b"\xff" + bytes(9), zmtp.NOT_ZMTP),
        (SIGNATURE + b"\x00", zmtp.MALFORMED),
        (GREETING.replace(b"NULL", b"PLAI"), zmtp.ANOTHER_MECHANISM),
        (GREETING + packed(b"no command"), zmtp.MALFORMED),
        (GREETING + b"\x04\x06\x05HELLO", zmtp.MALFORMED),
        (GREETING + b"\x04\x08\x05READY\x05x", zmtp.MALFORMED),
        (GREETING + b"\x06" + (1 << 50).to_bytes(8), zmtp.MALFORMED),
        (GREETING + ready(b"", b"PUB"), zmtp.MALFORMED),
        (GREETING + b"\x04\x0a\x05ERROR\x03400", "refused 400"),
    ],
)
def test_connection_of_another_protocol_is_ended_with_the_reason(
    router: Router, raw: RawPeer, said: bytes, why: str
) -> None:
    raw.sendall(said)
    assert router.wait_for(zmtp.HANDSHAKE_FAILED)[3] == why
    assert is_ended(raw)


@with_null
def test_peer_with_another_mechanism_gets_our_greeting(router: Router) -> None:
    """libzmq's client reads the mechanism in our greeting."""
    with sockets.dealer() as stranger:
        stranger.setsockopt(zmq.PLAIN_USERNAME, b"user")
        watch = Monitor(stranger, MonitorEvent.PROTOCOL_FAILED)
        sockets.connect(stranger, router.url)
        router.until(lambda: router.turn() or watch.socket.poll(1))
        assert [seen.event for seen in watch.read()] == [MonitorEvent.PROTOCOL_FAILED]
        watch.close()


def test_silent_connection_is_ended_after_its_time_and_an_open_one_stays(
    router: Router, raw: RawPeer
) -> None:
    introduce(router, raw)
    with router.connect() as silent:
        router.wait_for(zmtp.CONNECTION_OPENED)
        now = time.monotonic()
        assert router.router.expire(now - WITHIN) <= now
        assert router.router.open_count == 2
        assert router.router.expire(now + 1) == float("inf")
        assert router.wait_for(zmtp.HANDSHAKE_FAILED)[3] == zmtp.BROKEN_OFF
        assert is_ended(silent)
    assert router.router.open_count == 1


@with_null
def test_random_bytes_neither_crash_nor_stay_connected(router: Router) -> None:
    dice = random.Random(7)
    for n in range(300):
        with router.connect() as raw:
            head = (b"", SIGNATURE, GREETING, GREETING + ready())[n % 4]
            raw.sendall(head + dice.randbytes(dice.randrange(200)))
            router.turn()
    router.until(lambda: router.router.open_count == 0)


# ── a dealer of ours ──────────────────────────────────────────────────────────────────────────────


def begin(url: str, kind: str = "null", identity: bytes = b"\1me", **bounds: int) -> Any:
    mechanism = client_of(kind, identity)
    return TcpDealer(connecting(url).detach(), identity, mechanism=mechanism, **bounds)


def receive_until(dealer: Any, done: Callable[[list[list[bytes]]], object]) -> list[list[bytes]]:
    got: list[list[bytes]] = []
    end = time.monotonic() + WITHIN
    while not done(got):
        assert time.monotonic() < end
        becomes_ready(dealer.fd, select.POLLIN, 0.05)
        got += dealer.receive(100)
    return got


@pytest.fixture(params=["null", "curve", "null ipc", "curve ipc"])  # PLAIN needs a ZAP handler
def theirs(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[zmq.Socket[bytes], str, str]]:
    kind, _, transport = request.param.partition(" ")
    url = f"ipc://{tmp_path}/theirs" if transport == "ipc" else "tcp://127.0.0.1:*"
    with sockets.router(1 << 20, 1000) as made:
        made.setsockopt(zmq.LINGER, 0)
        if kind == "curve":
            made.setsockopt(zmq.CURVE_SERVER, 1)
            made.setsockopt(zmq.CURVE_SECRETKEY, z85.encode(SERVER[1]))
        yield made, sockets.bind(made, url), kind


def test_our_dealer_exchanges_messages_with_a_router_of_libzmq(
    theirs: tuple[zmq.Socket[bytes], str, str],
) -> None:
    router, url, kind = theirs
    dealer = begin(url, kind)
    assert dealer.send([[b"too early"]]) == [(0, errno.EAGAIN)]
    receive_until(dealer, lambda _: dealer.open)
    sent = [[b""], [b"a", LARGE, b"c"], [b"z"] * 30]
    assert dealer.send(sent) == []
    receive_until(dealer, lambda _: not dealer.unsent)
    assert [router.recv_multipart() for _ in sent] == [[b"\1me", *frames] for frames in sent]
    for frames in sent:
        router.send_multipart([b"\1me", *frames])
    assert receive_until(dealer, lambda got: len(got) == len(sent)) == sent
    dealer.close()


def test_messages_sent_before_the_close_arrive_although_input_is_unread(
    theirs: tuple[zmq.Socket[bytes], str, str],
) -> None:
    router, url, kind = theirs
    dealer = begin(url, kind)
    receive_until(dealer, lambda _: dealer.open)
    dealer.send([[b"first"]])
    assert router.recv_multipart() == [b"\1me", b"first"]
    router.send_multipart([b"\1me", b"never read"])
    time.sleep(0.05)
    assert dealer.send([[b"%d" % n, LARGE[:2000]] for n in range(50)]) == []
    dealer.close()
    assert [router.recv_multipart()[1] for _ in range(50)] == [b"%d" % n for n in range(50)]


def test_dealer_whose_router_does_not_read_accepts_the_start_of_the_batch(router: Router) -> None:
    dealer = begin(router.url, router.kind, hwm=20)
    receive_until(dealer, lambda _: router.turn() or dealer.open)
    refused: list[tuple[int, int]] = []
    sent = 0
    while not refused:
        refused = dealer.send([[b"%d" % (sent + n), LARGE] for n in range(50)])
        sent += 50 - len(refused)
        assert sent < 2000
    assert refused == [(n, FULL) for n in range(50 - len(refused), 50)]
    router.until(lambda: dealer.receive(1) or len(router.got) == sent)
    assert [frames[0] for _, frames in router.all_of(sent)] == [b"%d" % n for n in range(sent)]
    dealer.close()


def test_dealer_reports_an_endpoint_without_a_listener_and_a_closed_connection(
    make: Callable[..., Router],
) -> None:
    router = make()
    dealer = begin(router.url, router.kind)
    receive_until(dealer, lambda _: router.turn() or dealer.open)
    assert [one[0] for one in dealer.events()] == [zmtp.CONNECTION_OPENED, zmtp.HANDSHAKE_DONE]
    router.close()
    receive_until(dealer, lambda _: not dealer.open)
    assert [one[0] for one in dealer.events()] == [zmtp.CONNECTION_ENDED]
    assert dealer.send([[b"nobody"]]) == [(0, errno.EAGAIN)]
    dealer.close()
    if router.url.startswith("ipc://"):  # the kernel knows at once, and tells `connect`
        with pytest.raises(FileNotFoundError):
            begin(router.url, router.kind)
        return
    lost = begin(router.url, router.kind)
    events: list[tuple[int, int, None, str]] = []
    receive_until(lost, lambda _: events.extend(lost.events()) or events)
    assert [(one[0], one[3]) for one in events] == [(zmtp.HANDSHAKE_FAILED, zmtp.UNREACHED)]


@pytest.mark.parametrize(
    ("frames", "kept"),
    [([b"head", b"x" * 5000], 1), ([b"head", b"", *[b"x" * 300] * 4], 4), ([b""] * 40, 15)],
    ids=["frame", "message", "empty-frames"],
)
def test_dealer_keeps_no_more_of_a_message_than_its_bound(
    theirs: tuple[zmq.Socket[bytes], str, str], frames: list[bytes], kept: int
) -> None:
    socket, url, kind = theirs
    dealer = begin(url, kind)
    dealer.bound(1000)
    receive_until(dealer, lambda _: dealer.open)
    dealer.send([[b"here"]])  # libzmq can send to a peer once it has a message of it
    assert socket.recv_multipart() == [b"\1me", b"here"]
    socket.send_multipart([b"\1me", *frames])
    socket.send_multipart([b"\1me", b"whole"])
    cut, whole = receive_until(dealer, lambda got: len(got) == 2)
    assert (len(cut), type(cut[-1])) == (kept + 1, Cut)
    assert whole == [b"whole"]
    assert dealer.truncated == 1
    dealer.close()


def test_dealer_ends_a_connection_whose_message_has_no_end(
    theirs: tuple[zmq.Socket[bytes], str, str],
) -> None:
    socket, url, kind = theirs
    dealer = begin(url, kind)
    dealer.bound(1000)
    receive_until(dealer, lambda _: dealer.open)
    dealer.send([[b"here"]])  # libzmq can send to a peer once it has a message of it
    assert socket.recv_multipart() == [b"\1me", b"here"]
    socket.send_multipart([b"\1me", *[b""] * 200])
    (cut,) = receive_until(dealer, lambda _: not dealer.open)
    assert type(cut[-1]) is Cut
    assert dealer.events()[-1][3] == zmtp.ENDLESS
    dealer.close()

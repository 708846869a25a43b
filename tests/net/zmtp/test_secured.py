"""Encrypted connections of our own ZMTP: bounds, bundles, attacks on handshakes and messages."""

from __future__ import annotations

import os
import random
import resource
import socket as plain
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import zmq

from majordomus.net.bodies import Cut
from majordomus.net.zmq import sockets
from majordomus.net.zmq.monitor import Monitor, MonitorEvent
from tests.net.zmtp.test_zmtp import (
    CLIENT,
    GREETING,
    LARGE,
    SERVER,
    SIGNATURE,
    WITHIN,
    RawPeer,
    Router,
    TcpDealer,
    begin,
    client_of,
    dealer,
    first_frame,
    greeting,
    introduce,
    is_ended,
    make,
    mechanisms,
    packed,
    raw,
    ready,
    receive_until,
    received,
    router,
    secure,
    shaken,
    zmtp,
)

__all__ = ["dealer", "make", "raw", "router"]  # fixtures


@pytest.fixture
def kind() -> str:
    return "curve"


def boxes_of(raw: RawPeer, *frames: bytes) -> list[bytes]:
    """Return the frames of one message, each in its box."""
    return [raw.boxed(packed(frame)) for frame in frames]


def memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def descriptor(router: Router) -> int:
    """Return the descriptor of a new connection to the router."""
    made = plain.create_connection(("127.0.0.1", router.port))
    made.setblocking(False)
    return made.detach()


# ── bounds ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [0, 1, 222, 223, 480, 4063, 4096, 4097, 100_000, 300_000])
@pytest.mark.parametrize("piece", [1, 7, 1000, 70_000])
def test_box_that_comes_in_pieces_makes_one_frame(
    make: Callable[..., Router], size: int, piece: int
) -> None:
    if size // piece > 600:
        pytest.skip("it takes long, and smaller frames show the same")
    router = make(max_bytes=max(4, size), max_frames=2, max_unfinished=2 * size + 100_000)
    with router.connect() as raw:
        raw.setsockopt(plain.IPPROTO_TCP, plain.TCP_NODELAY, 1)
        peer = introduce(router, raw)
        sent = raw.boxed(packed(b"", b"x" * size) + packed(b"next"))
        for at in range(0, len(sent), piece):
            raw.socket.sendall(sent[at : at + piece])
            if len(router.got) < 2:
                router.router.wait(1)
                router.got += router.router.receive(10, time.monotonic())
        assert router.all_of(2) == [(peer, [b"", b"x" * size]), (peer, [b"next"])]


@pytest.mark.parametrize("rest", [1, 100, 99_000])
def test_message_that_is_too_large_is_delivered_before_its_rest_has_arrived(
    make: Callable[..., Router], rest: int
) -> None:
    router = make(max_frames=10, max_bytes=1000, max_dropped=110_000)
    with router.connect() as raw:
        peer = introduce(router, raw)
        sent = raw.boxed(packed(b"head", b"x" * 99_500))
        raw.socket.sendall(sent[:-rest])
        ((who, (head, cut)),) = router.all_of(1)
        assert (who, head, len(cut), type(cut)) == (peer, b"head", 99_500, Cut)
        raw.socket.sendall(sent[-rest:])
        raw.sendall(packed(b"", b"whole"))
        assert router.all_of(1) == [(peer, [b"", b"whole"])]


def test_frames_behind_a_large_one_are_dropped_with_its_message(
    make: Callable[..., Router],
) -> None:
    """MORE is inside the box that is dropped."""
    router = make(max_frames=10, max_bytes=1000)
    with router.connect() as raw:
        peer = introduce(router, raw)
        raw.sendall(packed(b"x" * 50_000, b"small", b"y" * 60_000, b"") + packed(b"whole"))
        (_, (cut,)), second = router.all_of(2)
        assert (len(cut), type(cut)) == (50_000, Cut)
        assert second == (peer, [b"whole"])


@pytest.mark.parametrize("at", [33, 40, 50_000, -1, 17])
def test_dropped_box_that_was_changed_ends_the_connection(
    make: Callable[..., Router], at: int
) -> None:
    router = make(max_bytes=1000)
    with router.connect() as raw:
        introduce(router, raw)
        changed = bytearray(raw.boxed(packed(b"x" * 100_000)))
        changed[at] ^= 1
        raw.socket.sendall(bytes(changed))
        assert router.wait_for(zmtp.CONNECTION_ENDED)[3] == zmtp.MALFORMED


def test_limits_count_the_text_and_not_its_box(make: Callable[..., Router]) -> None:
    router = make(max_frames=4, max_bytes=1000)
    with router.connect() as raw:
        introduce(router, raw)
        raw.sendall(packed(b"a" * 600, b"b" * 400) + packed(b"a" * 600, b"b" * 401))
        (_, fits), (_, exceeds) = router.all_of(2)
        assert fits == [b"a" * 600, b"b" * 400]
        assert type(exceeds[1]) is Cut


def endless(raw: RawPeer, kind: str) -> bytes:
    if kind == "frame":  # only its head is genuine: nothing else is looked at before its end
        made = raw.boxed(packed(b"x" * 300_000))
        return b"\x02" + (1 << 40).to_bytes(8) + made[9:] + bytes(100_000)
    many = packed(*([b""] * 60_000 if kind == "empty" else [b"x" * 60_000] * 5))
    return raw.boxed(many)


@pytest.mark.parametrize("kind_of", ["frame", "frames", "empty"])
def test_endless_message_is_cut(make: Callable[..., Router], kind_of: str) -> None:
    router = make(max_frames=10, max_bytes=1000, max_dropped=100_000)
    with router.connect() as raw:
        peer = introduce(router, raw)
        before = memory()
        with suppress(ConnectionError):
            raw.socket.sendall(endless(raw, kind_of))
        assert router.wait_for(zmtp.CONNECTION_ENDED)[2:] == (peer, zmtp.ENDLESS)
        assert is_ended(raw)  # type: ignore[arg-type]
        assert memory() - before < 16 << 20


def test_announced_box_takes_no_memory_before_its_bytes_arrive(
    make: Callable[..., Router],
) -> None:
    router = make()
    with router.connect() as raw:
        introduce(router, raw)
        made = raw.boxed(packed(b"x" * 5000))
        before = memory()
        raw.socket.sendall(b"\x02" + (1 << 40).to_bytes(8) + made[9:])
        for _ in range(5):
            router.turn()
        assert router.router.open_count == 1
        assert router.router.buffered()[1] < 10_000
        assert memory() - before < 4 << 20


def test_unfinished_boxes_are_bounded_together_and_the_largest_is_ended(
    make: Callable[..., Router],
) -> None:
    router = make(max_unfinished=1_000_000)
    with ExitStack() as stack:
        peers = []
        for n in range(3):
            raw = stack.enter_context(router.connect())
            peers.append(introduce(router, raw))
            size = 800_000 if n == 2 else 200_000
            raw.socket.sendall(raw.boxed(packed(bytes(2_000_000)))[:size])
            for _ in range(10):
                router.turn()
        assert router.wait_for(zmtp.CONNECTION_ENDED)[2:] == (peers[2], zmtp.UNFINISHED)
        assert router.router.open_count == 2


def test_memory_of_a_half_open_handshake_is_small(make: Callable[..., Router]) -> None:
    router = make()
    client = client_of("curve")
    hello = greeting("curve") + client.begin()
    with ExitStack() as stack:
        for _ in range(20):  # what is made once
            stack.enter_context(router.connect()).socket.sendall(hello)
        router.until(lambda: router.router.open_count == 20)
        for _ in range(20):
            router.turn()
        before = memory()
        for _ in range(200):
            stack.enter_context(router.connect()).socket.sendall(hello)
            router.turn()
        router.until(lambda: router.router.open_count == 220)
        for _ in range(100):
            router.router.receive(100, time.monotonic())
        assert not router.router.pending
        grown = (memory() - before) / 200
    assert grown < 8192, f"{grown:.0f} bytes each"


def test_handshakes_beyond_the_budget_of_a_turn_wait_for_later_turns(
    make: Callable[..., Router],
) -> None:
    """Eight multiplications a turn, four of them for one address: two HELLOs or INITIATEs."""
    router = make()
    with ExitStack() as stack:
        crowd = [stack.enter_context(router.connect()) for _ in range(20)]
        for raw in crowd:
            raw.socket.sendall(greeting("curve"))
        router.until(lambda: router.router.open_count == 20)
        for _ in range(10):
            router.turn()
        for raw in crowd:
            raw.socket.setblocking(False)
            raw.socket.sendall(client_of("curve").begin())
        time.sleep(0.05)

        def answered() -> int:
            found = 0
            for raw in crowd:
                with suppress(BlockingIOError):
                    found += len(raw.socket.recv(1000, plain.MSG_PEEK)) > 64
            return found

        counts = []
        while not counts or counts[-1] < 20:
            router.router.receive(100, time.monotonic())
            counts.append(answered())
            assert len(counts) < 20
        assert counts == list(range(2, 21, 2))
        assert not router.router.pending


# ── commands and bundles ──────────────────────────────────────────────────────────────────────────


def test_ping_in_a_box_is_answered_in_a_box(router: Router, raw: RawPeer) -> None:
    introduce(router, raw)
    raw.sendall(b"\x04\x0c\x04PING\x00\x0ahello" + packed(b"and on"))
    assert [frames for _, frames in router.all_of(1)] == [[b"and on"]]
    assert received(raw, 12) == b"\x04\x0a\x04PONGhello"  # type: ignore[arg-type]


def test_ping_between_the_frames_of_a_message_is_not_counted(make: Callable[..., Router]) -> None:
    router = make(max_bytes=10, max_frames=2)
    with router.connect() as raw:
        introduce(router, raw)
        first, second = packed(b"12345", b"67890")[:7], packed(b"67890")
        raw.sendall(first + b"\x04\x07\x04PING\0\0" * 3 + second)
        assert [frames for _, frames in router.all_of(1)] == [[b"12345", b"67890"]]


def test_heartbeats_of_libzmq_keep_the_connection(router: Router) -> None:
    with sockets.dealer() as dealer:
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.HEARTBEAT_IVL, 50)
        dealer.setsockopt(zmq.HEARTBEAT_TIMEOUT, 200)
        secure(dealer, "curve")
        watch = Monitor(dealer, MonitorEvent.LOST)
        dealer.setsockopt(zmq.IMMEDIATE, 0)
        sockets.connect(dealer, router.url)
        dealer.send(b"first")
        ((peer, _),) = router.all_of(1)
        until = time.monotonic() + 0.7
        while time.monotonic() < until:
            router.turn()
        assert watch.read() == []
        assert router.router.send([(peer, [b"still here"])]) == []
        assert dealer.recv() == b"still here"
        watch.close()


def test_message_that_is_sent_as_a_command_is_read(router: Router, raw: RawPeer) -> None:
    """RFC 26 says command, libzmq sends messages."""
    peer = introduce(router, raw)
    made = bytearray(raw.boxed(packed(b"x")))
    made[0] = 4
    large = bytearray(raw.boxed(packed(LARGE)))
    large[0] = 6
    raw.socket.sendall(bytes(made + large))
    assert router.all_of(2) == [(peer, [b"x"]), (peer, [LARGE])]


@pytest.mark.parametrize("flags", [1, 3, 5, 8, 0x80])
def test_frame_with_other_flags_ends_the_connection(
    router: Router, raw: RawPeer, flags: int
) -> None:
    """MORE is inside the box only."""
    introduce(router, raw)
    made = bytearray(raw.boxed(packed(b"x")))
    made[0] = flags
    raw.socket.sendall(bytes(made))
    assert router.wait_for(zmtp.CONNECTION_ENDED)[3] == zmtp.MALFORMED


def bundling(router: Router, raw: RawPeer) -> bytes:
    """Complete the handshake of a raw peer that reads bundles; return its routing id."""
    raw.boxes = shaken(router, raw.socket, client_of("curve"))
    peer = router.wait_for(zmtp.HANDSHAKE_DONE)[2]
    assert peer is not None
    assert raw.boxes.bundles
    return peer


def test_everything_that_one_turn_sends_to_a_peer_of_ours_is_one_bundle(
    router: Router, raw: RawPeer
) -> None:
    peer = bundling(router, raw)
    messages = [[b"%d" % n, b"x" * 300] for n in range(20)]
    assert router.router.send([(peer, frames) for frames in messages]) == []
    expected = b"".join(packed(*frames) for frames in messages)
    frame = first_frame(raw.socket.recv(100_000))
    assert frame is not None
    flags, body, rest = frame
    assert (flags, rest) == (2, b"")
    assert raw.boxes.open_body(body) == (0x40, expected)
    assert len(body) == 33 + len(expected)


def test_bundles_hold_sixteen_kib_and_large_frames_have_boxes_of_their_own(
    router: Router, raw: RawPeer
) -> None:
    peer = bundling(router, raw)
    messages = [[b"%d" % n, b"y" * 1000] for n in range(40)] + [[b"a", LARGE, b"c"], [b"z"]]
    assert router.router.send([(peer, frames) for frames in messages]) == []
    expected = b"".join(packed(*frames) for frames in messages)
    data, got, sizes = b"", b"", []
    while len(got) < len(expected):
        data += raw.socket.recv(1 << 20)
        while (frame := first_frame(data)) is not None:
            _, body, data = frame
            opened = raw.boxes.open_body(body)
            assert opened is not None
            flags, text = opened
            sizes.append((flags, len(text)))
            if flags == 0x40:
                got += text
            else:
                got += bytes([2 | flags]) + len(text).to_bytes(8) + text
    assert got == expected
    assert all(size <= 16384 for flags, size in sizes if flags == 0x40)
    assert [size for flags, size in sizes if flags != 0x40] == [len(LARGE)]


def test_bundle_of_a_peer_is_read_within_the_limit_of_a_batch(router: Router, raw: RawPeer) -> None:
    peer = bundling(router, raw)
    frames = b"".join(packed(b"%d" % n, b"x") for n in range(500))
    raw.socket.sendall(raw.boxes.seal_frame(0x40, frames) + raw.boxes.seal_frame(0, b"last"))
    got: list[tuple[bytes, list[bytes]]] = []
    sizes = []
    while len(got) < 501:
        assert router.router.wait(int(WITHIN * 1000)) == 2
        batch = router.router.receive(7, 0.0)
        sizes.append(len(batch))
        got += batch
    assert max(sizes) == 7
    assert got == [(peer, [b"%d" % n, b"x"]) for n in range(500)] + [(peer, [b"last"])]


def test_message_may_go_on_in_the_next_bundle(router: Router, raw: RawPeer) -> None:
    peer = bundling(router, raw)
    whole = packed(b"a", b"b", b"c")
    for part in (whole[:3], whole[3:6], b"", whole[6:] + b"\x04\x07\x04PING\0\0"):
        raw.socket.sendall(raw.boxes.seal_frame(0x40, part))
    assert router.all_of(1) == [(peer, [b"a", b"b", b"c"])]
    assert received(raw, 7) == b"\x04\x05\x04PONG"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "frames",
    [b"\0", b"\0\x02x", b"\x02\0\0\0", b"\x02" + b"\xff" * 8, b"\x08\x01x", packed(b"x") + b"\1"],
)
def test_bundle_with_a_part_of_a_frame_ends_the_connection(
    router: Router, raw: RawPeer, frames: bytes
) -> None:
    bundling(router, raw)
    raw.socket.sendall(raw.boxes.seal_frame(0x40, frames))
    assert router.wait_for(zmtp.CONNECTION_ENDED)[3] == zmtp.MALFORMED


def test_bundle_that_is_too_large_ends_the_connection(router: Router, raw: RawPeer) -> None:
    bundling(router, raw)
    raw.socket.sendall(raw.boxes.seal_frame(0x40, packed(b"x" * 100_000)))
    assert router.wait_for(zmtp.CONNECTION_ENDED)[3] == zmtp.MALFORMED


def test_bounds_hold_for_the_frames_of_bundles(make: Callable[..., Router]) -> None:
    router = make(max_frames=3, max_bytes=1000)
    with router.connect() as raw:
        peer = bundling(router, raw)
        frames = packed(b"a" * 600, b"b" * 401, b"c") + packed(*[b"d"] * 5) + packed(b"whole")
        raw.socket.sendall(raw.boxes.seal_frame(0x40, frames))
        (_, first), (_, second), third = router.all_of(3)
        assert [len(frame) for frame in first] == [600, 401]
        assert [len(frame) for frame in second] == [1, 1, 1, 1]
        assert third == (peer, [b"whole"])


def test_peer_that_offers_no_bundles_gets_none(router: Router, raw: RawPeer) -> None:
    raw.boxes = shaken(router, raw.socket, client_of("curve", bundles=False))
    peer = router.wait_for(zmtp.HANDSHAKE_DONE)[2]
    assert not raw.boxes.bundles
    assert peer is not None
    assert router.router.send([(peer, [b"a", b"b"])]) == []
    data = b""
    while len(data) < 72:
        data += raw.socket.recv(72 - len(data))
    assert [raw.boxes.open_body(data[at : at + 36][2:]) for at in (0, 36)] == [(1, b"a"), (0, b"b")]


def test_our_dealer_and_our_router_exchange_bundles(router: Router) -> None:
    dealer = begin(router.url, "curve")
    receive_until(dealer, lambda _: router.turn() or dealer.open)
    sent = [[b"%d" % n, LARGE[: n * n % 9000]] for n in range(500)]
    for at in range(0, 500, 50):
        assert dealer.send(sent[at : at + 50]) == []
        router.turn()
    assert router.all_of(500) == [(b"\1me", frames) for frames in sent]
    assert router.router.send([(b"\1me", frames) for frames in sent]) == []
    assert receive_until(dealer, lambda got: router.turn() or len(got) == 500) == sent
    before = dealer.received
    dealer.ping()
    receive_until(dealer, lambda _: router.turn() or dealer.received > before)
    dealer.close()


# ── attacks on messages ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["repeated", "reordered", "removed", "changed", "truncated"])
@pytest.mark.parametrize("size", [0, 100, 5000, 200_000])
def test_box_that_is_tampered_with_ends_the_connection(
    router: Router, raw: RawPeer, how: str, size: int
) -> None:
    """libzmq accepts a removed box: nonces need only increase there."""
    peer = introduce(router, raw)
    one, two, three = (raw.boxed(packed(b"%d" % n + bytes(size))) for n in range(3))
    changed = two[:-1] + bytes([two[-1] ^ 1])
    head = 9 if two[0] & 2 else 2
    short = two[: head - 1] + bytes([two[head - 1] - 1]) + two[head:-1]
    sent = {
        "repeated": [one, one],
        "reordered": [one, three],
        "removed": [one, three],
        "changed": [one, changed],
        "truncated": [one, short],
    }[how]
    raw.socket.sendall(b"".join(sent))
    assert router.wait_for(zmtp.CONNECTION_ENDED)[2:] == (peer, zmtp.MALFORMED)
    assert [frames for _, frames in router.got] == [[b"0" + bytes(size)]]


def test_removed_box_joins_no_two_messages(router: Router, raw: RawPeer) -> None:
    """Shown with libzmq: [A1, A2] and [B1, B2] without the box of A2 arrive as [A1, B1, B2]."""
    introduce(router, raw)
    boxes = [raw.boxed(part) for part in (packed(b"A1", b"A2")[:4], packed(b"A2"))]
    boxes += [raw.boxed(part) for part in (packed(b"B1", b"B2")[:4], packed(b"B2"))]
    raw.socket.sendall(boxes[0] + boxes[2] + boxes[3])
    router.wait_for(zmtp.CONNECTION_ENDED)
    assert router.got == []


def test_message_in_the_clear_ends_an_encrypted_connection(router: Router, raw: RawPeer) -> None:
    introduce(router, raw)
    raw.socket.sendall(packed(b"x" * 100))
    assert router.wait_for(zmtp.CONNECTION_ENDED)[3] == zmtp.MALFORMED


def test_our_dealer_ends_a_connection_whose_box_was_changed() -> None:
    with plain.create_server(("127.0.0.1", 0)) as listening:
        url = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        dealer = begin(url, "curve")
        there, _ = listening.accept()
        with there:
            server = mechanisms.CurveServer(mechanisms.CurveKeys(*SERVER), b"ROUTER")
            there.sendall(greeting("curve"))
            there.setblocking(False)
            data, skipped = b"", False

            def step(_: object) -> bool:
                nonlocal data, skipped
                with suppress(BlockingIOError):
                    data += there.recv(4096)
                if not skipped and len(data) >= 64:
                    data, skipped = data[64:], True
                if skipped and (frame := first_frame(data)) is not None:
                    data = frame[2]
                    there.sendall(server.receive(frame[1], 0.0))
                    if server.stage == mechanisms.ASKING:
                        server.decide(200)
                        there.sendall(server.finish())
                return bool(dealer.open)

            receive_until(dealer, step)
            good, bad = (bytearray(server.boxes.seal_frame(0, b"%d" % n)) for n in range(2))
            bad[-1] ^= 1
            there.sendall(bytes(good + bad))
            got = receive_until(dealer, lambda _: not dealer.open)
            assert got == [[b"0"]]
            assert [one[3] for one in dealer.events()][-1] == zmtp.MALFORMED
        dealer.close()


# ── attacks on handshakes ─────────────────────────────────────────────────────────────────────────


def curve_hello() -> bytes:
    return bytes(client_of("curve").begin())


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (GREETING, zmtp.ANOTHER_MECHANISM),
        (greeting("plain"), zmtp.ANOTHER_MECHANISM),
        (SIGNATURE + b"\x01\x05", zmtp.ANOTHER_MECHANISM),
        (greeting("curve") + ready(), zmtp.MALFORMED),
        (greeting("curve") + packed(b"message"), zmtp.MALFORMED),
        (greeting("curve") + curve_hello() + b"\0", zmtp.MALFORMED),
        (greeting("curve") + curve_hello() * 2, zmtp.MALFORMED),
        (greeting("curve") + b"\x06" + (1 << 50).to_bytes(8), zmtp.MALFORMED),
        (greeting("curve") + b"\x06" + (201).to_bytes(8), zmtp.MALFORMED),
        (greeting("curve") + b"\x04\xc8\x05HELLO\x01\0" + bytes(192), zmtp.MALFORMED),
        (greeting("curve") + b"\x04\x0a\x05ERROR\x03400", zmtp.MALFORMED),
    ],
    ids=[
        "null", "plain", "zmtp-2", "ready", "message", "more", "twice", "endless", "too-long",
        "zero-key", "error",
    ],
)  # fmt: skip
def test_downgrade_or_malformed_handshake_is_ended_with_the_reason(
    router: Router, raw: RawPeer, said: bytes, why: str
) -> None:
    raw.socket.sendall(said)
    assert router.wait_for(zmtp.HANDSHAKE_FAILED)[3] == why
    assert is_ended(raw)  # type: ignore[arg-type]


def test_encrypted_router_tells_a_peer_of_zmtp_2_nothing_of_itself(
    router: Router, raw: RawPeer
) -> None:
    raw.socket.sendall(SIGNATURE + b"\x01\x05")
    router.wait_for(zmtp.HANDSHAKE_FAILED)
    assert raw.socket.recv(100) == b"\xff" + bytes(7) + b"\x01\x7f\x03"


def test_client_that_sends_before_ready_is_ended(router: Router, raw: RawPeer) -> None:
    """Nothing may follow INITIATE before the server's READY."""
    client = client_of("curve")
    raw.socket.sendall(greeting("curve") + client.begin())
    router.turn()
    data = b""
    while len(data) < 64 + 170:
        router.turn()
        data += raw.socket.recv(4096)
    frame = first_frame(data[64:])
    assert frame is not None
    raw.socket.sendall(client.receive(frame[1], 0.0) + packed(b"x" * 40))
    assert router.wait_for(zmtp.HANDSHAKE_FAILED)[3] == zmtp.MALFORMED


def test_recorded_handshake_is_worth_nothing_on_another_connection(router: Router) -> None:
    """HELLO can be replayed; INITIATE holds the cookie of its own connection."""
    client = client_of("curve")
    hello = client.begin()
    with router.connect() as first:
        first.socket.sendall(greeting("curve") + hello)
        data = b""
        while len(data) < 64 + 170:
            router.turn()
            data += first.socket.recv(4096)
        frame = first_frame(data[64:])
        assert frame is not None
        initiate = client.receive(frame[1], 0.0)
        with router.connect() as second:  # C' is the same, so the cookie opens, and proves nothing
            second.socket.sendall(greeting("curve") + hello)
            for _ in range(3):
                router.turn()
            assert router.router.open_count == 2
        with router.connect() as third:
            third.socket.sendall(greeting("curve") + curve_hello())
            for _ in range(3):
                router.turn()
            third.socket.sendall(initiate)
            router.events.clear()
            assert router.wait_for(zmtp.HANDSHAKE_FAILED)[3] in (zmtp.BROKEN_OFF, "stale-cookie")
            router.until(lambda: router.router.open_count == 1)


def test_client_of_libzmq_with_another_server_key_is_refused(router: Router) -> None:
    with sockets.dealer() as stranger:
        stranger.setsockopt(zmq.LINGER, 0)
        stranger.setsockopt(zmq.CURVE_SERVERKEY, zmq.curve_keypair()[0])
        public, secret = zmq.curve_keypair()
        stranger.setsockopt(zmq.CURVE_PUBLICKEY, public)
        stranger.setsockopt(zmq.CURVE_SECRETKEY, secret)
        sockets.connect(stranger, router.url)
        assert router.wait_for(zmtp.HANDSHAKE_FAILED)[3] == "wrong-server-key"


@pytest.mark.parametrize("kind_of", ["plain", "curve"])
@pytest.mark.parametrize("status", [300, 400])
def test_refused_client_of_libzmq_learns_the_status(kind_of: str, status: int) -> None:
    """libzmq tells of 400 by ERROR; after 300 it closes, and the client tries again."""
    asked: list[tuple[str, list[bytes]]] = []

    def refuse(serial: int, fd: int, host: str, credentials: Any) -> tuple[int, str]:
        asked.append((host, list(credentials)))
        return status, ""

    router = Router(kind_of, authenticate=refuse)
    try:
        with sockets.dealer() as stranger:
            stranger.setsockopt(zmq.LINGER, 0)
            secure(stranger, kind_of)
            watch = Monitor(stranger, MonitorEvent.AUTH_FAILED, MonitorEvent.BROKEN_OFF)
            sockets.connect(stranger, router.url)
            assert router.wait_for(zmtp.HANDSHAKE_FAILED)[3] == f"refused {status}"
            router.until(lambda: router.turn() or watch.socket.poll(1))
            (seen, *_) = watch.read()
            expected = MonitorEvent.AUTH_FAILED if status == 400 else MonitorEvent.BROKEN_OFF
            assert seen.event is expected
            watch.close()
    finally:
        router.close()
    credentials = [CLIENT[0]] if kind_of == "curve" else [b"ann", b"secret"]
    assert asked[0] == ("127.0.0.1", credentials)


@pytest.mark.parametrize(
    "said", [GREETING, greeting("plain"), SIGNATURE + b"\x01\x05"], ids=["null", "plain", "zmtp-2"]
)
def test_our_dealer_refuses_a_server_that_does_not_encrypt(said: bytes) -> None:
    """It has sent nothing but its greeting then."""
    with plain.create_server(("127.0.0.1", 0)) as listening:
        dealer = begin(f"tcp://127.0.0.1:{listening.getsockname()[1]}", "curve")
        there, _ = listening.accept()
        with there:
            there.sendall(said)
            receive_until(dealer, lambda _: dealer.other_mechanism)
            assert [one[3] for one in dealer.events()][-1] == zmtp.ANOTHER_MECHANISM
            there.settimeout(WITHIN)
            data = b""
            while got := there.recv(1000):
                data += got
            assert len(data) <= 64
        dealer.close()


@pytest.mark.parametrize("kind_of", ["plain", "curve"])
@pytest.mark.parametrize("ends", [False, True])
def test_authentication_may_be_decided_later(kind_of: str, ends: bool) -> None:
    asked: list[int] = []
    proofs: list[tuple[bytes, str]] = []

    def later(serial: int, fd: int, host: str, credentials: Any) -> tuple[int, str]:
        asked.append(serial)
        return 0, ""

    def admit(fd: int, peer: bytes, proof: str) -> bool:
        proofs.append((peer, proof))
        return True

    router = Router(kind_of, authenticate=later, admit=admit)
    dealer = begin(router.url, kind_of)
    try:
        receive_until(dealer, lambda _: router.turn() or asked)
        for _ in range(5):
            router.turn()
            dealer.receive(10)
        assert not dealer.open
        assert not router.router.pending
        if ends:
            dealer.close()
            assert router.wait_for(zmtp.HANDSHAKE_FAILED)[3] == zmtp.BROKEN_OFF
            assert not router.router.decide(asked[0], 200, "proof")
            assert proofs == []
            return
        assert router.router.decide(asked[0], 200, "proof")
        assert router.router.pending
        receive_until(dealer, lambda _: router.turn() or dealer.open)
        dealer.send([[b"hello"]])
        assert router.all_of(1) == [(b"\1me", [b"hello"])]
        assert proofs == [(b"\1me", "proof")]
    finally:
        dealer.close()
        router.close()


def test_peer_that_sends_while_its_password_is_checked_is_ended() -> None:
    router = Router("plain", authenticate=lambda *_: (0, ""))
    try:
        with router.connect() as raw:
            raw.socket.sendall(greeting("plain") + client_of("plain").begin())
            for _ in range(5):
                router.turn()
            assert router.router.open_count == 1
            raw.socket.sendall(b"\x04")
            assert router.wait_for(zmtp.HANDSHAKE_FAILED)[3] == zmtp.MALFORMED
    finally:
        router.close()


@pytest.mark.parametrize("kind_of", ["plain", "curve"])
@pytest.mark.parametrize("identity", [b"\0mine", b"x" * 256, b"taken"])
def test_routing_id_that_is_reserved_too_long_or_in_use_is_refused(
    kind_of: str, identity: bytes
) -> None:
    """RFC 28: ids "starting with a zero octet" are assigned by the ROUTER."""
    router = Router(kind_of)
    try:
        with router.connect() as owner:
            introduce(router, owner, b"taken")
            thief = TcpDealer(descriptor(router), b"", mechanism=client_of(kind_of, identity))
            why = zmtp.ID_IN_USE if identity == b"taken" else zmtp.MALFORMED
            receive_until(
                thief,
                lambda _: (
                    router.turn()
                    or any(what == zmtp.HANDSHAKE_FAILED for what, *_ in router.events)
                ),
            )
            assert router.wait_for(zmtp.HANDSHAKE_FAILED)[3] == why
            assert router.router.send([(b"taken", [b"mine"])]) == []
            thief.close()
    finally:
        router.close()


@pytest.mark.parametrize("kind_of", ["plain", "curve"])
def test_peer_that_may_not_have_a_routing_id_is_refused(kind_of: str) -> None:
    router = Router(kind_of, admit=lambda *_: False)
    try:
        dealer = begin(router.url, kind_of)
        receive_until(dealer, lambda _: router.turn() or (router.events[-1:] and
                      router.events[-1][0] == zmtp.HANDSHAKE_FAILED))  # fmt: skip
        assert router.events[-1][3] == zmtp.ID_IN_USE
        dealer.close()
    finally:
        router.close()


@pytest.mark.parametrize("kind_of", ["plain", "curve"])
def test_new_owner_of_a_routing_id_waits_until_the_old_one_is_released(kind_of: str) -> None:
    router = Router(kind_of)
    try:
        with router.connect() as owner:
            introduce(router, owner, b"taken")
        router.wait_for(zmtp.CONNECTION_ENDED)
        heir = begin(router.url, kind_of, b"taken")
        for _ in range(10):
            router.turn()
            heir.receive(10)
        assert router.router.pending
        assert not heir.open
        router.router.release(b"taken")
        receive_until(heir, lambda _: router.turn() or heir.open)
        heir.send([[b"first words"]])
        assert router.all_of(1) == [(b"taken", [b"first words"])]
        heir.close()
    finally:
        router.close()


def test_child_of_a_fork_seals_no_box_of_its_parent(router: Router) -> None:
    """Both would use the same nonce for two texts."""
    dealer = begin(router.url, "curve")
    receive_until(dealer, lambda _: router.turn() or dealer.open)
    child = os.fork()
    if child == 0:
        done = 1
        with suppress(BaseException):
            dealer.send([[b"from the child"]])
            router.router.send([(b"\1me", [b"from the child"])])
            done = 0
        os._exit(done)
    assert os.waitpid(child, 0)[1] == 0
    assert dealer.send([[b"from the parent"]]) == []
    assert router.all_of(1) == [(b"\1me", [b"from the parent"])]
    assert router.router.send([(b"\1me", [b"answer"])]) == []
    assert receive_until(dealer, lambda got: got) == [[b"answer"]]
    dealer.close()


def test_connection_ends_before_its_nonces_are_used_up(router: Router) -> None:
    client = client_of("curve", first_nonce=2**64 - 65_540)
    with router.connect() as raw:
        raw.boxes = shaken(router, raw.socket, client)
        router.wait_for(zmtp.HANDSHAKE_DONE)
        raw.sendall(packed(b"x"))
        router.all_of(1)
    dealer = TcpDealer(
        descriptor(router),
        b"\1me",
        mechanism=client_of("curve", b"\1me", first_nonce=2**64 - 65_540),
    )
    receive_until(dealer, lambda _: router.turn() or dealer.open)
    for n in range(10):
        dealer.send([[b"%d" % n]])
    router.until(lambda: any(what == zmtp.CONNECTION_ENDED for what, *_ in router.events))
    receive_until(dealer, lambda _: not dealer.open)
    dealer.close()


def test_random_bytes_neither_crash_nor_stay_connected(router: Router) -> None:
    """Behind each part of a handshake, and instead of the boxes of an open connection."""
    dice = random.Random(7)
    hello = bytes(client_of("curve").begin())
    for n in range(300):
        with router.connect() as raw:
            if n % 5 == 4:
                introduce(router, raw)
                made = bytearray(raw.boxed(packed(dice.randbytes(dice.randrange(300)))))
                made[dice.randrange(len(made))] ^= 1 << dice.randrange(8)
                raw.socket.sendall(bytes(made))
            else:
                head = (SIGNATURE, greeting("curve"), greeting("curve") + hello[:50], b"")[n % 5]
                raw.socket.sendall(head + dice.randbytes(dice.randrange(400)))
            router.turn()
    router.until(lambda: router.router.open_count == 0)

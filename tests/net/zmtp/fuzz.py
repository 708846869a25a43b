"""Connects to routers, and serves dealers, with mutated greetings, handshakes and frames.

    python -m tests.net.zmtp.fuzz --connections 100000 --seed 1

`make sanitize` runs it on extensions that were built with AddressSanitizer and UBSan. Every seventh
peer is left as it is: its messages must arrive whole and in order, whatever the others send.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import socket as plain
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from majordomus.net.zmtp import engine, ipc
from majordomus.net.zmtp import mechanisms as zmtp
from majordomus.net.zmtp.dealer import TcpDealer
from majordomus.net.zmtp.router import TcpRouter
from majordomus.net.zmtp.sodium import problem

BATCH: Final = 48
"""Connections that are open at a time."""
PATIENCE: Final = 20.0
"""Seconds in which a batch must be over."""
KINDS: Final = ("NULL", "PLAIN") if problem else ("NULL", "PLAIN", "CURVE")
SIGNATURE: Final = b"\xff" + bytes(8) + b"\x7f"
BOUNDS: Final = {
    "max_bytes": 20_000,
    "max_frames": 8,
    "max_dropped": 200_000,
    "max_unfinished": 2_000_000,
    "max_unsent": 1_000_000,
    "hwm": 100,
}
INTERESTING: Final = (0, 1, 2, 3, 4, 6, 7, 8, 0x20, 0x40, 0x7F, 0x80, 0xFE, 0xFF)
SERVER: Final = b"\x11" * 32
CLIENT: Final = b"\x22" * 32


# ── mutations ─────────────────────────────────────────────────────────────────────────────────────


def flipped(rng: random.Random, data: bytearray, _: bytes) -> None:
    for _n in range(rng.choice((1, 1, 1, 2, 8))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def replaced(rng: random.Random, data: bytearray, _: bytes) -> None:
    data[rng.randrange(len(data))] = rng.choice(INTERESTING)


def cut(rng: random.Random, data: bytearray, _: bytes) -> None:
    del data[rng.randrange(len(data)) :]


def taken_out(rng: random.Random, data: bytearray, _: bytes) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.choice((1, 1, 2, 8, 33, 64))]


def inserted(rng: random.Random, data: bytearray, _: bytes) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.randbytes(rng.choice((1, 1, 2, 8, 33, 300)))


def repeated(rng: random.Random, data: bytearray, _: bytes) -> None:
    at = rng.randrange(len(data))
    data[at:at] = data[at : at + rng.choice((1, 9, 64, 300))]


def crossed(rng: random.Random, data: bytearray, other: bytes) -> None:
    """A part of what another peer has sent."""
    at = rng.randrange(len(data) + 1)
    data[at:] = other[rng.randrange(len(other)) :] if other else b""


def huge(rng: random.Random, data: bytearray, _: bytes) -> None:
    """A length that is announced only."""
    at = rng.randrange(len(data) + 1)
    length = rng.choice((256, 5000, 20_001, 1 << 31, 1 << 62, (1 << 63) + 5, (1 << 64) - 1))
    data[at:] = bytes([rng.choice((2, 3, 6))]) + length.to_bytes(8) + bytes(data[at:])


def noise(rng: random.Random, data: bytearray, _: bytes) -> None:
    data[:] = rng.randbytes(rng.randrange(1, 400))


MUTATIONS: Final[tuple[Callable[[random.Random, bytearray, bytes], None], ...]] = (
    flipped,
    replaced,
    cut,
    taken_out,
    inserted,
    repeated,
    crossed,
    huge,
    noise,
)


# ── peers ─────────────────────────────────────────────────────────────────────────────────────────


class Keys(NamedTuple):
    """The long-term keys of both sides; without libsodium they are not used."""

    public: bytes
    server: Any
    client: bytes


def make_keys() -> Keys | None:
    if problem:
        return None
    import zmq
    from zmq.utils import z85

    server, client = (
        z85.decode(zmq.curve_public(z85.encode(secret))) for secret in (SERVER, CLIENT)
    )
    return Keys(server, zmtp.CurveKeys(server, SERVER), client)


def client_of(
    kind: str, keys: Keys | None, rng: random.Random, identity: bytes, honest: bool
) -> Any:
    """Return the client's side of a handshake."""
    if kind == "CURVE" and keys is not None:
        bundles = rng.random() < 0.7
        return zmtp.CurveClient(
            keys.public, keys.client, CLIENT, b"DEALER", identity, bundles=bundles
        )
    if kind == "PLAIN":
        user = b"user" if honest or rng.random() < 0.9 else b"refused"
        return zmtp.PlainClient(user, b"password", b"DEALER", identity)
    return zmtp.Null(b"DEALER", identity)


def greeting(mechanism: Any) -> bytes:
    return SIGNATURE + b"\x03\x01" + mechanism.name + bytes([mechanism.as_server]) + bytes(31)


def packed(frames: list[bytes]) -> Iterator[tuple[int, bytes]]:
    for n, frame in enumerate(frames):
        yield int(n + 1 < len(frames)), frame


def written(flags: int, body: bytes) -> bytes:
    if len(body) < 256:
        return bytes([flags, len(body)]) + body
    return bytes([flags | 2]) + len(body).to_bytes(8) + body


class Peer:
    """One connection that we write. `honest` peers are not mutated."""

    def __init__(
        self, rng: random.Random, sock: plain.socket, mechanism: Any, honest: bool, trace: Trace
    ) -> None:
        self.rng, self.sock, self.mechanism, self.trace = rng, sock, mechanism, trace
        self.honest = honest
        self.target = -1 if honest else rng.choice((0, 1, 1, 2, 2, 3, 3, 4))
        """The piece of output that is mutated."""
        self.pieces = 0
        self.input = bytearray()
        self.greeted = self.is_open = self.over = False
        self.messages = [
            [rng.randbytes(rng.choice((0, 1, 20, 255, 300, 5000)))]
            + [b"x" * rng.choice((0, 8, 300)) for _ in range(rng.randrange(3))]
            for _ in range(rng.randrange(1, 4))
        ]
        self.write(greeting(mechanism))

    def write(self, data: bytes) -> None:
        if not data or self.over:
            return
        if self.pieces == self.target:
            changed = bytearray(data)
            for _ in range(self.rng.choice((1, 1, 1, 2, 3))):
                if changed:
                    self.rng.choice(MUTATIONS)(self.rng, changed, self.trace.any(self.rng))
            data = bytes(changed)
            self.target += self.rng.choice((1, 2, 50))
        elif not self.honest:  # another one must not come with the routing id of an honest peer
            self.trace.add(data)
        self.pieces += 1
        try:
            self.sock.sendall(data)  # less than the kernel's buffer holds, or the peer is over
        except OSError:
            self.over = True

    def read(self) -> None:
        """Read what has come, and answer it."""
        if self.over:
            return
        try:
            while got := self.sock.recv(65_536):
                self.input += got
            self.over = True
        except BlockingIOError:
            pass
        except OSError:
            self.over = True
        if not self.greeted:
            if len(self.input) < 64:
                return
            del self.input[:64]
            self.greeted = True
            self.write(self.mechanism.begin())
        while not self.is_open and not self.over and (body := self.command()) is not None:
            try:
                self.write(self.mechanism.receive(body, time.monotonic()))
                if self.mechanism.stage == zmtp.ASKING:
                    self.write(self.mechanism.decide(200))
            except RuntimeError:
                self.over = True
            if self.mechanism.stage == zmtp.FAILED:
                self.over = True
            if self.mechanism.stage == zmtp.DONE:
                self.is_open = True
                self.write(self.mechanism.finish())
                self.send_messages()

    def command(self) -> bytes | None:
        data = self.input
        if len(data) < 2 or (data[0] & 2 and len(data) < 9):
            return None
        head, length = (9, int.from_bytes(data[1:9])) if data[0] & 2 else (2, data[1])
        if len(data) < head + length:
            return None
        body = bytes(data[head : head + length])
        del data[: head + length]
        return body

    def send_messages(self) -> None:
        boxes = self.mechanism.boxes
        for message in self.messages:
            if boxes is not None and self.mechanism.bundles and self.rng.random() < 0.5:
                self.write(boxes.seal_bundle(b"".join(written(*one) for one in packed(message))))
            elif boxes is not None:
                self.write(b"".join(boxes.seal_frame(*one) for one in packed(message)))
            else:
                self.write(b"".join(written(*one) for one in packed(message)))
            if self.rng.random() < 0.2:
                ping = b"\4PING\0\0" + b"c" * self.rng.choice((0, 4, 16))
                self.write(written(4, ping) if boxes is None else boxes.seal_frame(2, ping))


class Trace:
    """The last pieces that peers have sent as they were meant."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque(maxlen=256)

    def add(self, piece: bytes) -> None:
        self._pieces.append(piece)

    def any(self, rng: random.Random) -> bytes:
        return self._pieces[rng.randrange(len(self._pieces))] if self._pieces else b""


# ── routers ───────────────────────────────────────────────────────────────────────────────────────


class Target:
    """A router with one mechanism. Some peers it refuses, and some it decides about later."""

    def __init__(self, kind: str, keys: Keys | None) -> None:
        self.kind, self.keys = kind, keys
        self.later: list[int] = []
        self.count = 0
        makers = {
            "NULL": lambda: zmtp.Null(b"ROUTER", asks=True),
            "PLAIN": lambda: zmtp.PlainServer(b"ROUTER"),
            "CURVE": lambda: zmtp.CurveServer(keys.server if keys else None, b"ROUTER"),
        }
        self.router: Any = TcpRouter(
            os.urandom,
            make_mechanism=makers[kind],
            authenticate=self.authenticate,
            **BOUNDS,
        )
        self.listener = ipc.listen(f"ipc://@majordomus-fuzz-{os.getpid()}-{kind}")
        self.router.listen(self.listener.fileno())

    def authenticate(self, serial: int, fd: int, host: str, credentials: Any) -> tuple[int, str]:
        self.count += 1
        if credentials and b"refused" in credentials:
            return 400, ""
        if self.count % 5 == 0:
            self.later.append(serial)
            return 0, ""
        return 200, "proof"

    def turn(self) -> list[tuple[bytes, list[Any]]]:
        self.router.wait(0)
        batch: list[tuple[bytes, list[Any]]] = self.router.receive(256, time.monotonic())
        for serial in self.later:
            self.router.decide(serial, 200, "proof")
        self.later.clear()
        return batch

    def note_events(self, counts: Counter[str]) -> None:
        for event, _, peer, reason in self.router.events():
            if event in (engine.CONNECTION_ENDED, engine.HANDSHAKE_FAILED):
                counts[reason] += 1
            if event == engine.CONNECTION_ENDED:
                self.router.release(peer)

    def attack(self, rng: random.Random, trace: Trace, counts: Counter[str]) -> None:
        """One batch of peers; what the honest ones send must arrive."""
        peers: dict[bytes, Peer] = {}
        for n in range(BATCH):
            identity = bytes([1 + n]) + rng.randbytes(4)
            sock = ipc.connect(self.listener.url)
            honest = n % 7 == 0
            mechanism = client_of(self.kind, self.keys, rng, identity, honest)
            peers[identity] = Peer(rng, sock, mechanism, honest, trace)
        arrived: dict[bytes, list[list[Any]]] = {}
        end = time.monotonic() + PATIENCE
        quiet = 0
        while quiet < 3 or any(
            peer.honest and len(arrived.get(identity, ())) < len(peer.messages)
            for identity, peer in peers.items()
        ):
            assert time.monotonic() < end, f"{self.kind}: an honest peer was not served"
            batch = self.turn()
            for identity, frames in batch:
                arrived.setdefault(identity, []).append(frames)
            if batch:
                self.router.send([(batch[0][0], [b"reply", b"x" * rng.choice((1, 300, 9000))])])
            for peer in peers.values():
                peer.read()
            self.note_events(counts)
            quiet = 0 if batch or self.router.pending else quiet + 1
        for identity, peer in peers.items():
            if peer.honest:
                assert arrived[identity] == peer.messages, f"{self.kind}: {identity!r}"
            counts["open" if peer.is_open else "not open"] += 1
            peer.sock.close()
        while self.router.open_count:
            assert time.monotonic() < end, f"{self.kind}: a connection stays"
            self.turn()
            self.note_events(counts)
        assert self.router.buffered() == (0, 0), self.kind

    def close(self) -> None:
        self.router.close()
        self.listener.close()


class Served:
    """A mutated router that serves dealers of ours."""

    def __init__(self, kind: str, keys: Keys | None) -> None:
        self.kind, self.keys = kind, keys
        self.listener = ipc.listen(f"ipc://@majordomus-fuzz-{os.getpid()}-{kind}-served")
        self.accepting = plain.socket(fileno=os.dup(self.listener.fileno()))

    def attack(self, rng: random.Random, trace: Trace, counts: Counter[str], times: int) -> None:
        for n in range(times):
            self._one(rng, trace, counts, honest=n % 7 == 0)

    def _one(self, rng: random.Random, trace: Trace, counts: Counter[str], *, honest: bool) -> None:
        client = client_of(self.kind, self.keys, rng, b"\1dealer", True)
        dealer: Any = TcpDealer(
            ipc.connect(self.listener.url).detach(), b"\1dealer", mechanism=client
        )
        sock, _ = self.accepting.accept()
        server: Any = zmtp.Null(b"ROUTER")
        if self.kind == "PLAIN":
            server = zmtp.PlainServer(b"ROUTER")
        elif self.kind == "CURVE" and self.keys is not None:
            server = zmtp.CurveServer(self.keys.server, b"ROUTER")
        sock.setblocking(False)
        peer = Peer(rng, sock, server, honest, trace)
        got: list[Any] = []
        end, quiet = time.monotonic() + PATIENCE, 0
        while quiet < 3 or (honest and len(got) < len(peer.messages)):
            assert time.monotonic() < end, f"{self.kind}: an honest router was not read"
            before = len(got), dealer.received
            got += dealer.receive(100)
            if dealer.open and rng.random() < 0.3:
                dealer.send([[b"request", b"y" * rng.choice((1, 300, 9000))]])
                dealer.ping()
            peer.read()
            quiet = 0 if (len(got), dealer.received) != before else quiet + 1
        if honest:
            assert got == peer.messages, self.kind
        counts["dealer open" if dealer.open else "dealer not open"] += 1
        sock.close()
        dealer.receive(100)
        dealer.close()

    def close(self) -> None:
        self.accepting.close()
        self.listener.close()


def run(connections: int, seed: int, seconds: float = float("inf")) -> dict[str, Any]:
    """Open so many connections, or for so long. Returns what became of them."""
    rng, trace, counts = random.Random(seed), Trace(), Counter[str]()
    keys = make_keys()
    began, made = time.monotonic(), 0
    with contextlib.ExitStack() as stack:
        targets = [Target(kind, keys) for kind in KINDS]
        served = [Served(kind, keys) for kind in KINDS]
        for one in (*targets, *served):
            stack.callback(one.close)
        while made < connections and time.monotonic() - began < seconds:
            target = rng.choice(targets)
            target.attack(rng, trace, counts)
            made += BATCH
            if rng.random() < 0.25:
                rng.choice(served).attack(rng, trace, counts, BATCH // 4)
                made += BATCH // 4
    return {
        "connections": made,
        "seconds": round(time.monotonic() - began, 1),
        "seed": seed,
        "outcomes": dict(sorted(counts.items())),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--connections", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(json.dumps(run(given.connections, given.seed, given.seconds)), flush=True)


if __name__ == "__main__":
    main()

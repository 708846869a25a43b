"""A right is removed for half of two hundred connected peers: each of these is refused within a
second, and the others are served as before."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from majordomus.middleware.token_auth import TokenAuth
from majordomus.net.broker.broker import Broker
from majordomus.net.worker.worker import Worker
from majordomus.protocol import mdp03, metadata, spec
from majordomus.security import tokens
from tests.net.conftest import QUICK, RawPeer

PEERS = 200
RULES = """
[[rule]]
allow = ["call", "serve"]
users = ["kept-*", ""]
"""
ALL = RULES + '[[rule]]\nallow = ["call"]\nusers = ["lost-*"]\n'


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Broker, Path, tokens.SigningKey]]:
    file, key = tmp_path / "rights.toml", tokens.new_key()
    file.write_text(ALL)
    settings = msgspec.structs.replace(QUICK, acl=str(file), client_interval=30.0)
    auth = TokenAuth(key=key, anonymous=True)
    with Broker(settings, bind="tcp://127.0.0.1:0", middleware=[auth]) as broker:
        yield broker, file, key


def answers(peers: list[RawPeer], id: int) -> list[int]:
    """Send one request from each peer; return the status of each answer."""
    for peer in peers:
        peer.request(b"echo", b"x", id=id, ttl=20_000)
    return [peer.receive(20)[0][2] for peer in peers]


def test_hundred_of_two_hundred_connected_peers_lose_their_right_within_a_second(
    place: tuple[Broker, Path, tokens.SigningKey],
) -> None:
    broker, file, key = place
    worker = Worker(broker.endpoints[0])
    worker.service("echo")(lambda request: request.body)
    names = [f"{'lost' if number % 2 else 'kept'}-{number}" for number in range(PEERS)]
    peers = [RawPeer(broker.endpoints[0]) for _ in names]
    try:
        with worker:
            worker.wait_ready(10)
            for peer, name in zip(peers, names, strict=True):
                token, _ = key.sign(name, [], time.time())
                field = metadata.pack({"token": token})
                peer.send(mdp03.pack(spec.HELLO, spec.METADATA, metadata=field))
                assert peer.receive(20)[0][0] == spec.WELCOME
            assert answers(peers, 1) == [200] * PEERS
            file.write_text(RULES)
            changed = time.monotonic()
            probe, id = peers[1], 2
            while answers([probe], id) == [200]:
                id += 1
            took = time.monotonic() - changed
            got = answers(peers, id + 1)
    finally:
        for peer in peers:
            peer.socket.close(0)
    assert got == [200, 403] * (PEERS // 2)
    assert took < 1.0 + 1.0, f"{took:.2f} s: a second, and what a loaded machine takes"
    print(
        f"\n{PEERS // 2} of {PEERS} connected peers lost their right {took:.3f} s after the change"
    )

"""What somebody who means harm would try with tokens against a running broker; each attempt is
refused, and the broker goes on."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from majordomus.errors import Unauthenticated
from majordomus.middleware.token_auth import TokenAuth
from majordomus.net.broker.broker import Broker
from majordomus.net.client.client import Client
from majordomus.protocol import mdp03, metadata, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect
from majordomus.security import tokens
from majordomus.security.tokens import SigningKey
from tests.middleware.test_token_auth import Place, ask, key, make_place, place
from tests.net.conftest import QUICK, RawPeer, eventually, peers

__all__ = ["key", "make_place", "peers", "place"]

Peers = Callable[[str], RawPeer]
MDP01, MDP02 = LEGACY[Dialect.MDP01], LEGACY[Dialect.MDP02]


def hello(peer: RawPeer, token: str) -> int:
    """What the broker answers to HELLO with `token`: 200 for WELCOME."""
    field = metadata.pack({"token": token})
    peer.send(mdp03.pack(spec.HELLO, spec.METADATA, id=99, metadata=field))
    header, _ = peer.receive(10)
    return 200 if header[0] == spec.WELCOME else header[2]


def refused(peer: RawPeer, command: int, name: bytes) -> int:
    """The status that an event or a subscription is refused with."""
    peer.send(mdp03.pack(command, id=77, service=name), b"x")
    header, _ = peer.receive(10)
    assert header[3] == 77
    return header[2]


def forged(header: dict[str, object], payload: str, signature: str = "AAAA") -> str:
    text = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
    return f"{text}.{payload}.{signature}"


def test_anonymous_peer_may_not_publish_or_subscribe(
    place: Place, key: SigningKey, peers: Peers
) -> None:
    stranger, friend = peers(place.url), peers(place.url)
    for command in (spec.EVENT, spec.SUBSCRIBE):
        assert refused(stranger, command, b"news") == 401
    assert hello(stranger, "rubbish") == 401
    for command in (spec.EVENT, spec.SUBSCRIBE):
        assert refused(stranger, command, b"news") == 401
    assert hello(friend, key.sign("ann", [], time.time())[0]) == 200
    friend.send(mdp03.pack(spec.SUBSCRIBE, id=1, service=b"news"))
    friend.send(mdp03.pack(spec.EVENT, id=2, service=b"news"), b"hello")
    header, body = friend.receive(10)
    assert (header[0], header[5], body) == (spec.EVENT, b"news", [b"hello"])


def test_anonymous_peers_may_subscribe_when_the_option_allows_it(
    make_place: Callable[..., Place], peers: Peers
) -> None:
    peer = peers(make_place(anonymous=True).url)
    peer.send(mdp03.pack(spec.HELLO))
    assert peer.receive(10)[0][0] == spec.WELCOME
    peer.send(mdp03.pack(spec.SUBSCRIBE, id=1, service=b"news"))
    peer.send(mdp03.pack(spec.EVENT, id=2, service=b"news"), b"hello")
    assert peer.receive(10)[0][0] == spec.EVENT


def test_connection_becomes_anonymous_when_the_key_of_its_token_is_retired(
    make_place: Callable[..., Place], peers: Peers
) -> None:
    stolen, fresh = tokens.new_key(), tokens.new_key()
    place = make_place(key=stolen)
    place.auth.rotate(fresh)
    thief, friend = peers(place.url), peers(place.url)
    far = stolen.sign("root", ["wheel"], time.time(), lifetime=10**8)[0]
    assert (hello(thief, far), hello(friend, fresh.sign("ann", [], time.time())[0])) == (200, 200)
    place.auth.retire(stolen.kid)
    machine = place.broker._loop._machine  # type: ignore[union-attr]
    eventually(lambda: not any(p.user == "root" for p in machine.registry.peers.values()))
    assert refused(thief, spec.EVENT, b"news") == 401
    assert ask(thief)[0] == 401
    assert ask(friend) == (200, b"ann x")


def test_connections_become_anonymous_when_their_key_leaves_the_folder(
    key: SigningKey, peers: Peers, tmp_path: Path
) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    public, _ = key.save(folder / "one")
    tokens.new_key().save(folder / "two")
    ahead = [0.0]
    auth = TokenAuth(public_keys=folder, clock=lambda: time.time() + ahead[0])
    with Broker(QUICK, bind="tcp://127.0.0.1:0", middleware=[auth]) as broker:
        peer = peers(broker.endpoints[0])
        assert hello(peer, key.sign("ann", [], time.time())[0]) == 200
        public.unlink()
        ahead[0] = 2.0
        assert ask(peer)[0] == 401
        machine = broker._loop._machine  # type: ignore[union-attr]
        eventually(lambda: not any(p.user == "ann" for p in machine.registry.peers.values()))
        assert refused(peer, spec.EVENT, b"news") == 401


def test_headers_that_would_choose_another_key_or_algorithm_are_refused(
    place: Place, key: SigningKey, peers: Peers
) -> None:
    _, payload, signature = key.sign("root", [], time.time())[0].split(".")
    good = {"alg": "Ed25519", "kid": key.kid}
    attempts: list[dict[str, object]] = [
        {"alg": "none", "kid": key.kid},
        {"alg": "EdDSA", "kid": key.kid},
        {"alg": "ed25519", "kid": key.kid},
        {"alg": ["Ed25519"], "kid": key.kid},
        {"alg": "Ed25519"},
        {**good, "kid": ""},
        {**good, "kid": "../../etc/passwd"},
        {**good, "kid": key.kid + "\0"},
        {**good, "kid": [key.kid]},
        {**good, "kid": {"kid": key.kid}},
        {**good, "jwk": {"kty": "OKP", "crv": "Ed25519", "x": "A" * 43}},
        {**good, "jku": "http://127.0.0.1:1/keys"},
        {**good, "crit": ["exp"]},
        {**good, "b64": False, "crit": ["b64"]},
    ]
    peer = peers(place.url)
    for id, header in enumerate(attempts, 1):
        for end in (signature, "", "AAAA", "A" * 86):
            assert ask(peer, forged(header, payload, end), id)[0] == 401, header
            assert hello(peers(place.url), forged(header, payload, end)) == 401, header


@pytest.mark.parametrize("size", [3071, 3072, 3073, 4000])
def test_forged_token_of_the_largest_size_is_refused_without_harm(
    place: Place, key: SigningKey, peers: Peers, size: int
) -> None:
    peer = peers(place.url)
    assert ask(peer, "x" * size)[0] == 401
    head = key.sign("ann", [], time.time())[0].partition(".")[0]
    assert ask(peer, f"{head}.{'A' * (size - len(head) - 90)}.{'A' * 86}"[:size], 2)[0] == 401
    assert ask(peer, key.sign("ann", [], time.time())[0], 3) == (200, b"ann x")


def test_token_that_is_no_text_is_refused(place: Place, peers: Peers) -> None:
    peer = peers(place.url)
    for id, value in enumerate([b"\xff\xfe", 7, None, True, [], {}, ["ann"], {"sub": "ann"}], 1):
        field = metadata.pack({"token": value})
        peer.send(
            mdp03.pack(
                spec.REQUEST, spec.METADATA, id=id, ttl=5000, service=b"whoami", metadata=field
            )
        )
        assert peer.receive(10)[0][2] == 401, value


def test_token_of_one_request_is_not_that_of_the_next_nor_of_another_connection(
    place: Place, key: SigningKey, peers: Peers
) -> None:
    token = key.sign("ann", [], time.time())[0]
    one, other = peers(place.url), peers(place.url)
    assert ask(one, token, 1) == (200, b"ann x")
    assert (ask(one, "", 2)[0], ask(other, "", 1)[0]) == (401, 401)


def test_request_of_an_older_dialect_does_not_borrow_a_token(
    make_place: Callable[..., Place], key: SigningKey, peers: Peers
) -> None:
    """Neither from the body's second frame, nor behind an envelope, nor from another's HELLO."""
    place = make_place(legacy=True)
    token = key.sign("ann", [], time.time())[0].encode()
    friend, peer = peers(place.url), peers(place.url)
    assert hello(friend, token.decode()) == 200
    for frames in (
        MDP02.c2b_request(b"whoami", [b"x", token]),
        MDP02.c2b_request(b"whoami", []),
        MDP02.c2b_request(b"whoami", [b""]),
        MDP01.c2b_request(b"whoami", [b"", token]),
        [b"inner", *MDP02.c2b_request(b"whoami", [b"x", token])],
    ):
        peer.send(*frames)
    machine = place.broker._loop._machine  # type: ignore[union-attr]
    eventually(lambda: machine.registry.counts.failed >= 5)
    assert machine.registry.counts.answered == 0


def test_worker_that_registers_the_login_name_gets_no_login(
    place: Place, key: SigningKey, peers: Peers
) -> None:
    """A worker with the service name `login` gets no request, so that it can approve nothing."""
    impostor = peers(place.url)
    impostor.ready(b"login", 9)
    with Client(place.url, login=("ann", "secret")) as client:
        assert client.call("whoami", b"x", timeout=10).body == b"ann x"
    assert not impostor.socket.poll(200) or impostor.receive(1)[0][0] != spec.REQUEST


def test_auth_service_is_not_asked_directly_without_a_token(place: Place, peers: Peers) -> None:
    peer = peers(place.url)
    peer.send(mdp03.pack(spec.REQUEST, id=1, ttl=5000, service=b"auth"), b"ann", b"secret")
    assert peer.receive(10)[0][2] == 401


def test_clock_that_is_wrong_by_more_than_the_leeway_is_found(
    place: Place, key: SigningKey, peers: Peers
) -> None:
    now = time.time()
    peer = peers(place.url)
    assert ask(peer, key.sign("ann", [], now + tokens.LEEWAY - 2)[0], 1)[0] == 200
    assert ask(peer, key.sign("ann", [], now + tokens.LEEWAY + 60)[0], 2)[0] == 401
    token = key.sign("ann", [], now, lifetime=60)[0]
    assert ask(peer, token, 3)[0] == 200
    place.ahead = 60.0
    assert ask(peer, token, 4)[0] == 401


def test_flood_of_forged_tokens_leaves_room_for_honest_calls(
    place: Place, key: SigningKey, peers: Peers
) -> None:
    head, payload, _ = key.sign("ann", [], time.time())[0].split(".")
    attacker, friend = peers(place.url), peers(place.url)
    for id in range(1, 201):
        field = metadata.pack({"token": f"{head}.{payload}.{id:086d}"})
        attacker.send(
            mdp03.pack(
                spec.REQUEST, spec.METADATA, id=id, ttl=5000, service=b"whoami", metadata=field
            )
        )
    assert ask(friend, key.sign("ann", [], time.time())[0])[0] == 200
    for _ in range(200):
        assert attacker.receive(10)[0][2] == 401
    assert len(place.auth._checker._known) < 10


def test_login_without_secret_ends_with_the_auth_services_words_and_no_token(place: Place) -> None:
    for attempt in (("ann", ""), ("", ""), ("ann", "secret "), ("root", "x" * 3000)):
        with Client(place.url, login=attempt) as client, pytest.raises(Unauthenticated):
            client.call("whoami", timeout=10)

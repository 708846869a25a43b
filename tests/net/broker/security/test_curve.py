"""An encrypted broker: accepted keys, refused keys, and keys that are removed.

Each test runs with our own ZMTP and with libzmq, unless it is about one of them.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import zmq

from majordomus.core.broker.settings import BrokerSettings
from majordomus.errors import (
    ConfigurationError,
    MajordomusError,
    StatusError,
    Unauthenticated,
)
from majordomus.net.broker.broker import Broker
from majordomus.net.broker.limits.connections import DELAYS
from majordomus.net.broker.security import curve, zap
from majordomus.net.broker.security.authenticator import Authenticator
from majordomus.net.client.client import Client
from majordomus.net.worker.worker import Worker
from majordomus.net.zmq import select as wires
from majordomus.net.zmq import sockets
from majordomus.protocol import mdp03, spec
from majordomus.security import certificates
from majordomus.security.certificates import Certificate
from tests.net.conftest import QUICK, RawPeer, eventually

SERVER = curve.make()
TCP = "tcp://127.0.0.1:0"


only_libzmq = pytest.mark.parametrize("wire", ["libzmq"], indirect=True)
only_ours = pytest.mark.parametrize("wire", ["ours"], indirect=True)


@pytest.fixture(autouse=True, params=["ours", "libzmq"])
def wire(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What serves encrypted endpoints, and connects to them."""
    if request.param == "ours" and wires.curve_problem():
        pytest.skip(f"libzmq serves encrypted endpoints: {wires.curve_problem()}")
    if request.param == "libzmq":
        monkeypatch.setattr(wires, "OWN_ZMTP", False)
    return str(request.param)


class People:
    """A folder of public keys, and the key pairs of clients."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pairs: dict[str, Certificate] = {}

    def add(self, name: str, groups: str = "") -> Certificate:
        metadata = {"user": name, **({"groups": groups} if groups else {})}
        made = self.pairs[name] = curve.make(metadata)
        certificates.write(self.folder / name, made)
        return made

    def remove(self, name: str) -> None:
        (self.folder / f"{name}.key").unlink()


@pytest.fixture
def people(tmp_path: Path) -> People:
    return People(tmp_path)


@pytest.fixture
def encrypted(people: People) -> Iterator[Broker]:
    people.add("ann", "ops")
    people.add("worker")
    with Broker(QUICK, bind=TCP, curve=SERVER, clients=people.folder) as running:
        yield running


def client(broker: Broker, pair: Certificate | None = None, timeout: float = 10) -> Client:
    return Client(broker.endpoints[0], timeout=timeout, server_key=SERVER.public, certificate=pair)


@contextlib.contextmanager
def serving(broker: Broker, pair: Certificate) -> Iterator[Worker]:
    worker = Worker(broker.endpoints[0], server_key=SERVER.public, certificate=pair)
    worker.add("echo", lambda request: request.body)
    worker.add("who", lambda request: request.broker_metadata["user"])
    with worker:
        worker.wait_ready(10)
        yield worker


def handshakes(broker: Broker) -> dict[str, int]:
    loop = broker._loop
    assert loop is not None
    return dict(loop._machine.registry.counts.handshakes)


def known_keys(broker: Broker) -> int:
    loop = broker._loop
    assert loop is not None
    listener: Any = loop._listener
    return len(listener._authentication.authenticator._by_proof)


class CurvePeer(RawPeer):
    """A raw DEALER with a key."""

    def __init__(self, url: str, pair: Certificate, id: bytes = b"") -> None:
        self.socket = sockets.dealer()
        self.socket.setsockopt(zmq.IMMEDIATE, 0)
        self.socket.setsockopt(zmq.LINGER, 0)
        if id:
            self.socket.setsockopt(zmq.ROUTING_ID, id)
        self.socket.setsockopt(zmq.CURVE_SERVERKEY, SERVER.public.encode())
        self.socket.setsockopt(zmq.CURVE_PUBLICKEY, pair.public.encode())
        self.socket.setsockopt(zmq.CURVE_SECRETKEY, pair.secret.encode())
        self.socket.connect(url)


@pytest.fixture
def raw() -> Iterator[Callable[..., CurvePeer]]:
    made: list[CurvePeer] = []

    def make(url: str, pair: Certificate, id: bytes = b"") -> CurvePeer:
        made.append(CurvePeer(url, pair, id))
        return made[-1]

    yield make
    for peer in made:
        peer.close()


# ── who comes in ──────────────────────────────────────────────────────────────────────────────────


def test_known_client_calls_a_known_worker_and_the_worker_gets_its_user(
    encrypted: Broker, people: People
) -> None:
    with serving(encrypted, people.pairs["worker"]), client(encrypted, people.pairs["ann"]) as ann:
        assert ann.call("echo", b"hello").body == b"hello"
        assert ann.call("echo", b"x" * 100_000).body == b"x" * 100_000
        assert ann.call("who").body == b"ann"


def test_peer_in_the_core_has_user_groups_and_key(encrypted: Broker, people: People) -> None:
    pair = people.pairs["ann"]
    with client(encrypted, pair) as ann:
        ann.ping()
        loop = encrypted._loop
        assert loop is not None
        (peer,) = loop._machine.registry.peers.values()
        assert (peer.user, peer.groups, peer.identity.key) == ("ann", ("ops",), pair.public)


@pytest.mark.parametrize(
    ("kind", "reason", "told"),
    [
        ("no key", "another-mechanism", "is encrypted: give its public key"),
        ("unknown key", "unknown-key", "refuses the key"),
        ("no key of one's own", "unknown-key", "none was given: make one with majordomus keygen"),
        ("wrong server key", "wrong-server-key", "probably has another key than"),
    ],
)
def test_unknown_key_is_refused_counted_and_logged_and_the_client_gets_the_reason(
    encrypted: Broker, caplog: pytest.LogCaptureFixture, kind: str, reason: str, told: str
) -> None:
    caplog.set_level(logging.WARNING, "majordomus.broker")
    url = encrypted.endpoints[0]
    strangers = {
        "no key": lambda: Client(url, timeout=1),
        "unknown key": lambda: client(encrypted, curve.make(), 20),
        "no key of one's own": lambda: client(encrypted, None, 20),
        "wrong server key": lambda: Client(url, timeout=1, server_key=curve.make().public),
    }
    with strangers[kind]() as stranger, pytest.raises(StatusError, match=told) as error:
        stranger.call("echo")
    assert "\n" not in str(error.value)
    eventually(lambda: handshakes(encrypted).get(reason))
    assert set(handshakes(encrypted)) == {reason}

    def lines() -> list[str]:
        return [one.getMessage() for one in caplog.records if one.name == "majordomus.broker"]

    eventually(lines)  # logged at the end of the turn that counts them
    assert all(line.startswith(f"handshake-failed why={reason}") for line in lines())


def test_log_line_of_an_unknown_key_has_key_and_address(
    encrypted: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "majordomus.broker")
    stranger = curve.make()
    with client(encrypted, stranger) as one, pytest.raises(Unauthenticated):
        one.call("echo")
    expected = f"handshake-failed why=unknown-key who={stranger.public} address=127.0.0.1"
    eventually(lambda: expected in caplog.text)


def test_plain_text_to_an_encrypted_port_is_counted(encrypted: Broker) -> None:
    with sockets.dealer() as dealer:
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.IMMEDIATE, 0)
        dealer.connect(encrypted.endpoints[0])
        with suppress(zmq.Again):  # a connection that was refused already takes no message
            dealer.send(mdp03.pack(spec.REQUEST, id=1, service=b"mmi.stats"), zmq.NOBLOCK)
        eventually(lambda: handshakes(encrypted).get("another-mechanism"))
        assert not dealer.poll(200)


def test_broker_without_clients_encrypts_and_accepts_every_key() -> None:
    with Broker(QUICK, bind=TCP, curve=SERVER) as broker:
        (shown,) = broker.client_endpoints
        assert shown.startswith("majordomus://127.0.0.1:")
        with Client(shown) as anybody:
            anybody.ping()
        with Client(broker.endpoints[0], timeout=1) as stranger, pytest.raises(StatusError):
            stranger.ping()


def test_inproc_of_the_same_process_needs_no_key(people: People) -> None:
    bind = [TCP, "inproc://curve-test"]
    with (
        Broker(QUICK, bind=bind, curve=SERVER, clients=people.folder),
        Client("inproc://curve-test") as inside,
    ):
        inside.ping()


def test_key_that_is_added_comes_in_within_a_second(encrypted: Broker, people: People) -> None:
    bob = people.add("bob")
    began = time.monotonic()
    while True:
        with client(encrypted, bob) as one, contextlib.suppress(Unauthenticated):
            one.ping()
            break
    assert time.monotonic() - began < 5  # one second, and a loaded machine


# ── who was taken away ────────────────────────────────────────────────────────────────────────────


def test_removed_keys_of_half_of_two_hundred_peers_are_cut_within_a_second(
    encrypted: Broker, people: People, raw: Callable[..., CurvePeer]
) -> None:
    pairs = [people.add(f"user{n}") for n in range(200)]
    eventually(lambda: known_keys(encrypted) == 202, within=10)
    peers = [raw(encrypted.endpoints[0], pair) for pair in pairs]
    question = mdp03.pack(spec.REQUEST, id=1, ttl=20_000, service=b"mmi.broker")
    for peer in peers:
        peer.send(question)
    for peer in peers:
        peer.receive(20)
    loop = encrypted._loop
    assert loop is not None
    known = loop._machine.registry.peers
    assert len(known) == 200
    for n in range(100):
        people.remove(f"user{n}")
    began = time.monotonic()
    eventually(lambda: len(known) == 100, within=10)
    took = time.monotonic() - began
    again = mdp03.pack(spec.REQUEST, id=2, ttl=20_000, service=b"mmi.broker")
    for peer in peers:
        peer.send(again)
    for peer in peers[100:]:
        peer.receive(20)
    assert not any(peer.socket.poll(0) for peer in peers[:100])
    assert {peer.user for peer in known.values()} == {f"user{n}" for n in range(100, 200)}
    print(f"100 of 200 cut after {took:.3f} s")
    assert took < 3  # one second, and a loaded machine
    eventually(lambda: handshakes(encrypted).get("removed-key", 0) >= 100, within=10)


def test_connection_of_a_removed_key_is_shut(
    encrypted: Broker, people: People, raw: Callable[..., CurvePeer]
) -> None:
    peer = raw(encrypted.endpoints[0], people.pairs["ann"])
    peer.ready(b"echo")
    monitor = peer.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    people.remove("ann")
    ended = monitor.poll(3000)
    peer.socket.disable_monitor()
    monitor.close(0)
    assert ended, "the connection goes on"


def test_client_whose_key_is_removed_gets_the_reason(encrypted: Broker, people: People) -> None:
    with client(encrypted, people.pairs["ann"]) as ann:
        ann.ping()
        people.remove("ann")
        with pytest.raises(Unauthenticated, match="or was removed"):
            while True:
                ann.ping(timeout=10)


def test_groups_that_change_in_the_file_hold_for_the_live_connection(tmp_path: Path) -> None:
    ann = curve.make()
    path = tmp_path / "keys.toml"

    def write(groups: str) -> None:
        path.write_text(f'[[key]]\npublic = "{ann.public}"\nuser = "ann"\ngroups = [{groups}]\n')

    write('"ops"')
    with (
        Broker(QUICK, bind=TCP, curve=SERVER, clients=path) as broker,
        client(broker, ann) as one,
    ):
        one.ping()
        loop = broker._loop
        assert loop is not None
        (peer,) = loop._machine.registry.peers.values()
        write('"ops", "admins"')
        eventually(lambda: peer.groups == ("ops", "admins"))
        one.ping()


def test_open_connection_of_a_key_that_becomes_another_users_is_served_as_that_user(
    encrypted: Broker, people: People, caplog: pytest.LogCaptureFixture
) -> None:
    ann, file = people.pairs["ann"], people.folder / "ann.key"
    with serving(encrypted, people.pairs["worker"]), client(encrypted, ann) as one:
        assert one.call("who").text == "ann"
        file.write_text(file.read_text().replace('"ann"', '"eve"'))
        eventually(lambda: one.call("who").text == "eve")
    assert not [record for record in caplog.records if record.exc_info]


def test_invalid_file_of_keys_changes_nothing_and_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ann = curve.make()
    path = tmp_path / "keys.toml"
    path.write_text(f'[[key]]\npublic = "{ann.public}"\nuser = "ann"\n')
    with (
        Broker(QUICK, bind=TCP, curve=SERVER, clients=path) as broker,
        client(broker, ann) as one,
    ):
        one.ping()
        path.write_text("[[key")
        eventually(lambda: "keys.toml" in caplog.text)
        one.ping()
        path.unlink()
        with pytest.raises(Unauthenticated):
            while True:
                one.ping()


# ── the routing id ────────────────────────────────────────────────────────────────────────────────


def back(raw: Callable[..., CurvePeer], broker: Broker, pair: Certificate, id: bytes) -> CurvePeer:
    """Connect with the routing id of a connection that has just ended; return once answered."""
    until = time.monotonic() + 10
    while True:  # the ROUTER delivers nothing of the new connection while it has the old one
        peer = raw(broker.endpoints[0], pair, id=id)
        peer.send(mdp03.pack(spec.REQUEST, id=1, ttl=20_000, service=b"mmi.broker"))
        if peer.socket.poll(100):
            return peer
        assert time.monotonic() < until
        peer.close()


def test_routing_id_that_comes_back_with_another_user_is_another_peer(
    encrypted: Broker, people: People, raw: Callable[..., CurvePeer]
) -> None:
    bob = people.add("bob")
    eventually(lambda: known_keys(encrypted) == 3)
    loop = encrypted._loop
    assert loop is not None
    known = loop._machine.registry.peers
    first = raw(encrypted.endpoints[0], people.pairs["ann"], id=b"the-same-id")
    first.ready(b"echo")
    assert known[b"the-same-id"].user == "ann"
    first.close()
    back(raw, encrypted, bob, b"the-same-id")
    assert known[b"the-same-id"].user == "bob"
    assert known[b"the-same-id"].worker is None


def test_peer_that_comes_back_by_the_same_descriptor_stays(
    encrypted: Broker, people: People, raw: Callable[..., CurvePeer]
) -> None:
    loop = encrypted._loop
    assert loop is not None
    known = loop._machine.registry.peers
    for n in range(3):
        peer = back(raw, encrypted, people.pairs["ann"], b"the-same-id")
        peer.send(mdp03.pack(spec.REQUEST, id=2, ttl=20_000, service=b"nobody's"))
        eventually(lambda: b"the-same-id" in known and 2 in known[b"the-same-id"].open)
        time.sleep(DELAYS[-1] + 0.1)
        assert b"the-same-id" in known, n
        assert 2 in known[b"the-same-id"].open, n
        peer.close()
        eventually(lambda: b"the-same-id" not in known)  # and so the descriptor is free


# ── the handler ───────────────────────────────────────────────────────────────────────────────────


def kill(thread: threading.Thread) -> None:
    """Raises SystemExit in another thread."""
    assert thread.ident is not None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit)
    )


@only_libzmq
def test_program_that_leaves_its_broker_open_ends(tmp_path: Path) -> None:
    program = "from majordomus import Broker; Broker(bind='tcp://127.0.0.1:0', curve=True).open()"
    subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        timeout=20,
        env={**os.environ, wires.VARIABLE: wires.PYZMQ, "STATE_DIRECTORY": str(tmp_path)},
    )


@only_libzmq
def test_killed_zap_handler_accepts_no_connection_and_is_back_within_a_second(
    encrypted: Broker, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = next(iter(zap._handlers.values()))
    monkeypatch.setattr(zap, "RESTART", 0.7)  # long enough to look at
    answers: list[float] = []
    strangers: list[object] = []
    stop = threading.Event()

    def known() -> None:
        with client(encrypted, people.pairs["ann"]) as ann:
            while not stop.is_set():
                assert ann.call("echo", b"x").body == b"x"
                answers.append(time.monotonic())

    def unknown() -> None:
        while not stop.is_set():
            with client(encrypted, curve.make(), timeout=0.2) as stranger:
                try:
                    strangers.append(stranger.ping())
                except Exception as error:
                    strangers.append(error)

    with serving(encrypted, people.pairs["worker"]):
        threads = [threading.Thread(target=run) for run in (known, unknown, unknown)]
        for thread in threads:
            thread.start()
        eventually(lambda: len(answers) > 20 and strangers, within=10)
        dead = handler.thread
        assert dead is not None
        kill(dead)
        eventually(lambda: not dead.is_alive(), within=10)
        died = time.monotonic()
        with client(encrypted, people.pairs["ann"], timeout=20) as late:
            late.ping()
        back = time.monotonic() - died
        stop.set()
        for thread in threads:
            thread.join(20)
    print(f"back after {back:.2f} s, of which 0.7 s are the pause; {len(answers)} answers")
    assert handler.deaths == 1
    assert [one for one in strangers if not isinstance(one, Exception)] == []
    assert max(answers) > died + 0.3, "who was known stayed"
    assert 0.6 < back < 15, "the pause and a handshake, on a loaded machine"
    assert handshakes(encrypted).get("no-zap-handler"), "somebody tried meanwhile"


@only_ours
def test_exception_in_the_thread_of_credentials_does_not_end_it(
    encrypted: Broker, people: People
) -> None:
    def thread() -> threading.Thread:
        (found,) = (one for one in threading.enumerate() if one.name == "majordomus-credentials")
        return found

    with client(encrypted, people.pairs["ann"]) as ann:
        ann.ping()
        first = thread()
        kill(first)
        time.sleep(0.5)
        assert thread() is first
        people.remove("ann")
        with pytest.raises(Unauthenticated, match="or was removed"):
            while True:
                ann.ping(timeout=10)


@only_ours
def test_encrypted_broker_uses_no_zap_handler_and_leaves_no_thread(people: People) -> None:
    ann = people.add("ann")
    for _ in range(3):
        with (
            Broker(
                QUICK, bind=[TCP, "inproc://no-zap"], curve=SERVER, clients=people.folder
            ) as one,
            client(one, ann) as known,
            Client("inproc://no-zap") as inside,
        ):
            known.ping()
            inside.ping()
            assert zap._handlers == {}
        assert not [one for one in threading.enumerate() if "credentials" in one.name]


def test_stream_of_a_removed_key_ends_within_a_second(encrypted: Broker, people: People) -> None:
    worker = Worker(
        encrypted.endpoints[0], server_key=SERVER.public, certificate=people.pairs["worker"]
    )
    ends: list[float] = []

    @worker.service("count")
    def count(request: Any) -> Iterator[bytes]:
        try:
            for n in range(100_000):
                yield b"%d" % n
                time.sleep(0.01)
        finally:
            ends.append(time.monotonic())

    with worker, client(encrypted, people.pairs["ann"]) as ann:
        worker.wait_ready(10)
        stream = iter(ann.stream("count"))
        next(stream)
        people.remove("ann")
        removed = time.monotonic()
        with pytest.raises(MajordomusError):  # refused, or lost and not to be sent again
            for _ in stream:
                assert time.monotonic() - removed < 10
        eventually(lambda: ends, within=10)
        took = ends[0] - removed
    print(f"the stream ended {took:.3f} s after its key was removed")
    assert took < 3  # one second, and a loaded machine


def test_brokers_of_one_process_share_the_handler_and_keep_apart(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one, two = People(tmp_path / "one"), People(tmp_path / "two")
    ann, bob = one.add("ann"), two.add("bob")
    with (
        Broker(QUICK, bind=TCP, curve=SERVER, clients=one.folder) as first,
        Broker(QUICK, bind=TCP, curve=SERVER, clients=two.folder) as second,
    ):
        for broker, good, bad in ((first, ann, bob), (second, bob, ann)):
            with client(broker, good) as known:
                known.ping()
            with client(broker, bad) as unknown, pytest.raises(Unauthenticated):
                unknown.ping()
        first.stop()
        with client(second, bob) as known:
            known.ping()
    assert zap._handlers == {}
    assert not [one for one in threading.enumerate() if "zap" in one.name]


@only_libzmq
def test_broker_is_opened_again_and_again_without_leaving_a_handler(people: People) -> None:
    ann = people.add("ann")
    for _ in range(5):
        with (
            Broker(QUICK, bind=TCP, curve=SERVER, clients=people.folder) as broker,
            client(broker, ann) as known,
        ):
            known.ping()
        assert zap._handlers == {}


@only_libzmq
def test_broker_does_not_serve_beside_a_foreign_zap_handler(people: People) -> None:
    socket = sockets.context().socket(zmq.REP)
    socket.bind(zap.ENDPOINT)
    try:
        with pytest.raises(ConfigurationError, match="another ZAP handler"):
            Broker(QUICK, bind=TCP, curve=SERVER, clients=people.folder).open()
    finally:
        socket.close(0)


@only_libzmq
def test_broker_that_accepts_the_probe_connection_does_not_serve(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "majordomus.net.broker.security.authenticator.Authenticator.judge",
        lambda *_: "curve:whoever",
    )
    broker = Broker(QUICK, bind=TCP, curve=SERVER, clients=people.folder)
    with pytest.raises(ConfigurationError, match=r"does not serve .CONNECTED."):
        broker.open()
    assert broker.endpoints == []
    assert zap._handlers == {}


def test_exception_in_the_authenticator_refuses_the_connection(
    encrypted: Broker, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> str:
        raise ZeroDivisionError

    monkeypatch.setattr(Authenticator, "check", fail)
    with client(encrypted, people.pairs["ann"], 1) as ann, pytest.raises(StatusError):
        ann.ping()
    monkeypatch.undo()
    with client(encrypted, people.pairs["ann"]) as ann:
        ann.ping()


# ── what may be bound ─────────────────────────────────────────────────────────────────────────────

EVERYWHERE = "tcp://0.0.0.0:0"


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"bind": EVERYWHERE}, "encrypt it .*--insecure"),
        ({"bind": "tcp://*:0"}, "encrypt it"),
        ({"bind": "tcp://[::]:0"}, "encrypt it"),
        ({"bind": [TCP, EVERYWHERE]}, "encrypt it"),
        ({"bind": EVERYWHERE, "curve": True}, "name the keys that may connect"),
        (
            {"bind": EVERYWHERE, "passwords": "x", "insecure": True},
            "would cross the network",
        ),
        ({"curve": True, "passwords": "x"}, "not both"),
        ({"clients": "x"}, "needs curve"),
        ({"clients": "any"}, "needs curve"),
        ({"curve": True, "clients": "local"}, "without --curve"),
        ({"settings": BrokerSettings(certificate="x")}, "with encryption"),
        ({"clients": "local", "passwords": "x"}, "not both"),
    ],
)
def test_contradictory_or_exposed_security_settings_are_refused(
    arguments: dict[str, object], what: str
) -> None:
    with pytest.raises(ConfigurationError, match=what):
        Broker(**{"bind": TCP, **arguments})  # type: ignore[arg-type]


def test_insecure_binds_everywhere() -> None:
    with (
        Broker(QUICK, bind=EVERYWHERE, insecure=True) as broker,
        Client(broker.endpoints[0].replace("0.0.0.0", "127.0.0.1")) as one,  # noqa: S104
    ):
        one.ping()


def test_encrypted_broker_that_says_any_binds_everywhere_and_shows_a_host() -> None:
    with Broker(QUICK, bind=EVERYWHERE, curve=SERVER, clients="any") as broker:
        (shown,) = broker.client_endpoints
        assert "0.0.0.0" not in shown  # noqa: S104
        port = broker.endpoints[0].rpartition(":")[2]
        with Client(f"tcp://127.0.0.1:{port}", server_key=broker.public_key) as one:
            one.ping()


def test_broker_with_curve_true_keeps_its_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    keys = set()
    for _ in range(2):
        with Broker(QUICK, bind=TCP, curve=True) as broker:
            keys.add(broker.public_key)
            with Client(broker.client_endpoints) as one:
                one.ping()
    assert len(keys) == 1
    assert (tmp_path / "majordomus/broker.key_secret").exists()

"""Which connections each mechanism accepts; NULL and passwords are for this machine only."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from majordomus.core.broker.state.identity import UNPROVED, Identity
from majordomus.errors import StatusError, Unauthenticated
from majordomus.net.broker.broker import Broker
from majordomus.net.broker.security import authenticator as auth
from majordomus.net.broker.security import curve
from majordomus.net.broker.security.authenticator import Authenticator, BusyError
from majordomus.net.client.client import Client
from majordomus.net.zmq import select as wires
from majordomus.net.zmq import sockets
from majordomus.security import passwords
from tests.net.conftest import QUICK, eventually

HERE = ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "localhost", "localhost:0:0:123"]
ELSEWHERE = ["10.0.0.1", "2001:db8::1", "::ffff:10.0.0.1", "", "localhost.example.com", "what"]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(passwords, "N", 16)
    path = tmp_path / "passwords"
    passwords.store(path, "ann", passwords.hashed("correct horse", ["ops"]))
    return path


@pytest.mark.parametrize("address", HERE)
def test_this_machine_may_connect_without_a_key_and_with_a_password(
    address: str, file: Path
) -> None:
    assert Authenticator(auth.NULL).judge("NULL", address, []) == "null:"
    authenticator = auth.by_passwords(file)
    proof = authenticator.judge("PLAIN", address, [b"ann", b"correct horse"])
    assert authenticator.identity(proof) == Identity("ann", ("ops",))


@pytest.mark.parametrize("address", ELSEWHERE)
def test_other_machines_are_refused_even_with_the_right_password(address: str, file: Path) -> None:
    assert Authenticator(auth.NULL).judge("NULL", address, []) == ""
    assert auth.by_passwords(file).judge("PLAIN", address, [b"ann", b"correct horse"]) == ""


@pytest.mark.parametrize("mechanism", ["NULL", "PLAIN", "CURVE", "GSSAPI", ""])
def test_authenticator_accepts_its_own_mechanism_only(mechanism: str) -> None:
    key = bytes(range(32))
    credentials = {"CURVE": [key], "PLAIN": [b"ann", b"x"]}.get(mechanism, [])
    authenticator = Authenticator(auth.CURVE)
    assert bool(authenticator.judge(mechanism, "127.0.0.1", credentials)) is (mechanism == "CURVE")
    assert [refused.why for refused in authenticator.refused] == (
        [] if mechanism == "CURVE" else ["another-mechanism"]
    )


@pytest.mark.parametrize("credentials", [[], [b""], [b"x" * 31], [b"x" * 33], [b"x" * 32] * 2])
def test_key_of_the_wrong_form_is_refused(credentials: list[bytes]) -> None:
    authenticator = Authenticator(auth.CURVE)
    assert authenticator.judge("CURVE", "10.0.0.1", credentials) == ""
    assert authenticator.refused[0].why == "malformed"


@pytest.mark.parametrize(
    "credentials",
    [[], [b"ann"], [b"ann", b"wrong"], [b"bob", b"correct horse"], [b"\xff", b"x"], [b""] * 3],
)
def test_wrong_password_is_refused(file: Path, credentials: list[bytes]) -> None:
    assert auth.by_passwords(file).judge("PLAIN", "127.0.0.1", credentials) == ""


def test_new_password_ends_the_proof_of_the_old_one(file: Path) -> None:
    authenticator = auth.by_passwords(file)
    proof = authenticator.judge("PLAIN", "127.0.0.1", [b"ann", b"correct horse"])
    passwords.store(file, "ann", passwords.hashed("battery staple"))
    authenticator.look()
    assert authenticator.identity(proof) is None
    assert authenticator.version == 1


def test_password_guesses_are_bounded_and_accepted_users_do_not_wait(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(auth.time, "monotonic", lambda: now[0])
    tried: list[bytes] = []
    fits = passwords.fits
    monkeypatch.setattr(passwords, "fits", lambda e, p: tried.append(p) or fits(e, p))
    authenticator = auth.by_passwords(file)
    good = [b"ann", b"correct horse"]
    proof = authenticator.judge("PLAIN", "127.0.0.1", good)
    busy = 0
    for number in range(50):
        try:
            who = [b"ann", b"nobody"][number % 2]
            assert authenticator.judge("PLAIN", "127.0.0.1", [who, b"guess"]) == ""
        except BusyError:
            busy += 1
        assert authenticator.judge("PLAIN", "127.0.0.1", good) == proof
    assert (len(tried), busy) == (auth.TRIES, 50 - (auth.TRIES - 1))
    assert authenticator.refused[-1].why == "too-many-tries"
    now[0] += 1
    assert authenticator.judge("PLAIN", "127.0.0.1", [b"ann", b"guess"]) == ""
    passwords.store(file, "ann", passwords.hashed("another horse", ["ops"]))
    authenticator.look()
    assert authenticator.judge("PLAIN", "127.0.0.1", good) == ""


def test_message_without_a_proof_is_from_this_process() -> None:
    assert Authenticator(auth.CURVE).identity("") == UNPROVED


def test_unlisted_key_proves_nothing_but_itself() -> None:
    key = curve.make().public
    assert Authenticator(auth.CURVE).identity(f"curve:{key}") == Identity("", (), key)


@pytest.fixture(params=["tcp", "ipc", "tcp by libzmq"])
def with_passwords(
    request: pytest.FixtureRequest, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Broker]:
    """A broker with passwords."""
    bind = f"ipc://{tmp_path}/s" if request.param == "ipc" else "tcp://127.0.0.1:0"
    if request.param == "tcp by libzmq":
        monkeypatch.setattr(wires, "OWN_ZMTP", False)
    with Broker(QUICK, bind=bind, passwords=file) as running:
        yield running


def test_broker_with_passwords_accepts_a_right_one_only(with_passwords: Broker, file: Path) -> None:
    (url,) = with_passwords.endpoints
    with Client(url, plain=("ann", "correct horse")) as ann:
        ann.ping()
        loop = with_passwords._loop
        assert loop is not None
        (peer,) = loop._machine.registry.peers.values()
        unix = (f"uid:{os.getuid()}",) if url.startswith("ipc://") and wires.OWN_ZMTP else ()
        assert (peer.user, peer.groups) == ("ann", ("ops", *unix))
        for wrong in (("ann", "wrong"), ("bob", "correct horse")):
            with (
                Client(url, plain=wrong) as stranger,
                pytest.raises(Unauthenticated, match="refuses this user or password"),
            ):
                stranger.ping()
        with Client(url, timeout=1) as nobody, pytest.raises(StatusError):
            nobody.ping()
        passwords.store(file, "ann", None)
        eventually(lambda: not loop._machine.registry.peers)


def test_broker_for_this_machine_serves_tcp_and_ipc(tmp_path: Path) -> None:
    bind = ["tcp://127.0.0.1:0", f"ipc://{tmp_path}/s"]
    with Broker(QUICK, bind=bind, clients="local") as broker:
        for url in broker.endpoints:
            with Client(url) as one:
                one.ping()


def test_broker_for_this_machine_refuses_connections_from_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(auth, "is_local_address", lambda _address: False)
    with (
        Broker(QUICK, bind="tcp://127.0.0.1:0", clients="local") as broker,
        Client(broker.endpoints[0]) as one,
        pytest.raises(Unauthenticated),
    ):
        one.ping()


def test_checking_of_passwords_keeps_no_open_connection_waiting(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go_on = threading.Event(), threading.Event()
    checks = passwords.fits

    def slow(entry: Any, password: bytes) -> bool:
        if password == b"slow":
            began.set()
            go_on.wait(10)
        return checks(entry, password)

    monkeypatch.setattr(passwords, "fits", slow)
    with Broker(QUICK, bind="tcp://127.0.0.1:0", passwords=file) as broker:
        url = broker.endpoints[0]
        with Client(url, plain=("ann", "correct horse")) as ann, sockets.dealer() as guesser:
            ann.ping()
            guesser.setsockopt(zmq.LINGER, 0)
            guesser.setsockopt(zmq.PLAIN_USERNAME, b"ann")
            guesser.setsockopt(zmq.PLAIN_PASSWORD, b"slow")
            guesser.connect(url)
            assert began.wait(10)
            for _ in range(20):
                ann.ping(timeout=5)
            with Client(url, plain=("ann", "correct horse"), timeout=5) as again:
                again.ping()  # its password was accepted before
            assert not go_on.is_set()
            go_on.set()


def test_flood_of_guesses_does_not_keep_accepted_users_out(with_passwords: Broker) -> None:
    url = with_passwords.endpoints[0]
    with Client(url, plain=("ann", "correct horse"), timeout=20) as first:
        first.ping()
    guessers = []
    try:
        for number in range(40):
            guesser = sockets.dealer()
            guesser.setsockopt(zmq.LINGER, 0)
            guesser.setsockopt(zmq.PLAIN_USERNAME, b"ann")
            guesser.setsockopt(zmq.PLAIN_PASSWORD, b"guess %d" % number)
            guesser.connect(url)
            guessers.append(guesser)
        for _ in range(5):
            with Client(url, plain=("ann", "correct horse"), timeout=20) as again:
                again.ping()
        loop = with_passwords._loop
        assert loop is not None
        counts = loop._machine.registry.counts
        eventually(lambda: counts.handshakes.get("too-many-tries", 0) >= 40 - 2 * auth.TRIES)
    finally:
        for guesser in guessers:
            guesser.close()

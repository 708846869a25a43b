"""Links with a key or a password, over TCP and ipc: our own ZMTP, the reason of a refusal, and a
broker that is restarted."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from majordomus import Broker, Client, Worker
from majordomus.errors import MajordomusError
from majordomus.net.broker.security import curve
from majordomus.net.connection.credentials import Access
from majordomus.net.connection.link import open_link
from majordomus.net.zmq import select as wires
from majordomus.net.zmtp import ipc, tcp
from majordomus.security import certificates, passwords
from tests.net.conftest import QUICK

pytestmark = pytest.mark.skipif(
    not wires.OWN_ZMTP or bool(wires.CURVE_PROBLEM),
    reason="our own ZMTP does not serve CURVE here",
)
LIMIT = 20.0
SERVER, KNOWN, STRANGER = curve.make(), curve.make({"user": "ann"}), curve.make()


@pytest.fixture(params=["tcp", "ipc"])
def bind(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "tcp://127.0.0.1:0" if request.param == "tcp" else f"ipc://{tmp_path}/broker"


@pytest.fixture
def encrypted(bind: str, tmp_path: Path) -> Callable[..., Broker]:
    folder = tmp_path / "clients"
    folder.mkdir()
    certificates.write(folder / "ann", KNOWN)
    return lambda url=bind: Broker(QUICK, bind=url, curve=SERVER, clients=folder)


@pytest.fixture
def with_passwords(
    bind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Broker]:
    monkeypatch.setattr(passwords, "N", 16)
    file = tmp_path / "passwords"
    passwords.store(file, "ann", passwords.hashed("correct horse"))
    return lambda url=bind: Broker(QUICK, bind=url, passwords=file)


@pytest.mark.parametrize("credentials", ["none", "key", "password"])
def test_link_to_tcp_and_ipc_is_one_of_our_own_zmtp(bind: str, credentials: str) -> None:
    named: dict[str, Any] = {
        "none": {},
        "key": {"server_key": SERVER.public},
        "password": {"plain": ("ann", "correct horse")},
    }[credentials]
    with Broker(QUICK, bind=bind) as broker:
        (url,) = broker.endpoints
        access = Access(url, **named)
        place = None if url.startswith(ipc.SCHEME) else tcp.parse_addresses(url)[0]
        link = open_link(url, access, place)
        assert type(link).__name__ == "ZmtpLink"
        link.close()


def refused(url: str, **named: Any) -> str:
    """Return what a call raises that a broker refuses."""
    with (
        Client(url, timeout=1.5, **named) as client,
        pytest.raises(MajordomusError) as raised,
    ):
        client.call("mmi.service", b"echo")
    return str(raised.value)


def test_client_of_an_encrypted_broker_gets_the_reason_of_a_refusal(
    encrypted: Callable[..., Broker],
) -> None:
    with encrypted() as broker:
        (url,) = broker.endpoints
        key = {"server_key": SERVER.public}
        with Client(url, certificate=KNOWN, timeout=LIMIT, **key) as client:
            client.ping()
        assert re.search(
            "refuses the key .*: it is unknown", refused(url, certificate=STRANGER, **key)
        )
        assert "accepts only the keys in its list, and none was given" in refused(url, **key)
        assert "is encrypted: give its public key" in refused(url)
        wrong = refused(url, server_key=STRANGER.public)
        assert "it probably has another key than" in wrong
        assert "does not ask for a password" in refused(url, plain=("ann", "correct horse"))


def test_client_of_a_broker_with_passwords_gets_the_reason_of_a_refusal(
    with_passwords: Callable[..., Broker],
) -> None:
    with with_passwords() as broker:
        (url,) = broker.endpoints
        with Client(url, plain=("ann", "correct horse"), timeout=LIMIT) as client:
            client.ping()
        assert "refuses this user or password" in refused(url, plain=("ann", "wrong"))
        assert "wants a user and password" in refused(url)
        assert "is not encrypted" in refused(url, server_key=SERVER.public)


@pytest.mark.parametrize("kind", ["key", "password"])
def test_client_and_worker_find_a_restarted_broker_again(
    encrypted: Callable[..., Broker], with_passwords: Callable[..., Broker], kind: str
) -> None:
    make, named = {
        "key": (encrypted, {"server_key": SERVER.public, "certificate": KNOWN}),
        "password": (with_passwords, {"plain": ("ann", "correct horse")}),
    }[kind]
    broker = make()
    broker.start()
    (url,) = broker.endpoints
    worker = Worker(url, **named)
    worker.service("echo")(lambda request: request.body)
    with worker, Client(url, timeout=LIMIT, **named) as client:
        for n in range(3):
            assert client.call("echo", b"%d" % n).body == b"%d" % n
            broker.stop()
            future = client.submit("echo", b"while it is away")
            broker = make(url)
            broker.start()
            assert future.result(LIMIT).body == b"while it is away"
        broker.stop()

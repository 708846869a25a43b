"""Variables that name a broker and keys; a certificate without an encrypted broker."""

from __future__ import annotations

from pathlib import Path

import pytest

from majordomus.contrib.cloudlog import CloudLogHandler
from majordomus.errors import ConfigurationError
from majordomus.net import endpoints
from majordomus.net.broker.broker import Broker
from majordomus.net.broker.security import curve
from majordomus.net.client.async_client import AsyncClient
from majordomus.net.client.client import Client
from majordomus.net.connection import credentials
from majordomus.net.connection.credentials import Access
from majordomus.net.worker.async_worker import AsyncWorker
from majordomus.net.worker.request import Request
from majordomus.net.worker.worker import Worker
from majordomus.security import certificates
from majordomus.security.certificates import Certificate

SERVER = curve.make()
PLACES = (Client, AsyncClient, Worker, AsyncWorker)


@pytest.fixture(autouse=True)
def nothing_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BROKER", "KEY", "SERVER_KEY", "REQUIRE_ENCRYPTION"):
        monkeypatch.delenv(f"MAJORDOMUS_{name}", raising=False)
    monkeypatch.setattr(credentials, "_warned", set())


@pytest.fixture
def pair() -> Certificate:
    return curve.make()


@pytest.mark.parametrize("kind", PLACES)
def test_client_or_worker_without_an_endpoint_reads_the_variable(
    kind: type[Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kind().endpoints == [endpoints.DEFAULT]
    monkeypatch.setenv("MAJORDOMUS_BROKER", "tcp://10.0.0.1:5555, tcp://10.0.0.2:5555")
    assert kind().endpoints == ["tcp://10.0.0.1:5555", "tcp://10.0.0.2:5555"]
    assert kind("tcp://127.0.0.1:7").endpoints == ["tcp://127.0.0.1:7"]
    monkeypatch.setenv("MAJORDOMUS_BROKER", " ")
    assert kind().endpoints == [endpoints.DEFAULT]


def test_handler_of_the_cloud_logger_without_an_endpoint_reads_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MAJORDOMUS_BROKER", "tcp://nowhere")
    with pytest.raises(ConfigurationError, match="MAJORDOMUS_BROKER: 'tcp://nowhere'"):
        CloudLogHandler()
    CloudLogHandler("tcp://127.0.0.1:7").close()


def test_client_and_worker_reach_an_encrypted_broker_by_variables_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pair: Certificate
) -> None:
    """The endpoint, the broker's key and the own pair: the broker knows the user by it."""
    named = Certificate(pair.public, pair.secret, {"name": "ann", "user": "ann"})
    public, secret = certificates.write(tmp_path / "ann", named)
    (tmp_path / "keys").mkdir()
    public = public.rename(tmp_path / "keys" / public.name)
    with Broker(bind=["tcp://127.0.0.1:0"], curve=SERVER, clients=public.parent) as broker:
        monkeypatch.setenv("MAJORDOMUS_BROKER", broker.endpoints[0])
        monkeypatch.setenv("MAJORDOMUS_SERVER_KEY", SERVER.public)
        monkeypatch.setenv("MAJORDOMUS_KEY", str(secret))
        worker = Worker()

        @worker.service("whoami")
        def whoami(request: Request) -> str:
            return request.user

        with worker, Client(timeout=10) as client:
            assert client.call("whoami").text == "ann"


def test_given_arguments_win_over_the_variables(
    monkeypatch: pytest.MonkeyPatch, pair: Certificate
) -> None:
    other = curve.make().public
    monkeypatch.setenv("MAJORDOMUS_BROKER", "tcp://10.0.0.1:5555")
    monkeypatch.setenv("MAJORDOMUS_SERVER_KEY", SERVER.public)
    monkeypatch.setenv("MAJORDOMUS_KEY", "/nowhere/at.all")
    assert Access("tcp://127.0.0.1:7").keys("tcp://127.0.0.1:7") is None
    access = Access(None, other, pair)
    assert access._keys == {"tcp://10.0.0.1:5555": other}
    assert access._pair == pair
    password = Access(None, plain=("ann", "x"))
    assert password._keys == {}
    with pytest.raises(ConfigurationError, match=r"/nowhere/at\.all"):
        Access(None)


def test_wrong_server_key_of_the_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAJORDOMUS_SERVER_KEY", "short")
    with pytest.raises(ConfigurationError, match="MAJORDOMUS_SERVER_KEY"):
        Client()


@pytest.mark.parametrize("kind", [*PLACES, CloudLogHandler])
def test_certificate_for_an_unencrypted_endpoint_is_logged_once_and_not_used(
    kind: type[Client], pair: Certificate, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        made = kind("tcp://127.0.0.1:7", certificate=pair)
        if isinstance(made, CloudLogHandler):
            made.close()
    text = (
        "the connection to tcp://127.0.0.1:7 is not encrypted, and the certificate is not used: "
        "give the broker's public key (server_key=…, --server-key KEY) or leave the certificate out"
    )
    assert [(one.levelname, one.getMessage()) for one in caplog.records] == [("WARNING", text)]


def test_loopback_test_with_a_certificate_gets_its_answer(pair: Certificate) -> None:
    with Broker(bind=["tcp://127.0.0.1:0"]) as broker:
        worker = Worker(broker.endpoints[0], certificate=pair)

        @worker.service("echo")
        def echo(request: Request) -> bytes:
            return request.body

        with worker, Client(broker.endpoints[0], certificate=pair, timeout=10) as client:
            assert client.call("echo", b"x").body == b"x"


@pytest.mark.parametrize("kind", [*PLACES, CloudLogHandler])
def test_endpoint_without_a_key_is_an_error_where_encryption_is_required(
    kind: type[Client],
    pair: Certificate,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wanted = r"tcp://127.0.0.1:7 is not encrypted, and must be: give its public key \(server_key=…"
    with pytest.raises(ConfigurationError, match=wanted):
        kind("tcp://127.0.0.1:7", certificate=pair, require_encryption=True)
    with pytest.raises(ConfigurationError, match=wanted):
        kind("tcp://127.0.0.1:7", require_encryption=True)
    monkeypatch.setenv("MAJORDOMUS_REQUIRE_ENCRYPTION", "1")
    with pytest.raises(ConfigurationError, match=wanted):
        kind("tcp://127.0.0.1:7", certificate=pair)
    assert caplog.records == []


@pytest.mark.parametrize("value", ["", "0", "false", "No"])
def test_variable_that_is_off_requires_no_encryption(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAJORDOMUS_REQUIRE_ENCRYPTION", value)
    Access("tcp://127.0.0.1:7")


def test_endpoints_with_keys_and_those_within_the_machine_pass_where_encryption_is_required(
    caplog: pytest.LogCaptureFixture,
) -> None:
    Access(["tcp://127.0.0.1:7", "ipc:///x"], SERVER.public, require_encryption=True)
    Access(["inproc://x", "ipc:///x"], require_encryption=True)
    assert caplog.records == []

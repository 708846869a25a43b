"""A running broker with access rules: live traffic ends within a second of a change, and an
invalid file changes nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from majordomus.errors import ConfigurationError, StatusError
from majordomus.net.broker.broker import Broker
from majordomus.net.client.client import Client
from majordomus.net.worker.worker import Worker
from majordomus.protocol import metadata, spec
from tests.net.conftest import QUICK, RawPeer, eventually

Peers = Callable[[str], RawPeer]
ALL = "[[rule]]\nallow = ['call', 'serve', 'manage']\n"
NO_CALL = "[[rule]]\nallow = ['serve']\n"
NO_SERVE = "[[rule]]\nallow = ['call']\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rights.toml"
    path.write_text(ALL)
    return path


@pytest.fixture
def broker(file: Path) -> Iterator[Broker]:
    settings = msgspec.structs.replace(QUICK, acl=str(file))
    with Broker(settings, bind="tcp://127.0.0.1:0") as running:
        yield running


def status(client: Client) -> int:
    try:
        client.call("echo", b"x", timeout=3)
    except StatusError as error:
        return error.status
    return 200


def test_call_is_refused_within_a_second_of_the_change(broker: Broker, file: Path) -> None:
    worker = Worker(broker.endpoints[0])
    worker.service("echo")(lambda request: request.body)
    with worker, Client(broker.endpoints[0]) as client:
        assert status(client) == 200
        file.write_text(NO_CALL)
        changed = time.monotonic()
        eventually(lambda: status(client) == 401, within=5)
        assert time.monotonic() - changed < 2, "a second, and what a loaded machine takes"
        file.write_text(ALL)
        eventually(lambda: status(client) == 200, within=5)


def test_service_is_withdrawn_within_a_second_of_the_change(
    broker: Broker, file: Path, peers: Peers
) -> None:
    worker, client = peers(broker.endpoints[0]), peers(broker.endpoints[0])
    worker.ready(b"echo")
    file.write_text(NO_SERVE)
    header, _ = worker.receive(5)
    assert header[0] == spec.DISCONNECT
    told = metadata.unpack(header[7])
    text = "authenticate first: anonymous peers may not serve 'echo'"
    assert told == {"status": 401, "reason": text}
    client.request(b"echo", flags=spec.FAIL_FAST)
    header, _ = client.receive()
    assert (header[0], header[2]) == (spec.FINAL, 503)


def test_invalid_file_keeps_the_old_rules_and_is_logged(
    broker: Broker, file: Path, peers: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "majordomus.broker"):
        file.write_text("[[rule]]\nallow = ['fly']\n")
        eventually(lambda: "stay as they were" in caplog.text, within=5)
        assert "rule 1: unknown action 'fly'" in caplog.text
        peers(broker.endpoints[0]).ready(b"echo")
        file.write_text(ALL + "\n")
        eventually(lambda: "hold from now on" in caplog.text, within=5)


def test_broker_does_not_start_without_its_rules(file: Path) -> None:
    file.write_text("[[rule]]\n")
    settings = msgspec.structs.replace(QUICK, acl=str(file))
    with pytest.raises(ConfigurationError, match="rule 1: write either allow"):
        Broker(settings, bind="tcp://127.0.0.1:0").start()


def test_refusals_are_logged_one_line_each_and_hold_no_body(
    broker: Broker, file: Path, peers: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "majordomus"):
        file.write_text(NO_CALL)
        eventually(lambda: "hold from now on" in caplog.text, within=5)
        client = peers(broker.endpoints[0])
        client.request(b"echo\n", b"the secret body")
        assert client.receive()[0][2] == 401
        eventually(lambda: "not-allowed" in caplog.text)
    (line,) = [r.getMessage() for r in caplog.records if "not-allowed" in r.getMessage()]
    assert "action=call" in line and 'why="no rule allows it"' in line and "\n" not in line
    assert "the secret body" not in caplog.text


def test_refused_worker_logs_the_reason_in_one_line(
    broker: Broker, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text(NO_SERVE)
    worker = Worker(broker.endpoints[0])
    worker.service("echo")(lambda request: request.body)
    with caplog.at_level(logging.WARNING, "majordomus.worker"), worker:
        eventually(lambda: "has disconnected this worker" in caplog.text, within=10)
        eventually(lambda: not worker.ready, within=10)
    lines = [
        r.getMessage() for r in caplog.records if "has disconnected this worker" in r.getMessage()
    ]
    text = (
        "has disconnected this worker: 401 authenticate first: anonymous peers may not serve 'echo'"
    )
    assert lines == [f"{broker.endpoints[0]} {text}"]

"""Scripts with npm's zeromq 6.8.0 as clients and workers of our broker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from majordomus import Broker, BrokerSettings
from tests.acceptance.conftest import wait_for_service
from tests.peers.process import NODE, node, run, running
from tests.peers.table import CLIENTS, WORKERS

PARTS = [["70617274", "31"], ["70617274", "32"]]  # "part", "1" and so on, in hex
END = ["656e64"]

any_worker = pytest.mark.parametrize("worker", WORKERS)
any_client = pytest.mark.parametrize("client", CLIENTS)


def call(script: str, *args: str) -> list[dict[str, Any]]:
    options = [arg for arg in args if arg.startswith("--")]
    rest = [arg for arg in args if not arg.startswith("--")]
    return [json.loads(line) for line in run(node(), str(NODE / script), *options, *rest)]


@any_worker
@pytest.mark.parametrize("script", ["mdp01-client.js", "mdp02-client.js", "mdp03-client.js"])
def test_node_client_is_answered_by_a_worker_of_any_dialect(
    workers: str, script: str, worker: str
) -> None:
    lines = call(script, workers, f"echo-{worker}", "hello", "", "!")
    assert [line["final"] for line in lines] == [["68656c6c6f", "", "21"]]


@any_worker
def test_node_req_socket_with_correlate_is_answered(workers: str, worker: str) -> None:
    lines = call("mdp01-client.js", "--correlate", workers, f"echo-{worker}", "hello")
    assert lines == [{"final": ["68656c6c6f"]}]


@pytest.mark.parametrize("script", ["mdp02-client.js", "mdp03-client.js"])
def test_node_client_gets_a_stream_part_by_part(workers: str, script: str) -> None:
    lines = call(script, workers, "parts-mdp02", "1", "2")
    assert [line.get("partial") for line in lines] == [*PARTS, None]
    assert lines[-1]["final"] == END


@any_client
@pytest.mark.parametrize("script", ["mdp02-worker.js", "mdp03-worker.js"])
def test_node_worker_answers_a_client_of_any_dialect(
    endpoint: str, script: str, client: str
) -> None:
    service = f"{script}-for-{client}".encode()
    with running(node(), str(NODE / script), endpoint, service.decode()):
        wait_for_service(endpoint, service)
        with CLIENTS[client](endpoint) as peer:
            for body in ([b"one"], [b"", b"two", b""]):
                assert peer.call(service, body).final == body


@pytest.mark.parametrize("script", ["mdp02-worker.js", "mdp03-worker.js"])
def test_node_worker_streams_parts(endpoint: str, script: str) -> None:
    service = f"{script}-parts".encode()
    with running(node(), str(NODE / script), endpoint, service.decode(), "parts"):
        wait_for_service(endpoint, service)
        with CLIENTS["mdp02"](endpoint) as peer:
            answer = peer.call(service, [b"1", b"2", b"3"])
    assert answer == ([[b"1"], [b"2"], [b"3"]], [b"end"])


def test_node_worker_registers_again_after_a_restart_of_the_broker(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/broker"
    argv = (node(), str(NODE / "mdp03-worker.js"), endpoint, "back")
    with running(*argv, ready="") as program:
        for _ in range(2):
            with Broker(BrokerSettings(), bind=endpoint):
                wait_for_service(endpoint, b"back")
                assert program.stdout is not None
                assert program.stdout.readline() == "ready\n"

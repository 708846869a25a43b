"""Every client dialect calls every worker dialect through one broker.

Clients are raw sockets in this process, workers raw sockets in processes of their own.
docs/spec/mdp-0.2.md: 'An empty body is sent as one empty frame, and a body of no frames is accepted
from a peer' holds for the four legacy dialects; MDP/0.3 keeps the difference.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from majordomus import Broker, BrokerSettings
from tests.acceptance.conftest import wait_for_service
from tests.peers.process import PYTHON, running
from tests.peers.table import CLIENTS, WORKERS

JOINING = ("mdp01", "delphi")  # "the parts are joined (their frames concatenated in order)"
STREAMING = tuple(dialect for dialect in WORKERS if dialect not in JOINING)
BODIES = {
    "one frame": [b"hello"],
    "an empty frame": [b""],
    "several frames": [b"", b"a", b"", b"\x00\xff MDPC01", b""],
    "sixty-five thousand bytes": [b"x" * 65_536],
}

clients = pytest.mark.parametrize("client", CLIENTS)
any_worker = pytest.mark.parametrize("worker", WORKERS)
streaming_worker = pytest.mark.parametrize("worker", STREAMING)


def empty(dialect: str) -> list[bytes]:
    """A body of no frames as a peer of this dialect sees it."""
    return [] if dialect == "mdp03" else [b""]


@clients
@any_worker
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_client_receives_exactly_the_frames_that_it_sent_to_an_echo(
    workers: str, client: str, worker: str, body: list[bytes]
) -> None:
    with CLIENTS[client](workers) as peer:
        answer = peer.call(b"echo-" + worker.encode(), body)
    assert answer.partials == []
    assert answer.final == body


@clients
@any_worker
def test_worker_receives_an_empty_body_in_the_form_of_its_dialect(
    workers: str, client: str, worker: str
) -> None:
    with CLIENTS[client](workers) as peer:
        answer = peer.call(b"seen-" + worker.encode(), [])
    frames = empty(worker)
    assert answer.final == [b"%d" % len(frames), *frames]


@clients
@any_worker
def test_client_receives_an_empty_reply_in_the_form_of_its_dialect(
    workers: str, client: str, worker: str
) -> None:
    with CLIENTS[client](workers) as peer:
        assert peer.call(b"void-" + worker.encode(), [b"x"]).final == empty(client)


@clients
@streaming_worker
def test_client_gets_the_parts_of_a_stream_in_order(workers: str, client: str, worker: str) -> None:
    with CLIENTS[client](workers) as peer:
        answer = peer.call(b"parts-" + worker.encode(), [b"1", b"", b"3"])
    parts = [[b"part", b"1"], [b"part", b""], [b"part", b"3"]]
    if client in JOINING:
        assert answer == ([], [*parts[0], *parts[1], *parts[2], b"end"])
    else:
        assert answer == (parts, [b"end"])


@clients
@any_worker
def test_client_makes_several_calls_over_one_connection(
    workers: str, client: str, worker: str
) -> None:
    with CLIENTS[client](workers) as peer:
        for number in range(20):
            body = [b"%d" % number]
            assert peer.call(b"echo-" + worker.encode(), body).final == body


@clients
def test_management_interface_answers_every_dialect(workers: str, client: str) -> None:
    with CLIENTS[client](workers) as peer:
        assert peer.call(b"mmi.service", [b"echo-mdp01"]).final[0] == b"200"
        assert peer.call(b"mmi.service", [b"nobody"]).final[0] == b"404"
        assert peer.call(b"mmi.nothing", [b""]).final[0] == b"501"


def test_workers_of_every_dialect_register_again_after_a_restart_of_the_broker(
    tmp_path: Path,
) -> None:
    endpoint = f"ipc://{tmp_path}/broker"
    services = {dialect: f"here-{dialect}".encode() for dialect in WORKERS}
    with ExitStack() as processes:
        for dialect, service in services.items():
            served = f"{service.decode()}=echo"
            argv = (*PYTHON, "tests.peers.serve", dialect, endpoint, served)
            processes.enter_context(running(*argv))
        for _ in range(2):
            with Broker(BrokerSettings(), bind=endpoint):
                for dialect, service in services.items():
                    wait_for_service(endpoint, service)
                    with CLIENTS[dialect](endpoint) as peer:
                        assert peer.call(service, [b"x"]).final == [b"x"]

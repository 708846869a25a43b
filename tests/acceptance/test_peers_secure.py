"""Peers of other projects that present a key or a password, over TCP and ipc.

They are pyzmq's libzmq, npm's zeromq, and CZMQ with the system's libzmq; and JeroMQ, whose Debian
package has the mechanism NULL alone.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
import zmq

from majordomus import Broker, BrokerSettings, Client, Worker
from majordomus.net.broker.security import curve
from majordomus.protocol import mdp03, spec
from majordomus.security import certificates, passwords
from tests.peers.built import czmq, jeromq
from tests.peers.process import NODE, node, run, running

BODY = ["hello", "", "x" * 300, "y" * 70_000]
SERVER = curve.make()
PEER = curve.make({"user": "peer"})
KEYS = {"SERVER_KEY": SERVER.public, "PUBLIC_KEY": PEER.public, "SECRET_KEY": PEER.secret}
PASSWORD = {"PLAIN_USER": "peer", "PLAIN_PASSWORD": "correct horse"}


class Place(NamedTuple):
    """A broker with a worker of ours that serves `echo`.

    environment: what peers of other projects present.
    """

    url: str
    environment: dict[str, str]
    client: Client


def started(stack: ExitStack, folder: Path, mechanism: str, transport: str) -> Place:
    bind = "tcp://127.0.0.1:0" if transport == "tcp" else f"ipc://{folder}/broker"
    environment: dict[str, str] = {}
    key = ""
    password = None
    if mechanism == "CURVE":
        (folder / "clients").mkdir()
        certificates.write(folder / "clients" / "peer", PEER)
        broker = Broker(BrokerSettings(), bind=bind, curve=SERVER, clients=folder / "clients")
        environment, key = KEYS, SERVER.public
    elif mechanism == "PLAIN":
        passwords.store(folder / "passwords", "peer", passwords.hashed("correct horse"))
        broker = Broker(BrokerSettings(), bind=bind, passwords=folder / "passwords")
        environment, password = PASSWORD, ("peer", "correct horse")
    else:
        broker = Broker(BrokerSettings(), bind=bind)
    stack.enter_context(broker)
    (url,) = broker.endpoints
    pair = PEER if key else None
    worker = Worker(url, server_key=key, certificate=pair, plain=password)
    worker.service("echo")(lambda request: request.frames)
    stack.enter_context(worker)
    client = Client(url, server_key=key, certificate=pair, plain=password, timeout=20.0)
    return Place(url, environment, stack.enter_context(client))


@pytest.fixture(
    scope="module",
    params=[
        ("CURVE", "tcp"),
        ("CURVE", "ipc"),
        ("PLAIN", "tcp"),
        ("PLAIN", "ipc"),
        ("NULL", "ipc"),
    ],
    ids=" ".join,
)
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    with pytest.MonkeyPatch.context() as patched, ExitStack() as stack:
        patched.setattr(passwords, "N", 16)
        yield started(stack, tmp_path_factory.mktemp("place"), *request.param)


def secured(socket: zmq.Socket[bytes], place: Place) -> zmq.Socket[bytes]:
    names = {
        "SERVER_KEY": zmq.CURVE_SERVERKEY,
        "PUBLIC_KEY": zmq.CURVE_PUBLICKEY,
        "SECRET_KEY": zmq.CURVE_SECRETKEY,
        "PLAIN_USER": zmq.PLAIN_USERNAME,
        "PLAIN_PASSWORD": zmq.PLAIN_PASSWORD,
    }
    for name, value in place.environment.items():
        socket.setsockopt(names[name], value.encode())
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RCVTIMEO, 20_000)
    socket.connect(place.url)
    return socket


def wait_for(place: Place, service: str) -> None:
    until = time.monotonic() + 20.0
    while place.client.call("mmi.service", service).frames[0] != b"200":
        assert time.monotonic() < until, f"no worker for {service}"
        time.sleep(0.02)


def test_socket_of_libzmq_calls_a_worker(place: Place) -> None:
    with secured(zmq.Context.instance().socket(zmq.DEALER), place) as socket:
        for n in range(1, 200):
            header = mdp03.pack(spec.REQUEST, id=n, ttl=20_000, service=b"echo")
            socket.send_multipart([header, *(text.encode() for text in BODY)])
        for n in range(1, 200):
            head, *frames = socket.recv_multipart()
            parsed = mdp03.parse(head)
            assert (parsed.command, parsed.code, parsed.id) == (spec.FINAL, 200, n)
            assert [frame.decode() for frame in frames] == BODY


def test_client_of_node_calls_a_worker(place: Place) -> None:
    lines = run(
        *(node(), str(NODE / "mdp03-client.js"), place.url, "echo", *BODY),
        environment=place.environment,
    )
    assert json.loads(lines[0])["final"] == [text.encode().hex() for text in BODY]


def test_worker_of_node_is_called(place: Place) -> None:
    argv = (node(), str(NODE / "mdp03-worker.js"), place.url, "of-node")
    with running(*argv, environment=place.environment):
        wait_for(place, "of-node")
        sent = [text.encode() for text in BODY]
        assert list(place.client.call("of-node", sent).frames) == sent


def test_client_of_czmq_calls_a_worker(place: Place) -> None:
    lines = run(*czmq(), "client", place.url, "echo", *BODY, environment=place.environment)
    assert lines == BODY


def test_worker_of_czmq_is_called(place: Place) -> None:
    argv = (*czmq(), "worker", place.url, "of-czmq")
    with running(*argv, environment=place.environment):
        wait_for(place, "of-czmq")
        sent = [text.encode() for text in BODY]
        assert list(place.client.call("of-czmq", sent).frames) == sent


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A broker on TCP without keys: JeroMQ's ipc is not that of the system."""
    with ExitStack() as stack:
        yield started(stack, tmp_path_factory.mktemp("place"), "NULL", "tcp")


def test_client_of_jeromq_calls_a_worker(plain: Place) -> None:
    assert run(*jeromq(), "client", plain.url, "echo", *BODY, timeout=60) == BODY


def test_worker_of_jeromq_is_called(plain: Place) -> None:
    with running(*jeromq(), "worker", plain.url, "of-jeromq"):
        wait_for(plain, "of-jeromq")
        sent = [text.encode() for text in BODY]
        assert list(plain.client.call("of-jeromq", sent).frames) == sent


def test_ci_has_every_peer() -> None:
    if os.environ.get("REAL_PARTS") == "required":
        assert czmq()
        assert jeromq()
        assert node()

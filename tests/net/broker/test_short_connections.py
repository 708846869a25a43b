"""Many clients, each with one call over a connection of its own: descriptors are used again."""

from __future__ import annotations

import zmq

from majordomus.net.worker.worker import Worker
from tests.net.conftest import eventually

CLIENTS = 1000


def test_end_of_a_connection_is_not_taken_for_that_of_the_next_one(url: str) -> None:
    worker = Worker(url)
    worker.add("echo", lambda request: request.body)
    with worker:
        eventually(lambda: worker.ready)
        answered = [_ask(url, b"%d" % number) for number in range(CLIENTS)]
    assert answered == [[b"MDPC02", b"\x03", b"echo", b"%d" % number] for number in range(CLIENTS)]


def _ask(url: str, body: bytes) -> list[bytes]:
    """One MDP/0.2 call. Such a client cannot be probed: it is forgotten with its connection."""
    with zmq.Context.instance().socket(zmq.DEALER) as client:
        client.linger = 0
        client.connect(url)
        client.send_multipart([b"MDPC02", b"\x01", b"echo", body])
        return client.recv_multipart() if client.poll(1000) else []

"""Requests with an envelope, from correlating REQ sockets and from a proxy before the broker."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import zmq

from tests.peers.rfc import Mdp01ReqClient
from tests.peers.table import CLIENTS, WORKERS

any_worker = pytest.mark.parametrize("worker", WORKERS)


@any_worker
@pytest.mark.parametrize("correlate", [False, True], ids=["plain", "correlating"])
def test_req_socket_is_answered(workers: str, worker: str, correlate: bool) -> None:
    service = b"echo-" + worker.encode()
    with Mdp01ReqClient(workers, correlate) as peer:
        for body in ([b"one"], [b"", b"two", b""]):
            assert peer.call(service, body).final == body


def test_correlating_req_socket_gets_the_answer_to_its_last_request_only(workers: str) -> None:
    with Mdp01ReqClient(workers, correlate=True) as peer:
        peer.send([b"MDPC01", b"echo-mdp03", b"forgotten"])
        assert peer.call(b"echo-mdp01", [b"asked"]).final == [b"asked"]


def test_joined_parts_are_sent_with_the_envelope_of_the_request(workers: str) -> None:
    with Mdp01ReqClient(workers, correlate=True) as peer:
        final = peer.call(b"parts-mdp02", [b"1", b"2"]).final
    assert final == [b"part", b"1", b"part", b"2", b"end"]


@pytest.fixture
def proxy(workers: str) -> Iterator[str]:
    """The endpoint of a libzmq proxy (ROUTER to DEALER) in front of the broker."""
    context = zmq.Context()
    front, back = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    control, handle = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    control.bind("inproc://control")
    handle.connect("inproc://control")
    port = front.bind_to_random_port("tcp://127.0.0.1")
    back.connect(workers)
    thread = threading.Thread(target=zmq.proxy_steerable, args=(front, back, None, control))
    thread.start()
    yield f"tcp://127.0.0.1:{port}"
    handle.send(b"TERMINATE")
    thread.join(5.0)
    for socket in (front, back, control, handle):
        socket.close(0)
    context.term()


@any_worker
@pytest.mark.parametrize("client", CLIENTS)
def test_clients_of_one_dialect_behind_a_proxy_get_their_own_answers(
    proxy: str, client: str, worker: str
) -> None:
    service = b"echo-" + worker.encode()
    with CLIENTS[client](proxy) as one, CLIENTS[client](proxy) as other:
        for number in range(5):
            assert one.call(service, [b"one", b"%d" % number]).final == [b"one", b"%d" % number]
            assert other.call(service, [b"other"]).final == [b"other"]


@pytest.mark.parametrize("worker", WORKERS)
def test_worker_behind_a_proxy_gets_disconnect(proxy: str, worker: str) -> None:
    peer = WORKERS[worker](proxy, b"behind-a-proxy", lambda body: [body])
    try:
        assert peer.socket.poll(5000)
        peer.receive()
        assert (
            peer.registrations == 2
        )  # the broker sent DISCONNECT, and the worker registered again
    finally:
        peer.close()

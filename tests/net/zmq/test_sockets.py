"""Sockets are made in one place: routing ids, binding, and the message that explains what cannot be
bound.
"""

from __future__ import annotations

import atexit
import ctypes
import subprocess
import sys
from pathlib import Path

import pytest
import zmq

from majordomus.errors import ConfigurationError
from majordomus.net.zmq import sockets


def test_routing_id_is_sixteen_bytes_whose_first_is_not_zero_and_never_the_same() -> None:
    made = {sockets.routing_id() for _ in range(5000)}
    assert len(made) == 5000
    assert {len(id) for id in made} == {16}
    assert len({id[0] for id in made}) > 200
    assert all(id[0] for id in made)


def test_bound_endpoint_is_the_real_one(tmp_path: Path) -> None:
    with sockets.router(1000, 10) as router:
        tcp = sockets.bind(router, "tcp://127.0.0.1:*")
        assert tcp.startswith("tcp://127.0.0.1:")
        assert int(tcp.rpartition(":")[2]) > 0
        assert sockets.bind(router, f"ipc://{tmp_path / 's'}") == f"ipc://{tmp_path / 's'}"
        assert sockets.bind(router, "inproc://bound") == "inproc://bound"


def test_program_that_closes_its_socket_and_ends_has_sent_its_message() -> None:
    program = (
        "import sys\n"
        "from majordomus.net.zmq import sockets\n"
        "dealer = sockets.dealer()\n"
        "dealer.connect(sys.argv[1])\n"
        "dealer.send(b'last')\n"
        "dealer.close()\n"
    )
    with sockets.router(1000, 10) as router:
        url = sockets.bind(router, "tcp://127.0.0.1:*")
        command = [sys.executable, "-c", program, url]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=20)
        assert router.poll(5000)
        assert router.recv_multipart()[1:] == [b"last"]
    assert done.stderr == ""


@pytest.mark.parametrize("error", [OSError, TypeError])  # TypeError: on Windows
def test_system_whose_libc_cannot_be_loaded_has_sockets(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def refuse(_: object) -> None:
        raise error

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    monkeypatch.setattr(sockets, "_prepared_for", 0)
    monkeypatch.setattr(atexit, "register", lambda *_: None)
    sockets.dealer().close()


def test_taken_endpoint_is_named_in_the_error() -> None:
    with sockets.router(1000, 10) as one, sockets.router(1000, 10) as two:
        url = sockets.bind(one, "tcp://127.0.0.1:*")
        with pytest.raises(ConfigurationError, match=f"cannot bind {url}: Address already in use"):
            sockets.bind(two, url)


def test_ipc_path_of_a_running_broker_cannot_be_bound(tmp_path: Path) -> None:
    url = f"ipc://{tmp_path / 's'}"
    with sockets.router(1000, 10) as one, sockets.router(1000, 10) as two:
        sockets.bind(one, url)
        with pytest.raises(ConfigurationError, match="another process listens there"):
            sockets.bind(two, url)


def test_ipc_path_that_a_dead_broker_left_behind_is_bound(tmp_path: Path) -> None:
    path = tmp_path / "s"
    leave = (
        f"import os, zmq; s = zmq.Context().socket(zmq.ROUTER); s.bind('ipc://{path}'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", leave], check=True)
    assert path.exists()
    with sockets.router(1000, 10) as router:
        assert sockets.bind(router, f"ipc://{path}") == f"ipc://{path}"


def test_router_refuses_instead_of_dropping_and_routing_ids_cannot_be_taken_over() -> None:
    with sockets.router(1000, 77) as router:
        assert router.getsockopt(zmq.SNDHWM) == 77
        assert router.getsockopt(zmq.MAXMSGSIZE) == 2000
        assert router.getsockopt(zmq.LINGER) == sockets.LINGER
        assert router.getsockopt(zmq.HANDSHAKE_IVL) == 3000
        kept_alive = {option: router.getsockopt(option) for option in sockets.KEEPALIVE}
        assert kept_alive == sockets.KEEPALIVE
        assert router.getsockopt(zmq.HEARTBEAT_IVL) == 0
        with pytest.raises(zmq.ZMQError):
            router.send_multipart([b"nobody", b""], zmq.NOBLOCK)


AUTOMATIC_ID = """
import zmq
from majordomus.net.zmq import sockets
router = sockets.router(1000, 10)
url = sockets.bind(router, "inproc://x")
peer = sockets.context().socket(zmq.DEALER)
peer.connect(url)
peer.send(b"")
print(router.recv().hex())
peer.close(); router.close()
"""


def test_automatic_routing_ids_differ_from_process_to_process() -> None:
    ids = {
        subprocess.run([sys.executable, "-c", AUTOMATIC_ID], check=True, capture_output=True).stdout
        for _ in range(4)
    }
    assert len(ids) == 4


LAST_WORDS = """
import sys
from majordomus.net.zmq import sockets
dealer = sockets.dealer()
sockets.connect(dealer, sys.argv[1])
for number in range(200):
    dealer.send(b"%d" % number)
dealer.close()
"""


def test_messages_sent_before_the_process_ended_arrive() -> None:
    with sockets.router(1 << 20, 1000) as router:
        url = sockets.bind(router, "tcp://127.0.0.1:*")
        subprocess.run([sys.executable, "-W", "error", "-c", LAST_WORDS, url], check=True)
        received = []
        while router.poll(500):
            received.append(int(router.recv_multipart()[1]))
        assert received == list(range(200))

"""A broker of MDP/0.1 (RFC 7) with mmi.service (RFC 8), in raw frames with pyzmq alone and none of
our code: one request per worker, workers in the order in which they became free."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque

import zmq

READY, REQUEST, REPLY, HEARTBEAT, DISCONNECT = b"\1", b"\2", b"\3", b"\4", b"\5"
INTERVAL = 1.0


class Mdp01Broker:
    """Serves in the thread that calls `run`, until `stop`."""

    def __init__(self) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self.url = f"tcp://127.0.0.1:{self._socket.bind_to_random_port('tcp://127.0.0.1')}"
        self._workers: dict[bytes, bytes] = {}
        self._heard: dict[bytes, float] = {}
        self._free: dict[bytes, deque[bytes]] = defaultdict(deque)
        self._requests: dict[bytes, deque[list[bytes]]] = defaultdict(deque)
        self._stopped, self._ended = threading.Event(), threading.Event()
        self._expires, self._expired = threading.Event(), threading.Event()

    def run(self) -> None:
        beat_at = 0.0
        while not self._stopped.is_set():
            if self._socket.poll(50):
                self._receive(self._socket.recv_multipart())
            if self._expires.is_set():
                for worker in list(self._workers):
                    self._lose(worker)
                self._expires.clear()
                self._expired.set()
            if time.monotonic() >= beat_at:
                beat_at = time.monotonic() + INTERVAL
                self._beat()
        self._ended.set()

    def expire_workers(self) -> None:
        """Forget all workers, as when none of them has sent a heartbeat."""
        self._expired.clear()
        self._expires.set()
        self._expired.wait(5)

    def stop(self) -> None:
        self._stopped.set()
        self._ended.wait(5)

    def close(self) -> None:
        self._context.destroy(linger=0)

    def _receive(self, frames: list[bytes]) -> None:
        sender, empty, header, *rest = frames
        if empty or header not in (b"MDPC01", b"MDPW01"):
            return
        if header == b"MDPC01":
            self._client(sender, rest[0], rest[1:])
        else:
            self._worker(sender, rest[0], rest[1:])

    def _client(self, client: bytes, service: bytes, body: list[bytes]) -> None:
        if service == b"mmi.service":
            found = any(name == body[0] for name in self._workers.values())
            answer = b"200" if found else b"404"
            self._socket.send_multipart([client, b"", b"MDPC01", service, answer])
            return
        self._requests[service].append([client, b"", *body])
        self._dispatch(service)

    def _worker(self, worker: bytes, command: bytes, rest: list[bytes]) -> None:
        self._heard[worker] = time.monotonic()
        if command == READY:
            self._workers[worker] = rest[0]
            self._free[rest[0]].append(worker)
            self._dispatch(rest[0])
        elif command == REPLY and worker in self._workers:
            service = self._workers[worker]
            client, _, *body = rest
            self._socket.send_multipart([client, b"", b"MDPC01", service, *body])
            self._free[service].append(worker)
            self._dispatch(service)
        elif command == DISCONNECT:
            self._lose(worker)

    def _dispatch(self, service: bytes) -> None:
        free, requests = self._free[service], self._requests[service]
        while free and requests:
            message = requests.popleft()
            self._socket.send_multipart([free.popleft(), b"", b"MDPW01", REQUEST, *message])

    def _beat(self) -> None:
        for worker in list(self._workers):
            if time.monotonic() - self._heard[worker] > 4 * INTERVAL:
                self._lose(worker)
            else:
                self._socket.send_multipart([worker, b"", b"MDPW01", HEARTBEAT])

    def _lose(self, worker: bytes) -> None:
        service = self._workers.pop(worker, None)
        if service is not None and worker in self._free[service]:
            self._free[service].remove(worker)

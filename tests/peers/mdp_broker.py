"""A broker of MDP/0.1 (RFC 7) or 0.2 (RFC 18) with mmi.service (RFC 8), in raw frames with pyzmq
alone and none of our code: one request per worker, workers in the order in which they became free.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque

import zmq

READY, REQUEST = b"\1", b"\2"
INTERVAL = 1.0


class Mdp01Broker:
    """Serves in the thread that calls `run`, until `stop`."""

    ASKED, ANSWERED, WORKS = [b"", b"MDPC01"], [b"", b"MDPC01"], [b"", b"MDPW01"]
    """The frames before the name of the service in a request and in its answer, and those before
    the command of a worker."""
    REPLY, HEARTBEAT, DISCONNECT = b"\3", b"\4", b"\5"

    def __init__(self, port: int = 0) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.bind(f"tcp://127.0.0.1:{port or '*'}")
        self.url = self._socket.last_endpoint.decode()
        self._workers: dict[bytes, bytes] = {}
        self._heard: dict[bytes, float] = {}
        self._free: dict[bytes, deque[bytes]] = defaultdict(deque)
        self._requests: dict[bytes, deque[list[bytes]]] = defaultdict(deque)
        self._holds: set[bytes] = set()
        self.held: list[list[bytes]] = []
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

    def hold(self, service: bytes) -> None:
        """Serve `service` as a worker does that takes requests and never answers; `held` has their
        bodies."""
        self._holds.add(service)

    def serves(self, service: bytes) -> bool:
        """Whether a worker has registered `service`."""
        return service in self._holds or service in list(self._workers.values())

    def stop(self) -> None:
        self._stopped.set()
        self._ended.wait(5)

    def close(self) -> None:
        self._context.destroy(linger=0)

    def _receive(self, frames: list[bytes]) -> None:
        sender, *rest = frames
        asked, works = len(self.ASKED), len(self.WORKS)
        if rest[:asked] == self.ASKED:
            self._client(sender, rest[asked], rest[asked + 1 :])
        elif rest[:works] == self.WORKS:
            self._worker(sender, rest[works], rest[works + 1 :])

    def _client(self, client: bytes, service: bytes, body: list[bytes]) -> None:
        if service == b"mmi.service":
            answer = b"200" if self.serves(body[0]) else b"404"
            self._socket.send_multipart([client, *self.ANSWERED, service, answer])
            return
        if service in self._holds:
            self.held.append(body)
            return
        self._requests[service].append([client, b"", *body])
        self._dispatch(service)

    def _worker(self, worker: bytes, command: bytes, rest: list[bytes]) -> None:
        self._heard[worker] = time.monotonic()
        if command == READY:
            self._workers[worker] = rest[0]
            self._free[rest[0]].append(worker)
            self._dispatch(rest[0])
        elif command == self.REPLY and worker in self._workers:
            service = self._workers[worker]
            client, _, *body = rest
            self._socket.send_multipart([client, *self.ANSWERED, service, *body])
            self._free[service].append(worker)
            self._dispatch(service)
        elif command == self.DISCONNECT:
            self._lose(worker)

    def _dispatch(self, service: bytes) -> None:
        free, requests = self._free[service], self._requests[service]
        while free and requests:
            message = requests.popleft()
            self._socket.send_multipart([free.popleft(), *self.WORKS, REQUEST, *message])

    def _beat(self) -> None:
        for worker in list(self._workers):
            if time.monotonic() - self._heard[worker] > 4 * INTERVAL:
                self._lose(worker)
            else:
                self._socket.send_multipart([worker, *self.WORKS, self.HEARTBEAT])

    def _lose(self, worker: bytes) -> None:
        service = self._workers.pop(worker, None)
        if service is not None and worker in self._free[service]:
            self._free[service].remove(worker)


class Mdp02Broker(Mdp01Broker):
    """The same in MDP/0.2; it sends no PARTIAL."""

    ASKED, ANSWERED, WORKS = [b"MDPC02", b"\1"], [b"MDPC02", b"\3"], [b"MDPW02"]
    REPLY, HEARTBEAT, DISCONNECT = b"\4", b"\5", b"\6"

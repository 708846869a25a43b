"""All middleware in a running broker, in one chain."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
from typing import Any

import pytest

from majordomus import Broker, BrokerSettings, Client, Worker
from majordomus.middleware import CircuitBreaker, RateLimit, RequestLog, Shadow, SizeLimit
from tests.net.conftest import RawPeer


def test_chain_of_all_does_what_each_of_them_does(caplog: pytest.LogCaptureFixture) -> None:
    shadowed: list[bytes] = []
    came = threading.Event()
    chain = [
        RequestLog(),
        SizeLimit(100_000, services={"small": 3}),
        RateLimit(0.001, burst=8),
        CircuitBreaker(2, rest=60),
        Shadow("echo", "echo-next"),
    ]
    settings = BrokerSettings(drain_timeout=1.0)
    with Broker(settings, bind="tcp://127.0.0.1:0", middleware=chain) as broker:
        (url,) = broker.endpoints
        worker = Worker(url)
        worker.service("echo")(lambda request: request.frames)

        @worker.service("echo-next")
        def shadow(request: Any) -> None:
            shadowed.append(request.body)
            came.set()

        @worker.service("boom")
        def boom(request: Any) -> None:
            raise ValueError("no")

        peer = RawPeer(url)
        ids = itertools.count(1)

        def status(service: bytes, body: bytes = b"") -> int:
            peer.request(service, body, id=next(ids))
            return peer.receive(10.0)[0][2]

        with (
            caplog.at_level(logging.INFO, "majordomus.requests"),
            contextlib.closing(peer),
            worker,
            Client(url, timeout=10) as client,
        ):
            worker.wait_ready()
            large = bytes(50_000)  # held by the wire, and passed on without a copy
            assert client.call("echo", large).body == large
            assert came.wait(10)
            assert shadowed == [large]
            assert status(b"small", b"four") == 413
            assert [status(b"boom") for _ in range(3)] == [500, 500, 503]
            assert [status(b"echo") for _ in range(6)] == [200] * 5 + [429]
    lines = [r.getMessage() for r in caplog.records if r.name == "majordomus.requests"]
    assert len(lines) == 11
    assert sum("status=200" in line for line in lines) == 6

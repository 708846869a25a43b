"""A call that a handler makes inherits the deadline, the trace and the cancel of its request."""

from __future__ import annotations

import asyncio

import pytest

from majordomus import AsyncClient, Client, DeadlineExceeded, Request, Worker
from majordomus.net.deadline import TRACE, inherited, trace_of
from majordomus.protocol import metadata
from majordomus.testing import TestBroker

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def chain(broker: TestBroker) -> list[str]:
    """Services that call the service `seen`, which notes the trace of its request."""
    traces: list[str] = []
    inner, asynchronous = Client("tcp://127.0.0.1:1"), AsyncClient("tcp://127.0.0.1:1")
    worker = Worker()

    @worker.service("seen")
    def seen(request: Request) -> str:
        traces.append(str(request.metadata.get("trace", "")))
        return ""

    @worker.service("sync")
    def sync(request: Request) -> bytes:
        return inner.call("seen").body

    @worker.service("async")
    async def wait(request: Request) -> bytes:
        await asyncio.sleep(0.01)
        return (await asynchronous.call("seen")).body

    @worker.service("slow")
    async def slow(request: Request) -> bytes:
        return (await asynchronous.call("never", timeout=500)).body

    broker.attach(inner, asynchronous)
    broker.add(worker)
    return traces


@pytest.mark.parametrize("service", ["sync", "async"])
def test_trace_goes_on_and_the_next_request_has_none(test_broker: TestBroker, service: str) -> None:
    traces = chain(test_broker)
    client = test_broker.client()
    client.call(service, metadata={"trace": PARENT})
    client.call(service)
    client.call(service, metadata={"other": 1})
    assert traces == [PARENT, "", ""]
    assert TRACE.get() == ""


def test_deadline_and_cancel_end_the_inner_call(test_broker: TestBroker) -> None:
    chain(test_broker)
    with pytest.raises(DeadlineExceeded):
        test_broker.client().call("slow", timeout=3)
    test_broker.time.advance(1)
    [call] = test_broker.calls_of("never")
    assert call.status in (408, 499, 503)


def test_trace_of_the_call_itself_remains() -> None:
    token = TRACE.set("t1")
    try:
        assert inherited({"trace": "mine"}) == {"trace": "mine"}
        assert inherited({"a": 1}) == {"trace": "t1", "a": 1}
    finally:
        TRACE.reset(token)
    assert inherited(None) is None
    assert trace_of(metadata.pack({"trace": 5})) == ""
    assert trace_of(b"\xa5trace") == ""

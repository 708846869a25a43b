"""The ids of requests in the lines that handlers log, as text and as JSON."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from majordomus.net.client.client import Client
from majordomus.net.deadline import REQUEST, TRACE
from majordomus.net.log_lines import RequestIds, SafeLines
from tests.cli.conftest import broker, shell
from tests.cli.shell import LIMIT, Running, Shell

__all__ = ["broker", "shell"]

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
WORKER = """
import asyncio, logging
from majordomus import Worker

log = logging.getLogger("shop")
worker = Worker()

@worker.service("thread")
def thread(request):
    log.warning("in a thread")
    return request.id

@worker.service("loop")
async def loop(request):
    await asyncio.sleep(0)
    log.warning("on the loop")
    return request.id

@worker.service("parts")
def parts(request):
    log.warning("in parts")
    yield request.id

@worker.service("async-parts")
async def async_parts(request):
    log.warning("in async parts")
    yield request.id

@worker.service("fails")
def fails(request):
    raise ValueError("50 %s")

@worker.on_start
def begin():
    log.warning("no request")
"""


def read_lines(shell: Shell, broker: Running, *flags: str) -> tuple[Running, Client]:
    shell.write("work.py", WORKER)
    running = shell.start("worker", "--broker", broker.url, *flags, "work:worker")
    running.out.until("serving")
    return running, Client(broker.url, timeout=LIMIT)


def test_json_lines_of_a_handler_have_the_ids_that_explain_takes(
    broker: Running, shell: Shell
) -> None:
    running, client = read_lines(shell, broker, "--log-ids", "--log-format", "json")
    line: dict[str, Any] = json.loads(running.err.until("no request"))
    assert "request" not in line and "trace" not in line
    trace = {"trace": f"00-{TRACE_ID}-00f067aa0ba902b7-01"}
    with client:
        for service in ("thread", "loop", "parts", "async-parts"):
            reply = client.call(service, metadata=trace if service != "loop" else None)
            line = json.loads(running.err.next())
            assert line["request"] == reply.text and reply.text.startswith("d")
            assert line.get("trace") == (TRACE_ID if service != "loop" else None)
            status, story = client.call("mmi.explain", line["request"]).frames
            assert (status, json.loads(story)["service"]) == (b"200", service)
        with pytest.raises(Exception, match="50 %s"):
            client.call("fails", metadata=trace)
        line = json.loads(running.err.next())
    assert (line["event"], line["trace"]) == ("handler-failed", trace["trace"])
    assert line["request"].startswith("d")
    assert running.stop() == 0


def test_text_lines_end_with_the_ids_and_have_none_without_the_flag(
    broker: Running, shell: Shell
) -> None:
    running, client = read_lines(shell, broker)
    with client:
        client.call("thread")
        assert running.err.until("in a thread").endswith("in a thread")
        with pytest.raises(Exception, match="50 %s"):
            client.call("fails")
        assert "the handler of fails failed (request d" in running.err.next()
    assert running.stop() == 0


def test_filter_finds_the_ids_of_the_request_that_is_handled() -> None:
    record = logging.makeLogRecord({"msg": "sold"})
    request, trace = REQUEST.set("d7"), TRACE.set("any\ntext" + "x" * 500)
    try:
        assert RequestIds().filter(record)
    finally:
        REQUEST.reset(request)
        TRACE.reset(trace)
    shown = SafeLines("%(message)s").format(record)
    assert shown.startswith("sold request=d7 trace=any\\ntextxxx")
    assert len(shown) < 160
    assert RequestIds().filter(record)
    assert SafeLines("%(message)s").format(record) == "sold"

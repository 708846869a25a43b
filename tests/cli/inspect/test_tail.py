"""`majordomus tail` prints requests as they end, those that its filters let through."""

from __future__ import annotations

import json

import pytest

from majordomus.cli.inspect.tail import Filter, as_object, has_status, line
from majordomus.errors import MajordomusError, NotSupported
from majordomus.net.broker.broker import Broker
from majordomus.net.client.client import Client
from majordomus.net.worker.worker import Worker
from majordomus.observe.ended import EndedReader, EndedRequest
from tests.cli.shell import LIMIT, Running, Shell


def ended(service: str = "echo", status: int = 200, took: float = 0.5) -> EndedRequest:
    return EndedRequest(0.0, "0a-1", service, status, "no", took, 0.25, 2, "0b", "ann", "00-ab")


@pytest.mark.parametrize(
    ("wanted", "statuses"),
    [
        ("404", {404}),
        ("4xx", {400, 404}),
        ("!200", {400, 404, 503}),
        ("!4xx", {200, 503}),
    ],
)
def test_status_is_a_number_a_class_or_what_is_not_it(wanted: str, statuses: set[int]) -> None:
    assert {status for status in (200, 400, 404, 503) if has_status(status, wanted)} == statuses


def test_filter_lets_through_what_meets_every_condition() -> None:
    everything = Filter((), (), 0.0)
    assert everything.matches(ended())
    assert Filter(("shop.*", "echo"), (), 0.0).matches(ended())
    assert not Filter(("shop.*",), (), 0.0).matches(ended())
    assert Filter((), ("404", "5xx"), 0.0).matches(ended(status=503))
    assert not Filter((), ("404", "5xx"), 0.0).matches(ended())
    assert not Filter((), ("!200", "!404"), 0.0).matches(ended(status=404))
    assert Filter((), (), 0.5).matches(ended())
    assert not Filter((), (), 0.51).matches(ended())


def test_line_has_what_is_worth_a_look() -> None:
    assert line(ended()).split("  ")[1:] == [
        *("200", "echo", "500 ms", "waited 250 ms", "2 attempts", "user ann", "0a-1"),
        *("trace 00-ab", "no"),
    ]
    assert "\x1b" not in line(ended(service="\x1b[2J"))
    assert "  200  echo       500 ms  waited" in line(ended(), 8)
    assert as_object(ended())["took"] == 0.5


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ([b"501"], NotSupported),
        ([b"403"], MajordomusError),
        ([], MajordomusError),
        ([b"200", b"{}", b"1"], MajordomusError),
        ([b"200", b'{"v":1,"missed":0,"more":false,"rows":[]}'], MajordomusError),
        ([b"200", b'{"v":2,"missed":0,"more":false,"rows":[]}', b"1"], NotSupported),
    ],
)
def test_answer_that_is_invalid_is_an_error(answer: list[bytes], error: type[Exception]) -> None:
    with pytest.raises(error):
        EndedReader().read(answer)


def follow(shell: Shell, *arguments: str) -> Running:
    """A running `tail`, which has asked its first question."""
    return shell.start("tail", *arguments)


def test_tail_prints_requests_of_a_running_broker_and_ends_after_its_count(shell: Shell) -> None:
    with Broker(bind="tcp://127.0.0.1:*") as broker:
        worker = Worker(broker.endpoints)
        worker.add("echo", lambda request: request.frames)
        worker.add("other", lambda request: request.frames)
        url = broker.endpoints[0]
        with worker, Client(url, timeout=LIMIT) as client:
            worker.wait_ready()
            tail = follow(shell, "--broker", url, "--json", "--service", "echo", "--count", "3")
            while tail.process.poll() is None:
                client.call("other")
                client.call("echo", b"x", metadata={"trace": "00-abc-def-01"})
            rows = [json.loads(line) for line in tail.out.rest()]
    assert (tail.process.returncode, tail.err.rest()) == (0, [])
    assert [(row["service"], row["status"], row["trace"]) for row in rows] == (
        [("echo", 200, "00-abc-def-01")] * 3
    )
    assert len({row["id"] for row in rows}) == 3


def test_tail_survives_the_restart_of_its_broker(shell: Shell) -> None:
    first = shell.broker()
    tail = follow(shell, "--broker", first.url, "--timeout", "1", "--count", "1")
    first.end()
    tail.err.until("asking again")
    shell.start("broker", "--bind", first.url).out.next()
    with Client(first.url, timeout=LIMIT) as client:
        while tail.process.poll() is None:
            with pytest.raises(MajordomusError):
                client.call("nobody", timeout=0.1)
    assert tail.process.returncode == 0
    assert "408" in tail.out.rest()[0] or "503" in tail.out.rest()[0]


def test_status_that_is_none_is_wrong_usage(shell: Shell) -> None:
    code, _, error = shell.run("tail", "--status", "abc")
    assert (code, error) == (2, "majordomus tail: --status abc: expected 404, 5xx or !200\n")

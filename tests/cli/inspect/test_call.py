"""`majordomus call`, `services` and `workers` against a broker and a worker in other processes."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator

import pytest

from majordomus.net.bodies import Reply
from majordomus.net.broker.broker import Broker
from majordomus.net.worker.request import Request
from majordomus.net.worker.worker import Worker
from majordomus.net.zmq import select as wires
from tests.cli.shell import Shell

REFUSED = "connection refused" if wires.OWN_ZMTP else "not reachable"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A broker and a worker that all tests of this file share."""
    with Broker(bind="tcp://127.0.0.1:*") as broker:
        worker = Worker(broker.endpoints)

        @worker.service("echo")
        def echo(request):  # type: ignore[no-untyped-def]
            return request.frames

        @worker.service("two")
        def two(request):  # type: ignore[no-untyped-def]
            return [b"\xff\x00", b"two"]

        @worker.service("count")
        def count(request):  # type: ignore[no-untyped-def]
            yield from (str(number) for number in range(1, int(request.body) + 1))

        @worker.service("fail")
        def fail(request):  # type: ignore[no-untyped-def]
            raise ValueError("no\nsuch luck \x1b[31m")

        @worker.service("nap")
        def nap(request):  # type: ignore[no-untyped-def]
            time.sleep(float(request.body))

        with worker:
            worker.wait_ready()
            yield broker.endpoints[0]


def test_reply_s_bytes_are_printed_as_they_are(url: str, shell: Shell) -> None:
    assert shell.run("call", "echo", "grüß", "--broker", url) == (0, "grüß".encode(), "")


def test_frames_are_separated_by_newlines(url: str, shell: Shell) -> None:
    assert shell.run("call", "two", "--broker", url) == (0, b"\xff\x00\ntwo", "")


def test_body_is_read_from_stdin_byte_by_byte(url: str, shell: Shell) -> None:
    body = bytes(range(256)) * 100
    assert shell.run("call", "echo", "-", "--broker", url, stdin=body) == (0, body, "")


def test_argument_that_is_no_utf8_reaches_the_service_as_it_is(url: str, shell: Shell) -> None:
    assert shell.run("call", "echo", b"\xfe\xff", "--broker", url) == (0, b"\xfe\xff", "")


def test_body_left_out_is_empty_and_stdin_is_not_read(url: str, shell: Shell) -> None:
    assert shell.run("call", "echo", "--broker", url, stdin=b"not this") == (0, b"", "")


def test_body_from_a_stdin_that_is_closed_is_one_line_and_exit_2(url: str, shell: Shell) -> None:
    command = f"exec {sys.executable} -m majordomus.cli call echo - --broker {url} <&-"
    running = shell.adopt(["bash", "-c", command])
    assert running.process.wait(30) == 2
    assert running.err.rest() == ['majordomus call: "-" reads stdin, and stdin is closed']


def test_broker_may_come_from_the_environment(url: str, shell: Shell) -> None:
    assert shell.run("call", "echo", "x", MAJORDOMUS_BROKER=url) == (0, b"x", "")


def test_next_broker_is_taken_when_the_first_is_not_there(url: str, shell: Shell) -> None:
    done = shell.run("call", "echo", "x", "--broker", "tcp://127.0.0.1:1", "--broker", url)
    assert done == (0, b"x", "")


def test_parts_of_a_stream_are_printed_one_a_line(url: str, shell: Shell) -> None:
    assert shell.run("call", "count", "3", "--stream", "--broker", url) == (0, b"1\n2\n3\n", "")


def test_json_of_a_reply_says_all_that_came(url: str, shell: Shell) -> None:
    done = shell.run("call", "two", "--json", "--broker", url)
    assert (done.code, done.err) == (0, "")
    reply = json.loads(done.out)
    assert reply.pop("worker")
    frames = [{"base64": "/wA="}, {"text": "two"}]
    assert reply == {"service": "two", "status": 200, "frames": frames}


def test_json_of_a_stream_is_one_document_a_line(url: str, shell: Shell) -> None:
    done = shell.run("call", "count", "2", "--stream", "--json", "--broker", url)
    assert [json.loads(line) for line in done.out.splitlines()] == [
        {"part": 1, "frames": [{"text": "1"}]},
        {"part": 2, "frames": [{"text": "2"}]},
    ]


def test_json_of_a_reply_and_of_a_part_has_their_metadata(shell: Shell) -> None:
    with Broker(bind="tcp://127.0.0.1:*") as broker:
        worker = Worker(broker.endpoints)

        @worker.service("page")
        def page(request: Request) -> Reply:
            return Reply("x", metadata={"next": b"\xff", "rows": [1, {"a": b"text"}]})

        with worker:
            worker.wait_ready()
            shown = {"next": {"base64": "/w=="}, "rows": [1, {"a": {"text": "text"}}]}
            for more in ((), ("--stream",)):
                done = shell.run("call", "page", "--json", *more, "--broker", broker.endpoints[0])
                assert json.loads(done.out)["metadata"] == shown


@pytest.mark.parametrize("dialect", ["mdp01", "mdp02", "mdp02d", "delphi", "mdp03"])
def test_call_speaks_every_dialect(dialect: str, url: str, shell: Shell) -> None:
    done = shell.run("call", "echo", "x", "--dialect", dialect, "--broker", url)
    assert done == (0, b"x", "")


def test_handler_that_raises_is_one_line_and_exit_1(url: str, shell: Shell) -> None:
    done = shell.run("call", "fail", "--broker", url)
    assert done == (1, b"", "majordomus call: 500 ValueError: no such luck \\x1b[31m\n")


def test_service_without_a_worker_fails_at_once_and_names_what_is_served(
    url: str, shell: Shell
) -> None:
    line = "503 no worker serves 'ech0'; serving now: count, echo, fail, nap, two"
    for flags in ((), ("--stream",)):
        done = shell.run("call", "ech0", *flags, "--broker", url)
        assert done == (1, b"", f"majordomus call: {line}\n")


def test_call_that_is_told_to_wait_fails_within_the_timeout(url: str, shell: Shell) -> None:
    done = shell.run("call", "ech0", "--wait", "--timeout", "0.5", "--broker", url)
    assert (done.code, done.out) == (1, b"")
    assert done.err.startswith("majordomus call: 503 no worker for service 'ech0' came within")
    assert done.err.count("\n") == 1


def test_call_without_a_broker_fails_in_two_seconds(shell: Shell) -> None:
    began = time.monotonic()
    done = shell.run("call", "echo", "--broker", "tcp://127.0.0.1:1")
    assert done.err == (
        "majordomus call: 408 no broker was reachable within 2 s at tcp://127.0.0.1:1"
        f" ({REFUSED})\n"
    )
    assert time.monotonic() - began < 15


def test_broker_that_is_not_there_is_one_line_and_exit_1(shell: Shell) -> None:
    for command in (["call", "echo"], ["services"], ["workers"]):
        done = shell.run(*command, "--timeout", "0.5", "--broker", "tcp://127.0.0.1:1")
        line = f"408 no broker was reachable within 0.5 s at tcp://127.0.0.1:1 ({REFUSED})"
        assert done == (1, b"", f"majordomus {command[0]}: {line}\n")


def test_wrong_url_is_one_line_and_exit_2(shell: Shell) -> None:
    for command in (["call", "echo"], ["services"], ["workers"]):
        done = shell.run(*command, "--broker", "tcp://127.0.0.1")
        line = "'tcp://127.0.0.1' is no endpoint: after tcp:// comes host:port"
        assert done == (2, b"", f"majordomus {command[0]}: {line}\n")


def test_service_without_a_name_is_wrong_usage(url: str, shell: Shell) -> None:
    done = shell.run("call", "", "--broker", url)
    assert (done.code, done.out) == (2, b"")
    assert done.err.startswith("majordomus call: bad-name: ")


def test_interrupted_call_is_one_line_and_exit_130(url: str, shell: Shell) -> None:
    running = shell.start("call", "count", "1", "--stream", "--broker", url)
    assert running.out.next() == "1"
    assert running.process.wait(10) == 0
    running = shell.start("call", "nap", "2", "--stream", "--broker", url)
    time.sleep(1.0)
    assert running.stop(signal.SIGINT) == 130
    assert running.err.rest() == ["majordomus call: interrupted"]


def test_services_are_a_table(url: str, shell: Shell) -> None:
    done = shell.run("services", "--broker", url)
    assert (done.code, done.err) == (0, "")
    lines = [line.split() for line in done.out.decode().splitlines()]
    assert lines[0][:3] == ["SERVICE", "WORKERS", "QUEUED"]
    rows = {line[0]: line[1:3] for line in lines[1:]}
    assert {name: rows[name] for name in ("count", "echo", "fail", "two")} == {
        "count": ["1", "0"],
        "echo": ["1", "0"],
        "fail": ["1", "0"],
        "two": ["1", "0"],
    }


def test_services_are_json(url: str, shell: Shell) -> None:
    done = shell.run("services", "--json", "--broker", url)
    served = [service["service"] for service in json.loads(done.out) if service["workers"]]
    assert served == ["count", "echo", "fail", "nap", "two"]


def test_workers_are_a_table_and_json_with_the_same_content(url: str, shell: Shell) -> None:
    table = shell.run("workers", "--broker", url).out.decode().splitlines()
    (worker,) = json.loads(shell.run("workers", "--json", "--broker", url).out)
    assert table[0].split()[:4] == ["ID", "SERVICES", "DIALECT", "STATE"]
    assert len(table) == 2
    assert table[1].startswith(worker["id"] + "  ")
    assert sorted(worker["services"]) == ["count", "echo", "fail", "nap", "two"]
    assert worker["dialect"] == "mdp03"


def test_workers_of_one_service_alone(url: str, shell: Shell) -> None:
    assert len(json.loads(shell.run("workers", "echo", "--json", "--broker", url).out)) == 1
    assert json.loads(shell.run("workers", "ech0", "--json", "--broker", url).out) == []
    none = shell.run("workers", "ech0", "--broker", url)
    assert none == (0, b"", "no workers for ech0\n")

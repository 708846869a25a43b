"""`majordomus broker` as a process: it says where it listens, serves, and leaves on a signal."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
import zmq

from majordomus import Client, Request, Worker
from tests.cli.shell import LIMIT, Running, Shell


def ask(url: str, service: bytes) -> list[bytes]:
    """One request of a plain REQ socket, as MDP/0.1 writes it."""
    with zmq.Context() as context, context.socket(zmq.REQ) as client:
        client.linger, client.rcvtimeo = 0, 10_000
        client.connect(url)
        client.send_multipart([b"MDPC01", service, b""])
        return client.recv_multipart()


def test_broker_says_where_it_listens_one_line_per_endpoint_and_serves_all(shell: Shell) -> None:
    ipc = f"ipc://{shell.folder}/b.sock"
    broker = shell.start("broker", "--bind", "tcp://127.0.0.1:*", "--bind", ipc)
    tcp = broker.out.next().removeprefix("listening on ")
    assert tcp.startswith("tcp://127.0.0.1:")
    assert not tcp.endswith((":0", ":*"))
    assert broker.out.next() == f"listening on {ipc}"
    for url in (tcp, ipc):
        assert ask(url, b"mmi.nothing") == [b"MDPC01", b"mmi.nothing", b"501"]
    assert broker.stop() == 0
    assert (len(broker.out.rest()), broker.err.rest()) == (2, [])


class Opened:
    """The writing end of a named pipe, opened as soon as somebody reads it."""

    def __init__(self, path: Path) -> None:
        until = time.monotonic() + LIMIT
        while True:
            try:
                self.descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                assert time.monotonic() < until
                time.sleep(0.02)
            else:
                return

    def close(self) -> None:
        os.close(self.descriptor)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_broker_that_gets_a_signal_right_after_its_line_exits_0(
    number: signal.Signals, broker: Running
) -> None:
    assert broker.stop(number) == 0
    assert broker.err.rest() == []


def test_broker_that_is_told_to_leave_lets_open_requests_finish(broker: Running) -> None:
    worker = Worker(broker.url)
    begun = threading.Event()

    @worker.service("nap")
    def nap(request: Request) -> str:
        begun.set()
        time.sleep(1.0)
        return "slept"

    with worker, Client(broker.url) as client:
        answer = client.submit("nap")
        assert begun.wait(LIMIT)
        assert broker.stop() == 0
        assert answer.result(LIMIT).text == "slept"


def test_broker_that_is_told_to_leave_before_it_is_ready_exits_0(shell: Shell) -> None:
    pipe = shell.folder / "settings"
    os.mkfifo(pipe)
    broker = shell.start("broker", "--config", str(pipe))
    with contextlib.closing(Opened(pipe)):  # it reads its settings now, and waits for more
        assert broker.stop() == 0
    assert (broker.out.rest(), broker.err.rest()) == ([], [])


def test_broker_listens_on_the_loopback_s_port_5555_when_not_told_otherwise(shell: Shell) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", 5555))
        except OSError:
            pytest.skip("port 5555 is in use here")
    assert shell.start("broker").out.next() == "listening on tcp://127.0.0.1:5555"


def test_broker_whose_port_is_taken_fails_with_one_line(broker: Running, shell: Shell) -> None:
    done = shell.run("broker", "--bind", broker.url)
    assert (done.code, done.out) == (1, b"")
    assert done.err == f"majordomus broker: cannot bind {broker.url}: Address already in use\n"


def test_broker_with_a_wrong_url_is_wrong_usage(shell: Shell) -> None:
    done = shell.run("broker", "--bind", "http://127.0.0.1")
    assert (done.code, done.out) == (2, b"")
    assert done.err.startswith("majordomus broker: --bind: 'http://127.0.0.1' is no endpoint")
    assert done.err.count("\n") == 1


def test_way_to_balance_that_there_is_not_is_wrong_usage(shell: Shell) -> None:
    done = shell.run("broker", "--bind", "tcp://127.0.0.1:0", "--set", "balancing=none")
    assert (done.code, done.out) == (2, b"")
    assert done.err.startswith("majordomus broker: balancing = 'none' is not one of: ")
    assert done.err.count("\n") == 1


def test_broker_with_an_unreadable_file_is_wrong_usage(shell: Shell, tmp_path: Path) -> None:
    done = shell.run("broker", "--config", str(tmp_path))
    assert (done.code, done.err) == (2, f"majordomus broker: {tmp_path}: Is a directory\n")


def test_broker_takes_its_settings_from_file_variable_and_flag(shell: Shell) -> None:
    shell.write("b.toml", '[broker]\nbind = "tcp://127.0.0.1:0"\nname = "file"\nliveness = 0.5\n')
    done = shell.run("broker", "--config", "b.toml")
    assert (done.code, done.err) == (
        2,
        "majordomus broker: b.toml: liveness: expected a whole number, not 0.5\n",
    )
    shell.write("b.toml", '[broker]\nbind = "tcp://127.0.0.1:0"\nname = "file"\n')
    for flags, variables, name in (
        ([], {}, b"file"),
        ([], {"MAJORDOMUS_NAME": "variable"}, b"variable"),
        (["--name", "flag"], {"MAJORDOMUS_NAME": "variable"}, b"flag"),
        (["--name", "flag", "--set", "name=set"], {"MAJORDOMUS_NAME": "variable"}, b"set"),
    ):
        running = shell.start("broker", *flags, MAJORDOMUS_CONFIG="b.toml", **variables)
        url = running.out.next().removeprefix("listening on ")
        answer = ask(url, b"mmi.broker")
        assert answer[:3] == [b"MDPC01", b"mmi.broker", b"200"]
        assert b'"name":"' + name + b'"' in answer[3]


def test_broker_takes_all_the_descriptors_that_it_may_have(broker: Running) -> None:
    limits = Path(f"/proc/{broker.process.pid}/limits").read_text()
    soft, hard = next(line.split()[3:5] for line in limits.splitlines() if "open files" in line)
    assert soft == hard == str(resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def test_verbose_broker_logs_to_stderr(shell: Shell) -> None:
    broker = shell.broker("--verbose")
    assert f"INFO majordomus.broker: listening on {broker.url}" in broker.err.next()

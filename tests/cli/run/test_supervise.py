"""`majordomus broker --supervise`: a broker that dies is back, at the same place."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path

from majordomus import Client
from majordomus.cli.run.supervise import FIRST_DELAY, MOST_DELAY, delay
from tests.cli.shell import LIMIT, Running, Shell, alive

BACK = 2.0
"""Seconds within which a broker that died answers again."""


def supervised(shell: Shell, *flags: str) -> Running:
    running = shell.start("broker", "--supervise", "--bind", "tcp://127.0.0.1:*", *flags)
    running.url = running.out.next().removeprefix("listening on ")
    return running


def child_of(running: Running) -> int:
    """The process of the broker itself."""
    pid = running.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert len(children) == 1
    return int(children[0])


def restarts_of(url: str, timeout: float) -> int:
    with Client(url, timeout=timeout) as client:
        return int(json.loads(client.call("mmi.broker").frames[1])["restarts"])


def test_broker_that_is_killed_is_back_at_its_endpoint_in_time_and_counts_it(shell: Shell) -> None:
    running = supervised(shell)
    assert restarts_of(running.url, LIMIT) == 0
    for times in (1, 2):
        killed = time.monotonic()
        os.kill(child_of(running), signal.SIGKILL)
        assert restarts_of(running.url, LIMIT) == times
        took = time.monotonic() - killed
        assert running.out.next() == f"listening on {running.url}"
        assert f"restart {times}" in running.err.next()
        assert delay(times) < BACK, f"it took {took:.2f} s on this machine"
    assert running.stop() == 0


def test_delays_between_restarts_leave_time_for_the_start_itself() -> None:
    assert delay(1) == FIRST_DELAY
    assert max(delay(deaths) for deaths in range(1, 100)) == MOST_DELAY < BACK


def test_request_that_waits_meanwhile_is_answered_by_the_broker_that_came_back(
    shell: Shell,
) -> None:
    running = supervised(shell)
    with Client(running.url, timeout=LIMIT) as client:
        assert client.call("mmi.service", "x").frames == [b"404"]
        os.kill(child_of(running), signal.SIGKILL)
        assert client.call("mmi.service", "x").frames == [b"404"]


def test_sigterm_drains_the_broker_and_ends_both(shell: Shell) -> None:
    running = supervised(shell)
    child = child_of(running)
    assert running.stop() == 0
    assert not alive(child)
    assert running.err.rest() == []


def test_broker_does_not_outlive_a_supervisor_that_is_killed(shell: Shell) -> None:
    running = supervised(shell)
    child = child_of(running)
    running.stop(signal.SIGKILL)
    until = time.monotonic() + LIMIT
    while alive(child):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_what_never_began_to_serve_is_not_tried_again(shell: Shell) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        url = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        done = shell.run("broker", "--supervise", "--bind", url)
    assert (done.code, done.out) == (1, b"")
    assert "cannot bind" in done.err
    assert "restart" not in done.err


def test_wrong_setting_is_a_usage_error_as_without_it(shell: Shell) -> None:
    done = shell.run("broker", "--supervise", "--set", "liveness=0")
    assert done.code == 2
    assert len(done.err.splitlines()) == 1

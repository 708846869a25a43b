"""`majordomus bench`: figures that add up, workers that end with it, errors in one line."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from array import array

import pytest

from majordomus.cli.run.bench import BenchLoad, BenchResults, percentile, report
from majordomus.errors import MajordomusError
from tests.cli.shell import LIMIT, Running, Shell

QUICK = ("--seconds", "0.3", "--clients", "2", "--window", "4")
LOAD = BenchLoad(("tcp://127.0.0.1:5555",), "svc", 2, 4, 16, 2.0, 5.0, "mdp03")


def services(shell: Shell, url: str) -> list[str]:
    told = json.loads(shell.run("services", "--broker", url, "--json").out)
    return [one["service"] for one in told if not one["service"].startswith("mmi.")]


@pytest.mark.parametrize("dialect", ["mdp03", "mdp01"])
def test_it_serves_calls_counts_and_leaves_nothing(
    shell: Shell, broker: Running, dialect: str
) -> None:
    flags = ("--body", "100", "--workers", "2", "--dialect", dialect, "--json")
    done = shell.run("bench", "--broker", broker.url, *QUICK, *flags)
    assert (done.code, done.err) == (0, "")
    told = json.loads(done.out)
    assert told["service"].startswith("bench-")
    shape = [told[name] for name in ("dialect", "workers", "clients", "window", "body_bytes")]
    assert shape == [dialect, 2, 2, 4, 100]
    assert told["requests"] > 0 == told["failed"]
    assert 0.3 <= told["seconds"] < 5
    assert told["requests_per_second"] == pytest.approx(told["requests"] / told["seconds"], 0.01)
    assert 0 < told["p50_us"] <= told["p99_us"] <= told["p99_9_us"] <= told["max_us"]
    assert services(shell, broker.url) == []


def test_service_that_is_named_is_called_and_the_table_is_printed(
    shell: Shell, broker: Running
) -> None:
    shell.write("echo.py", ECHO)
    shell.start("worker", "echo:worker", "--broker", broker.url).out.next()
    done = shell.run("bench", "--broker", broker.url, "--service", "mine", *QUICK)
    assert (done.code, done.err) == (0, "")
    head, figures = done.out.decode().splitlines()
    columns = ["REQUESTS/S", "P50 MS", "P99 MS", "P99.9 MS", "MAX MS", "REQUESTS", "FAILED"]
    assert head.split() == " ".join(columns).split()
    assert int(figures.split()[5]) > 0
    assert figures.split()[6] == "0"


ECHO = """
from majordomus import AsyncWorker, Unavailable
worker = AsyncWorker()

@worker.service("mine")
async def mine(request):
    return request.frames

@worker.service("refuses")
async def refuses(request):
    worker.asked = getattr(worker, "asked", 0) + 1
    if worker.asked % 10 == 0:
        raise ValueError("the tenth")
"""


def test_failures_are_counted_and_are_the_exit_code(shell: Shell, broker: Running) -> None:
    shell.write("echo.py", ECHO)
    shell.start("worker", "echo:worker", "--broker", broker.url).out.next()
    done = shell.run("bench", "--broker", broker.url, "--service", "refuses", *QUICK, "--json")
    told = json.loads(done.out)
    assert done.code == 1
    assert 0 < told["failed"] <= told["requests"] / 8
    assert done.err == f"majordomus bench: requests failed: {told['failed']} with 500\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--service", "nobody"), "503 no worker serves 'nobody'"),
        (("--broker", "tcp://127.0.0.1:1"), "408 no broker at tcp://127.0.0.1:1"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    shell: Shell, broker: Running, arguments: tuple[str, ...], says: str
) -> None:
    url = () if "--broker" in arguments else ("--broker", broker.url)
    done = shell.run("bench", *url, *arguments, "--timeout", "1")
    assert (done.code, done.out) == (1, b"")
    assert done.err.startswith(f"majordomus bench: {says}")
    assert len(done.err.splitlines()) == 1


def test_terminal_gets_a_progress_bar(shell: Shell, broker: Running) -> None:
    screen, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "majordomus.cli", "bench", "--broker", broker.url, *QUICK],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=terminal,
        cwd=shell.folder,
        env=shell.environment | {"TERM": "xterm"},
    )
    os.close(terminal)
    shown = b""
    try:
        while chunk := os.read(screen, 4096):
            shown += chunk
    except OSError:  # the terminal's other end is closed
        pass
    os.close(screen)
    out, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0
    assert b" of 0.3 s" in shown
    assert b"requests/s" in shown
    assert out.startswith(b"REQUESTS/S")


def test_interrupted_benchmark_is_one_line_and_exit_130(shell: Shell, broker: Running) -> None:
    flags = ("--seconds", "60", "--clients", "8", "--window", "16")
    running = shell.start("bench", "--broker", broker.url, *flags)
    until = time.monotonic() + LIMIT
    while not services(shell, broker.url):
        assert time.monotonic() < until
    time.sleep(1.5)
    assert running.stop(signal.SIGINT) == 130
    assert running.err.rest() == ["majordomus bench: interrupted"]
    assert running.out.rest() == []


def test_percentiles_are_of_the_sorted_times() -> None:
    times = [number / 1000 for number in range(1, 1001)]
    assert [percentile(times, share) for share in (0.5, 0.99, 0.999)] == [0.5, 0.99, 0.999]
    assert percentile([7.0], 0.5) == percentile([7.0], 0.999) == 7.0


def test_only_what_is_answered_in_time_counts() -> None:
    tally = BenchResults()
    tally.answered(0.0, 1.0)
    tally.failed(500)
    tally.began, tally.ended = 10.0, 12.0
    tally.answered(9.0, 10.5)
    tally.answered(11.5, 12.5)
    assert tally.times == array("d", [1.5])
    told = report(LOAD, 1, tally)
    assert (told["requests"], told["failed"], told["requests_per_second"]) == (1, 0, 0.5)
    assert told["p50_us"] == told["max_us"] == 1_500_000


def test_no_answer_at_all_is_a_failure() -> None:
    tally = BenchResults()
    tally.began, tally.ended = 10.0, 12.0
    with pytest.raises(MajordomusError, match="no request to 'svc' was answered in 2 s"):
        report(LOAD, 1, tally)

"""`majordomus worker --metrics`: what each process of a worker reports."""

from __future__ import annotations

import re
import signal
import subprocess
import time

import pytest

from majordomus.errors import HandlerFailed
from majordomus.net.client.client import Client
from tests.cli.conftest import broker, shell
from tests.cli.shell import LIMIT, Running, Shell
from tests.observe.programs import free_port, get, needs

__all__ = ["broker", "shell"]

WORKER = """
import time
from majordomus import Worker

worker = Worker(threads=2)

@worker.service("echo")
def echo(request):
    return request.frames

@worker.service("fails")
def fails(request):
    raise ValueError("no")

@worker.service("count")
def count(request):
    yield "1"
    yield "2"

@worker.service("blocks")
async def blocks(request):
    time.sleep(1.5)

@worker.service("parts")
async def parts(request):
    yield "1"

@worker.service("apart", run="process")
def apart(request):
    if request.body == b"fail":
        raise ValueError("no")
    yield "1"

@worker.service("hold")
def hold(request):
    request.wait_cancelled(30)
"""


def metrics(url: str) -> dict[str, float]:
    status, text = get(f"{url}/metrics")
    assert status == 200
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def until(url: str, name: str, value: float) -> dict[str, float]:
    """The metrics, once this one has at least that value; before, nothing may serve them yet."""
    end = time.monotonic() + LIMIT
    while True:
        try:
            found = metrics(url)
        except ConnectionRefusedError:
            found = {}
        if found.get(name, -1.0) >= value:
            return found
        assert time.monotonic() < end, found
        time.sleep(0.05)


def start(shell: Shell, broker: Running, *flags: str) -> tuple[Running, str, int]:
    """A worker that serves its metrics; it, the URL, and the first port."""
    shell.write("work.py", WORKER)
    port = free_port()
    worker = shell.start(
        *("worker", "--broker", broker.url, "--metrics", f"127.0.0.1:{port}", *flags, "work:worker")
    )
    worker.out.until("serving")
    return worker, f"http://127.0.0.1:{port}", port


def test_worker_reports_its_handlers_pools_loop_and_brokers(broker: Running, shell: Shell) -> None:
    worker, url, _ = start(shell, broker)
    with Client(broker.url, timeout=LIMIT) as client:
        for _ in range(3):
            client.call("echo", b"x")
        for service in ("count", "parts", "blocks"):
            client.call(service)
        with pytest.raises(HandlerFailed):
            client.call("fails")
        assert [part.text for part in client.stream("apart")] == ["1"]
        with pytest.raises(HandlerFailed):
            list(client.stream("apart", b"fail"))
        held = client.submit("hold")
        prefix = "majordomus_worker_"
        found = until(url, f'{prefix}handlers_running{{service="hold"}}', 1)
        seconds = prefix + 'handler_seconds_count{{outcome="{}",service="{}"}}'
        for service, outcome, count in (
            *(("echo", "answered", 3), ("count", "answered", 1), ("parts", "answered", 1)),
            *(("blocks", "answered", 1), ("fails", "failed", 1)),
            *(("apart", "answered", 1), ("apart", "failed", 1)),
        ):
            assert found[seconds.format(outcome, service)] == count
        assert found[f'{prefix}pool_size{{pool="threads"}}'] == 2
        assert found[f'{prefix}pool_busy{{pool="threads"}}'] == 1
        assert found[f'{prefix}pool_waiting{{pool="threads"}}'] == 0
        assert found[f"{prefix}ready"] == 1
        assert found[f'{prefix}registered{{broker="{broker.url}"}}'] == 1
        assert found[f'{prefix}broker_losses_total{{broker="{broker.url}"}}'] == 0
        assert found[f'{prefix}heartbeats_missed_total{{broker="{broker.url}"}}'] == 0
        until(url, f"{prefix}loop_late_seconds_total", 0.2)
        assert get(f"{url}/readyz")[0] == 200
        held.cancel()
    broker.end()
    until(url, f'{prefix}broker_losses_total{{broker="{broker.url}"}}', 1)
    assert get(f"{url}/readyz")[0] == 503
    assert get(f"{url}/healthz") == (200, "ok\n")
    assert worker.stop() == 0


def test_heartbeats_that_a_stopped_broker_does_not_send_are_counted(shell: Shell) -> None:
    broker = shell.broker("--set", "worker_interval=0.5", "--set", "liveness=20")
    _, url, _ = start(shell, broker)
    broker.send(signal.SIGSTOP)
    try:
        missed = f'majordomus_worker_heartbeats_missed_total{{broker="{broker.url}"}}'
        found = until(url, missed, 2)
    finally:
        broker.send(signal.SIGCONT)
    assert found[f'majordomus_worker_broker_losses_total{{broker="{broker.url}"}}'] == 0


def test_promtool_accepts_the_metrics_of_a_worker(broker: Running, shell: Shell) -> None:
    _, url, _ = start(shell, broker)
    text = get(f"{url}/metrics")[1]
    done = subprocess.run(
        [needs("promtool"), "check", "metrics"],
        input=re.sub(r"^.*python_.*\n", "", text, flags=re.MULTILINE),  # those of the library
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_each_process_has_a_port_of_its_own(broker: Running, shell: Shell) -> None:
    _, _, port = start(shell, broker, "--processes", "2")
    for n in (0, 1):
        until(f"http://127.0.0.1:{port + n}", "majordomus_worker_ready", 1)


def test_worker_without_a_free_port_serves_without_metrics(broker: Running, shell: Shell) -> None:
    """The address belongs to no interface of this machine."""
    shell.write("work.py", WORKER)
    worker = shell.start(
        *("worker", "--broker", broker.url, "--metrics", "198.51.100.1:9465", "work:worker")
    )
    worker.err.until("no metrics are served at 198.51.100.1")
    worker.out.until("serving")


def test_address_that_is_none_is_wrong_usage(shell: Shell) -> None:
    code, _, error = shell.run("worker", "--metrics", "here", "work:worker")
    assert code == 2
    assert "--metrics here: expected HOST:PORT" in error

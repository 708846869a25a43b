"""A worker whose loop was not run: what the log tells, and what is not begun afterwards."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from majordomus import Client, Worker
from majordomus.errors import DeadlineExceeded
from majordomus.net.worker import stalls
from majordomus.net.worker.request import Request
from majordomus.net.worker.stalls import StallWatch
from tests.net.conftest import eventually

WITHIN = 20.0
STOPPED = """
import sys
from pathlib import Path
from majordomus import Worker
worker = Worker(sys.argv[1])
def note(request):
    with Path(sys.argv[2]).open("a") as out:
        out.write(request.text + "\\n")
@worker.service("loop")
async def loop(request):
    note(request)
@worker.service("thread")
def thread(request):
    note(request)
worker.run()
"""


def test_handler_that_blocks_the_loop_is_named_in_the_log(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, seconds in (("STEP", 0.05), ("LOGGED", 0.2)):
        monkeypatch.setattr(stalls, name, seconds)
    worker = Worker(url)

    @worker.service("blocks")
    async def blocks(request: Request) -> None:
        time.sleep(0.5)

    with caplog.at_level(logging.WARNING), worker, Client(url, timeout=WITHIN) as client:
        worker.wait_ready(WITHIN)
        client.call("blocks")
        eventually(lambda: "while handlers of blocks ran" in caplog.text, WITHIN)
    assert 'use run="process"' in caplog.text


def test_watch_notes_a_time_later_than_its_next_look() -> None:
    noted: list[float] = []

    async def scene() -> None:
        watch = StallWatch(asyncio.get_running_loop(), list, noted.append)
        watch.start()
        watch.stop()

    before = time.monotonic()
    asyncio.run(scene())
    assert noted[0] >= before + stalls.STEP + stalls.LATE


@pytest.mark.parametrize("service", ["loop", "thread"])
def test_worker_that_was_stopped_past_the_deadlines_runs_no_expired_request(
    url: str, tmp_path: Path, service: str
) -> None:
    runs = tmp_path / "runs"
    child = subprocess.Popen([sys.executable, "-c", STOPPED, url, str(runs)])
    try:
        with Client(url, timeout=WITHIN) as client:
            client.call(service, "first")
            os.kill(child.pid, signal.SIGSTOP)
            late = [client.submit(service, "expired", timeout=0.5) for _ in range(50)]
            for future in late:
                with pytest.raises(DeadlineExceeded):
                    future.result(WITHIN)
            time.sleep(1.5)
            os.kill(child.pid, signal.SIGCONT)
            client.call(service, "last")
    finally:
        child.kill()
        child.wait()
    assert runs.read_text().split() == ["first", "last"]

"""A log line of a worker or a command has no control character, whatever an exception's text is."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

from majordomus.net.broker.broker import Broker
from majordomus.net.client.client import Client
from majordomus.net.log_lines import SafeLines
from tests.cli.shell import clean_environment
from tests.net.conftest import eventually

EVIL = "red\x1b[31m\x07\r\u202e"
SHOWN = "red\\x1b[31m\\x07\\r\\u202e"


def record(*, stack: str | None = None) -> logging.LogRecord:
    info = (ValueError, ValueError(EVIL), None)
    return logging.LogRecord("x", 40, "x.py", 1, f"failed {EVIL}", (), info, "f", stack)


def controls(text: str) -> list[str]:
    return [char for char in text if not char.isprintable() and char != "\n"]


def test_message_traceback_and_stack_of_a_log_line_are_escaped() -> None:
    text = SafeLines("%(message)s").format(record(stack=f"Stack {EVIL}"))
    assert controls(text) == []
    lines = text.splitlines()
    assert lines[0] == f"failed {SHOWN}"
    assert f"ValueError: {SHOWN}" in lines
    assert lines[-1] == f"Stack {SHOWN}"


def test_traceback_that_another_formatter_has_kept_in_the_record_is_escaped() -> None:
    kept = record()
    assert EVIL in logging.Formatter("%(message)s").format(kept)
    assert controls(SafeLines("%(message)s").format(kept)) == []


PROGRAM = f"""
from majordomus import Worker

worker = Worker()


@worker.service("thread")
def thread(request):
    raise ValueError({EVIL!r})


@worker.service("loop")
async def loop(request):
    raise ValueError({EVIL!r})


@worker.service("process", run="process")
def process(request):
    raise ValueError({EVIL!r})


if __name__ == "__main__":
    worker.run()
"""


def test_worker_program_shows_no_escape_sequence_of_a_handlers_exception(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text(PROGRAM)
    with Broker(bind=["tcp://127.0.0.1:0"]) as broker:
        url = broker.endpoints[0]
        running = subprocess.Popen(
            [sys.executable, "evil.py"],
            cwd=tmp_path,
            env=clean_environment() | {"MAJORDOMUS_BROKER": url},
            stderr=subprocess.PIPE,
        )
        try:
            with Client(url, timeout=20) as client:
                for service in ("thread", "loop", "process"):
                    eventually(lambda name=service: client.serves(name), 20.0)
                    assert isinstance(client.submit(service).exception(20), Exception)
        finally:
            running.terminate()
            _, errors = running.communicate(timeout=20)
    text = errors.decode()
    assert text.count(SHOWN) >= 3
    assert controls(text) == []

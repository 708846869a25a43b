"""The cloud logger's page and example are true."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from majordomus.contrib.cloudlog import LogEntry, service
from majordomus.messages.records import codec_of
from tests.cli.shell import LIMIT, SOURCE, Shell
from tests.contrib.conftest import entries, eventually, texts
from tests.docs_runner import run_page

DOCS = SOURCE.parent / "docs"
EXAMPLE = SOURCE.parent / "examples" / "cloudlog" / "shop.py"
PAGE = (DOCS / "cloudlog.md").read_text("utf-8")


@pytest.fixture
def quiet() -> Iterator[None]:
    """The page's logger belongs to the whole process."""
    logger = logging.getLogger("shop.orders")
    yield
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)


def test_program_of_the_page_runs_and_shows_what_the_page_shows(
    tmp_path: Path, quiet: None
) -> None:
    run_page(DOCS / "cloudlog.md", tmp_path)


def test_table_of_the_entry_has_its_tags_and_kinds() -> None:
    rows = re.findall(r"^\| (\d) \| ([\w ]+) \| (\w+) \|", PAGE, re.MULTILINE)
    assert rows == [
        (str(spec.tag), spec.name.replace("_", " "), spec.kind.name)
        for spec in codec_of(LogEntry).specs
    ]


def test_table_of_the_services_has_all_of_them() -> None:
    rows = re.findall(r"^\| `(cloudlog\.\w+)` \|", PAGE, re.MULTILINE)
    assert sorted(rows) == sorted(service.make_collector("tcp://127.0.0.1:1").handlers)


def test_proto_text_of_the_page_can_be_printed(shell: Shell) -> None:
    done = shell.run("proto", "majordomus.contrib.cloudlog.record")
    assert done.code == 0, done.err
    assert "fixed32 process_id = 3;" in done.out.decode()


def test_example_logs_and_sells(shell: Shell, collecting: str) -> None:
    program = EXAMPLE.read_text("utf-8").replace("pause=0.2", "pause=0.0")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(shell.write("shop.py", program)), collecting],
        env=shell.environment,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
    )
    assert "everything is sold" in done.stderr
    eventually(lambda: texts(collecting, level=logging.ERROR) == ["orders: everything is sold"])
    assert {entry.application for entry in entries(collecting)} == {"shop"}

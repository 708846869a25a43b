"""docs/certificates.md is true: its program runs, and its five commands lead to a call."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.shell import SOURCE, Shell, clean_environment
from tests.docs_runner import run_page

PAGE = SOURCE.parent / "docs/certificates.md"
APP = """
from majordomus import Worker
worker = Worker()
@worker.service
def hello(request):
    return f"hello {request.text}, {request.broker_metadata['user']}"
"""


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    made = Shell(tmp_path, clean_environment() | {"XDG_STATE_HOME": str(tmp_path / "state")})
    made.environment.pop("STATE_DIRECTORY", None)
    yield made
    made.end()


def commands(section: str) -> list[list[str]]:
    text = PAGE.read_text("utf-8").partition(f"\n## {section}\n")[2]
    block = re.search(r"```console\n(.*?)```", text, re.DOTALL)
    assert block
    lines = block[1].splitlines()
    assert all(line.startswith("$ majordomus ") for line in lines)
    return [shlex.split(line.removeprefix("$ majordomus ")) for line in lines]


def moved(arguments: list[str]) -> list[str]:
    return ["tcp://127.0.0.1:0" if one == "tcp://0.0.0.0:5555" else one for one in arguments]


def test_program_of_the_page_runs(tmp_path: Path) -> None:
    run_page(PAGE, tmp_path)


def test_five_commands_lead_from_nothing_to_a_call(shell: Shell) -> None:
    shell.write("app.py", APP)
    first, second, broker_line, worker, call = commands("From nothing, in five commands")
    for arguments in (first, second):
        assert shell.run(*arguments).code == 0
    broker = shell.start(*moved(broker_line))
    url = broker.out.until("clients connect with").partition("'")[2].rstrip("'")
    shell.start(*worker, MAJORDOMUS_BROKER=url).out.until("serving")
    done = shell.run(*call, MAJORDOMUS_BROKER=url)
    assert (done.out, done.err) == (b"hello world, ann", "")


def test_url_that_the_page_shows_carries_the_key_that_it_shows() -> None:
    from majordomus.net import endpoints

    text = PAGE.read_text("utf-8")
    (url,) = re.findall(r"'(majordomus://\S+)'", text)
    (key,) = re.findall(r"^public key (\S+)$", text, re.MULTILINE)
    assert endpoints.key_of(url) == key


def test_passwords_of_the_page_lead_to_a_call(shell: Shell) -> None:
    set_password, broker_line, call = commands("Passwords")
    assert shell.run(*set_password, stdin=b"correct horse\n").code == 0
    shell.write("login", "ann:correct horse\n").chmod(0o600)
    shell.write("app.py", APP)
    broker = shell.broker(*broker_line[1:])
    worker = shell.start("worker", "app:worker", "--plain", "login", "--broker", broker.url)
    worker.out.until("serving")
    done = shell.run(*call, MAJORDOMUS_BROKER=broker.url)
    assert (done.out, done.err) == (b"hello world, ann", "")


def test_every_reason_of_the_page_is_one_that_clients_are_told() -> None:
    source = (SOURCE / "majordomus/net/connection/credentials.py").read_text("utf-8")
    told = " ".join(re.findall(r'f?"([^"]*)"', source))
    rows = re.findall(r"^\| … ([^|…]+?) (?:…)?\s*\|", PAGE.read_text("utf-8"), re.MULTILINE)
    assert len(rows) == 6
    parts = [part for row in rows for part in row.split(": ")]
    assert [part for part in parts if part not in told] == []

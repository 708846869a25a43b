"""docs/security.md is true: its commands lead to a call, and every test that it names is there and
is run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.shell import SOURCE, Shell, clean_environment

ROOT = SOURCE.parent
PAGE = (ROOT / "docs/security.md").read_text("utf-8")
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    made = Shell(tmp_path, clean_environment() | {"XDG_STATE_HOME": str(tmp_path / "state")})
    made.environment.pop("STATE_DIRECTORY", None)
    yield made
    made.end()


def block(kind: str, number: int) -> str:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)[number]


def commands(number: int) -> list[list[str]]:
    lines = block("console", number).splitlines()
    assert all(line.startswith("$ majordomus ") for line in lines)
    return [shlex.split(line.removeprefix("$ majordomus ")) for line in lines]


def moved(arguments: list[str]) -> list[str]:
    return ["tcp://127.0.0.1:0" if one == "tcp://0.0.0.0:5555" else one for one in arguments]


def test_five_commands_lead_from_nothing_to_a_broker_that_asks_for_keys_tokens_and_rights(
    shell: Shell,
) -> None:
    shell.write("rights.toml", block("toml", 0))
    shell.write("app.py", block("python", 0))
    shell.write("login", "ann:secret\n").chmod(0o600)
    shell.write("wrong", "ann:guessed\n").chmod(0o600)
    *keys, broker_line, worker = commands(0)
    assert (len(keys), len(commands(0))) == (3, 5)
    for arguments in keys:
        assert shell.run(*arguments).code == 0
    broker = shell.start(*moved(broker_line))
    url = broker.out.until("clients connect with").partition("'")[2].rstrip("'")
    shell.start(*worker, MAJORDOMUS_BROKER=url).out.until("serving")
    ((*call,),) = commands(1)
    done = shell.run(*call, MAJORDOMUS_BROKER=url)
    assert (done.out, done.err) == (b"hello world, ann", "")
    key = ["--key", "keys/ann.key"]
    for arguments, said in (
        (["call", "hello", "x", *key], "'ann' may not call 'hello'"),
        (["call", "hello", "x", *key, "--login", "wrong"], "user or secret is wrong"),
        (["call", "auth", "x", *key, "--login", "login"], "'ann' may not call 'auth'"),
        (["services", *key, "--login", "login"], "'ann' may not manage"),
        (["call", "hello", "x", "--login", "login"], "accepts only the keys in its list"),
    ):
        refused = shell.run(*arguments, "--timeout", "10", MAJORDOMUS_BROKER=url)
        assert (refused.code, refused.out) == (1, b""), arguments
        assert said in refused.err
        assert len(refused.err.splitlines()) == 1


def test_every_test_that_the_page_names_is_there_and_is_run() -> None:
    named = sorted({"::".join(one) for one in NAMED.findall(PAGE)})
    assert len(named) > 40
    quiet = ["-o", "addopts=", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", *quiet, *named],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    collected = {line.partition("[")[0] for line in done.stdout.splitlines() if "::" in line}
    assert collected == set(named)


def test_every_threat_of_the_table_has_a_test() -> None:
    table = PAGE.partition("## Threats")[2].partition("##")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 25
    assert [row for row in rows if row.count(" | ") != 2 or not NAMED.search(row)] == []


def test_way_to_report_names_no_address_that_is_made_up() -> None:
    assert "@" not in (ROOT / "SECURITY.md").read_text("utf-8")

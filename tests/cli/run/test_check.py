"""`majordomus broker --check` finds what a start would find, binds nothing and makes no file."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from tests.cli.shell import Running, Shell


def test_check_of_a_broker_that_can_start_prints_what_it_has_read(
    broker: Running, shell: Shell
) -> None:
    """The endpoint is in use: a check does not bind it."""
    shell.write("broker.toml", "[broker]\nmax_ttl = 60\n")
    shell.write("acl.toml", "[[rule]]\nallow = ['call']\n")
    shell.write("app.py", "from majordomus import Broker\nclass My(Broker): ...\n")
    code, out, error = shell.run(
        *("broker", "--check", "--config", "broker.toml", "--app", "app:My"),
        *("--acl", "acl.toml", "--bind", broker.url),
    )
    assert (code, error) == (0, "")
    assert out.decode().splitlines() == [
        "settings: max_ttl, acl",
        "app: app:My",
        "rights: acl.toml",
        f"endpoint: {broker.url}",
        "no problem was found",
    ]


def test_check_makes_no_certificate(shell: Shell) -> None:
    state = shell.folder / "state"
    code, out, error = shell.run("broker", "--check", "--curve", STATE_DIRECTORY=str(state))
    assert (code, error) == (0, "")
    assert "certificate: a start makes it" in out.decode().splitlines()
    assert not state.exists()


def test_check_opens_no_store_that_a_broker_uses_and_makes_none(shell: Shell) -> None:
    for named in ("sqlite:used.db", "sqlite:new.db"):
        if "used" in named:
            shell.broker("--store", named)
        code, out, error = shell.run("broker", "--check", "--store", named)
        assert (code, error) == (0, "")
        assert f"store: {named}" in out.decode().splitlines()
    assert not list(shell.folder.glob("new.db*"))


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--set", "max_ttl=-1"], "max_ttl"),
        (["--set", "audit=."], "it is a folder"),
        (["--set", "audit=no/file"], "its folder does not exist"),
        (["--bind", "http://x"], "http://x"),
        (["--app", "app:Missing"], "app"),
        (["--acl", "missing.toml"], "missing.toml"),
        (["--passwords", "missing"], "missing"),
        (["--curve", "--clients", "missing"], "missing"),
        (["--bind", "tcp://0.0.0.0:5555"], "tcp://0.0.0.0:5555"),
        (["--set", "balancing=none"], "none"),
        (["--token-key", "missing"], "missing"),
        (["--store", "missing"], "a store is sqlite:FILE"),
        (["--store", "sqlite:missing/store.db"], "missing does not exist"),
        (["--store", "sqlite:."], "is a folder: name a file in it"),
        (["--store", "sqlite:text.db"], "text.db is not a database of SQLite"),
        (["--store", "sqlite:newer.db"], "newer.db has version 1000, and this majordomus reads"),
        (["--set", "exempt_addresses=zzz"], "--set exempt_addresses: 'zzz'"),
        (["--app", "networks:broker"], "exempt_addresses: 'zzz'"),
    ],
)
def test_check_of_a_broker_that_cannot_start_names_the_problem_in_one_line(
    shell: Shell, flags: list[str], problem: str
) -> None:
    shell.write("text.db", "no database at all")
    with closing(sqlite3.connect(shell.folder / "newer.db")) as newer:
        newer.execute("pragma user_version = 1000")
    shell.write(
        "networks.py",
        "from majordomus import Broker, BrokerSettings\n"
        "broker = Broker(settings=BrokerSettings(exempt_addresses='zzz'))\n",
    )
    code, out, error = shell.run("broker", "--check", *flags, STATE_DIRECTORY=str(shell.folder))
    assert (code, out) == (2, b"")
    assert error.count("\n") == 1
    assert problem in error

"""An encrypted broker on the command line: from nothing to a call, and what is refused."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest

from majordomus.security import certificates
from tests.cli.shell import Running, Shell

WORKER = """
from majordomus import Worker
worker = Worker()
@worker.service
def who(request):
    return request.broker_metadata["user"]
"""


def start(shell: Shell, *arguments: str) -> tuple[Running, list[str]]:
    """A broker with --curve, and the lines that it prints when it is ready."""
    where = ("--bind", "tcp://127.0.0.1:0", "--certificate", "state/broker")
    broker = shell.start("broker", "--curve", *where, *arguments)
    lines = [broker.out.next() for _ in range(5)]
    broker.url = lines[3].partition("'")[2].rstrip("'")
    return broker, lines


def test_encrypted_broker_from_nothing_to_a_call_by_a_known_user(shell: Shell) -> None:
    for name in ("ann", "worker"):
        assert shell.run("keygen", name, "--directory", "keys").code == 0
    broker, lines = start(shell, "--clients", "keys")
    public = certificates.read(shell.folder / "state/broker.key").public
    assert re.fullmatch(r"listening on tcp://127\.0\.0\.1:\d+", lines[0])
    assert lines[1:3] == ["certificate state/broker.key_secret (new)", f"public key {public}"]
    assert lines[3].startswith("clients connect with --broker 'majordomus://127.0.0.1:")
    assert lines[4] == "only clients whose public key is in keys may connect"
    secret = shell.folder / "state/broker.key_secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    shell.write("app.py", WORKER)
    key = ("--key", "keys/worker.key")
    shell.start("worker", "app:worker", "--broker", broker.url, *key).out.until("serving")
    said = shell.run("call", "who", "--broker", broker.url, "--key", "keys/ann.key")
    assert (said.out, said.err, said.code) == (b"ann", "", 0)
    plain = lines[0].removeprefix("listening on ")
    by_variables = {"MAJORDOMUS_BROKER": plain, "MAJORDOMUS_SERVER_KEY": public}
    said = shell.run("call", "who", **by_variables, MAJORDOMUS_KEY="keys/ann.key")
    assert (said.out, said.err, said.code) == (b"ann", "", 0)
    refused = shell.run("services", "--broker", broker.url, "--timeout", "10")
    assert (refused.code, refused.out) == (1, b"")
    assert refused.err.startswith("majordomus services: 401 tcp://127.0.0.1:")
    assert "make one with majordomus keygen" in refused.err
    assert refused.err.count("\n") == 1
    assert broker.stop() == 0


def test_broker_keeps_its_certificate_at_every_later_start(shell: Shell) -> None:
    first, lines = start(shell)
    assert lines[4] == "every client with that key may connect (restrict this with --clients FILE)"
    assert shell.run("services", "--broker", first.url).code == 0
    assert first.stop() == 0
    second, again = start(shell)
    assert again[1] == "certificate state/broker.key_secret (kept)"
    assert again[2] == lines[2]
    assert second.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--bind", "tcp://0.0.0.0:0"], "can be reached by others: encrypt it (--curve"),
        (["--bind", "tcp://*:0", "--curve", "--certificate", "b"], "name the keys that may"),
        (["--clients", "keys"], "needs curve (--curve"),
        (["--curve", "--certificate", "b", "--clients", "nowhere"], "cannot read nowhere"),
        (["--curve", "--certificate", "open.key"], "other users can read"),
        (["--curve", "--certificate", "b", "--passwords", "p"], "not both"),
        (["--passwords", "nowhere"], "cannot read nowhere"),
        (
            ["--curve", "--certificate", "b", "--clients", "ann.key"],
            "ann.key is a certificate: give",
        ),
        (["--curve", "maybe"], "expected true or false, not 'maybe'"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_two(
    shell: Shell, arguments: list[str], what: str
) -> None:
    shell.run("keygen", "open")
    shell.run("keygen", "ann")
    Path(shell.folder / "open.key_secret").chmod(0o644)
    done = shell.run("broker", *arguments)
    assert (done.code, done.out) == (2, b"")
    assert done.err.count("\n") == 1
    assert what in done.err


def test_key_of_a_client_is_not_used_for_an_unencrypted_broker_and_one_line_tells_so(
    shell: Shell,
) -> None:
    shell.run("keygen", "ann")
    broker = shell.broker()
    arguments = ("call", "mmi.broker", "--broker", broker.url, "--key", "ann.key")
    done = shell.run(*arguments)
    text = (
        f"warning: the connection to {broker.url} is not encrypted, and the certificate is not "
        "used: give the broker's public key (--server-key KEY) or leave the certificate out\n"
    )
    assert (done.code, done.err) == (0, text)
    refused = shell.run(*arguments, MAJORDOMUS_REQUIRE_ENCRYPTION="1")
    text = (
        f"majordomus call: {broker.url} is not encrypted, and must be: give its public key "
        "(--server-key KEY, majordomus://host:port?key=…)\n"
    )
    assert (refused.code, refused.out, refused.err) == (2, b"", text)


@pytest.mark.parametrize(
    "command", [("call", "x", "--broker"), ("profile", "add", "x", "--broker")]
)
def test_empty_server_key_is_an_error_and_not_a_connection_without_encryption(
    shell: Shell, command: tuple[str, ...]
) -> None:
    done = shell.run(*command, "tcp://127.0.0.1:1", "--server-key", "")
    assert (done.code, done.out) == (2, b"")
    assert "--server-key is empty: give the broker's public key, or leave the flag out" in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("name", ["", "."])
def test_key_that_is_a_folder_is_one_line_and_exit_code_two(shell: Shell, name: str) -> None:
    shell.run("keygen", "there")
    key = (shell.folder / "there.key").read_text().partition('public-key = "')[2].split('"')[0]
    url = ("--broker", "tcp://127.0.0.1:1", "--server-key", key)
    done = shell.run("call", "x", *url, "--key", name)
    assert done == (2, b"", "majordomus call: cannot read .: Is a directory\n")


def test_insecure_broker_listens_everywhere(shell: Shell) -> None:
    broker = shell.start("broker", "--bind", "tcp://0.0.0.0:0", "--insecure")
    assert broker.out.next().startswith("listening on tcp://0.0.0.0:")
    assert broker.stop() == 0


def test_file_of_settings_says_the_same(shell: Shell) -> None:
    shell.write(
        "b.toml",
        '[broker]\nbind = "tcp://127.0.0.1:0"\ncurve = true\ncertificate = "b"\nclients = "any"\n',
    )
    broker = shell.start("broker", "--config", "b.toml")
    assert broker.out.until("public key").removeprefix("public key ") == (
        certificates.read(shell.folder / "b.key").public
    )
    assert broker.stop() == 0


def test_broker_with_passwords_asks_for_them(shell: Shell) -> None:
    assert shell.run("passwd", "users", "ann", stdin=b"correct horse\n").code == 0
    assert stat.S_IMODE((shell.folder / "users").stat().st_mode) == 0o600
    short = shell.run("passwd", "users", "bob", stdin=b"short\n")
    assert (short.code, short.err) == (
        2,
        "majordomus passwd: a password must have at least 8 characters\n",
    )
    broker = shell.broker("--passwords", "users")
    shell.write("login", "ann:correct horse\n").chmod(0o600)
    shell.write("wrong", "ann:battery staple\n").chmod(0o600)
    assert shell.run("services", "--broker", broker.url, "--plain", "login").code == 0
    refused = shell.run("services", "--broker", broker.url, "--plain", "wrong")
    assert refused.code == 1
    assert "refuses this user or password" in refused.err
    assert shell.run("passwd", "users", "ann", "--delete").code == 0

"""`majordomus token`: keys that nobody else can read, and what a token says."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from majordomus.security import tokens
from majordomus.security.revocations import Revocations
from tests.cli.shell import Shell


def test_pair_of_keys_is_made_once(shell: Shell) -> None:
    done = shell.run("token", "key", "signing")
    lines = done.out.decode().splitlines()
    kid = tokens.read_public(shell.folder / "signing.jwk").kid
    assert (done.code, done.err) == (0, "")
    assert lines == [
        f"signing.jwk: the public key {kid}",
        "signing.jwk_secret: the secret key; keep it where it is",
    ]
    assert (shell.folder / "signing.jwk_secret").stat().st_mode & 0o777 == 0o600
    again = shell.run("token", "key", "signing")
    text = "majordomus token: signing.jwk exists already; it is not overwritten\n"
    assert again == (2, b"", text)


def test_good_token_is_told_and_a_bad_one_refused(shell: Shell) -> None:
    signing = tokens.new_key()
    public, _ = signing.save(Path(shell.folder / "signing"))
    token, claims = signing.sign("ann", ["staff", "ops"], time.time())
    done = shell.run("token", "check", "--key", str(public), stdin=token.encode() + b"\n")
    assert (done.code, done.err) == (0, "")
    assert done.out.decode().startswith("user ann, groups staff, ops, until 20")
    assert done.out.decode().endswith(f", id {claims.id}\n")
    late, _ = signing.sign("ann", [], time.time() - 1000)
    done = shell.run("token", "check", "--key", str(public), stdin=late.encode())
    assert done == (1, b"refused: the token has expired\n", "")


def test_revoked_session_is_in_the_file_that_brokers_read(shell: Shell) -> None:
    signing = tokens.new_key()
    token, claims = signing.sign("ann", [], time.time())
    done = shell.run("token", "revoke", claims.session, "--revocations", "revoked")
    assert done == (0, f"revoked {claims.session} in revoked\n".encode(), "")
    stored = Revocations(shell.folder / "revoked")
    with pytest.raises(tokens.TokenError, match="was revoked"):
        tokens.Checker([signing.public], revocations=stored).check(token, time.time())
    done = shell.run("token", "revoke", "no id", "--revocations", "revoked")
    assert done.code == 2
    assert done.err.endswith("'no id' is not the id of a token or session\n")


AUTH = """
from majordomus import Worker
from majordomus.errors import Unauthenticated

worker = Worker()


@worker.service("auth")
def auth(request):
    user, secret = request.frames
    if secret != b"secret":
        raise Unauthenticated("user or secret is wrong")
    return ["200", user, "staff"]


@worker.service("whoami")
def whoami(request):
    return request.user
"""


def test_login_through_the_commands_from_nothing(shell: Shell) -> None:
    shell.write("app.py", AUTH)
    shell.write("ann", "ann:secret\n").chmod(0o600)
    shell.write("eve", "eve:guess\n").chmod(0o600)
    assert shell.run("token", "key", "signing").code == 0
    broker = shell.start(
        "broker", "--bind", "tcp://127.0.0.1:0", "--token-key", "signing.jwk_secret"
    )
    url = broker.out.next().removeprefix("listening on ")
    shell.start("worker", "app:worker", "--broker", url, "-v").out.until("serving")
    told = shell.run("call", "whoami", "--broker", url, "--login", "ann", "--timeout", "20")
    assert told == (0, b"ann", "")
    done = shell.run("call", "whoami", "--broker", url, "--login", "eve", "--timeout", "20")
    assert done == (1, b"", "majordomus call: 401 user or secret is wrong\n")
    done = shell.run("call", "whoami", "--broker", url, "--timeout", "20")
    text = "majordomus call: 401 log in first: the request has no token\n"
    assert done == (1, b"", text)


def test_file_with_a_login_that_others_can_read_is_refused(shell: Shell) -> None:
    shell.write("ann", "ann:secret\n").chmod(0o644)
    done = shell.run("call", "whoami", "--broker", "tcp://127.0.0.1:1", "--login", "ann")
    assert (done.code, done.out) == (2, b"")
    assert "other users can read" in done.err
    assert "secret\n" not in done.err


@pytest.mark.parametrize("text", ["ann", "ann:", ":secret", "", "ann:secret\nbob:secret"])
def test_file_with_a_login_without_user_and_secret_is_refused(shell: Shell, text: str) -> None:
    shell.write("ann", f"{text}\n").chmod(0o600)
    for flag in ("--login", "--plain"):
        done = shell.run("call", "whoami", "--broker", "tcp://127.0.0.1:1", flag, "ann")
        line = f"majordomus call: {flag} ann: expected one line, user:secret\n"
        assert done == (2, b"", line)


def test_key_that_cannot_be_used_is_one_line_and_exit_code_2(shell: Shell) -> None:
    arguments = ["broker", "--bind", "tcp://127.0.0.1:0", "--token-key", "nothing"]
    text = "majordomus broker: cannot read nothing: No such file or directory\n"
    assert shell.run(*arguments) == (2, b"", text)

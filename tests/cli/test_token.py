"""`majordomus token`: keys that nobody else can read, and what a token says."""

from __future__ import annotations

import time
from pathlib import Path

from majordomus.security import tokens
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
    text = "majordomus token: signing.jwk is there already; it is not overwritten\n"
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

"""`majordomus keygen`."""

from __future__ import annotations

import json
import stat

from majordomus.security import certificates, keys
from tests.cli.shell import Shell


def test_keygen_makes_a_pair_and_says_where(shell: Shell) -> None:
    done = shell.run("keygen", "ann", "--group", "ops", "--group", "admins", "--directory", "keys")
    public = certificates.read(shell.folder / "keys/ann.key").public
    assert (done.code, done.err) == (0, "")
    assert done.out.decode() == (
        f"public key   {public}\npublic file  keys/ann.key\nsecret file  keys/ann.key_secret\n"
    )
    secret = shell.folder / "keys/ann.key_secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    (identity,) = keys.load(shell.folder / "keys").values()
    assert (identity.user, identity.groups, identity.key) == ("ann", ("ops", "admins"), public)


def test_keygen_prints_json(shell: Shell) -> None:
    done = shell.run("keygen", "ann", "--format", "delphi", "--json")
    told = json.loads(done.out)
    assert told["public_file"] == "ann.json"
    assert certificates.read_pair(shell.folder / told["secret_file"]).public == told["public"]


def test_keygen_overwrites_nothing(shell: Shell) -> None:
    shell.run("keygen", "ann")
    before = (shell.folder / "ann.key").read_text()
    done = shell.run("keygen", "ann")
    assert (done.code, done.out) == (2, b"")
    assert done.err == ("majordomus keygen: ann.key exists already; it is not overwritten\n")
    assert (shell.folder / "ann.key").read_text() == before


def test_keygen_takes_no_path_for_a_name(shell: Shell) -> None:
    done = shell.run("keygen", "../ann")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "--directory" in done.err

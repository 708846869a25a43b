"""Revocations outlive the process, reach other brokers, and are never taken back by accident."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from majordomus.errors import ConfigurationError
from majordomus.security import tokens
from majordomus.security.revocations import Revocations
from majordomus.security.tokens import Checker, TokenError

NOW = 1_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "revoked"


def refusal(checker: Checker, token: str, now: float = NOW) -> str:
    with pytest.raises(TokenError) as refused:
        checker.check(token, now)
    return refused.value.reason


def test_revoked_session_is_refused_after_a_restart(path: Path) -> None:
    key = tokens.new_key()
    token, claims = key.sign("ann", [], NOW)
    first = Checker([key.public], revocations=Revocations(path))
    first.revoke(claims.session, NOW, NOW + 900)
    assert path.stat().st_mode & 0o777 == 0o600
    second = Checker([key.public], revocations=Revocations(path))
    assert refusal(first, token) == refusal(second, token) == "revoked"


def test_running_broker_reads_a_revocation_of_another_one_within_a_second(path: Path) -> None:
    key = tokens.new_key()
    token, claims = key.sign("ann", [], NOW)
    checker = Checker([key.public], revocations=Revocations(path))
    checker.check(token, NOW)
    Revocations(path).add(claims.id, NOW, NOW + 900)
    assert refusal(checker, token, NOW + 1) == "revoked"
    assert checker.version == 1


def test_revocation_lasts_as_long_as_the_last_token_that_was_seen(path: Path) -> None:
    key = tokens.new_key()
    token, claims = key.sign("ann", [], NOW, lifetime=5000)
    checker = Checker([key.public], revocations=Revocations(path))
    checker.check(token, NOW)
    checker.revoke(claims.session, NOW, NOW + 10)
    assert Revocations(path).ids == {claims.session: claims.expires + tokens.LEEWAY}


def test_lines_whose_time_is_over_are_dropped_when_the_file_has_grown(path: Path) -> None:
    revocations = Revocations(path)
    for n in range(999):
        revocations.add(f"id-{n}", NOW, NOW + 10)
    revocations.add("last", NOW + 20, NOW + 100)
    assert path.read_text() == f"{int(NOW) + 100} last\n"
    Revocations(path).add("more", NOW + 20, NOW + 100)
    assert set(Revocations(path).ids) == {"last", "more"}


def test_writers_at_once_lose_no_line(path: Path) -> None:
    def write(name: str) -> None:
        for n in range(100):
            Revocations(path).add(f"{name}-{n}", NOW, NOW + 10)

    threads = [threading.Thread(target=write, args=(f"t{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Revocations(path).ids) == 400


def test_line_that_a_crash_has_cut_off_is_no_revocation(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("1000010 good\n10000")
    assert Revocations(path).ids == {"good": 1_000_010.0}


def test_revocation_behind_a_line_that_was_cut_off_is_a_line_of_its_own(path: Path) -> None:
    Revocations(path).add("first", NOW, NOW + 900)
    path.write_text(path.read_text().rstrip("\n"))
    Revocations(path).add("second", NOW, NOW + 900)
    with path.open("a") as file:
        file.write("1999")
    Revocations(path).add("third", NOW, NOW + 900)
    assert Revocations(path).ids == dict.fromkeys(("first", "second", "third"), NOW + 900)


def test_file_of_revocations_that_is_a_fifo_is_refused_at_once(path: Path) -> None:
    path.parent.mkdir()
    os.mkfifo(path)
    with pytest.raises(ConfigurationError, match="not a regular file"):
        Revocations(path)


def test_file_that_others_can_write_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("")
    path.chmod(0o620)
    with pytest.raises(ConfigurationError, match="can be written by other users"):
        Revocations(path)


@pytest.mark.parametrize("id", ["", "a b", "a\nb", "ä", "x" * 129])
def test_what_is_no_id_is_not_revoked(path: Path, id: str) -> None:
    with pytest.raises(ConfigurationError, match="is not the id of a token or session"):
        Revocations(path).add(id, NOW, NOW + 1)


# audience and longest life


@pytest.mark.parametrize(
    ("made_for", "wanted", "reason"),
    [("", "", ""), ("east", "east", ""), ("east", "", "other-audience"),
     ("", "east", "other-audience"), ("west", "east", "other-audience")],
)  # fmt: skip
def test_audience_of_a_token_and_of_the_broker_must_agree(
    made_for: str, wanted: str, reason: str
) -> None:
    key = tokens.new_key()
    token, _ = key.sign("ann", [], NOW, audience=made_for)
    checker = Checker([key.public], audience=wanted)
    if reason:
        assert refusal(checker, token) == reason
    else:
        assert checker.check(token, NOW).user == "ann"


def test_token_that_is_valid_for_too_long_is_refused() -> None:
    key = tokens.new_key()
    token, _ = key.sign("ann", [], NOW, lifetime=1000)
    checker = Checker([key.public], longest=900)
    assert refusal(checker, token) == "too-long-lived"
    assert checker.check(token, NOW + 100).user == "ann"


@pytest.mark.parametrize("kty", ["EC", "RSA", None])
def test_key_of_another_type_is_refused(tmp_path: Path, kty: str | None) -> None:
    made, _ = tokens.new_key().save(tmp_path / "key")
    fields = json.loads(made.read_text())
    fields["kty"] = kty
    other = tmp_path / "other.jwk"
    other.write_text(json.dumps({k: v for k, v in fields.items() if v is not None}))
    with pytest.raises(ConfigurationError, match="is not an Ed25519 key"):
        tokens.read_public(other)

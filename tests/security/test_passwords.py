"""Passwords: what is stored tells nobody, and what is asked costs the same for everybody."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from majordomus.errors import ConfigurationError
from majordomus.security import passwords


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "N", 16)


def test_password_fits_and_another_does_not(tmp_path: Path) -> None:
    path = tmp_path / "passwords"
    passwords.store(path, "ann", passwords.hashed("correct horse", ["ops"]))
    passwords.store(path, "bob", passwords.hashed("battery staple"))
    users = passwords.load(path)
    assert sorted(users) == ["ann", "bob"]
    assert users["ann"].groups == ("ops",)
    assert passwords.fits(users["ann"], b"correct horse")
    assert not passwords.fits(users["ann"], b"battery staple")
    assert not passwords.fits(None, b"correct horse")


def test_file_holds_no_password_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "passwords"
    passwords.store(path, "ann", passwords.hashed("correct horse"))
    assert "correct horse" not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match="other users can read"):
        passwords.load(path)


def test_same_password_has_another_hash_each_time() -> None:
    first, second = passwords.hashed("correct horse"), passwords.hashed("correct horse")
    assert first.digest != second.digest
    assert first.mark != second.mark


def test_user_is_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "passwords"
    passwords.store(path, "ann", passwords.hashed("correct horse"))
    passwords.store(path, "ann", None)
    assert passwords.load(path) == {}
    with pytest.raises(ConfigurationError, match="no user ann"):
        passwords.store(path, "ann", None)


@pytest.mark.parametrize(
    "line",
    [
        "ann",
        "ann::16:8:1:00",
        "ann::15:8:1:00:" + "00" * 32,
        "ann::16:8:1::" + "00" * 32,
        "ann::16:8:1:00:00",
        "ann::x:8:1:00:" + "00" * 32,
        f"ann::{1 << 30}:8:1:00:" + "00" * 32,
    ],
)
def test_line_that_is_none_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "passwords"
    path.write_text(f"# a remark\n\n{line}\n")
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="line 3: write user:groups:"):
        passwords.load(path)


def test_short_password_and_names_with_colons_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="at least 8"):
        passwords.hashed("short")
    with pytest.raises(ConfigurationError, match="no colon"):
        passwords.hashed("correct horse", ["a:b"])
    with pytest.raises(ConfigurationError, match="no colon"):
        passwords.store(tmp_path / "passwords", "a:b", passwords.hashed("correct horse"))

"""Certificates: what others write is read, what is written others read, and a secret stays one."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
import zmq.auth

from majordomus.errors import ConfigurationError
from majordomus.net.broker.security import curve
from majordomus.security import certificates, files
from majordomus.security.certificates import SUFFIXES, Certificate, check_key

STYLES = list(SUFFIXES)
CZMQ = """\
#   ****  Generated on 2024-05-17 12:05:20 by CZMQ  ****
#   ZeroMQ CURVE **Secret** Certificate
#   DO NOT PROVIDE THIS FILE TO OTHER USERS nor change its permissions.

metadata
    name = "Boucher"
    email = 'someone@example.com'
curve
    public-key = "{public}"   # a remark
    secret-key = "{secret}"
"""


def write(folder: Path, pair: Certificate, style: str = "pyzmq") -> tuple[Path, Path]:
    return certificates.write(folder / "ann", pair, style)


@pytest.mark.parametrize("style", STYLES)
def test_pair_is_read_as_it_was_written_from_either_name(
    tmp_path: Path, pair: Certificate, style: str
) -> None:
    public, secret = write(tmp_path, pair, style)
    assert (public.name, secret.name) == (f"ann{SUFFIXES[style]}", f"ann{SUFFIXES[style]}_secret")
    for name in (public, secret, tmp_path / "ann"):
        assert certificates.read_pair(name) == pair
    assert certificates.read(public) == pair._replace(secret="")
    assert certificates.read(secret) == pair._replace(secret="")


@pytest.mark.parametrize("style", STYLES)
def test_public_file_holds_no_secret(tmp_path: Path, pair: Certificate, style: str) -> None:
    public, secret = write(tmp_path, pair, style)
    assert pair.secret not in public.read_text()
    assert pair.secret in secret.read_text()


def test_pyzmq_reads_what_we_write(tmp_path: Path, pair: Certificate) -> None:
    public, secret = write(tmp_path, pair)
    assert zmq.auth.load_certificate(public) == (pair.public.encode(), None)
    assert zmq.auth.load_certificate(secret) == (pair.public.encode(), pair.secret.encode())


def test_we_read_what_pyzmq_writes(tmp_path: Path) -> None:
    public, secret = zmq.auth.create_certificates(tmp_path, "bob", {"user": "bob"})
    Path(secret).chmod(0o600)
    found = certificates.read_pair(Path(public))
    keys = zmq.auth.load_certificate(secret)
    assert (found.public.encode(), found.secret.encode()) == keys
    assert found.metadata == {"user": "bob"}


def test_we_read_what_czmq_writes(tmp_path: Path, pair: Certificate) -> None:
    path = tmp_path / "boucher_secret"
    path.write_text(CZMQ.format(public=pair.public, secret=pair.secret))
    path.chmod(0o600)
    found = certificates.read_pair(tmp_path / "boucher")
    assert (found.public, found.secret) == pair[:2]
    assert found.metadata == {"name": "Boucher", "email": "someone@example.com"}


def test_json_has_the_form_of_the_original(tmp_path: Path, pair: Certificate) -> None:
    bare = Certificate(pair.public, pair.secret)
    public, secret = write(tmp_path, bare, "delphi")
    assert json.loads(public.read_text()) == {"curve": {"public-key": pair.public}}
    assert json.loads(secret.read_text()) == {
        "curve": {"public-key": pair.public, "secret-key": pair.secret}
    }


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("half", [0, 1])
def test_file_that_is_there_is_never_overwritten(
    tmp_path: Path, pair: Certificate, style: str, half: int
) -> None:
    there = certificates.paths(tmp_path / "ann", style)[half]
    there.write_text("mine")
    with pytest.raises(ConfigurationError, match="exists already"):
        write(tmp_path, pair, style)
    assert [path.name for path in tmp_path.iterdir()] == [there.name]
    assert there.read_text() == "mine"


def test_symbolic_link_that_leads_nowhere_is_not_followed(
    tmp_path: Path, pair: Certificate
) -> None:
    (tmp_path / "ann.key_secret").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="exists already"):
        write(tmp_path, pair)
    assert not (tmp_path / "elsewhere").exists()


def test_secret_is_for_its_owner_alone_from_its_first_byte(
    tmp_path: Path, pair: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    fsync = os.fsync

    def look(fd: int) -> None:
        seen.append(stat.S_IMODE(os.fstat(fd).st_mode))
        fsync(fd)

    opened: list[tuple[int, int]] = []
    real_open = os.open

    def note(path: str, flags: int, mode: int = 0o777) -> int:
        opened.append((flags & os.O_EXCL, mode))
        return real_open(path, flags, mode)

    monkeypatch.setattr(os, "fsync", look)
    monkeypatch.setattr(os, "open", note)
    before = os.umask(0)
    try:
        _, secret = write(tmp_path, pair)
    finally:
        os.umask(before)
    assert opened == [(os.O_EXCL, 0o600), (os.O_EXCL, 0o644)]
    assert seen == [0o600, 0o644]
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_file_appears_complete_or_not_at_all(
    tmp_path: Path, pair: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigurationError, match="No space left"):
        write(tmp_path, pair)
    assert list(tmp_path.iterdir()) == []


def test_file_system_without_links_is_good_enough(
    tmp_path: Path, pair: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", no_links)
    public, secret = write(tmp_path, pair)
    assert certificates.read_pair(public) == pair
    assert sorted(path.name for path in tmp_path.iterdir()) == [public.name, secret.name]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_secret_that_others_can_read_is_not_used(
    tmp_path: Path, pair: Certificate, mode: int
) -> None:
    _, secret = write(tmp_path, pair)
    secret.chmod(mode)
    with pytest.raises(ConfigurationError, match=r"other users can read .* chmod 600"):
        certificates.read_pair(secret)


def test_public_half_alone_is_no_pair(tmp_path: Path, pair: Certificate) -> None:
    public, secret = write(tmp_path, pair)
    secret.unlink()
    public.chmod(0o600)
    with pytest.raises(ConfigurationError, match="holds no secret key"):
        certificates.read_pair(public)


def test_secret_of_another_key_is_refused(tmp_path: Path, pair: Certificate) -> None:
    with pytest.raises(ConfigurationError, match="does not belong"):
        curve.pair(pair._replace(secret=curve.make().secret))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "no public-key"),
        ("{", "not valid JSON"),
        ("{}", "no public-key"),
        ('{"curve": []}', "no public-key"),
        ('curve\n    public-key = "short"\n', "40 characters of Z85, not 5"),
        (f'curve\n    public-key = "{"~" * 40}"\n', "not Z85"),
        (f'curve\n    public-key = "{"#" * 40}"\n', "not Z85"),
    ],
)
def test_invalid_certificate_is_refused_with_the_reason(
    tmp_path: Path, text: str, what: str
) -> None:
    path = tmp_path / "x.key"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=what):
        certificates.read(path)


def test_file_that_is_not_text_or_not_there_or_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff\xfe")
    for path, what in ((tmp_path / "x", "UTF-8"), (tmp_path / "y", "No such"), (tmp_path, "read")):
        with pytest.raises(ConfigurationError, match=what):
            certificates.read(path)
    with pytest.raises(ConfigurationError, match="more than 16 MiB"):
        (tmp_path / "x").write_bytes(b"x" * (files.LARGEST + 1))
        certificates.read(tmp_path / "x")


def test_unknown_format_is_refused_and_the_known_ones_are_named(
    tmp_path: Path, pair: Certificate
) -> None:
    with pytest.raises(ConfigurationError, match="pyzmq, czmq, delphi"):
        write(tmp_path, pair, "pem")


def test_metadata_that_would_break_the_file_is_refused(tmp_path: Path, pair: Certificate) -> None:
    for value in ('a"b', "a\nb"):
        with pytest.raises(ConfigurationError, match="cannot be written"):
            write(tmp_path, pair._replace(metadata={"user": value}))
    assert list(tmp_path.iterdir()) == []


def test_certificate_shows_no_secret_in_logs(pair: Certificate) -> None:
    assert pair.secret not in repr(pair)
    assert pair.secret not in f"{pair}"
    with pytest.raises(ConfigurationError) as told:
        check_key(pair.secret[:-1] + "~", "a secret key")
    assert pair.secret[:10] not in str(told.value)


# ── what a broker keeps ───────────────────────────────────────────────────────────────────────────


def test_broker_makes_its_certificate_once_and_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "state" / "broker"
    first, secret, is_new = curve.kept(path)
    assert is_new
    assert curve.kept(path) == (first, secret, False)
    assert curve.kept(secret)[0] == first
    assert curve.kept(path.with_name("broker.key"))[0] == first
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("style", STYLES)
def test_broker_takes_a_certificate_of_any_format(
    tmp_path: Path, pair: Certificate, style: str
) -> None:
    public, secret = write(tmp_path, pair, style)
    assert curve.kept(public) == (pair, secret, False)


def test_broker_whose_secret_others_can_read_does_not_make_another(tmp_path: Path) -> None:
    _, secret, _ = curve.kept(tmp_path / "broker")
    secret.chmod(0o644)
    with pytest.raises(ConfigurationError, match="other users can read"):
        curve.kept(tmp_path / "broker")


def test_state_is_kept_where_the_platform_wants_it(tmp_path: Path) -> None:
    home = Path.home()
    assert curve.state_folder({}, "linux") == home / ".local/state/majordomus"
    assert curve.state_folder({"XDG_STATE_HOME": "/x"}, "linux") == Path("/x/majordomus")
    assert curve.state_folder({"XDG_STATE_HOME": "no"}, "linux") == home / (
        ".local/state/majordomus"
    )
    assert curve.state_folder({"STATE_DIRECTORY": "/var/lib/m:/x"}, "linux") == Path("/var/lib/m")
    assert curve.state_folder({}, "darwin") == home / "Library/Application Support/majordomus"

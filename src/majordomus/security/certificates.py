"""Certificates: a CURVE key pair with metadata, in three file formats.

    pyzmq       NAME.key, NAME.key_secret       ZPL text, as zmq.auth writes and reads it
    czmq        NAME, NAME_secret               ZPL text, as CZMQ's zcert writes and reads it
    delphi      NAME.json, NAME.json_secret     JSON, as DelphiZeroMQ writes and reads it

Keys are Z85 text of 40 characters. The format of a file is recognised by its content. Key pairs are
generated in net/broker/security/curve.py, which needs libzmq.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from majordomus.errors import ConfigurationError
from majordomus.security import files

KEY_SIZE: Final = 40
Z85: Final = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
OTHER_HALF: Final = "_secret"
SUFFIXES: Final[Mapping[str, str]] = {"pyzmq": ".key", "czmq": "", "delphi": ".json"}
"""The formats, and the suffix of a public file in each."""

_LINE = re.compile(r"\s*(?P<name>[^\s=#][^\s=]*)\s*=\s*(?P<value>.*?)\s*")
_PUBLIC_REMARK: Final = """\
#   ZeroMQ CURVE public certificate, made by majordomus.
#   Give it to whoever is to know this key.

"""
_REMARK_OF_BOTH: Final = """\
#   ZeroMQ CURVE **secret** certificate, made by majordomus.
#   DO NOT GIVE IT TO ANYBODY, and let nobody else read it.

"""


class Certificate(NamedTuple):
    """A CURVE key pair, or its public key only. Keys are Z85 text.

    public: the public key.
    secret: the secret key; empty when only the public key is known.
    metadata: names and values that the file has beside the keys.
    """

    public: str
    secret: str = ""
    metadata: Mapping[str, str] = {}

    def __repr__(self) -> str:
        """Leaves out the secret key, because a repr may be logged."""
        half = "with its secret" if self.secret else "public half"
        return f"<Certificate {self.public} ({half})>"


def check_key(key: str, what: str = "a key") -> str:
    """Check that `key` can be a CURVE key, and return it.

    Raises: ConfigurationError. The text does not contain the key, which may be a secret.
    """
    if not isinstance(key, str):
        raise ConfigurationError(f"{what} must be a str, not {type(key).__name__}")
    if len(key) != KEY_SIZE:
        raise ConfigurationError(f"{what} must have {KEY_SIZE} characters of Z85, not {len(key)}")
    if not set(Z85).issuperset(key) or not _fits(key):
        raise ConfigurationError(f"{what} has characters that are not Z85")
    return key


def write(path: Path, certificate: Certificate, style: str = "pyzmq") -> tuple[Path, Path]:
    """Write a pair as two new files. `path` is the public file without the suffix of its format.

    Returns both paths, the public first. Raises: ConfigurationError, also when a file exists.
    """
    public, secret = paths(path, style)
    for there in (public, secret):
        if there.exists() or there.is_symlink():
            raise ConfigurationError(f"{there} exists already; it is not overwritten")
    check_key(certificate.public, "a public key")
    check_key(certificate.secret, "a secret key")
    form = _json if style == "delphi" else _zpl
    files.create(secret, form(certificate, _REMARK_OF_BOTH), files.SECRET)
    try:
        files.create(public, form(certificate._replace(secret=""), _PUBLIC_REMARK), files.PUBLIC)
    except BaseException:
        secret.unlink(missing_ok=True)
        raise
    return public, secret


def paths(path: Path, style: str) -> tuple[Path, Path]:
    """The public and the secret file for the name `path`.

    Raises: ConfigurationError for an unknown format.
    """
    if style not in SUFFIXES:
        raise ConfigurationError(
            f"unknown format {style!r}; the known ones are {', '.join(SUFFIXES)}"
        )
    public = path.with_name(path.name + SUFFIXES[style])
    return public, public.with_name(public.name + OTHER_HALF)


def read(path: Path) -> Certificate:
    """Read the public part of a certificate from either of its files, in any format.

    Raises: ConfigurationError.
    """
    if path.name.endswith(OTHER_HALF):
        return _parsed(path, files.read_secret(path))._replace(secret="")
    return _parsed(path, files.read(path))._replace(secret="")


def read_pair(path: Path) -> Certificate:
    """Read a key pair. `path` is its secret file, its public file, or the name of both.

    Raises: ConfigurationError when other users can read the secret file, or there is none.
    """
    found = secret_file(path) or path
    certificate = _parsed(found, files.read_secret(found))
    if not certificate.secret:
        raise ConfigurationError(f"{found} holds no secret key, and there is no {path}_secret")
    return certificate


def secret_file(path: Path) -> Path | None:
    """The secret file for `path`, as in `read_pair`; None when there is none."""
    if not path.name:  # a folder, such as "."
        return None
    if path.name.endswith(OTHER_HALF):
        return path if path.exists() else None
    for suffix in SUFFIXES.values():
        there = path.with_name(path.name + suffix + OTHER_HALF)
        if there.exists():
            return there
    return None


def _parsed(path: Path, text: str) -> Certificate:
    fields = _from_json(path, text) if text.lstrip().startswith("{") else _from_zpl(text)
    curve, metadata = fields
    public, secret = curve.get("public-key", ""), curve.get("secret-key", "")
    if not public:
        raise ConfigurationError(f"{path} is not a certificate: it has no public-key")
    check_key(public, f"{path}: public-key")
    if secret:
        check_key(secret, f"{path}: secret-key")
    return Certificate(public, secret, metadata)


# ── ZPL: indented lines of `name = "value"` under the name of their section ───────────────────────


def _zpl(certificate: Certificate, remark: str) -> str:
    lines = ["metadata"]
    for name, value in certificate.metadata.items():
        if not re.fullmatch(r"[\w.+-]+", name) or not value.isprintable() or '"' in value:
            raise ConfigurationError(f"{name} = {value!r} cannot be written to a certificate")
        lines.append(f'    {name} = "{value}"')
    lines += ["curve", f'    public-key = "{certificate.public}"']
    if certificate.secret:
        lines.append(f'    secret-key = "{certificate.secret}"')
    return remark + "\n".join(lines) + "\n"


def _from_zpl(text: str) -> tuple[dict[str, str], dict[str, str]]:
    sections: dict[str, dict[str, str]] = {}
    section = sections.setdefault("", {})
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            section = sections.setdefault(line.strip(), {})
        else:
            section[match["name"]] = _unquoted(match["value"])
    return sections.get("curve", {}), sections.get("metadata", {})


def _unquoted(value: str) -> str:
    """A value without its quotes and without a comment after them. `#` is a character of Z85."""
    for quote in "\"'":
        if value.startswith(quote) and quote in value[1:]:
            return value[1:].partition(quote)[0]
    return value


# ── JSON ──────────────────────────────────────────────────────────────────────────────────────────


def _json(certificate: Certificate, _remark: str) -> str:
    curve = {"public-key": certificate.public}
    if certificate.secret:
        curve["secret-key"] = certificate.secret
    document: dict[str, Any] = {"curve": curve}
    if certificate.metadata:
        document["metadata"] = dict(certificate.metadata)
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _from_json(path: Path, text: str) -> tuple[dict[str, str], dict[str, str]]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path} is not a certificate: not valid JSON") from error
    return _texts(document.get("curve")), _texts(document.get("metadata"))


def _texts(found: object) -> dict[str, str]:
    if not isinstance(found, dict):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, str)}


def _fits(key: str) -> bool:
    """Whether each five characters are a number of four bytes, which is at most 2³² - 1."""
    for at in range(0, KEY_SIZE, 5):
        number = 0
        for character in key[at : at + 5]:
            number = 85 * number + Z85.index(character)
        if number >= 1 << 32:
            return False
    return True

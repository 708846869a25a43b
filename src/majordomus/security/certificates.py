"""Certificates: a CURVE key pair and what is said about it, in three formats of file.

    pyzmq       NAME.key, NAME.key_secret       ZPL text, as zmq.auth writes and reads it
    czmq        NAME, NAME_secret               ZPL text, as CZMQ's zcert writes and reads it
    delphi      NAME.json, NAME.json_secret     JSON, as DelphiZeroMQ writes and reads it

Keys are Z85 text of 40 characters here. Which format a file has is seen from its content. Making
a pair needs libzmq: net/broker/security/curve.py does.
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
"""The formats, and how a public file's name ends."""

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
    """A pair, or its public half alone: then `secret` is empty. Keys are Z85."""

    public: str
    secret: str = ""
    metadata: Mapping[str, str] = {}

    def __repr__(self) -> str:
        """Without the secret: representations end up in logs."""
        half = "with its secret" if self.secret else "public half"
        return f"<Certificate {self.public} ({half})>"


def check_key(key: str, what: str = "a key") -> str:
    """`key`, when it can be a CURVE key.

    Raises: ConfigurationError; the key itself is not in the text, for it may be a secret.
    """
    if not isinstance(key, str):
        raise ConfigurationError(f"{what} is text, not {type(key).__name__}")
    if len(key) != KEY_SIZE:
        raise ConfigurationError(f"{what} has {KEY_SIZE} characters of Z85, not {len(key)}")
    if not set(Z85).issuperset(key) or not _fits(key):
        raise ConfigurationError(f"{what} has characters that are not Z85")
    return key


def write(path: Path, certificate: Certificate, style: str = "pyzmq") -> tuple[Path, Path]:
    """Writes a pair as two files; `path` is the public one without the suffix of its format.

    Returns both paths, the public first. Neither takes the place of another file.
    Raises: ConfigurationError.
    """
    public, secret = paths(path, style)
    for there in (public, secret):
        if there.exists() or there.is_symlink():
            raise ConfigurationError(f"{there} is there already; it is not overwritten")
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
    """The public and the secret file of the name `path`.

    Raises: ConfigurationError for a format that there is not.
    """
    if style not in SUFFIXES:
        raise ConfigurationError(f"there is no format {style!r}; there are {', '.join(SUFFIXES)}")
    public = path.with_name(path.name + SUFFIXES[style])
    return public, public.with_name(public.name + OTHER_HALF)


def read(path: Path) -> Certificate:
    """What is public of a certificate, from either of its files, in any of the formats.

    Raises: ConfigurationError.
    """
    if path.name.endswith(OTHER_HALF):
        return _parsed(path, files.read_secret(path))._replace(secret="")
    return _parsed(path, files.read(path))._replace(secret="")


def read_pair(path: Path) -> Certificate:
    """A whole pair: `path` is the secret file, the public one beside it, or its name without the
    suffix of its format.

    Raises: ConfigurationError when others can read the secret, or there is none.
    """
    found = secret_file(path) or path
    certificate = _parsed(found, files.read_secret(found))
    if not certificate.secret:
        raise ConfigurationError(f"{found} holds no secret key, and there is no {path}_secret")
    return certificate


def secret_file(path: Path) -> Path | None:
    """The file with the secret half of what `path` names, as `read_pair` takes it, if there is
    one.
    """
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
        raise ConfigurationError(f"{path} is no certificate: it has no public-key")
    check_key(public, f"{path}: public-key")
    if secret:
        check_key(secret, f"{path}: secret-key")
    return Certificate(public, secret, metadata)


# ── ZPL: indented lines of `name = "value"` under the name of their section ───────────────────────


def _zpl(certificate: Certificate, remark: str) -> str:
    lines = ["metadata"]
    for name, value in certificate.metadata.items():
        if not re.fullmatch(r"[\w.+-]+", name) or not value.isprintable() or '"' in value:
            raise ConfigurationError(f"{name} = {value!r} cannot stand in a certificate")
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
    """A value without its quotes, and what stands behind the second of them; `#` is in Z85."""
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
        raise ConfigurationError(f"{path} is no certificate: not JSON") from error
    return _texts(document.get("curve")), _texts(document.get("metadata"))


def _texts(found: object) -> dict[str, str]:
    if not isinstance(found, dict):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, str)}


def _fits(key: str) -> bool:
    """Five characters of Z85 are four bytes: at most 2³² - 1."""
    for at in range(0, KEY_SIZE, 5):
        number = 0
        for character in key[at : at + 5]:
            number = 85 * number + Z85.index(character)
        if number >= 1 << 32:
            return False
    return True

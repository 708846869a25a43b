"""Profiles: named brokers with their keys, in a TOML file of the user.

    [prod]
    brokers = ["tcp://broker:5555"]
    key = "/home/ann/.majordomus/ann.key"

A profile holds what the flags of the same names would: brokers, server_key, key, plain and login.
Flags and environment variables of a command replace its values.
"""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any, Final

import click

from majordomus.errors import ConfigurationError

FIELDS: Final = ("brokers", "server_key", "key", "plain", "login")


def path() -> Path:
    """Return the file of the profiles: MAJORDOMUS_PROFILES, or one in the user's folder."""
    given = os.environ.get("MAJORDOMUS_PROFILES")
    if given:
        return Path(given)
    folder = os.environ.get("XDG_CONFIG_HOME")
    base = Path(folder) if folder else Path.home() / ".config"
    return base / "majordomus" / "profiles.toml"


def read() -> dict[str, dict[str, Any]]:
    """Return all profiles. Raises: ConfigurationError for a file that cannot be read."""
    try:
        found = tomllib.loads(path().read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigurationError(f"{path()}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeError) as error:
        raise ConfigurationError(f"{path()}: {error}") from None
    for name, values in found.items():
        if not isinstance(values, dict) or not set(values) <= set(FIELDS):
            raise ConfigurationError(
                f"{path()}: [{name}] has {', '.join(FIELDS)}, and nothing else"
            )
    return found


def write(profiles: dict[str, dict[str, Any]]) -> None:
    """Write all profiles; only the user may read the file. Raises: ConfigurationError."""
    lines = []
    for name, values in sorted(profiles.items()):
        lines.append(f"[{json.dumps(name)}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        lines.append("")
    target = path()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_suffix(".new")
        beside.write_text("\n".join(lines), "utf-8")
        beside.chmod(0o600)
        beside.replace(target)
    except OSError as error:
        raise ConfigurationError(f"{target}: {error.strerror}") from None


def of(name: str) -> dict[str, Any]:
    """Return one profile. Raises: ConfigurationError, which lists those that there are."""
    known = read()
    if name not in known:
        listed = ", ".join(sorted(known)) or "none: majordomus profile add NAME --broker URL"
        raise ConfigurationError(f"no profile {name!r} in {path()} (there is {listed})")
    return known[name]


def use(context: click.Context, _parameter: click.Parameter, name: str | None) -> None:
    """Take the values of a profile as the defaults of this command."""
    if name and not context.resilient_parsing:
        context.default_map = {**(context.default_map or {}), **of(name)}

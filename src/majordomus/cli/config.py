"""Files, environment variables and flags of a broker are read here, and in no other module.

Rising order: defaults of BrokerSettings < TOML file < ``MAJORDOMUS_*`` variables < flags. Every
value keeps the name of its source, so an error names the file, variable or flag that is wrong.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from majordomus.core.broker.settings import BrokerSettings
from majordomus.errors import ConfigurationError
from majordomus.net import endpoints

PREFIX: Final = "MAJORDOMUS_"
TABLE: Final = "broker"
BIND: Final = "bind"

COMMAND_VARIABLES: Final = frozenset(
    {
        "MAJORDOMUS_CONFIG",
        "MAJORDOMUS_BROKER",
        "MAJORDOMUS_TIMEOUT",
        "MAJORDOMUS_DIALECT",
        "MAJORDOMUS_WIRE",
        "MAJORDOMUS_SERVER_KEY",
        "MAJORDOMUS_KEY",
        "MAJORDOMUS_REQUIRE_ENCRYPTION",
        "MAJORDOMUS_PLAIN",
        "MAJORDOMUS_LOGIN",
        "MAJORDOMUS_TOKEN_KEY",
        "MAJORDOMUS_TOKEN_KEYS",
        "MAJORDOMUS_AUTH_SERVICE",
    }
)
"""Variables that are not settings of the broker: they are read elsewhere."""

SERVICE_LINK: Final = re.compile(
    r"MAJORDOMUS(_\w+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_\w+)?)"
)
"""Variables that Kubernetes and Docker set for a service named majordomus. They are ignored."""

TYPES: Final = {field.name: field.type for field in msgspec.structs.fields(BrokerSettings)}
KEYS: Final = (BIND, *TYPES)
PATHS: Final = {"acl": (), "certificate": (), "clients": ("any", "local"), "passwords": ()}
"""Settings that are paths, each with its values that are none. A relative path in a settings file
is relative to that file."""
WANTED: Final[dict[object, str]] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
}

TABLES: Final[dict[object, str]] = {dict[str, str]: 'a table such as { echo = "sticky" }'}


class Value(NamedTuple):
    """One value before conversion.

    ``found``: the value. ``origin``: its source, for errors. ``text``: True for a value of a
    variable or flag, which is a string that must be converted to the setting's type.
    """

    found: object
    origin: str
    text: bool


class BrokerConfig(NamedTuple):
    """The endpoints and settings of one broker."""

    bind: list[str]
    settings: BrokerSettings
    given: tuple[str, ...] = ()
    """Names of the settings that a file, variable or flag has set, `bind` included."""


def broker_config(
    file: Path | None,
    environ: Mapping[str, str],
    flags: Mapping[str, str | None],
    assignments: Iterable[str] = (),
    bind: Iterable[str] = (),
) -> BrokerConfig:
    """Merge, in rising order: `file`, `environ`, `flags` (None = not given), ``--set``, ``--bind``.

    Raises: ConfigurationError with the key, its source and the nearest valid key.
    """
    values: dict[str, Value] = {}
    if file is not None:
        values.update(from_file(file))
    values.update(from_environment(environ))
    for key, given in flags.items():
        if given is not None:
            values[key] = Value(given, f"--{key.replace('_', '-')}", text=True)
    values.update(from_assignments(assignments))
    flagged = list(bind)
    if flagged:
        values[BIND] = Value(flagged, "--bind", text=False)
    named = tuple(values)
    where = values.pop(BIND, Value([endpoints.DEFAULT], "default", text=False))
    return BrokerConfig(_endpoints(where), _settings(values), named)


def from_file(path: Path) -> dict[str, Value]:
    """Return the ``[broker]`` table of a TOML file; {} when there is no such table."""
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: not UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: {error}") from error
    for name in document:
        if name != TABLE:
            raise ConfigurationError(
                f"{path}: unknown table or key {name!r}{_nearest(name, [TABLE])}"
            )
    table = document.get(TABLE, {})
    if not isinstance(table, dict):
        raise ConfigurationError(f"{path}: [{TABLE}] must be a table")
    for key in table:
        if key not in KEYS:
            raise ConfigurationError(
                f"{path}: unknown setting {key!r} in [{TABLE}]{_nearest(key, KEYS)}"
            )
    return {
        key: Value(_beside(path, key, found), f"{path}: {key}", text=False)
        for key, found in table.items()
    }


def _beside(file: Path, key: str, found: object) -> object:
    """Return the value of `key` in `file`; a relative path as one from the current folder."""
    if key not in PATHS or not isinstance(found, str) or found in ("", *PATHS[key]):
        return found
    return str(file.parent / found)


def from_environment(environ: Mapping[str, str]) -> dict[str, Value]:
    """Return the values of the ``MAJORDOMUS_*`` variables, by setting."""
    variables = {PREFIX + key.upper(): key for key in KEYS}
    values: dict[str, Value] = {}
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in COMMAND_VARIABLES:
            continue
        if name in variables:
            values[variables[name]] = Value(environ[name], f"variable {name}", text=True)
        elif not SERVICE_LINK.fullmatch(name):
            known = [*variables, *COMMAND_VARIABLES]
            raise ConfigurationError(f"variable {name}: unknown setting{_nearest(name, known)}")
    return values


def from_assignments(assignments: Iterable[str]) -> dict[str, Value]:
    """Return the values of ``--set key=value``; the last one of a key wins."""
    values: dict[str, Value] = {}
    for assignment in assignments:
        key, equals, found = assignment.partition("=")
        key = key.strip().replace("-", "_")
        if not equals:
            raise ConfigurationError(f"--set {assignment}: expected key=value")
        if key not in KEYS:
            raise ConfigurationError(
                f"--set {assignment}: unknown setting {key!r}{_nearest(key, KEYS)}"
            )
        values[key] = Value(found, f"--set {key}", text=True)
    return values


def _settings(values: Mapping[str, Value]) -> BrokerSettings:
    converted = {key: _convert(key, value) for key, value in values.items()}
    try:
        # The struct checks settings that depend on each other.
        settings = msgspec.convert(converted, BrokerSettings)
    except (msgspec.ValidationError, ConfigurationError) as error:
        raise ConfigurationError(_with_origin(str(error), values)) from error
    if settings.exempt_addresses:
        from majordomus.net.broker.limits.connection_limits import exempt_networks

        try:
            exempt_networks(settings.exempt_addresses)
        except ConfigurationError as error:
            place = values["exempt_addresses"].origin.removeprefix("variable ")
            said = str(error).removeprefix("exempt_addresses: ")
            raise ConfigurationError(f"{place}: {said}") from error
    return settings


def _convert(key: str, value: Value) -> object:
    kind = TYPES[key]
    wanted = WANTED.get(kind, TABLES.get(kind, "a table such as { echo = 5 }"))
    try:
        found = value.found if kind in WANTED or not value.text else _inline(str(value.found))
        converted: object = msgspec.convert(found, kind, strict=not value.text)
    except (msgspec.ValidationError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(
            f"{value.origin}: expected {wanted}, not {value.found!r}"
        ) from error
    numbers = converted.values() if isinstance(converted, dict) else [converted]
    if any(isinstance(number, int | float) and not 0 <= number < math.inf for number in numbers):
        raise ConfigurationError(
            f"{value.origin}: must be finite and not negative, not {value.found}"
        )
    return converted


def _inline(text: str) -> object:
    """Parse a table or list of a variable or flag, in TOML's inline syntax."""
    return tomllib.loads(f"value = {text}")["value"]


def _with_origin(complaint: str, values: Mapping[str, Value]) -> str:
    """Name in an error of the whole struct the source of each setting, as the user gave it: a flag
    or variable replaces the setting's name, the others stand in front."""
    places = []
    for key, value in values.items():
        if re.search(rf"\b{key}\b", complaint):
            name = value.origin.removeprefix("variable ")
            if name.startswith(("--", PREFIX)) and not name.startswith("--set "):
                complaint = re.sub(rf"\b{key}\b", name, complaint)
            else:
                places.append(value.origin)
    return f"{', '.join(places)}: {complaint}" if places else complaint


def _endpoints(value: Value) -> list[str]:
    """Return the URLs to bind. Raises: ConfigurationError for a wrong URL or an empty list."""
    found = value.found
    if value.text:
        found = [part for part in re.split(r"[,\s]+", str(found)) if part]
    elif isinstance(found, str):
        found = [found]
    if not isinstance(found, list):
        raise ConfigurationError(f"{value.origin}: expected a list of URLs, not {found!r}")
    try:
        return endpoints.to_bind(found)
    except ConfigurationError as error:
        raise ConfigurationError(f"{value.origin}: {error}") from error


def _nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]}?)" if close else ""

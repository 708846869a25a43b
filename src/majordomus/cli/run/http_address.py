"""The address at which a command serves HTTP, and the extras that metrics need."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from majordomus.errors import ConfigurationError

NEEDS: Final = "more packages are needed: pip install 'majordomus[observe]'"
NEEDS_OTEL: Final = NEEDS.replace("[observe]", "[observe,otel]")
PACKAGES: Final = ("prometheus_client", "starlette", "uvicorn")


def check_extra() -> None:
    """Raises: ConfigurationError when the extra `observe` is not installed."""
    for package in PACKAGES:
        try:
            import_module(package)
        except ImportError as error:
            raise ConfigurationError(NEEDS) from error


def check_otlp(url: str) -> None:
    """Raises: ConfigurationError when the extra `otel` is not installed, or for a wrong URL."""
    try:
        sender = import_module("majordomus.contrib.otel.sender")
    except ImportError as error:
        raise ConfigurationError(NEEDS_OTEL) from error
    sender.check(url)


def address_of(flag: str, given: str) -> tuple[str, int]:
    """Read HOST:PORT. Raises: ConfigurationError that names the flag."""
    host, colon, port = given.rpartition(":")
    known = port.isascii() and port.isdecimal() and len(port) < 6
    if not (colon and known and int(port) < 65536):
        raise ConfigurationError(f"{flag} {given}: expected HOST:PORT, as in 127.0.0.1:9464")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)

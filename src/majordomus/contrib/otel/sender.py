"""Posts messages to a collector by OTLP over HTTP, with Protocol Buffers. It knows no signal."""

from __future__ import annotations

import http.client
import logging
import os
import threading
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from majordomus.errors import ConfigurationError

DEFAULT: Final = "http://127.0.0.1:4318"
ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
HEADERS: Final = "OTEL_EXPORTER_OTLP_HEADERS"
KIND: Final = {"Content-Type": "application/x-protobuf"}

logger = logging.getLogger("majordomus.otel")


class Sender:
    """Posts to `path` of a collector at `endpoint`, by default that of OTEL_EXPORTER_OTLP_ENDPOINT,
    or loopback. OTEL_EXPORTER_OTLP_HEADERS are sent along.

    `what` names what is sent, in the log.
    Raises: ConfigurationError for a URL that is not http, and for headers that are none.
    """

    def __init__(self, endpoint: str, path: str, what: str, timeout: float = 10.0) -> None:
        url = endpoint or os.environ.get(ENDPOINT, DEFAULT)
        self._make, self._address, prefix = _parsed(url)
        self._path, self._what = prefix + path, what
        self._headers = {**_headers(os.environ.get(HEADERS, "")), **KIND}
        self._timeout = timeout
        self._failing = False
        self._lock = threading.Lock()

    def send(self, body: bytes, count: int) -> bool:
        """Send a message that has `count` of what it sends. Raises nothing.

        What cannot be sent is dropped, with one line in the log until something can be sent again.
        """
        with self._lock:
            try:
                self._post(body)
            except (OSError, ValueError, http.client.HTTPException) as error:
                if not self._failing:
                    logger.warning("%d %s were not sent: %s", count, self._what, error)
                self._failing = True
                return False
            self._failing = False
            return True

    def _post(self, body: bytes) -> None:
        connection = self._make(self._address, timeout=self._timeout)
        try:
            connection.request("POST", self._path, body, self._headers)
            reply = connection.getresponse()
            reply.read()
        finally:
            connection.close()
        if reply.status >= 300:
            raise OSError(f"the collector answered {reply.status} {reply.reason}")


def check(url: str) -> None:
    """Check the URL of a collector. Raises: ConfigurationError."""
    _parsed(url)


def _parsed(url: str) -> tuple[type[http.client.HTTPConnection], str, str]:
    """The class of the connection, its address, and the beginning of the path."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - it checks the port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ConfigurationError(f"{url!r} is no endpoint of OTLP: write http://HOST:4318")
    secure = parts.scheme == "https"
    made = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    return made, parts.netloc, parts.path.rstrip("/")


def _headers(text: str) -> dict[str, str]:
    """The headers of a text such as ``api-key=value,other=value``."""
    found = {}
    for one in filter(None, map(str.strip, text.split(","))):
        name, equals, value = one.partition("=")
        name, value = name.strip(), unquote(value.strip())
        known = name.replace("-", "").isalnum() and value.isprintable()
        if not (equals and known and name.isascii() and value.isascii()):
            raise ConfigurationError(f"{HEADERS}: expected NAME=VALUE,…, as in api-key=secret")
        found[name] = value
    return found


def pairs(attributes: Mapping[str, Any] | None) -> list[KeyValue]:
    """Return attributes as messages."""
    return [KeyValue(key=key, value=value_of(value)) for key, value in (attributes or {}).items()]


def value_of(value: Any) -> AnyValue:
    """Return the value of an attribute as a message."""
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int) and -(1 << 63) <= value < 1 << 63:
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    return AnyValue(string_value=encodable(str(value)))


def encodable(text: str) -> str:
    """Return a text that UTF-8 can encode: what it cannot is escaped."""
    return text.encode("utf-8", "backslashreplace").decode()

"""Handlers that run in processes, which import them from here."""

from __future__ import annotations

from collections.abc import Iterator

from majordomus.errors import BadRequest
from majordomus.net.client.client import Client
from majordomus.net.worker.request import Request


def through(request: Request) -> bytes:
    """Call `echo` at the broker whose URL is the body."""
    with Client(request.text) as client:
        return client.call("echo", b"inner", timeout=10.0).body


def parts(_request: Request) -> Iterator[str]:
    """Reply with two parts."""
    yield "0"
    yield "1"


def fails(_request: Request) -> None:
    """Reply with 400."""
    raise BadRequest("no")

"""What a WELCOME tells a session: the interval and liveness that bind it, and facts about the
broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from majordomus.errors import RemoteProtocolError
from majordomus.protocol import metadata

if TYPE_CHECKING:
    from majordomus.core.session.connection import Connection

SHORTEST_INTERVAL: Final = 0.01
"""Seconds. A broker that asks for more heartbeats than this gets no more."""
MOST_LIVENESS: Final = 1000


def take_welcome(
    connection: Connection, ttl: int, flags: int, field: bytes, now: float
) -> dict[str, Any]:
    """The broker's map, as it came; `connection` is bound by its interval and liveness from now on,
    and keeps its own where it says nothing of use.

    Raises: RemoteProtocolError for a WELCOME that nobody waits for, or metadata that cannot be
    read.
    """
    if not connection.listening:
        raise RemoteProtocolError("wrong-direction", "a WELCOME, and nobody is there")
    ours, theirs = metadata.split(field, flags)
    values = {**theirs, **ours}
    named = values.get("liveness")
    liveness = connection.liveness
    if type(named) is int and 0 < named <= MOST_LIVENESS:
        liveness = named
    interval = max(ttl / 1000, SHORTEST_INTERVAL) if ttl else connection.interval
    connection.announce(interval, liveness, now)
    return values


def take_parting(flags: int, field: bytes) -> tuple[int, str] | None:
    """The status and the sentence that a DISCONNECT brings; None when it brings none."""
    try:
        ours, _ = metadata.split(field, flags)
    except RemoteProtocolError:
        return None
    status, text = ours.get("status"), ours.get("reason")
    if type(status) is not int or not isinstance(text, str):
        return None
    return status, text

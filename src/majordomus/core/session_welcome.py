"""What a WELCOME tells a session: the interval and liveness that bind it, and facts about the
broker."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from majordomus.protocol import metadata

SHORTEST_INTERVAL: Final = 0.01
"""Seconds. A broker that asks for more heartbeats than this gets no more."""
MOST_LIVENESS: Final = 1000


class Welcome(NamedTuple):
    """``interval``: seconds. ``values``: the broker's map, as it came."""

    interval: float
    liveness: int
    values: dict[str, Any]


def read_welcome(ttl: int, flags: int, field: bytes, interval: float, liveness: int) -> Welcome:
    """The fields of a WELCOME; `interval` and `liveness` stay where it says nothing of use.

    Raises: RemoteProtocolError when its metadata cannot be read.
    """
    ours, theirs = metadata.split(field, flags)
    values = {**theirs, **ours}
    named = values.get("liveness")
    if type(named) is int and 0 < named <= MOST_LIVENESS:
        liveness = named
    if ttl:
        interval = max(ttl / 1000, SHORTEST_INTERVAL)
    return Welcome(interval, liveness, values)

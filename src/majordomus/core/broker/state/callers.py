"""Who asks, where that is not the peer itself."""

from __future__ import annotations

from math import inf
from typing import NamedTuple


class Caller(NamedTuple):
    """A user and its groups. ``prefix``: what stands in front of the names that it uses. ``until``:
    monotonic seconds."""

    user: str
    groups: tuple[str, ...]
    prefix: bytes = b""
    until: float = inf
    token: str = ""

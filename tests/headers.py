"""The fields of an MDP/0.3 header as a tuple, for tests that compare or unpack them."""

from __future__ import annotations

from typing import NamedTuple

from majordomus.protocol import mdp03
from majordomus.protocol.spec import Frame


class Header(NamedTuple):
    """The fields of `mdp03.Fields`."""

    command: int
    flags: int
    code: int
    id: int
    ttl: int
    service: bytes
    address: bytes
    metadata: bytes


def parse(header: Frame) -> Header:
    """The fields of `header`. Raises: RemoteProtocolError."""
    found = mdp03.parse(header)
    return Header(*(getattr(found, name) for name in Header._fields))

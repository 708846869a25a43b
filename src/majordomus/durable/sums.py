"""The bytes under the checksum of a row, but for its body: numbers, lengths and texts.

Compiled modules call the function of the same name in sums.pxd, which does the same in C.
"""

from __future__ import annotations

import struct
from typing import Final

_HEAD: Final = struct.Struct(">qddd6I").pack


def constant_part(
    number: int,
    accepted: float,
    expires: float,
    keep: float,
    owner: bytes,
    service: bytes,
    called: bytes,
    key: bytes,
    digest: bytes,
    metadata: bytes,
) -> bytes:
    """What never changes in a row, without its body. Raises: struct.error; OverflowError where
    it is compiled."""
    head = _HEAD(
        number,
        accepted,
        expires,
        keep,
        len(owner),
        len(service),
        len(called),
        len(key),
        len(digest),
        len(metadata),
    )
    return b"".join((head, owner, service, called, key, digest, metadata))

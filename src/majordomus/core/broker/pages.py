"""A list of the management interface as pages, so that no question costs by all that a broker has.

An answer with a frame 2 has more pages: the same question with that frame behind its argument gets
the next one. The frame is called a cursor. Its content is defined by the list alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

PAGE: Final = 64 * 1024
"""Bytes of JSON after which a page of a list ends. One row may be larger."""
MOST_LOOKED_AT: Final = 2000
"""Workers that one question looks at, also when few of them belong to its tenant."""


def page(
    rows: Iterable[tuple[bytes, Any]], most: int = PAGE, begin: bytes = b"[", end: bytes = b"]"
) -> list[bytes]:
    """One page of `rows`, each behind its cursor, of `most` rows. A row that is None ends it."""
    found: list[bytes] = []
    size = 0
    for cursor, row in rows:
        if size >= PAGE or len(found) >= most or row is None:
            return [b"200", begin + b",".join(found) + end, cursor]
        found.append(msgspec.json.encode(row))
        size += len(found[-1])
    return [b"200", begin + b",".join(found) + end]

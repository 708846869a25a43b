"""Public ids: 32 hexadecimal digits, made of a row's number and a keyed digest of it.

Nothing random is stored or indexed. An id whose digest fits was given by this store, so a row that
is missing is one that is no longer kept.
"""

from __future__ import annotations

from hashlib import blake2b
from hmac import compare_digest
from typing import Final

DIGEST: Final = 8
LENGTH: Final = 32


def public_id(secret: bytes, number: int) -> bytes:
    """Return the id of the row `number`."""
    head = number.to_bytes(8, "big")
    return (head + blake2b(head, digest_size=DIGEST, key=secret).digest()).hex().encode()


def number_of(secret: bytes, id: bytes) -> int | None:
    """Return the number of which `id` was made; 0 for an id of another store, None for bytes that
    are no id."""
    try:
        raw = bytes.fromhex(id.decode("ascii"))
    except ValueError:
        return None
    if len(id) != LENGTH or len(raw) != 2 * DIGEST:
        return None
    fits = compare_digest(public_id(secret, int.from_bytes(raw[:DIGEST], "big")), id.lower())
    return int.from_bytes(raw[:DIGEST], "big") if fits else 0

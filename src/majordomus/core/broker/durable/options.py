"""The metadata of a DURABLE request, checked.

A request that cannot be durable is refused here with 400, before anything of it is kept.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from majordomus.protocol import metadata as packing
from majordomus.protocol import spec
from majordomus.protocol.spec import Frame

MOST_KEY: Final = 255
"""Bytes of a key."""
LONGEST: Final = 3_153_600_000.0
"""Seconds of the longest `expires` and `keep`: a century."""
NOT_DURABLE: Final = {
    spec.MORE: "a stream from the client cannot be durable",
    spec.ONCE: "a durable request runs at least once: it cannot be ONCE",
}
REFUSED: Final = spec.MORE | spec.ONCE
NO_TARGET: Final = "a durable request cannot name its worker"
NO_HEDGE: Final = "a durable request cannot be a hedge"


class Options:
    """What a client asks for a durable request.

    key: the idempotency key; empty without one.
    detach: whether the answer is the id, as soon as the request is stored.
    expires: seconds until it ends without an outcome; None for never.
    keep: seconds that the outcome is kept; None for the broker's default.
    """

    __slots__ = ("detach", "expires", "keep", "key")

    def __init__(
        self,
        key: bytes = b"",
        detach: bool = False,
        expires: float | None = None,
        keep: float | None = None,
    ) -> None:
        self.key = key
        self.detach = detach
        self.expires = expires
        self.keep = keep


DEFAULT: Final = Options()


def read(flags: int, metadata: bytes, has_target: bool) -> Options | str:
    """Return the options of a request, or why it cannot be durable. `metadata` is valid."""
    if flags & REFUSED:
        return NOT_DURABLE[spec.MORE if flags & spec.MORE else spec.ONCE]
    if has_target:
        return NO_TARGET
    if not metadata:
        return DEFAULT
    values = packing.unpack(metadata)
    if "hedge" in values:
        return NO_HEDGE
    key = values.get("key", b"")
    if isinstance(key, str):
        key = key.encode()
    if "key" in values and not isinstance(key, bytes):
        return "a key is text or bytes"
    if "key" in values and not 0 < len(key) <= MOST_KEY:
        return f"a key has 1 to {MOST_KEY} bytes"
    detach = values.get("detach", False)
    if not isinstance(detach, bool):
        return "detach is true or false"
    times = []
    for name in ("expires", "keep"):
        value = values.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            return f"{name} is a number of seconds"
        if value is not None and not 0 <= value <= LONGEST:
            return f"{name} is from 0 to {LONGEST:.0f} seconds"
        times.append(None if value is None else float(value))
    return Options(key, detach, *times)


def digest_of(body: list[Frame]) -> bytes:
    """Return a digest of a body that no other body has, frame boundaries included."""
    found = blake2b(digest_size=16)
    for frame in body:
        found.update(len(frame).to_bytes(8, "big"))
        found.update(frame)
    return found.digest()

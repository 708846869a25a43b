"""Rows, outcomes and operations: everything that passes between the rules and a store.

Times in rows are wall-clock seconds, because they outlive the process; the machine converts them.
A store executes operations in their order and adds no policy of its own.
"""

from __future__ import annotations

from math import inf
from typing import Final, NamedTuple, Self, TypeAlias

from majordomus.protocol.spec import Frame

COUNTER_BITS: Final = 40
"""Bits of a number that count within one epoch of the store, from a random place on; the epoch is
above them. So a number is never used again, also when the last rows before a crash were lost, or a
backup was restored."""


class StoredRecord:
    """What rows, outcomes and the usual operations have in common. They are classes, not named
    tuples, because compiled rules read an attribute of a class of theirs without a look-up.

    Their attributes are in the order of the constructor. They are not changed once they are made.
    """

    __slots__: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._values() == other._values()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        values = ", ".join([f"{name}={getattr(self, name)!r}" for name in self.__slots__])
        return f"{type(self).__name__}({values})"

    def _values(self) -> list[object]:
        return [getattr(self, name) for name in self.__slots__]

    def replace(self, **changes: object) -> Self:
        """Return a copy with other values for these attributes."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return type(self)(**{**values, **changes})


class StoredOutcome(StoredRecord):
    """How a durable request has ended.

    status: of the FINAL.
    frames: its body.
    metadata: its packed metadata; empty without any.
    ended: when it ended.
    until: until when it is kept.
    """

    __slots__ = ("status", "frames", "metadata", "ended", "until")  # noqa: RUF023

    def __init__(
        self, status: int, frames: list[Frame], metadata: bytes, ended: float, until: float
    ) -> None:
        self.fill(status, frames, metadata, ended, until)

    def fill(
        self, status: int, frames: list[Frame], metadata: bytes, ended: float, until: float
    ) -> StoredOutcome:
        """Set every attribute of a new outcome. See `AcceptedRequest.fill` for the reason."""
        self.status = status
        self.frames = frames
        self.metadata = metadata
        self.ended = ended
        self.until = until
        return self


class StoredRequest(StoredRecord):
    """One row.

    number: its number, unique for ever; public ids are made of it.
    owner: the user that it belongs to; "" for anonymous peers.
    service: the full name of the service.
    called: the client's name of the service.
    body: the frames.
    metadata: the client's packed metadata, for the worker.
    accepted: when it was accepted.
    expires: when it ends without an outcome; infinity for never.
    keep: seconds that its outcome is kept.
    key, digest: the idempotency key and the digest of the body; empty without a key.
    attempts: dispatches that may have run.
    most: the limit of attempts at the last dispatch; 0 before.
    due: when it may be dispatched.
    outcome: None while there is none.
    """

    __slots__ = (  # noqa: RUF023
        "number",
        "owner",
        "service",
        "called",
        "body",
        "metadata",
        "accepted",
        "expires",
        "keep",
        "key",
        "digest",
        "attempts",
        "most",
        "due",
        "outcome",
    )

    def __init__(
        self,
        number: int,
        owner: str,
        service: bytes,
        called: bytes,
        body: list[Frame],
        metadata: bytes,
        accepted: float,
        expires: float = inf,
        keep: float = 0.0,
        key: bytes = b"",
        digest: bytes = b"",
        attempts: int = 0,
        most: int = 0,
        due: float = 0.0,
        outcome: StoredOutcome | None = None,
    ) -> None:
        self.fill(number, owner, service, called, body, metadata, accepted, expires, keep)
        self.key = key
        self.digest = digest
        self.attempts = attempts
        self.most = most
        self.due = due
        self.outcome = outcome

    def fill(
        self,
        number: int,
        owner: str,
        service: bytes,
        called: bytes,
        body: list[Frame],
        metadata: bytes,
        accepted: float,
        expires: float,
        keep: float,
    ) -> StoredRequest:
        """Set every attribute of a new request without a key, which is due at once."""
        self.number = number
        self.owner = owner
        self.service = service
        self.called = called
        self.body = body
        self.metadata = metadata
        self.accepted = accepted
        self.expires = expires
        self.keep = keep
        self.key = b""
        self.digest = b""
        self.attempts = 0
        self.most = 0
        self.due = accepted
        self.outcome = None
        return self


class Append(StoredRecord):
    """Store a new row. Answer: None when it is stored; the row that has its owner, service and key
    already; or FULL. In the last two cases nothing is stored."""

    __slots__ = ("row",)

    def __init__(self, row: StoredRequest) -> None:
        self.row = row


class Complete(StoredRecord):
    """Store the outcome of a row. A row that is not there, or has an outcome, is left as it is. No
    answer."""

    __slots__ = ("number", "attempts", "outcome")  # noqa: RUF023

    def __init__(self, number: int, attempts: int, outcome: StoredOutcome) -> None:
        self.number = number
        self.attempts = attempts
        self.outcome = outcome


class Remove(StoredRecord):
    """Delete a row, if it is there. No answer."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


class Attempted(NamedTuple):
    """Update the attempts of a row, and when the next one is due. No answer."""

    number: int
    attempts: int
    most: int
    due: float


class Read(NamedTuple):
    """Answer: the row; None without one."""

    number: int


class Find(NamedTuple):
    """Answer: the row with this owner, service and key; None without one."""

    owner: str
    service: bytes
    key: bytes


class Sweep(NamedTuple):
    """Delete rows whose outcome is kept until `before`, at most `most`. Answer: how many."""

    before: float
    most: int


class Page(NamedTuple):
    """Answer: at most `most` rows with a number above `after`, in order, without their bodies."""

    after: int
    most: int


Operation: TypeAlias = Append | Attempted | Complete | Remove | Read | Find | Sweep | Page


class Full:
    """The answer to an Append for which the disk has no space."""


FULL: Final = Full()


class Damaged:
    """The answer in place of a row whose checksum is wrong."""


DAMAGED: Final = Damaged()

Answer: TypeAlias = "StoredRequest | Full | Damaged | list[StoredRequest] | int | None"


class StoreState(NamedTuple):
    """The state of a store, as it reports it from time to time.

    rows: rows in all. bytes: size of its files.
    free: bytes that its disk has left; −1 where that is not known.
    accepts: whether it takes new rows: False when its disk is almost full.
    """

    rows: int = 0
    bytes: int = 0
    free: int = -1
    accepts: bool = True


class Opened(NamedTuple):
    """What a machine has to know of an open store.

    name: the kind of the store, for reports.
    secret: the bytes that make public ids unguessable.
    first: the first number that it may give; larger at each start, and never given before.
    wall: the wall-clock time of the moment `now` that is passed with it.
    """

    name: str
    secret: bytes
    first: int
    wall: float

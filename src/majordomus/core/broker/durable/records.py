"""Rows, outcomes and operations: everything that passes between the rules and a store.

Times in rows are wall-clock seconds, because they outlive the process; the machine converts them.
A store executes operations in their order and adds no policy of its own.
"""

from __future__ import annotations

from math import inf
from typing import Final, NamedTuple, TypeAlias

from majordomus.protocol.spec import Frame

COUNTER_BITS: Final = 40
"""Bits of a number that count within one epoch of the store; the epoch is above them. So a number
is never used again, also when the last rows before a crash were lost."""
START_BITS: Final = 38
"""Bits of the random number from which an epoch counts. A file that was restored from a copy has
epochs again that it had before: without it, ids of those would be given again."""


class StoredOutcome(NamedTuple):
    """How a durable request has ended.

    status: of the FINAL.
    frames: its body.
    metadata: its packed metadata; empty without any.
    ended: when it ended.
    until: until when it is kept.
    """

    status: int
    frames: list[Frame]
    metadata: bytes
    ended: float
    until: float


class StoredRequest(NamedTuple):
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

    number: int
    owner: str
    service: bytes
    called: bytes
    body: list[Frame]
    metadata: bytes
    accepted: float
    expires: float = inf
    keep: float = 0.0
    key: bytes = b""
    digest: bytes = b""
    attempts: int = 0
    most: int = 0
    due: float = 0.0
    outcome: StoredOutcome | None = None


class Append(NamedTuple):
    """Store a new row. Answer: None when it is stored; the row that has its owner, service and key
    already; or FULL. In the last two cases nothing is stored."""

    row: StoredRequest


class Attempted(NamedTuple):
    """Update the attempts of a row, and when the next one is due. No answer."""

    number: int
    attempts: int
    most: int
    due: float


class Complete(NamedTuple):
    """Store the outcome of a row. A row that is not there, or has an outcome, is left as it is. No
    answer."""

    number: int
    attempts: int
    outcome: StoredOutcome


class Remove(NamedTuple):
    """Delete a row, if it is there. No answer."""

    number: int


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
    epoch: how often the store has been opened; larger at each start.
    wall: the wall-clock time of the moment `now` that is passed with it.
    start: the number before the first one of this epoch; at random below 2 ** START_BITS.
    """

    name: str
    secret: bytes
    epoch: int
    wall: float
    start: int = 0

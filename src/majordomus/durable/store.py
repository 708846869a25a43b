"""The interface of a store, and how a batch of operations becomes calls of its primitives.

A store is a set of primitives on rows, each for a whole list. It has no policy: it does not know
what an attempt is, nor when a request expires. Whatever `write` has executed is stored when it
returns, and survives a loss of power.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

from majordomus.core.broker.durable.records import (
    DAMAGED,
    FULL,
    Answer,
    Append,
    Attempted,
    Complete,
    Damaged,
    Find,
    Operation,
    Page,
    Read,
    Remove,
    StoredRequest,
    StoreState,
    Sweep,
)
from majordomus.errors import ConfigurationError, MajordomusError

ROWS: Final = 512
"""Operations of a batch."""
BYTES: Final = 1 << 20
"""Bytes of bodies in a batch."""
SCANNED: Final = 500
"""Rows of one page of `scan`."""

Numbered = tuple[int, Operation]


class StoreError(MajordomusError):
    """The store cannot be used any more. What was not stored before may or may not be there."""


class StoreUnusableError(ConfigurationError):
    """The store that a setting names cannot be opened. The text is one line that says why."""


class RowDamagedError(StoreError):
    """One row is damaged; the others can be used."""


class StoreFullError(StoreError):
    """The disk has no space; nothing of the transaction is stored."""


class Store(Protocol):
    """A store of durable requests. One thread may use it at a time.

    name: its kind, for reports.
    secret: bytes that make public ids unguessable, the same at every start.
    epoch: how often it has been opened.
    """

    name: str
    secret: bytes
    epoch: int

    def begin(self) -> None:
        """Begin a transaction."""

    def commit(self) -> None:
        """Store what the transaction has changed. Raises: StoreFullError, StoreError."""

    def rollback(self) -> None:
        """Undo what the transaction has changed."""

    def append(self, rows: list[StoredRequest]) -> list[StoredRequest | Damaged | None]:
        """Insert rows. For each: None, or the row that has its owner, service and key already,
        DAMAGED for one that is.

        Raises: StoreFullError.
        """

    def record(self, changes: list[Attempted]) -> None:
        """Update attempts of rows without an outcome."""

    def complete(self, ends: list[Complete]) -> None:
        """Store outcomes of rows that have none."""

    def remove(self, numbers: list[int]) -> None:
        """Delete rows that are there."""

    def read(self, numbers: list[int]) -> list[StoredRequest | None]:
        """Return rows; None for one that is not there. Raises: RowDamagedError."""

    def find(self, owner: str, service: bytes, key: bytes) -> StoredRequest | None:
        """Return the row with this owner, service and key; None without one. Raises:
        RowDamagedError."""

    def sweep(self, before: float, most: int) -> int:
        """Delete rows whose outcome is kept until `before`; return how many."""

    def scan(self, after: int, most: int) -> list[StoredRequest]:
        """Return rows without an outcome, with a number above `after`, in order."""

    def page(self, after: int, most: int) -> list[StoredRequest]:
        """Return rows with a number above `after`, in order, without bodies."""

    def state(self) -> StoreState:
        """Return the state for reports."""

    def make_room(self) -> bool:
        """The disk is full: give back space that was reserved, so that outcomes can be stored.
        Returns False when nothing was reserved. New rows are not accepted from then on."""

    def maintain(self, *, idle: bool) -> None:
        """Do what is due behind a commit that has been reported, and more when nothing waits.

        Raises: StoreError.
        """

    def close(self) -> None:
        """Close the store. May be repeated."""

    def abandon(self) -> None:
        """Let go of the store after it has failed, without another write. Raises nothing."""


def write(store: Store, batch: list[Numbered]) -> list[tuple[int, Answer]]:
    """Execute a batch in one transaction; it is stored when this returns. Returns the answers.

    Changes of rows come before new rows, so that an append finds the latest state of a row with
    its key; no batch has both an append and a change of the same row. When the disk is full, new
    rows are refused, and everything else is stored in the space that was reserved.

    Raises: StoreError: what the batch has changed is unknown.
    """
    try:
        return _transaction(store, batch, accepts=store.state().accepts)
    except StoreFullError:
        if not store.make_room():
            raise
    return _transaction(store, batch, accepts=False)


def _transaction(store: Store, batch: list[Numbered], *, accepts: bool) -> list[tuple[int, Answer]]:
    store.begin()
    try:
        answers = _execute(store, batch, accepts=accepts)
        store.commit()
    except BaseException:
        store.rollback()
        raise
    return answers


def _execute(store: Store, batch: list[Numbered], *, accepts: bool) -> list[tuple[int, Answer]]:
    appends: list[tuple[int, StoredRequest]] = []
    records: list[Attempted] = []
    ends: list[Complete] = []
    removes: list[int] = []
    reads: list[tuple[int, int]] = []
    others: list[tuple[int, Find | Sweep | Page]] = []
    for number, operation in batch:  # most of them are of the first three kinds
        if isinstance(operation, Append):
            appends.append((number, operation.row))
        elif isinstance(operation, Remove):
            removes.append(operation.number)
        elif isinstance(operation, Complete):
            ends.append(operation)
        elif isinstance(operation, Attempted):
            records.append(operation)
        elif isinstance(operation, Read):
            reads.append((number, operation.number))
        else:
            others.append((number, operation))
    if records:
        store.record(records)
    if ends:
        store.complete(ends)
    if removes:
        store.remove(removes)
    answers: list[tuple[int, Answer]] = []
    if appends and not accepts:
        for number, row in appends:  # a request whose key is stored is no new one
            known = _find(store, row.owner, row.service, row.key) if row.key else None
            answers.append((number, FULL if known is None else known))
    elif appends:
        found = store.append([row for _, row in appends])
        answers += [
            (number, row)
            for (number, _), row in zip(appends, found, strict=True)
            if row is not None
        ]
    if reads:
        answers += [(number, _read(store, row)) for number, row in reads]
    for number, other in others:
        if isinstance(other, Sweep):
            answers.append((number, store.sweep(other.before, other.most)))
        elif isinstance(other, Find):
            answers.append((number, _find(store, other.owner, other.service, other.key)))
        else:
            answers.append((number, store.page(other.after, other.most)))
    return answers


def _read(store: Store, number: int) -> Answer:
    """Read one row. A damaged one is the matter of those that ask for it."""
    try:
        return store.read([number])[0]
    except RowDamagedError:
        return DAMAGED


def _find(store: Store, owner: str, service: bytes, key: bytes) -> Answer:
    try:
        return store.find(owner, service, key)
    except RowDamagedError:
        return DAMAGED


def scan_all(store: Store) -> Iterator[list[StoredRequest]]:
    """Yield every row without an outcome, in pages."""
    after = 0
    while rows := store.scan(after, SCANNED):
        yield rows
        after = rows[-1].number


def size_of(operation: Operation) -> int:
    """The bytes of an operation that count toward the size of a batch."""
    if isinstance(operation, Append):
        return sum(map(len, operation.row.body))
    if isinstance(operation, Complete):
        return sum(map(len, operation.outcome.frames))
    return 0

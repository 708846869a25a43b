"""The interface of a store, and how a batch of operations becomes calls of its primitives.

A store is a set of primitives on rows, each for a whole list. It has no policy: it does not know
what an attempt is, nor when a request expires. Whatever `write` has executed is stored when it
returns, and survives a loss of power.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Final, Protocol

from majordomus.core.broker.durable.records import (
    COUNTER_BITS,
    DAMAGED,
    FULL,
    Answer,
    Attempted,
    Complete,
    Damaged,
    Find,
    Operation,
    StoredRequest,
    StoreState,
    Sweep,
)
from majordomus.durable.batches import Batch
from majordomus.errors import ConfigurationError, MajordomusError

SCANNED: Final = 500
"""Rows of one page of `scan`."""

START_BITS: Final = 38
"""Bits of the random place at which the counter of an opening begins: at least three quarters of
the numbers of its epoch follow."""

Numbered = tuple[int, Operation]


class StoreError(MajordomusError):
    """The store cannot be used any more. What was not stored before may or may not be there."""


class StoreUnusableError(ConfigurationError):
    """The store that a setting names cannot be opened. The text is one line that says why."""


class StoreDamagedError(StoreError):
    """The file is damaged as a whole: its structure, its definitions, its secret or its epoch."""


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
    todo = Batch()
    todo.add(batch)
    if todo.records:
        store.record(todo.records)
    if todo.ends:
        store.complete(todo.ends)
    if todo.removes:
        store.remove(todo.removes)
    answers: list[tuple[int, Answer]] = []
    if todo.rows and not accepts:
        for number, row in zip(todo.appended, todo.rows, strict=True):
            # a request whose key is stored is no new one
            known = _find(store, row.owner, row.service, row.key) if row.key else None
            answers.append((number, FULL if known is None else known))
    elif todo.rows:
        found = store.append(todo.rows)
        if any(found):
            pairs = zip(todo.appended, found, strict=True)
            answers += [(number, row) for number, row in pairs if row is not None]
    if todo.reads:
        pairs_read = zip(todo.asked, todo.reads, strict=True)
        answers += [(number, _read(store, row)) for number, row in pairs_read]
    for number, other in todo.others:
        if isinstance(other, Sweep):
            answers.append((number, store.sweep(other.before, other.most)))
        elif isinstance(other, Find):
            answers.append((number, _find(store, other.owner, other.service, other.key)))
        else:
            answers.append((number, store.page(other.after, other.most)))
    return answers


def first_number(epoch: int) -> int:
    """Return the first number of a store that was opened for the `epoch`th time.

    It begins at a random place of its epoch. A copy of the store that is restored counts the same
    epochs again; so it gives other numbers than the original has given since, and an id of the
    original leads to no request of the copy.
    """
    return (epoch << COUNTER_BITS) + secrets.randbelow(1 << START_BITS) + 1


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

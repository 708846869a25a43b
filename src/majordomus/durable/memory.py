"""A store in memory: for tests, and for the simulation, which loses what is not committed.

``rows`` is what is stored. A transaction works on a copy of the changed rows.
"""

from __future__ import annotations

from bisect import bisect_right, insort

from majordomus.core.broker.durable.records import (
    Attempted,
    Complete,
    StoredRequest,
    StoreState,
)

Key = tuple[str, bytes, bytes]


class MemoryStore:
    """The rows of a store, by number.

    rows: what is stored.
    accepts: whether it takes new rows; a test may set it.
    """

    name = "memory"

    def __init__(self, rows: dict[int, StoredRequest] | None = None, epoch: int = 1) -> None:
        self.rows: dict[int, StoredRequest] = dict(rows or {})
        self.secret = b"memory"
        self.epoch = epoch
        self.accepts = True
        self._numbers = sorted(self.rows)
        self._keys: dict[Key, int] = {_key(r): r.number for r in self.rows.values() if r.key}
        self._undo: list[tuple[int, StoredRequest | None]] = []

    def begin(self) -> None:
        """Begin a transaction."""
        self._undo = []

    def commit(self) -> None:
        """Nothing has to be done: what is not committed is undone by `rollback`."""
        self._undo = []

    def rollback(self) -> None:
        """Undo what the transaction has changed."""
        for number, before in reversed(self._undo):
            self._set(number, before)
        self._undo = []

    def _set(self, number: int, row: StoredRequest | None) -> None:
        before = self.rows.pop(number, None)
        if before is not None and before.key:
            self._keys.pop(_key(before), None)
        if row is None:
            if before is not None:
                del self._numbers[bisect_right(self._numbers, number) - 1]
            return
        if before is None:
            insort(self._numbers, number)
        self.rows[number] = row
        if row.key:
            self._keys[_key(row)] = number

    def _change(self, number: int, row: StoredRequest | None) -> None:
        self._undo.append((number, self.rows.get(number)))
        self._set(number, row)

    def append(self, rows: list[StoredRequest]) -> list[StoredRequest | None]:
        """See `Store.append`."""
        found: list[StoredRequest | None] = []
        for row in rows:
            known = self._keys.get(_key(row)) if row.key else None
            found.append(None if known is None else self.rows[known])
            if known is None:
                self._change(row.number, row)
        return found

    def record(self, changes: list[Attempted]) -> None:
        """See `Store.record`."""
        for number, attempts, most, due in changes:
            row = self.rows.get(number)
            if row is not None and row.outcome is None:
                self._change(number, row.replace(attempts=attempts, most=most, due=due))

    def complete(self, ends: list[Complete]) -> None:
        """See `Store.complete`."""
        for end in ends:
            row = self.rows.get(end.number)
            if row is not None and row.outcome is None:
                changed = row.replace(attempts=end.attempts, outcome=end.outcome)
                self._change(end.number, changed)

    def remove(self, numbers: list[int]) -> None:
        """See `Store.remove`."""
        for number in numbers:
            if number in self.rows:
                self._change(number, None)

    def read(self, numbers: list[int]) -> list[StoredRequest | None]:
        """See `Store.read`."""
        return [self.rows.get(number) for number in numbers]

    def find(self, owner: str, service: bytes, key: bytes) -> StoredRequest | None:
        """See `Store.find`."""
        number = self._keys.get((owner, service, key))
        return None if number is None else self.rows[number]

    def sweep(self, before: float, most: int) -> int:
        """See `Store.sweep`."""
        kept = [(r.outcome.until, r.number) for r in self.rows.values() if r.outcome is not None]
        over = [number for until, number in sorted(kept) if until <= before][:most]
        for number in over:
            self._change(number, None)
        return len(over)

    def scan(self, after: int, most: int) -> list[StoredRequest]:
        """See `Store.scan`."""
        at = bisect_right(self._numbers, after)
        found = (self.rows[number] for number in self._numbers[at:])
        return [row for row in found if row.outcome is None][:most]

    def page(self, after: int, most: int) -> list[StoredRequest]:
        """See `Store.page`."""
        at = bisect_right(self._numbers, after)
        return [without_bodies(self.rows[number]) for number in self._numbers[at : at + most]]

    def state(self) -> StoreState:
        """See `Store.state`."""
        return StoreState(len(self.rows), 0, -1, self.accepts)

    def make_room(self) -> bool:
        """See `Store.make_room`."""
        self.accepts = False
        return True

    def maintain(self, *, idle: bool) -> None:
        """Nothing has to be done."""

    def close(self) -> None:
        """Nothing has to be done."""

    def abandon(self) -> None:
        """Nothing has to be done."""


def _key(row: StoredRequest) -> Key:
    return (row.owner, row.service, row.key)


def without_bodies(row: StoredRequest) -> StoredRequest:
    """Return `row` as a page has it."""
    outcome = row.outcome
    if outcome is not None:
        outcome = outcome.replace(frames=[], metadata=b"")
    return row.replace(body=[], metadata=b"", outcome=outcome)

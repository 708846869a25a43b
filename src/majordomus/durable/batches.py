"""What a batch of operations is made of. Compiled with the rules, as `rows` is.

A batch is split by kinds once, and no primitive of a store looks at an operation again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from majordomus.core.broker.accel import arithmetic
from majordomus.core.broker.durable.records import (
    Append,
    Attempted,
    Complete,
    Find,
    Page,
    Read,
    Remove,
    StoredRequest,
    Sweep,
)

if TYPE_CHECKING:
    from majordomus.core.broker.durable.records import Operation

ROWS: Final = 512
"""Operations of a batch."""
BYTES: Final = 1 << 20
"""Bytes of bodies in a batch."""
_ROWS, _BYTES = ROWS, BYTES


class Batch:
    """The operations of a batch by their kind, in their order. `appended`, `asked` and `others`
    have the numbers of the writes.

    rows, appended: new rows.
    records, ends, removes: changes of rows.
    reads, asked: rows that are read.
    others: searches by a key, sweeps and pages.
    """

    __slots__ = (
        "appended",
        "asked",
        "ends",
        "others",
        "reads",
        "records",
        "removes",
        "rows",
    )

    def __init__(self) -> None:
        self.rows: list[StoredRequest] = []
        self.appended: list[int] = []
        self.records: list[Attempted] = []
        self.ends: list[Complete] = []
        self.removes: list[int] = []
        self.reads: list[int] = []
        self.asked: list[int] = []
        self.others: list[tuple[int, Find | Sweep | Page]] = []

    def add(self, operations: list[tuple[int, Operation]]) -> None:
        """Add these operations with their numbers."""
        for number, operation in operations:  # most of them are of the first three kinds
            if isinstance(operation, Append):
                self.rows.append(operation.row)
                self.appended.append(number)
            elif isinstance(operation, Remove):
                self.removes.append(operation.number)
            elif isinstance(operation, Complete):
                self.ends.append(operation)
            elif isinstance(operation, Attempted):
                self.records.append(operation)
            elif isinstance(operation, Read):
                self.reads.append(operation.number)
                self.asked.append(number)
            else:
                self.others.append((number, operation))


def fitting(operations: list[tuple[int, Operation]]) -> int:
    """How many of `operations` make a batch: up to ROWS, and up to the one with which their bodies
    have BYTES."""
    count = size = 0
    for _, operation in operations:
        if count >= _ROWS or size >= _BYTES:
            break
        count += 1
        if isinstance(operation, Append):
            size += arithmetic.size(operation.row.body)
        elif isinstance(operation, Complete):
            size += arithmetic.size(operation.outcome.frames)
    return count

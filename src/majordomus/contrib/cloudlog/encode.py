"""Encode queued records as one Batch.

The sender's thread shares the interpreter lock with the program, and this is the most expensive
step of a record. So it fills the upb message behind Batch directly. A test compares the result with
`Batch.to_bytes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from majordomus.contrib.cloudlog.record import DAY, UNIX_EPOCH, Batch
from majordomus.messages.records import codec_of

_MOST: Final = 1 << 63


class Queued(NamedTuple):
    """One formatted record of a program."""

    number: int
    """Its number in the process, from 0."""
    text: str
    """The formatted text."""
    level: int
    """The level of `logging`."""
    process_id: int
    """The process that logged it."""
    thread_id: int
    """The operating system's id of the thread."""
    seconds: float
    """When it was logged, in seconds since 1970."""
    data_format: int = 0
    """A `DataFormat`."""
    data: bytes = b""
    """The data of the record; empty for none."""


def encode(
    sender: bytes, dropped: int, entries: Sequence[tuple[Any, ...]], application: str
) -> bytes:
    """Encode at least one `Queued`, whose numbers have no gap.

    Text that cannot be encoded as UTF-8 is escaped. Raises nothing for any record.
    """
    batch = codec_of(Batch).message(sender=sender, dropped=dropped, first=entries[0][0])
    records = batch.records
    add = records.add
    for _, text, level, process_id, thread_id, seconds, data_format, data in entries:
        count = len(records)
        try:
            entry = add(
                text=text,
                level=level,
                process_id=process_id,
                thread_id=thread_id,
                application=application,
                time=seconds / DAY + UNIX_EPOCH,
                data_format=data_format,
            )
        except (ValueError, TypeError, OverflowError):
            del records[count:]  # `add` may have left a partial entry
            entry = add(
                text=str(text).encode("utf-8", "backslashreplace").decode(),
                level=max(-_MOST, min(_MOST - 1, int(level))),
                process_id=int(process_id) & 0xFFFFFFFF,
                thread_id=int(thread_id) & 0xFFFFFFFF,
                application=application,
                time=seconds / DAY + UNIX_EPOCH,
                data_format=data_format,
            )
        if data:
            entry.data = data
    written: bytes = batch.SerializeToString()
    return written

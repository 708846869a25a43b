"""From what a handler queued to the bytes of one Batch.

The sender's thread shares the interpreter with the program that logs, so this is the dearest part
of a record: it fills the upb message behind Batch directly, which a test holds equal to
`Batch.to_bytes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from majordomus.contrib.cloudlog.record import DAY, UNIX_EPOCH, Batch
from majordomus.messages.records import codec_of

_MOST: Final = 1 << 63


class Queued(NamedTuple):
    """One record of a program, formatted, in the order in which it is cheapest to keep."""

    number: int
    text: str
    level: int
    process_id: int
    thread_id: int
    seconds: float
    """Since 1970."""
    data_format: int = 0
    data: bytes = b""


def encode(
    sender: bytes, dropped: int, entries: Sequence[tuple[Any, ...]], application: str
) -> bytes:
    """The Batch of at least one `Queued`, numbered without a gap.

    A text that is no UTF-8 is escaped; nothing is raised for what a program may log.
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
            del records[count:]  # it may be there in part
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

"""What the cloud logger says on the wire: every record, its tags, and the meaning of its numbers.

`LogEntry`, `Watch` and `Watches` are byte for byte those of the original, so its programs can write
to our collector and ours to its viewer; the rest is between our handler, collector and viewer.

Time is what Delphi writes: days since 1899-12-30 as a double, about 1 µs exact in this century. We
write UTC. The original writes the local time of its machine and does not say which that is: its
records are shown as they come.
"""

from __future__ import annotations

import base64
import logging
import zlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Annotated, Any, Final

import msgspec

from majordomus.errors import RecordError
from majordomus.messages import Record, fixed32, uint32, uint64

SERVICE: Final = "cloudlog"
"""What the names of all services begin with."""
WRITE: Final = f"{SERVICE}.write"
"""One-way: each body frame is a LogEntry. This is the original's own form."""
BATCH: Final = f"{SERVICE}.batch"
"""One-way: one body frame, a Batch."""
TAIL: Final = f"{SERVICE}.tail"
"""A Query; answered by a stream of Parts."""
MORE: Final = f"{SERVICE}.more"
"""One-way: a Credit, without which a stream comes to a halt after FIRST_CREDIT parts."""
STATUS: Final = f"{SERVICE}.status"
"""Answers the collector's counters as JSON."""

FIRST_CREDIT: Final = 16
"""Parts that a viewer gets before it has said that it has read any."""

DAY: Final = 86400.0
UNIX_EPOCH: Final = 25569.0
"""1970-01-01 in days since 1899-12-30."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

MOST_INFLATED: Final = 1024 * 1024
"""Bytes of an unpacked object that are looked at: what is packed may be a bomb."""


class DataFormat(IntEnum):
    """What `LogEntry.data` holds. Negative formats are no lines of the log."""

    NONE = 0
    STRINGS = 1
    """UTF-8 text, Delphi's CommaText."""
    MEMORY = 2
    """Bytes."""
    OBJECT = 3
    """JSON, packed by zlib."""
    CONNECTED = -1
    MEMORY_USAGE = -2
    LIVE_WATCHES = -3
    """Watches: all that the process has, in place of those it had before."""


class Align(IntEnum):
    """Where in its column a watch's value is shown."""

    LEFT = 0
    CENTER = 1
    RIGHT = 2


class LogEntry(Record):
    """One line of the log, or the live watches of one process."""

    text: Annotated[str, 1] = ""
    level: Annotated[int, 2] = 0
    """Python's numbers; the original's are read as well, see `python_level`."""
    process_id: Annotated[fixed32, 3] = 0
    thread_id: Annotated[fixed32, 4] = 0
    application: Annotated[str, 5] = ""
    time: Annotated[float, 6] = 0.0
    data_format: Annotated[int, 7] = 0
    data: Annotated[bytes, 8] = b""


class Watch(Record):
    """A named value that is updated in place."""

    name: Annotated[str, 1] = ""
    value: Annotated[str, 2] = ""
    align: Annotated[Align, 3] = Align.LEFT


class Watches(Record):
    """All live watches of one process."""

    watches: Annotated[list[Watch], 1] = ()  # type: ignore[assignment]  # an empty list, each time


class Batch(Record):
    """Entries of one process, in order.

    `first` is the number of the first one: a sender numbers all that it was given, from 0.
    `dropped` entries directly before it were thrown away by the sender; other numbers that a
    collector misses were lost on the way.
    """

    sender: Annotated[bytes, 1] = b""
    """Random, chosen by each process."""
    first: Annotated[uint64, 2] = 0
    dropped: Annotated[uint64, 3] = 0
    records: Annotated[list[LogEntry], 4] = ()  # type: ignore[assignment]


class Query(Record):
    """What a viewer wants to see."""

    level: Annotated[int, 1] = 0
    """The least level."""
    applications: Annotated[list[str], 2] = ()  # type: ignore[assignment]
    """Only these; none: all."""
    grep: Annotated[str, 3] = ""
    """A regular expression. A sieve: what the collector cannot decide cheaply it lets through."""
    last: Annotated[uint32, 4] = 0
    """At most this many of the entries that are there already."""
    follow: Annotated[bool, 5] = False
    """And then those that come."""
    watch: Annotated[bool, 6] = False
    """Live watches instead of entries."""
    epoch: Annotated[bytes, 7] = b""
    position: Annotated[uint64, 8] = 0
    """With the epoch of an earlier Part: go on where that one ended."""


class Part(Record):
    """One part of the answer to a Query. The first comes at once, even when it is empty."""

    records: Annotated[list[LogEntry], 1] = ()  # type: ignore[assignment]
    left_out: Annotated[uint64, 2] = 0
    """Entries that the viewer missed since the last part, being slower than the log."""
    epoch: Annotated[bytes, 3] = b""
    """The collector's life; positions of another one mean nothing."""
    position: Annotated[uint64, 4] = 0
    """The collector's number of the next entry."""
    viewer: Annotated[bytes, 5] = b""
    """What a Credit has to name."""


class Credit(Record):
    """The viewer has read this many parts and takes as many more."""

    viewer: Annotated[bytes, 1] = b""
    parts: Annotated[uint32, 2] = 0


# ── time ──────────────────────────────────────────────────────────────────────────────────────────


def to_days(seconds: float) -> float:
    """Seconds since 1970 as days since 1899-12-30."""
    return seconds / DAY + UNIX_EPOCH


def to_seconds(days: float) -> float:
    """Days since 1899-12-30 as seconds since 1970."""
    return (days - UNIX_EPOCH) * DAY


def to_datetime(days: float) -> datetime | None:
    """The moment, in UTC; None for numbers that are none. Before 1899 Delphi counts otherwise."""
    try:
        return _EPOCH + timedelta(seconds=round(to_seconds(days), 6))
    except (OverflowError, ValueError):  # out of range, infinite or not a number
        return None


# ── levels ────────────────────────────────────────────────────────────────────────────────────────

_ORIGINAL: Final[Mapping[int, int]] = {
    0: logging.INFO,
    1: logging.WARNING,
    2: logging.ERROR,
    3: logging.INFO,  # a method is entered
    4: logging.INFO,  # and left
}


def python_level(level: int) -> int:
    """Levels 0 to 4 are the original's (info, warning, error, enter, exit), all others Python's."""
    return _ORIGINAL.get(level, level)


def level_name(level: int) -> str:
    """INFO and the like; a number that has no name is its own."""
    known = logging.getLevelName(python_level(level))
    return str(level) if known.startswith("Level ") else str(known)


# ── data ──────────────────────────────────────────────────────────────────────────────────────────


def pack_data(value: object, most: int) -> tuple[int, bytes]:
    """Format and bytes for whatever a program gives as data; never raises.

    Bytes stay bytes, the rest becomes JSON. What is longer than `most` is cut or left out.
    """
    if value is None:
        return DataFormat.NONE, b""
    if isinstance(value, bytes | bytearray | memoryview):
        return DataFormat.MEMORY, bytes(value)[:most]
    try:
        text = msgspec.json.encode(value, enc_hook=str)
    except Exception:
        text = msgspec.json.encode(_shown(value))
    packed = zlib.compress(text, 1)
    if len(packed) > most:
        packed = zlib.compress(msgspec.json.encode(f"({len(text)} bytes of JSON left out)"))
    return DataFormat.OBJECT, packed


def unpack_data(data_format: int, data: bytes) -> Any:
    """The value that JSON can show; None when there is none. Bytes become ``{"base64": …}``."""
    if not data:
        return None
    try:
        if data_format == DataFormat.STRINGS:
            return data.decode()
        if data_format == DataFormat.OBJECT:
            return msgspec.json.decode(zlib.decompressobj().decompress(data, MOST_INFLATED))
    except (ValueError, zlib.error):  # somebody else's idea of the format: shown as it is
        pass
    return {"base64": base64.b64encode(data).decode()}


def _shown(value: object) -> str:
    try:
        return repr(value).encode("utf-8", "backslashreplace").decode()
    except Exception:
        return f"({type(value).__name__} cannot be shown)"


def entry_json(entry: LogEntry) -> dict[str, Any]:
    """An entry as one JSON document. Its time is UTC, or null when it is none."""
    moment = to_datetime(entry.time)
    shown = {
        "time": moment and moment.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "level": level_name(entry.level),
        "app": entry.application,
        "pid": entry.process_id,
        "thread": entry.thread_id,
        "text": entry.text,
    }
    data = unpack_data(entry.data_format, entry.data)
    return shown if data is None else {**shown, "data": data}


# ── watches ───────────────────────────────────────────────────────────────────────────────────────


def watches_entry(
    watches: Iterable[Watch], application: str, process_id: int, seconds: float
) -> LogEntry:
    """The entry that says what all live watches of a process are now."""
    return LogEntry(
        process_id=process_id,
        application=application,
        time=to_days(seconds),
        data_format=DataFormat.LIVE_WATCHES,
        data=Watches(watches=list(watches)).to_bytes(),
    )


def watches_of(entry: LogEntry) -> list[Watch]:
    """Raises: RecordError when the entry's data are no Watches."""
    if entry.data_format != DataFormat.LIVE_WATCHES:
        raise RecordError("LogEntry", "data_format", f"{entry.data_format} is no watches")
    return Watches.from_bytes(entry.data).watches

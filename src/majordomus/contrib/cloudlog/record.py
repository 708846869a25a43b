"""The records of the cloud logger on the wire, with their tags, and the meaning of their numbers.

`LogEntry`, `Watch` and `Watches` equal those of the original (CloudLogger of DelphiZeroMQ) byte for
byte, so that its programs work with our collector, and ours with its viewer. The other records are
used between our handler, collector and viewer only.

Times are those of Delphi: days since 1899-12-30 as a double, exact to about 1 µs in this century.
We write UTC. The original writes local time without a time zone, which is shown unchanged.
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
"""The prefix of all service names."""
WRITE: Final = f"{SERVICE}.write"
"""One-way: each body frame is a LogEntry. This is the original's own form."""
BATCH: Final = f"{SERVICE}.batch"
"""One-way: one body frame, a Batch."""
TAIL: Final = f"{SERVICE}.tail"
"""A Query. The answer is a stream of Parts."""
MORE: Final = f"{SERVICE}.more"
"""One-way: a Credit. Without it a stream stops after FIRST_CREDIT parts."""
STATUS: Final = f"{SERVICE}.status"
"""The answer has the collector's counters as JSON."""

FIRST_CREDIT: Final = 16
"""Parts that a viewer gets before its first Credit."""

DAY: Final = 86400.0
UNIX_EPOCH: Final = 25569.0
"""1970-01-01 in days since 1899-12-30."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

MOST_INFLATED: Final = 1024 * 1024
"""Most bytes that are decompressed: compressed data may be a bomb."""


class DataFormat(IntEnum):
    """The format of `LogEntry.data`. Entries with a negative format are not lines of the log."""

    NONE = 0
    STRINGS = 1
    """UTF-8 text, Delphi's CommaText."""
    MEMORY = 2
    """Bytes."""
    OBJECT = 3
    """JSON, compressed with zlib."""
    CONNECTED = -1
    MEMORY_USAGE = -2
    LIVE_WATCHES = -3
    """Watches: all watches of the process, which replace the earlier ones."""


class Align(IntEnum):
    """The alignment of a watch's value in its column."""

    LEFT = 0
    CENTER = 1
    RIGHT = 2


class LogEntry(Record):
    """One line of the log, or the live watches of one process."""

    text: Annotated[str, 1] = ""
    level: Annotated[int, 2] = 0
    """A level of `logging`; those of the original are read, too, see `python_level`."""
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

    watches: Annotated[list[Watch], 1] = ()  # type: ignore[assignment]  # a new empty list each time


class Batch(Record):
    """Entries of one process, in order. A sender numbers all its entries from 0.

    first: the number of the first entry.
    dropped: entries directly before it that the sender has dropped. Other missing numbers were lost
        on the way.
    """

    sender: Annotated[bytes, 1] = b""
    """Random, chosen by each process."""
    first: Annotated[uint64, 2] = 0
    dropped: Annotated[uint64, 3] = 0
    records: Annotated[list[LogEntry], 4] = ()  # type: ignore[assignment]


class Query(Record):
    """The entries that a viewer wants."""

    level: Annotated[int, 1] = 0
    """The least level."""
    applications: Annotated[list[str], 2] = ()  # type: ignore[assignment]
    """Only entries of these; all when empty."""
    grep: Annotated[str, 3] = ""
    """A regular expression. Entries that the collector cannot decide cheaply pass, too."""
    last: Annotated[uint32, 4] = 0
    """Most entries from before the query."""
    follow: Annotated[bool, 5] = False
    """Whether new entries follow."""
    watch: Annotated[bool, 6] = False
    """Live watches instead of entries."""
    epoch: Annotated[bytes, 7] = b""
    position: Annotated[uint64, 8] = 0
    """With the epoch of an earlier Part: continue where that one ended."""


class Part(Record):
    """One part of the answer to a Query. The first is sent at once, even when it is empty."""

    records: Annotated[list[LogEntry], 1] = ()  # type: ignore[assignment]
    left_out: Annotated[uint64, 2] = 0
    """Entries since the last part that the viewer missed because it was too slow."""
    epoch: Annotated[bytes, 3] = b""
    """The id of this run of the collector. Positions of another run are not valid."""
    position: Annotated[uint64, 4] = 0
    """The collector's number of the next entry."""
    viewer: Annotated[bytes, 5] = b""
    """The id of the viewer, for a Credit."""


class Credit(Record):
    """The number of parts that a viewer has read; it accepts as many more."""

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
    """The time in UTC; None when out of range. Delphi counts differently before 1899."""
    try:
        return _EPOCH + timedelta(seconds=round(to_seconds(days), 6))
    except (OverflowError, ValueError):  # out of range, infinite or not a number
        return None


# ── levels ────────────────────────────────────────────────────────────────────────────────────────

_ORIGINAL: Final[Mapping[int, int]] = {
    0: logging.INFO,
    1: logging.WARNING,
    2: logging.ERROR,
    3: logging.INFO,  # enter a method
    4: logging.INFO,  # exit a method
}


def python_level(level: int) -> int:
    """Levels 0 to 4 are the original's (info, warning, error, enter, exit), all others Python's."""
    return _ORIGINAL.get(level, level)


def level_name(level: int) -> str:
    """The name of a level, such as INFO; the number itself when it has no name."""
    known = logging.getLevelName(python_level(level))
    return str(level) if known.startswith("Level ") else str(known)


# ── data ──────────────────────────────────────────────────────────────────────────────────────────


def pack_data(value: object, most: int) -> tuple[int, bytes]:
    """The format and the bytes for any value; never raises.

    Bytes stay bytes; other values become JSON. Bytes beyond `most` are cut off, and longer JSON is
    left out.
    """
    if value is None:
        return DataFormat.NONE, b""
    if isinstance(value, bytes | bytearray | memoryview):
        return DataFormat.MEMORY, bytes(value)[:most]
    try:
        text = msgspec.json.encode(value, enc_hook=str)
    except Exception:
        text = msgspec.json.encode(_safe_repr(value))
    packed = zlib.compress(text, 1)
    if len(packed) > most:
        packed = zlib.compress(msgspec.json.encode(f"({len(text)} bytes of JSON left out)"))
    return DataFormat.OBJECT, packed


def unpack_data(data_format: int, data: bytes) -> Any:
    """The value of `data`, as JSON can represent it; None without data.

    Bytes become ``{"base64": …}``.
    """
    if not data:
        return None
    try:
        if data_format == DataFormat.STRINGS:
            return data.decode()
        if data_format == DataFormat.OBJECT:
            return msgspec.json.decode(zlib.decompressobj().decompress(data, MOST_INFLATED))
    except (ValueError, zlib.error):  # not valid in this format: shown as bytes
        pass
    return {"base64": base64.b64encode(data).decode()}


def _safe_repr(value: object) -> str:
    try:
        return repr(value).encode("utf-8", "backslashreplace").decode()
    except Exception:
        return f"({type(value).__name__} cannot be shown)"


def entry_json(entry: LogEntry) -> dict[str, Any]:
    """An entry as one JSON document. Its time is UTC; null when out of range."""
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
    """The entry with all live watches of a process."""
    return LogEntry(
        process_id=process_id,
        application=application,
        time=to_days(seconds),
        data_format=DataFormat.LIVE_WATCHES,
        data=Watches(watches=list(watches)).to_bytes(),
    )


def watches_of(entry: LogEntry) -> list[Watch]:
    """The watches in an entry. Raises: RecordError when it has none."""
    if entry.data_format != DataFormat.LIVE_WATCHES:
        raise RecordError("LogEntry", "data_format", f"{entry.data_format} is no watches")
    return Watches.from_bytes(entry.data).watches

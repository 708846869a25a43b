"""Rows as SQLite has them: the values of the statements, and the checksums over them.

What never changes in a row has one checksum, its outcome has another one. Compiled with the rules
(docs/adr/0015-durable-requests.md): the thread of the store and the broker share one interpreter.
"""

from __future__ import annotations

import struct
from typing import Any, Final
from zlib import crc32

import msgspec

from majordomus.core.broker.durable.records import Complete, StoredOutcome, StoredRequest
from majordomus.durable import sums
from majordomus.durable.store import RowDamagedError

_REPLY: Final = struct.Struct(">qqdd").pack
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list[bytes]).decode


def values_of(row: StoredRequest) -> tuple[Any, ...]:
    """The values of the statements `append` and `append_keyed`."""
    body = _pack(row.body)
    return (
        row.number,
        row.attempts,
        row.most,
        row.due,
        row.accepted,
        row.expires,
        row.keep,
        row.owner,
        row.service,
        row.called,
        row.key or None,
        row.digest or None,
        row.metadata,
        body,
        crc_of(row, body),
    )


def crc_of(row: StoredRequest, body: bytes) -> int:
    """The checksum of everything in a row that never changes."""
    part = sums.constant_part(
        row.number,
        row.accepted,
        row.expires,
        row.keep,
        row.owner.encode(),
        row.service,
        row.called,
        row.key,
        row.digest,
        row.metadata,
    )
    return crc32(body, crc32(part))


def ended(end: Complete) -> tuple[Any, ...]:
    """The values of the statement `complete`."""
    outcome = end.outcome
    reply = _pack(outcome.frames)
    return (
        outcome.status,
        end.attempts,
        reply,
        outcome.metadata,
        crc_of_reply(end.number, outcome, reply),
        outcome.ended,
        outcome.until,
        end.number,
    )


def crc_of_reply(number: int, outcome: StoredOutcome, reply: bytes) -> int:
    head = _REPLY(number, outcome.status, outcome.ended, outcome.until)
    return crc32(reply, crc32(outcome.metadata, crc32(head)))


def row_of(values: tuple[Any, ...]) -> StoredRequest:
    """Return a whole row, checked. Raises: RowDamagedError when its checksums are wrong."""
    (number, status, attempts, most, due, accepted, expires, keep, until, ended, owner) = values[
        :11
    ]
    (service, called, key, digest, metadata, body, crc, reply_metadata, reply, reply_crc) = values[
        11:
    ]
    outcome = None
    try:
        if status is not None:
            frames = _unpack(reply)
            outcome = StoredOutcome(status, frames, reply_metadata, ended, until)
        row = StoredRequest(
            number,
            owner,
            service,
            called,
            _unpack(body),
            metadata,
            accepted,
            expires,
            keep,
            key or b"",
            digest or b"",
            attempts,
            most,
            due,
            outcome,
        )
        good = crc == crc_of(row, body) and _is_counted(row)
        if outcome is not None:
            good = good and reply_crc == crc_of_reply(number, outcome, reply)
    except (
        TypeError,
        ValueError,
        AttributeError,
        OverflowError,
        struct.error,
        msgspec.MsgspecError,
    ):
        good = False  # a value has another type than it was written with
    if not good:
        raise RowDamagedError(f"row {number} is damaged: its checksum is wrong")
    return row


def _is_counted(row: StoredRequest) -> bool:
    """Whether what changes with each attempt, and is in no checksum, has its types."""
    return (
        isinstance(row.attempts, int) and isinstance(row.most, int) and isinstance(row.due, float)
    )


PAGE_TYPES: Final = (int, int | None, int, int, float, float, float, float, float | None)
PAGE_ENDS: Final = (float | None, str, bytes, bytes, bytes | None, bytes | None)


def summary_of(values: tuple[Any, ...]) -> StoredRequest:
    """Return a row of a page: without its bodies, and unchecked but for its types."""
    if not all(map(isinstance, values, PAGE_TYPES + PAGE_ENDS)):
        names = (b"(damaged)", b"(damaged)")
        return StoredRequest(
            int(values[0]), "", *names, [], b"", 0.0, 0.0, 0.0, b"", b"", 0, 0, 0.0
        )
    (number, status, attempts, most, due, accepted, expires, keep, until, ended) = values[:10]
    owner, service, called, key, digest = values[10:]
    outcome = None if status is None else StoredOutcome(status, [], b"", ended, until)
    return StoredRequest(
        number,
        owner,
        service,
        called,
        [],
        b"",
        accepted,
        expires,
        keep,
        key or b"",
        digest or b"",
        attempts,
        most,
        due,
        outcome,
    )

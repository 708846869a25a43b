"""The bytes under a row's checksum, which older files hold: written out here once more."""

from __future__ import annotations

import struct
from math import inf
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from majordomus.core.broker.durable.records import StoredRequest
from majordomus.durable import rows

TIMES = st.floats(allow_nan=False)
TEXT = st.binary(max_size=300)


@given(
    st.integers(-(2**63), 2**63 - 1), TIMES, TIMES, TIMES, st.text(max_size=20), *[TEXT] * 5,
    st.lists(TEXT, max_size=3),
)  # fmt: skip
def test_checksum_is_over_the_same_bytes_compiled_or_not(
    number: int,
    accepted: float,
    expires: float,
    keep: float,
    owner: str,
    service: bytes,
    called: bytes,
    metadata: bytes,
    key: bytes,
    digest: bytes,
    body: list[bytes],
) -> None:
    row = StoredRequest(
        number, owner, service, called, body, metadata, accepted, expires, keep, key, digest, 0, 0,
        0.0, None,
    )  # fmt: skip
    *_, packed, crc = rows.values_of(row)
    texts = [owner.encode(), service, called, key, digest, metadata]
    head = struct.pack(">qddd6I", number, accepted, expires, keep, *map(len, texts))
    assert crc == crc32(head + b"".join(texts) + packed)


def test_times_without_an_end_are_in_it_too() -> None:
    row = StoredRequest(
        1, "", b"s", b"s", [b""], b"", 0.0, inf, 1.0, b"", b"", 0, 0, 0.0, None
    )  # fmt: skip
    other = StoredRequest(
        1, "", b"s", b"s", [b""], b"", 0.0, 9.0, 1.0, b"", b"", 0, 0, 0.0, None
    )  # fmt: skip
    assert rows.values_of(row)[-1] != rows.values_of(other)[-1]
    assert rows.row_of(_stored(row)) == row
    with pytest.raises(rows.RowDamagedError):
        rows.row_of(_stored(other, crc=rows.values_of(row)[-1]))


def _stored(row: StoredRequest, crc: int | None = None) -> tuple[object, ...]:
    """The values as a scan returns them."""
    (number, attempts, most, due, accepted, expires, keep, owner, service, called) = rows.values_of(
        row
    )[:10]
    key, digest, metadata, body, own = rows.values_of(row)[10:]
    times = (due, accepted, expires, keep, None, None)
    texts = (owner, service, called, key, digest, metadata, body)
    return (number, None, attempts, most, *times, *texts, crc or own, None, None, None)

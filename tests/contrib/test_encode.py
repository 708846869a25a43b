"""The sender's short way to a Batch writes what the records themselves write."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from majordomus.contrib.cloudlog.encode import Queued, encode
from majordomus.contrib.cloudlog.record import Batch, LogEntry, to_days

QUEUED = st.builds(
    Queued,
    number=st.just(0),
    text=st.text(),
    level=st.integers(-(1 << 63), (1 << 63) - 1),
    process_id=st.integers(0, 0xFFFFFFFF),
    thread_id=st.integers(0, 0xFFFFFFFF),
    seconds=st.floats(0, 4e9),
    data_format=st.integers(-3, 3),
    data=st.binary(max_size=20),
)


def entry_of(queued: Queued) -> LogEntry:
    _, text, level, process_id, thread_id, seconds, data_format, data = queued
    days = to_days(seconds)
    return LogEntry(text, level, process_id, thread_id, "app", days, data_format, data)


@given(st.lists(QUEUED, min_size=1, max_size=5), st.integers(0, 1 << 40), st.integers(0, 100))
def test_short_way_writes_the_same_bytes_as_the_records(
    queued: list[Queued], first: int, dropped: int
) -> None:
    numbered = [one._replace(number=first + at) for at, one in enumerate(queued)]
    batch = Batch(b"sender", first, dropped, [entry_of(one) for one in numbered])
    assert encode(b"sender", dropped, numbered, "app") == batch.to_bytes()


@pytest.mark.parametrize(
    ("odd", "field", "written"),
    [
        ({"text": "lone \ud800"}, "text", "lone \\ud800"),
        ({"level": 1 << 70}, "level", (1 << 63) - 1),
        ({"level": -(1 << 70)}, "level", -(1 << 63)),
        ({"process_id": -1}, "process_id", 0xFFFFFFFF),
        ({"thread_id": 1 << 40 | 5}, "thread_id", 5),
    ],
)
def test_what_does_not_fit_is_mended_and_its_neighbours_stay(
    odd: dict[str, Any], field: str, written: object
) -> None:
    plain = Queued(0, "plain", 20, 1, 2, 0.0)
    numbered = [plain, plain._replace(number=1, **odd), plain._replace(number=2)]
    batch = Batch.from_bytes(encode(b"s", 0, numbered, "app"))
    assert [entry.text for entry in batch.records][::2] == ["plain", "plain"]
    assert len(batch.records) == 3
    assert getattr(batch.records[1], field) == written

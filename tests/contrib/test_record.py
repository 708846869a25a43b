"""The cloud logger's records: tags and bytes as the original writes them, and what numbers mean."""

from __future__ import annotations

import json
import logging
import math
import tracemalloc
import zlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from majordomus.contrib.cloudlog.record import (
    Align,
    Batch,
    DataFormat,
    LogEntry,
    Watch,
    Watches,
    entry_json,
    level_name,
    pack_data,
    python_level,
    to_datetime,
    to_days,
    to_seconds,
    unpack_data,
    watches_entry,
    watches_of,
)
from majordomus.errors import RecordError

ENTRY = LogEntry(
    text="hi",
    level=20,
    process_id=1,
    thread_id=0x01020304,
    application="app",
    time=2.0,
    data_format=2,
    data=b"\xff",
)


def test_entry_is_byte_for_byte_what_its_tags_and_kinds_say() -> None:
    assert ENTRY.to_bytes().hex(" ") == " ".join(
        [
            "0a 02 68 69",  # 1 text
            "10 28",  # 2 level, zigzag: 20 is 40
            "1d 01 00 00 00",  # 3 process id, fixed32
            "25 04 03 02 01",  # 4 thread id, fixed32
            "2a 03 61 70 70",  # 5 application
            "31 00 00 00 00 00 00 00 40",  # 6 time, double
            "38 04",  # 7 data format, zigzag
            "42 01 ff",  # 8 data
        ]
    )


def test_entry_writes_zero_numbers_and_no_empty_texts_as_the_original_does() -> None:
    written = "10 00 1d 00 00 00 00 25 00 00 00 00 31 00 00 00 00 00 00 00 00 38 00"
    assert LogEntry().to_bytes().hex(" ") == written


def test_entry_reads_what_it_writes() -> None:
    assert LogEntry.from_bytes(ENTRY.to_bytes()) == ENTRY


def test_live_watches_are_the_originals_record_under_the_originals_format() -> None:
    entry = watches_entry([Watch("n", "v", Align.RIGHT)], "app", 7, 0.0)
    assert entry.data.hex(" ") == "0a 08 0a 01 6e 12 01 76 18 02"
    assert entry.data_format == -3
    assert watches_of(entry) == [Watch("n", "v", Align.RIGHT)]
    assert Watches.from_bytes(entry.data) == Watches([Watch("n", "v", Align.RIGHT)])


def test_entry_that_holds_no_watches_says_so() -> None:
    with pytest.raises(RecordError):
        watches_of(ENTRY)


def test_batch_is_the_entries_with_a_head() -> None:
    inner = LogEntry().to_bytes()
    written = Batch(sender=b"s", first=3, dropped=1, records=[LogEntry(), LogEntry()]).to_bytes()
    assert written == b"\x0a\x01s\x10\x03\x18\x01" + 2 * (b"\x22" + bytes([len(inner)]) + inner)


# ── time ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("days", "moment"),
    [
        (0.0, datetime(1899, 12, 30, tzinfo=UTC)),
        (25569.0, datetime(1970, 1, 1, tzinfo=UTC)),
        (36526.5, datetime(2000, 1, 1, 12, tzinfo=UTC)),
        (45292.25, datetime(2024, 1, 1, 6, tzinfo=UTC)),
    ],
)
def test_time_is_days_since_the_end_of_1899(days: float, moment: datetime) -> None:
    assert to_datetime(days) == moment
    assert to_days(moment.timestamp()) == days


@given(st.floats(0, 4e9))
def test_time_survives_to_the_microsecond_or_two(seconds: float) -> None:
    assert abs(to_seconds(to_days(seconds)) - seconds) < 2e-6


@pytest.mark.parametrize("days", [math.nan, math.inf, -math.inf, 1e300, -1e9])
def test_number_that_is_no_time_is_none(days: float) -> None:
    assert to_datetime(days) is None
    assert entry_json(LogEntry(time=days))["time"] is None


# ── levels and data ───────────────────────────────────────────────────────────────────────────────


def test_levels_are_pythons_and_the_originals_are_understood() -> None:
    assert [python_level(level) for level in (0, 1, 2, 3, 4)] == [20, 30, 40, 20, 20]
    assert [python_level(level) for level in (5, 10, 50)] == [5, 10, 50]
    assert [level_name(level) for level in (1, logging.CRITICAL, 33)] == [
        "WARNING",
        "CRITICAL",
        "33",
    ]


def test_data_are_bytes_or_packed_json() -> None:
    assert pack_data(None, 100) == (DataFormat.NONE, b"")
    assert pack_data(b"\0\1", 1) == (DataFormat.MEMORY, b"\0")
    kind, packed = pack_data({"a": [1, "x"]}, 100)
    assert kind == DataFormat.OBJECT
    assert json.loads(zlib.decompress(packed)) == {"a": [1, "x"]}
    assert unpack_data(kind, packed) == {"a": [1, "x"]}


def test_data_that_json_cannot_say_are_shown_in_words() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise ValueError

    circle: list[object] = []
    circle.append(circle)
    assert unpack_data(*pack_data({"a": complex(1, 2)}, 500)) == {"a": "(1+2j)"}
    assert unpack_data(*pack_data(circle, 500)) == "[[...]]"
    assert unpack_data(*pack_data([Odd()], 500)) == "(list cannot be shown)"


def test_data_that_are_too_large_are_left_out() -> None:
    packed = pack_data([str(number) for number in range(10_000)], 500)
    assert unpack_data(*packed) == "(68891 bytes of JSON left out)"


def test_data_of_others_are_shown_as_far_as_they_can_be() -> None:
    assert unpack_data(DataFormat.STRINGS, b"a,b") == "a,b"
    assert unpack_data(DataFormat.OBJECT, b"no zlib") == {"base64": "bm8gemxpYg=="}
    assert unpack_data(DataFormat.STRINGS, b"\xff") == {"base64": "/w=="}
    assert unpack_data(77, b"x") == {"base64": "eA=="}


def test_packed_bomb_is_not_unpacked() -> None:
    bomb = zlib.compress(b'"' + b"a" * 50_000_000 + b'"')
    tracemalloc.start()
    shown = unpack_data(DataFormat.OBJECT, bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert set(shown) == {"base64"}
    assert peak < 10_000_000


def test_json_of_an_entry_names_everything_that_a_program_may_look_for() -> None:
    entry = LogEntry("x\ny", 30, 1, 2, "app", 45292.25, *pack_data({"a": 1}, 100))
    assert entry_json(entry) == {
        "time": "2024-01-01T06:00:00.000000Z",
        "level": "WARNING",
        "app": "app",
        "pid": 1,
        "thread": 2,
        "text": "x\ny",
        "data": {"a": 1},
    }

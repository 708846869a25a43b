"""The ring of a collector: bounded twice, and read by number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from majordomus.contrib.cloudlog.ring import Ring
from majordomus.errors import ConfigurationError


def test_ring_keeps_the_last_entries_under_their_numbers() -> None:
    ring = Ring(3, 1000)
    ring.append([b"0", b"1"])
    assert (ring.first, ring.end, ring.read(0, 10)) == (0, 2, [b"0", b"1"])
    ring.append([b"2", b"3", b"4"])
    assert (ring.first, ring.end, ring.read(2, 10)) == (2, 5, [b"2", b"3", b"4"])
    assert ring.read(3, 1) == [b"3"]
    assert ring.read(5, 10) == []


def test_ring_drops_entries_until_their_bytes_fit() -> None:
    ring = Ring(100, 10)
    ring.append([b"aaaa", b"bbbb", b"cccc"])
    assert (ring.first, ring.size, ring.read(1, 10)) == (1, 8, [b"bbbb", b"cccc"])
    ring.append([b"d" * 11])
    assert (ring.first, ring.end, ring.size) == (4, 4, 0)


def test_one_reading_is_bounded_in_bytes() -> None:
    ring = Ring(100, 10_000_000)
    ring.append([bytes(300_000)] * 4)
    assert len(ring.read(0, 4)) == 2


@given(
    st.integers(1, 7),
    st.integers(1, 20),
    st.lists(st.lists(st.binary(max_size=6), max_size=9), max_size=9),
)
def test_ring_is_a_window_on_all_that_was_ever_appended(
    capacity: int, max_bytes: int, batches: list[list[bytes]]
) -> None:
    ring, everything = Ring(capacity, max_bytes), list[bytes]()
    for batch in batches:
        ring.append(batch)
        everything += batch
        assert ring.end == len(everything)
        assert ring.read(ring.first, 100) == everything[ring.first :]
        assert ring.size == sum(map(len, everything[ring.first :])) <= max_bytes
        assert ring.end - ring.first <= capacity


@pytest.mark.parametrize("bounds", [(0, 1), (1, 0)])
def test_ring_without_room_is_refused(bounds: tuple[int, int]) -> None:
    with pytest.raises(ConfigurationError):
        Ring(*bounds)

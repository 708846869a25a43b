"""MurmurHash2A: against the incremental definition, written out again here from the page."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from majordomus.protocol.murmur import murmur2a
from tests.protocol.fuzzing import few

M = 0x5BD1E995
WORD = 0xFFFFFFFF


def incremental(frames: list[bytes]) -> int:
    """Byte for byte, as `CMurmurHash2A` is fed: the tail is carried from one frame to the next."""
    state, tail, count, size = 0, 0, 0, 0

    def mix(state: int, word: int) -> int:
        word = word * M & WORD
        word = (word ^ word >> 24) * M & WORD
        return (state * M & WORD) ^ word

    for frame in frames:
        for byte in frame:
            tail |= byte << (8 * count)
            count += 1
            size += 1
            if count == 4:
                state = mix(state, tail)
                tail = count = 0
    state = mix(mix(state, tail), size)
    state ^= state >> 13
    state = state * M & WORD
    return state ^ state >> 15


@few
@given(st.lists(st.binary(max_size=40), max_size=6))
@example([])
@example([b"", b""])
@example([b"\xff" * 4])
@example([b"abc", b"de"])
def test_hash_equals_the_incremental_definition(frames: list[bytes]) -> None:
    assert murmur2a(frames) == incremental(frames)


def test_hash_of_large_frames_does_not_depend_on_where_they_are_cut() -> None:
    data = bytes(range(256)) * 1030 + b"xyz"
    whole = murmur2a([data])
    assert whole == incremental([data])
    for cut in (1, 65535, 65536, 65537, 131072, len(data) - 1):
        assert murmur2a([data[:cut], data[cut:]]) == whole


def test_hash_takes_an_iterator_and_any_bytes_like_frame() -> None:
    assert murmur2a(iter([memoryview(b"abc"), bytearray(b"de")])) == murmur2a([b"abcde"])

"""Metadata: limits, types, and the end of the broker's map before the sender's."""

from __future__ import annotations

import datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from majordomus.errors import LocalProtocolError, RemoteProtocolError
from majordomus.protocol import metadata, spec
from tests.protocol.fuzzing import few

BOTH = spec.METADATA | spec.BROKER_METADATA

keys = st.text(max_size=8)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=40)
    | st.binary(max_size=40)
)
level_4 = st.lists(scalars, max_size=3) | st.dictionaries(keys, scalars, max_size=3)
level_3 = st.lists(scalars | level_4, max_size=3) | st.dictionaries(keys, level_4, max_size=3)
level_2 = st.lists(scalars | level_3, max_size=3) | st.dictionaries(keys, level_3, max_size=3)
maps = st.dictionaries(keys, scalars | level_2, max_size=20).filter(
    lambda values: len(msgspec.msgpack.encode(values)) <= spec.MAX_METADATA
)


def _nested(levels: int) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for _ in range(levels - 1):
        values = {"a": values}
    return values


@few
@given(maps)
def test_map_is_unpacked_as_it_was_packed(values: dict[str, Any]) -> None:
    assert metadata.unpack(metadata.pack(values)) == values


@few
@given(maps, maps)
def test_two_maps_are_split_where_the_first_ends(
    ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    raw = (metadata.pack(ours), metadata.pack(theirs))
    data = b"".join(raw)
    assert metadata.split(data, BOTH) == (ours, theirs)
    assert metadata.split_raw(data, BOTH) == raw
    assert metadata.split_raw(raw[0], spec.BROKER_METADATA) == (raw[0], b"")
    assert metadata.split_raw(raw[1], spec.METADATA) == (b"", raw[1])


@pytest.mark.parametrize(
    "value",
    [
        "x" * 31,
        "x" * 32,
        "x" * 255,
        "x" * 256,
        b"x" * 255,
        b"x" * 256,
        list(range(15)),
        list(range(16)),
        {str(n): n for n in range(15)},
        {str(n): n for n in range(16)},
        [1.5, -1, -33, 127, 128, 255, 256, 65536, 2**32, -129, -32769, -(2**31) - 1],
        [None, True, False],
    ],
    ids=lambda value: f"{type(value).__name__}-{len(value)}",
)
def test_end_of_a_map_is_found_for_every_messagepack_form(value: Any) -> None:
    ours = metadata.pack({"value": value})
    assert metadata.split_raw(ours + b"\x80", BOTH) == (ours, b"\x80")


@pytest.mark.parametrize(
    "form",
    [
        "ca3fc00000",
        "c70105ff",
        "c800010500",
        "c90000000105ff",
        "d9020000",
        "da00020000",
        "db000000020000",
        "c6000000020000",
        "dd0000000101",
        "df00000001a16101",
    ],
)
def test_end_of_a_map_is_found_for_forms_that_we_never_write(form: str) -> None:
    """Long forms of short values, and extension types, which are refused."""
    ours = b"\x81\xa1a" + bytes.fromhex(form)
    if form[:2] in ("c7", "c8", "c9"):
        with pytest.raises(RemoteProtocolError, match="bad-metadata"):
            metadata.split_raw(ours + b"\x80", BOTH)
    else:
        assert metadata.split_raw(ours + b"\x80", BOTH) == (ours, b"\x80")


@pytest.mark.parametrize("announced", ["de0001", "df00000001"])
def test_key_that_comes_twice_is_refused_behind_long_heads_too(announced: str) -> None:
    once = bytes.fromhex(announced) + b"\xa1a\x01"
    twice = bytes.fromhex(announced[:-1] + "2") + b"\xa1a\x01\xa1a\x02"
    assert metadata.unpack(once) == {"a": 1}
    with pytest.raises(RemoteProtocolError, match="a key comes twice"):
        metadata.unpack(twice)


def test_four_levels_are_allowed_and_five_are_not() -> None:
    four, five = _nested(4), _nested(5)
    assert metadata.unpack(metadata.pack(four)) == four
    with pytest.raises(LocalProtocolError, match="deep-metadata"):
        metadata.pack(five)
    with pytest.raises(RemoteProtocolError, match="deep-metadata"):
        metadata.unpack(msgspec.msgpack.encode(five))


def test_nesting_that_would_exhaust_the_stack_is_refused_as_deep() -> None:
    with pytest.raises(RemoteProtocolError, match="deep-metadata"):
        metadata.unpack(b"\x81\xa1a" * 1300 + b"\x80")


def test_map_that_contains_itself_is_refused_as_deep() -> None:
    endless: dict[str, Any] = {}
    endless["self"] = endless
    with pytest.raises(LocalProtocolError, match="deep-metadata"):
        metadata.pack(endless)


def test_map_of_4096_bytes_is_the_largest() -> None:
    largest = {"a": b"x" * (4096 - 6)}
    assert len(metadata.pack(largest)) == 4096
    assert metadata.unpack(metadata.pack(largest)) == largest
    with pytest.raises(LocalProtocolError, match="long-metadata"):
        metadata.pack({"a": b"x" * (4096 - 5)})
    with pytest.raises(RemoteProtocolError, match="long-metadata"):
        metadata.unpack(msgspec.msgpack.encode({"a": b"x" * (4096 - 5)}))


def test_each_map_has_the_limit_for_itself() -> None:
    largest = metadata.pack({"a": b"x" * (4096 - 6)})
    assert metadata.split_raw(largest * 2, BOTH) == (largest, largest)
    too_long = msgspec.msgpack.encode({"a": b"x" * (4096 - 5)})
    with pytest.raises(RemoteProtocolError, match="long-metadata"):
        metadata.split_raw(too_long + b"\x80", BOTH)


@pytest.mark.parametrize(
    "values",
    [
        {1: "key"},
        {"a": {1: "key"}},
        {"a": {1, 2}},
        {"a": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)},
        {"a": object()},
        {"a": 2**64},
        {"a": "\ud800"},
        {"\ud800": "a"},
    ],
    ids=repr,
)
def test_values_that_readers_refuse_are_not_packed(values: Any) -> None:
    with pytest.raises(LocalProtocolError, match="bad-metadata"):
        metadata.pack(values)


def test_no_flag_means_no_bytes_and_two_empty_maps() -> None:
    assert metadata.split(b"", 0) == ({}, {})
    assert metadata.split_raw(b"", spec.ONCE) == (b"", b"")
    with pytest.raises(RemoteProtocolError, match="trailing-bytes"):
        metadata.split(b"\x80", spec.ONCE)

"""Wire: it explains whatever upb refuses, and never anything that upb takes."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from majordomus.errors import RecordError
from majordomus.messages.wire import explain
from tests.messages.samples import PERSONS, Everything, Person, everythings

CODEC = Everything.__record__  # type: ignore[attr-defined]


def refused(data: bytes) -> bool:
    try:
        CODEC.message.FromString(data)
    except DecodeError:
        return True
    return False


@given(st.binary(max_size=60))
@settings(max_examples=500, deadline=None)
def test_rubbish_is_refused_with_a_reason_and_nothing_else_happens(data: bytes) -> None:
    try:
        repr(Everything.from_bytes(data))
    except RecordError as error:
        assert error.detail
    path, reason = explain(CODEC, data)
    assert bool(reason) == refused(data), (path, reason)


@given(everythings(), st.randoms(use_true_random=False))
@settings(max_examples=500, deadline=None)
def test_mutilated_record_is_refused_with_a_reason(value: Everything, random: Random) -> None:
    data = bytearray(value.to_bytes())
    for _ in range(random.randint(1, 3)):
        if data:
            data[random.randrange(len(data))] = random.randrange(256)
    cut = bytes(data[: random.randint(0, len(data))])
    for mutilated in (bytes(data), cut):
        assert bool(explain(CODEC, mutilated)[1]) == refused(mutilated)


@given(PERSONS)
@settings(max_examples=50, deadline=None)
def test_sound_record_has_nothing_wrong_even_strictly(value: Person) -> None:
    codec = Person.__record__  # type: ignore[attr-defined]
    assert explain(codec, value.to_bytes(), strict=True) == ("", "")


@given(everythings())
@settings(max_examples=100, deadline=None)
def test_sound_record_of_every_kind_has_nothing_wrong_even_strictly(value: Everything) -> None:
    assert explain(CODEC, value.to_bytes(), strict=True) == ("", "")


@pytest.mark.parametrize(
    ("data", "path", "reason"),
    [
        ("08", "a_double", "varint on the wire, expected 64-bit"),
        ("1d00000000", "an_int32", "32-bit on the wire, expected varint"),
        ("f00102", "", ""),  # a packed list may come unpacked
        ("ea0102080a", "maybe_phone.number", "varint on the wire, expected length-delimited"),
        ("b80201", "counts", "varint on the wire, expected length-delimited"),
    ],
)
def test_other_wire_type_is_wrong_if_one_is_strict(data: str, path: str, reason: str) -> None:
    full = bytes.fromhex(data + ("00" if data == "08" else ""))
    assert explain(CODEC, full, strict=True) == (path, reason)
    assert explain(CODEC, full) == ("", "")


def test_explanation_looks_at_a_bounded_number_of_fields() -> None:
    """4 MiB of sound fields and one bad byte: what is wrong is not searched for to the end."""
    looked = 0

    class Counted(bytes):
        def __getitem__(self, key: Any) -> Any:
            nonlocal looked
            looked += 1
            return super().__getitem__(key)

    data = Counted(b"\xfa\x7f\x00" * (1 << 20) + b"\xff")
    assert explain(CODEC, data) == ("", "")
    assert looked < 200_000
    with pytest.raises(RecordError):
        Everything.from_bytes(bytes(data))

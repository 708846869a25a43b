"""Wire: it finds an error in all bytes that upb rejects, and in no others."""

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


def upb_rejects(data: bytes) -> bool:
    try:
        CODEC.message.FromString(data)
    except DecodeError:
        return True
    return False


@given(st.binary(max_size=60))
@settings(max_examples=500, deadline=None)
def test_random_bytes_are_rejected_with_a_reason(data: bytes) -> None:
    try:
        repr(Everything.from_bytes(data))
    except RecordError as error:
        assert error.detail
    path, reason = explain(CODEC, data)
    assert bool(reason) == upb_rejects(data), (path, reason)


@given(everythings(), st.randoms(use_true_random=False))
@settings(max_examples=500, deadline=None)
def test_damaged_record_is_rejected_with_a_reason(value: Everything, random: Random) -> None:
    data = bytearray(value.to_bytes())
    for _ in range(random.randint(1, 3)):
        if data:
            data[random.randrange(len(data))] = random.randrange(256)
    cut = bytes(data[: random.randint(0, len(data))])
    for damaged in (bytes(data), cut):
        assert bool(explain(CODEC, damaged)[1]) == upb_rejects(damaged)


@given(PERSONS)
@settings(max_examples=50, deadline=None)
def test_strict_check_finds_no_error_in_a_valid_record(value: Person) -> None:
    codec = Person.__record__  # type: ignore[attr-defined]
    assert explain(codec, value.to_bytes(), strict=True) == ("", "")


@given(everythings())
@settings(max_examples=100, deadline=None)
def test_strict_check_finds_no_error_in_a_valid_record_of_all_kinds(value: Everything) -> None:
    assert explain(CODEC, value.to_bytes(), strict=True) == ("", "")


@pytest.mark.parametrize(
    ("data", "path", "reason"),
    [
        ("08", "a_double", "varint on the wire, expected 64-bit"),
        ("1d00000000", "an_int32", "32-bit on the wire, expected varint"),
        ("f00102", "", ""),  # a packed list may be sent unpacked
        ("ea0102080a", "maybe_phone.number", "varint on the wire, expected length-delimited"),
        ("b80201", "counts", "varint on the wire, expected length-delimited"),
    ],
)
def test_only_the_strict_check_rejects_a_wrong_wire_type(data: str, path: str, reason: str) -> None:
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

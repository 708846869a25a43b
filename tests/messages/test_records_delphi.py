"""Records are encoded byte for byte as DelphiZeroMQ encodes them, by docs/spec/delphi.md.

    Int8 … Int64 zigzag varints · UInt8 … UInt64, Boolean, enums plain varints · FixedInt,
    FixedUInt, Single and Double 4 or 8 bytes · strings, bytes and records with their length ·
    arrays of numbers packed, others repeated · zero numbers are written, empty strings and bytes
    are not

`write` implements only these rules. It is independent of upb and of the descriptors under test.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from majordomus.messages import (
    fixed32,
    fixed64,
    record,
    sfixed32,
    sfixed64,
    single,
    sint32,
    uint32,
    uint64,
)
from tests.messages.samples import (
    DOUBLES,
    I32,
    I64,
    TEXTS,
    U32,
    U64,
    Groups,
    Person,
    PhoneNumber,
    PhoneType,
)

# -- the rules


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def zigzag(value: int) -> bytes:
    return varint(value << 1 if value >= 0 else (-value << 1) - 1)


NUMBERS: dict[str, tuple[int, Callable[[Any], bytes]]] = {
    "signed": (0, zigzag),
    "unsigned": (0, varint),
    "boolean": (0, varint),
    "enum": (0, lambda value: varint(value.value)),
    "fixed32": (5, lambda value: struct.pack("<I", value)),
    "fixed64": (1, lambda value: struct.pack("<Q", value)),
    "sfixed32": (5, lambda value: struct.pack("<i", value)),
    "sfixed64": (1, lambda value: struct.pack("<q", value)),
    "single": (5, lambda value: struct.pack("<f", value)),
    "double": (1, lambda value: struct.pack("<d", value)),
}


def length_delimited(tag: int, data: bytes) -> bytes:
    return varint(tag << 3 | 2) + varint(len(data)) + data


def write(fields: list[tuple[int, str, Any]]) -> bytes:
    """Encode `fields`: the tag, type and value of each. The type of a list is in brackets."""
    return b"".join(write_field(*field) for field in fields)


def write_field(tag: int, type_: str, value: Any) -> bytes:
    if type_ in NUMBERS:
        wire, pack = NUMBERS[type_]
        return varint(tag << 3 | wire) + pack(value)
    if type_ == "string":
        return length_delimited(tag, value.encode()) if value else b""
    if type_ == "bytes":
        return length_delimited(tag, value) if value else b""
    if type_ == "record":
        return length_delimited(tag, write(value))
    element = type_.strip("[]")
    if element in NUMBERS:
        packed = b"".join(map(NUMBERS[element][1], value))
        return length_delimited(tag, packed) if value else b""
    if element == "record":
        return b"".join(length_delimited(tag, write(one)) for one in value)
    return b"".join(length_delimited(tag, one.encode()) for one in value)


# -- DelphiZeroMQ's samples


def phone_fields(phone: PhoneNumber) -> list[tuple[int, str, Any]]:
    return [(1, "string", phone.number), (2, "enum", phone.type)]


def person_fields(person: Person) -> list[tuple[int, str, Any]]:
    return [
        (1, "string", person.name),
        (2, "unsigned", person.id),
        (3, "string", person.email),
        (4, "[record]", [phone_fields(phone) for phone in person.phone]),
    ]


def test_person_is_encoded_as_delphizeromq_encodes_it() -> None:
    person = Person(
        "Erik van Bilsen",
        42,
        "erik@grijjy.com",
        [PhoneNumber("Number1", PhoneType.MOBILE), PhoneNumber("Number2", PhoneType.WORK)],
    )
    expected = bytes.fromhex(
        "0a0f4572696b2076616e2042696c73656e"
        "102a"
        "1a0f6572696b406772696a6a792e636f6d"
        "220b0a074e756d626572311000"
        "220b0a074e756d626572321002"
    )
    assert write(person_fields(person)) == expected
    assert person.to_bytes() == expected
    assert Person.from_bytes(expected) == person


@record
class PersonEx:
    """A Delphi set is encoded as its bits: Family and Work are 5."""

    person: Annotated[Person, 1]
    groups: Annotated[Groups, 2]


def test_set_is_encoded_as_its_bits() -> None:
    person = Person("Allen", 24, "", [])
    expected = bytes.fromhex("0a090a05416c6c656e10181005")
    assert PersonEx(person, Groups.FAMILY | Groups.WORK).to_bytes() == expected


# -- every rule


@record
class Number:
    value: Annotated[int, 1] = 0


@record
class Text:
    value: Annotated[str, 1] = ""


@record
class Blob:
    value: Annotated[bytes, 1] = b""


@record
class Truth:
    value: Annotated[bool, 1] = False


@record
class Holder:
    text: Annotated[Text, 1]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Number(0), "0800"),
        (Number(-1), "0801"),
        (Number(1), "0802"),
        (Number(-64), "087f"),
        (Number(64), "088001"),
        (Number(-(1 << 31)), "08ffffffff0f"),
        (Number(-(1 << 63)), "08ffffffffffffffffff01"),
        (Number((1 << 63) - 1), "08feffffffffffffffff01"),
        (Truth(False), "0800"),
        (Truth(True), "0801"),
        (Text(""), ""),
        (Text("ü"), "0a02c3bc"),
        (Blob(b""), ""),
        (Blob(b"\x00"), "0a0100"),
    ],
)
def test_record_is_encoded_by_the_rules_of_the_spec(value: Any, expected: str) -> None:
    assert value.to_bytes().hex() == expected
    assert type(value).from_bytes(bytes.fromhex(expected)) == value


def test_nested_record_without_encoded_fields_is_written() -> None:
    assert Holder(Text("")).to_bytes().hex() == "0a00"  # type: ignore[attr-defined]


class Nested(enum.IntEnum):
    FOO = 0
    BAR = 1
    BAZ = 2


@record
class AllTypes:
    """TAllTypes of DelphiZeroMQ's unit tests."""

    my_uint8: Annotated[uint32, 1]
    my_uint64: Annotated[uint64, 4]
    my_int8: Annotated[sint32, 5]
    my_int64: Annotated[int, 8]
    my_fixed_uint32: Annotated[fixed32, 9]
    my_fixed_uint64: Annotated[fixed64, 10]
    my_fixed_int32: Annotated[sfixed32, 11]
    my_fixed_int64: Annotated[sfixed64, 12]
    my_single: Annotated[single, 13]
    my_double: Annotated[float, 14]
    my_boolean: Annotated[bool, 15]
    my_string: Annotated[str, 16]
    my_bytes: Annotated[bytes, 17]
    my_nested_message: Annotated[Number, 18]
    my_nested_enum: Annotated[Nested, 19]
    my_repeated_uint32: Annotated[list[uint32], 22]
    my_repeated_int64: Annotated[list[int], 27]
    my_repeated_fixed_uint32: Annotated[list[fixed32], 28]
    my_repeated_single: Annotated[list[single], 32]
    my_repeated_double: Annotated[list[float], 33]
    my_repeated_boolean: Annotated[list[bool], 34]
    my_repeated_string: Annotated[list[str], 35]
    my_repeated_nested_message: Annotated[list[Number], 36]
    my_repeated_nested_enum: Annotated[list[Nested], 37]


TYPES = {
    "my_uint8": "unsigned",
    "my_uint64": "unsigned",
    "my_int8": "signed",
    "my_int64": "signed",
    "my_fixed_uint32": "fixed32",
    "my_fixed_uint64": "fixed64",
    "my_fixed_int32": "sfixed32",
    "my_fixed_int64": "sfixed64",
    "my_single": "single",
    "my_double": "double",
    "my_boolean": "boolean",
    "my_string": "string",
    "my_bytes": "bytes",
    "my_nested_message": "record",
    "my_nested_enum": "enum",
    "my_repeated_uint32": "[unsigned]",
    "my_repeated_int64": "[signed]",
    "my_repeated_fixed_uint32": "[fixed32]",
    "my_repeated_single": "[single]",
    "my_repeated_double": "[double]",
    "my_repeated_boolean": "[boolean]",
    "my_repeated_string": "[string]",
    "my_repeated_nested_message": "[record]",
    "my_repeated_nested_enum": "[enum]",
}


def number_fields(number: Number) -> list[tuple[int, str, Any]]:
    return [(1, "signed", number.value)]


def all_fields(value: AllTypes) -> list[tuple[int, str, Any]]:
    fields: list[tuple[int, str, Any]] = []
    for spec in AllTypes.__record__.specs:  # type: ignore[attr-defined]
        given = getattr(value, spec.name)
        if TYPES[spec.name] == "record":
            given = number_fields(given)
        elif TYPES[spec.name] == "[record]":
            given = [number_fields(one) for one in given]
        fields.append((spec.tag, TYPES[spec.name], given))
    return fields


SINGLES = st.floats(width=32, allow_nan=False)
ALL_TYPES = st.builds(
    AllTypes,
    st.integers(0, 255),
    U64,
    st.integers(-128, 127),
    I64,
    U32,
    U64,
    I32,
    I64,
    SINGLES,
    DOUBLES,
    st.booleans(),
    TEXTS,
    st.binary(max_size=9),
    st.builds(Number, I64),
    st.sampled_from(Nested),
    st.lists(U32, max_size=5),
    st.lists(I64, max_size=5),
    st.lists(U32, max_size=5),
    st.lists(SINGLES, max_size=5),
    st.lists(DOUBLES, max_size=5),
    st.lists(st.booleans(), max_size=5),
    st.lists(TEXTS, max_size=5),
    st.lists(st.builds(Number, I64), max_size=5),
    st.lists(st.sampled_from(Nested), max_size=5),
)


@given(ALL_TYPES)
@settings(max_examples=300, deadline=None)
def test_any_record_has_the_bytes_of_an_independent_encoder(value: AllTypes) -> None:
    expected = write(all_fields(value))
    assert value.to_bytes() == expected  # type: ignore[attr-defined]
    assert AllTypes.from_bytes(expected) == value  # type: ignore[attr-defined]


@given(ALL_TYPES, st.randoms())
@settings(max_examples=100, deadline=None)
def test_fields_are_decoded_in_any_order(value: AllTypes, random: Any) -> None:
    """DelphiZeroMQ writes fields in the order of their declaration."""
    fields = all_fields(value)
    random.shuffle(fields)
    assert AllTypes.from_bytes(write(fields)) == value  # type: ignore[attr-defined]

"""Kinds: the protobuf types of a field, and the markers in an annotation that choose one.

    Annotated[int, 2]               sint64 (zigzag), as DelphiZeroMQ writes Integer and Int64
    Annotated[uint32, 2]            an int as uint32
    Annotated[int, 2, implicit]     plain proto3: zero is not written
    Annotated[str | None, 3, OneOf("contact")]

An annotation without a marker gets the kind of its Python type; fields.py has that table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

__all__ = [
    "BOOL",
    "BYTES",
    "DOUBLE",
    "DURATION",
    "ENUM",
    "FLAG",
    "RECORD",
    "SCALARS",
    "SINT64",
    "STRING",
    "TIMESTAMP",
    "Kind",
    "Marker",
    "OneOf",
    "fixed32",
    "fixed64",
    "implicit",
    "int32",
    "int64",
    "sfixed32",
    "sfixed64",
    "single",
    "sint32",
    "sint64",
    "uint32",
    "uint64",
    "unpacked",
]


@dataclass(frozen=True, slots=True)
class Kind:
    """A protobuf type of a field.

    The attributes, one line each:

    `name`: the type's name in .proto text; "message" and "enum" for a class of the user.
    `number`: its FieldDescriptorProto.Type.
    `packable`: whether a list of it can be packed, that is, written without a tag for each item.
    `message`: the full name of a well-known message, such as google.protobuf.Timestamp, else "".
    """

    name: str
    number: int
    packable: bool = True
    message: str = ""


DOUBLE = Kind("double", 1)
SINGLE = Kind("float", 2)
INT64 = Kind("int64", 3)
UINT64 = Kind("uint64", 4)
INT32 = Kind("int32", 5)
FIXED64 = Kind("fixed64", 6)
FIXED32 = Kind("fixed32", 7)
BOOL = Kind("bool", 8)
STRING = Kind("string", 9, packable=False)
RECORD = Kind("message", 11, packable=False)
BYTES = Kind("bytes", 12, packable=False)
UINT32 = Kind("uint32", 13)
ENUM = Kind("enum", 14)
SFIXED32 = Kind("sfixed32", 15)
SFIXED64 = Kind("sfixed64", 16)
SINT32 = Kind("sint32", 17)
SINT64 = Kind("sint64", 18)
FLAG = Kind("uint32", 13)
TIMESTAMP = Kind("message", 11, packable=False, message="google.protobuf.Timestamp")
DURATION = Kind("message", 11, packable=False, message="google.protobuf.Duration")

SCALARS: dict[int, Kind] = {
    kind.number: kind
    for kind in (
        DOUBLE,
        SINGLE,
        INT64,
        UINT64,
        INT32,
        FIXED64,
        FIXED32,
        BOOL,
        STRING,
        BYTES,
        UINT32,
        SFIXED32,
        SFIXED64,
        SINT32,
        SINT64,
    )
}

int32 = Annotated[int, INT32]
int64 = Annotated[int, INT64]
uint32 = Annotated[int, UINT32]
uint64 = Annotated[int, UINT64]
sint32 = Annotated[int, SINT32]
sint64 = Annotated[int, SINT64]
fixed32 = Annotated[int, FIXED32]
fixed64 = Annotated[int, FIXED64]
sfixed32 = Annotated[int, SFIXED32]
sfixed64 = Annotated[int, SFIXED64]
single = Annotated[float, SINGLE]


@dataclass(frozen=True, slots=True)
class Marker:
    """A marker in an annotation that changes how the field is encoded; errors show its `name`."""

    name: str


implicit = Marker("implicit")
"""proto3's implicit presence: a zero is not written, and an absent field is decoded as zero."""
unpacked = Marker("unpacked")
"""A list of numbers is written as one tag and value per item, proto2's default."""


@dataclass(frozen=True, slots=True)
class OneOf:
    """The field belongs to the oneof `name`; at most one field of a oneof is not None."""

    name: str

"""Kinds: what a field can be on the wire, and the marker types by which an annotation says so.

    Annotated[int, 2]               sint64: zigzag, what the original writes for Integer and Int64
    Annotated[uint32, 2]            the same attribute, another kind
    Annotated[int, 2, implicit]     plain proto3: zero is not written
    Annotated[str | None, 3, OneOf("contact")]

Numbers are those of FieldDescriptorProto.Type.
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
    """`name` is what .proto text calls it, `number` its FieldDescriptorProto.Type."""

    name: str
    number: int
    packable: bool = True
    message: str = ""
    """The full name of the well-known message that it is, "" when it is none."""


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
    """A word in an annotation that changes how the field is written."""

    name: str


implicit = Marker("implicit")
"""Proto3's plain presence: a zero is not written, and an absent field is zero."""
unpacked = Marker("unpacked")
"""Numbers of a list one by one, each with its tag, as proto2 writes them."""


@dataclass(frozen=True, slots=True)
class OneOf:
    """The field is one of a group `name`, of which at most one is not None."""

    name: str

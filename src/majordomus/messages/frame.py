"""Frame: how one value becomes the bytes of one frame, and how it is read back.

Every number is little-endian and has exactly the size of its type: a frame of another size is an
error, never a truncated value. Nothing here knows what a message or a socket is.
"""

from __future__ import annotations

import enum
import struct
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, cast, overload

from majordomus.errors import FrameError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["NUMBERS", "Frame", "enum_size", "from_number", "quote", "to_enum"]

E = TypeVar("E", bound=enum.Enum)
T = TypeVar("T")

NUMBERS: dict[str, struct.Struct] = {
    "int8": struct.Struct("<b"),
    "int16": struct.Struct("<h"),
    "int32": struct.Struct("<i"),
    "int64": struct.Struct("<q"),
    "uint8": struct.Struct("<B"),
    "uint16": struct.Struct("<H"),
    "uint32": struct.Struct("<I"),
    "uint64": struct.Struct("<Q"),
    "single": struct.Struct("<f"),
    "double": struct.Struct("<d"),
}

_SHOWN = 32  # bytes of a frame that a repr or an error shows


class Encodes(Protocol):
    """What `from_record` takes: a record of ours."""

    def to_bytes(self) -> bytes: ...


def from_number(kind: str, value: float) -> bytes:
    """The frame of `value` as `kind`, a key of NUMBERS. Raises FrameError for what does not fit."""
    try:
        return NUMBERS[kind].pack(value)
    except (struct.error, OverflowError) as error:
        raise FrameError(f"{value!r} does not fit {kind}: {error}", expected=kind) from None


def to_number(kind: str, data: bytes) -> Any:
    packed = NUMBERS[kind]
    if len(data) != packed.size:
        raise FrameError(
            f"{len(data)} bytes, expected {packed.size} ({kind})",
            size=len(data),
            expected=f"{packed.size} ({kind})",
        )
    return packed.unpack(data)[0]


def to_text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise FrameError(
            f"{len(data)} bytes, expected UTF-8: {error.reason} at byte {error.start}",
            size=len(data),
            expected="UTF-8",
        ) from None


def enum_size(type_: type[enum.Enum]) -> int:
    """Bytes of an enumeration: the smallest of 1, 2, 4 that holds every member, as in Delphi."""
    values = [member.value for member in type_.__members__.values()]
    if not values or not all(isinstance(value, int) for value in values):
        raise FrameError(f"{type_.__name__} has no integer members", expected=type_.__name__)
    low, high = min(values), max(values)
    for size in (1, 2, 4):
        half = 1 << (8 * size - 1)
        if (low >= 0 and high < 2 * half) or (low >= -half and high < half):
            return size
    raise FrameError(f"{type_.__name__} has members beyond 4 bytes", expected=type_.__name__)


def from_enum(value: enum.Enum | int, size: int | None = None) -> bytes:
    if size is None:
        if not isinstance(value, enum.Enum):
            raise FrameError(f"{value!r} is no enum member: give its size", expected="enum")
        size = enum_size(type(value))
    ordinal = value.value if isinstance(value, enum.Enum) else value
    try:
        return int(ordinal).to_bytes(size, "little", signed=ordinal < 0)
    except (OverflowError, TypeError, ValueError):
        raise FrameError(
            f"{value!r} does not fit {size} bytes", expected=f"{size} (enum)"
        ) from None


def to_enum(data: bytes, type_: type[E] | None, size: int | None) -> E | int:
    if type_ is None:
        if size is None:
            raise FrameError("an enum needs its type or its size", expected="enum")
        signed, name = False, "enum"
    else:
        smallest = enum_size(type_)
        size = smallest if size is None else size
        signed, name = any(member.value < 0 for member in type_), type_.__name__
    if len(data) != size:
        raise FrameError(
            f"{len(data)} bytes, expected {size} ({name})",
            size=len(data),
            expected=f"{size} ({name})",
        )
    ordinal = int.from_bytes(data, "little", signed=signed)
    if type_ is None:
        return ordinal
    try:
        return type_(ordinal)
    except ValueError:
        raise FrameError(
            f"{ordinal} is no member of {name}", size=size, expected=f"{size} ({name})"
        ) from None


def from_record(value: Any) -> bytes:
    """The frame of a record of ours or of a protobuf message."""
    encode = getattr(value, "to_bytes", None) or getattr(value, "SerializeToString", None)
    if encode is None or isinstance(value, int):
        raise FrameError(f"{type(value).__name__} is no record and no protobuf message")
    return cast("Callable[[], bytes]", encode)()


def to_record(data: bytes, type_: type[T]) -> T:
    decode = getattr(type_, "from_bytes", None) or getattr(type_, "FromString", None)
    if decode is None or issubclass(type_, int):
        raise FrameError(f"{type_.__name__} is no record and no protobuf message")
    try:
        return cast("T", decode(data))
    except Exception as error:  # upb's DecodeError and our RecordError have no other common base
        raise FrameError(
            f"{len(data)} bytes, expected {type_.__name__}: {error}",
            size=len(data),
            expected=type_.__name__,
        ) from error


def quote(data: bytes, most: int = _SHOWN) -> str:
    """`data` for people: printable text as it is, anything else in hex, cut after `most` bytes."""
    head = data[:most]
    text = head.decode("ascii", "replace")
    shown = text if text.isprintable() and "\ufffd" not in text else head.hex()
    return shown + "…" if len(data) > most else shown


class Frame(bytes):
    """The bytes of one frame, with the readings they may have. Immutable; equal to plain bytes.

    `Frame.of_int(5)` makes one, `Frame(data).as_int()` reads it. Every `as_…` raises FrameError
    with the size found and the size expected.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Frame({bytes(self)!r})"

    @property
    def size(self) -> int:
        return len(self)

    def as_bytes(self) -> bytes:
        return bytes(self)

    def as_str(self) -> str:
        return to_text(self)

    def as_number(self, kind: str) -> Any:
        """Read as `kind`, one of int8 … int64, uint8 … uint64, single, double."""
        return to_number(kind, self)

    def as_int(self) -> int:
        """4 bytes, signed: what the original calls Integer."""
        return cast("int", to_number("int32", self))

    def as_single(self) -> float:
        return cast("float", to_number("single", self))

    def as_double(self) -> float:
        return cast("float", to_number("double", self))

    @overload
    def as_enum(self, type_: type[E], size: int | None = None) -> E: ...
    @overload
    def as_enum(self, type_: None = None, size: int | None = None) -> int: ...
    def as_enum(self, type_: type[E] | None = None, size: int | None = None) -> E | int:
        return to_enum(self, type_, size)

    def as_record(self, type_: type[T]) -> T:
        return to_record(self, type_)

    def to_hex(self) -> str:
        """Upper-case hex, as CZMQ and the original print it (`bytes.hex` is the lower-case one)."""
        return self.hex().upper()

    @classmethod
    def of_str(cls, value: str) -> Self:
        return cls(value.encode())

    @classmethod
    def of_number(cls, kind: str, value: float) -> Self:
        return cls(from_number(kind, value))

    @classmethod
    def of_int(cls, value: int) -> Self:
        return cls(from_number("int32", value))

    @classmethod
    def of_single(cls, value: float) -> Self:
        return cls(from_number("single", value))

    @classmethod
    def of_double(cls, value: float) -> Self:
        return cls(from_number("double", value))

    @classmethod
    def of_enum(cls, value: enum.Enum | int, size: int | None = None) -> Self:
        return cls(from_enum(value, size))

    @classmethod
    def of_record(cls, value: Encodes) -> Self:
        return cls(from_record(value))

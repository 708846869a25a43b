"""Frame: encodes one value as the bytes of one frame, and decodes it.

Every number is little-endian and has exactly the size of its type: a frame of another size is an
error, never a truncated value. This module is independent of messages and sockets.
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
"""The type of a number, by its name in the API and in errors."""

_PREVIEW_BYTES = 32  # how much of a frame a repr or an error shows


class Encodes(Protocol):
    """A value that `from_record` accepts: a record made by this package."""

    def to_bytes(self) -> bytes: ...


def from_number(kind: str, value: float) -> bytes:
    """Encode `value` as `kind`, a key of NUMBERS. Raises FrameError when it does not fit."""
    try:
        return NUMBERS[kind].pack(value)
    except (struct.error, OverflowError) as error:
        raise FrameError(f"{value!r} does not fit {kind}: {error}", expected=kind) from None


def to_number(kind: str, data: bytes) -> Any:
    """Decode `data` as `kind`, a key of NUMBERS. Raises FrameError for another size."""
    packed = NUMBERS[kind]
    if len(data) != packed.size:
        raise FrameError(
            f"{len(data)} bytes, expected {packed.size} ({kind})",
            size=len(data),
            expected=f"{packed.size} ({kind})",
        )
    return packed.unpack(data)[0]


def to_text(data: bytes) -> str:
    """Decode `data` as UTF-8. Raises FrameError, which names the first wrong byte."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise FrameError(
            f"{len(data)} bytes, expected UTF-8: {error.reason} at byte {error.start}",
            size=len(data),
            expected="UTF-8",
        ) from None


def enum_size(type_: type[enum.Enum]) -> int:
    """Return the size of an enumeration in bytes: 1, 2 or 4, the smallest that fits all members.

    Delphi uses the same rule. Raises: FrameError when a member is not an integer or needs more.
    """
    values = [member.value for member in type_.__members__.values()]
    if not values or not all(isinstance(value, int) for value in values):
        raise FrameError(f"{type_.__name__} has no integer members", expected=type_.__name__)
    low, high = min(values), max(values)
    for size in (1, 2, 4):
        half = 1 << (8 * size - 1)
        if (low >= 0 and high < 2 * half) or (low >= -half and high < half):
            return size
    raise FrameError(
        f"{type_.__name__} has members that need more than 4 bytes", expected=type_.__name__
    )


def from_enum(value: enum.Enum | int, size: int | None = None) -> bytes:
    """Encode the ordinal of `value` in `size` bytes, by default the size of its enumeration.

    Raises: FrameError when it does not fit, or when `value` is an int and `size` is missing.
    """
    if size is None:
        if not isinstance(value, enum.Enum):
            raise FrameError(f"{value!r} is not an enum member: pass its size", expected="enum")
        size = enum_size(type(value))
    ordinal = value.value if isinstance(value, enum.Enum) else value
    try:
        return int(ordinal).to_bytes(size, "little", signed=ordinal < 0)
    except (OverflowError, TypeError, ValueError):
        raise FrameError(
            f"{value!r} does not fit {size} bytes", expected=f"{size} (enum)"
        ) from None


def to_enum(data: bytes, type_: type[E] | None, size: int | None) -> E | int:
    """Decode an ordinal as a member of `type_`, without a type as an unsigned int of `size` bytes.

    Raises: FrameError for another size, and for an ordinal that is not a member of `type_`.
    """
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
            f"{ordinal} is not a member of {name}", size=size, expected=f"{size} ({name})"
        ) from None


def from_record(value: Any) -> bytes:
    """Encode a record or a protobuf message. Raises FrameError for any other value."""
    encode = getattr(value, "to_bytes", None) or getattr(value, "SerializeToString", None)
    if encode is None or isinstance(value, int):  # int has a method `to_bytes` of its own
        raise FrameError(f"{type(value).__name__} is not a record or a protobuf message")
    return cast("Callable[[], bytes]", encode)()


def to_record(data: bytes, type_: type[T]) -> T:
    """Decode `data` as `type_`, the class of a record or of a protobuf message.

    Raises: FrameError for bytes that are not valid, and for another class.
    """
    decode = getattr(type_, "from_bytes", None) or getattr(type_, "FromString", None)
    if decode is None or issubclass(type_, int):  # int has a method `from_bytes` of its own
        raise FrameError(f"{type_.__name__} is not a record or a protobuf message")
    try:
        return cast("T", decode(data))
    except (
        Exception
    ) as error:  # Exception is the only common base of upb's DecodeError and RecordError
        raise FrameError(
            f"{len(data)} bytes, expected {type_.__name__}: {error}",
            size=len(data),
            expected=type_.__name__,
        ) from error


def quote(data: bytes, most: int = _PREVIEW_BYTES) -> str:
    """Return `data` for display: printable ASCII as text, other bytes in hex.

    Only the first `most` bytes are shown; "…" marks that more follow.
    """
    head = data[:most]
    text = head.decode("ascii", "replace")
    shown = text if text.isprintable() and "\ufffd" not in text else head.hex()
    return shown + "…" if len(data) > most else shown


class Frame(bytes):
    """The bytes of one frame, with methods to decode them. Immutable; equal to plain bytes.

    `Frame.of_int(5)` encodes a value, `Frame(data).as_int()` decodes one. Every `as_…` raises
    FrameError with the size found and the size expected.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Frame({bytes(self)!r})"

    @property
    def size(self) -> int:
        """The size in bytes."""
        return len(self)

    def as_bytes(self) -> bytes:
        return bytes(self)

    def as_str(self) -> str:
        return to_text(self)

    def as_number(self, kind: str) -> Any:
        """Decode as `kind`, one of int8 … int64, uint8 … uint64, single, double."""
        return to_number(kind, self)

    def as_int(self) -> int:
        """Decode 4 bytes as a signed integer, Delphi's Integer."""
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
        """Decode as a member of `type_`, without a type as an unsigned integer of `size` bytes."""
        return to_enum(self, type_, size)

    def as_record(self, type_: type[T]) -> T:
        return to_record(self, type_)

    def to_hex(self) -> str:
        """Return upper-case hex, as CZMQ and PascalZMQ print it. `bytes.hex` is lower-case."""
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

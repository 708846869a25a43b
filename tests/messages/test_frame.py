"""Frame: one value is encoded and decoded exactly, or an error is raised."""

from __future__ import annotations

import enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from majordomus.errors import FrameError
from majordomus.messages import Frame
from majordomus.messages.frame import NUMBERS, enum_size
from tests.messages.samples import PhoneNumber, PhoneType


class Empty(enum.Enum):
    pass


class Text(enum.Enum):
    A = "a"


def sized(*values: int) -> Any:
    return enum.IntEnum("Sized", {f"M{index}": value for index, value in enumerate(values)})


@pytest.mark.parametrize(
    ("kind", "value", "data"),
    [
        ("int8", -2, "fe"),
        ("int16", -2, "feff"),
        ("int32", 1, "01000000"),
        ("int64", -2, "feffffffffffffff"),
        ("uint8", 255, "ff"),
        ("uint16", 0xABCD, "cdab"),
        ("uint32", 0x12345678, "78563412"),
        ("uint64", (1 << 64) - 1, "ffffffffffffffff"),
        ("single", 1.5, "0000c03f"),
        ("double", -1.5, "000000000000f8bf"),
    ],
)
def test_number_is_little_endian_and_of_its_size(kind: str, value: float, data: str) -> None:
    frame = Frame.of_number(kind, value)
    assert frame.hex() == data
    assert frame.as_number(kind) == value
    with pytest.raises(FrameError, match=f"expected {len(frame)} .{kind}."):
        Frame(frame + b"x").as_number(kind)
    with pytest.raises(FrameError):
        Frame(frame[:-1]).as_number(kind)


@pytest.mark.parametrize("kind", [kind for kind in NUMBERS if "int" in kind])
def test_number_that_does_not_fit_is_rejected(kind: str) -> None:
    bits = NUMBERS[kind].size * 8
    for value in (1 << bits, -(1 << bits), 1.5, "1"):
        with pytest.raises(FrameError, match=f"does not fit {kind}"):
            Frame.of_number(kind, value)  # type: ignore[arg-type]


def test_single_out_of_range_is_rejected() -> None:
    with pytest.raises(FrameError, match="single"):
        Frame.of_single(1e300)


def test_frame_is_bytes_with_pascalzmqs_conversions() -> None:
    assert Frame(b"ab") == b"ab"
    assert Frame(b"\xab\xcd").to_hex() == "ABCD"
    assert Frame(b"abc").size == 3
    assert Frame.of_int(-7).as_int() == -7
    assert Frame.of_single(0.5).as_single() == 0.5
    assert Frame.of_double(0.1).as_double() == 0.1
    assert Frame.of_str("ü").as_str() == "ü"
    assert Frame.of_str("ü").as_bytes() == b"\xc3\xbc"
    assert type(Frame(b"x").as_bytes()) is bytes
    assert repr(Frame(b"x")) == "Frame(b'x')"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_text_is_decoded_from_its_frame(text: str) -> None:
    assert Frame.of_str(text).as_str() == text


def test_error_for_invalid_utf8_names_the_byte() -> None:
    with pytest.raises(FrameError, match=r"3 bytes, expected UTF-8: invalid start byte at byte 2"):
        Frame(b"ab\xff").as_str()


@pytest.mark.parametrize(
    ("values", "size"),
    [
        ((0, 255), 1),
        ((0, 256), 2),
        ((-1, 127), 1),
        ((-1, 128), 2),
        ((0, 65_535), 2),
        ((0, 65_536), 4),
        ((-1, 1 << 31 >> 1), 4),
        ((0, (1 << 32) - 1), 4),
    ],
)
def test_enum_has_the_smallest_size_that_holds_its_members(
    values: tuple[int, ...], size: int
) -> None:
    assert enum_size(sized(*values)) == size


def test_enum_is_decoded_as_its_member() -> None:
    assert Frame.of_enum(PhoneType.WORK) == b"\x02"
    assert Frame(b"\x02").as_enum(PhoneType) is PhoneType.WORK
    assert Frame.of_enum(PhoneType.WORK, 4).hex() == "02000000"
    assert Frame.of_enum(PhoneType.WORK, 4).as_enum(PhoneType, 4) is PhoneType.WORK
    assert Frame.of_enum(700, 2).as_enum(size=2) == 700
    negative = sized(-3, 5)
    assert Frame.of_enum(negative.M0).hex() == "fd"
    assert Frame(b"\xfd").as_enum(negative) is negative.M0


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (lambda: Frame(b"\x07").as_enum(PhoneType), "7 is not a member of PhoneType"),
        (lambda: Frame(b"\x00\x00").as_enum(PhoneType), "2 bytes, expected 1 .PhoneType."),
        (lambda: Frame(b"\x00").as_enum(), "needs its type or its size"),
        (lambda: Frame(b"\x00").as_enum(size=2), "1 bytes, expected 2 .enum."),
        (lambda: Frame(b"a").as_enum(Text), "no integer members"),
        (lambda: Frame.of_enum(5), "pass its size"),
        (lambda: Frame.of_enum(256, 1), "does not fit 1 bytes"),
        (lambda: enum_size(Empty), "no integer members"),
        (lambda: enum_size(sized(0, 1 << 40)), "more than 4 bytes"),
    ],
)
def test_invalid_enum_raises_an_error_with_the_reason(read: Any, expected: str) -> None:
    with pytest.raises(FrameError, match=expected):
        read()


def test_record_is_decoded_from_its_frame() -> None:
    phone = PhoneNumber("5", PhoneType.WORK)
    assert Frame.of_record(phone).as_record(PhoneNumber) == phone
    with pytest.raises(FrameError, match=r"2 bytes, expected PhoneNumber: PhoneNumber.number: 5"):
        Frame(b"\x0a\x05").as_record(PhoneNumber)
    for wrong in (5, "x", None):
        with pytest.raises(FrameError, match="is not a record"):
            Frame.of_record(wrong)  # type: ignore[arg-type]
    with pytest.raises(FrameError, match="int is not a record"):
        Frame(b"\x05").as_record(int)

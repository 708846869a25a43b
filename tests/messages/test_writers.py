"""Writers give the same bytes as upb, and raise for values that are not ordinary."""

from __future__ import annotations

import enum
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from majordomus.errors import RecordError
from majordomus.messages import record
from majordomus.messages.writers import ODD
from tests.messages.samples import PERSONS, Color, Everything, Person, PhoneNumber, everythings

CODEC: Any = Everything.__record__  # type: ignore[attr-defined]


def by_upb(value: Any) -> bytes:
    written: bytes = value.__record__.to_message(value).SerializeToString(deterministic=True)
    return written


@given(everythings())
@settings(max_examples=500, deadline=None)
def test_writers_give_the_bytes_of_upb(value: Everything) -> None:
    assert CODEC.write(value) == by_upb(value)


@given(PERSONS)
@settings(max_examples=200, deadline=None)
def test_writers_give_the_bytes_of_upb_for_long_texts_and_lists(value: Person) -> None:
    value.name *= 50
    value.phone = value.phone * 70
    assert value.__record__.write(value) == by_upb(value)  # type: ignore[attr-defined]


INTEGERS = ["an_int32", "an_int64", "a_uint32", "a_uint64", "a_sint32", "a_sint64"]
EDGES = sorted(
    {sign * ((1 << bits) + near) for bits in range(65) for near in (-1, 0, 1) for sign in (1, -1)}
)


@pytest.mark.parametrize("name", INTEGERS)
def test_integer_at_every_edge_is_encoded_or_rejected_as_upb_does(name: str) -> None:
    for number in EDGES:
        value = Everything(**{name: number})
        try:
            expected = by_upb(value)
        except RecordError:
            with pytest.raises(RecordError, match=f"Everything.{name}"):
                value.to_bytes()
            with pytest.raises(ODD):
                CODEC.write(value)
        else:
            assert CODEC.write(value) == value.to_bytes() == expected


class Number(enum.IntEnum):
    SEVEN = 7


class Text(str):
    __slots__ = ()


class Index:
    def __index__(self) -> int:
        return 7


@pytest.mark.parametrize(
    "values",
    [
        {"a_sint64": True},
        {"a_sint64": Number.SEVEN},
        {"a_sint64": Index()},
        {"ints": [1, Number.SEVEN]},
        {"a_bool": 1},
        {"a_double": 1},
        {"a_single": 1e300},
        {"floats": [1, True]},
        {"a_str": Text("x")},
        {"a_str": b"x"},
        {"some_bytes": bytearray(b"x")},
        {"a_phone": 99},
        {"a_color": 99},
        {"colors": [Color.RED, -7]},
        {"maybe_phone": type("Sub", (PhoneNumber,), {})("5")},
    ],
)
def test_unordinary_value_is_encoded_or_rejected_as_upb_does(values: dict[str, Any]) -> None:
    """The error is the same too, because upb makes it in both cases."""
    value = Everything(**values)
    try:
        expected = by_upb(value)
    except RecordError as error:
        with pytest.raises(RecordError) as caught:
            value.to_bytes()
        assert str(caught.value) == str(error)
    else:
        assert value.to_bytes() == expected


@given(st.integers(0, 20), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_record_with_any_number_of_fields_is_encoded_in_the_order_of_tags(
    count: int, step: int
) -> None:
    annotations = {f"f{index}x": Annotated[int, 1 + index * step] for index in range(count)}
    made: Any = record(type("Made", (), {"__annotations__": annotations}))
    value = made(*range(count))
    assert value.__record__.write(value) == by_upb(value)
    assert made.from_bytes(value.to_bytes()) == value

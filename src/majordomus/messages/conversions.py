"""Closures that convert the value of one field to and from a upb message.

A Put sets the value in a upb message. A Fix converts the value that upb returns; a field needs none
where upb's value is the attribute's value.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from majordomus.errors import RecordError
from majordomus.messages.fields import FieldShape, FieldSpec
from majordomus.messages.kinds import DURATION, ENUM, RECORD, TIMESTAMP

__all__ = ["Fix", "Put", "closure_of", "fix_for", "nested_records", "put_for", "type_name"]

Put = Callable[[Any, Any], None]
"""(upb message, value of the attribute): sets the field."""
Fix = Callable[[Any, Any], Any]
"""(upb's value, upb message) → value of the attribute."""

_MESSAGE = RECORD.number
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def closure_of(codec: Any, name: str) -> Any:
    """Return the closure `name` of `codec`, or a function that looks it up at each call.

    When records contain each other, the closure of one does not exist yet when the other's is made.
    """
    if name in codec.__dict__:
        return codec.__dict__[name]

    def call(*values: Any) -> Any:
        return getattr(codec, name)(*values)

    return call


def type_name(spec: FieldSpec) -> str:
    """The type of the field's values, for errors."""
    one = spec.target.__name__ if spec.target is not None else spec.kind.message or spec.kind.name
    return (
        one
        if spec.shape in (FieldShape.ONE, FieldShape.OPTIONAL)
        else f"{spec.shape.value} of {one}"
    )


def nested_records(spec: FieldSpec, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield each record of a field of records with its subscript: "", "[0]" or "['key']"."""
    if spec.kind is not RECORD:
        return
    if spec.shape is FieldShape.DICT and isinstance(value, Mapping):
        yield from ((f"[{key!r}]", item) for key, item in value.items())
    elif spec.repeated and isinstance(value, Iterable):
        yield from ((f"[{index}]", item) for index, item in enumerate(value))
    elif not spec.repeated and (value is not None or spec.shape is FieldShape.ONE):
        yield "", value


# -- writing


def put_for(spec: FieldSpec) -> Put:
    """Make the Put of a field. It raises what upb raises for a value that does not fit."""
    if spec.kind.number == _MESSAGE:
        return _put_messages(spec, _filler(spec))
    if spec.target is not None and not issubclass(spec.target, int):
        return _put_scalars(spec, _ordinal)
    return _put_scalars(spec, None)


def _put_scalars(spec: FieldSpec, convert: Callable[[Any], Any] | None) -> Put:
    name = spec.wire

    def put_one(message: Any, value: Any) -> None:
        setattr(message, name, value if convert is None else convert(value))

    def put_optional(message: Any, value: Any) -> None:
        if value is not None:
            setattr(message, name, value if convert is None else convert(value))

    def put_list(message: Any, values: Any) -> None:
        if values or not isinstance(values, list | tuple):
            getattr(message, name).extend(values if convert is None else map(convert, values))

    def put_dict(message: Any, values: Any) -> None:
        target = getattr(message, name)
        for key, value in values.items():
            target[key] = value if convert is None else convert(value)

    return _by_shape(spec, put_one, put_optional, put_list, put_dict)


def _put_messages(spec: FieldSpec, fill: Put) -> Put:
    name = spec.wire
    may_be_empty = spec.kind is not RECORD or not any(
        inner.explicit and inner.shape is FieldShape.ONE for inner in spec.target.__record__.specs
    )

    def put_one(message: Any, value: Any) -> None:
        nested = getattr(message, name)
        if may_be_empty:
            nested.SetInParent()  # otherwise upb omits a message without fields
        fill(nested, value)

    def put_optional(message: Any, value: Any) -> None:
        if value is not None:
            put_one(message, value)

    def put_list(message: Any, values: Any) -> None:
        if not values and isinstance(values, list | tuple):
            return
        add = getattr(message, name).add
        for value in values:
            fill(add(), value)

    def put_dict(message: Any, values: Any) -> None:
        target = getattr(message, name)
        for key, value in values.items():
            fill(target[key], value)

    return _by_shape(spec, put_one, put_optional, put_list, put_dict)


def _by_shape(spec: FieldSpec, one: Put, optional: Put, many: Put, mapping: Put) -> Put:
    return {
        FieldShape.ONE: one,
        FieldShape.OPTIONAL: optional,
        FieldShape.LIST: many,
        FieldShape.TUPLE: many,
        FieldShape.DICT: mapping,
    }[spec.shape]


def _filler(spec: FieldSpec) -> Put:
    if spec.kind is TIMESTAMP:
        return _fill_timestamp
    if spec.kind is DURATION:
        return _fill_duration
    return closure_of(spec.target.__record__, "fill")  # type: ignore[no-any-return]


def _ordinal(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


def _fill_timestamp(message: Any, value: dt.datetime) -> None:
    if value.tzinfo is None:
        raise ValueError("a datetime without a time zone is ambiguous")
    passed = value - _EPOCH
    message.seconds = passed.days * 86_400 + passed.seconds
    message.nanos = passed.microseconds * 1_000


def _fill_duration(message: Any, value: dt.timedelta) -> None:
    whole = value // dt.timedelta(microseconds=1)
    sign = -1 if whole < 0 else 1
    seconds, micros = divmod(abs(whole), 1_000_000)
    message.seconds = sign * seconds  # Duration requires the same sign in both fields
    message.nanos = sign * micros * 1_000


# -- reading


def fix_for(spec: FieldSpec, record: str) -> Fix | None:
    """Make the Fix of a field, None when upb's value needs no conversion.

    `record`: the class's name, for errors.
    """
    read = _reader(spec, record)
    if spec.repeated:
        return _fix_many(spec, read)
    if spec.kind.number == _MESSAGE:
        return _fix_message(spec, read)
    if spec.shape is FieldShape.OPTIONAL:
        return _fix_absent(spec, read, None)
    default = _default_of(spec)
    if spec.implicit or not spec.explicit or not _number(default):
        return None if read is None else lambda value, _: read(value)
    return _fix_absent(spec, read, default)


def _reader(spec: FieldSpec, record: str) -> Callable[[Any], Any] | None:
    if spec.kind is RECORD:
        return closure_of(spec.target.__record__, "build")  # type: ignore[no-any-return]
    if spec.kind is TIMESTAMP:
        return _in_range(_read_timestamp, record, spec.name)
    if spec.kind is DURATION:
        return _in_range(_read_duration, record, spec.name)
    if spec.kind is ENUM:
        members = {member.value: member for member in spec.target}
        return lambda value: members.get(value, value)  # an unknown value stays an int
    if spec.target is not None:
        return _flag_reader(spec.target)
    return None


def _fix_many(spec: FieldSpec, read: Callable[[Any], Any] | None) -> Fix:
    # A slice of upb's container is a list, and far faster than iterating over the container.
    if spec.shape is FieldShape.DICT:
        if read is None:
            return lambda values, _: dict(values)
        return lambda values, _: {key: read(value) for key, value in values.items()}
    if spec.shape is FieldShape.TUPLE:
        if read is None:
            return lambda values, _: tuple(values[:])
        return lambda values, _: tuple(map(read, values[:]))
    if read is None:
        return lambda values, _: values[:]
    return lambda values, _: list(map(read, values[:]))


def _fix_message(spec: FieldSpec, read: Callable[[Any], Any] | None) -> Fix:
    if read is None:
        raise TypeError("a message kind needs a reader")
    name, default = spec.wire, spec.default_value
    if spec.shape is FieldShape.ONE and default is None:
        return lambda value, _: read(value)  # when absent, upb returns an empty message: all zeros

    def fix(value: Any, message: Any) -> Any:
        return read(value) if message.HasField(name) else spec.default_value

    return fix


def _fix_absent(spec: FieldSpec, read: Callable[[Any], Any] | None, default: Any) -> Fix:
    # Only a zero can be absent, so HasField is called only for a zero.
    name = spec.wire

    def fix(value: Any, message: Any) -> Any:
        if not value and not message.HasField(name):
            return default
        return value if read is None else read(value)

    return fix


def _default_of(spec: FieldSpec) -> Any:
    """The value of an absent field. For an enum without a zero it is the first member."""
    default = spec.default_value
    if default is None and spec.kind is ENUM:
        members = list(spec.target)
        return next((member for member in members if member.value == 0), members[0])
    return default


def _number(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


def _flag_reader(type_: type[enum.Flag]) -> Callable[[Any], Any]:
    def read(value: int) -> Any:
        try:
            return type_(value)
        except ValueError:  # an unknown bit: the value stays an int
            return value

    return read


def _in_range(read: Callable[[Any], Any], record: str, field: str) -> Callable[[Any], Any]:
    def checked(message: Any) -> Any:
        try:
            return read(message)
        except (OverflowError, ValueError) as error:
            raise RecordError(record, field, f"out of range: {error}") from None

    return checked


def _read_timestamp(message: Any) -> dt.datetime:
    return _EPOCH + _read_duration(message)


def _read_duration(message: Any) -> dt.timedelta:
    # Truncate toward zero: timedelta has no nanoseconds.
    micros = message.nanos // 1_000 if message.nanos >= 0 else -(-message.nanos // 1_000)
    return dt.timedelta(seconds=message.seconds, microseconds=micros)

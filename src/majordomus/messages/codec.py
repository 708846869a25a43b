"""RecordCodec: from a record's attributes to a upb message and back, by closures made once a class.

Reading is upb's, and lazy by one step as upb itself is: `decode` parses and keeps the message; the
first attribute that is asked for makes all of them, and those of nested records, and lets the
message go. Writing is done by writers.py for ordinary values; whatever they refuse is put into a
message by `fill`, and upb writes it or says what is wrong. docs/adr/0006 says why.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from majordomus.errors import ConfigurationError, RecordError
from majordomus.messages import wire
from majordomus.messages.descriptors import build_file, message_class
from majordomus.messages.fields import FieldSpec
from majordomus.messages.kinds import ENUM, RECORD
from majordomus.messages.moves import Put, fix_for, items, put_for, wanted
from majordomus.messages.writers import ODD, Writer, row, writer_for

__all__ = ["STATE", "LazyField", "RecordCodec"]

STATE = "_record_state"
"""An attribute of every record: its upb message as long as it is not unpacked, then the bytes of
the fields that the class does not know, nearly always None."""

_new: Any = object.__new__
_put = object.__setattr__
_unpacking = threading.RLock()
_ENCODING_ERRORS = (TypeError, ValueError, AttributeError, OverflowError)


class LazyField:
    """The class attribute behind each field: runs while the instance has no value of its own."""

    __slots__ = ("codec", "name")

    def __init__(self, codec: RecordCodec, name: str) -> None:
        self.codec = codec
        self.name = name

    def __get__(self, record: Any, owner: type | None = None) -> Any:
        if record is None:
            raise AttributeError(self.name)
        self.codec.unpack(record)
        try:
            return record.__dict__[self.name]
        except KeyError:  # deleted, or never set
            raise AttributeError(self.name) from None


class RecordCodec:
    """Everything that a record's class knows about its wire form. Made and linked by records.py,
    not changed after that."""

    unknowns = 0
    """How many messages with unknown fields there were: whether there was one is seen by it."""
    fill: Put
    """Put the values of a record into a upb message. Raises what upb raises."""
    write: Writer
    """An ordinary record to its bytes. Raises one of ODD for any other."""
    build: Callable[[Any], Any]
    """A complete record from a upb message: how nested records are made."""

    def __init__(
        self, cls: Any, name: str, package: str, specs: tuple[FieldSpec, ...], made_init: bool
    ) -> None:
        self.cls = cls
        self.made_init = made_init
        self.name = name
        self.package = package
        self.specs = specs
        by_name = {spec.name: spec for spec in specs}
        self.in_order = [by_name[field.name] for field in dataclasses.fields(cls)]
        self.groups = _groups(specs)

    def link(self) -> None:
        """Complete it; every record that it reaches has a codec by now.

        Raises: ConfigurationError for names that clash.
        """
        reached = reachable(self)
        self.file = build_file(
            self.package,
            [(codec.name, codec.specs, codec.cls) for codec in reached],
            names_of(reached),
        )
        self.message: Any = message_class(self.file, self.name)
        self.read = _make_read(self)
        self.init = _make_init(self)
        self.build = _make_build(self)
        self.get = _make_get(self)
        self.fill = _make_fill(self)
        self.write = _make_write(self)
        self._parse = self.message.FromString
        self.eager = any(
            hasattr(codec.cls, "__post_init__") or any(spec.kind.message for spec in codec.specs)
            for codec in reached
        )

    # -- writing

    def to_message(self, record: Any) -> Any:
        """A new upb message with the values of `record`. Raises RecordError, naming the field."""
        message = self.message()
        try:
            self.fill(message, record)
        except _ENCODING_ERRORS as error:
            raise self.blame(record, error) from None
        return message

    def encode(self, record: Any) -> bytes:
        """Maps are written in the order of their keys, so equal records are equal bytes."""
        try:
            return self.write(record)
        except ODD:  # upb judges it: writes it all the same, or says what is wrong
            written: bytes = self.to_message(record).SerializeToString(deterministic=True)
            return written

    def blame(self, record: Any, error: Exception) -> RecordError:
        """The error for `record`, which could not be filled, with the path of the guilty field."""
        for spec in self.specs:
            try:
                value = getattr(record, spec.name)
            except AttributeError:
                return RecordError(self.cls.__name__, spec.name, "is missing")
            found = self._blame_field(spec, value)
            if found is not None:
                return RecordError(self.cls.__name__, *found)
        if isinstance(error, RecordError):
            return error
        return RecordError(self.cls.__name__, "", str(error))

    def _blame_field(self, spec: FieldSpec, value: Any) -> tuple[str, str] | None:
        """Path and reason, if it is the value of this field that does not fit."""
        for suffix, item in items(spec, value):
            nested: RecordCodec = spec.target.__record__
            if not isinstance(item, spec.target):
                return spec.name + suffix, f"{item!r} is no {spec.target.__name__}"
            try:
                nested.fill(nested.message(), item)
            except _ENCODING_ERRORS as error:
                inner = nested.blame(item, error)
                return f"{spec.name}{suffix}.{inner.field}", inner.detail
        try:
            put_for(spec)(self.message(), value)
        except _ENCODING_ERRORS as error:
            return spec.name, f"{value!r} is no {wanted(spec)}: {error}"
        return None

    # -- reading

    def decode(self, data: Any, cls: type) -> Any:
        """A record of class `cls`. Raises RecordError, which names the field gone wrong."""
        try:
            parsed = self._parse(data)
        except (DecodeError, TypeError):
            parsed = self._parse_again(bytes(memoryview(data)))
        return self.around(parsed, cls)

    def around(self, parsed: Any, cls: type) -> Any:
        """A record of class `cls` around a upb message that nobody changes any more."""
        record = _new(cls)
        _put(record, STATE, parsed)
        if self.eager:
            self._unpack_now(record)
        return record

    def decode_checked(self, data: bytes, cls: type) -> Any:
        """`decode`, and no field may have another wire type than its own.

        By itself protocol buffers take such a field for an unknown one.
        """
        before = RecordCodec.unknowns
        record = self.decode(data, cls)
        self.unpack(record)
        if RecordCodec.unknowns != before:  # here, or in another thread: then in vain
            path, detail = wire.explain(self, data, strict=True)
            if detail:
                raise RecordError(self.cls.__name__, path, detail)
        return record

    def _parse_again(self, data: bytes) -> Any:
        """What upb refused: a view, which is bytes now, or what is worth an explanation."""
        try:
            return self._parse(data)
        except DecodeError as error:
            path, detail = wire.explain(self, data)
            raise RecordError(self.cls.__name__, path, detail or str(error)) from None

    def _unpack_now(self, record: Any) -> None:
        """`unpack` for records that may refuse their values: `__post_init__`, moments in time."""
        try:
            self.unpack(record)
        except RecordError:
            raise
        except (TypeError, ValueError) as error:
            raise RecordError(self.cls.__name__, "", str(error)) from error

    def unpack(self, record: Any) -> None:
        """Give a decoded record its attributes; those that were set meanwhile stay.

        May be repeated, and run in two threads at once: the first does it.
        """
        attributes = record.__dict__
        with _unpacking:
            parsed = attributes.get(STATE)
            if parsed is None or parsed.__class__ is bytes:
                return
            del attributes[STATE]
            changed = dict(attributes) if attributes else None
            self.init(record, *self.read(parsed))
            if UnknownFieldSet(parsed):
                _put(record, STATE, self.unknown(parsed))
            if changed is not None:
                attributes.update(changed)

    def unknown(self, parsed: Any) -> bytes:
        """The fields of a upb message that the record does not know, as bytes."""
        RecordCodec.unknowns += 1
        rest = self.message.FromString(parsed.SerializeToString())
        for spec in self.specs:
            rest.ClearField(spec.wire)
        kept: bytes = rest.SerializeToString()
        return kept


def _make_get(codec: RecordCodec) -> Callable[[Any], tuple[Any, ...]]:
    """The values of all fields by tag, and behind them STATE."""
    if not codec.specs:
        return attrgetter(STATE, STATE)  # one name alone would give no tuple
    return attrgetter(*(spec.name for spec in codec.specs), STATE)


def _values_of(codec: RecordCodec, record: Any) -> tuple[Any, ...]:
    """The same, with the bytes of unknown fields or None at the end. Raises RecordError."""
    codec.unpack(record)  # all were set before one was read, or it does nothing
    _check_groups(codec, record)
    return codec.get(record)


def _make_fill(codec: RecordCodec) -> Put:
    puts = [put_for(spec) for spec in codec.specs]

    def fill(message: Any, record: Any) -> None:
        values = _values_of(codec, record)
        for put, value in zip(puts, values):  # noqa: B905 - the last value is of no field
            put(message, value)
        if values[-1] is not None:
            message.MergeFromString(values[-1])

    return fill


def _make_write(codec: RecordCodec) -> Writer:
    get, last, has_groups = codec.get, len(codec.specs), bool(codec.groups)
    write_all = row([writer_for(spec, codec.message) for spec in codec.specs])

    def write(record: Any) -> bytes:
        values = get(record)
        if values[last] is None and not has_groups:
            return write_all(values)
        values = _values_of(codec, record)
        return write_all(values) + (values[-1] or b"")

    return write


def _check_groups(codec: RecordCodec, record: Any) -> None:
    for group, names in codec.groups.items():
        chosen = [name for name in names if getattr(record, name) is not None]
        if len(chosen) > 1:
            both = " and ".join(chosen)
            raise RecordError(codec.cls.__name__, chosen[1], f"{both} are both set, of {group}")


def _make_read(codec: RecordCodec) -> Callable[[Any], Sequence[Any]]:
    """All attributes of a record from a upb message, in the order of the class."""
    specs = codec.in_order
    get = _getter([spec.wire for spec in specs])
    all_fixes = ((at, fix_for(spec, codec.cls.__name__)) for at, spec in enumerate(specs))
    fixes = [(at, fix) for at, fix in all_fixes if fix is not None]
    if not fixes:
        return get

    def read(parsed: Any) -> Sequence[Any]:
        values = list(get(parsed))
        for at, fix in fixes:
            values[at] = fix(values[at], parsed)
        return values

    return read


def _make_build(codec: RecordCodec) -> Callable[[Any], Any]:
    cls, init, read, unknown = codec.cls, codec.init, codec.read, codec.unknown

    def construct(*values: Any) -> Any:
        record = _new(cls)
        init(record, *values)
        return record

    make = cls if _takes_all(codec) else construct

    def build(parsed: Any) -> Any:
        record = make(*read(parsed))
        if UnknownFieldSet(parsed):
            _put(record, STATE, unknown(parsed))
        return record

    return build


def _make_init(codec: RecordCodec) -> Callable[..., None]:
    """What gives a new record its attributes: its `__init__`, where that takes just these."""
    if _takes_all(codec):
        init: Callable[..., None] = codec.cls.__init__
        return init
    names = [spec.name for spec in codec.in_order]
    post_init = getattr(codec.cls, "__post_init__", None)

    def by_name(record: Any, *values: Any) -> None:
        record.__dict__.update(zip(names, values, strict=True))
        if post_init is not None:
            post_init(record)

    return by_name


def _takes_all(codec: RecordCodec) -> bool:
    """Whether the class has the `__init__` that dataclass makes, with every field in its place."""
    fields = dataclasses.fields(codec.cls)
    return codec.made_init and all(field.init and not field.kw_only for field in fields)


def _getter(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    """All attributes `names` of an object in one call."""
    if not names:
        return lambda _: ()
    get = attrgetter(*names)
    return get if len(names) > 1 else lambda owner: (get(owner),)


def reachable(codec: RecordCodec) -> list[RecordCodec]:
    """`codec` and those of every record below it, nested ones first, itself last."""
    found: dict[int, RecordCodec] = {}

    def visit(at: RecordCodec) -> None:
        found[id(at)] = at
        for spec in at.specs:
            if spec.kind is RECORD and id(spec.target.__record__) not in found:
                visit(spec.target.__record__)

    visit(codec)
    first, *rest = found.values()
    return [*sorted(rest, key=lambda other: other.name), first]


def names_of(codecs: Iterable[RecordCodec]) -> dict[Any, str]:
    """The .proto names of the records of `codecs` and of their enums.

    Raises: ConfigurationError when two of them have one name.
    """
    names: dict[Any, str] = {}
    owners: dict[str, Any] = {}
    for codec in codecs:
        pairs = [(codec.cls, codec.name)]
        pairs += [(s.target, s.target.__name__) for s in codec.specs if s.kind is ENUM]
        for target, name in pairs:
            if owners.setdefault(name, target) is not target:
                other = owners[name]
                raise ConfigurationError(
                    f"{target.__module__}.{target.__qualname__} and "
                    f"{other.__module__}.{other.__qualname__} are both {name} in .proto: "
                    "give one of them another name with @record(name=…)"
                )
            names[target] = name
    return names


def _groups(specs: Iterable[FieldSpec]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for spec in specs:
        if spec.oneof:
            groups.setdefault(spec.oneof, []).append(spec.name)
    return groups

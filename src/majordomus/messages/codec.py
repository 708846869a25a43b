"""RecordCodec: converts a record's attributes to a upb message and back.

Its closures are made once for each class.

Decoding is lazy: `decode` parses the bytes with upb and keeps the upb message. The first access to
an attribute sets all attributes, nested records included, and drops the message.

Encoding calls the closures of writers.py, which handle ordinary values. If one of them raises, the
record is copied into a upb message by `fill`, and upb encodes it or reports the error. The reasons
are in docs/adr/0006.
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
from majordomus.messages.conversions import Put, fix_for, nested_records, put_for, type_name
from majordomus.messages.descriptors import build_file, message_class
from majordomus.messages.fields import FieldSpec
from majordomus.messages.kinds import ENUM, RECORD
from majordomus.messages.writers import ODD, Writer, join_writers, writer_for

__all__ = ["STATE", "LazyField", "RecordCodec"]

STATE = "_record_state"
"""The attribute of a record that holds its upb message until the record is unpacked.

After that it holds the bytes of the record's unknown fields, None if there are none.
"""

_new: Any = object.__new__
_put = object.__setattr__  # also sets attributes of frozen records
_unpacking = threading.RLock()
_ENCODING_ERRORS = (TypeError, ValueError, AttributeError, OverflowError)


class LazyField:
    """The class attribute of a field: unpacks the record when the instance has no value yet.

    It defines only `__get__`, so Python uses the instance's own value when there is one.
    """

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
    """The encoder and decoder of one record's class. Made and linked by records.py, then immutable.

    The attributes, one line each:

    `cls`: the record's class.
    `made_init`: whether `@dataclass` made the class's `__init__`.
    `name`, `package`: the names of the message and its package in .proto text.
    `specs`: the fields by tag; `in_order`: the fields in the order of the class.
    `groups`: the names of the fields of each oneof.

    `link` sets the others:

    `file`: the FileDescriptorProto of the record and every record that it contains.
    `message`: upb's class for the record.
    `read`: returns the attributes' values, in the order of the class, from a upb message.
    `init`: sets the attributes of a new record from these values.
    `build`: makes an unpacked record from a upb message; nested records are made by it.
    `get`: returns the values of all fields by tag, followed by STATE.
    `fill`: copies the values of a record into a upb message. Raises what upb raises.
    `write`: encodes a record whose values are ordinary. Raises one of ODD for other values.
    `eager`: whether unpacking may reject a value; then `decode` unpacks at once to report it.
    """

    unknowns = 0
    """Counts all messages with unknown fields; `decode_checked` compares it before and after."""
    fill: Put
    write: Writer
    build: Callable[[Any], Any]

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
        """Make the descriptor and the closures. Every record that it contains must have a codec.

        Raises: ConfigurationError when two records or enums have the same .proto name.
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
        """Return a new upb message with the values of `record`. Raises RecordError."""
        message = self.message()
        try:
            self.fill(message, record)
        except _ENCODING_ERRORS as error:
            raise self.explain_error(record, error) from None
        return message

    def encode(self, record: Any) -> bytes:
        """Encode `record`, dicts in the order of their keys: equal records give equal bytes.

        Raises: RecordError, which names the field whose value does not fit.
        """
        try:
            return self.write(record)
        except ODD:  # upb converts the values, or reports what is wrong
            written: bytes = self.to_message(record).SerializeToString(deterministic=True)
            return written

    def explain_error(self, record: Any, error: Exception) -> RecordError:
        """Make the RecordError for `record`, which `fill` rejected with `error`.

        Each field is tried alone to find the path of the one that does not fit.
        """
        for spec in self.specs:
            try:
                value = getattr(record, spec.name)
            except AttributeError:
                return RecordError(self.cls.__name__, spec.name, "is missing")
            found = self._explain_field(spec, value)
            if found is not None:
                return RecordError(self.cls.__name__, *found)
        if isinstance(error, RecordError):
            return error
        return RecordError(self.cls.__name__, "", str(error))

    def _explain_field(self, spec: FieldSpec, value: Any) -> tuple[str, str] | None:
        """Return the path and the reason if the value of this field does not fit, else None."""
        for suffix, item in nested_records(spec, value):
            nested: RecordCodec = spec.target.__record__
            if not isinstance(item, spec.target):
                return spec.name + suffix, f"expected {spec.target.__name__}, got {item!r}"
            try:
                nested.fill(nested.message(), item)
            except _ENCODING_ERRORS as error:
                inner = nested.explain_error(item, error)
                return f"{spec.name}{suffix}.{inner.field}", inner.detail
        try:
            put_for(spec)(self.message(), value)
        except _ENCODING_ERRORS as error:
            return spec.name, f"expected {type_name(spec)}, got {value!r}: {error}"
        return None

    # -- reading

    def decode(self, data: Any, cls: type) -> Any:
        """Decode `data` as a record of class `cls`. Raises RecordError, which names the field."""
        try:
            parsed = self._parse(data)
        except (DecodeError, TypeError):
            parsed = self._parse_again(bytes(memoryview(data)))
        return self.from_parsed(parsed, cls)

    def from_parsed(self, parsed: Any, cls: type) -> Any:
        """Make a record of class `cls` that keeps the upb message `parsed`.

        The caller must not change the message afterwards. Raises: RecordError.
        """
        record = _new(cls)
        _put(record, STATE, parsed)
        if self.eager:
            self._unpack_now(record)
        return record

    def decode_checked(self, data: bytes, cls: type) -> Any:
        """Decode as `decode` does, and also reject a known field with the wrong wire type.

        Protocol buffers treat such a field as an unknown field, so its value would be lost.
        Raises: RecordError.
        """
        before = RecordCodec.unknowns
        record = self.decode(data, cls)
        self.unpack(record)
        if RecordCodec.unknowns != before:  # if only another thread counted, no error is found
            path, detail = wire.explain(self, data, strict=True)
            if detail:
                raise RecordError(self.cls.__name__, path, detail)
        return record

    def _parse_again(self, data: bytes) -> Any:
        """Parse bytes that upb rejected, perhaps only because they were a view.

        Raises: RecordError, which names the field at which the bytes are wrong.
        """
        try:
            return self._parse(data)
        except DecodeError as error:
            path, detail = wire.explain(self, data)
            raise RecordError(self.cls.__name__, path, detail or str(error)) from None

    def _unpack_now(self, record: Any) -> None:
        """Unpack, and turn the errors of `__post_init__` and of dates into RecordError."""
        try:
            self.unpack(record)
        except RecordError:
            raise
        except (TypeError, ValueError) as error:
            raise RecordError(self.cls.__name__, "", str(error)) from error

    def unpack(self, record: Any) -> None:
        """Set the attributes of a decoded record. Attributes that the caller has set are kept.

        May be repeated. Safe in several threads: one thread unpacks, the others wait for it.
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
        """Return the encoding of the unknown fields of a upb message, and count it."""
        RecordCodec.unknowns += 1
        rest = self.message.FromString(parsed.SerializeToString())
        for spec in self.specs:
            rest.ClearField(spec.wire)
        kept: bytes = rest.SerializeToString()
        return kept


def _make_get(codec: RecordCodec) -> Callable[[Any], tuple[Any, ...]]:
    """Return a function that returns the values of all fields by tag, followed by STATE."""
    if not codec.specs:
        return attrgetter(STATE, STATE)  # attrgetter returns a tuple only for two names or more
    return attrgetter(*(spec.name for spec in codec.specs), STATE)


def _values_of(codec: RecordCodec, record: Any) -> tuple[Any, ...]:
    """The values of all fields by tag, followed by the bytes of unknown fields or None.

    Raises: RecordError when two fields of a oneof are set.
    """
    # The record may still be packed if the caller has set all attributes and read none.
    codec.unpack(record)
    _check_groups(codec, record)
    return codec.get(record)


def _make_fill(codec: RecordCodec) -> Put:
    puts = [put_for(spec) for spec in codec.specs]

    def fill(message: Any, record: Any) -> None:
        values = _values_of(codec, record)
        for put, value in zip(puts, values):  # noqa: B905 - the last value is STATE, not a field
            put(message, value)
        if values[-1] is not None:
            message.MergeFromString(values[-1])

    return fill


def _make_write(codec: RecordCodec) -> Writer:
    get, last, has_groups = codec.get, len(codec.specs), bool(codec.groups)
    write_all = join_writers([writer_for(spec, codec.message) for spec in codec.specs])

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
            raise RecordError(
                codec.cls.__name__,
                chosen[1],
                f"{both} are both set, but OneOf {group!r} allows one",
            )


def _make_read(codec: RecordCodec) -> Callable[[Any], Sequence[Any]]:
    """Return a function that reads all attributes from a upb message, in the order of the class."""
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
    """Return the function that sets the attributes of a new record.

    It is the class's `__init__` when that takes exactly the fields.
    """
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
    """Whether dataclass made the class's `__init__`, with every field as a positional argument."""
    fields = dataclasses.fields(codec.cls)
    return codec.made_init and all(field.init and not field.kw_only for field in fields)


def _getter(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    """Return a function that returns the attributes `names` of an object as a tuple."""
    if not names:
        return lambda _: ()
    get = attrgetter(*names)
    return get if len(names) > 1 else lambda owner: (get(owner),)


def reachable(codec: RecordCodec) -> list[RecordCodec]:
    """Return the codecs of all records that `codec`'s record contains, and `codec` as the last."""
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
    """Return the .proto names of the records of `codecs` and of their enums, by class.

    Raises: ConfigurationError when two of the classes have the same name.
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
    """The names of the fields of each oneof."""
    groups: dict[str, list[str]] = {}
    for spec in specs:
        if spec.oneof:
            groups.setdefault(spec.oneof, []).append(spec.name)
    return groups

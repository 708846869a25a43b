"""Fields: the annotations of a record's class, read and checked once, when the class is made.

Every wrong declaration is an error here, and every error names the class and the field.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import keyword
import re
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from majordomus.errors import ConfigurationError
from majordomus.messages.kinds import (
    BOOL,
    BYTES,
    DOUBLE,
    DURATION,
    ENUM,
    FLAG,
    RECORD,
    SINT64,
    STRING,
    TIMESTAMP,
    Kind,
    OneOf,
    implicit,
    unpacked,
)

__all__ = ["FieldShape", "FieldSpec", "check_name", "check_unique", "read_fields"]

_MAX_TAG = 536_870_911
_RESERVED = range(19_000, 20_000)  # protocol buffers keep these for their implementation
_KINDS: dict[Any, Kind] = {
    int: SINT64,
    float: DOUBLE,
    bool: BOOL,
    str: STRING,
    bytes: BYTES,
    dt.datetime: TIMESTAMP,
    dt.timedelta: DURATION,
}
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class FieldShape(enum.Enum):
    """How many values a field holds."""

    ONE = "one"  # one value, never None
    OPTIONAL = "optional"  # one value or None
    LIST = "list"
    TUPLE = "tuple"
    DICT = "dict"


@dataclasses.dataclass(frozen=True, slots=True)
class FieldSpec:
    """One field of a record.

    The attributes, one line each:

    `name`: the name of the attribute.
    `tag`: the field number of protocol buffers.
    `kind`: the protobuf type of a value, for a list of an item, for a dict of a mapped value.
    `shape`: how many values the field holds.
    `default`: the dataclass's default, dataclasses.MISSING without one.
    `factory`: the dataclass's default_factory, dataclasses.MISSING without one.
    `target`: the class of an enum's, flag's or record's values, else None.
    `key`: the protobuf type of a dict's keys, else None.
    `oneof`: the name of the oneof that the field belongs to, else "".
    `implicit`: whether the field has proto3's implicit presence, that is, a zero is not written.
    `required`: whether the field is `required` in proto2; then an empty str or bytes is written.
    `packed`: whether a list of numbers is packed.
    """

    name: str
    tag: int
    kind: Kind
    shape: FieldShape
    default: Any
    factory: Any
    target: Any = None
    key: Kind | None = None
    oneof: str = ""
    implicit: bool = False
    required: bool = False
    packed: bool = True

    @property
    def wire(self) -> str:
        """The name in .proto text. A Python keyword loses its underscore: `from_` is `from`."""
        bare = self.name.removesuffix("_")
        return bare if keyword.iskeyword(bare) else self.name

    @property
    def repeated(self) -> bool:
        """Whether the field holds any number of values."""
        return self.shape in (FieldShape.LIST, FieldShape.TUPLE, FieldShape.DICT)

    @property
    def explicit(self) -> bool:
        """Whether the field has explicit presence: a zero is written and differs from absent.

        Lists and implicit fields do not have it. Other fields follow DelphiZeroMQ's rule: a zero is
        written; an empty str or bytes is not, unless the field is optional or has a default.
        """
        if self.repeated or self.implicit:
            return False
        if self.shape is FieldShape.OPTIONAL or self.kind not in (STRING, BYTES) or self.required:
            return True
        return bool(self.default_value)

    @property
    def default_value(self) -> Any:
        """The declared default, None without one. A factory is called each time."""
        if self.factory is not dataclasses.MISSING:
            return self.factory()
        return None if self.default is dataclasses.MISSING else self.default


def read_fields(cls: type, hints: dict[str, Any], is_record: Any) -> tuple[FieldSpec, ...]:
    """Return the fields of the dataclass `cls` in the order of their tags.

    `hints`: its resolved annotations. `is_record`: returns whether a class is a record's class.
    Raises: ConfigurationError for a declaration that protocol buffers cannot encode.
    """
    specs = [
        _read_field(cls, field, hints[field.name], is_record) for field in dataclasses.fields(cls)
    ]
    check_unique(cls, specs)
    return tuple(sorted(specs, key=lambda spec: spec.tag))


def _read_field(cls: type, field: dataclasses.Field[Any], hint: Any, is_record: Any) -> FieldSpec:
    where = f"{cls.__name__}.{field.name}"
    inner, notes = _split_annotated(hint)
    tag = _tag(where, [note for note in notes if isinstance(note, int)])
    check_name(where, field.name)
    groups = [note.name for note in notes if isinstance(note, OneOf)]
    kinds = [note for note in notes if isinstance(note, Kind)]
    inner, optional = _unwrap_optional(where, inner)
    inner, more = _split_annotated(inner)
    kinds += [note for note in more if isinstance(note, Kind)]
    shape, inner, key = _shape(where, inner, optional)
    kind, target = _kind(where, inner, kinds, is_record)
    if key is not None and optional:
        raise ConfigurationError(f"{where}: a dict field cannot be None, use an empty dict")
    spec = FieldSpec(
        name=field.name,
        tag=tag,
        kind=kind,
        shape=shape,
        target=target,
        key=key,
        oneof=groups[0] if groups else "",
        implicit=implicit in notes,
        packed=unpacked not in notes,
        default=field.default,
        factory=field.default_factory,
    )
    _check_markers(where, spec)
    return spec


def _split_annotated(hint: Any) -> tuple[Any, list[Any]]:
    """Split `Annotated[x, a, b]` into x and [a, b]; another annotation has no notes."""
    if get_origin(hint) is Annotated:
        inner, *notes = get_args(hint)
        return inner, notes
    return hint, []


def _tag(where: str, tags: list[int]) -> int:
    if not tags:
        raise ConfigurationError(f"{where} has no tag: write Annotated[…, 1], or ClassVar[…]")
    if len(tags) > 1:
        raise ConfigurationError(f"{where} has {len(tags)} tags: {tags}")
    tag = tags[0]
    if isinstance(tag, bool) or not 1 <= tag <= _MAX_TAG:
        raise ConfigurationError(f"{where}: {tag} is not a tag, tags are 1 to {_MAX_TAG}")
    if tag in _RESERVED:
        raise ConfigurationError(f"{where}: tags 19000 to 19999 are reserved by protocol buffers")
    return tag


def check_name(where: str, name: str) -> None:
    """Check that a field can have `name`; `where` is its full name, for the error.

    A name of a method of records or of upb's messages would hide that method.
    Raises: ConfigurationError.
    """
    from google.protobuf.message import Message as ProtoMessage

    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{where}: a field's name is a letter, then letters, digits and _, all ASCII"
        )
    if name in ("to_bytes", "from_bytes", "to_proto") or hasattr(ProtoMessage, name):
        raise ConfigurationError(f"{where}: the name {name!r} is reserved")


def _unwrap_optional(where: str, inner: Any) -> tuple[Any, bool]:
    if get_origin(inner) not in (Union, types.UnionType):
        return inner, False
    rest = [arg for arg in get_args(inner) if arg is not type(None)]
    if len(rest) != 1 or len(rest) == len(get_args(inner)):
        raise ConfigurationError(
            f"{where}: a union other than X | None; declare one field for each, with OneOf"
        )
    return rest[0], True


def _shape(where: str, inner: Any, optional: bool) -> tuple[FieldShape, Any, Kind | None]:
    """The shape, the type of one value, and for a dict the kind of its keys, else None."""
    origin, args = get_origin(inner), get_args(inner)
    if origin in (list, Sequence):
        shape, value = FieldShape.LIST, args[0]
    elif origin is tuple:
        if len(args) != 2 or args[1] is not Ellipsis:
            raise ConfigurationError(f"{where}: a tuple field must be tuple[X, ...], of any length")
        shape, value = FieldShape.TUPLE, args[0]
    elif origin in (dict, Mapping):
        bare, notes = _split_annotated(args[0])
        kinds = [note for note in notes if isinstance(note, Kind)]
        key = kinds[0] if kinds else _KINDS.get(bare)
        if bare not in (int, str, bool) or key is None:
            raise ConfigurationError(f"{where}: the keys of a dict must be str, bool or int")
        return FieldShape.DICT, args[1], key
    else:
        return (FieldShape.OPTIONAL if optional else FieldShape.ONE), inner, None
    if optional:
        raise ConfigurationError(f"{where}: a list field cannot be None, use an empty list")
    return shape, value, None


def _kind(where: str, inner: Any, kinds: list[Kind], is_record: Any) -> tuple[Kind, Any]:
    """The kind of a value of type `inner`, and its class for an enum, a flag or a record."""
    inner, notes = _split_annotated(inner)
    kinds = kinds + [note for note in notes if isinstance(note, Kind)]
    if len(kinds) > 1:
        raise ConfigurationError(
            f"{where}: two protobuf types, {kinds[0].name} and {kinds[1].name}"
        )
    if isinstance(inner, type) and issubclass(inner, enum.Flag):
        return (kinds[0] if kinds else FLAG), inner
    if kinds:
        return kinds[0], None
    if inner in _KINDS:
        return _KINDS[inner], None
    if isinstance(inner, type) and issubclass(inner, enum.Enum):
        return ENUM, _enum(where, inner)
    if is_record(inner):
        return RECORD, inner
    name = getattr(inner, "__name__", repr(inner))
    raise ConfigurationError(
        f"{where}: {name} has no protobuf type; use int, float, bool, str, bytes, an Enum, "
        "datetime, timedelta, a @record, or a list, tuple or dict of these"
    )


def _enum(where: str, type_: type[enum.Enum]) -> type[enum.Enum]:
    for member in type_:
        if not isinstance(member.value, int) or not -(1 << 31) <= member.value < 1 << 31:
            raise ConfigurationError(
                f"{where}: {type_.__name__}.{member.name} is not a 32-bit integer"
            )
    if not len(type_):
        raise ConfigurationError(f"{where}: {type_.__name__} has no members")
    return type_


def _check_markers(where: str, spec: FieldSpec) -> None:
    if spec.shape is FieldShape.OPTIONAL and spec.default_value is not None:
        raise ConfigurationError(f"{where}: the default of an optional field must be None")
    if spec.oneof and (spec.shape is not FieldShape.OPTIONAL or spec.default is not None):
        raise ConfigurationError(
            f"{where}: a field of a OneOf must be X | None and default to None"
        )
    if spec.implicit and (spec.shape is not FieldShape.ONE or spec.kind.number == RECORD.number):
        raise ConfigurationError(f"{where}: implicit applies only to one number, str or bytes")
    if spec.implicit and spec.default_value:
        raise ConfigurationError(
            f"{where}: an implicit field cannot have a default other than zero"
        )
    if not spec.packed and (
        spec.shape not in (FieldShape.LIST, FieldShape.TUPLE) or not spec.kind.packable
    ):
        raise ConfigurationError(f"{where}: unpacked applies only to lists of numbers")


def check_unique(cls: type, specs: Sequence[FieldSpec]) -> None:
    """Check that no two fields share a tag or a name in JSON. Raises: ConfigurationError."""
    tags: dict[int, FieldSpec] = {}
    names: dict[str, FieldSpec] = {}
    for spec in specs:
        other = tags.setdefault(spec.tag, spec)
        if other is not spec:
            raise ConfigurationError(
                f"{cls.__name__}: {other.name} and {spec.name} have the same tag {spec.tag}"
            )
        other = names.setdefault(_json_name(spec.wire), spec)
        if other is not spec:
            raise ConfigurationError(
                f"{cls.__name__}: {other.name} and {spec.name} have the same name in JSON"
            )


def _json_name(name: str) -> str:
    """A key that is equal for names that protobuf's JSON turns into the same camel case."""
    return name.replace("_", "").lower()

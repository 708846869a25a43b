"""Descriptors: from the fields of records to the FileDescriptorProto that upb works by.

One file holds a record and everything that it reaches, so it can be printed, compiled elsewhere and
registered in a pool of its own: two records of one name in different modules never meet.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    message_factory,
    timestamp_pb2,
)
from google.protobuf.message import Message as ProtoMessage

from majordomus.errors import ConfigurationError
from majordomus.messages.fields import FieldShape, FieldSpec
from majordomus.messages.kinds import ENUM, RECORD, Kind

__all__ = ["Shapes", "build_file", "message_class", "snake"]

_Field = descriptor_pb2.FieldDescriptorProto
_WELL_KNOWN = {
    "google.protobuf.Timestamp": timestamp_pb2.DESCRIPTOR,
    "google.protobuf.Duration": duration_pb2.DESCRIPTOR,
}

Shapes = Sequence[tuple[str, tuple[FieldSpec, ...], type]]
"""Name, fields and class of every record of a file, in the order of their printing."""


def build_file(
    package: str, shapes: Shapes, names: dict[Any, str]
) -> descriptor_pb2.FileDescriptorProto:
    """The file of `shapes`. `names` maps the classes of records and enums to their .proto names.

    Raises: ConfigurationError when two different classes have one name.
    """
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package.replace('.', '/') or 'majordomus'}/{shapes[-1][0]}.proto",
        package=package,
        syntax="proto3",
    )
    prefix = f".{package}." if package else "."
    enums: dict[str, type[enum.Enum]] = {}
    imports: set[str] = set()
    for name, specs, _cls in shapes:
        message = file.message_type.add(name=name)
        for spec in specs:
            _add_field(message, spec, prefix, names)
            if spec.kind is ENUM:
                enums[names[spec.target]] = spec.target
            if spec.kind.message:
                imports.add(_WELL_KNOWN[spec.kind.message].name)
        _add_oneofs(message, specs)
    for name, type_ in sorted(enums.items()):
        _add_enum(file, name, type_)
    file.dependency.extend(sorted(imports))
    return file


def message_class(file: descriptor_pb2.FileDescriptorProto, name: str) -> type[ProtoMessage]:
    """The upb class of message `name` of `file`, from a pool of its own.

    Raises: ConfigurationError with upb's own words when it refuses the file.
    """
    pool = descriptor_pool.DescriptorPool()
    for known in _WELL_KNOWN.values():
        if known.name in file.dependency:
            pool.AddSerializedFile(known.serialized_pb)
    full = f"{file.package}.{name}" if file.package else name
    try:
        pool.AddSerializedFile(file.SerializeToString())
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(full))
    except (TypeError, KeyError) as error:
        raise ConfigurationError(f"{full}: {error}") from None


def _add_field(
    message: descriptor_pb2.DescriptorProto, spec: FieldSpec, prefix: str, names: dict[Any, str]
) -> None:
    field = message.field.add(name=spec.wire, number=spec.tag)
    field.label = _Field.LABEL_REPEATED if spec.repeated else _Field.LABEL_OPTIONAL
    if spec.shape is FieldShape.DICT:
        entry = _map_entry(message, spec)
        _set_type(entry.field[1], spec, prefix, names)
        field.type = _Field.TYPE_MESSAGE
        field.type_name = f"{prefix}{message.name}.{entry.name}"
        return
    _set_type(field, spec, prefix, names)
    if not spec.packed:
        field.options.packed = False


def _set_type(field: _Field, spec: FieldSpec, prefix: str, names: dict[Any, str]) -> None:
    field.type = spec.kind.number  # type: ignore[assignment]  # from kinds.py
    if spec.kind.message:
        field.type_name = f".{spec.kind.message}"
    elif spec.kind in (ENUM, RECORD):
        field.type_name = prefix + names[spec.target]


def _map_entry(
    message: descriptor_pb2.DescriptorProto, spec: FieldSpec
) -> descriptor_pb2.DescriptorProto:
    key: Kind | None = spec.key
    if key is None:
        raise TypeError("a dict has a kind of keys")
    entry = message.nested_type.add(name=f"{camel(spec.wire)}Entry")
    entry.options.map_entry = True
    optional = _Field.LABEL_OPTIONAL
    entry.field.add(name="key", number=1, label=optional, type=key.number)
    entry.field.add(name="value", number=2, label=optional)
    return entry


def _add_oneofs(message: descriptor_pb2.DescriptorProto, specs: Iterable[FieldSpec]) -> None:
    """Real groups first, then the hidden ones by which proto3 marks `optional`, as protoc does."""
    by_name = {field.name: field for field in message.field}
    groups: dict[str, int] = {}
    for spec in specs:
        if spec.oneof:
            index = groups.setdefault(spec.oneof, len(groups))
            by_name[spec.wire].oneof_index = index
    for group in groups:
        message.oneof_decl.add(name=group)
    for spec in specs:
        field = by_name[spec.wire]
        if spec.oneof or not spec.explicit or field.type == _Field.TYPE_MESSAGE:
            continue
        field.proto3_optional = True
        field.oneof_index = len(message.oneof_decl)
        message.oneof_decl.add(name=f"_{spec.wire}")


def _add_enum(file: descriptor_pb2.FileDescriptorProto, name: str, type_: type[enum.Enum]) -> None:
    """Proto3 wants zero, and it first. Values are siblings of their type: hence the prefix."""
    added = file.enum_type.add(name=name)
    verbatim: dict[int, str] = getattr(type_, "__proto_names__", {})
    prefix = snake(name).upper()
    values = {member.value: f"{prefix}_{member.name.upper()}" for member in type_} | verbatim
    values.setdefault(0, f"{prefix}_UNSPECIFIED")
    for number, label in sorted(values.items(), key=lambda item: (item[0] != 0,)):
        added.value.add(name=label, number=number)


def camel(name: str) -> str:
    """`phone_numbers` → `PhoneNumbers`, as protoc names the entry of a map."""
    return re.sub(r"(?:^|_)([A-Za-z0-9])", lambda match: match[1].upper(), name)


def snake(name: str) -> str:
    """`PhoneType` → `phone_type`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()

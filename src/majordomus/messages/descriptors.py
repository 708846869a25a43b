"""Descriptors: make the FileDescriptorProto that upb needs from the fields of records.

One file holds a record and every record and enum that it contains. So it can be printed, compiled
by protoc, and registered in a pool of its own: records of the same name in different modules do not
conflict.
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
"""The name, fields and class of every record of a file, in the order of the file."""


def build_file(
    package: str, shapes: Shapes, names: dict[Any, str]
) -> descriptor_pb2.FileDescriptorProto:
    """Make the file of the records `shapes`, named after the last one.

    `names`: the .proto name of every record's and enum's class, unique in the file.
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
    """Return upb's class for the message `name` of `file`, from a new descriptor pool.

    Raises: ConfigurationError with upb's text when upb rejects the file.
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
        raise TypeError("the FieldSpec of a dict needs a key")
    entry = message.nested_type.add(name=f"{camel(spec.wire)}Entry")
    entry.options.map_entry = True
    optional = _Field.LABEL_OPTIONAL
    entry.field.add(name="key", number=1, label=optional, type=key.number)
    entry.field.add(name="value", number=2, label=optional)
    return entry


def _add_oneofs(message: descriptor_pb2.DescriptorProto, specs: Iterable[FieldSpec]) -> None:
    """Add the declared oneofs first, then a synthetic oneof for each `optional` field.

    proto3 marks an `optional` field by a oneof of its own. protoc requires this order.
    """
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
    """Add an enum. proto3 requires zero as the first value, so a missing zero is added.

    The values have a prefix because an enum's values share the scope of the enum itself. An enum
    made from a .proto keeps its names.
    """
    added = file.enum_type.add(name=name)
    verbatim: dict[int, str] = getattr(type_, "__proto_names__", {})
    prefix = snake(name).upper()
    values = {member.value: f"{prefix}_{member.name.upper()}" for member in type_} | verbatim
    values.setdefault(0, f"{prefix}_UNSPECIFIED")
    for number, label in sorted(values.items(), key=lambda item: (item[0] != 0,)):
        added.value.add(name=label, number=number)


def camel(name: str) -> str:
    """`phone_numbers` → `PhoneNumbers`, as protoc names the entry message of a map."""
    return re.sub(r"(?:^|_)([A-Za-z0-9])", lambda match: match[1].upper(), name)


def snake(name: str) -> str:
    """`PhoneType` → `phone_type`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()

"""The protobuf descriptor of annotations: a FileDescriptorSet, and its .proto text.

A record and a protobuf class have their own descriptor. Structs, dataclasses and TypedDicts get a
message whose fields are numbered from 1, in order. A type that protocol buffers cannot express (a
union, Any, a tuple) has no message; then the other encodings alone describe it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
from google.protobuf import descriptor_pb2, descriptor_pool, duration_pb2, timestamp_pb2
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import DecodeError

from majordomus.contracts.schemas import descriptor_of
from majordomus.errors import ConfigurationError, RemoteProtocolError
from majordomus.messages import prototext
from majordomus.messages.codec import names_of, reachable
from majordomus.messages.descriptors import build_file, camel, snake
from majordomus.messages.records import codec_of, is_record

_Field = descriptor_pb2.FieldDescriptorProto
_File = descriptor_pb2.FileDescriptorProto
_Set = descriptor_pb2.FileDescriptorSet
_GOOGLE = "google/protobuf/"
_inspect = msgspec.inspect


class Described(NamedTuple):
    """The descriptor of several annotations. names: the message of each, "" for none."""

    files: bytes
    names: tuple[str, ...]


def describe(annotations: Sequence[Any]) -> Described:
    """Return the files with the messages of `annotations`, as a serialized FileDescriptorSet."""
    files: dict[str, _File] = {}
    names = ["" for _ in annotations]
    records = [one for one in annotations if is_record(one)]
    if records:
        try:
            file, by_class = _records(records)
        except ConfigurationError:  # two classes of one name
            file, by_class = _records(records[:1])
        files[file.name] = file
        prefix = f"{file.package}." if file.package else ""
        for number, one in enumerate(annotations):
            if is_record(one) and one in by_class:
                names[number] = prefix + by_class[one]
    for number, one in enumerate(annotations):
        descriptor = None if is_record(one) else descriptor_of(one)
        if descriptor is not None:
            names[number] = descriptor.full_name
            _add_with_imports(descriptor.file, files)
    made = _Builder([])
    taken: list[Any] = []
    for number, one in enumerate(annotations):
        if names[number] or is_record(one):
            continue
        wider = _Builder([*taken, one])  # one file for all of them: they may share types
        if len(wider.names) > len(taken) and not _clashes(wider.file, files):
            made, taken = wider, [*taken, one]
            names[number] = made.names[-1]
    if taken:
        files[made.file.name] = made.file
    if not files:
        return Described(b"", tuple(names))
    return Described(_Set(file=files.values()).SerializeToString(deterministic=True), tuple(names))


def _records(classes: Iterable[Any]) -> tuple[_File, dict[Any, str]]:
    codecs: dict[int, Any] = {}
    wanted = list(dict.fromkeys(classes))
    for cls in wanted:
        codecs.update((id(codec), codec) for codec in reachable(codec_of(cls)))
    names = names_of(codecs.values())
    shapes = [(codec.name, codec.specs, codec.cls) for codec in codecs.values()]
    file = build_file(codec_of(wanted[0]).package, shapes, names)
    return file, {cls: codec_of(cls).name for cls in wanted}


def _add_with_imports(file: FileDescriptor, files: dict[str, _File]) -> None:
    if file.name in files or file.name.startswith(_GOOGLE):
        return
    for imported in file.dependencies:
        _add_with_imports(imported, files)
    files[file.name] = _File()
    file.CopyToProto(files[file.name])


def _clashes(file: _File, files: dict[str, _File]) -> bool:
    """Whether other files define a message or enum of `file`."""
    mine = _names(file)
    return any(mine & _names(other) for other in files.values())


def _names(file: _File) -> set[str]:
    messages = [f"{file.package}.{one.name}" for one in file.message_type]
    return {*messages, *(f"{file.package}.{one.name}" for one in file.enum_type)}


# -- Structs, dataclasses and TypedDicts


class _Unsupported(Exception):
    """A type that protocol buffers cannot express."""


class _Builder:
    """The file of some annotations.

    names: the full names of their messages; none where one of them cannot be expressed.
    """

    def __init__(self, annotations: Sequence[Any]) -> None:
        self.file = _File(syntax="proto3")
        self._known: dict[Any, str] = {}
        self.names: list[str] = []
        try:
            for annotation in annotations:
                info = _inspect.type_info(annotation)
                self.names.append(self._root(info))
        except (_Unsupported, TypeError, RecursionError):
            self.names = []
        if self.names:
            self.file.name = f"{self.names[0].replace('.', '/')}.proto"

    def _root(self, info: Any) -> str:
        if not isinstance(info, _CLASSES):
            raise _Unsupported
        if not self.names:
            self.file.package = _package(_class_of(info))
        return self._message(info).removeprefix(".")

    def _message(self, info: Any) -> str:
        cls = _class_of(info)
        if cls in self._known:
            return self._known[cls]
        name = cls.__name__
        full = f".{self.file.package}.{name}" if self.file.package else f".{name}"
        if full in self._known.values() or not name.isidentifier() or not name.isascii():
            raise _Unsupported
        self._known[cls] = full
        message = self.file.message_type.add(name=name)
        options = []
        for number, field in enumerate(info.fields, 1):
            made = message.field.add(
                name=field.encode_name, number=number, label=_Field.LABEL_OPTIONAL
            )
            if not field.encode_name.isidentifier() or not field.encode_name.isascii():
                raise _Unsupported
            if self._field(message, made, field.type):
                options.append(made)
        for made in options:  # proto3 marks an optional field by a oneof of its own
            made.proto3_optional = True
            made.oneof_index = len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{made.name}")
        return full

    def _field(self, message: Any, field: Any, info: Any) -> bool:
        """Set the type of a field. Return whether it is `optional`."""
        if isinstance(info, _inspect.UnionType):
            inner = [one for one in info.types if not isinstance(one, _inspect.NoneType)]
            if len(inner) != 1 or isinstance(inner[0], _LISTS | _inspect.DictType):
                raise _Unsupported
            self._type(field, inner[0])
        elif isinstance(info, _LISTS):
            field.label = _Field.LABEL_REPEATED
            self._type(field, info.item_type)
            return False
        elif isinstance(info, _inspect.DictType):
            self._map(message, field, info)
            return False
        else:
            self._type(field, info)
        return bool(field.type != _Field.TYPE_MESSAGE)

    def _map(self, message: Any, field: Any, info: Any) -> None:
        entry = message.nested_type.add(name=f"{camel(field.name)}Entry")
        entry.options.map_entry = True
        key = entry.field.add(name="key", number=1, label=_Field.LABEL_OPTIONAL)
        value = entry.field.add(name="value", number=2, label=_Field.LABEL_OPTIONAL)
        if not isinstance(info.key_type, _inspect.StrType | _inspect.IntType):
            raise _Unsupported
        self._type(key, info.key_type)
        self._type(value, info.value_type)
        package = f".{self.file.package}" if self.file.package else ""
        field.label, field.type = _Field.LABEL_REPEATED, _Field.TYPE_MESSAGE
        field.type_name = f"{package}.{message.name}.{entry.name}"

    def _type(self, field: Any, info: Any) -> None:
        scalar = next((number for kind, number in _SCALARS if isinstance(info, kind)), None)
        if scalar is not None:
            field.type = scalar
        elif isinstance(info, _CLASSES):
            field.type, field.type_name = _Field.TYPE_MESSAGE, self._message(info)
        elif isinstance(info, _inspect.EnumType):
            field.type, field.type_name = _Field.TYPE_ENUM, self._enum(info.cls)
        elif isinstance(info, _inspect.DateTimeType | _inspect.TimeDeltaType):
            known = timestamp_pb2 if isinstance(info, _inspect.DateTimeType) else duration_pb2
            field.type = _Field.TYPE_MESSAGE
            name = known.DESCRIPTOR.message_types_by_name
            field.type_name = f".{next(iter(name.values())).full_name}"
            if known.DESCRIPTOR.name not in self.file.dependency:
                self.file.dependency.append(known.DESCRIPTOR.name)
        else:
            raise _Unsupported

    def _enum(self, cls: type[enum.Enum]) -> str:
        if cls in self._known:
            return self._known[cls]
        full = f".{self.file.package}.{cls.__name__}" if self.file.package else f".{cls.__name__}"
        if full in self._known.values():
            raise _Unsupported
        self._known[cls] = full
        made = self.file.enum_type.add(name=cls.__name__)
        prefix = snake(cls.__name__).upper()
        numbers = [member.value for member in cls]
        ints = all(type(number) is int and 0 <= number < 2**31 for number in numbers)
        if not ints or 0 not in numbers:
            made.value.add(name=f"{prefix}_UNSPECIFIED", number=0)
        members = sorted(cls, key=lambda one: one.value != 0) if ints else list(cls)
        for place, member in enumerate(members, 1):
            number = member.value if ints else place
            made.value.add(name=f"{prefix}_{member.name.upper()}", number=number)
        return full


_CLASSES = (
    _inspect.StructType,
    _inspect.DataclassType,
    _inspect.TypedDictType,
    _inspect.NamedTupleType,
)
_LISTS = (
    _inspect.ListType
    | _inspect.SetType
    | _inspect.FrozenSetType
    | _inspect.VarTupleType
    | _inspect.CollectionType
)
_SCALARS = (
    (_inspect.BoolType, _Field.TYPE_BOOL),
    (_inspect.IntType, _Field.TYPE_SINT64),
    (_inspect.FloatType, _Field.TYPE_DOUBLE),
    (_inspect.StrType, _Field.TYPE_STRING),
    (_inspect.BytesType | _inspect.ByteArrayType, _Field.TYPE_BYTES),
    (_inspect.UUIDType | _inspect.DecimalType, _Field.TYPE_STRING),
)


def _class_of(info: Any) -> Any:
    return info.cls


def _package(cls: type) -> str:
    parts = [part.strip("_") for part in cls.__module__.split(".")]
    return ".".join(part for part in parts if part.isidentifier() and part.isascii())


# -- text


def proto_text(descriptor: bytes) -> str:
    """Return the .proto text of a FileDescriptorSet. Files of one package become one text.

    Raises: RemoteProtocolError for a malformed descriptor.
    """
    files = read(descriptor)
    if not files:
        return ""
    merged = _File(syntax="proto3", package=files[0].package, name="contract.proto")
    seen: set[str] = set()
    for file in files:
        if file.package != merged.package:
            raise RemoteProtocolError(
                "bad-contract", f"messages of two packages: {merged.package}, {file.package}"
            )
        merged.dependency.extend(
            name
            for name in file.dependency
            if name.startswith(_GOOGLE) and name not in merged.dependency
        )
        for kind in ("enum_type", "message_type"):
            for one in getattr(file, kind):
                if one.name not in seen:
                    seen.add(one.name)
                    getattr(merged, kind).append(one)
    return prototext.print_file(merged, {})


def read(descriptor: bytes) -> list[_File]:
    """Return the files of a FileDescriptorSet. Raises: RemoteProtocolError."""
    try:
        files = list(_Set.FromString(descriptor).file)
    except DecodeError as error:
        raise RemoteProtocolError("bad-contract", f"descriptor: {error}") from None
    for file in files:
        _check_texts(file)
    return files


def _check_texts(message: Any) -> None:
    """Check that every text is UTF-8: protobuf returns bytes for one that is not."""
    for field, value in message.ListFields():
        if field.type not in (_Field.TYPE_MESSAGE, _Field.TYPE_STRING):
            continue
        for one in value if field.is_repeated else [value]:
            if field.message_type is not None:
                _check_texts(one)
            elif not isinstance(one, str):
                raise RemoteProtocolError("bad-contract", "descriptor: a text is not UTF-8")


def pool_of(descriptor: bytes) -> descriptor_pool.DescriptorPool:
    """Return a pool with the messages of a FileDescriptorSet. Raises: RemoteProtocolError."""
    pool = descriptor_pool.DescriptorPool()
    for known in (timestamp_pb2, duration_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    try:
        for file in read(descriptor):
            pool.AddSerializedFile(file.SerializeToString())
    except TypeError as error:  # upb's error for a file that cannot be linked
        raise RemoteProtocolError("bad-contract", f"descriptor: {error}") from None
    return pool


__all__ = ["Described", "describe", "pool_of", "proto_text", "read"]

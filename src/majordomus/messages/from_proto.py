"""Make records from .proto text, a descriptor or a compiled message class.

The classes are ordinary records. Their fields come from descriptors instead of annotations, and
keep the presence declared there: the zero of a plain proto3 number is not written.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import keyword
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message import Message as ProtoMessage

from majordomus.errors import ConfigurationError
from majordomus.messages import protofile
from majordomus.messages.descriptors import snake
from majordomus.messages.fields import FieldShape, FieldSpec, check_name
from majordomus.messages.kinds import DURATION, ENUM, RECORD, SCALARS, TIMESTAMP, OneOf
from majordomus.messages.records import make_records

__all__ = ["record_from_proto", "records_from_proto"]

_File = descriptor_pb2.FileDescriptorProto
_Field = descriptor_pb2.FieldDescriptorProto
_KNOWN = {kind.message: kind for kind in (TIMESTAMP, DURATION)}
_GOOGLE = "google/protobuf/"


def record_from_proto(source: Any, name: str | None = None, *, paths: Iterable[Path] = ()) -> Any:
    """Make a record of the message `name` of `source`; a single message needs no name.

    `source`: .proto text, the Path of a .proto file, a FileDescriptorProto, a message's Descriptor,
    or a compiled message class. `paths`: folders in which imports of .proto text are looked up,
    besides the file's own folder.
    Raises: ConfigurationError for text with errors and for messages that records do not support.
    """
    found = _records(source, paths, sys._getframe(1).f_globals.get("__name__", ""))
    wanted = name if name is not None else _default_name(source, found)
    if wanted not in found:
        raise ConfigurationError(
            f"unknown message {wanted!r}; the known ones are {', '.join(found)}"
        )
    return found[wanted]


def records_from_proto(source: Any, *, paths: Iterable[Path] = ()) -> dict[str, Any]:
    """Make records of all messages of `source`, by name; a nested message is `Outer_Inner`.

    Parameters and errors as in `record_from_proto`.
    """
    return _records(source, paths, sys._getframe(1).f_globals.get("__name__", ""))


def _default_name(source: Any, found: dict[str, Any]) -> str:
    descriptor = getattr(source, "DESCRIPTOR", source)
    if hasattr(descriptor, "fields_by_name"):
        return _python_name(descriptor)
    top = [name for name in found if "_" not in name] or list(found)
    if len(top) != 1:
        raise ConfigurationError(f"give the name of the message: one of {', '.join(top)}")
    return top[0]


def _records(source: Any, paths: Iterable[Path], module: str) -> dict[str, Any]:
    """The records by name. `module`: the caller's, which becomes the module of the classes."""
    descriptors = {
        d.full_name: d for top in _descriptors(source, paths) for d in _reachable_messages(top)
    }
    maker = _ClassMaker(module)
    make_records([maker.declare(descriptor) for descriptor in descriptors.values()], maker.specs)
    return {_python_name(d): maker.classes[d.full_name] for d in descriptors.values()}


# -- finding descriptors


def _descriptors(source: Any, paths: Iterable[Path]) -> list[Any]:
    if isinstance(source, type) and issubclass(source, ProtoMessage):
        return [source.DESCRIPTOR]
    if hasattr(source, "fields_by_name"):
        return [source]
    if isinstance(source, Path):
        folders = [source.parent, *paths]
        return _from_text(source.read_text(encoding="utf-8"), source.name, folders)
    if isinstance(source, str):
        return _from_text(source, "<text>", list(paths))
    if isinstance(source, _File):
        return _from_files([source], source.name)
    raise ConfigurationError(f"cannot make records from {type(source).__name__}")


def _from_text(text: str, name: str, folders: list[Path]) -> list[Any]:
    files: dict[str, _File] = {}
    _load(text, name, folders, files)
    for file in files.values():
        protofile.resolve(file, [other for other in files.values() if other is not file])
    return _from_files(files.values(), name)


def _load(text: str, name: str, folders: list[Path], files: dict[str, _File]) -> None:
    """Parse a file and the files that it imports into `files`, imports first."""
    file = protofile.parse(text, name)
    for imported in file.dependency:
        if imported in files:
            continue
        if imported.startswith(_GOOGLE):
            files[imported] = _well_known(imported)
            continue
        found = [folder / imported for folder in folders if (folder / imported).is_file()]
        if not found:
            raise ConfigurationError(f"{name}: cannot find the import {imported!r}")
        _load(found[0].read_text(encoding="utf-8"), imported, folders, files)
    files[name] = file


def _well_known(name: str) -> _File:
    module = name.removesuffix(".proto").replace("/", ".") + "_pb2"
    try:
        descriptor = importlib.import_module(module).DESCRIPTOR
    except ImportError:
        raise ConfigurationError(f"cannot find the import {name!r}") from None
    return _File.FromString(descriptor.serialized_pb)


def _from_files(files: Iterable[_File], name: str) -> list[Any]:
    pool = descriptor_pool.DescriptorPool()
    added: set[str] = set()
    try:
        for file in files:
            for imported in file.dependency:
                if imported.startswith(_GOOGLE) and imported not in added:
                    pool.AddSerializedFile(_well_known(imported).SerializeToString())
                    added.add(imported)
            if file.name not in added:
                pool.AddSerializedFile(file.SerializeToString())
                added.add(file.name)
        return list(pool.FindFileByName(name).message_types_by_name.values())
    except (TypeError, KeyError) as error:
        raise ConfigurationError(f"{name}: {error}") from None


def _reachable_messages(descriptor: Any) -> Iterator[Any]:
    """Yield a message, the messages declared in it and those of its fields, each once."""
    seen: dict[str, Any] = {}
    todo = [descriptor]
    while todo:
        at = todo.pop(0)
        if at.full_name in seen or (at.full_name in _KNOWN and at is not descriptor):
            continue
        seen[at.full_name] = at
        inner = [f.message_type for f in at.fields if f.message_type is not None]
        for entry in (message for message in inner if message.GetOptions().map_entry):
            value = entry.fields_by_name["value"].message_type
            todo += [] if value is None else [value]
        todo += [m for m in (*at.nested_types, *inner) if not m.GetOptions().map_entry]
    yield from seen.values()


# -- making classes


def _python_name(descriptor: Any) -> str:
    """The class's name: the full name without the package, `Outer.Inner` as `Outer_Inner`."""
    package = descriptor.file.package
    local = descriptor.full_name.removeprefix(f"{package}." if package else "")
    return str(local.replace(".", "_"))


class _ClassMaker:
    """Makes the classes of a set of descriptors: first all dataclasses, then their FieldSpecs.

    `module`: the module of the classes.
    `classes`: the dataclasses, by the full name of the message.
    `_descriptors`: the descriptor of each dataclass.
    `_enums`: the enums made so far, by full name.
    `_optional_names`: the names of the `optional` proto3 fields of each message, by full name.
    """

    def __init__(self, module: str) -> None:
        self.module = module
        self.classes: dict[str, Any] = {}
        self._descriptors: dict[Any, Any] = {}
        self._enums: dict[str, type[enum.Enum]] = {}
        self._optional_names: dict[str, set[str]] = {}

    def declare(self, descriptor: Any) -> tuple[Any, str, str]:
        """Make a dataclass, which has no codec yet; return it with its .proto name and package."""
        name = _python_name(descriptor)
        fields = [self._declare_field(field) for field in descriptor.fields]
        made = dataclasses.make_dataclass(name, fields)
        made.__module__ = self.module
        made.__doc__ = f"{name}(…), from the message {descriptor.full_name}."
        self.classes[descriptor.full_name] = made
        self._descriptors[made] = descriptor
        return made, name, descriptor.file.package

    def specs(self, cls: Any) -> tuple[FieldSpec, ...]:
        """Return the fields of a class by tag, after all classes are declared."""
        descriptor = self._descriptors[cls]
        specs = (self._spec(field) for field in descriptor.fields)
        return tuple(sorted(specs, key=lambda spec: spec.tag))

    def _declare_field(self, field: Any) -> tuple[str, Any, Any]:
        spec = self._spec(field)
        check_name(f"{field.containing_type.full_name}.{field.name}", spec.name)
        one = getattr(spec.target, "__name__", None) or spec.kind.message or spec.kind.name
        notes: tuple[Any, ...] = (spec.tag, OneOf(spec.oneof)) if spec.oneof else (spec.tag,)
        kept = dataclasses.field(default=spec.default, default_factory=spec.factory)
        return spec.name, Annotated[(Any, f"{spec.shape.value} {one}", *notes)], kept

    def _spec(self, field: Any) -> FieldSpec:
        name = f"{field.name}_" if keyword.iskeyword(field.name) else field.name
        if field.type == _Field.TYPE_GROUP:
            raise ConfigurationError(f"{field.full_name} is a group: groups are not supported")
        entry: Any = field.message_type if field.type == _Field.TYPE_MESSAGE else None
        is_map = entry is not None and entry.GetOptions().map_entry
        value = entry.fields_by_name["value"] if is_map else field
        kind, target = self._kind(value)
        shape = _shape(field, is_map)
        oneof = field.containing_oneof
        hidden = oneof is not None and field.name in self._optionals(field.containing_type)
        default, factory = _default(field, shape, target)
        return FieldSpec(
            name=name,
            tag=field.number,
            kind=kind,
            shape=shape,
            target=target,
            key=SCALARS[entry.fields_by_name["key"].type] if is_map else None,
            oneof=oneof.name if oneof is not None and not hidden else "",
            implicit=shape is FieldShape.ONE and not field.has_presence,
            required=_required(field),
            packed=shape is not FieldShape.LIST or not kind.packable or _is_packed(field),
            default=default,
            factory=factory,
        )

    def _optionals(self, descriptor: Any) -> set[str]:
        """The names of the `optional` proto3 fields; their synthetic oneofs are not declared ones.

        The Python descriptor does not show this flag; the FieldDescriptorProto does.
        """
        if descriptor.full_name not in self._optional_names:
            copied = descriptor_pb2.DescriptorProto()
            descriptor.CopyToProto(copied)
            self._optional_names[descriptor.full_name] = {
                field.name for field in copied.field if field.proto3_optional
            }
        return self._optional_names[descriptor.full_name]

    def _kind(self, field: Any) -> tuple[Any, Any]:
        if field.type == _Field.TYPE_ENUM:
            return ENUM, self._enum(field.enum_type)
        if field.type != _Field.TYPE_MESSAGE:
            return SCALARS[field.type], None
        name = field.message_type.full_name
        if name in _KNOWN:
            return _KNOWN[name], None
        return RECORD, self.classes.get(name)

    def _enum(self, descriptor: Any) -> type[enum.Enum]:
        """Make an IntEnum. Its members lose the prefix that repeats the name of the enum.

        `__proto_names__` keeps the names of the .proto, for printing and JSON.
        """
        if descriptor.full_name not in self._enums:
            prefix = f"{snake(descriptor.name).upper()}_"
            names = [value.name for value in descriptor.values]
            bare = [name.removeprefix(prefix) for name in names]
            stripped = all(b.isidentifier() and b != n for b, n in zip(bare, names, strict=True))
            members = {
                label: value.number
                for label, value in zip(bare if stripped else names, descriptor.values, strict=True)
            }
            make: Any = enum.IntEnum
            made = make(_python_name(descriptor), members, module=self.module)
            made.__proto_names__ = {v.number: v.name for v in reversed(list(descriptor.values))}
            self._enums[descriptor.full_name] = made
        return self._enums[descriptor.full_name]


def _shape(field: Any, is_map: bool) -> FieldShape:
    if is_map:
        return FieldShape.DICT
    if _repeated(field):
        return FieldShape.LIST
    if _required(field) or not field.has_presence or field.has_default_value:
        return FieldShape.ONE
    return FieldShape.OPTIONAL


def _default(field: Any, shape: FieldShape, target: Any) -> tuple[Any, Any]:
    """The dataclass's default and default_factory of a field: one of them, the other is MISSING."""
    missing = dataclasses.MISSING
    if shape in (FieldShape.LIST, FieldShape.DICT):
        return missing, (list if shape is FieldShape.LIST else dict)
    if shape is FieldShape.OPTIONAL:
        return None, missing
    if field.type == _Field.TYPE_MESSAGE:
        raise ConfigurationError(f"{field.full_name} is a required message: make it optional")
    value = field.default_value
    return (target(value) if target is not None else value), missing


# Old versions of protobuf do not have `is_packed`, `is_repeated` and `is_required`.


def _is_packed(field: Any) -> bool:
    packed = getattr(field, "is_packed", None)
    if packed is not None:
        return bool(packed)
    options = field.GetOptions()
    if options.HasField("packed"):
        return bool(options.packed)
    file = _File()
    field.file.CopyToProto(file)
    return file.syntax == "proto3"


def _repeated(field: Any) -> bool:
    label = getattr(field, "is_repeated", None)
    return bool(label) if label is not None else field.label == _Field.LABEL_REPEATED


def _required(field: Any) -> bool:
    label = getattr(field, "is_required", None)
    return bool(label) if label is not None else field.label == _Field.LABEL_REQUIRED

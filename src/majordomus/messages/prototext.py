"""Prototext: prints a FileDescriptorProto as .proto text.

It prints the same descriptor that upb uses, so the text describes the actual encoding.
"""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf import descriptor_pb2

__all__ = ["print_file"]

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in _Field.Type.items()
    if name not in ("TYPE_GROUP", "TYPE_MESSAGE", "TYPE_ENUM")
}
_HEAD = """\
// Made by majordomus from the annotations of Python classes.
// Numbers are `optional` so that zeros are written: readers may rely on their being there.
"""


def print_file(file: descriptor_pb2.FileDescriptorProto, docs: Mapping[str, str]) -> str:
    """Print `file`. `docs`: the comment line above each message, by the message's name."""
    parts = [_HEAD, 'syntax = "proto3";\n']
    if file.package:
        parts.append(f"package {file.package};\n")
    if file.dependency:
        parts.append("".join(f'import "{name}";\n' for name in file.dependency))
    parts += [_enum(enum) for enum in file.enum_type]
    parts += [_message(message, file.package, docs) for message in file.message_type]
    return "\n".join(parts)


def _enum(enum: descriptor_pb2.EnumDescriptorProto) -> str:
    values = "".join(f"  {value.name} = {value.number};\n" for value in enum.value)
    return f"enum {enum.name} {{\n{values}}}\n"


def _message(message: descriptor_pb2.DescriptorProto, package: str, docs: Mapping[str, str]) -> str:
    prefix = f".{package}." if package else "."
    entries = {f"{prefix}{message.name}.{entry.name}": entry for entry in message.nested_type}
    inner = [_enum(enum) for enum in message.enum_type]
    inner += [
        _message(nested, f"{package}.{message.name}".removeprefix("."), {})
        for nested in message.nested_type
        if not nested.options.map_entry
    ]
    lines = ["".join(f"  {line}\n" for line in text.splitlines()) for text in inner]
    groups: dict[int, list[str]] = {}
    for field in message.field:
        text = _field(field, prefix, entries)
        if not field.HasField("oneof_index") or field.proto3_optional:
            lines.append(f"  {text}\n")
            continue
        if field.oneof_index not in groups:
            groups[field.oneof_index] = []
            lines.append(f"\0{field.oneof_index}")
        groups[field.oneof_index].append(f"    {text}\n")
    body = "".join(_group(message, line, groups) if line[0] == "\0" else line for line in lines)
    comment = f"// {docs[message.name]}\n" if docs.get(message.name) else ""
    return f"{comment}message {message.name} {{\n{body}}}\n"


def _group(
    message: descriptor_pb2.DescriptorProto, place: str, groups: Mapping[int, list[str]]
) -> str:
    """The text of the oneof of `place`, a line of "\\0" and the oneof's index.

    `_message` puts that line where the first field of the oneof is declared.
    """
    index = int(place[1:])
    return f"  oneof {message.oneof_decl[index].name} {{\n{''.join(groups[index])}  }}\n"


def _field(
    field: _Field, prefix: str, entries: Mapping[str, descriptor_pb2.DescriptorProto]
) -> str:
    entry = entries.get(field.type_name)
    if entry is not None:
        key, value = (_type(part, prefix) for part in entry.field)
        return f"map<{key}, {value}> {field.name} = {field.number};"
    label = "repeated " if field.label == _Field.LABEL_REPEATED else ""
    label = "optional " if field.proto3_optional else label
    unpacked = field.options.HasField("packed") and not field.options.packed
    option = " [packed = false]" if unpacked else ""
    return f"{label}{_type(field, prefix)} {field.name} = {field.number}{option};"


def _type(field: _Field, prefix: str) -> str:
    scalar = _SCALARS.get(field.type)
    if scalar is not None:
        return scalar
    name = field.type_name
    bare = name.removeprefix(prefix)
    return bare if "." not in bare else name.removeprefix(".")

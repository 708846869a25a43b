"""Runs protoc on .proto text: descriptors and message classes independent of majordomus."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

protoc = pytest.importorskip("grpc_tools.protoc")


def compile_text(text: str, **others: str) -> descriptor_pb2.FileDescriptorSet:
    """Compile `text` as test.proto and return its descriptors and those of its imports.

    `others`: the imported texts, by their names without `.proto`.
    """
    with TemporaryDirectory() as folder:
        for name, content in {"test": text, **others}.items():
            (Path(folder) / f"{name}.proto").write_text(content, "utf-8")
        out = Path(folder) / "out"
        code = protoc.main(
            [
                "protoc",
                f"-I{folder}",
                f"-I{files('grpc_tools') / '_proto'}",
                "--include_imports",
                f"--descriptor_set_out={out}",
                "test.proto",
            ]
        )
        assert code == 0, text
        return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())


def compile_classes(text: str) -> dict[str, Any]:
    """Compile `text` and return the message classes by their simple names."""
    pool = descriptor_pool.DescriptorPool()
    found = compile_text(text)
    for file in found.file:
        pool.AddSerializedFile(file.SerializeToString())
    messages = pool.FindFileByName("test.proto").message_types_by_name
    return {name: message_factory.GetMessageClass(one) for name, one in messages.items()}


def bare(file: descriptor_pb2.FileDescriptorProto) -> descriptor_pb2.FileDescriptorProto:
    """A copy of `file` without everything that does not affect the encoding."""
    copied = descriptor_pb2.FileDescriptorProto.FromString(file.SerializeToString())
    copied.name = ""
    copied.ClearField("options")
    copied.ClearField("service")
    copied.ClearField("extension")
    for message in copied.message_type:
        _strip(message)
    for enum in copied.enum_type:
        _strip_enum(enum)
    return copied


def _strip(message: descriptor_pb2.DescriptorProto) -> None:
    in_order = sorted(
        message.field, key=lambda field: field.number
    )  # protoc keeps the fields of a oneof together
    message.ClearField("field")
    message.field.extend(in_order)
    for field in message.field:
        field.ClearField("json_name")
        packed = field.options.packed if field.options.HasField("packed") else None
        field.ClearField("options")
        if packed is not None:
            field.options.packed = packed
    entry = message.options.map_entry
    for name in ("options", "reserved_range", "reserved_name", "extension_range", "extension"):
        message.ClearField(name)  # type: ignore[arg-type]
    if entry:
        message.options.map_entry = True
    for one in message.oneof_decl:
        one.ClearField("options")
    for nested in message.nested_type:
        _strip(nested)
    for enum in message.enum_type:
        _strip_enum(enum)


def _strip_enum(enum: descriptor_pb2.EnumDescriptorProto) -> None:
    alias = enum.options.allow_alias
    for name in ("options", "reserved_range", "reserved_name"):
        enum.ClearField(name)  # type: ignore[arg-type]
    if alias:
        enum.options.allow_alias = True
    for value in enum.value:
        value.ClearField("options")

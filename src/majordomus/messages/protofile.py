"""Protofile: parses .proto text (proto2 and proto3) into the FileDescriptorProto that protoc makes.

Services, extensions and options without effect on the encoding are skipped. Any other text that the
grammar does not allow is an error with file and line. Editions and groups are not supported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf import descriptor_pb2

from majordomus.errors import ConfigurationError
from majordomus.messages.descriptors import camel
from majordomus.messages.prototokens import END, Tokens

__all__ = ["parse", "resolve"]

_File = descriptor_pb2.FileDescriptorProto
_Message = descriptor_pb2.DescriptorProto
_Field = descriptor_pb2.FieldDescriptorProto
_Enum = descriptor_pb2.EnumDescriptorProto

_TYPES: dict[str, Any] = {
    name.removeprefix("TYPE_").lower(): number
    for name, number in _Field.Type.items()
    if name not in ("TYPE_GROUP", "TYPE_MESSAGE", "TYPE_ENUM")
}
_LABELS: dict[str, Any] = {
    "optional": _Field.LABEL_OPTIONAL,
    "required": _Field.LABEL_REQUIRED,
    "repeated": _Field.LABEL_REPEATED,
}


def parse(text: str, name: str) -> _File:
    """Parse `text`; `name` is the file's name. The names of types are left as they are written.

    Call `resolve` with the imported files before adding the file to a descriptor pool.
    Raises: ConfigurationError, with file and line.
    """
    return _Parser(Tokens(text, name)).file()


class _Parser:
    """A recursive-descent parser: each method reads one construct of the grammar."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens
        self.proto3 = False

    def file(self) -> _File:
        tokens = self.tokens
        file = _File(name=tokens.name)
        if tokens.next.value == "edition":
            tokens.fail("proto2 or proto3 (for editions, pass a compiled class or its descriptor)")
        if tokens.skip("syntax"):
            tokens.expect("=")
            syntax = tokens.text()
            if syntax not in ("proto2", "proto3"):
                tokens.fail("proto2 or proto3")
            tokens.expect(";")
            self.proto3 = syntax == "proto3"
            if self.proto3:
                file.syntax = syntax
        while tokens.next.kind != END:
            self._top(file)
        return file

    def _top(self, file: _File) -> None:
        tokens = self.tokens
        if tokens.skip(";"):
            return
        word = tokens.word()
        if word == "message":
            self._message(file.message_type.add())
        elif word == "enum":
            self._enum(file.enum_type.add())
        elif word == "package":
            file.package = tokens.path()
            tokens.expect(";")
        elif word == "import":
            self._import(file)
        elif word == "option":
            tokens.skip_statement()
        elif word in ("service", "extend"):
            tokens.path()
            tokens.skip_block()
        else:
            tokens.fail("message, enum, package, import, option, service or extend")

    def _import(self, file: _File) -> None:
        public = self.tokens.skip("public")
        if not public:
            self.tokens.skip("weak")
        if public:
            file.public_dependency.append(len(file.dependency))
        file.dependency.append(self.tokens.text())
        self.tokens.expect(";")

    def _message(self, message: _Message) -> None:
        tokens = self.tokens
        message.name = tokens.word()
        tokens.expect("{")
        while not tokens.skip("}"):
            self._member(message)
        if self.proto3:
            _add_synthetic_oneofs(message)

    def _member(self, message: _Message) -> None:
        tokens = self.tokens
        if tokens.skip(";"):
            return
        if tokens.skip("message"):
            self._message(message.nested_type.add())
        elif tokens.skip("enum"):
            self._enum(message.enum_type.add())
        elif tokens.skip("oneof"):
            self._oneof(message)
        elif tokens.skip("extend"):
            tokens.path()
            tokens.skip_block()
        elif tokens.next.value in ("option", "extensions", "reserved"):
            tokens.skip_statement()
        elif tokens.next.value == "map" and tokens.after.value == "<":
            self._map(message)
        else:
            self._field(message, None)

    def _oneof(self, message: _Message) -> None:
        tokens = self.tokens
        index = len(message.oneof_decl)
        message.oneof_decl.add(name=tokens.word())
        tokens.expect("{")
        while not tokens.skip("}"):
            if tokens.skip(";"):
                continue
            if tokens.next.value == "option":
                tokens.skip_statement()
            else:
                self._field(message, index)

    def _field(self, message: _Message, oneof: int | None) -> None:
        tokens = self.tokens
        field = message.field.add()
        label = tokens.next.value if tokens.next.value in _LABELS else ""
        if label:
            tokens.take()
        elif oneof is None and not self.proto3:
            tokens.fail("optional, required or repeated")
        if self.proto3 and label == "required":
            tokens.fail("optional or repeated")
        field.label = _LABELS[label or "optional"]
        self._type(field)
        field.name = tokens.word()
        self._number_and_options(field)
        if oneof is not None:
            field.oneof_index = oneof
        elif self.proto3 and label == "optional":
            field.proto3_optional = True

    def _type(self, field: _Field) -> None:
        tokens = self.tokens
        if tokens.next.value == "group":
            tokens.fail("a type (groups are not supported)")
        name = tokens.path()
        if name in _TYPES:
            field.type = _TYPES[name]
        else:
            field.type_name = name

    def _map(self, message: _Message) -> None:
        tokens = self.tokens
        tokens.expect("map")
        tokens.expect("<")
        entry = message.nested_type.add()
        entry.options.map_entry = True
        for number, part in enumerate(("key", "value"), 1):
            inner = entry.field.add(name=part, number=number, label=_Field.LABEL_OPTIONAL)
            self._type(inner)
            tokens.expect("," if part == "key" else ">")
        field = message.field.add(name=tokens.word(), label=_Field.LABEL_REPEATED)
        entry.name = f"{camel(field.name)}Entry"
        field.type_name = entry.name
        field.type = _Field.TYPE_MESSAGE
        self._number_and_options(field)

    def _number_and_options(self, field: _Field) -> None:
        tokens = self.tokens
        tokens.expect("=")
        field.number = tokens.integer()
        if tokens.skip("["):
            tokens.listed(lambda: self._option(field))
            tokens.expect("]")
        tokens.expect(";")

    def _option(self, field: _Field) -> None:
        """Read one option of a field. Only `packed` and `default` affect records."""
        tokens = self.tokens
        name = "(" if tokens.next.value == "(" else tokens.path()
        if name == "(":
            while not tokens.skip("="):
                if tokens.take().kind == END:
                    tokens.fail("'='")
        else:
            tokens.expect("=")
        if name == "packed":
            field.options.packed = tokens.word() == "true"
        elif name == "default":
            field.default_value = self._default(field)
        else:
            self._skip_constant()

    def _default(self, field: _Field) -> str:
        """Return a default in the form of descriptors: text as it is, bytes escaped, decimals."""
        tokens = self.tokens
        if field.type == _Field.TYPE_BYTES:
            return "".join(map(_escaped, tokens.data()))
        if tokens.next.kind == "text":
            return tokens.text()
        if not field.HasField("type") or tokens.next.kind == "word":  # of an enum or a bool
            return tokens.word()
        if field.type in (_Field.TYPE_DOUBLE, _Field.TYPE_FLOAT):
            return tokens.decimal()
        return str(tokens.integer())

    def _skip_constant(self) -> None:
        tokens = self.tokens
        if tokens.next.value == "{" and tokens.next.kind == "sign":
            tokens.skip_block()
        elif tokens.next.kind == "text":
            tokens.text()
        else:
            tokens.skip("-") or tokens.skip("+")
            if tokens.next.kind == "word":
                tokens.path()
            else:
                tokens.take()

    def _enum(self, enum: _Enum) -> None:
        tokens = self.tokens
        enum.name = tokens.word()
        tokens.expect("{")
        while not tokens.skip("}"):
            if tokens.skip(";"):
                continue
            if tokens.next.value in ("option", "reserved") and tokens.after.value != "=":
                tokens.skip_statement()
                continue
            value = enum.value.add(name=tokens.word())
            tokens.expect("=")
            value.number = tokens.integer()
            if not tokens.skip(";"):
                tokens.skip_statement()
        numbers = [value.number for value in enum.value]
        if len(set(numbers)) < len(numbers):
            enum.options.allow_alias = True


def _escaped(byte: int) -> str:
    plain = {9: "\\t", 10: "\\n", 13: "\\r", 34: '\\"', 39: "\\'", 92: "\\\\"}
    return plain.get(byte) or (chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}")


def _add_synthetic_oneofs(message: _Message) -> None:
    """Add a synthetic oneof for each `optional` field of proto3, after the declared oneofs.

    The names are those that protoc chooses.
    """
    taken = {one.name for one in message.oneof_decl} | {field.name for field in message.field}
    for field in message.field:
        if not field.proto3_optional:
            continue
        name = f"_{field.name}"
        while name in taken:
            name = f"X{name}"
        taken.add(name)
        field.oneof_index = len(message.oneof_decl)
        message.oneof_decl.add(name=name)


# -- the names of types


def resolve(file: _File, imported: Iterable[_File]) -> None:
    """Replace the names of all types by full names, looked up from the innermost scope outwards.

    Raises: ConfigurationError for a name that neither the file nor an imported file defines.
    """
    known: dict[str, Any] = {}
    for each in (file, *imported):
        known.update(_defined(each.package, each.message_type, each.enum_type))
    for scope, message in _messages(file.package, file.message_type):
        for field in message.field:
            if not field.type_name:
                continue
            full = _find(field.type_name, scope, known)
            if full is None:
                raise ConfigurationError(
                    f"{file.name}: {scope}.{field.name} has the unknown type {field.type_name}"
                )
            field.type = known[full]
            field.type_name = f".{full}"


def _defined(
    package: str, messages: Iterable[_Message], enums: Iterable[_Enum]
) -> Iterator[tuple[str, Any]]:
    prefix = f"{package}." if package else ""
    for enum in enums:
        yield prefix + enum.name, _Field.TYPE_ENUM
    for message in messages:
        yield prefix + message.name, _Field.TYPE_MESSAGE
        yield from _defined(prefix + message.name, message.nested_type, message.enum_type)


def _messages(package: str, messages: Iterable[_Message]) -> Iterator[tuple[str, _Message]]:
    prefix = f"{package}." if package else ""
    for message in messages:
        yield prefix + message.name, message
        yield from _messages(prefix + message.name, message.nested_type)


def _find(name: str, scope: str, known: dict[str, Any]) -> str | None:
    if name.startswith("."):
        return name[1:] if name[1:] in known else None
    parts = scope.split(".")
    while True:
        full = ".".join([*parts, name])
        if full in known:
            return full
        if not parts:
            return None
        parts.pop()

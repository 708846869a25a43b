"""The JSON Schema (2020-12) of an annotation: the form of its JSON encoding.

msgspec makes the schemas of Structs, dataclasses, TypedDicts and built-in types, pydantic those of
its models. A protobuf class and a record have the JSON mapping of protocol buffers.

Each property has its protobuf field number in `x-number`. Numbers of records and protobuf classes
are their own. Other types count their fields from 1, in order. So fields are appended, and
compare.py reports a changed order.
"""

from __future__ import annotations

from typing import Any

import msgspec
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from majordomus.contracts.compare import KEYS, NUMBER, TYPE, WIRE
from majordomus.messages.bodies import is_protobuf, is_tuple_of_frames, pydantic_adapter
from majordomus.messages.message import Message

Schema = dict[str, Any]
REF = "#/$defs/{name}"


def schema_of(annotation: Any) -> Schema:
    """Return the schema of an annotation that can be a body; {} where it has none."""
    if annotation is bytes or annotation in (bytearray, memoryview):
        return {"type": "string", "contentEncoding": "base64"}
    if annotation in (list[bytes], Message) or is_tuple_of_frames(annotation):
        return {"items": {"type": "string", "contentEncoding": "base64"}, "type": "array"}
    if annotation is str:
        return {"type": "string"}
    descriptor = descriptor_of(annotation)
    if descriptor is not None:
        return _of_descriptor(descriptor)
    adapter = pydantic_adapter(annotation)
    if adapter is not None:
        try:
            made = adapter.json_schema(ref_template="#/$defs/{model}")
        except Exception:  # pydantic has errors of several trees for a type without a schema
            return {}
        return _numbered({name: one for name, one in made.items() if name != "$schema"})
    return _of_msgspec(annotation)


def descriptor_of(annotation: Any) -> Descriptor | None:
    """Return the descriptor of a record or of a protobuf class; None for other annotations."""
    if not isinstance(annotation, type):
        return None
    codec = annotation.__dict__.get("__record__")
    if codec is not None:
        found: Descriptor = codec.message.DESCRIPTOR
        return found
    return getattr(annotation, "DESCRIPTOR", None) if is_protobuf(annotation) else None


def _of_msgspec(annotation: Any) -> Schema:
    try:
        (schema,), components = msgspec.json.schema_components([annotation], ref_template=REF)
    except (TypeError, RecursionError):  # a type that has no JSON form
        return {}
    _mark(msgspec.inspect.type_info(annotation), schema, components, set())
    if schema.keys() == {"$ref"}:
        name = schema["$ref"].removeprefix("#/$defs/")
        if not _refers(components, schema["$ref"]):
            schema = components.pop(name)
    if components:
        schema = {**schema, "$defs": dict(components)}
    return _numbered(schema)


_Info = msgspec.inspect
_LISTS = (
    _Info.ListType | _Info.SetType | _Info.FrozenSetType | _Info.VarTupleType | _Info.CollectionType
)
_CLASSES = _Info.StructType | _Info.DataclassType | _Info.TypedDictType | _Info.NamedTupleType
_DATES = {_Info.DateTimeType: "date-time", _Info.TimeType: "time"}
_KEYS = {_Info.IntType: "integer", _Info.FloatType: "number"}


def _mark(info: Any, schema: Any, components: Schema, seen: set[str]) -> None:
    """Add what a schema of msgspec leaves out: `x-type` of dates that need no time zone, which have
    a type of their own in MessagePack, and `x-keys` of objects whose keys are numbers there."""
    if isinstance(info, _Info.Metadata):
        _mark(info.type, schema, components, seen)
        return
    if not isinstance(schema, dict):
        return
    ref = schema.get("$ref")
    if ref is not None:
        if ref not in seen:
            seen.add(ref)
            _mark(info, components.get(ref.removeprefix("#/$defs/")), components, seen)
    elif isinstance(info, _Info.UnionType):
        _mark_union(info, schema, components, seen)
    elif isinstance(info, _CLASSES):
        for field in info.fields:
            inner = schema.get("properties", {}).get(field.encode_name)
            _mark(field.type, inner, components, seen)
    elif isinstance(info, _LISTS):
        _mark(info.item_type, schema.get("items"), components, seen)
    elif isinstance(info, _Info.TupleType):
        for one, inner in zip(info.item_types, schema.get("prefixItems", []), strict=False):
            _mark(one, inner, components, seen)
    elif isinstance(info, _Info.DictType):
        if type(info.key_type) in _KEYS:
            schema[KEYS] = _KEYS[type(info.key_type)]
        _mark(info.value_type, schema.get("additionalProperties"), components, seen)
    elif type(info) in _DATES and "format" not in schema:
        schema[TYPE] = _DATES[type(info)]


def _mark_union(info: Any, schema: Schema, components: Schema, seen: set[str]) -> None:
    """Mark the members of a union: msgspec allows one text, one list and one dict in each."""
    choices = [one for one in schema.get("anyOf", []) if isinstance(one, dict)]
    for member in info.types:
        if isinstance(member, _Info.Metadata):
            member = member.type
        if isinstance(member, _CLASSES):
            name = member.cls.__name__
            fits = [one for one in choices if one.get("$ref", "").rpartition(".")[2].endswith(name)]
        elif isinstance(member, _LISTS | _Info.TupleType):
            fits = [one for one in choices if one.get("type") == "array"]
        elif isinstance(member, _Info.DictType):
            fits = [one for one in choices if one.get("type") == "object"]
        else:
            fits = [one for one in choices if one.get("type") == "string"]
            if type(member) not in _DATES:
                continue
        for one in fits[:1]:
            _mark(member, one, components, seen)


def _refers(value: Any, ref: str) -> bool:
    if isinstance(value, dict):
        return value.get("$ref") == ref or any(_refers(one, ref) for one in value.values())
    return isinstance(value, list) and any(_refers(one, ref) for one in value)


def _numbered(schema: Schema) -> Schema:
    """Number the properties of a schema and of its definitions."""
    for one in (schema, *schema.get("$defs", {}).values()):
        for number, inner in enumerate(one.get("properties", {}).values(), 1):
            if isinstance(inner, dict):
                inner.setdefault(NUMBER, number)
    return schema


# -- protocol buffers

_Field = FieldDescriptor
_LONG = {"type": ["integer", "string"]}
_SCALARS: dict[int, tuple[str, Schema]] = {
    _Field.TYPE_DOUBLE: ("double", {"type": ["number", "string"]}),
    _Field.TYPE_FLOAT: ("float", {"type": ["number", "string"]}),
    _Field.TYPE_INT64: ("int64", _LONG),
    _Field.TYPE_UINT64: ("uint64", _LONG),
    _Field.TYPE_INT32: ("int32", {"type": "integer"}),
    _Field.TYPE_FIXED64: ("fixed64", _LONG),
    _Field.TYPE_FIXED32: ("fixed32", {"type": "integer"}),
    _Field.TYPE_BOOL: ("bool", {"type": "boolean"}),
    _Field.TYPE_STRING: ("string", {"type": "string"}),
    _Field.TYPE_BYTES: ("bytes", {"type": "string", "contentEncoding": "base64"}),
    _Field.TYPE_UINT32: ("uint32", {"type": "integer"}),
    _Field.TYPE_SFIXED32: ("sfixed32", {"type": "integer"}),
    _Field.TYPE_SFIXED64: ("sfixed64", _LONG),
    _Field.TYPE_SINT32: ("sint32", {"type": "integer"}),
    _Field.TYPE_SINT64: ("sint64", _LONG),
}
_WELL_KNOWN: dict[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {
        "type": "string",
        "pattern": r"^-?[0-9]+(\.[0-9]+)?s$",
        WIRE: "google.protobuf.Duration",
    },
    "google.protobuf.Empty": {"type": "object"},
    "google.protobuf.FieldMask": {"type": "string"},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.ListValue": {"type": "array"},
    "google.protobuf.Value": {},
    "google.protobuf.Any": {"type": "object"},
}


def _of_descriptor(descriptor: Descriptor) -> Schema:
    """The schema of a message: it is the root, and the messages in it are definitions."""
    definitions: dict[str, Schema] = {}
    _define(descriptor, definitions)
    name = descriptor.full_name
    if not _refers(definitions, REF.format(name=name)):
        root = definitions.pop(name)
        return {**root, "$defs": definitions} if definitions else root
    return {"$ref": REF.format(name=name), "$defs": definitions}


def _define(descriptor: Descriptor, definitions: dict[str, Schema]) -> None:
    """Add the definition of a message, and of those that it contains, unless it is there."""
    if descriptor.full_name in definitions:
        return
    made: Schema = {"type": "object", "title": descriptor.name, "properties": {}}
    definitions[descriptor.full_name] = made
    for field in descriptor.fields:
        made["properties"][field.name] = {**_of_field(field, definitions), NUMBER: field.number}


def _of_field(field: FieldDescriptor, definitions: dict[str, Schema]) -> Schema:
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        values = _of_value(message.fields_by_name["value"], definitions)
        keys, _ = _SCALARS[message.fields_by_name["key"].type]
        return {"type": "object", "additionalProperties": values, WIRE: f"map<{keys}>"}
    value = _of_value(field, definitions)
    return {"type": "array", "items": value} if field.is_repeated else value


def _of_value(field: FieldDescriptor, definitions: dict[str, Schema]) -> Schema:
    if field.message_type is not None:
        known = _WELL_KNOWN.get(field.message_type.full_name)
        if known is not None:
            return dict(known)
        _define(field.message_type, definitions)
        return {"$ref": REF.format(name=field.message_type.full_name)}
    if field.enum_type is not None:
        return _of_enum(field.enum_type)
    name, schema = _SCALARS[field.type]
    return {**schema, WIRE: name}


def _of_enum(enum: EnumDescriptor) -> Schema:
    names = [value.name for value in enum.values]
    numbers = [value.number for value in enum.values]
    return {"enum": [*names, *dict.fromkeys(numbers)], "title": enum.name}

"""Elements: counts the records of a body before any of them is made.

A record of two bytes on the wire takes some 200 bytes in memory, and some microseconds. So a body
is refused that has more than MOST of them: records in lists and dicts, the entries of dicts, and
dates. Lists of numbers and texts are not counted: a list of 16 MiB of numbers is an ordinary body.

upb counts. A class like the message's own is made in which each field that holds messages is a list
of bytes: it takes one step for each element and makes no message. Small bodies, which cannot hold
so many, are not counted.
"""

from __future__ import annotations

import functools
import re
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

__all__ = ["MOST", "too_many_in_json", "too_many_records"]

MOST: Final = 256 * 1024
"""Records, entries of dicts and dates in one body; and values in a body that is JSON."""
_LEAST_BYTES: Final = 2
"""Bytes of an element on the wire, at least, in both formats."""
_DEPTH: Final = 100
"""The depth at which upb rejects a message."""
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_MESSAGE: Final = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
_BYTES: Final = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
_REPEATED: Final = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED


def too_many_records(descriptor: Any, data: Any) -> bool:
    """Return whether a body of the message `descriptor` has more than MOST elements.

    False for bytes that are no such message.
    """
    return len(data) > _LEAST_BYTES * MOST and _count(descriptor, data, MOST, 0) > MOST


def too_many_in_json(data: bytes) -> bool:
    """Return whether a JSON text has more than MOST values: each takes some microseconds."""
    if len(data) <= _LEAST_BYTES * MOST or _values(data) <= MOST:
        return False
    return _values(_STRING.sub(b"", data)) > MOST


def _values(text: bytes) -> int:
    return text.count(b",") + text.count(b"{") + text.count(b"[")


def _count(descriptor: Any, data: Any, most: int, depth: int) -> int:
    """Count the elements of one message, and of those within it, until there are more than
    `most`."""
    shallow, fields = _shallow(descriptor)
    if not fields or depth > _DEPTH:
        return 0
    try:
        parsed = shallow.FromString(data)
    except DecodeError:
        return 0
    lists = [(getattr(parsed, name), inner) for name, inner in fields]
    total = sum(len(elements) for elements, _ in lists)
    for elements, inner in lists:
        if total > most:
            break
        if inner is None:
            continue
        for element in elements:
            total += _count(inner, element, most - total, depth + 1)
            if total > most:
                break
    return total


@functools.lru_cache(maxsize=1024)
def _shallow(descriptor: Any) -> tuple[Any, list[tuple[str, Any]]]:
    """Return the class that counts, and for each field that holds messages its name, and the
    descriptor of these messages where they hold messages in turn."""
    file = descriptor_pb2.FileDescriptorProto(name="elements.proto", syntax="proto3")
    made = file.message_type.add(name="Shallow")
    fields: list[tuple[str, Any]] = []
    for field in descriptor.fields:
        inner = field.message_type
        if inner is None or field.type != _MESSAGE:
            continue
        name = f"f{field.number}"
        made.field.add(name=name, number=field.number, label=_REPEATED, type=_BYTES)
        fields.append((name, inner if any(one.message_type for one in inner.fields) else None))
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Shallow")), fields

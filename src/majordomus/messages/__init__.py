"""Messages are stacks of frames; records are annotated dataclasses encoded as protocol buffers.

The package imports nothing of majordomus but `errors`; checksum is the one exception. Modules that
need the protobuf library are imported at their first use, so a broker never imports it. `upb` is
the C implementation inside that library.

message: the class Message, a stack of frames
frame: encodes one value as the bytes of one frame and decodes it
checksum: adds and verifies the closing hash of raw PascalZMQ messages
bodies: makes the callables that decode, validate and encode a body for an annotation
records: the decorator `record`, its base class and the functions for records
fields: reads the annotations of a record's class
kinds: the protobuf types of a field, and the markers that choose one
codec: converts a record's attributes to a upb message and back
conversions: converts the values of one field to and from upb
writers: encodes ordinary values of one field without upb
elements: counts the records of a body before they are made
wire: finds the field and the byte at which an encoding is wrong
descriptors: makes a FileDescriptorProto from the fields of records
from_proto: makes records from .proto text, a descriptor or a compiled class
protofile: parses .proto text into a FileDescriptorProto
prototokens: splits .proto text into tokens
prototext: prints a FileDescriptorProto as .proto text
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from majordomus.errors import FrameError, RecordError
from majordomus.messages.frame import Frame
from majordomus.messages.message import Message

if TYPE_CHECKING:
    from majordomus.messages.bodies import Body, decoder_for, encode_body, encoder_for
    from majordomus.messages.from_proto import record_from_proto, records_from_proto
    from majordomus.messages.kinds import (
        OneOf,
        fixed32,
        fixed64,
        implicit,
        int32,
        int64,
        sfixed32,
        sfixed64,
        single,
        sint32,
        sint64,
        uint32,
        uint64,
        unpacked,
    )
    from majordomus.messages.records import Record, is_record, record, which_oneof

__all__ = [
    "Body",
    "Frame",
    "FrameError",
    "Message",
    "OneOf",
    "Record",
    "RecordError",
    "decoder_for",
    "encode_body",
    "encoder_for",
    "fixed32",
    "fixed64",
    "implicit",
    "int32",
    "int64",
    "is_record",
    "record",
    "record_from_proto",
    "records_from_proto",
    "sfixed32",
    "sfixed64",
    "single",
    "sint32",
    "sint64",
    "uint32",
    "uint64",
    "unpacked",
    "which_oneof",
]

_MODULE_OF = {
    "Body": "bodies",
    "decoder_for": "bodies",
    "encode_body": "bodies",
    "encoder_for": "bodies",
    "record_from_proto": "from_proto",
    "records_from_proto": "from_proto",
    "Record": "records",
    "is_record": "records",
    "record": "records",
    "which_oneof": "records",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULE_OF.get(name, 'kinds')}")
    value = globals()[name] = getattr(module, name)
    return value

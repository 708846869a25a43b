"""Messages as stacks of frames, and records: annotated dataclasses that are protocol buffers.

Stands alone: imports nothing of majordomus but errors (checksum.py says its one exception). What
needs the protobuf library is imported when it is first asked for: a broker never does.
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

_HOMES = {
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
    home = importlib.import_module(f"{__name__}.{_HOMES.get(name, 'kinds')}")
    value = globals()[name] = getattr(home, name)
    return value

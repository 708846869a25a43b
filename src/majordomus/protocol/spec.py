"""The literals of all dialects.

The code names a command of any dialect by its MDP/0.3 number.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, TypeAlias

Frame: TypeAlias = bytes
"""One ZeroMQ message part. Frames of a body are counted and passed on, never parsed."""


class Dialect(StrEnum):
    """The dialect of a peer. The values are those of the argument `dialect`."""

    MDP01 = "mdp01"
    MDP02 = "mdp02"
    MDP02D = "mdp02d"
    DELPHI = "delphi"
    MDP03 = "mdp03"


# Commands, by their MDP/0.3 number.
READY: Final = 1
REQUEST: Final = 2
PARTIAL: Final = 3
FINAL: Final = 4
HEARTBEAT: Final = 5
DISCONNECT: Final = 6
WELCOME: Final = 7
HELLO: Final = 8
CANCEL: Final = 9
CAPACITY: Final = 10
EVENT: Final = 11
SUBSCRIBE: Final = 12
UNSUBSCRIBE: Final = 13
REJECT: Final = 14
CREDIT: Final = 15
CONTRACT: Final = 16

COMMAND_NAMES: Final[dict[int, str]] = {
    READY: "READY",
    REQUEST: "REQUEST",
    PARTIAL: "PARTIAL",
    FINAL: "FINAL",
    HEARTBEAT: "HEARTBEAT",
    DISCONNECT: "DISCONNECT",
    WELCOME: "WELCOME",
    HELLO: "HELLO",
    CANCEL: "CANCEL",
    CAPACITY: "CAPACITY",
    EVENT: "EVENT",
    SUBSCRIBE: "SUBSCRIBE",
    UNSUBSCRIBE: "UNSUBSCRIBE",
    REJECT: "REJECT",
    CREDIT: "CREDIT",
    CONTRACT: "CONTRACT",
}

# Flags of an MDP/0.3 header.
METADATA: Final = 0x01
MORE: Final = 0x02
ONCE: Final = 0x04
ONE_WAY: Final = 0x08
FAIL_FAST: Final = 0x10
DURABLE: Final = 0x20
BROKER_METADATA: Final = 0x40
CRITICAL: Final = 0x80

# Status codes of a FINAL.
OK: Final = 200
BAD_REQUEST: Final = 400
UNAUTHENTICATED: Final = 401
FORBIDDEN: Final = 403
NOT_FOUND: Final = 404
DEADLINE_EXCEEDED: Final = 408
CONFLICT: Final = 409
GONE: Final = 410
TOO_LARGE: Final = 413
TOO_MANY: Final = 429
CANCELLED: Final = 499
HANDLER_FAILED: Final = 500
NOT_IMPLEMENTED: Final = 501
WORKER_LOST: Final = 502
UNAVAILABLE: Final = 503

# MDP/0.3.
MDP03_MAGIC: Final = b"MDP\x03"
MDP03_VERSION: Final = 3
BROKER_ID_BIT: Final = 1 << 63
LOAD_UNKNOWN: Final = 0xFFFF
MAX_CAPACITY: Final = 0xFFFF
FIRST_CREDIT: Final = 16
"""Parts that each direction of a stream may send before the first CREDIT."""
MOST_CREDIT: Final = 0xFFFF
"""Most credit that a stream can have. A grant beyond it is lost."""
LEAST_WEIGHT: Final = 0.01
"""Bounds of a worker's `weight` in the metadata of READY: its share of a service's requests."""
MOST_WEIGHT: Final = 100.0
MAX_NAME: Final = 255
MAX_METADATA: Final = 4096
MAX_METADATA_DEPTH: Final = 4

# MDP/0.1 and MDP/0.2 (RFC 7, RFC 18).
MDP01_CLIENT: Final = b"MDPC01"
MDP01_WORKER: Final = b"MDPW01"
MDP02_CLIENT: Final = b"MDPC02"
MDP02_WORKER: Final = b"MDPW02"
MDP01_WORKER_COMMANDS: Final[dict[int, bytes]] = {
    READY: b"\x01",
    REQUEST: b"\x02",
    FINAL: b"\x03",
    HEARTBEAT: b"\x04",
    DISCONNECT: b"\x05",
}
MDP02_WORKER_COMMANDS: Final[dict[int, bytes]] = {
    READY: b"\x01",
    REQUEST: b"\x02",
    PARTIAL: b"\x03",
    FINAL: b"\x04",
    HEARTBEAT: b"\x05",
    DISCONNECT: b"\x06",
}
MDP01_CLIENT_COMMANDS: Final[dict[int, bytes]] = {}
"""Frames of an MDP/0.1 client have no command: the direction implies it."""
MDP02_CLIENT_COMMANDS: Final[dict[int, bytes]] = {
    REQUEST: b"\x01",
    PARTIAL: b"\x02",
    FINAL: b"\x03",
}
MDP02D_CLIENT_COMMANDS: Final[dict[int, bytes]] = {
    REQUEST: b"\x02",
    PARTIAL: b"\x03",
    FINAL: b"\x04",
}

# Recognition.
MAX_ENVELOPE_FRAMES: Final = 8
MAX_ENVELOPE_FRAME: Final = 255

# Delphi.
DELPHI_READY: Final = b"\x01"
DELPHI_HEARTBEAT: Final = b"\x02"
DELPHI_DISCONNECT: Final = b"\x03"
DELPHI_WORKER_MESSAGE: Final = b"\x04"
DELPHI_CLIENT_MESSAGE: Final = b"\x05"
DELPHI_HASH_SIZE: Final = 4
DELPHI_NO_HASH: Final = b"\x00\x00\x00\x00"
DELPHI_HEARTBEAT_INTERVAL: Final = 2.5
DELPHI_EXPIRY: Final = 5.0
DELPHI_MAX_LOAD_TEXT: Final = 4096
LOAD_UNREADABLE: Final = -1.0

# Intervals in seconds.
WORKER_INTERVAL: Final = 2.5
CLIENT_INTERVAL: Final = 30.0
LIVENESS: Final = 3

MMI_PREFIX: Final = b"mmi."
DURABLE_PREFIX: Final = b"$durable."
"""Prefix of the services that read, withdraw and forget durable requests by their ids."""
RESERVED_NAMES: Final = (MMI_PREFIX, b"$")
"""Prefixes of the names that no peer can serve or publish at a broker of this project."""

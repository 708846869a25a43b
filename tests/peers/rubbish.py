"""Invalid messages: the frames, the reason under which the broker counts them, and the reply.

The reasons are the keys of majordomus. The frames are written by hand.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from tests.peers.delphi import seal
from tests.peers.loop import Frames
from tests.peers.mdp03 import BROKER_METADATA, HELLO, METADATA, PARTIAL, READY, REQUEST, write


class Rubbish(NamedTuple):
    """An invalid message and the expected reaction of the broker."""

    frames: Frames
    """The message."""
    reason: str
    """The key of `dropped` in mmi.stats; "" for a message that is counted as refused."""
    answer: Frames | int | None = None
    """The broker's reply: its frames, or the status of a FINAL; None for no reply."""


NAME = b"honest-service"
UNASKED_FINAL = write(4, code=200, id=1 << 63)
LEAVE_01, LEAVE_02, LEAVE_02D = [b"", b"MDPW01", b"\5"], [b"MDPW02", b"\6"], [b"", b"MDPW02", b"\6"]
RESERVED = b"'mmi.service' is reserved: no worker may serve it"
NAMED = b"\xa7service\xabmmi.service"
TOLD = b"\x83\xa6status\xcd\x01\x93\xa6reason\xd91" + RESERVED + NAMED
RESERVED_03 = [write(6, flags=BROKER_METADATA, metadata=TOLD)]
LEAVE_03, LEAVE_DELPHI = [write(6)], seal([b"", b"\3"])
VERSIONS = write(6, flags=BROKER_METADATA, metadata=b"\x81\xa8versions\x91\x03")

RUBBISH: dict[str, Rubbish] = {
    # Recognition
    "one empty frame": Rubbish([b""], "unrecognised"),
    "many empty frames": Rubbish([b""] * 10, "unrecognised"),
    "noise": Rubbish([b"\xde\xad\xbe\xef" * 10, b"x"], "unrecognised"),
    "an envelope around nothing": Rubbish([b"e", b""], "unrecognised"),
    "nine envelopes": Rubbish([b"e"] * 9 + [b"", b"MDPC01", NAME, b"x"], "unrecognised"),
    "an envelope of 256 bytes": Rubbish([b"e" * 256, b"", b"MDPC01", NAME, b"x"], "unrecognised"),
    "RFC version from the future": Rubbish([b"MDPC03", b"\1", NAME, b"x"], "unrecognised"),
    "header version from the future": Rubbish(
        [b"MDP\x04" + bytes(18)], "unsupported-version", [VERSIONS]
    ),
    # MDP/0.3
    "magic alone": Rubbish([b"MDP\x03"], "truncated-header"),
    "truncated header": Rubbish([write(REQUEST, id=1, service=NAME)[:-3]], "truncated-header"),
    "bytes behind the header": Rubbish(
        [write(REQUEST, id=1, service=NAME) + b"zz"], "trailing-bytes"
    ),
    "promised metadata": Rubbish(
        [write(REQUEST, id=1, service=NAME, flags=METADATA)], "no-metadata"
    ),
    "metadata that is no map": Rubbish(
        [write(REQUEST, id=1, service=NAME, flags=METADATA, metadata=b"\xc1")], "", 400
    ),
    "forged broker metadata": Rubbish(
        [write(REQUEST, id=1, service=NAME, flags=BROKER_METADATA, metadata=b"\x80")], "", 400
    ),
    "forged broker metadata in HELLO": Rubbish(
        [write(HELLO, flags=BROKER_METADATA, metadata=b"\x80")], "forged-metadata"
    ),
    "critical flag": Rubbish([write(REQUEST, id=1, service=NAME, flags=0x80)], "", 501),
    "request without an id": Rubbish([write(REQUEST, service=NAME)], "no-id"),
    "request with the broker's bit": Rubbish([write(REQUEST, id=1 << 63, service=NAME)], "", 400),
    "service that is not UTF-8": Rubbish([write(REQUEST, id=1, service=b"\xff")], "", 400),
    "more frames than allowed": Rubbish(
        [write(REQUEST, id=1, service=NAME)] + [b"x"] * 1100, "", 413
    ),
    "unknown command": Rubbish([write(77)], "unknown-command"),
    "WELCOME from a peer": Rubbish([write(7, ttl=1)], "wrong-direction"),
    "0.3 claim of mmi": Rubbish(
        [write(READY, code=1, service=b"mmi.service")], "reserved-service-name", RESERVED_03
    ),
    "0.3 reply of a stranger": Rubbish([UNASKED_FINAL, b"x"], "unknown-worker", LEAVE_03),
    "0.3 part of a stranger": Rubbish([write(PARTIAL, id=1 << 63)], "unknown-worker", LEAVE_03),
    "part of a call that is not open": Rubbish([write(PARTIAL, id=1), b"x"], "late-part"),
    # RFC 7 and RFC 18
    "0.1 without a service": Rubbish([b"", b"MDPC01"], "truncated"),
    "0.1 service that is not UTF-8": Rubbish([b"", b"MDPC01", b"\xff", b"x"], "bad-utf8"),
    "0.1 empty service": Rubbish([b"", b"MDPC01", b"", b"x"], "empty-service"),
    "0.1 long service": Rubbish([b"", b"MDPC01", b"s" * 256, b"x"], "long-service"),
    "0.1 unknown command": Rubbish([b"", b"MDPW01", b"\x09"], "unexpected-command"),
    "0.1 claim of mmi": Rubbish(
        [b"", b"MDPW01", b"\1", b"mmi.service"], "reserved-service-name", LEAVE_01
    ),
    "0.1 reply of a stranger": Rubbish(
        [b"", b"MDPW01", b"\3", b"whom", b"", b"x"], "unknown-worker", LEAVE_01
    ),
    "0.1 reply cut short": Rubbish([b"", b"MDPW01", b"\3"], "truncated"),
    "0.1 request from a worker": Rubbish(
        [b"", b"MDPW01", b"\2", b"whom", b"", b"x"], "unexpected-command"
    ),
    "0.2 without a command": Rubbish([b"MDPC02"], "truncated"),
    "0.2 client with the delimited command": Rubbish(
        [b"MDPC02", b"\2", NAME, b"x"], "unexpected-command"
    ),
    "0.2 claim of mmi": Rubbish([b"MDPW02", b"\1", b"mmi.x"], "reserved-service-name", LEAVE_02),
    "0.2 reply of a stranger": Rubbish(
        [b"MDPW02", b"\4", b"whom", b"", b"x"], "unknown-worker", LEAVE_02
    ),
    "0.2 reply of a stranger without the delimiter": Rubbish(
        [b"MDPW02", b"\4", b"whom", b"x"], "unknown-worker", LEAVE_02
    ),
    "delimited client with the RFC's command": Rubbish(
        [b"", b"MDPC02", b"\1", NAME, b"x"], "unexpected-command"
    ),
    "delimited claim of mmi": Rubbish(
        [b"", b"MDPW02", b"\1", b"mmi."], "reserved-service-name", LEAVE_02D
    ),
    "delimited heartbeat of a stranger": Rubbish(
        [b"", b"MDPW02", b"\5"], "unknown-worker", LEAVE_02D
    ),
    # Delphi
    "wrong hash": Rubbish([b"", b"\5", NAME, b"x", b"\1\2\3\4"], "wrong-hash"),
    "hash of three bytes": Rubbish([b"", b"\5", NAME, b"x", b"123"], "wrong-hash"),
    "no hash": Rubbish([b"", b"\5"], "truncated"),
    "Delphi claim of mmi": Rubbish(
        seal([b"", b"\1", b"mmi.service"]), "reserved-service-name", LEAVE_DELPHI
    ),
    "Delphi reply of a stranger": Rubbish(
        seal([b"", b"\4", NAME, b"whom", b"", b"x"]), "unknown-worker", LEAVE_DELPHI
    ),
    "Delphi command 6": Rubbish(seal([b"", b"\6", NAME]), "unrecognised"),
}

VALID: list[Frames] = [
    [b"", b"MDPC01", b"s", b"x"],
    [b"", b"MDPW01", b"\1", b"s"],
    [b"", b"MDPW01", b"\4"],
    [b"MDPC02", b"\1", b"s", b"x"],
    [b"MDPW02", b"\4", b"whom", b"", b"x"],
    [b"", b"MDPC02", b"\2", b"s", b"x"],
    [b"", b"MDPW02", b"\1", b"s"],
    seal([b"", b"\1", b"s"]),
    seal([b"", b"\2", b"s", b"0.5"]),
    seal([b"", b"\4", b"s", b"whom", b"", b"x"]),
    seal([b"", b"\5", b"s", b"x"]),
    [write(READY, code=1, service=b"s")],
    [write(REQUEST, id=5, ttl=100, service=b"s"), b"x"],
    [write(REQUEST, id=6, ttl=100, service=b"s", flags=METADATA, metadata=b"\x81\xa1a\x01"), b"x"],
    [UNASKED_FINAL, b"x"],
    [write(HELLO, id=7)],
]


def mutation(rng: random.Random) -> Frames:
    """A valid message with one to four random changes; its service is never NAME."""
    frames = list(rng.choice(VALID))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(frames))
        frame = frames[at]
        kind = rng.randrange(6)
        if kind == 0 and frame:
            byte = rng.randrange(len(frame))
            frames[at] = frame[:byte] + rng.randbytes(1) + frame[byte + 1 :]
        elif kind == 1:
            frames[at] = frame[: rng.randint(0, len(frame))]
        elif kind == 2:
            frames[at] = rng.randbytes(rng.randint(0, 40))
        elif kind == 3 and len(frames) > 1:
            del frames[at]
        elif kind == 4:
            frames.insert(at, rng.choice((b"", b"e", frame, bytes(300))))
        else:
            frames.append(rng.randbytes(4))
    return frames

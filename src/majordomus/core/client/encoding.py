"""The messages of a client, in the dialect of its broker. The session decides when to send them."""

from __future__ import annotations

from typing import Final

from majordomus.core.client.calls import Call
from majordomus.errors import LocalProtocolError
from majordomus.protocol import mdp03, metadata, octets, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.fields import written_service
from majordomus.protocol.spec import Dialect, Frame

MOST_TTL: Final = 0xFFFFFFFF
"""Milliseconds that a header can hold."""
HEARTBEAT: Final = mdp03.pack(spec.HEARTBEAT)
DISCONNECT: Final = mdp03.pack(spec.DISCONNECT)

_FLAGS: Final = spec.ONCE | spec.ONE_WAY | spec.FAIL_FAST | spec.DURABLE | spec.MORE
_NO_ANSWER: Final = spec.MORE | spec.ONE_WAY
_LOCAL_FLAGS: Final = spec.ONCE | spec.ONE_WAY | spec.FAIL_FAST
_MOST_TAILS: Final = 1024
_PROBED: Final = b"mmi.service"
_PROBE_TTL: Final = 1000


class ClientEncoder:
    """The messages of one dialect.

    ``codec``: of an older dialect, None in MDP/0.3.
    ``tails``: the tails of services that were called without flags, worker and metadata.
    """

    def __init__(self, dialect: Dialect) -> None:
        self.codec = LEGACY.get(dialect)
        self.tails: dict[bytes, bytes] = {}

    def tail(self, service: bytes, flags: int, to: bytes, field: bytes) -> tuple[int, bytes]:
        """Return the flags that are sent, and the `Call.tail`. Raises: LocalProtocolError."""
        if flags & spec.MORE and self.codec is not None:
            raise LocalProtocolError("not-in-dialect", "a stream from the client")
        if flags & spec.DURABLE and self.codec is not None:
            raise LocalProtocolError("not-in-dialect", "a durable request: use MDP/0.3")
        known = _FLAGS if self.codec is None else _LOCAL_FLAGS
        if flags & ~known or flags & _NO_ANSWER == _NO_ANSWER:
            raise LocalProtocolError("bad-flags", f"{flags & ~known:#04x}")
        tail = written_service(service)
        if self.codec is None:
            tail = mdp03.tail(service, to, field)
            if field:
                flags |= spec.METADATA
        elif to or field:
            raise LocalProtocolError("not-in-dialect", "a chosen worker, or metadata")
        if not to and not field:
            if len(self.tails) >= _MOST_TAILS:
                self.tails.clear()
            self.tails[service] = tail
        return flags, tail

    def request(self, call: Call, wire: int, left: float) -> list[Frame]:
        """REQUEST under the id `wire`, with `left` seconds to live."""
        if self.codec is not None:
            return self.codec.c2b_request(call.tail, call.body)
        if call.command == spec.EVENT:
            head = octets.start(spec.EVENT, call.flags & spec.METADATA, 0, wire, 0)
            return [head + call.tail, *call.body]
        head = octets.start(spec.REQUEST, call.flags, 0, wire, whole_ttl(left))
        return [head + call.tail, *call.body]

    def answer_unknown(self, command: int, id: int) -> list[Frame]:
        """FINAL 501."""
        text = f"not implemented: command {command}"
        return [mdp03.pack(spec.FINAL, code=spec.NOT_IMPLEMENTED, id=id), text.encode()]


def hello(session: bytes) -> list[Frame]:
    """HELLO; `session` are the 16 bytes by which the broker recognises the client."""
    field = metadata.pack({"session": session})
    return [mdp03.pack(spec.HELLO, spec.METADATA, metadata=field)]


def cancel(wire: int) -> list[Frame]:
    """CANCEL of the call in flight under `wire`."""
    return [mdp03.pack(spec.CANCEL, id=wire)]


def probe(wire: int) -> list[Frame]:
    """REQUEST under the id `wire` that the broker itself answers, to see whether it does."""
    head = octets.start(spec.REQUEST, spec.FAIL_FAST, 0, wire, _PROBE_TTL)
    return [head + mdp03.tail(_PROBED, b"", b""), _PROBED]


def whole_ttl(left: float) -> int:
    """`left` seconds in milliseconds, as a header holds them: at least 1, for 0 is no limit."""
    return int(min(left * 1000, MOST_TTL)) or 1

"""The calls that a broker has received, as a test can assert on them.

They are read from the messages of MDP/0.3 between clients and the broker. Calls of `mmi.` are left
out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from majordomus.errors import RemoteProtocolError
from majordomus.messages.bodies import decoder_for
from majordomus.protocol import mdp03, metadata, spec


@dataclass
class RecordedCall:
    """One call.

    service: the name that the client called.
    frames: the body, frame by frame.
    metadata: what the client sent with it.
    flags: the flags of the request (protocol/spec.py).
    status: the status of its outcome; 0 as long as it is open.
    reply: the frames of the reply, of all its parts.
    parts: the number of the parts.
    """

    service: str
    frames: list[bytes]
    metadata: dict[str, Any] = field(default_factory=dict)
    flags: int = 0
    status: int = 0
    reply: list[bytes] = field(default_factory=list)
    parts: int = 0

    @property
    def body(self) -> bytes:
        """All frames, joined."""
        return b"".join(self.frames)

    @property
    def text(self) -> str:
        """The body as UTF-8."""
        return self.body.decode()

    def value(self, of: Any) -> Any:
        """Return the body as a value of this type. Raises: BadRequest."""
        return decoder_for(of)(self.frames, str(self.metadata.get("type", "")))


class Recorder:
    """Reads the messages. calls: all calls, the first one first."""

    def __init__(self) -> None:
        self.calls: list[RecordedCall] = []
        self._open: dict[tuple[bytes, int], RecordedCall] = {}

    def from_peer(self, peer: bytes, frames: list[bytes]) -> None:
        """Read a message to the broker."""
        header = _header(frames)
        if header is None or header.command != spec.REQUEST:
            return
        service = header.service.decode("utf-8", "replace")
        if service.startswith("mmi."):
            return
        packed = header.metadata if header.flags & spec.METADATA else b""
        values = metadata.unpack(packed) if packed else {}
        call = RecordedCall(service, frames[1:], values, header.flags)
        self.calls.append(call)
        if header.id:
            self._open[peer, header.id] = call

    def to_peer(self, peer: bytes, frames: list[bytes]) -> None:
        """Read a message of the broker."""
        header = _header(frames)
        if header is None or header.command not in (spec.PARTIAL, spec.FINAL):
            return
        call = self._open.get((peer, header.id))
        if call is None:
            return
        if header.command == spec.PARTIAL:
            call.parts += 1
        call.reply += frames[1:]
        if header.command == spec.FINAL:
            call.status = header.code
            del self._open[peer, header.id]


def _header(frames: list[bytes]) -> mdp03.Fields | None:
    try:
        return mdp03.parse(frames[0]) if frames else None
    except RemoteProtocolError:
        return None

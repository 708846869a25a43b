"""Streams of a worker's dispatches: parts of the answer and of the client, and credit of both
(docs/spec/mdp-0.3.md, section 14)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from majordomus.core.session.settings import CREDIT_STEP
from majordomus.errors import LocalProtocolError
from majordomus.protocol import mdp03, octets, spec
from majordomus.protocol.spec import Frame

if TYPE_CHECKING:
    from majordomus.core.session.outbox import SessionOutbox

NO_CREDIT: Final = b"the client sent more parts than it had been given credit for"

_NO_NAMES: Final = mdp03.NO_NAMES


class Incoming(NamedTuple):
    """A part of the client's stream.

    ``id``: of the dispatch. ``frames``: the body. ``last``: it ends the stream.
    """

    id: int
    frames: list[Frame]
    last: bool


class DispatchCredit(NamedTuple):
    """The client takes more parts of the answer. ``id``: of the dispatch."""

    id: int


class DispatchStream:
    """The streams of one dispatch.

    ``credit``: parts that the worker may send. ``accepts``: parts that the client may send.
    ``open``: the client has not ended its stream. ``read``: parts read since the last CREDIT.
    """

    __slots__ = ("accepts", "credit", "open", "read")

    def __init__(self, is_open: bool) -> None:
        self.credit = spec.FIRST_CREDIT
        self.accepts = spec.FIRST_CREDIT
        self.open = is_open
        self.read = 0


class DispatchStreams:
    """The streams of the dispatches that have any, by the dispatch's number."""

    def __init__(self, outbox: SessionOutbox) -> None:
        self.of: dict[int, DispatchStream] = {}
        self._outbox = outbox

    def begin(self, dispatch_id: int) -> None:
        """The client's side of `dispatch_id` is open."""
        self.of[dispatch_id] = DispatchStream(True)

    def room(self, dispatch_id: int) -> int:
        """Parts of the answer that there is credit for."""
        stream = self.of.get(dispatch_id)
        return spec.FIRST_CREDIT if stream is None else stream.credit

    def spend(self, dispatch_id: int) -> None:
        """A part of the answer is sent. Raises: LocalProtocolError when there is no credit."""
        stream = self.of.get(dispatch_id)
        if stream is None:
            stream = self.of[dispatch_id] = DispatchStream(False)
        if stream.credit < 1:
            raise LocalProtocolError("no-credit", "the client takes no more parts now")
        stream.credit -= 1

    def credit_received(self, dispatch_id: int, parts: int) -> None:
        """CREDIT for a dispatch that is held."""
        stream = self.of.get(dispatch_id)
        if stream is None:
            stream = self.of[dispatch_id] = DispatchStream(False)
        stream.credit = min(stream.credit + parts, spec.MOST_CREDIT)

    def part_received(self, dispatch_id: int, last: bool) -> bool | None:
        """A part or the end of the client's stream: None when there is none, False when there was
        no credit for it."""
        stream = self.of.get(dispatch_id)
        if stream is None or not stream.open:
            return None
        if last:
            stream.open = False
            return True
        stream.accepts -= 1
        return stream.accepts >= 0

    def was_read(self, dispatch_id: int, wire: int, parts: int) -> bool:
        """Note that `parts` parts of the client were read. True when credit was sent for them."""
        stream = self.of.get(dispatch_id)
        if stream is None or not stream.open:
            return False
        stream.read += parts
        if stream.read < CREDIT_STEP:
            return False
        stream.accepts += stream.read
        head = octets.start(spec.CREDIT, 0, min(stream.read, spec.MOST_CREDIT), wire, 0)
        self._outbox.put([head + _NO_NAMES], spec.CREDIT)
        stream.read = 0
        return True

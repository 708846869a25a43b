"""Streams of a client's calls: the parts that it sends, as far as there is credit, and the credit
that it gives for the parts that were read (docs/spec/mdp-0.3.md, section 14).

No part leaves in one batch with the REQUEST that it belongs to: what a socket refuses is sent
again, and a part must not pass its REQUEST.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from majordomus.core.session.settings import CREDIT_STEP
from majordomus.core.session.transitions import CALL, TransitionRow
from majordomus.errors import LocalProtocolError
from majordomus.protocol import mdp03, octets, spec
from majordomus.protocol.spec import Frame

if TYPE_CHECKING:
    from majordomus.core.client.calls import Call
    from majordomus.core.session.outbox import SessionOutbox

_ON_PART: Final = TransitionRow(CALL, "part")
_NO_NAMES: Final = mdp03.NO_NAMES


class CallCredit(NamedTuple):
    """The other side takes more parts of an open call."""

    call: int


class ClientStream:
    """The streams of one call. ``credit``: parts that may be sent, ``waiting``: those that have not
    left, ``end``: the body of our FINAL, ``end_due``: it has not left. ``settled``: the REQUEST
    has. ``unread``: parts handed over and not read, ``read``: those read since the last CREDIT.
    """

    __slots__ = ("credit", "end", "end_due", "open", "read", "settled", "unread", "waiting")

    def __init__(self, is_open: bool) -> None:
        self.credit = spec.FIRST_CREDIT
        self.open = is_open
        self.waiting: deque[list[Frame]] = deque()
        self.end: list[Frame] | None = None
        self.end_due = False
        self.settled = False
        self.unread = 0
        self.read = 0


class ClientStreams:
    """The streams of all open calls. ``due``: 0 when something waits for the next `tick`."""

    def __init__(self, calls: dict[int, Call], outbox: SessionOutbox) -> None:
        self._open = calls
        self._outbox = outbox
        self._launched: list[Call] = []
        self._ripe: list[Call] = []
        self.due = inf

    # ── what the caller asks ──────────────────────────────────────────────────────────────────────

    def room(self, call: int) -> int:
        """How many parts may be given now; 0 as well when the call or our side of it has ended."""
        found = self._open.get(call)
        stream = None if found is None else found.stream
        if stream is None or not stream.open:
            return 0
        return stream.credit - len(stream.waiting)

    def pending(self, call: int) -> bool:
        """Whether something of an open call waits here that only needs a connection and credit."""
        found = self._open.get(call)
        stream = None if found is None else found.stream
        if stream is None:
            return False
        return not stream.settled or bool(stream.waiting) or stream.end_due

    def part(self, call: int, frames: list[Frame]) -> None:
        """One more part. Raises: LocalProtocolError where there is no room."""
        found = self._open.get(call)
        stream = None if found is None else found.stream
        if found is None or stream is None or self.room(call) < 1:
            raise LocalProtocolError("no-credit", "the other side takes no more parts now")
        stream.waiting.append(frames)
        self._release(found, stream)

    def finish(self, call: int, frames: list[Frame]) -> None:
        """End our side, with one last body; nothing happens when it has ended."""
        found = self._open.get(call)
        stream = None if found is None else found.stream
        if found is None or stream is None or not stream.open:
            return
        stream.open = False
        stream.end, stream.end_due = frames, True
        self._release(found, stream)

    def was_read(self, call: int, parts: int) -> None:
        """So many parts of the answer were read: credit is given for them, in batches."""
        found = self._open.get(call)
        stream = None if found is None else found.stream
        if found is None or stream is None or not found.wire:
            return
        stream.unread -= parts
        stream.read += parts
        if stream.read >= CREDIT_STEP:
            head = octets.start(spec.CREDIT, 0, min(stream.read, spec.MOST_CREDIT), found.wire, 0)
            self._outbox.put([head + _NO_NAMES], spec.CREDIT)
            stream.read = 0
            self.due = 0.0

    # ── from the session ──────────────────────────────────────────────────────────────────────────

    def request_sent(self, call: Call) -> None:
        """The REQUEST of a call with a stream is about to leave, perhaps not for the first time."""
        stream = call.stream
        if stream is not None:
            stream.settled = False
            stream.credit = spec.FIRST_CREDIT
            stream.end_due = stream.end is not None
            self._ripe = [one for one in self._ripe if one is not call]  # not the sending before
            self._launched.append(call)

    def taken(self) -> None:
        """What was to be sent is at the socket: parts may follow, unless it comes back."""
        if self._launched:
            self._ripe += self._launched
            self._launched.clear()
            self.due = 0.0

    def tick(self) -> None:
        """`due` has come."""
        self.due = inf
        ripe, self._ripe = self._ripe, []
        for call in ripe:
            stream = call.stream
            if call.wire and stream is not None:
                stream.settled = True
                self._release(call, stream)

    def part_received(self, call: Call) -> ClientStream:
        """A part of an answer: the stream that it belongs to, made now if it is the first."""
        stream = call.stream
        if stream is None:
            stream = call.stream = ClientStream(False)
        stream.unread += 1
        return stream

    def credit_received(self, call: Call, parts: int) -> bool:
        """CREDIT; whether it is of use."""
        stream = call.stream
        if stream is None or not stream.open:
            return False
        stream.credit = min(stream.credit + parts, spec.MOST_CREDIT)
        self._release(call, stream)
        return True

    def clear(self) -> None:
        """The connection is gone; what was under way is launched anew or has ended."""
        self._launched.clear()
        self._ripe.clear()
        self.due = inf

    def _release(self, call: Call, stream: ClientStream) -> None:
        """What may leave of a call that the broker has."""
        if not call.wire or not stream.settled:
            return
        while stream.waiting and stream.credit:
            stream.credit -= 1
            call.state = _ON_PART[call.state]
            head = octets.start(spec.PARTIAL, 0, 0, call.wire, 0)
            self._outbox.put([head + _NO_NAMES, *stream.waiting.popleft()], spec.PARTIAL)
            self.due = 0.0
        if stream.end_due and not stream.waiting:
            stream.end_due = False
            self.due = 0.0
            head = octets.start(spec.FINAL, 0, spec.OK, call.wire, 0)
            self._outbox.put([head + _NO_NAMES, *(stream.end or [])], spec.FINAL)

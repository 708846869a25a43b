"""Streams of a client's calls: parts that it sends, as far as there is credit, and the credit for
parts that were read (docs/spec/mdp-0.3.md, section 14).

No part leaves in one batch with its REQUEST: a refused REQUEST is sent again, and a part must not
overtake it.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from majordomus.core.session.limits import excess
from majordomus.core.session.settings import CREDIT_STEP
from majordomus.core.session.transitions import CALL, TransitionRow
from majordomus.errors import LocalProtocolError
from majordomus.protocol import mdp03, octets, spec
from majordomus.protocol.spec import Frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from majordomus.core.client.calls import Call
    from majordomus.core.session.connection import Connection
    from majordomus.core.session.outbox import SessionOutbox

_ON_PART: Final = TransitionRow(CALL, "part")
_NO_NAMES: Final = mdp03.NO_NAMES


class CallCredit(NamedTuple):
    """The worker takes more parts of an open call. ``call``: its number."""

    call: int


class ClientStream:
    """The streams of one call.

    ``credit``: parts that may be sent. ``waiting``: parts that have not left.
    ``open``: the client has not ended its stream. ``end``: the body of its FINAL.
    ``end_due``: the FINAL has not left. ``settled``: the REQUEST has left.
    ``unread``: parts of the answer handed over and not read. ``read``: parts read since the last
    CREDIT.
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
    """The streams of all open calls.

    ``due``: 0 when the next `tick` has something to send, else inf.
    ``_launched``: calls whose REQUEST is in the outbox. ``_ripe``: calls whose REQUEST was taken.
    """

    def __init__(
        self,
        calls: dict[int, Call],
        outbox: SessionOutbox,
        connection: Connection,
        too_large: Callable[[Call, bytes], object],
    ) -> None:
        """`too_large` ends a call of which one part is larger than the broker allows."""
        self._open = calls
        self._outbox = outbox
        self._connection = connection
        self._too_large = too_large
        self._launched: list[Call] = []
        self._ripe: list[Call] = []
        self.due = inf

    # ── commands of the caller ────────────────────────────────────────────────────────────────────

    def room(self, call: int) -> int:
        """Return how many parts may be sent now; 0 when the call or its own stream has ended."""
        found = self._open.get(call)
        stream = None if found is None else found.stream
        if stream is None or not stream.open:
            return 0
        return stream.credit - len(stream.waiting)

    def pending(self, call: int) -> bool:
        """Whether a part or the end of the stream waits for a connection or credit."""
        found = self._open.get(call)
        stream = None if found is None else found.stream
        if stream is None:
            return False
        return not stream.settled or bool(stream.waiting) or stream.end_due

    def part(self, call: int, frames: list[Frame]) -> None:
        """Send one more part. Raises: LocalProtocolError where there is no room."""
        found = self._open.get(call)
        stream = None if found is None else found.stream
        if found is None or stream is None or self.room(call) < 1:
            raise LocalProtocolError("no-credit", "the other side takes no more parts now")
        if self._refuses(found, frames, self._connection.max_part):
            return
        stream.waiting.append(frames)
        self._release(found, stream)

    def finish(self, call: int, frames: list[Frame]) -> None:
        """End the stream of the client, with one last body. May be repeated."""
        found = self._open.get(call)
        stream = None if found is None else found.stream
        if found is None or stream is None or not stream.open:
            return
        if self._refuses(found, frames, self._connection.max_message):
            return
        stream.open = False
        stream.end, stream.end_due = frames, True
        self._release(found, stream)

    def was_read(self, call: int, parts: int) -> None:
        """Note that `parts` parts of the answer were read; credit is granted in batches."""
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
        """The REQUEST of a call with a stream is in the outbox, perhaps not for the first time."""
        stream = call.stream
        if stream is not None:
            stream.settled = False
            stream.credit = spec.FIRST_CREDIT
            stream.end_due = stream.end is not None
            self._ripe = [one for one in self._ripe if one is not call]  # not the sending before
            self._launched.append(call)

    def taken(self) -> None:
        """The shell took the sends: parts may follow at the next `tick`, unless it refuses them."""
        if self._launched:
            self._ripe += self._launched
            self._launched.clear()
            self.due = 0.0

    def tick(self) -> None:
        """Send the parts of calls whose REQUEST has left."""
        self.due = inf
        ripe, self._ripe = self._ripe, []
        for call in ripe:
            stream = call.stream
            if call.wire and stream is not None:
                stream.settled = True
                self._release(call, stream)

    def part_received(self, call: Call) -> ClientStream:
        """Count a part of an answer, and return its stream, which is made for the first part."""
        stream = call.stream
        if stream is None:
            stream = call.stream = ClientStream(False)
        stream.unread += 1
        return stream

    def credit_received(self, call: Call, parts: int) -> bool:
        """Add credit. False when the client sends no stream in this call."""
        stream = call.stream
        if stream is None or not stream.open:
            return False
        stream.credit = min(stream.credit + parts, spec.MOST_CREDIT)
        self._release(call, stream)
        return True

    def clear(self) -> None:
        """Forget the REQUESTs that were under way, because the connection has ended."""
        self._launched.clear()
        self._ripe.clear()
        self.due = inf

    def _refuses(self, call: Call, frames: list[Frame], most: int) -> bool:
        """Whether `frames` are larger than the broker allows; the call has ended with 413 then."""
        text = excess(frames, most) if most else b""
        if text:
            self._too_large(call, text)
            self.due = 0.0
        return bool(text)

    def _release(self, call: Call, stream: ClientStream) -> None:
        """Send what the credit allows of a call that is in flight."""
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

"""Ended requests that are kept for `mmi.explain`, and the latencies of `mmi.services`.

The ended request itself is kept: its times are its attributes, so a normal request costs no record.
The last ones are kept, and for longer those that were slow, dispatched again, or not answered with
status 200.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from majordomus.core.broker.accel import links
from majordomus.core.broker.state.account import cost_of_story
from majordomus.core.broker.state.transitions import ANSWERED
from majordomus.errors import RemoteProtocolError
from majordomus.protocol import metadata

if TYPE_CHECKING:
    from majordomus.core.broker.state.account import Account
    from majordomus.core.broker.state.requests import AcceptedRequest

RECENT: Final = 256
"""How many of the last requests are kept: few enough for a processor's cache. A power of two."""
MOST_NOTES: Final = 64
"""Past dispatches that are kept of one request."""
TRACE: Final = b"\xa5trace"
"""The key in MessagePack. Metadata without these bytes need not be unpacked."""
TRACE_ID: Final = 32
"""Characters of the trace id in a traceparent."""
_LAST = RECENT - 1


class History:
    """The ended requests that are kept.

    count: how many requests were noted, those included that are not kept any more.
    slow: seconds after which a request is kept for longer.
    notable: the requests that are kept for longer, oldest first.
    traces: all that are kept, by the `trace` of their metadata and by its trace id; of several the
        last.
    """

    __slots__ = ("_at", "_most", "_recent", "account", "count", "notable", "slow", "traces")

    def __init__(self, slow: float, most: int, account: Account) -> None:
        self.slow = slow
        self.count = 0
        self.account = account
        self.notable: deque[AcceptedRequest] = deque()
        self._most = most
        self.traces: dict[str, AcceptedRequest] = {}
        self._recent: list[AcceptedRequest | None] = [None] * RECENT
        self._at = 0
        """The index of the oldest one, which is replaced next."""

    @property
    def recent(self) -> list[AcceptedRequest]:
        """The requests that ended last, oldest first."""
        ring = self._recent[self._at :] + self._recent[: self._at]
        return [request for request in ring if request is not None]

    def ended(self, request: AcceptedRequest, now: float) -> None:
        """Keep `request`, which has ended."""
        request.ended = now
        took, service = now - request.accepted, request.service
        if request.dispatch_id:
            service.note(took)
            if request.given > request.accepted:
                service.note_wait(request.given - request.accepted, took)
        elif request.state is ANSWERED:  # by the broker itself
            return
        else:
            service.note_unserved(took)
        self.count += 1
        request.place = self.count
        if request.state is not ANSWERED:
            service.note_end(request.state)
            self._keep(request)
        elif took >= self.slow or request.past_dispatches is not None:
            self._keep(request)
        else:
            at = self._at
            before = self._recent[at]
            if before is not None and before.metadata:
                self._forget_trace(before)
            links.replace(self._recent, at, request)
            self._at = (at + 1) & _LAST
            if request.metadata:
                self._note_trace(request)

    def _keep(self, request: AcceptedRequest) -> None:
        """Keep `request` for longer, in place of the oldest one if there is no room."""
        if self._most <= 0:
            return
        if len(self.notable) >= self._most:
            oldest = self.notable.popleft()
            self.account.change_stories(-cost_of_story(oldest))
            self._forget_trace(oldest)
        self.notable.append(request)
        self._note_trace(request)
        self.account.change_stories(cost_of_story(request))

    def _note_trace(self, request: AcceptedRequest) -> None:
        for key in _keys_of(trace_of(request)):
            self.traces[key] = request

    def _forget_trace(self, request: AcceptedRequest) -> None:
        for key in _keys_of(trace_of(request)):
            if self.traces.get(key) is request:
                del self.traces[key]


def _keys_of(trace: str | None) -> tuple[str, ...]:
    """What finds a request with that `trace`: all of it and, of a W3C traceparent, its trace id."""
    if trace is None:
        return ()
    parts = trace.split("-", 2)
    return (trace, parts[1]) if len(parts) == 3 and len(parts[1]) == TRACE_ID else (trace,)


def trace_of(request: AcceptedRequest) -> str | None:
    """The `trace` of a request's metadata; None without one."""
    if TRACE not in request.metadata:
        return None
    try:
        trace = metadata.unpack(request.metadata).get("trace")
    except RemoteProtocolError:
        return None
    return trace if isinstance(trace, str) else None


def note(request: AcceptedRequest, why: str, now: float) -> None:
    """Record that the present dispatch of `request` has ended without an answer."""
    if request.past_dispatches is None:
        request.past_dispatches = []
    if request.worker is not None and len(request.past_dispatches) < MOST_NOTES:
        request.past_dispatches.append((request.worker.id, request.given, now, why))

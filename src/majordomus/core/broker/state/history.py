"""What has become of requests that have ended: for `mmi.explain`, and for the latencies that
`mmi.services` tells.

An ended request is its own story: its times are kept where it is, and nothing is written down but
what is out of the ordinary. All that ended last are kept, and longer those that were slow, tried
again, or not answered with 200.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from majordomus.core.broker.accel import arithmetic
from majordomus.core.broker.state.transitions import ANSWERED

if TYPE_CHECKING:
    from majordomus.core.broker.state.requests import AcceptedRequest

TICKS: Final = 16384.0
"""Per second: the first box of latencies ends at 61 µs, each further one at twice that."""
RECENT: Final = 256
"""Ended requests that are kept whatever they were: as few as a processor's cache has room for."""
MOST_NOTES: Final = 64
_TICKS, _RECENT = TICKS, RECENT


class History:
    """The ended requests that are kept. `slow` is seconds, `most` a number of requests."""

    __slots__ = ("_at", "_recent", "notable", "slow")

    def __init__(self, slow: float, most: int) -> None:
        self.slow = slow
        self.notable: deque[AcceptedRequest] = deque(maxlen=most)
        self._recent: list[AcceptedRequest | None] = [None] * RECENT
        self._at = 0
        """Where the oldest of them is, which is the next to go."""

    @property
    def recent(self) -> list[AcceptedRequest]:
        """Those that ended last, oldest first."""
        ring = self._recent[self._at :] + self._recent[: self._at]
        return [request for request in ring if request is not None]

    def ended(self, request: AcceptedRequest, now: float) -> None:
        """`request` has ended."""
        request.ended = now
        took = now - request.accepted
        if request.dispatch_id:
            request.service.note(arithmetic.bits(arithmetic.whole(took * _TICKS)))
        elif request.state is ANSWERED:  # by the broker itself
            return
        if (
            took >= self.slow
            or request.state is not ANSWERED
            or request.past_dispatches is not None
        ):
            self.notable.append(request)
        else:
            self._recent[self._at] = request
            self._at = (self._at + 1) % _RECENT


def note(request: AcceptedRequest, why: str, now: float) -> None:
    """The worker that has `request` has it no more, and another one will get it."""
    if request.past_dispatches is None:
        request.past_dispatches = []
    if request.worker is not None and len(request.past_dispatches) < MOST_NOTES:
        request.past_dispatches.append((request.worker.id, request.given, now, why))

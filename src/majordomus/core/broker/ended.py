"""`mmi.ended`: the requests that have ended since the last question, for those that watch.

They are those that `History` keeps anyway: the last 256 that were answered quickly, and for longer
those that were slow, retried or not answered. So watching costs a request nothing. A question that
comes too late misses some, and the answer has their number.

A cursor is the number of requests that had ended when the answer was made, without those that wait
for the next one.
"""

from __future__ import annotations

from heapq import merge
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final

import msgspec

from majordomus.core.broker.explain import name_of, outcome_of
from majordomus.core.broker.state.history import trace_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from majordomus.core.broker.state.history import History
    from majordomus.core.broker.state.registry import Registry
    from majordomus.core.broker.state.requests import AcceptedRequest

VERSION: Final = 1
MOST_ROWS: Final = 50
"""Requests of one answer."""


def ended(registry: Registry, cursor: bytes, now: float, prefix: bytes) -> list[bytes]:
    """The body frames of the answer to `mmi.ended`.

    Without a cursor the answer has no requests, but the cursor with which the next question begins.
    `prefix` is the prefix of a tenant's names: a tenant gets requests to its own services only.
    """
    history = registry.history
    if cursor and not (cursor.isdigit() and len(cursor) < 19):
        return [b"400"]
    seen = min(history.count, int(cursor)) if cursor else history.count
    found = _since(history, seen)
    rows, left = found[:MOST_ROWS], len(found[MOST_ROWS:])
    answer = {
        "v": VERSION,
        "missed": None if prefix else history.count - seen - len(found),
        "more": left > 0,
        "rows": [_row(one, now, prefix) for one in rows if one.service.name.startswith(prefix)],
    }
    return [b"200", msgspec.json.encode(answer), b"%d" % (history.count - left)]


def _since(history: History, seen: int) -> list[AcceptedRequest]:
    """The kept requests that ended after the first `seen` ones, in order."""
    kept = (_newest(reversed(one), seen) for one in (history.notable, history.recent))
    return list(merge(*kept, key=lambda request: request.place))


def _newest(newest_first: Iterable[AcceptedRequest], seen: int) -> list[AcceptedRequest]:
    found = list(takewhile(lambda request: request.place > seen, newest_first))
    return found[::-1]


def _row(request: AcceptedRequest, now: float, prefix: bytes) -> list[Any]:
    status, why = outcome_of(request)
    worker = request.worker.id.hex() if request.worker is not None else ""
    given = request.given if request.dispatch_id else request.ended
    return [
        round(now - request.ended, 6),
        name_of(request),
        request.service.name.removeprefix(prefix).decode(),
        status,
        why,
        round(max(0.0, request.ended - request.accepted), 6),
        round(max(0.0, given - request.accepted), 6),
        request.attempt,
        worker,
        request.caller.user,
        trace_of(request) or "",
    ]

"""`mmi.explain`: the history of one request, or the list of recent notable requests.

A request is found by its name, ``<routing id in hex>-<id>``, by the `trace` in its metadata or its
trace id, or by the number of its last dispatch, ``d<number>``, which its worker has. The list has
the names. Times are in seconds. Notable are requests that were slow, retried or not
answered.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import msgspec

from majordomus.core.broker.state.transitions import (
    ANSWERED,
    CANCELLED,
    DISPATCHED,
    EXPIRED,
    FAILED,
    OPEN,
    QUEUED,
    REPLIED,
    STREAMING,
)
from majordomus.protocol import spec

if TYPE_CHECKING:
    from majordomus.core.broker.state.registry import Registry
    from majordomus.core.broker.state.requests import AcceptedRequest

MOST_LISTED: Final = 100
"""Most requests in a list."""
LONGEST_NAME: Final = 1024
"""Bytes of a name or a trace that are compared."""
HOW: Final = {
    DISPATCHED: "works on it",
    STREAMING: "sends parts",
    REPLIED: "answered; a hook is deciding",
    ANSWERED: "answered",
    FAILED: "failed",
    EXPIRED: "the deadline passed",
    CANCELLED: "cancelled",
}


def explain(registry: Registry, argument: bytes, now: float, prefix: bytes = b"") -> list[bytes]:
    """The body frames of the answer to `mmi.explain`.

    `prefix` is the prefix of a tenant's names. A tenant gets requests to its own services only.
    """
    if not argument:
        kept = [r for r in reversed(registry.history.notable) if _is_served_in(r, prefix)]
        return _data([_row(request, now) for request in kept[:MOST_LISTED]])
    request = _find(registry, argument, prefix)
    return [b"404"] if request is None else _data(_story(registry, request, now))


def name_of(request: AcceptedRequest) -> str:
    """The name of a request. In a dialect without ids, it has a number that the broker counts."""
    return f"{request.peer.id.hex()}-{request.id or f'n{_number(request)}'}"


def _number(request: AcceptedRequest) -> int:
    key = request.key[0] if isinstance(request.key, tuple) else request.key
    return abs(key) if isinstance(key, int) else 0


def _data(value: Any) -> list[bytes]:
    return [b"200", msgspec.json.encode(value)]


def _is_served_in(request: AcceptedRequest, prefix: bytes) -> bool:
    return request.service.name.startswith(prefix)


def _find(registry: Registry, argument: bytes, prefix: bytes) -> AcceptedRequest | None:
    name = argument[:LONGEST_NAME].decode("utf-8", "replace")
    request = registry.history.traces.get(name)
    if request is None and name[:1] == "d" and name[1:].isascii() and name[1:].isdigit():
        request = _dispatched_as(registry, int(name[1:]))
    if request is not None and _is_served_in(request, prefix):
        return request
    return _named(registry, name, prefix)


def _dispatched_as(registry: Registry, number: int) -> AcceptedRequest | None:
    """The request whose last dispatch has this number."""
    dispatch_id, history = spec.BROKER_ID_BIT | number, registry.history
    if not number or number >= spec.BROKER_ID_BIT:
        return None
    held = registry.dispatch_table.numbered(dispatch_id)
    if held is not None:
        return held
    for requests in (reversed(history.recent), reversed(history.notable)):
        for request in requests:
            if request.dispatch_id == dispatch_id:
                return request
    return None


def _named(registry: Registry, name: str, prefix: bytes) -> AcceptedRequest | None:
    """The request with this `name_of`. Numbers are compared, so that no name has to be made."""
    peer_name, _, id_name = name.partition("-")
    try:
        peer_id, id = bytes.fromhex(peer_name), int(id_name.removeprefix("n"))
    except ValueError:  # no name of a request
        return None
    numbered = id_name.startswith("n")
    peer, history = registry.peers.get(peer_id), registry.history
    of_peer = peer.open.values() if peer is not None else ()
    for requests in (of_peer, reversed(history.notable), reversed(history.recent)):
        for request in requests:
            if request.peer.id != peer_id or (_number(request) if numbered else request.id) != id:
                continue
            if _is_served_in(request, prefix) and name_of(request) == name:
                return request
    return None


# ── one request ───────────────────────────────────────────────────────────────────────────────────


def _row(request: AcceptedRequest, now: float) -> dict[str, Any]:
    """The row of one request in the list."""
    end = now if request.state in OPEN else request.ended
    status, why = outcome_of(request)
    return {
        "id": name_of(request),
        "service": request.service.name.decode(),
        "state": request.state.name.lower(),
        "status": status,
        "why": why,
        "took": _seconds(end - request.accepted),
        "ago": _seconds(now - end),
    }


def _story(registry: Registry, request: AcceptedRequest, now: float) -> dict[str, Any]:
    attempts = list(_attempts(request, now))
    end = now if request.state in OPEN else request.ended
    first = attempts[0]["at"] if attempts else _seconds(end - request.accepted)
    return {
        **_row(request, now),
        "client": request.peer.id.hex(),
        "user": request.caller.user,
        "ttl": _seconds(request.deadline - request.accepted),
        "waited": first,
        "because": _why_it_waited(request, first),
        "now": _why_it_waits(request) if request.state is QUEUED else "",
        "attempts": attempts,
    }


def outcome_of(request: AcceptedRequest) -> tuple[int, str]:
    """The status and text that the client got; 0 while the request is open."""
    if request.state is ANSWERED:
        return spec.OK, ""
    if request.state is CANCELLED:
        return spec.CANCELLED, "cancelled by the client, or the client is gone"
    return request.outcome or (0, "")


def _attempts(request: AcceptedRequest, now: float) -> Iterator[dict[str, Any]]:
    """Each dispatch of a request: its worker, when it began, how long it took, how it ended."""
    for worker, given, left, how in request.past_dispatches or ():
        yield _attempt(worker, given - request.accepted, left - given, how)
    if request.worker is not None and request.dispatch_id:
        end = now if request.state in OPEN else request.ended
        at, held = request.given - request.accepted, end - request.given
        yield _attempt(request.worker.id, at, held, HOW[request.state])


def _attempt(worker: bytes, at: float, held: float, how: str) -> dict[str, Any]:
    return {"worker": worker.hex(), "at": _seconds(at), "held": _seconds(held), "how": how}


def _why_it_waited(request: AcceptedRequest, waited: float) -> str:
    """Why a request was not dispatched at once."""
    if not waited:
        return ""
    if request.target is not None:
        return f"it may go to worker {request.target.id.hex()} only, which was busy"
    behind = request.behind
    if behind < 0:
        return "no worker served its service"
    return f"every worker was busy, and {behind} requests waited already"


def _why_it_waits(request: AcceptedRequest) -> str:
    """Why a request is still queued."""
    service, target = request.service, request.target
    workers = list(service.workers.values()) if target is None else [target]
    if not workers:
        return "no worker serves its service"
    held, slots = sum(one.holding for one in workers), sum(one.capacity for one in workers)
    declined = len(request.rejected or ())
    rejected = f"; {declined} declined it" if declined else ""
    return f"{len(workers)} workers hold {held} of {slots}{rejected}; {service.queue.count} wait"


def _seconds(value: float) -> float:
    return round(max(0.0, value), 6)

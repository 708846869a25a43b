"""`mmi.explain`: the story of one request, or the last ones that are worth one.

A request is found by its name, ``<routing id in hex>-<id>`` as the list tells it, or by the `trace`
in its metadata. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
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
from majordomus.errors import RemoteProtocolError
from majordomus.protocol import metadata, spec

if TYPE_CHECKING:
    from majordomus.core.broker.state.peers import Peer
    from majordomus.core.broker.state.registry import Registry
    from majordomus.core.broker.state.requests import AcceptedRequest

MOST_LISTED: Final = 100
HOW: Final = {
    DISPATCHED: "works on it",
    STREAMING: "sends parts",
    REPLIED: "answered, and a hook looks at that",
    ANSWERED: "answered",
    FAILED: "failed",
    EXPIRED: "the deadline passed",
    CANCELLED: "cancelled",
}


def explain(registry: Registry, argument: bytes, now: float, prefix: bytes = b"") -> list[bytes]:
    """The answer to `mmi.explain`. A tenant, whose services begin with `prefix`, hears of its own
    alone."""
    if not argument:
        kept = [r for r in reversed(registry.history.notable) if _is_of(r, prefix)]
        return _data([_line(request, now) for request in kept[:MOST_LISTED]])
    request = _find(registry, argument, prefix)
    return [b"404"] if request is None else _data(_story(registry, request, now))


def name_of(request: AcceptedRequest) -> str:
    """How a request is called; one of a dialect without ids by the broker's own number."""
    return f"{request.peer.id.hex()}-{request.id or f'n{_number(request)}'}"


def _number(request: AcceptedRequest) -> int:
    key = request.key[0] if isinstance(request.key, tuple) else request.key
    return abs(key) if isinstance(key, int) else 0


def _data(value: Any) -> list[bytes]:
    return [b"200", msgspec.json.encode(value)]


def _is_of(request: AcceptedRequest, prefix: bytes) -> bool:
    return request.service.name.startswith(prefix)


def _find(registry: Registry, argument: bytes, prefix: bytes) -> AcceptedRequest | None:
    name = argument.decode("utf-8", "replace")
    history = registry.history
    for requests in (_open_of(registry, name), reversed(history.notable), reversed(history.recent)):
        for request in requests:
            if _is_of(request, prefix) and _is_called(request, name):
                return request
    return None


def _open_of(registry: Registry, name: str) -> Iterable[AcceptedRequest]:
    """The open requests of the peer that `name` begins with."""
    peer: Peer | None = None
    with suppress(ValueError):  # no routing id: a trace
        peer = registry.peers.get(bytes.fromhex(name.partition("-")[0]))
    return list(peer.open.values()) if peer is not None else ()


def _is_called(request: AcceptedRequest, name: str) -> bool:
    if name_of(request) == name:
        return True
    if not request.flags & spec.METADATA or b"\xa5trace" not in request.metadata:
        return False
    try:
        return bool(metadata.unpack(request.metadata).get("trace") == name)
    except RemoteProtocolError:
        return False


# ── the story ─────────────────────────────────────────────────────────────────────────────────────


def _line(request: AcceptedRequest, now: float) -> dict[str, Any]:
    """What the list tells of one."""
    end = now if request.state in OPEN else request.ended
    status, why = _outcome(request)
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
        **_line(request, now),
        "client": request.peer.id.hex(),
        "user": request.caller.user,
        "ttl": _seconds(request.deadline - request.accepted),
        "waited": first,
        "because": _because(request, first),
        "now": _now(request) if request.state is QUEUED else "",
        "attempts": attempts,
    }


def _outcome(request: AcceptedRequest) -> tuple[int, str]:
    """Status and sentence that its client was told; 0 while it is open."""
    if request.state is ANSWERED:
        return spec.OK, ""
    if request.state is CANCELLED:
        return spec.CANCELLED, "cancelled by the client, or the client is gone"
    return request.outcome or (0, "")


def _attempts(request: AcceptedRequest, now: float) -> Iterator[dict[str, Any]]:
    """Every worker that had it: from when on, for how long, and how that ended."""
    for worker, given, left, how in request.past_dispatches or ():
        yield _attempt(worker, given - request.accepted, left - given, how)
    if request.worker is not None and request.dispatch_id:
        end = now if request.state in OPEN else request.ended
        at, held = request.given - request.accepted, end - request.given
        yield _attempt(request.worker.id, at, held, HOW[request.state])


def _attempt(worker: bytes, at: float, held: float, how: str) -> dict[str, Any]:
    return {"worker": worker.hex(), "at": _seconds(at), "held": _seconds(held), "how": how}


def _because(request: AcceptedRequest, waited: float) -> str:
    """Why it did not get a worker at once."""
    if not waited:
        return ""
    if request.target is not None:
        return f"it asked for worker {request.target.id.hex()} alone, which was busy"
    behind = request.behind
    if behind < 0:
        return "nobody served it"
    return f"every worker was busy, and {behind} requests waited already"


def _now(request: AcceptedRequest) -> str:
    """Why it waits at this moment."""
    service, target = request.service, request.target
    workers = list(service.workers.values()) if target is None else [target]
    if not workers:
        return "nobody serves it"
    held, slots = sum(one.holding for one in workers), sum(one.capacity for one in workers)
    declined = len(request.rejected or ())
    said = f"; {declined} declined it" if declined else ""
    return f"{len(workers)} workers hold {held} of {slots}{said}; {service.queue.count} wait"


def _seconds(value: float) -> float:
    return round(max(0.0, value), 6)

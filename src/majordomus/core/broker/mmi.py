"""The management interface: the broker itself answers requests to names that start with `mmi.`.

An answer is a FINAL with status 200. Body frame 0 is the status of the answer, as digits; frame 1
has the data as JSON (RFC 8, docs/spec/mdp-0.3.md).

A list comes in pages of some PAGE bytes, so that no question costs by all that a broker knows. An
answer with a frame 2 has more pages: the same question with that frame behind its argument gets the
next one. Its content is known here alone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import msgspec

from majordomus.core.broker.explain import explain
from majordomus.core.broker.state.access_rules import full_name
from majordomus.core.broker.state.registry import RULES

if TYPE_CHECKING:
    from majordomus.core.broker.state.registry import Registry
    from majordomus.core.broker.state.services import Service
    from majordomus.core.broker.state.workers import RegisteredWorker
    from majordomus.protocol.spec import Frame

Answer = list[bytes]
PAGE: Final = 64 * 1024
"""Bytes of JSON after which a page of a list ends. One row may be larger."""
MOST_LOOKED_AT: Final = 2000
"""Workers that one question looks at, also when few of them belong to its tenant."""


def answer(
    registry: Registry, name: bytes, body: list[Frame], now: float, prefix: bytes = b""
) -> Answer:
    """The body frames of the answer to a request to `name`; 501 for an unknown name.

    `prefix` is the prefix of a tenant's names. A tenant gets its own services only, and their
    names without the prefix.
    """
    argument = bytes(body[0]) if body else b""
    if name == b"mmi.services" or name == b"mmi.workers":
        cursor = bytes(body[1]) if len(body) > 1 else b""
        list_page = _services if name == b"mmi.services" else _workers
        return list_page(registry, argument, cursor, now, prefix)
    query = QUERIES.get(name)
    if query is None:
        return [b"501"]
    if prefix and name in TENANT_QUERIES:
        return TENANT_QUERIES[name](registry, argument, now, prefix)
    return query(registry, argument, now)


def _data(value: Any) -> Answer:
    return [b"200", msgspec.json.encode(value)]


def _service(registry: Registry, argument: bytes, now: float) -> Answer:
    """RFC 8: "200" if a live worker serves the named service, else "404"."""
    if not argument:
        return [b"400"]
    service = registry.services.get(argument)
    return [b"200" if service is not None and service.workers else b"404"]


def _page(rows: Iterable[tuple[bytes, Any]]) -> Answer:
    """One page of `rows`, each behind its cursor. A row that is None ends the page."""
    page: list[bytes] = []
    size = 0
    for cursor, row in rows:
        if size >= PAGE or row is None:
            return [b"200", b"[" + b",".join(page) + b"]", cursor]
        page.append(msgspec.json.encode(row))
        size += len(page[-1])
    return [b"200", b"[" + b",".join(page) + b"]"]


def _services(
    registry: Registry, argument: bytes, cursor: bytes, now: float, prefix: bytes
) -> Answer:
    """The services by name; those of a tenant without their prefix. A cursor is a name."""
    names = registry.names
    at = bisect_left(names, prefix + cursor)

    def found() -> Iterator[tuple[bytes, Any]]:
        for name in islice(names, at, None):
            if not name.startswith(prefix):
                return
            yield name.removeprefix(prefix), _row(registry.services[name], prefix)

    return _page(found())


def _row(service: Service, prefix: bytes) -> dict[str, Any]:
    return {
        "service": _without_prefix(prefix, service.name.decode()),
        "workers": len(service.workers),
        "queued": service.queue.count,
        "queued_bytes": service.queue.size,
        "open": service.open,
        "answered": service.served,
        "took": took(service),
    }


def took(service: Service) -> list[int]:
    """The histogram of response times, without the empty bins at its end.

    Bin n counts requests that took less than 2**n ticks (`docs/spec/mdp-0.3.md`).
    """
    bins = service.took
    last = max((n for n, count in enumerate(bins) if count), default=-1)
    return bins[: last + 1]


def _workers(
    registry: Registry, argument: bytes, cursor: bytes, now: float, prefix: bytes
) -> Answer:
    """The workers, of one service if one is named; a tenant's, with its services alone. A cursor is
    a number of workers: who is listed while workers leave may miss some."""
    if cursor and not (cursor.isdigit() and len(cursor) < 10):
        return [b"400"]
    skipped = int(cursor or b"0")
    if argument:
        service = registry.services.get(full_name(prefix, argument))
        workers = service.workers.values() if service is not None else ()
    else:
        workers = registry.workers.values()

    def found() -> Iterator[tuple[bytes, Any]]:
        for number, worker in enumerate(islice(workers, skipped, None), skipped):
            if number - skipped == MOST_LOOKED_AT:
                yield b"%d" % number, None
            row = _worker(worker, now, prefix)
            if not prefix or row["services"]:
                yield b"%d" % number, row

    return _page(found())


def _worker(worker: RegisteredWorker, now: float, prefix: bytes) -> dict[str, Any]:
    return {
        "id": worker.id.hex(),
        "services": [
            _without_prefix(prefix, service.name.decode())
            for service in worker.order
            if service.name.startswith(prefix)
        ],
        "dialect": worker.dialect.value,
        "state": worker.state.name.lower(),
        "capacity": worker.capacity,
        "held": worker.holding,
        "load": worker.load,
        "silent": round(max(0.0, now - worker.peer.last_received), 3),
    }


def _broker(registry: Registry, argument: bytes, now: float) -> Answer:
    return _data(
        {
            "name": registry.name,
            "version": registry.version,
            "wire": registry.wire,
            "rules": RULES,
            "uptime": round(now - registry.started, 6),
            "restarts": registry.restarts,
            "draining": registry.draining,
            "peers": len(registry.peers),
            "workers": len(registry.workers),
            "services": len(registry.services),
            "open": registry.open,
            "queued": registry.queued,
            "queued_bytes": registry.queued_bytes,
            "subscriptions": len(registry.topics),
            "sessions": len(registry.sessions),
        }
    )


def _stats(registry: Registry, argument: bytes, now: float) -> Answer:
    counts = registry.counts
    return _data(
        {
            "accepted": counts.accepted,
            "answered": counts.answered,
            "failed": counts.failed,
            "expired": counts.expired,
            "cancelled": counts.cancelled,
            "dispatched": counts.dispatched,
            "retried": counts.retried,
            "rejected": counts.rejected,
            "parts": counts.parts,
            "unanswered": counts.unanswered,
            "pushed": counts.pushed,
            "published": counts.published,
            "delivered": counts.delivered,
            "undelivered": counts.undelivered,
            "refused": {str(status): n for status, n in sorted(counts.refused.items())},
            "dropped": dict(sorted(counts.dropped.items())),
            "handshakes_refused": dict(sorted(counts.handshakes.items())),
            "account": {**registry.account.told(), **registry.buffers()},
        }
    )


QUERIES: Final[dict[bytes, Callable[[Registry, bytes, float], Answer]]] = {
    b"mmi.service": _service,
    b"mmi.broker": _broker,
    b"mmi.stats": _stats,
    b"mmi.explain": explain,
}


# ── queries of tenants ────────────────────────────────────────────────────────────────────────────


def _tenant_service(registry: Registry, argument: bytes, now: float, prefix: bytes) -> Answer:
    return _service(registry, full_name(prefix, argument) if argument else b"", now)


def _without_prefix(prefix: bytes, name: str) -> str:
    return name.removeprefix(prefix.decode())


TENANT_QUERIES: Final[dict[bytes, Callable[[Registry, bytes, float, bytes], Answer]]] = {
    b"mmi.service": _tenant_service,
    b"mmi.explain": explain,
}

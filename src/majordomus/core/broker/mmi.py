"""The management interface: the broker itself answers requests to names that start with `mmi.`.

An answer is a FINAL with status 200. Body frame 0 is the status of the answer, as digits; frame 1
has the data as JSON (RFC 8, docs/spec/mdp-0.3.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
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


def answer(
    registry: Registry, name: bytes, body: list[Frame], now: float, prefix: bytes = b""
) -> Answer:
    """The body frames of the answer to a request to `name`; 501 for an unknown name.

    `prefix` is the prefix of a tenant's names. A tenant gets its own services only, and their
    names without the prefix.
    """
    query = QUERIES.get(name)
    if query is None:
        return [b"501"]
    argument = bytes(body[0]) if body else b""
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


def _services(registry: Registry, argument: bytes, now: float) -> Answer:
    services = sorted(registry.services.values(), key=lambda s: s.name)
    return _data([_row(service) for service in services])


def _row(service: Service) -> dict[str, Any]:
    return {
        "service": service.name.decode(),
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


def _workers(registry: Registry, argument: bytes, now: float) -> Answer:
    if argument:
        service = registry.services.get(argument)
        workers = list(service.workers.values()) if service is not None else []
    else:
        workers = list(registry.workers.values())
    return _data([_worker(worker, now) for worker in workers])


def _worker(worker: RegisteredWorker, now: float) -> dict[str, Any]:
    return {
        "id": worker.id.hex(),
        "services": [service.name.decode() for service in worker.order],
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
        }
    )


QUERIES: Final[dict[bytes, Callable[[Registry, bytes, float], Answer]]] = {
    b"mmi.service": _service,
    b"mmi.services": _services,
    b"mmi.workers": _workers,
    b"mmi.broker": _broker,
    b"mmi.stats": _stats,
    b"mmi.explain": explain,
}


# ── queries of tenants ────────────────────────────────────────────────────────────────────────────


def _tenant_service(registry: Registry, argument: bytes, now: float, prefix: bytes) -> Answer:
    return _service(registry, full_name(prefix, argument) if argument else b"", now)


def _tenant_services(registry: Registry, argument: bytes, now: float, prefix: bytes) -> Answer:
    services = sorted(_services_of(prefix, registry.services.values()), key=lambda s: s.name)
    rows = [_row(service) for service in services]
    return _data([{**row, "service": _without_prefix(prefix, row["service"])} for row in rows])


def _tenant_workers(registry: Registry, argument: bytes, now: float, prefix: bytes) -> Answer:
    name = full_name(prefix, argument)
    services = [
        s
        for s in _services_of(prefix, registry.services.values())
        if not argument or s.name == name
    ]
    workers = dict.fromkeys(worker for service in services for worker in service.workers.values())
    rows = [_worker(worker, now) for worker in workers]
    for row in rows:
        row["services"] = [
            _without_prefix(prefix, one)
            for one in row["services"]
            if one.startswith(prefix.decode())
        ]
    return _data(rows)


def _services_of(prefix: bytes, services: Iterable[Service]) -> list[Service]:
    return [service for service in services if service.name.startswith(prefix)]


def _without_prefix(prefix: bytes, name: str) -> str:
    return name.removeprefix(prefix.decode())


TENANT_QUERIES: Final[dict[bytes, Callable[[Registry, bytes, float, bytes], Answer]]] = {
    b"mmi.service": _tenant_service,
    b"mmi.services": _tenant_services,
    b"mmi.workers": _tenant_workers,
    b"mmi.explain": explain,
}

"""The management interface: the broker itself answers requests to names that start with `mmi.`.

An answer is a FINAL with status 200. Body frame 0 is the status of the answer, as digits; frame 1
has the data as JSON (RFC 8, docs/spec/mdp-0.3.md).

Lists come in pages (pages.py). `mmi.metrics` is in snapshot.py, `mmi.explain` in explain.py,
`mmi.ended` in ended.py.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import msgspec

from majordomus.core.broker.durable.commands import is_own
from majordomus.core.broker.ended import ended
from majordomus.core.broker.explain import explain
from majordomus.core.broker.pages import MOST_LOOKED_AT, page
from majordomus.core.broker.snapshot import snapshot
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
    argument = bytes(body[0]) if body else b""
    if name == b"mmi.metrics":
        return snapshot(registry, argument, bytes(body[1]) if len(body) > 1 else b"", now, prefix)
    if name == b"mmi.ended":
        return ended(registry, bytes(body[1]) if len(body) > 1 else b"", now, prefix)
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
    """RFC 8: "200" if a live worker serves the named service, else "404". A broker with a store
    serves those of RFC 9 itself."""
    if not argument:
        return [b"400"]
    service = registry.services.get(argument)
    if service is not None and service.workers:
        return [b"200"]
    return [b"200" if registry.report_store is not None and is_own(argument) else b"404"]


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
            yield name.removeprefix(prefix), _row(registry, registry.services[name], prefix)

    return page(found())


def _row(registry: Registry, service: Service, prefix: bytes) -> dict[str, Any]:
    return {
        "service": _without_prefix(prefix, service.name.decode()),
        "workers": len(service.workers),
        "queued": service.queue.count,
        "queued_bytes": service.queue.size,
        "open": service.open,
        "answered": service.served,
        "took": took(service),
        **_contracts_of(registry, service.name),
    }


def _contracts_of(registry: Registry, name: bytes) -> dict[str, Any]:
    """How many contracts its workers state, if any; and why they are incompatible, if they are."""
    table = registry.contracts
    hashes, conflict = table.services.get(name), table.conflict(name)
    return ({"contracts": len(hashes)} if hashes else {}) | (
        {"conflict": conflict} if conflict else {}
    )


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

    return page(found())


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
    durable = {} if registry.report_store is None else {"durable": registry.report_store(now)}
    return _data(
        {
            **counts.numbers(),
            **counts.by_reason(),
            "contract_conflicts": len(registry.contracts.conflicts),
            "account": {**registry.account.told(), **registry.buffers()},
            **durable,
        }
    )


def _contract(registry: Registry, argument: bytes, now: float) -> Answer:
    """The contracts of one service: 404 if no live worker serves it."""
    if not argument:
        return [b"400"]
    service = registry.services.get(argument)
    if service is None or not service.workers:
        return [b"404"]
    table = registry.contracts
    rows = [
        {"hash": hash, "workers": count, "contract": msgspec.Raw(known) if known else None}
        for hash, count in table.services.get(argument, {}).items()
        for known in (table.by_hash[hash].data,)
    ]
    return _data({"contracts": rows, "conflict": table.conflict(argument)})


QUERIES: Final[dict[bytes, Callable[[Registry, bytes, float], Answer]]] = {
    b"mmi.service": _service,
    b"mmi.broker": _broker,
    b"mmi.stats": _stats,
    b"mmi.explain": explain,
    b"mmi.contract": _contract,
}


# ── queries of tenants ────────────────────────────────────────────────────────────────────────────


def _tenant_service(registry: Registry, argument: bytes, now: float, prefix: bytes) -> Answer:
    return _service(registry, full_name(prefix, argument) if argument else b"", now)


def _tenant_contract(registry: Registry, argument: bytes, now: float, prefix: bytes) -> Answer:
    return _contract(registry, full_name(prefix, argument) if argument else b"", now)


def _without_prefix(prefix: bytes, name: str) -> str:
    return name.removeprefix(prefix.decode())


TENANT_QUERIES: Final[dict[bytes, Callable[[Registry, bytes, float, bytes], Answer]]] = {
    b"mmi.service": _tenant_service,
    b"mmi.contract": _tenant_contract,
    b"mmi.explain": explain,
}

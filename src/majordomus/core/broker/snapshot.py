"""`mmi.metrics`: what the broker counts, as one compact and versioned snapshot.

The snapshot has sections: `broker` is one object, the others are lists in pages (pages.py). Rows
are arrays, whose fields docs/spec/mdp-0.3.md fixes; a later version appends fields. A page has few
rows, so that it holds the loop up for less than 2 ms. Questions to the broker itself (`mmi.`) are
not counted in it, so that a question does not change the snapshot.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import msgspec

from majordomus.core.broker.pages import page
from majordomus.core.broker.state.access_rules import shown_name
from majordomus.core.broker.state.registry import RULES
from majordomus.core.broker.state.times import times_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from majordomus.core.broker.state.registry import Registry
    from majordomus.core.broker.state.services import Service
    from majordomus.core.broker.state.times import Times

    Rows = Iterator[tuple[bytes, Any]]

VERSION: Final = 1
MOST_SERVICES: Final = 32
"""Services of one page."""
MOST_PEERS: Final = 100
"""Workers or clients of one page."""
BEGIN: Final = b'{"v":%d,"rows":[' % VERSION
END: Final = b"]}"


def snapshot(
    registry: Registry, section: bytes, cursor: bytes, now: float, prefix: bytes
) -> list[bytes]:
    """The body frames of the answer to `mmi.metrics`.

    `prefix` is the prefix of a tenant's names: a tenant gets its own services and the workers of
    these, and no other section.
    """
    if section == b"services":
        return page(_services(registry, cursor, prefix), MOST_SERVICES, BEGIN, END)
    peers = PEERS.get(section)
    if peers is None and section not in (b"", b"broker"):
        return [b"404"]
    if peers is not _workers and prefix:
        return [b"403"]
    if peers is None:
        return [b"200", msgspec.json.encode(_broker(registry, now))]
    if cursor and not (cursor.isdigit() and len(cursor) < 10):
        return [b"400"]
    return page(peers(registry, int(cursor or b"0"), now, prefix), MOST_PEERS, BEGIN, END)


def _broker(registry: Registry, now: float) -> dict[str, Any]:
    counts = registry.counts
    return {
        "v": VERSION,
        "name": registry.name,
        "version": registry.version,
        "wire": registry.wire,
        "rules": RULES,
        "uptime": round(now - registry.started, 6),
        "restarts": registry.restarts,
        "draining": registry.draining,
        "now": {
            "peers": len(registry.peers),
            "workers": len(registry.workers),
            "services": len(registry.services),
            "open": registry.open - 1,  # without this question
            "queued": registry.queued,
            "queued_bytes": registry.queued_bytes,
            "subscriptions": len(registry.topics),
            "sessions": len(registry.sessions),
            "contract_conflicts": len(registry.contracts.conflicts),
        },
        "counts": {
            **counts.numbers(),
            "accepted": counts.accepted - counts.asked,
            "answered": counts.answered - counts.asked + 1,  # this question has no answer yet
            "asked": counts.asked,
        },
        **counts.by_reason(),
        "account": {**registry.account.told(), **registry.buffers()},
        "process": registry.process(),
        "late": _histogram(registry.late_seconds, registry.late),
        "forgotten": _times(registry.forgotten),
        **({} if registry.report_store is None else {"store": registry.report_store(now)}),
    }


def _histogram(seconds: float, boxes: list[int]) -> list[float]:
    """The sum, the number of the first box that is not empty, and the counts from there on."""
    row: list[float] = [round(max(0.0, seconds), 6)]
    first = next((n for n, count in enumerate(boxes) if count), None)
    if first is not None:
        last = len(boxes)
        while not boxes[last - 1]:
            last -= 1
        row.append(first)
        row += boxes[first:last]
    return row


def _times(times: Times) -> list[Any]:
    return [
        times.answered,
        times.failed,
        times.expired,
        times.cancelled,
        _histogram(times.queue_seconds, times.queue),
        _histogram(times.service_seconds, times.service),
        _histogram(times.total_seconds, times.total),
    ]


def _service(service: Service, name: str) -> list[Any]:
    waiting = service.waiting
    return [
        name,
        len(service.workers),
        waiting.count if waiting is not None else 0,
        waiting.size if waiting is not None else 0,
        service.open,
        *_times(times_of(service)),
    ]


def _services(registry: Registry, cursor: bytes, prefix: bytes) -> Rows:
    """The services by name; those of a tenant without their prefix. A cursor is a name."""
    names = registry.names
    for name in islice(names, bisect_left(names, prefix + cursor), None):
        if not name.startswith(prefix):
            return
        shown = name.removeprefix(prefix)
        yield shown, _service(registry.services[name], shown.decode())


def _workers(registry: Registry, skipped: int, now: float, prefix: bytes) -> Rows:
    """The workers, oldest first; a tenant's, with its services alone. A cursor is a number."""
    workers = islice(registry.workers.values(), skipped, None)
    for number, worker in enumerate(workers, skipped):
        if number - skipped == MOST_PEERS:
            yield b"%d" % number, None
        names = [
            shown_name(prefix, service.name).decode()
            for service in worker.order
            if service.name.startswith(prefix)
        ]
        if prefix and not names:
            continue
        silent = round(max(0.0, now - worker.peer.last_received), 3)
        yield (
            b"%d" % number,
            [
                worker.id.hex(),
                names,
                worker.state.name.lower(),
                worker.capacity,
                worker.holding,
                worker.load,
                silent,
                worker.dialect.value,
                worker.peer.user,
            ],
        )


def _clients(registry: Registry, skipped: int, now: float, prefix: bytes) -> Rows:
    """The peers that are no workers, oldest first. A cursor is a number."""
    for number, peer in enumerate(islice(registry.peers.values(), skipped, None), skipped):
        if number - skipped == MOST_PEERS:
            yield b"%d" % number, None
        if peer.worker is not None:
            continue
        silent = round(max(0.0, now - peer.last_received), 3)
        yield (
            b"%d" % number,
            [
                peer.id.hex(),
                peer.user,
                peer.dialect.value,
                len(peer.requests),
                peer.queued,
                peer.held,
                silent,
            ],
        )


PEERS: Final[dict[bytes, Callable[[Registry, int, float, bytes], Rows]]] = {
    b"workers": _workers,
    b"clients": _clients,
}

"""Snapshots that no broker has made, for tests of what reads them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from majordomus.observe.snapshot import (
    BrokerRow,
    ServiceRow,
    Snapshot,
    StoreRow,
    TimesRow,
    WorkerRow,
)

STORE = StoreRow("sqlite", 5, 3, 1, 0, 4096, 1 << 30, True, 2.5)
NOTHING: list[float] = [0.0]


def times(answered: int = 0, failed: int = 0) -> TimesRow:
    return TimesRow(answered, failed, 0, 0, NOTHING, NOTHING, NOTHING)


def service(name: str, answered: int = 0, total: Iterable[float] = (0.0,)) -> ServiceRow:
    return ServiceRow(name, 1, 2, 3, 4, answered, 0, 0, 0, [0.0], [0.0], list(total))


def worker(*services: str, capacity: int = 4, held: int = 1) -> WorkerRow:
    return WorkerRow("77", list(services), "serving", capacity, held, 0.5, 1.5, "mdp03", "")


def snapshot(
    *services: ServiceRow,
    forgotten: TimesRow | None = None,
    workers: Iterable[WorkerRow] = (),
    pid: int = 1,
    **changes: Any,
) -> Snapshot:
    values: dict[str, Any] = {
        "name": "b",
        "version": "1",
        "wire": "zmtp",
        "rules": "python",
        "uptime": 1.0,
        "restarts": 0,
        "draining": False,
        "now": {"peers": 3},
        "counts": {"accepted": 5},
        "refused": {},
        "dropped": {},
        "handshakes_refused": {},
        "account": {"held": 10, "most": 100, "requests": 10, "unsent": 7},
        "process": {"pid": pid, "cpu": 1.5},
        "late": [0.0],
        "forgotten": forgotten or times(),
        "v": 1,
    }
    return Snapshot(BrokerRow(**(values | changes)), list(services), list(workers))

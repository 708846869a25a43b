"""Prefetch instructions of the processor: hints that change nothing.

The compiled rules call the functions of the same names in prefetch_hints.pxd instead
(docs/adr/0008-compiled-rules.md). Plain Python has no such instruction: here every function is
empty, and no number of objects is large enough to call one.

Each function takes the object that holds the wanted one. Passing the wanted object itself would
count a reference to it, and so touch the very memory that is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from sys import maxsize
from typing import Final, Protocol

MANY: Final = maxsize
"""With more services than this, the caches do not hold what a request touches."""
RING: Final = maxsize
"""With more free workers than this, the next one has left the nearest cache before its turn."""


class PrefetchedService(Protocol):
    """The attributes of a service that the prefetcher and its hints use."""

    @property
    def name(self) -> bytes: ...
    @property
    def known(self) -> bool: ...
    @property
    def strategy(self) -> object: ...
    @property
    def newest_worker(self) -> object: ...


class PrefetchedNode(Protocol):
    """The attributes of a ring node that the hints use."""

    @property
    def worker(self) -> object: ...
    @property
    def after(self) -> object: ...


def entry(table: Sequence[object], at: int) -> None:
    """Ask for entry `at` of `table`, which must have it."""


def entry_object(table: Sequence[object], at: int) -> None:
    """Ask for the object in entry `at` of `table`, which must have it."""


def service_name(service: PrefetchedService) -> None:
    """Ask for the name of `service`."""


def service_strategy(service: PrefetchedService) -> None:
    """Ask for the strategy of `service`."""


def service_worker(service: PrefetchedService) -> None:
    """Ask for the newest worker of `service`, if it has one."""


def worker_peer(service: PrefetchedService) -> None:
    """Ask for the peer of the newest worker of `service`, which must have one."""


def worker_id(service: PrefetchedService) -> None:
    """Ask for the routing id of the newest worker of `service`, which must have one."""


def worker_order(service: PrefetchedService) -> None:
    """Ask for the list of services of the newest worker of `service`, which must have one."""


def worker_order_items(service: PrefetchedService) -> None:
    """Ask for the first entries of that list."""


def node_worker(node: PrefetchedNode) -> None:
    """Ask for the worker of `node`, if it has one."""


def node_peer(node: PrefetchedNode) -> None:
    """Ask for the peer of the worker of `node`, which must have one."""


def node_id(node: PrefetchedNode) -> None:
    """Ask for the routing id of the worker of `node`, which must have one."""


def node_after(node: PrefetchedNode) -> None:
    """Ask for the next node of the ring."""

"""What will be looked at soon can be asked of memory now: a hint to the processor, which changes
nothing.

What is compiled calls the functions of the same names in hints.pxd instead
(docs/adr/0008-compiled-rules.md). Plain Python has no such hint: nothing is ever so many that it
would be worth one. Each takes what holds the thing that is wanted, because counting a reference to
an object touches it.
"""

from __future__ import annotations

from sys import maxsize
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from majordomus.core.broker.balancing.strategy import RingNode
    from majordomus.core.broker.state.services import Service

MANY: Final = maxsize
"""Of more services than this the caches do not hold what a request touches."""
RING: Final = maxsize
"""When the next of so many free workers has its turn, it has left the nearest cache."""


def entry(table: list[Service | None], at: int) -> None:
    """Entry `at` of a table that has it will be looked at soon."""


def entered(table: list[Service | None], at: int) -> None:
    """So will what stands there, if anything does."""


def name_of(service: Service) -> None:
    """The service's name."""


def worker_of(service: Service) -> None:
    """Its only worker, if it has one."""


def peer_of(service: Service) -> None:
    """The peer of its only worker; it must have one."""


def id_of(service: Service) -> None:
    """The routing id of its only worker; it must have one."""


def worker_at(place: RingNode) -> None:
    """The worker that stands there, if one does."""


def peer_at(place: RingNode) -> None:
    """The peer of the worker that stands there; one must."""


def id_at(place: RingNode) -> None:
    """The routing id of the worker that stands there; one must."""


def place_after(place: RingNode) -> None:
    """The next place of the ring."""

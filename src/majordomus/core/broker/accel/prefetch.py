"""The index of services by name, which prefetches what the next requests of a batch will touch.

No cache holds ten thousand services. A request then waits for memory, one object after the other:
the service, its worker, the worker's peer. The processor fetches the objects of several requests at
the same time, if it is asked early (docs/adr/0008-compiled-rules.md).

No rule depends on a guess: it is compared with the name before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from majordomus.core.broker.accel import prefetch_hints as hints
from majordomus.protocol import octets
from majordomus.protocol.mdp03 import Fields, called_name_hash

if TYPE_CHECKING:
    from collections.abc import Iterator

    from majordomus.core.broker.accel.prefetch_hints import PrefetchedService
    from majordomus.protocol.spec import Frame

AHEAD: Final = 5
"""Steps before a message is handled (`_LookAhead`), one for each message before it. With more of
them at a time the first message of a batch would wait until much is fetched that only later ones
need."""
_AHEAD = AHEAD
SPARSE: Final = 8
"""Entries of the table for each service, at least, so that few services share one."""


class Prefetcher:
    """All known services by name, and a guess of which ones are called next.

    The guess is found in a table with an entry for each hash of a name; where two services share an
    entry, it holds one of them. A dictionary would not do: the place of its entry is found only by
    reading it. The table is made when many services are known, and never shrinks. Names are those
    on the wire: nothing is guessed where groups have prefixes, nor for the older dialects.

    services: every known service by name; only `add` and `remove` change it.
    header: what every header is read into. It is told the name that was guessed, or that was found
        last, so that an equal one is the same object.
    """

    __slots__ = ("_guess", "_mask", "_table", "header", "services")

    def __init__(self) -> None:
        self.services: dict[bytes, Any] = {}
        self.header = Fields()
        self._table: list[Any] = []
        self._mask = 0
        self._guess: Any = None
        """The service that the present message calls, if it has been guessed."""

    def find(self, name: bytes) -> Any:
        """The service called `name`; None when it is not known."""
        service = self._guess
        if service is not None and service.name == name and service.known:
            return service
        service = self.services.get(name)
        if service is not None:
            self.header.expect(service.name)
        return service

    def add(self, service: PrefetchedService) -> None:
        """Make `service` known. It may be known already: then it takes its entry of the table."""
        self.services[service.name] = service
        if SPARSE * len(self.services) <= len(self._table):
            self._table[self._place(service.name)] = service
        elif len(self.services) > hints.MANY:
            self._grow()

    def remove(self, service: PrefetchedService) -> None:
        """Forget `service`."""
        self.services.pop(service.name, None)
        if self._table:
            at = self._place(service.name)
            if self._table[at] is service:
                self._table[at] = None

    def ahead(self, batch: list[tuple[bytes, list[Frame]]]) -> Iterator[tuple[bytes, list[Frame]]]:
        """Iterate `batch`, looking at messages before they are returned. With few services, and
        always in plain Python, this is ``iter(batch)``."""
        self._guess = None
        if len(self.services) <= hints.MANY:
            return iter(batch)
        return _LookAhead(self, batch)

    def guessable(self) -> list[Any]:
        """Every service that may be guessed. For tests and invariants."""
        return [service for service in self._table if service is not None]

    def _place(self, name: bytes) -> int:
        return octets.name_hash(name, 0, len(name)) & self._mask

    def _grow(self) -> None:
        size = 1
        while size < 2 * SPARSE * len(self.services):
            size *= 2
        table: list[Any] = [None] * size
        self._mask = size - 1
        for service in self.services.values():
            table[self._place(service.name)] = service
        self._table = table


class _LookAhead:
    """The messages of a batch in order. Before one is returned, memory is asked for what later ones
    will touch.

    What a message touches is a chain: an entry of the table, the service in it, its worker, the
    worker's peer. Each step asks for one link of the chain, and reads what the step before has
    asked for. It is taken one message later, so that memory answers while that is handled.

    An error raised by a step is raised once: the next call returns the message that was due.
    """

    __slots__ = (
        "_at",
        "_batch",
        "_entry",
        "_hashed",
        "_ordered",
        "_peered",
        "_prefetcher",
        "_staffed",
        "_steps_at",
    )

    def __init__(self, prefetcher: Prefetcher, batch: list[tuple[bytes, list[Frame]]]) -> None:
        self._prefetcher = prefetcher
        self._batch = batch
        self._at = 0
        """The message that is returned next."""
        self._steps_at = -AHEAD
        """The message before which the next steps are taken: before the first one, all of it."""
        # The messages behind it, the last first: of each what its last step has found. −1 and None
        # where nothing is guessed.
        self._hashed = -1
        self._entry = -1
        self._staffed: Any = None
        self._peered: Any = None
        self._ordered: Any = None

    def __iter__(self) -> _LookAhead:
        return self

    def __next__(self) -> tuple[bytes, list[Frame]]:
        if self._at >= len(self._batch):
            raise StopIteration
        return self._following()

    def _following(self) -> tuple[bytes, list[Frame]]:
        at = self._at
        while self._steps_at <= at:
            self._steps_at += 1
            self._take_steps(self._steps_at - 1)
        self._at = at + 1
        return self._batch[at]

    def _take_steps(self, at: int) -> None:
        """Take one step for each message that is up to `AHEAD` messages behind `at`."""
        prefetcher, batch = self._prefetcher, self._batch
        table = prefetcher._table
        service = prefetcher._guess = self._ordered
        if service is not None:
            prefetcher.header.expect(service.name)
        service = self._ordered = self._peered
        if service is not None and service.newest_worker is not None:
            hints.worker_order_items(service)
        service = self._peered = self._staffed
        if service is not None and service.newest_worker is not None:
            hints.worker_order(service)
            hints.worker_peer(service)
            hints.worker_id(service)
        place = self._entry
        service = self._staffed = table[place] if place >= 0 else None
        if service is not None:
            hints.service_worker(service)
            hints.service_name(service)
            hints.service_strategy(service)
        place = self._entry = self._hashed
        if place >= 0:
            hints.entry_object(table, place)
        self._hashed = -1
        if at + _AHEAD < len(batch):
            place = called_name_hash(batch[at + _AHEAD][1])
            if place >= 0:
                place &= prefetcher._mask
                hints.entry(table, place)
                self._hashed = place

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
from majordomus.protocol.mdp03 import called_name_hash

if TYPE_CHECKING:
    from collections.abc import Iterator

    from majordomus.core.broker.accel.prefetch_hints import PrefetchedService
    from majordomus.protocol.spec import Frame

AT_ONCE: Final = 16
"""Messages that are looked at together: what they touch fits into the nearest cache."""
_AT_ONCE = AT_ONCE
_PLACES = [0] * AT_ONCE
"""Compiled, its copy is an array of C."""
SPARSE: Final = 8
"""Entries of the table for each service, at least, so that few services share one."""


class Prefetcher:
    """All known services by name, and a guess of which ones are called next.

    The guess is found in a table with an entry for each hash of a name; where two services share an
    entry, it holds one of them. A dictionary would not do: the place of its entry is found only by
    reading it. The table is made when many services are known, and never shrinks. Names are those
    on the wire: nothing is guessed where groups have prefixes, nor for the older dialects.

    services: every known service by name; only `add` and `remove` change it.
    """

    __slots__ = ("_guesses", "_mask", "_next", "_table", "services")

    def __init__(self) -> None:
        self.services: dict[bytes, Any] = {}
        self._table: list[Any] = []
        self._mask = 0
        self._guesses: list[Any] = []
        """The services that the messages looked at call, in the order of the messages."""
        self._next = 0
        """The first guess that has not been found yet."""

    def find(self, name: bytes) -> Any:
        """The service called `name`; None when it is not known."""
        guesses = self._guesses
        for n in range(self._next, len(guesses)):
            service = guesses[n]
            if service.name == name and service.known:
                self._next = n + 1
                return service
        return self.services.get(name)

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
        if len(self.services) <= hints.MANY:
            self._guesses = []
            return iter(batch)
        return _LookAhead(self, batch)

    def look(self, batch: list[tuple[bytes, list[Frame]]], at: int, end: int) -> None:
        """Prefetch what the messages `at` to `end` of `batch` will touch, at most `AT_ONCE` of
        them: one step for all, then the next, so that no service waits for another."""
        table, mask = self._table, self._mask
        guesses: list[Any] = []
        self._guesses = guesses
        self._next = 0
        places = _PLACES.copy()
        count = 0
        for n in range(at, end):
            place = called_name_hash(batch[n][1])
            if place >= 0:
                places[count] = place & mask
                hints.entry(table, places[count])
                count += 1
        for n in range(count):
            hints.entry_object(table, places[n])
        for n in range(count):
            service = table[places[n]]
            if service is not None:
                hints.service_name(service)
                hints.service_strategy(service)
                hints.service_worker(service)
                guesses.append(service)
        for service in guesses:
            if service.newest_worker is not None:
                hints.worker_peer(service)
                hints.worker_id(service)
                hints.worker_order(service)
        for service in guesses:
            if service.newest_worker is not None:
                hints.worker_order_items(service)

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
    """The messages of a batch in order; `AT_ONCE` of them are looked at together.

    An error raised by a look is raised once: the next call returns the message that was due.
    """

    __slots__ = ("_at", "_batch", "_looked", "_prefetcher")

    def __init__(self, prefetcher: Prefetcher, batch: list[tuple[bytes, list[Frame]]]) -> None:
        self._prefetcher = prefetcher
        self._batch = batch
        self._at = 0
        """The message that is returned next."""
        self._looked = 0
        """The first message that has not been looked at."""

    def __iter__(self) -> _LookAhead:
        return self

    def __next__(self) -> tuple[bytes, list[Frame]]:
        if self._at >= len(self._batch):
            raise StopIteration
        return self._following()

    def _following(self) -> tuple[bytes, list[Frame]]:
        at, batch = self._at, self._batch
        if at == self._looked:
            end = len(batch) if at + _AT_ONCE > len(batch) else at + _AT_ONCE
            self._looked = end
            self._prefetcher.look(batch, at, end)
        self._at = at + 1
        return batch[at]

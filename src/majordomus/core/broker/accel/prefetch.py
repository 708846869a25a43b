"""The index of services by name, which prefetches what the next requests of a batch will touch.

No cache holds ten thousand services. A request then waits for memory, one object after the other:
the service, its worker, the worker's peer. The processor fetches the objects of several requests at
the same time, if it is asked early (docs/adr/0008-compiled-rules.md).

No rule depends on a guess: it is compared with the name before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from majordomus.core.broker.accel import prefetch_hints as hints
from majordomus.protocol.mdp03 import called_service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from majordomus.core.broker.accel.prefetch_hints import PrefetchedService
    from majordomus.protocol.spec import Frame

AT_ONCE: Final = 16
"""Messages that are looked at together: what they touch fits into the nearest cache."""
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
            self._table[hash(service.name) & self._mask] = service
        elif len(self.services) > hints.MANY:
            self._grow()

    def remove(self, service: PrefetchedService) -> None:
        """Forget `service`."""
        self.services.pop(service.name, None)
        if self._table:
            at = hash(service.name) & self._mask
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
        """Prefetch what the messages `at` to `end` of `batch` will touch."""
        table = self._table
        names = []
        self._guesses = []
        for n in range(at, end):
            _, frames = batch[n]
            name = called_service(frames)
            if name is not None:
                hints.entry(table, hash(name) & self._mask)
                names.append(name)
        self._guess(names)

    def guessable(self) -> list[Any]:
        """Every service that may be guessed. For tests and invariants."""
        return [service for service in self._table if service is not None]

    def _guess(self, names: list[bytes]) -> None:
        """Prefetch step by step: one step for all services, then the next, so that no service waits
        for another."""
        table = self._table
        for name in names:
            hints.entry_object(table, hash(name) & self._mask)
        guesses = self._guesses
        self._next = 0
        for name in names:
            service = table[hash(name) & self._mask]
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

    def _grow(self) -> None:
        size = 1
        while size < 2 * SPARSE * len(self.services):
            size *= 2
        table: list[Any] = [None] * size
        for service in self.services.values():
            table[hash(service.name) & (size - 1)] = service
        self._table = table
        self._mask = size - 1


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
        at = self._at
        if at >= len(self._batch):
            raise StopIteration
        if at == self._looked:
            self._looked = min(at + AT_ONCE, len(self._batch))
            self._prefetcher.look(self._batch, at, self._looked)
        self._at = at + 1
        return self._batch[at]

"""What the next messages of a batch will touch is fetched into the cache while there is time: hints
to the processor, which no rule depends on and which change nothing.

Of ten thousand services no cache holds all, and what a request then waits for is memory, one object
after the other: the service, its worker, the worker's peer. Of several requests the processor
fetches them at the same time, if it is told early (docs/adr/0008-compiled-rules.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from majordomus.core.broker.accel import prefetch_hints as hints
from majordomus.protocol import octets, spec

if TYPE_CHECKING:
    from majordomus.core.broker.state.services import Service
    from majordomus.protocol.spec import Frame

AT_ONCE: Final = 16
"""Messages: what they touch fits into the nearest cache."""
SPARSE: Final = 8
"""Entries for each service, at least: so few have to share one."""


class Prefetcher:
    """Guesses which services are called next. `services` are all that are known, by name.

    Each has the entry that its name's hash names, unless another one took it: a table of which,
    unlike of a dictionary, the place can be told without looking at it. It begins when many
    services are known, and never shrinks. Names are those on the wire: where groups have prefixes,
    and of the older dialects, nothing is guessed.
    """

    __slots__ = ("_guessed", "_mask", "_next", "_services", "_table")

    def __init__(self, services: dict[bytes, Service]) -> None:
        self._services = services
        self._table: list[Service | None] = []
        self._mask = 0
        self._guessed: list[Service] = []
        """What the messages that were looked at call, if the guess is right, in their order."""
        self._next = 0

    def made(self, service: Service) -> None:
        """`service` is one of those that are known."""
        if SPARSE * len(self._services) <= len(self._table):
            self._table[hash(service.name) & self._mask] = service
        elif len(self._services) > hints.MANY:
            self._grow()

    def forget(self, service: Service) -> None:
        """`service` is known no more."""
        if self._table:
            at = hash(service.name) & self._mask
            if self._table[at] is service:
                self._table[at] = None

    def _grow(self) -> None:
        size = 1
        while size < 2 * SPARSE * len(self._services):
            size *= 2
        table: list[Service | None] = [None] * size
        for service in self._services.values():
            table[hash(service.name) & (size - 1)] = service
        self._table = table
        self._mask = size - 1

    def ahead(self, batch: list[tuple[bytes, list[Frame]]], at: int) -> int:
        """Look at the messages of `batch` from `at` on. Up to where it has looked; −1 where so few
        services are known that it is not worth a look."""
        if len(self._services) <= hints.MANY:
            if self._guessed:
                self._guessed = []
            return -1
        end = min(at + AT_ONCE, len(batch))
        table = self._table
        names = []
        for n in range(at, end):
            _, frames = batch[n]
            name = called(frames)
            if name is not None:
                hints.entry(table, hash(name) & self._mask)
                names.append(name)
        self._guess(names)
        return end

    def _guess(self, names: list[bytes]) -> None:
        """One step for all of them, then the next: so that none waits for another."""
        table = self._table
        for name in names:
            hints.entered(table, hash(name) & self._mask)
        guessed = self._guessed = []
        self._next = 0
        for name in names:
            service = table[hash(name) & self._mask]
            if service is not None:
                hints.name_of(service)
                hints.worker_of(service)
                guessed.append(service)
        for service in guessed:
            if service.only_worker is not None:
                hints.peer_of(service)
                hints.id_of(service)

    def recall(self, name: bytes) -> Service | None:
        """The service of that name, where it was guessed and is still the one; None says
        nothing."""
        guessed = self._guessed
        for n in range(self._next, len(guessed)):
            service = guessed[n]
            if service.name == name and service.known:
                self._next = n + 1
                return service
        return None

    def guesses(self) -> list[Service]:
        """All that may be guessed: for those that look on."""
        return [service for service in self._table if service is not None]


def called(frames: list[Frame]) -> bytes | None:
    """The name that a REQUEST calls; None where this is none, or stands behind an envelope."""
    if not frames or type(frames[0]) is not bytes or not octets.is_mdp03(frames[0]):
        return None
    header = frames[0]
    if len(header) <= 21 or header[4] != spec.REQUEST:
        return None
    end = 21 + header[20]
    return octets.piece(header, 21, end) if end < len(header) else None

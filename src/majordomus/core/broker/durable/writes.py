"""Numbered writes: the operations that leave for the store, and what follows when one is stored.

Rule 12 is here. A consequence is what is done with the answer of the store: it makes the sends that
had to wait. So no send is ever held, and no other send waits for a disk. `DurableRequests.stored`
does it: a consequence is the durable request itself, whose state says what follows, or a function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from majordomus.core.broker.durable.records import Operation
    from majordomus.core.broker.durable.requests import DurableRequest
    from majordomus.core.broker.state.registry import Write

Function = Callable[[Any, float], None]
"""Called with the answer of the store and `now`."""
Consequence: TypeAlias = "DurableRequest | Function | None"


class Writes:
    """The writes of one machine. Their numbers follow each other without a gap.

    last: the number of the last write.
    new: writes that the program has not taken yet.
    """

    def __init__(self) -> None:
        self.last = 0
        self.new: list[Write] = []
        self._taken: list[Write] = []
        self._waiting: list[Consequence] = []

    def add(self, operation: Operation, then: Consequence = None) -> None:
        """Write `operation`; `then` follows when it is stored."""
        self.last += 1
        self.new.append((self.last, operation))
        self._waiting.append(then)

    def take(self) -> list[Write]:
        """The writes since the last call. The list is used again at the call after the next."""
        taken = self.new
        self.new, self._taken = self._taken, taken
        self.new.clear()
        return taken

    @property
    def first_unstored(self) -> int:
        """The number of the first write that is not stored."""
        return self.last - len(self._waiting) + 1

    def stored(self, number: int) -> list[Consequence]:
        """Everything up to `number` is stored: return what follows, from `first_unstored` on."""
        count = number - self.last + len(self._waiting)
        if count <= 0:
            return []
        due = self._waiting[:count]
        del self._waiting[:count]
        return due

    @property
    def unstored(self) -> int:
        """Writes that are not stored yet."""
        return len(self._waiting)

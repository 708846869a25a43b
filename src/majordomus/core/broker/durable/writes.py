"""Numbered writes: the operations that leave for the store, and what follows when one is stored.

Rule 12 is here. A consequence is a method that is called with the answer of the store. It makes the
sends that had to wait; so no send is ever held, and no other send waits for a disk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from majordomus.core.broker.durable.records import Answer, Operation
    from majordomus.core.broker.state.registry import Write

Consequence = Callable[[Any, float], None]
"""Called with the answer of the store and `now`."""


class Writes:
    """The writes of one machine.

    last: the number of the last write.
    new: writes that the program has not taken yet.
    """

    def __init__(self) -> None:
        self.last = 0
        self.new: list[Write] = []
        self._taken: list[Write] = []
        self._waiting: deque[tuple[int, Consequence | None]] = deque()

    def add(self, operation: Operation, then: Consequence | None = None) -> None:
        """Write `operation`; call `then` when it is stored."""
        self.last += 1
        self.new.append((self.last, operation))
        self._waiting.append((self.last, then))

    def take(self) -> list[Write]:
        """The writes since the last call. The list is used again at the call after the next."""
        taken = self.new
        self.new, self._taken = self._taken, taken
        self.new.clear()
        return taken

    def stored(self, number: int, answers: Sequence[tuple[int, Answer]], now: float) -> None:
        """Everything up to `number` is stored. `answers`: those of the writes that have one."""
        found = dict(answers)
        waiting = self._waiting
        while waiting and waiting[0][0] <= number:
            write, then = waiting.popleft()
            if then is not None:
                then(found.get(write), now)

    @property
    def unstored(self) -> int:
        """Writes that are not stored yet."""
        return len(self._waiting)

"""What leaves a session: in order, also when the socket refuses some of it (rule 9, seen from a
peer's end).

As long as something refused waits, everything goes behind it. It is tried again after 5, 10, … 100
ms; the delay starts anew with every try that lets something through.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Final

from majordomus.protocol.spec import Frame

FIRST_DELAY: Final = 0.005
LONGEST_DELAY: Final = 0.1
BATCH: Final = 256
"""Messages given at a time to a socket that has refused."""
MOST_HELD: Final = 1000
"""Messages that wait, beyond which parts of streams and mere answers find no room."""


class SessionOutbox:
    """Messages on their way to one socket. The shell reports refusals, in order, before it does
    anything else.

    ``blocked``: something was refused and has not gone through yet. ``due``: when `retry` is needed
    then, monotonic seconds.
    """

    __slots__ = (
        "_delay",
        "_held",
        "_offered",
        "_refused",
        "_returned",
        "_taken",
        "blocked",
        "due",
        "sends",
    )

    def __init__(self) -> None:
        self.sends: list[list[Frame]] = []
        self._taken: list[list[Frame]] = []
        self._held: deque[list[Frame]] = deque()
        self._returned: list[list[Frame]] = []
        self._offered = 0
        self._refused = 0
        self._delay = FIRST_DELAY
        self.blocked = False
        self.due = inf

    @property
    def full(self) -> bool:
        """Whether what can be done without should not be sent."""
        return len(self._held) + len(self._returned) >= MOST_HELD

    def put(self, frames: list[Frame]) -> None:
        """Send `frames`, behind whatever waits."""
        if self.blocked:
            self._gather()
            self._held.append(frames)
        else:
            self.sends.append(frames)

    def take(self) -> list[list[Frame]]:
        """What is to be sent now. The list is good until the next call, which empties it."""
        taken = self.sends
        self.sends, self._taken = self._taken, taken
        self.sends.clear()
        if self.blocked:
            self._offered += len(taken)
        return taken

    def keep(self, frames: list[Frame], now: float) -> None:
        """The socket refused `frames`: they are tried again, in front of what waits."""
        self._returned.append(frames)
        self.block(now)

    def block(self, now: float) -> None:
        """The socket refused a message, whoever keeps it: nothing leaves until `due`."""
        self._refused += 1
        if self.blocked and self.due > now:
            return
        self.blocked = True
        self.due = now + self._delay
        self._delay = min(2 * self._delay, LONGEST_DELAY)

    def retry(self, now: float) -> int:
        """`due` has come: up to a batch of what waits goes out. Returns how many went.

        `due` becomes `now`: the next batch may follow as soon as this one was not refused. When
        nothing is left to send, the owner calls `unblock`.
        """
        if self._refused < self._offered:
            self._delay = FIRST_DELAY
        self._refused = self._offered = 0
        self._gather()
        held = self._held
        count = min(BATCH, len(held))
        for _ in range(count):
            self.sends.append(held.popleft())
        self.due = now
        return count

    def unblock(self) -> None:
        """All that was refused went through: from now on messages leave at once."""
        self.blocked = False
        self.due = inf
        self._refused = self._offered = 0
        self._delay = FIRST_DELAY

    def clear(self) -> None:
        """The connection is gone, and everything with it that has not left."""
        self.sends.clear()
        self._held.clear()
        self._returned.clear()
        self.unblock()

    def _gather(self) -> None:
        if self._returned:
            self._held.extendleft(reversed(self._returned))
            self._returned.clear()

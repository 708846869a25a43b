"""What a session sends leaves in order, also when the socket refuses some of it (rule 9 at a peer).

While a refused message waits, every later message queues behind it. It is tried again after 5, 10,
… 100 ms; the delay starts anew with every try in which the socket takes a message.

A send carries a tag, and the owner of the socket hands it back with a refusal: so the session
recognises what was refused without reading the bytes that it has encoded.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Final, TypeAlias

from majordomus.protocol.spec import Frame

FIRST_DELAY: Final = 0.005
LONGEST_DELAY: Final = 0.1
BATCH: Final = 256
"""Messages given at a time to a socket that has refused."""
MOST_HELD: Final = 1000
"""Messages that may wait; above it the session sends no more parts and answers to unknown commands.
"""

Tag: TypeAlias = object
"""The command's number; of a call's REQUEST or EVENT the client's `Call`, which has the command and
the conversation."""


class SessionOutbox:
    """The messages that are to leave through one socket.

    ``sends``: messages for the next `take`, as lists of frames. ``tags``: their tags, by the same
    index.
    ``blocked``: the socket refused a message, and it has not left yet.
    ``due``: when `retry` is needed while it is blocked, in monotonic seconds.
    ``_taken``, ``_taken_tags``: what the last `take` returned.
    ``_held``: messages with their tags that wait for a retry.
    ``_returned``: refused messages since the last change of ``_held``; they go in front of it.
    ``_offered``, ``_refused``: messages given to the socket, and refused, since the last retry.
    ``_delay``: seconds until the next retry.
    """

    __slots__ = (
        "_delay",
        "_held",
        "_offered",
        "_refused",
        "_returned",
        "_taken",
        "_taken_tags",
        "blocked",
        "due",
        "sends",
        "tags",
    )

    def __init__(self) -> None:
        self.sends: list[list[Frame]] = []
        self.tags: list[Tag] = []
        self._taken: list[list[Frame]] = []
        self._taken_tags: list[Tag] = []
        self._held: deque[tuple[list[Frame], Tag]] = deque()
        self._returned: list[tuple[list[Frame], Tag]] = []
        self._offered = 0
        self._refused = 0
        self._delay = FIRST_DELAY
        self.blocked = False
        self.due = inf

    @property
    def full(self) -> bool:
        """Whether a message that can be left out should not be sent."""
        return len(self._held) + len(self._returned) >= MOST_HELD

    def put(self, frames: list[Frame], tag: Tag) -> None:
        """Send `frames` behind all that waits."""
        if self.blocked:
            self._return_refused()
            self._held.append((frames, tag))
        else:
            self.sends.append(frames)
            self.tags.append(tag)

    def take(self) -> tuple[list[list[Frame]], list[Tag]]:
        """The messages that are to be sent now, and their tags.

        The lists are valid until the next call, which empties them.
        """
        sends, tags = self.sends, self.tags
        self.sends, self._taken = self._taken, sends
        self.tags, self._taken_tags = self._taken_tags, tags
        if self.sends:
            del self.sends[:]
        if self.tags:
            del self.tags[:]
        if self.blocked:
            self._offered += len(sends)
        return sends, tags

    def keep(self, frames: list[Frame], tag: Tag, now: float) -> None:
        """The socket refused `frames`: try them again, before all that waits."""
        self._returned.append((frames, tag))
        self.block(now)

    def block(self, now: float) -> None:
        """The socket refused a message that is not kept here: send nothing until `due`."""
        self._refused += 1
        if self.blocked and self.due > now:
            return
        self.blocked = True
        self.due = now + self._delay
        self._delay = min(2 * self._delay, LONGEST_DELAY)

    def retry(self, now: float) -> int:
        """Move up to a batch of what waits into `sends`, because `due` has come; return how many.

        `due` becomes `now`: the next batch may follow as soon as this one was not refused. The
        owner calls `unblock` when nothing is left to send.
        """
        if self._refused < self._offered:
            self._delay = FIRST_DELAY
        self._refused = self._offered = 0
        self._return_refused()
        held = self._held
        count = min(BATCH, len(held))
        for _ in range(count):
            frames, tag = held.popleft()
            self.sends.append(frames)
            self.tags.append(tag)
        self.due = now
        return count

    def unblock(self) -> None:
        """The socket took all that it had refused: messages leave at once again."""
        self.blocked = False
        self.due = inf
        self._refused = self._offered = 0
        self._delay = FIRST_DELAY

    def clear(self) -> None:
        """Drop all messages that have not left, because the connection has ended."""
        self.sends.clear()
        self.tags.clear()
        self._held.clear()
        self._returned.clear()
        self.unblock()

    def _return_refused(self) -> None:
        if self._returned:
            self._held.extendleft(reversed(self._returned))
            self._returned.clear()

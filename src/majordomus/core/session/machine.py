"""The contract of the sessions of clients and workers: who moves the messages of one uses this and
nothing behind it. Both inherit from it, so that compiled callers know its methods."""

from __future__ import annotations

from typing import Any

from majordomus.core.session.connection import Connection
from majordomus.protocol.spec import Frame


class Session:
    """A state machine without socket, clock or thread; its subclasses have the rules.

    Every method with `now` takes monotonic seconds. None raises anything for what a peer sends.
    """

    @property
    def connection(self) -> Connection:
        """The state of the connection. It is the same object as long as the session lives."""
        raise NotImplementedError

    def connected(self, now: float) -> None:
        """Report that the socket has a connection."""
        raise NotImplementedError

    def lost(self, now: float) -> None:
        """Report that the connection has ended; what had arrived was handed to `receive` before."""
        raise NotImplementedError

    def receive(self, frames: list[Frame], now: float) -> None:
        """Process one message of the socket. The session takes over the list."""
        raise NotImplementedError

    def receive_cut(self, frames: list[Frame], now: float) -> bool:
        """Process a message that was cut off. Returns False when the connection must be ended."""
        raise NotImplementedError

    def refused(self, frames: list[Frame], tag: Any, now: float) -> None:
        """Report one of the last sends that the socket did not take, with its tag."""
        raise NotImplementedError

    def tick(self, now: float) -> None:
        """Do what is due; to be called when `next_deadline` has come."""
        raise NotImplementedError

    def next_deadline(self) -> float:
        """Return when `tick` is next needed; inf when time changes nothing."""
        raise NotImplementedError

    def close(self, now: float) -> None:
        """End the session. It cannot be used again."""
        raise NotImplementedError

    def take_effects(self) -> tuple[list[list[Frame]], list[Any], list[Any], bool]:
        """Return the sends, their tags, the events, and whether the socket must be replaced.

        The lists are good until the next call, which empties them.
        """
        raise NotImplementedError

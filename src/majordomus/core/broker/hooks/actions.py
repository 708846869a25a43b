"""What a hook may decide about a message, as data. Nothing is done here:
core/broker/hooks/holding.py does it.

A body is a list of frames by the time the rules see it; the shell makes frames of whatever else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from majordomus.protocol import spec


class Action:
    """What a hook returns. `None` stands for `Forward()`."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Forward(Action):
    """Go on, with what the hook has made of the message."""


@dataclass(frozen=True, slots=True)
class Discard(Action):
    """Drop the message. Its client hears nothing: its own deadline ends the call."""


@dataclass(frozen=True, slots=True)
class SendTo(Action):
    """A request: to this worker alone. A reply: to this client, as an event.

    `peer` is the id of a worker or the handle of a client.
    """

    peer: bytes


@dataclass(frozen=True, slots=True)
class Redirect(Action):
    """A request: to another service. The client does not see that."""

    service: str


@dataclass(frozen=True, slots=True)
class Replace(Action):
    """A reply: this body instead of the worker's."""

    body: Any = None


@dataclass(frozen=True, slots=True)
class Reject(Action):
    """End the request with a status that is not 200, and a sentence for people."""

    status: int
    text: str = ""

    def __post_init__(self) -> None:
        """Raises: ValueError for what is no status of a failure."""
        if not 201 <= self.status <= 65535:
            raise ValueError(f"Reject needs the status of a failure, 201 to 65535: {self.status}")


class ReplyAction(Action):
    """End the request with this answer of the broker's own."""

    __slots__ = ("frames", "status")

    def __init__(self, frames: list[bytes], status: int = spec.OK) -> None:
        self.frames = frames
        self.status = status


FORWARD: Final = Forward()
ON_REQUEST: Final = (Forward, Discard, SendTo, Redirect, ReplyAction, Reject)
ON_REPLY: Final = (Forward, Discard, SendTo, Replace, ReplyAction, Reject)
ON_PART: Final = (Forward, Discard, Replace)
ON_CLIENT: Final = (Forward, Reject)
"""Which actions mean something where."""

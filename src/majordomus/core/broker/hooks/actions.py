"""The actions that a hook may return, as data. Nothing is carried out here: holding.py does that.

A body is a list of frames by the time it gets to the core: `net` encodes every other type.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from majordomus.protocol import spec


class Action:
    """The base of all actions. A hook that returns None means `Forward()`."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Forward(Action):
    """Process the message further, with the changes that the hook has made."""


@dataclass(frozen=True, slots=True)
class Discard(Action):
    """Drop the message without an answer. The client's call ends at its own deadline."""


@dataclass(frozen=True, slots=True)
class SendTo(Action):
    """Send a request to one worker only, or a reply to another client as an event.

    peer: the routing id of the worker, or the handle of the client.
    """

    peer: bytes


@dataclass(frozen=True, slots=True)
class Redirect(Action):
    """Send a request to another service. The client does not notice.

    service: the full name of that service.
    """

    service: str


@dataclass(frozen=True, slots=True)
class Replace(Action):
    """Replace the body of a reply or of a part.

    body: the new body.
    """

    body: Any = None


@dataclass(frozen=True, slots=True)
class Reject(Action):
    """End the request with an error.

    status: 201 to 65535.
    text: a sentence for people; the body of the answer.
    """

    status: int
    text: str = ""

    def __post_init__(self) -> None:
        """Raises: ValueError when `status` is not one of a failure."""
        if not 201 <= self.status <= 65535:
            raise ValueError(f"Reject needs a status from 201 to 65535, not {self.status}")


class ReplyAction(Action):
    """End the request with an answer of the hook's own.

    frames: the body.
    status: 200 unless it is an error.
    """

    __slots__ = ("_packed", "frames", "status")

    _packed: bytes
    """The packed metadata. A reply that a client has received without metadata leaves it unset,
    which is None where this is compiled: most replies have none (see
    `protocol.metadata.packed_metadata`)."""

    def __init__(self, frames: list[bytes], status: int = spec.OK, packed: bytes = b"") -> None:
        self.frames = frames
        self.status = status
        self._packed = packed


FORWARD: Final = Forward()
ON_REQUEST: Final = (Forward, Discard, SendTo, Redirect, ReplyAction, Reject)
ON_REPLY: Final = (Forward, Discard, SendTo, Replace, ReplyAction, Reject)
ON_PART: Final = (Forward, Discard, Replace)
ON_CLIENT: Final = (Forward, Reject)
"""The actions that are allowed for a request, a reply, a part and a client."""

"""What the decisions of hooks may cause, as Protocols.

`Holding` knows the rest of the machine by these alone: the machine asks the hooks, so the hooks
cannot import what asks them.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from majordomus.core.broker.state.peers import Peer
    from majordomus.core.broker.state.requests import AcceptedRequest
    from majordomus.protocol.spec import Frame


class Proceeds(Protocol):
    """A request goes on, within the limits. The class is `Admission`."""

    def proceed(
        self, request: AcceptedRequest, now: float, redirect: bytes | None = None
    ) -> None: ...

    def proceed_to_worker(self, request: AcceptedRequest, worker_id: bytes, now: float) -> None: ...

    def exceeded_bound(self, request: AcceptedRequest, more: int = 0) -> str: ...

    def too_large(self, body: list[Frame]) -> bool: ...


class Ends(Protocol):
    """A request ends. The class is `Completion`."""

    def fail(self, request: AcceptedRequest, status: int, text: str, now: float) -> None: ...

    def answer(
        self,
        request: AcceptedRequest,
        status: int,
        frames: list[Frame],
        flags: int,
        metadata: bytes,
        now: float,
    ) -> None: ...

    def expire(self, request: AcceptedRequest, now: float) -> None: ...

    def cancel_silently(self, request: AcceptedRequest, now: float) -> None: ...

    def discard(self, request: AcceptedRequest, now: float) -> None: ...

    def decide(self, request: AcceptedRequest) -> None: ...


class Identifies(Protocol):
    """A client gets a user and groups. The class is `Authorization`."""

    def identify(
        self, peer: Peer, user: str, groups: tuple[str, ...], now: float, until: float = inf
    ) -> None: ...

    def forgotten(self, peer: Peer) -> None: ...


class Pushes(Protocol):
    """A reply goes to another client, as an event. Returns False when there is no such client."""

    def __call__(self, handle: bytes, body: list[Frame], now: float) -> bool: ...

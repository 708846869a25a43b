"""The interface of the hooks that a machine asks, and the hooks that decide nothing.

The implementation is the embedding program's (net/broker/hooks.py). The core calls these methods
and nothing else of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from majordomus.core.broker.hooks import actions
from majordomus.core.broker.hooks.actions import Action

if TYPE_CHECKING:
    from majordomus.core.broker.hooks.views import ClientInfo, HookReply, HookRequest, Outcome


class Hooks(Protocol):
    """The methods that the machine calls.

    Each question that may be decided later has a number. An answer of None means that the decision
    comes later: `BrokerMachine.resume` brings it under that number, at most once.
    """

    has_on_request: bool
    """Whether `on_request` is implemented. A method that is not is never called, and costs
    nothing. The next four flags mean the same for the other methods."""
    has_on_reply: bool
    has_on_part: bool
    has_on_client: bool
    has_on_end: bool
    may_wait: bool
    """Whether any method may decide later."""

    def on_request(self, number: int, request: HookRequest) -> Action | None:
        """Decide about a request that has passed the limits."""

    def on_reply(self, number: int, reply: HookReply) -> Action | None:
        """Decide about a worker's final answer."""

    def on_part(self, part: HookReply) -> Action:
        """Decide about one part of an answer. Never later: parts keep their order."""
        ...

    def on_client(self, number: int, client: ClientInfo) -> Action | None:
        """Decide about a client: at its first request, and at each of its HELLOs."""

    def client_lost(self, client: ClientInfo, why: str) -> None:
        """Note that a client of which `on_client` was called is gone."""

    def on_end(self, outcome: Outcome) -> None:
        """Note that a request has ended."""

    def abandon(self, number: int) -> None:
        """Cancel question `number`: its answer is not needed any more."""


class NoHooks:
    """Hooks that forward everything.

    They replace hooks that are removed. Decisions that are still pending may arrive afterwards.
    """

    has_on_request = has_on_reply = has_on_part = has_on_client = has_on_end = may_wait = False

    def on_request(self, number: int, request: HookRequest) -> Action:
        return actions.FORWARD

    def on_reply(self, number: int, reply: HookReply) -> Action:
        return actions.FORWARD

    def on_part(self, part: HookReply) -> Action:
        return actions.FORWARD

    def on_client(self, number: int, client: ClientInfo) -> Action:
        return actions.FORWARD

    def client_lost(self, client: ClientInfo, why: str) -> None: ...

    def on_end(self, outcome: Outcome) -> None: ...

    def abandon(self, number: int) -> None: ...

"""Decisions that hooks have not made yet, and the requests that wait for them.

A request that waits counts toward the limits of the queues (rule 4), and a decision that takes
longer than `hook_timeout` is overdue (rule 11). Nothing here calls a hook.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

from majordomus.core.broker.hooks.actions import Action
from majordomus.core.broker.state.timer_wheel import Deadlines

if TYPE_CHECKING:
    from majordomus.core.broker.hooks.effects import Proceeds
    from majordomus.core.broker.state.peers import Peer
    from majordomus.core.broker.state.registry import Registry
    from majordomus.core.broker.state.requests import AcceptedRequest

Decide = Callable[[Action, float], None]
"""Carries out an action; the second argument is the time."""


class PendingDecision:
    """A question to a hook that has no answer yet.

    number: the number of the question; `resume` names it.
    decide: carries out the answer.
    request: the request that waits for it; None when the question is about a client.
    peer: the client that the question is about; None when it is about a request.
    timer: the bucket of the timer wheel that holds its deadline; None when it has none.
    """

    __slots__ = ("decide", "number", "peer", "request", "timer")

    def __init__(
        self, number: int, decide: Decide, request: AcceptedRequest | None, peer: Peer | None
    ) -> None:
        self.number = number
        self.decide = decide
        self.request = request
        self.peer = peer
        self.timer: dict[PendingDecision, None] | None = None


class PendingDecisions:
    """All pending decisions of a broker, by number, and all requests that wait for one.

    open: the pending decisions.
    waiting: requests that wait, each with the decision about itself; None while it waits for the
        decision about its client.
    deadlines: when each decision is overdue.
    """

    def __init__(self, registry: Registry, admission: Proceeds) -> None:
        self.registry = registry
        self.admission = admission
        self.open: dict[int, PendingDecision] = {}
        self.waiting: dict[AcceptedRequest, PendingDecision | None] = {}
        self.deadlines: Deadlines = Deadlines()

    # ── decisions ─────────────────────────────────────────────────────────────────────────────────

    def add(self, decision: PendingDecision, now: float) -> None:
        """Wait for `decision`, at most `hook_timeout` seconds."""
        self.open[decision.number] = decision
        decision.timer = self.deadlines.add(decision, now + self.registry.settings.hook_timeout)

    def remove(self, decision: PendingDecision) -> None:
        """Forget `decision`. May be repeated."""
        self.open.pop(decision.number, None)
        if decision.timer is not None:
            decision.timer.pop(decision, None)

    def take(self, number: int) -> PendingDecision | None:
        """Remove and return decision `number`, and release the request that waits for it; None
        when there is no such decision."""
        decision = self.open.get(number)
        if decision is not None:
            self.remove(decision)
            if decision.request is not None:
                self.release(decision.request)
        return decision

    def overdue(self, now: float) -> list[PendingDecision]:
        """The decisions whose time is over. They stay open until `take` or `remove`."""
        due: list[PendingDecision] = self.deadlines.due(now)
        for decision in due:
            decision.timer = None  # its bucket is gone
        return due

    def next_deadline(self) -> float:
        """When the next decision is overdue; `inf` when none is pending."""
        return self.deadlines.next() if self.open else inf

    # ── requests that wait ────────────────────────────────────────────────────────────────────────

    def hold(self, request: AcceptedRequest, decision: PendingDecision | None) -> None:
        """Let `request` wait. From now on it counts as a queued request does."""
        self.waiting[request] = decision
        self._count(request, 1)

    def release(self, request: AcceptedRequest) -> None:
        """`request` waits no longer."""
        del self.waiting[request]
        self._count(request, -1)

    def grow(self, request: AcceptedRequest, size: int) -> str:
        """Add `size` bytes to `request`: a part of its client's stream has arrived.

        Returns the limit of the queues that this exceeds, as a sentence; empty when none.
        """
        waits = request in self.waiting
        if waits:  # it must not count twice while the limits are compared
            self._count(request, -1)
        full = self.admission.exceeded_bound(request, size)
        request.size += size
        if waits:
            self._count(request, 1)
        return full

    def _count(self, request: AcceptedRequest, sign: int) -> None:
        registry, peer, service = self.registry, request.peer, request.service
        size = sign * request.size
        registry.queued += sign
        registry.queued_bytes += size
        peer.queued += sign
        peer.queued_bytes += size
        service.held += sign
        service.held_bytes += size

"""Circuit breaker: refuse requests to a service that keeps failing, with 503."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Final

from majordomus.core.broker.hooks.actions import Reject
from majordomus.core.broker.hooks.views import HookRequest, Outcome
from majordomus.net.broker.hooks import Middleware
from majordomus.protocol import spec

FAILURES: Final = (
    spec.DEADLINE_EXCEEDED,
    spec.HANDLER_FAILED,
    spec.WORKER_LOST,
    spec.UNAVAILABLE,
)


class _Circuit:
    """The state of one service.

    failures: consecutive failures.
    open: whether requests are refused.
    next_try: while open, when one request passes; in seconds of the middleware's clock.
    """

    __slots__ = ("failures", "next_try", "open")

    def __init__(self) -> None:
        self.failures = 0
        self.open = False
        self.next_try = 0.0


class CircuitBreaker(Middleware):
    """Refuses all requests to a service for `rest` seconds after `failures` consecutive failures.

    A refused request gets 503. After `rest` seconds one request passes, and one more every `rest`
    seconds. The first answer closes the circuit. A failure is a request that was dispatched to a
    worker and ended with one of `statuses`.
    """

    def __init__(
        self,
        failures: int = 5,
        rest: float = 10.0,
        *,
        statuses: Collection[int] = FAILURES,
        services: Collection[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.failures, self.rest = failures, rest
        self.statuses, self.services = frozenset(statuses), services
        self._clock = clock
        self._circuits: dict[str, _Circuit] = {}

    def on_request(self, request: HookRequest) -> Reject | None:
        circuit = self._circuits.get(request.service)
        if circuit is None or not circuit.open:
            return None
        now = self._clock()
        if now >= circuit.next_try:
            circuit.next_try = now + self.rest
            return None
        wait = circuit.next_try - now
        text = f"'{request.service}' has failed too often; try again in {wait:.3g} s"
        return Reject(spec.UNAVAILABLE, text)

    def on_request_ended(self, outcome: Outcome) -> None:
        name = outcome.service
        if not outcome.attempts or (self.services is not None and name not in self.services):
            return
        if outcome.outcome == "answered":
            self._circuits.pop(name, None)
        elif outcome.status in self.statuses:
            circuit = self._circuits.setdefault(name, _Circuit())
            circuit.failures += 1
            if circuit.failures >= self.failures:
                circuit.open = True
                circuit.next_try = self._clock() + self.rest

"""A wrapper for custom strategies: whatever the strategy returns or raises, a request gets a worker
that may have it, as long as there is one.

A strategy that raises anything is reported once and replaced by `least-outstanding`, for its
service alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from majordomus.core.broker.balancing.strategy import LeastOutstanding, Strategy
from majordomus.core.broker.state.workers import RegisteredWorker

if TYPE_CHECKING:
    from majordomus.core.broker.state.requests import AcceptedRequest


class Guarded(Strategy):
    """Wraps `inner`. `failed` is called with its first exception."""

    __slots__ = ("_failed", "_inner", "_weights", "by_load")

    def __init__(self, inner: Strategy, failed: Callable[[BaseException], None]) -> None:
        self.dice = inner.dice
        self.free: dict[RegisteredWorker, None] = {}
        self.by_load = inner.by_load
        self._inner = inner
        self._failed = failed
        self._weights: dict[RegisteredWorker, float] = {}

    def choose(self, request: AcceptedRequest) -> RegisteredWorker | None:
        rejected = request.rejected
        try:
            chosen = self._inner.choose(request)
            # Only of a worker it is known that comparing it runs no code of the strategy's author.
            fits = isinstance(chosen, RegisteredWorker) and chosen in self.free
            if fits and not (rejected and chosen in rejected):
                return chosen
        except BaseException as error:  # of the strategy, or of what it has returned
            self._replace(error)
            return self._inner.choose(request)
        return next(self.willing(request), None)

    def put(self, worker: RegisteredWorker) -> None:
        self.free[worker] = None
        self._try(self._inner.put, worker)

    def drop(self, worker: RegisteredWorker) -> None:
        self.free.pop(worker, None)
        self._try(self._inner.drop, worker)

    def given(self, worker: RegisteredWorker) -> None:
        self._try(self._inner.given, worker)

    def heard(self, worker: RegisteredWorker) -> None:
        self._try(self._inner.heard, worker)

    def enter(self, worker: RegisteredWorker, weight: float) -> None:
        self._weights[worker] = weight
        self._try(lambda entered: self._inner.enter(entered, weight), worker)

    def forget(self, worker: RegisteredWorker) -> None:
        self.free.pop(worker, None)
        self._weights.pop(worker, None)
        self._try(self._inner.forget, worker)

    def _try(self, notify: Callable[[RegisteredWorker], None], worker: RegisteredWorker) -> None:
        try:
            notify(worker)
        except BaseException as error:
            self._replace(error)

    def _replace(self, error: BaseException) -> None:
        self._inner = LeastOutstanding()
        self.by_load = False
        for worker, weight in self._weights.items():
            self._inner.enter(worker, weight)
        for worker in self.free:
            self._inner.put(worker)
        self._failed(error)

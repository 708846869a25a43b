"""A line of the log for each request, when it has ended."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection

from majordomus.core.broker.hooks.views import Outcome
from majordomus.net.broker.fact_log import line
from majordomus.net.broker.hooks import Middleware


class RequestLog(Middleware):
    """`request service=… status=… seconds=…` on the logger `majordomus.requests`: answered ones at
    INFO, others, and those that took `slow` seconds or more, at WARNING.

    No body and no metadata is ever written.
    """

    def __init__(
        self,
        logger: logging.Logger | None = None,
        *,
        slow: float | None = None,
        services: Collection[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.logger = logger or logging.getLogger("majordomus.requests")
        self.slow, self.services = slow, services
        self._clock = clock

    def on_request_ended(self, outcome: Outcome) -> None:
        if self.services is not None and outcome.service not in self.services:
            return
        seconds = self._clock() - outcome.accepted
        well = outcome.outcome == "answered" and (self.slow is None or seconds < self.slow)
        level = logging.INFO if well else logging.WARNING
        if not self.logger.isEnabledFor(level):
            return
        told: dict[str, object] = {"service": outcome.service}
        if outcome.served_as != outcome.service:
            told["served_as"] = outcome.served_as
        told |= {"outcome": outcome.outcome, "status": outcome.status, "seconds": seconds}
        told["client"] = outcome.client.hex()
        if outcome.user:
            told["user"] = outcome.user
        if outcome.worker:
            told |= {"worker": outcome.worker.hex(), "attempts": outcome.attempts}
        self.logger.log(level, "%s", line("request", told))

"""Log each request when it has ended."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection

from majordomus.core.broker.hooks.views import Outcome
from majordomus.net.broker.fact_log import line
from majordomus.net.broker.hooks import Middleware


class RequestLog(Middleware):
    """Logs `request id=… service=… status=… seconds=…` to the logger `majordomus.requests`, and the
    trace of a request that has one.

    The level is INFO for answered requests. It is WARNING for others, and for requests that took
    `slow` seconds or more. Bodies and metadata are never logged.
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
        fields: dict[str, object] = {"id": outcome.id, "service": outcome.service}
        if outcome.served_as != outcome.service:
            fields["served_as"] = outcome.served_as
        fields |= {"outcome": outcome.outcome, "status": outcome.status, "seconds": seconds}
        fields["client"] = outcome.client.hex()
        if outcome.user:
            fields["user"] = outcome.user
        if outcome.worker:
            fields |= {"worker": outcome.worker.hex(), "attempts": outcome.attempts}
        if outcome.trace:
            fields["trace"] = outcome.trace
        self.logger.log(level, "%s", line("request", fields), extra={"fact": ("request", fields)})

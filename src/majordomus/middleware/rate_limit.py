"""Rate limit: a token bucket for each client or user; requests beyond it get 429."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Collection

from majordomus.core.broker.hooks.actions import Reject
from majordomus.core.broker.hooks.views import HookRequest
from majordomus.errors import ConfigurationError
from majordomus.net.broker.hooks import Middleware
from majordomus.protocol import spec


class RateLimit(Middleware):
    """Allows `rate` requests a second for each client, and `burst` at once.

    `burst` defaults to `rate`. `by` is "client" or "user". A client that reconnects gets a new
    bucket, so that only a limit by user cannot be evaded. An anonymous client counts as a client in
    both cases. At most `most` buckets are kept; the least recently used one is dropped first.
    """

    def __init__(
        self,
        rate: float,
        burst: float | None = None,
        *,
        by: str = "client",
        services: Collection[str] | None = None,
        most: int = 100_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises: ConfigurationError for a rate of 0 or less, or another `by`."""
        self.rate, self.burst = rate, max(1.0, rate if burst is None else burst)
        if rate <= 0 or by not in ("client", "user"):
            raise ConfigurationError('RateLimit needs a rate above 0, by "client" or "user"')
        self.by, self.services, self.most = by, services, most
        self._clock = clock
        self._buckets: OrderedDict[object, tuple[float, float]] = OrderedDict()
        """For each client or user: the tokens left, and the time of that number."""

    def on_request(self, request: HookRequest) -> Reject | None:
        if self.services is not None and request.service not in self.services:
            return None
        key = (self.by == "user" and request.user) or request.client
        now, buckets = self._clock(), self._buckets
        left, since = buckets.pop(key, (self.burst, now))
        left = min(self.burst, left + (now - since) * self.rate)
        allowed = left >= 1.0
        buckets[key] = (left - 1.0 if allowed else left, now)
        if len(buckets) > self.most:
            buckets.popitem(last=False)
        if allowed:
            return None
        wait = (1.0 - left) / self.rate
        text = f"more than {self.rate:g} requests a second; try again in {wait:.3g} s"
        return Reject(spec.TOO_MANY, text)

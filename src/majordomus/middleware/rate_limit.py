"""So many requests a second for each client or user, by a token bucket; beyond it, 429."""

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
    """`rate` requests a second for each client, and `burst` at once (as many as in a second, unless
    told otherwise).

    `by` is "client" or "user". A client that connects anew is a new client, so only users are held
    to their rate whatever they do; who is not known as a user counts as the client that it is.
    `most` buckets are remembered; the one that was used least lately is forgotten first.
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
        """Raises: ConfigurationError for a rate that lets nothing through."""
        self.rate, self.burst = rate, max(1.0, rate if burst is None else burst)
        if rate <= 0 or by not in ("client", "user"):
            raise ConfigurationError('RateLimit needs a rate above 0, by "client" or "user"')
        self.by, self.services, self.most = by, services, most
        self._clock = clock
        self._buckets: OrderedDict[object, tuple[float, float]] = OrderedDict()
        """Of each client or user: what is left, and when that was so."""

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
        text = f"more than {self.rate:g} requests a second; the next one in {wait:.3g} s"
        return Reject(spec.TOO_MANY, text)

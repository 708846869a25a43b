"""Shadow traffic: copy a share of the requests to another service and drop its replies."""

from __future__ import annotations

import random
from collections.abc import Callable

from majordomus.core.broker.hooks.views import HookRequest
from majordomus.errors import ConfigurationError
from majordomus.net.broker.hooks import Middleware


class Shadow(Middleware):
    """Copies `share` (0 to 1) of the requests for `service` to the service `to`.

    The copy is a request of the broker's own: it has no metadata, user or deadline of the client,
    and its outcome is ignored. The original request is not changed and does not wait. `dice`
    returns a random number from 0 to 1, exclusive.
    """

    def __init__(
        self,
        service: str,
        to: str,
        share: float = 1.0,
        *,
        dice: Callable[[], float] = random.random,
    ) -> None:
        """Raises: ConfigurationError for a share out of range, or twice the same service."""
        if not 0.0 <= share <= 1.0:
            raise ConfigurationError(f"the share of Shadow must be from 0 to 1, not {share}")
        if service == to:
            raise ConfigurationError(f"Shadow cannot copy '{service}' to itself")
        self.service, self.to, self.share = service, to, share
        self._dice = dice

    def on_request(self, request: HookRequest) -> None:
        if request.service == self.service and self._dice() < self.share:
            self.broker.send(self.to, request.frames)

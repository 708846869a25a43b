"""A share of the requests goes to another service as well, to try it out; nobody hears of its
replies."""

from __future__ import annotations

import random
from collections.abc import Callable

from majordomus.core.broker.hooks.views import HookRequest
from majordomus.errors import ConfigurationError
from majordomus.net.broker.hooks import Middleware


class Shadow(Middleware):
    """Copies `share` (0 to 1) of the requests for `service` to the service `to`.

    The copy is the broker's own request: without the client's metadata, user and deadline, and
    whatever becomes of it is dropped. The request itself is not touched, and does not wait.
    `dice` returns a number from 0 up to 1.
    """

    def __init__(
        self,
        service: str,
        to: str,
        share: float = 1.0,
        *,
        dice: Callable[[], float] = random.random,
    ) -> None:
        """Raises: ConfigurationError for what is no share, or a service that would copy itself."""
        if not 0.0 <= share <= 1.0:
            raise ConfigurationError(f"the share of Shadow is from 0 to 1, not {share}")
        if service == to:
            raise ConfigurationError(f"Shadow cannot copy '{service}' to itself")
        self.service, self.to, self.share = service, to, share
        self._dice = dice

    def on_request(self, request: HookRequest) -> None:
        if request.service == self.service and self._dice() < self.share:
            self.broker.send(self.to, request.frames)

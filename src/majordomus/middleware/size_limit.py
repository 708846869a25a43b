"""Size limit: the largest body for each service; a larger one gets 413."""

from __future__ import annotations

from collections.abc import Mapping

from majordomus.core.broker.hooks.actions import Reject
from majordomus.core.broker.hooks.views import HookReply, HookRequest
from majordomus.net.broker.hooks import Middleware
from majordomus.protocol import spec


class SizeLimit(Middleware):
    """Allows at most `most` bytes in the body of a request.

    `services` has other limits for some services. `replies` limits the answers of all services.
    The limits of the broker's settings still apply.
    """

    def __init__(
        self,
        most: int | None = None,
        *,
        services: Mapping[str, int] | None = None,
        replies: int | None = None,
    ) -> None:
        self.most, self.services, self.replies = most, services or {}, replies

    def on_request(self, request: HookRequest) -> Reject | None:
        most = self.services.get(request.service, self.most)
        return _reject("a request for", request.service, request.size, most)

    def on_reply(self, reply: HookReply) -> Reject | None:
        return _reject("the answer of", reply.service, reply.size, self.replies)


def _reject(what: str, service: str, size: int, most: int | None) -> Reject | None:
    if most is None or size <= most:
        return None
    text = f"{what} '{service}' has {size} bytes; at most {most} are allowed"
    return Reject(spec.TOO_LARGE, text)

"""majordomus: clients call named services, workers serve them, a broker routes, balances and heals
between them.

Everything public is here; nothing is loaded before it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from majordomus.core.actions import (
        Action,
        Discard,
        Forward,
        Redirect,
        Reject,
        Replace,
        SendTo,
    )
    from majordomus.core.balancing import Strategy
    from majordomus.core.hook_views import HookReply, HookRequest
    from majordomus.core.settings import BrokerSettings
    from majordomus.errors import (
        BadRequest,
        BrokerLost,
        Cancelled,
        ConfigurationError,
        Conflict,
        DeadlineExceeded,
        Forbidden,
        FrameError,
        HandlerFailed,
        LocalProtocolError,
        MajordomusError,
        NotFound,
        NotSupported,
        ProtocolError,
        RecordError,
        RemoteProtocolError,
        StatusError,
        TooLarge,
        TooManyRequests,
        Unauthenticated,
        Unavailable,
        WorkerLost,
    )
    from majordomus.messages import Frame, Message
    from majordomus.net.async_client import AsyncClient
    from majordomus.net.async_worker import AsyncWorker
    from majordomus.net.bodies import Reply
    from majordomus.net.broker import Broker
    from majordomus.net.client import Client
    from majordomus.net.events import Event
    from majordomus.net.hooks import Middleware
    from majordomus.net.request import Request
    from majordomus.net.worker import Worker
    from majordomus.security.certificates import Certificate

__all__ = [
    "Action",
    "AsyncClient",
    "AsyncWorker",
    "BadRequest",
    "Broker",
    "BrokerLost",
    "BrokerSettings",
    "Cancelled",
    "Certificate",
    "Client",
    "ConfigurationError",
    "Conflict",
    "DeadlineExceeded",
    "Discard",
    "Event",
    "Forbidden",
    "Forward",
    "Frame",
    "FrameError",
    "HandlerFailed",
    "HookReply",
    "HookRequest",
    "LocalProtocolError",
    "MajordomusError",
    "Message",
    "Middleware",
    "NotFound",
    "NotSupported",
    "ProtocolError",
    "RecordError",
    "Redirect",
    "Reject",
    "RemoteProtocolError",
    "Replace",
    "Reply",
    "Request",
    "SendTo",
    "StatusError",
    "Strategy",
    "TooLarge",
    "TooManyRequests",
    "Unauthenticated",
    "Unavailable",
    "Worker",
    "WorkerLost",
]

_HOMES: Final[dict[str, str]] = {
    "Action": "majordomus.core.actions",
    "AsyncClient": "majordomus.net.async_client",
    "AsyncWorker": "majordomus.net.async_worker",
    "Broker": "majordomus.net.broker",
    "BrokerSettings": "majordomus.core.settings",
    "Certificate": "majordomus.security.certificates",
    "Client": "majordomus.net.client",
    "Discard": "majordomus.core.actions",
    "Event": "majordomus.net.events",
    "Forward": "majordomus.core.actions",
    "Frame": "majordomus.messages",
    "HookReply": "majordomus.core.hook_views",
    "HookRequest": "majordomus.core.hook_views",
    "Message": "majordomus.messages",
    "Middleware": "majordomus.net.hooks",
    "Redirect": "majordomus.core.actions",
    "Reject": "majordomus.core.actions",
    "Replace": "majordomus.core.actions",
    "Reply": "majordomus.net.bodies",
    "Request": "majordomus.net.request",
    "SendTo": "majordomus.core.actions",
    "Strategy": "majordomus.core.balancing",
    "Worker": "majordomus.net.worker",
}
"""Where each name lives; what is not listed is an error class."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(_HOMES.get(name, "majordomus.errors")), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

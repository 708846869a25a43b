"""majordomus: clients call named services, workers serve them, a broker routes, balances and heals
between them.

Everything public is here; nothing is loaded before it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from majordomus.core.balancing import Strategy
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
    from majordomus.net.request import Request
    from majordomus.net.worker import Worker

__all__ = [
    "AsyncClient",
    "AsyncWorker",
    "BadRequest",
    "Broker",
    "BrokerLost",
    "BrokerSettings",
    "Cancelled",
    "Client",
    "ConfigurationError",
    "Conflict",
    "DeadlineExceeded",
    "Forbidden",
    "Frame",
    "FrameError",
    "HandlerFailed",
    "LocalProtocolError",
    "MajordomusError",
    "Message",
    "NotFound",
    "NotSupported",
    "ProtocolError",
    "RecordError",
    "RemoteProtocolError",
    "Reply",
    "Request",
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
    "AsyncClient": "majordomus.net.async_client",
    "AsyncWorker": "majordomus.net.async_worker",
    "Broker": "majordomus.net.broker",
    "BrokerSettings": "majordomus.core.settings",
    "Client": "majordomus.net.client",
    "Frame": "majordomus.messages",
    "Message": "majordomus.messages",
    "Reply": "majordomus.net.bodies",
    "Request": "majordomus.net.request",
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

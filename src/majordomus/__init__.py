"""majordomus: clients call named services, workers serve them, and a broker routes and balances the
requests between them.

Every public name is here. Its module is imported with the first use of the name, so that a program
loads only what it uses.

errors: the one tree of exceptions.
system: what the operating system may lack, with its guards.
protocol: bytes to commands and back, as pure functions over frames.
core: the rules: the machines of the broker, the client's session and the worker's session.
messages: `Message`, `Frame` and records: what a body may be made of.
contracts: what a service takes and returns: schemas, comparison, documents and stubs.
durable: stores for durable requests.
security: certificates, keys, passwords, tokens and access rules in files.
observe: the snapshot of a broker, and the exporter for Prometheus.
net: sockets, loops and threads around the machines.
middleware: hooks of a broker that are ready to use.
testing: brokers, workers and clients of a test, in one thread on a virtual clock.
contrib: programs on top of majordomus: the cloud logger, OpenTelemetry.
cli: the command `majordomus`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    __version__: str
    from majordomus.core.broker.balancing.strategy import Strategy
    from majordomus.core.broker.hooks.actions import (
        Action,
        Discard,
        Forward,
        Redirect,
        Reject,
        Replace,
        SendTo,
    )
    from majordomus.core.broker.hooks.views import HookReply, HookRequest
    from majordomus.core.broker.settings import BrokerSettings
    from majordomus.errors import (
        BadRequest,
        BrokerLost,
        Cancelled,
        ConfigurationError,
        Conflict,
        DeadlineExceeded,
        DoNotRetry,
        Expired,
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
    from majordomus.net.bodies import Reply
    from majordomus.net.broker.broker import Broker
    from majordomus.net.broker.hooks import Middleware
    from majordomus.net.client.async_client import AsyncClient
    from majordomus.net.client.client import Client
    from majordomus.net.client.typed import AsyncServiceConversation, ServiceConversation
    from majordomus.net.events import Event
    from majordomus.net.worker.async_worker import AsyncWorker
    from majordomus.net.worker.declare.dependencies import Depends
    from majordomus.net.worker.declare.middleware import HandlerMiddleware
    from majordomus.net.worker.declare.router import Router
    from majordomus.net.worker.request import Request
    from majordomus.net.worker.worker import Worker
    from majordomus.security.certificates import Certificate

__all__ = [
    "Action",
    "AsyncClient",
    "AsyncServiceConversation",
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
    "Depends",
    "Discard",
    "DoNotRetry",
    "Event",
    "Expired",
    "Forbidden",
    "Forward",
    "Frame",
    "FrameError",
    "HandlerFailed",
    "HandlerMiddleware",
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
    "Router",
    "SendTo",
    "ServiceConversation",
    "StatusError",
    "Strategy",
    "TooLarge",
    "TooManyRequests",
    "Unauthenticated",
    "Unavailable",
    "Worker",
    "WorkerLost",
]

_MODULES: Final[dict[str, str]] = {
    "Action": "majordomus.core.broker.hooks.actions",
    "AsyncClient": "majordomus.net.client.async_client",
    "AsyncServiceConversation": "majordomus.net.client.typed",
    "AsyncWorker": "majordomus.net.worker.async_worker",
    "Broker": "majordomus.net.broker.broker",
    "BrokerSettings": "majordomus.core.broker.settings",
    "Certificate": "majordomus.security.certificates",
    "Client": "majordomus.net.client.client",
    "Depends": "majordomus.net.worker.declare.dependencies",
    "Discard": "majordomus.core.broker.hooks.actions",
    "Event": "majordomus.net.events",
    "Forward": "majordomus.core.broker.hooks.actions",
    "Frame": "majordomus.messages",
    "HandlerMiddleware": "majordomus.net.worker.declare.middleware",
    "HookReply": "majordomus.core.broker.hooks.views",
    "HookRequest": "majordomus.core.broker.hooks.views",
    "Message": "majordomus.messages",
    "Middleware": "majordomus.net.broker.hooks",
    "Redirect": "majordomus.core.broker.hooks.actions",
    "Reject": "majordomus.core.broker.hooks.actions",
    "Replace": "majordomus.core.broker.hooks.actions",
    "Reply": "majordomus.net.bodies",
    "Request": "majordomus.net.worker.request",
    "Router": "majordomus.net.worker.declare.router",
    "SendTo": "majordomus.core.broker.hooks.actions",
    "ServiceConversation": "majordomus.net.client.typed",
    "Strategy": "majordomus.core.broker.balancing.strategy",
    "Worker": "majordomus.net.worker.worker",
}
"""The module of each public name; a name that is not listed is a class of majordomus.errors."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from majordomus.net.version import version

        return version()
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(_MODULES.get(name, "majordomus.errors")), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})

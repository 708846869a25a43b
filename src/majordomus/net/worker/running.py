"""A request while a handler works on it, the connection that it came by, and what becomes of one
that fails. The engine's."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING

from majordomus.core.worker.session import WorkerSession
from majordomus.errors import StatusError
from majordomus.net.worker.handlers import Answer, Handler, Shape, failure
from majordomus.net.worker.request import Request

if TYPE_CHECKING:
    from majordomus.core.worker.session import WorkerEvent
    from majordomus.net.connection.async_link import AsyncSessionConnection
    from majordomus.net.worker.flow import Outflow

logger = logging.getLogger("majordomus.worker")


class ConnectionDesk:
    """Where the requests of one connection come in. ``running``: those that go on, by job."""

    session: WorkerSession
    line: AsyncSessionConnection[WorkerEvent]

    def __init__(self) -> None:
        self.running: dict[int, Invocation] = {}


class Offer:
    """A service, and how it is served. ``threaded``: its handler would block the event loop.
    ``simple``: it is a coroutine, whose result is the answer."""

    def __init__(self, name: str, handler: Handler) -> None:
        self.name = name
        self.handler = handler
        self.function = handler.function
        self.in_process = handler.in_process
        self.threaded = handler.shape.threaded
        self.simple = handler.shape is Shape.COROUTINE


class Invocation:
    """One request that a handler works on."""

    __slots__ = ("ahead", "flow", "job", "offer", "over", "post", "request", "task")

    def begin(self, post: ConnectionDesk, job: int, request: Request, offer: Offer) -> None:
        """Fill in what a new one is."""
        self.post, self.job, self.request, self.offer = post, job, request, offer
        self.over = False
        """Whether it has its answer."""
        self.task: asyncio.Task[None] | None = None
        self.ahead: threading.Semaphore | None = None
        self.flow: Outflow | None = None


def judge(one: Invocation, error: BaseException) -> Answer:
    """The answer to what a handler raised; what it did not mean to raise is logged."""
    if not isinstance(error, StatusError | asyncio.CancelledError):
        logger.error("the handler of %s failed", one.request.service, exc_info=error)
    return failure(error)

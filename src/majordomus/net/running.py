"""A request while a handler works on it, and what becomes of one that fails. The engine's."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING

from majordomus.errors import StatusError
from majordomus.net.handlers import Answer, Handler, failure
from majordomus.net.request import Request

if TYPE_CHECKING:
    from majordomus.net.engine import Post
    from majordomus.net.flow import Outflow

logger = logging.getLogger("majordomus.worker")


class Running:
    """One request that a handler works on."""

    __slots__ = ("ahead", "flow", "handler", "job", "post", "request", "task")

    def __init__(self, post: Post, job: int, request: Request, handler: Handler) -> None:
        self.post, self.job, self.request, self.handler = post, job, request, handler
        self.task: asyncio.Task[None] | None = None
        self.ahead: threading.Semaphore | None = None
        self.flow: Outflow | None = None


def judge(one: Running, error: BaseException) -> Answer:
    """The answer to what a handler raised; what it did not mean to raise is logged."""
    if not isinstance(error, StatusError | asyncio.CancelledError):
        logger.error("the handler of %s failed", one.request.service, exc_info=error)
    return failure(error)

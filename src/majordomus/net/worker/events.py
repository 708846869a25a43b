"""What a worker does with events: pushes to clients, publishes, and hears of topics itself.

A client's handle is known to one broker only, and a subscriber is at one broker at a time: what a
worker says goes to each of its brokers once, over the first of its connections there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from majordomus.core.session.events import EventReceived as Heard
from majordomus.core.session.events import SubscriptionRefused, check_name
from majordomus.errors import ConfigurationError, LocalProtocolError
from majordomus.net.bodies import Body, to_frames
from majordomus.net.events import Handler, HandlerSubscription, Hub, Receiver, TaskQueue, name_of
from majordomus.protocol import metadata as packing
from majordomus.protocol.spec import Dialect

if TYPE_CHECKING:
    from majordomus.core.worker.session import WorkerSession, WorkerSettings
    from majordomus.net.worker.base import Shift
    from majordomus.net.worker.engine import Post

logger = logging.getLogger("majordomus.worker")


class EngineEvents:
    """The events of one engine, in its loop's thread."""

    def __init__(self, posts: list[Post], handlers: Mapping[bytes, Handler]) -> None:
        self._posts = posts
        self._hub = Hub()
        self._queue = TaskQueue(in_threads=True)
        self.lost = 0
        """Events that found no connection."""
        for pattern, handler in handlers.items():
            self._hub.add(HandlerSubscription(pattern, handler, self._queue.put, self._forget))
            for post in self._firsts():
                post.session.subscribe(pattern, time.monotonic())

    def push(self, client: bytes, frames: list[bytes], field: bytes) -> None:
        self._say(lambda session, now: session.push(client, frames, now, field))

    def publish(self, topic: bytes, frames: list[bytes], field: bytes) -> None:
        self._say(lambda session, now: session.publish(topic, frames, now, field))

    def subscribe(self, pattern: bytes, handler: Handler) -> None:
        self._hub.add(HandlerSubscription(pattern, handler, self._queue.put, self._forget))
        self._each(lambda session, now: session.subscribe(pattern, now))

    def unsubscribe(self, pattern: bytes) -> None:
        for one in self._hub.of(pattern):
            one.end(None)
            self._hub.remove(one)
        self._each(lambda session, now: session.unsubscribe(pattern, now))

    def put(self, heard: Heard | SubscriptionRefused) -> None:
        """What a session heard."""
        if isinstance(heard, SubscriptionRefused) and heard.what == "subscribe":
            name, text = heard.name.decode("utf-8", "replace"), b" ".join(heard.frames[:1])
            logger.error("no subscription to %s: %d %s", name, heard.status, text.decode())
        self._hub.put(heard)

    def close(self) -> None:
        self._hub.close()
        self._queue.close()

    def _forget(self, receiver: Receiver) -> None:
        self._hub.remove(receiver)

    def _say(self, say: Callable[[WorkerSession, float], bool]) -> None:
        if not self._each(say):
            self.lost += 1
            if self.lost & (self.lost - 1) == 0:
                logger.warning("an event was lost: there is no connection (%d so far)", self.lost)

    def _each(self, act: Callable[[WorkerSession, float], object]) -> bool:
        """Over the first connection to each broker. Whether one took it."""
        now, taken = time.monotonic(), False
        for post in self._firsts():
            taken |= bool(act(post.session, now))
            post.line.touch()
        return taken

    def _firsts(self) -> Iterable[Post]:
        by_url: dict[str, Post] = {}
        for post in self._posts:
            by_url.setdefault(post.url, post)
        return by_url.values()


class WorkerEvents:
    """The part of `Worker` and `AsyncWorker` that is about events. From any thread; nothing
    waits."""

    _settings: WorkerSettings
    _shift: Shift | None
    _topics: dict[bytes, Handler]

    def push(
        self, client: bytes, body: Body = None, *, metadata: Mapping[str, Any] | None = None
    ) -> None:
        """An event for the client of a request, `request.client`, at any later time, at most once.

        A client hears it while it has presence: an AsyncClient, or a Client with `events`,
        `on_event` or `subscribe`. Where it has gone, that is logged. Raises: LocalProtocolError
        when this worker does not run.
        """
        self._check_dialect()
        if not client:
            raise LocalProtocolError("empty-address", "a push needs a client's handle")
        frames, field = to_frames(body), packing.pack(metadata) if metadata else b""
        self._running().events(lambda events: events.push(client, frames, field))

    def publish(
        self,
        topic: str | bytes,
        body: Body = None,
        *,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """An event for everybody who subscribed to `topic`, at most once. Raises: as `push`."""
        self._check_dialect()
        name = name_of(topic)
        check_name(name, pattern=False)
        frames, field = to_frames(body), packing.pack(metadata) if metadata else b""
        self._running().events(lambda events: events.publish(name, frames, field))

    def subscribe(self, pattern: str | bytes, handler: Handler) -> None:
        """`handler(event)` is called for what is published to the topics of `pattern`, one after
        the other: a coroutine function on the worker's loop, another one beside it. One handler for
        a pattern. Before the worker runs as well. Raises: LocalProtocolError for what is none."""
        self._check_dialect()
        name = name_of(pattern)
        check_name(name, pattern=True)
        if not callable(handler):
            raise ConfigurationError(f"a handler is a function, not {type(handler).__name__}")
        if name in self._topics:
            raise ConfigurationError(f"{pattern!r} has a handler already")
        self._topics[name] = handler
        if self._shift is not None:
            self._shift.events(lambda events: events.subscribe(name, handler))

    def unsubscribe(self, pattern: str | bytes) -> None:
        """The handler of `pattern` is called no more."""
        name = name_of(pattern)
        if self._topics.pop(name, None) is not None and self._shift is not None:
            self._shift.events(lambda events: events.unsubscribe(name))

    def _running(self) -> Shift:
        if self._shift is None:
            raise LocalProtocolError("not-running", "this worker does not run")
        return self._shift

    def _check_dialect(self) -> None:
        if self._settings.dialect is not Dialect.MDP03:
            raise LocalProtocolError("not-in-dialect", "events need MDP/0.3")

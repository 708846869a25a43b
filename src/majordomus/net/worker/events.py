"""Events of a worker: pushes to clients, publishes to topics, and subscriptions of its own.

A client's handle is known to one broker only, and a subscriber is at one broker at a time. So each
event goes to each broker once, over the first of the worker's connections there.
"""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from majordomus.core.session.events import EventReceived, SubscriptionRefused, check_name
from majordomus.errors import ConfigurationError, LocalProtocolError
from majordomus.net.bodies import Body, to_frames
from majordomus.net.events import Handler, HandlerSubscription, Hub, Receiver, TaskQueue, name_of
from majordomus.net.typed.events import typed_handler
from majordomus.protocol import metadata as packing
from majordomus.protocol.spec import Dialect

if TYPE_CHECKING:
    from majordomus.core.worker.session import WorkerSession, WorkerSettings
    from majordomus.net.worker.serving import WorkerConnection

logger = logging.getLogger("majordomus.worker")

H = TypeVar("H", bound=Callable[..., object])


class EngineEvents:
    """The events of one engine, in its loop's thread.

    lost: events that were sent while there was no connection
    """

    def __init__(
        self, connections: Sequence[WorkerConnection], handlers: Mapping[bytes, Handler]
    ) -> None:
        self._connections = connections
        self._hub = Hub()
        self._queue = TaskQueue(in_threads=True)
        self.lost = 0
        for pattern, handler in handlers.items():
            self._hub.add(HandlerSubscription(pattern, handler, self._queue.put, self._forget))
            for connection in self._first_connections():
                connection.session.subscribe(pattern, time.monotonic())

    def push(self, client: bytes, frames: list[bytes], field: bytes) -> None:
        """Send an event to the client with that handle."""
        self._send(lambda session, now: session.push(client, frames, now, field))

    def publish(self, topic: bytes, frames: list[bytes], field: bytes) -> None:
        """Send an event to the subscribers of a topic."""
        self._send(lambda session, now: session.publish(topic, frames, now, field))

    def subscribe(self, pattern: bytes, handler: Handler) -> None:
        """Call `handler` with the events of the topics that match `pattern`."""
        self._hub.add(HandlerSubscription(pattern, handler, self._queue.put, self._forget))
        self._for_each_broker(lambda session, now: session.subscribe(pattern, now))

    def unsubscribe(self, pattern: bytes) -> None:
        """Call the handlers of `pattern` no more."""
        for receiver in self._hub.of(pattern):
            receiver.end(None)
            self._hub.remove(receiver)
        self._for_each_broker(lambda session, now: session.unsubscribe(pattern, now))

    def put(self, event: EventReceived | SubscriptionRefused) -> None:
        """Hand an event of a session to its receivers; log a refused subscription."""
        if isinstance(event, SubscriptionRefused) and event.what == "subscribe":
            name, text = event.name.decode("utf-8", "replace"), b" ".join(event.frames[:1])
            logger.error(
                "no subscription to %s: %d %s", name, event.status, text.decode("utf-8", "replace")
            )
        self._hub.put(event)

    def close(self) -> None:
        """Call no handler any more."""
        self._hub.close()
        self._queue.close()

    def _forget(self, receiver: Receiver) -> None:
        self._hub.remove(receiver)

    def _send(self, send: Callable[[WorkerSession, float], bool]) -> None:
        if not self._for_each_broker(send):
            self.lost += 1
            if self.lost & (self.lost - 1) == 0:  # 1, 2, 4, …: a lost broker must not fill the log
                logger.warning("an event was lost: there is no connection (%d so far)", self.lost)

    def _for_each_broker(self, action: Callable[[WorkerSession, float], object]) -> bool:
        """Call `action` with the first session at each broker. Return whether one returned True."""
        now, taken = time.monotonic(), False
        for connection in self._first_connections():
            taken |= bool(action(connection.session, now))
            connection.line.touch()
        return taken

    def _first_connections(self) -> Iterable[WorkerConnection]:
        by_url: dict[str, WorkerConnection] = {}
        for connection in self._connections:
            by_url.setdefault(connection.url, connection)
        return by_url.values()


class EventMethods:
    """The methods of `Worker` and `AsyncWorker` for events. Any thread may call them; none of them
    waits."""

    _settings: WorkerSettings
    _topics: dict[bytes, Handler]

    @abstractmethod
    def _with_events(self, action: Callable[[EngineEvents], object]) -> bool:
        """Call `action` with the engine's events, on the loop. Return False when the worker is not
        running."""

    def push(
        self, client: bytes, body: Body = None, *, metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Send an event to the client of a request, `request.client`, at any later time.

        It is delivered at most once, to a client that has presence: an AsyncClient, or a Client
        with `events`, `on_event` or `subscribe`. If the client is gone, that is logged.

        Raises: LocalProtocolError when this worker is not running.
        """
        self._check_dialect()
        if not client:
            raise LocalProtocolError("empty-address", "a push needs a client's handle")
        frames, field = to_frames(body), packing.pack(metadata) if metadata else b""
        self._send_event(lambda events: events.push(client, frames, field))

    def publish(
        self,
        topic: str | bytes,
        body: Body = None,
        *,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Send an event to every subscriber of `topic`, at most once. Raises: as `push`."""
        self._check_dialect()
        name = name_of(topic)
        check_name(name, pattern=False)
        frames, field = to_frames(body), packing.pack(metadata) if metadata else b""
        self._send_event(lambda events: events.publish(name, frames, field))

    def on_event(self, pattern: str | bytes) -> Callable[[H], H]:
        """Decorate a handler of the events of the topics that match `pattern`; see `subscribe`.

        Raises: as `subscribe`.
        """

        def decorate(function: H) -> H:
            self.subscribe(pattern, function)
            return function

        return decorate

    def subscribe(self, pattern: str | bytes, handler: Callable[..., object]) -> None:
        """Call `handler(event)` for each event of the topics that match `pattern`, one at a time.

        A coroutine function runs on the worker's loop, another function in a thread. A pattern has
        one handler. The worker need not run yet. An argument that is annotated with a type other
        than `Event` gets the decoded body; an event that does not fit is dropped and logged.

        Raises: LocalProtocolError for a malformed pattern; ConfigurationError for a handler that
        cannot be called, and for a second handler.
        """
        self._check_dialect()
        name = name_of(pattern)
        check_name(name, pattern=True)
        if not callable(handler):
            raise ConfigurationError(f"a handler is a function, not {type(handler).__name__}")
        if name in self._topics:
            raise ConfigurationError(f"{pattern!r} has a handler already")
        typed = self._topics[name] = self._prepared_event(typed_handler(handler))
        self._with_events(lambda events: events.subscribe(name, typed))

    def unsubscribe(self, pattern: str | bytes) -> None:
        """Call the handler of `pattern` no more. May be repeated."""
        name = name_of(pattern)
        if self._topics.pop(name, None) is not None:
            self._with_events(lambda events: events.unsubscribe(name))

    def _prepared_event(self, handler: Handler) -> Handler:
        """Return the handler of events that is called; a subclass may wrap it."""
        return handler

    def _send_event(self, send: Callable[[EngineEvents], object]) -> None:
        if not self._with_events(send):
            raise LocalProtocolError("not-running", "this worker is not running")

    def _check_dialect(self) -> None:
        if self._settings.dialect is not Dialect.MDP03:
            raise LocalProtocolError("not-in-dialect", "events need MDP/0.3")

"""Events of clients and workers: they are distributed to subscriptions and handlers, each with a
bounded queue.

The thread that drives the session puts events in and never waits. A full queue drops its oldest
event, and counts it in `dropped`.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import cached_property
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeAlias

from majordomus.core.session.events import PUBLISH, SUBSCRIBE, EventReceived, SubscriptionRefused
from majordomus.errors import ConfigurationError, LocalProtocolError, error_for
from majordomus.net.gate import SafeCondition
from majordomus.protocol import metadata
from majordomus.protocol.topics import agrees

MOST_WAITING: Final = 1000
"""Events that wait for one receiver, unless it has a limit of its own."""

logger = logging.getLogger("majordomus.events")


class Event:
    """An event that was published to a topic, or pushed to this client alone.

    topic: the topic; empty for a push.
    frames: the body.
    metadata: the metadata of the sender.
    """

    def __init__(self, topic: str, frames: list[bytes], packed: bytes = b"") -> None:
        self.topic = topic
        self.frames = frames
        self._packed = packed

    @property
    def body(self) -> bytes:
        """The frames, joined."""
        return self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)

    @property
    def text(self) -> str:
        """The body as UTF-8. Raises: UnicodeDecodeError."""
        return self.body.decode()

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """The metadata of the sender."""
        return metadata.unpack(self._packed) if self._packed else {}

    def __repr__(self) -> str:
        return f"Event(topic={self.topic!r}, frames={len(self.frames)})"


Handler: TypeAlias = Callable[[Event], object]


class Receiver(Protocol):
    """Receives the events of `pattern`, or all events when it is empty."""

    pattern: bytes

    def put(self, event: Event) -> None:
        """Take an event. It must not wait."""

    def end(self, error: Exception | None) -> None:
        """End it: no more events come, because of `error` if there is one. May be repeated."""


class Publication(Protocol):
    """An event that was published with the number `id`."""

    id: int


class Hub:
    """The receivers of one client or worker.

    `put` belongs to the thread that drives the session; the other methods to any thread. A dropped
    stream may drive the session from its finalizer, within any of these methods. So there is no
    lock: the table is changed and copied by operations that no other thread can interrupt.

    unclaimed: the number of events that matched no receiver.
    """

    def __init__(self) -> None:
        self.unclaimed = 0
        self._receivers: dict[Receiver, None] = {}
        self._watched: dict[Publication, Exception | None] = {}

    def add(self, receiver: Receiver) -> None:
        self._receivers[receiver] = None

    def remove(self, receiver: Receiver) -> bool:
        """Remove a receiver. Returns whether another one has the same pattern."""
        self._receivers.pop(receiver, None)
        return any(one.pattern == receiver.pattern for one in list(self._receivers))

    def of(self, pattern: bytes) -> list[Receiver]:
        """Return the receivers of `pattern`; of an empty one, the receivers of all events."""
        return [one for one in list(self._receivers) if one.pattern == pattern]

    def put(self, received: EventReceived | SubscriptionRefused) -> None:
        """Distribute what the session received."""
        if isinstance(received, SubscriptionRefused):
            self._refused(received)
            return
        topic = received.topic
        wanted = [
            one
            for one in list(self._receivers)
            if not one.pattern or (topic and agrees(one.pattern, topic))
        ]
        if not wanted:
            self.unclaimed += 1
            return
        event = Event(topic.decode("utf-8", "replace"), received.frames, received.metadata)
        for one in wanted:
            one.put(event)

    def watch(self, sent: Publication) -> None:
        """Remember a refusal of `sent` until `check_refused` is called."""
        self._watched[sent] = None

    def check_refused(self, sent: Publication) -> None:
        """End `watch`. Raises: the StatusError with which `sent` was refused."""
        error = self._watched.pop(sent, None)
        if error is not None:
            raise error

    def _refused(self, refused: SubscriptionRefused) -> None:
        error = error_for(refused.status, refused.frames)
        if refused.what == SUBSCRIBE:
            for one in self.of(refused.name):
                self.remove(one)
                one.end(error)
            return
        for sent in list(self._watched):
            if refused.what == PUBLISH and sent.id == refused.id:
                self._watched[sent] = error
                return
        name = refused.name.decode("utf-8", "replace")
        target = name if refused.what == PUBLISH else refused.name.hex()
        logger.warning("an event to %s was refused: %s", target, error)

    def close(self, error: Exception | None = None) -> None:
        """End all receivers: no more events come."""
        receivers, self._receivers = self._receivers, {}
        for one in list(receivers):
            one.end(error)


class SubscriptionBase:
    """The bounded queue of one subscription, without a wait. The subclass makes it safe.

    pattern: the pattern of its topics; empty for all events.
    dropped: the number of events that were dropped because the queue was full.
    """

    def __init__(self, pattern: bytes, limit: int, remove: Callable[[Receiver], None]) -> None:
        if limit < 1:
            raise ConfigurationError(f"at least 1 event waits for its receiver, not {limit}")
        self.pattern = pattern
        self.dropped = 0
        self._limit, self._remove = limit, remove
        self._waiting: deque[Event] = deque()
        self._over = False
        self._error: Exception | None = None

    def put(self, event: Event) -> None:
        """Take an event. The oldest one is dropped when the queue is full."""
        if self._over:
            return
        if len(self._waiting) >= self._limit:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(event)
        self._wake()

    def end(self, error: Exception | None) -> None:
        """End it: no more events come, because of `error` if there is one. May be repeated."""
        if not self._over:
            self._over, self._error = True, error
            self._wake()

    def check(self) -> None:
        """Raises: the error that has ended it."""
        if self._error is not None:
            raise self._error

    def _wake(self) -> None:
        """Wake what waits for an event or the end."""
        raise NotImplementedError

    def _close(self) -> None:
        if not self._over:
            self.end(None)
            self._remove(self)

    def _is_over(self) -> bool:
        """Return whether the empty queue has ended. Raises: the error that has ended it."""
        self.check()
        return self._over


class Subscription(SubscriptionBase, Iterator[Event]):
    """Events as they come, for any thread. It ends when it, or its client, is closed."""

    def __init__(self, pattern: bytes, limit: int, remove: Callable[[Receiver], None]) -> None:
        super().__init__(pattern, limit, remove)
        self._changed = SafeCondition()

    def put(self, event: Event) -> None:
        with self._changed:
            super().put(event)

    def end(self, error: Exception | None) -> None:
        with self._changed:
            super().end(error)

    def get(self, timeout: float | None = None) -> Event:
        """Return the next event, within `timeout` seconds.

        Raises: TimeoutError; LocalProtocolError when it is closed; a StatusError when the broker
        has refused the subscription.
        """
        event = self._next(timeout)
        if event is None:
            raise LocalProtocolError("closed", "no more events come here")
        return event

    def _next(self, timeout: float | None) -> Event | None:
        until = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not self._waiting:
                if self._is_over():
                    return None
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError(f"no event came within {timeout:g} s")
                self._changed.wait(left)
            return self._waiting.popleft()

    def _wake(self) -> None:
        if self._over:
            self._changed.notify_all()
        else:
            self._changed.notify()

    def __next__(self) -> Event:
        event = self._next(None)
        if event is None:
            raise StopIteration
        return event

    def close(self) -> None:
        """End it: no more events come. May be repeated."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class AsyncSubscription(SubscriptionBase, AsyncIterator[Event]):
    """Events as they come, for the tasks of one loop. It ends when it, or its client, is closed."""

    def __init__(self, pattern: bytes, limit: int, remove: Callable[[Receiver], None]) -> None:
        super().__init__(pattern, limit, remove)
        self._waiters: deque[asyncio.Future[None]] = deque()

    async def get(self, timeout: float | None = None) -> Event:
        """Return the next event, within `timeout` seconds. Raises: as `Subscription.get`."""
        async with asyncio.timeout(timeout):
            event = await self._next()
        if event is None:
            raise LocalProtocolError("closed", "no more events come here")
        return event

    async def _next(self) -> Event | None:
        while not self._waiting:
            if self._is_over():
                return None
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        return self._waiting.popleft()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, deque()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def __anext__(self) -> Event:
        event = await self._next()
        if event is None:
            raise StopAsyncIteration
        return event

    async def aclose(self) -> None:
        """End it: no more events come. May be repeated."""
        self._close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


class HandlerSubscription:
    """A handler that is called with events, one after the other, until `close`."""

    def __init__(
        self,
        pattern: bytes,
        handler: Handler,
        queue: Callable[[Handler, Event], None],
        remove: Callable[[Receiver], None],
    ) -> None:
        if not callable(handler):
            raise ConfigurationError(f"a handler is a function, not {type(handler).__name__}")
        self.pattern = pattern
        self._handler, self._queue, self._remove = handler, queue, remove
        self._over = False
        self._error: Exception | None = None

    def put(self, event: Event) -> None:
        if not self._over:
            self._queue(self._handler, event)

    def end(self, error: Exception | None) -> None:
        self._over, self._error = True, self._error or error

    def check(self) -> None:
        """Raises: the error that has ended it."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """End it: the handler is not called any more. May be repeated."""
        if not self._over:
            self.end(None)
            self._remove(self)


class HandlerQueue:
    """The bounded queue of handlers to be called. The subclass calls them.

    dropped: the number of events that were dropped because the queue was full.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._waiting: deque[tuple[Handler, Event]] = deque()

    def _append(self, handler: Handler, event: Event) -> None:
        if len(self._waiting) >= MOST_WAITING:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append((handler, event))


class ThreadQueue(HandlerQueue):
    """Calls handlers in one thread of its own, which starts with the first event."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = SafeCondition()
        self._over = False
        self._thread: threading.Thread | None = None

    def put(self, handler: Handler, event: Event) -> None:
        """Have `handler(event)` called. From any thread."""
        with self._changed:
            if self._over:
                return
            self._append(handler, event)
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="majordomus-events", daemon=True
                )
                self._thread.start()

    def close(self) -> None:
        """Drop what waits, and wait for the running handler, unless that handler calls this."""
        with self._changed:
            self._over = True
            self._waiting.clear()
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._over:
                    self._changed.wait()
                if self._over:
                    return
                handler, event = self._waiting.popleft()
            call(handler, event)


class TaskQueue(HandlerQueue):
    """Calls handlers in one task, which starts with the first event and ends when none waits.

    With `in_threads` a handler that is not a coroutine function runs in a thread beside the loop.
    """

    def __init__(self, *, in_threads: bool = False) -> None:
        super().__init__()
        self._in_threads = in_threads
        self._task: asyncio.Task[None] | None = None
        self._over = False

    def put(self, handler: Handler, event: Event) -> None:
        """Have `handler(event)` called. In the loop's thread."""
        self._append(handler, event)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def close(self) -> None:
        """Drop what waits, and cancel the running handler, unless that handler calls this."""
        self._over = True
        self._waiting.clear()
        if self._task is not None and self._task is not _current_task():
            self._task.cancel()

    async def _run(self) -> None:
        try:
            while self._waiting:
                handler, event = self._waiting.popleft()
                await self._call(handler, event)
        finally:
            self._task = None

    async def _call(self, handler: Handler, event: Event) -> None:
        try:
            if self._in_threads and not inspect.iscoroutinefunction(handler):
                await asyncio.to_thread(call, handler, event)
                return
            result = handler(event)
            if isinstance(result, Awaitable):
                await result
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                if self._over:
                    raise
                _uncancel()  # the handler has cancelled itself, or what it waited for
            _log_failure(error)


def call(handler: Handler, event: Event) -> None:
    """Call a handler, and log what it raises: SystemExit too concerns this event alone."""
    try:
        handler(event)
    except BaseException as error:
        _log_failure(error)


def _log_failure(error: BaseException) -> None:
    with contextlib.suppress(BaseException):  # formatting it runs methods of the exception
        logger.error("a handler of events failed", exc_info=error)


def _uncancel() -> None:
    task = _current_task()
    while task is not None and task.cancelling():
        task.uncancel()


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def name_of(topic: str | bytes) -> bytes:
    """Encode a topic or a pattern."""
    return topic.encode() if isinstance(topic, str) else bytes(topic)

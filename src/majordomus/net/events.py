"""Events as their receivers see them: iterators and handlers, each with a bounded queue.

Whoever drives the session puts events in and never waits: what is not taken in time makes room for
what is newer, the oldest first, and is counted in `dropped`.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import cached_property
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeAlias

from majordomus.core.broker.state.topics import agrees
from majordomus.core.session.events import PUBLISH, SUBSCRIBE, SubscriptionRefused
from majordomus.core.session.events import EventReceived as Heard
from majordomus.errors import ConfigurationError, LocalProtocolError, error_for
from majordomus.protocol import metadata

MOST_WAITING: Final = 1000
"""Events that wait for one receiver, unless it says otherwise."""

logger = logging.getLogger("majordomus.events")


class Event:
    """What somebody published to a topic that we hear of, or pushed to us alone.

    `topic` is empty for a push.
    """

    def __init__(self, topic: str, frames: list[bytes], packed: bytes = b"") -> None:
        self.topic = topic
        self.frames = frames
        self._packed = packed

    @property
    def body(self) -> bytes:
        """All frames joined."""
        return self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)

    @property
    def text(self) -> str:
        """The body as UTF-8. Raises: UnicodeDecodeError."""
        return self.body.decode()

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """What the sender sent with it."""
        return metadata.unpack(self._packed) if self._packed else {}

    def __repr__(self) -> str:
        return f"Event(topic={self.topic!r}, frames={len(self.frames)})"


Handler: TypeAlias = Callable[[Event], object]


class Receiver(Protocol):
    """One who hears events: of `pattern`, or of all when that is empty."""

    pattern: bytes

    def put(self, event: Event) -> None:
        """An event for this one. It must not wait."""

    def end(self, error: Exception | None) -> None:
        """Nothing more will come; `error` says why, if that is a fault. May be repeated."""


class Sent(Protocol):
    """An event that was published under `id`."""

    id: int


class Hub:
    """The receivers of one client or worker. `put` is for whoever drives the session; the rest may
    come from any thread. ``unheard``: events that no receiver wanted."""

    def __init__(self) -> None:
        self.unheard = 0
        self._receivers: dict[Receiver, None] = {}
        self._watched: dict[Sent, Exception | None] = {}
        self._lock = threading.Lock()

    def add(self, receiver: Receiver) -> None:
        with self._lock:
            self._receivers[receiver] = None

    def remove(self, receiver: Receiver) -> bool:
        """Whether somebody else still hears of the same pattern."""
        with self._lock:
            self._receivers.pop(receiver, None)
            return any(one.pattern == receiver.pattern for one in self._receivers)

    def of(self, pattern: bytes) -> list[Receiver]:
        """The receivers of `pattern`; of an empty one, those of everything."""
        with self._lock:
            return [one for one in self._receivers if one.pattern == pattern]

    def put(self, heard: Heard | SubscriptionRefused) -> None:
        """What the session heard."""
        if isinstance(heard, SubscriptionRefused):
            self._refused(heard)
            return
        topic = heard.topic
        with self._lock:
            wanted = [
                one
                for one in self._receivers
                if not one.pattern or (topic and agrees(one.pattern, topic))
            ]
        if not wanted:
            self.unheard += 1
            return
        event = Event(topic.decode("utf-8", "replace"), heard.frames, heard.metadata)
        for one in wanted:
            one.put(event)

    def watch(self, sent: Sent) -> None:
        """Somebody wants to know whether `sent` is refused, and asks by `seen`."""
        self._watched[sent] = None

    def seen(self, sent: Sent) -> None:
        """Raises: the StatusError with which it was refused."""
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
        told = f"to {name}" if refused.what == PUBLISH else f"to {refused.name.hex()}"
        logger.warning("an event %s was refused: %s", told, error)

    def close(self, error: Exception | None = None) -> None:
        """Nothing more will come for anybody."""
        with self._lock:
            receivers, self._receivers = list(self._receivers), {}
        for one in receivers:
            one.end(error)


class Subscription(Iterator[Event]):
    """Events as they come, for any thread. It ends when it, or its client, is closed."""

    def __init__(self, pattern: bytes, limit: int, leave: Callable[[Receiver], None]) -> None:
        self.pattern = pattern
        self.dropped = 0
        """Events that nobody took in time."""
        self._limit, self._leave = _checked(limit), leave
        self._waiting: deque[Event] = deque()
        self._news = threading.Condition()
        self._over = False
        self._error: Exception | None = None

    def put(self, event: Event) -> None:
        with self._news:
            if self._over:
                return
            if len(self._waiting) >= self._limit:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(event)
            self._news.notify()

    def end(self, error: Exception | None) -> None:
        with self._news:
            if not self._over:
                self._over, self._error = True, error
                self._news.notify_all()

    def get(self, timeout: float | None = None) -> Event:
        """The next event, within `timeout` seconds.

        Raises: TimeoutError; LocalProtocolError when it is closed; a StatusError when the broker
        has refused the subscription.
        """
        event = self._next(timeout)
        if event is None:
            raise LocalProtocolError("closed", "no more events come here")
        return event

    def _next(self, timeout: float | None) -> Event | None:
        until = None if timeout is None else time.monotonic() + timeout
        with self._news:
            while not self._waiting:
                self.check()
                if self._over:
                    return None
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError(f"no event came within {timeout:g} s")
                self._news.wait(left)
            return self._waiting.popleft()

    def check(self) -> None:
        """Raises: what has ended it."""
        if self._error is not None:
            raise self._error

    def __next__(self) -> Event:
        event = self._next(None)
        if event is None:
            raise StopIteration
        return event

    def close(self) -> None:
        """Hears nothing more. May be repeated."""
        if not self._over:
            self.end(None)
            self._leave(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class AsyncSubscription(AsyncIterator[Event]):
    """Events as they come, for the tasks of one loop. It ends when it, or its client, is closed."""

    def __init__(self, pattern: bytes, limit: int, leave: Callable[[Receiver], None]) -> None:
        self.pattern = pattern
        self.dropped = 0
        """Events that nobody took in time."""
        self._limit, self._leave = _checked(limit), leave
        self._waiting: deque[Event] = deque()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._over = False
        self._error: Exception | None = None

    def put(self, event: Event) -> None:
        if self._over:
            return
        if len(self._waiting) >= self._limit:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(event)
        self._wake()

    def end(self, error: Exception | None) -> None:
        if not self._over:
            self._over, self._error = True, error
            self._wake()

    def check(self) -> None:
        """Raises: what has ended it."""
        if self._error is not None:
            raise self._error

    async def get(self, timeout: float | None = None) -> Event:
        """The next event, within `timeout` seconds. Raises: as `Events.get`."""
        async with asyncio.timeout(timeout):
            event = await self._next()
        if event is None:
            raise LocalProtocolError("closed", "no more events come here")
        return event

    async def _next(self) -> Event | None:
        while not self._waiting:
            self.check()
            if self._over:
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
        """Hears nothing more. May be repeated."""
        if not self._over:
            self.end(None)
            self._leave(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


class Listening:
    """A handler that is called with events, one after the other, until `close`."""

    def __init__(
        self,
        pattern: bytes,
        handler: Handler,
        queue: Callable[[Handler, Event], None],
        leave: Callable[[Receiver], None],
    ) -> None:
        if not callable(handler):
            raise ConfigurationError(f"a handler is a function, not {type(handler).__name__}")
        self.pattern = pattern
        self._handler, self._queue, self._leave = handler, queue, leave
        self._over = False
        self._error: Exception | None = None

    def put(self, event: Event) -> None:
        if not self._over:
            self._queue(self._handler, event)

    def end(self, error: Exception | None) -> None:
        self._over, self._error = True, self._error or error

    def check(self) -> None:
        """Raises: what has ended it."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """The handler is called no more. May be repeated."""
        if not self._over:
            self.end(None)
            self._leave(self)


class ThreadQueue:
    """Calls handlers in one thread of its own, which begins with the first event."""

    def __init__(self) -> None:
        self.dropped = 0
        self._waiting: deque[tuple[Handler, Event]] = deque()
        self._news = threading.Condition()
        self._over = False
        self._thread: threading.Thread | None = None

    def put(self, handler: Handler, event: Event) -> None:
        with self._news:
            if self._over:
                return
            if len(self._waiting) >= MOST_WAITING:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append((handler, event))
            self._news.notify()
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="majordomus-events", daemon=True
                )
                self._thread.start()

    def close(self) -> None:
        """What waits is not handled any more; what runs is waited for, unless it closes us."""
        with self._news:
            self._over = True
            self._waiting.clear()
            self._news.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._news:
                while not self._waiting and not self._over:
                    self._news.wait()
                if self._over:
                    return
                handler, event = self._waiting.popleft()
            try:
                handler(event)
            except Exception:
                logger.exception("a handler of events failed")


class TaskQueue:
    """Calls handlers in one task, which begins with the first event and ends with the last that
    waits. With `in_threads`, what is no coroutine function runs beside the loop."""

    def __init__(self, *, in_threads: bool = False) -> None:
        self.dropped = 0
        self._in_threads = in_threads
        self._waiting: deque[tuple[Handler, Event]] = deque()
        self._task: asyncio.Task[None] | None = None

    def put(self, handler: Handler, event: Event) -> None:
        """In the loop's thread."""
        if len(self._waiting) >= MOST_WAITING:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append((handler, event))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def close(self) -> None:
        """What waits is not handled any more, what runs is cancelled, unless it closes us."""
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
                await asyncio.to_thread(handler, event)
                return
            result = handler(event)
            if isinstance(result, Awaitable):
                await result
        except Exception:
            logger.exception("a handler of events failed")


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _checked(limit: int) -> int:
    if limit < 1:
        raise ConfigurationError(f"at least 1 event waits for its receiver, not {limit}")
    return limit


def name_of(topic: str | bytes) -> bytes:
    """A topic or a pattern as it goes over the wire."""
    return topic.encode() if isinstance(topic, str) else bytes(topic)

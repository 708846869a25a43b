"""Events of a client: subscriptions, handlers of events, and publishing.

The arguments, the state and the errors are in `BaseClientEvents`. `ClientEvents` and
`AsyncClientEvents` differ only in how they wait for the broker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, TypeVar, overload

from majordomus.core.session.events import check_name
from majordomus.errors import BrokerLost, DeadlineExceeded, LocalProtocolError, StatusError
from majordomus.net.bodies import Body
from majordomus.net.client.async_call_runner import AsyncCallRunner
from majordomus.net.client.base import BROKER_PROBE, ClientBase
from majordomus.net.client.call_runner import CallLauncher, CallRunner
from majordomus.net.client.calls import (
    CallOptions,
    PendingCall,
    make_options,
    make_publication,
    result,
)
from majordomus.net.events import (
    MOST_WAITING,
    AsyncSubscription,
    Handler,
    HandlerSubscription,
    Receiver,
    Subscription,
    SubscriptionBase,
    TaskQueue,
    ThreadQueue,
    name_of,
)
from majordomus.net.typed.events import (
    AsyncTypedSubscription,
    TypedSubscription,
    typed_handler,
)
from majordomus.protocol.spec import Dialect

S = TypeVar("S", bound=SubscriptionBase)
T = TypeVar("T")


class BaseClientEvents(ClientBase, Generic[S]):
    """What both clients share of events: everything but the waiting."""

    _runner: CallLauncher
    _handlers: ThreadQueue | TaskQueue
    _subscription: Callable[[bytes, int, Callable[[Receiver], None]], S]

    def events(self, *, limit: int = MOST_WAITING) -> S:
        """Return an iterator over every event from now on, pushes and topics.

        Use `for event in client.events()`, or `async for` with an AsyncClient. At most `limit`
        events wait; then the oldest is dropped, and counted in `dropped`.
        """
        self._receive_events()
        made = self._subscription(b"", limit, self._remove)
        self._runner.calls.hub.add(made)
        return made

    def on_event(self, handler: Handler) -> HandlerSubscription:
        """Call `handler(event)` for every event from now on, one after the other.

        A Client calls its handlers in a thread that they share; they may call services. With an
        AsyncClient the handler is a function or a coroutine function. `close` of what is returned
        ends it.
        """
        self._receive_events()
        handler = self._prepared_event(handler) if callable(handler) else handler
        made = HandlerSubscription(b"", handler, self._handlers.put, self._remove)
        self._runner.calls.hub.add(made)
        return made

    def _prepared_event(self, handler: Handler) -> Handler:
        """Return the handler of events that is called; a subclass may wrap it."""
        return handler

    def _receive_events(self) -> None:
        self._check_dialect()
        self._runner.receive_events()

    def _check_dialect(self) -> None:
        if self._session.settings.dialect is not Dialect.MDP03:
            raise LocalProtocolError("not-in-dialect", "events need MDP/0.3")

    def _begin_subscription(
        self, pattern: str | bytes, handler: Handler | None, limit: int
    ) -> S | HandlerSubscription:
        """Check the arguments and add the receiver. The broker is not asked yet."""
        name = name_of(pattern)
        check_name(name, pattern=True)
        self._receive_events()
        made: S | HandlerSubscription
        if handler is None:
            made = self._subscription(name, limit, self._remove)
        else:
            handler = self._prepared_event(handler) if callable(handler) else handler
            made = HandlerSubscription(name, handler, self._handlers.put, self._remove)
        self._runner.calls.hub.add(made)
        return made

    def _send_subscription(self, receiver: Receiver) -> None:
        self._runner.post(lambda now: self._session.subscribe(receiver.pattern, now))

    def _end_subscriptions(self, pattern: str | bytes) -> None:
        for receiver in self._runner.calls.hub.of(name_of(pattern)):
            self._end(receiver)

    def _end(self, receiver: Receiver) -> None:
        receiver.end(None)
        self._remove(receiver)

    def _remove(self, receiver: Receiver) -> None:
        """Remove a receiver. The last one of its pattern ends the subscription at the broker."""
        others = self._runner.calls.hub.remove(receiver)
        pattern = receiver.pattern
        if not pattern or others or self._runner.ended:
            return
        self._runner.post(lambda now: self._session.unsubscribe(pattern, now))

    def _publication(
        self,
        topic: str | bytes,
        body: Body,
        timeout: float | None,
        metadata: Mapping[str, Any] | None,
    ) -> PendingCall:
        self._check_dialect()
        options = make_publication(name_of(topic), body, self._seconds(timeout), metadata)
        return PendingCall(options)

    def _probe(self, timeout: float | None) -> CallOptions:
        """Return the options of a call that the broker itself answers.

        It is sent on the same connection as what is to be confirmed. So its answer, of whatever
        status, shows that the broker has processed all that was sent before.
        """
        return make_options(
            BROKER_PROBE, BROKER_PROBE.encode(), self._seconds(timeout), fail_fast=True
        )


@contextmanager
def _any_answer() -> Iterator[None]:
    """Accept every answer to a probe. Raises: DeadlineExceeded and BrokerLost: no answer came."""
    try:
        yield
    except (DeadlineExceeded, BrokerLost):
        raise
    except StatusError:
        pass


class ClientEvents(BaseClientEvents[Subscription]):
    """The events of `Client`. Every method of it starts the client's background thread."""

    _runner: CallRunner
    _handlers: ThreadQueue
    _subscription = Subscription

    @overload
    def subscribe(
        self, pattern: str | bytes, *, timeout: float | None = None, limit: int = MOST_WAITING
    ) -> Subscription: ...
    @overload
    def subscribe(
        self,
        pattern: str | bytes,
        *,
        timeout: float | None = None,
        limit: int = MOST_WAITING,
        of: type[T],
    ) -> TypedSubscription[T]: ...
    @overload
    def subscribe(
        self,
        pattern: str | bytes,
        handler: Callable[..., object],
        *,
        timeout: float | None = None,
        of: Any = None,
    ) -> HandlerSubscription: ...
    def subscribe(
        self,
        pattern: str | bytes,
        handler: Callable[..., object] | None = None,
        *,
        timeout: float | None = None,
        limit: int = MOST_WAITING,
        of: Any = None,
    ) -> Any:
        """Subscribe to the topics that match `pattern`, until the subscription is closed.

        In a pattern `*` is one token, `>` is the rest. Iterate over what is returned, or give a
        `handler` as for `on_event`. Returns when the broker has the subscription. `of`: the type
        of the bodies; then values are returned instead of events. A handler's annotation does the
        same for its argument.

        Raises: Forbidden, TooManyRequests, DeadlineExceeded …; LocalProtocolError for an invalid
        pattern.
        """
        if handler is not None:
            handler = typed_handler(handler, of)
        made = self._begin_subscription(pattern, handler, limit)
        try:
            self._send_subscription(made)
            self._confirm(timeout)
            made.check()
        except BaseException:
            self._end(made)
            raise
        if of is None or isinstance(made, HandlerSubscription):
            return made
        return TypedSubscription(made, of)

    def unsubscribe(self, pattern: str | bytes) -> None:
        """End every iterator and handler of `pattern`."""
        self._end_subscriptions(pattern)

    def publish(
        self,
        topic: str | bytes,
        body: Body = None,
        *,
        timeout: float | None = None,
        confirm: bool = False,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Publish an event to every subscriber of `topic`, at most once.

        Returns when the event is handed to a broker's connection; what the broker refuses is
        logged. With `confirm` it returns when the broker has the event, and raises what the broker
        refuses.

        Raises: DeadlineExceeded when there is no connection within `timeout`; LocalProtocolError
        for an invalid topic.
        """
        call = self._publication(topic, body, timeout, metadata)
        if confirm:
            self._runner.calls.hub.watch(call)
        try:
            self._runner.run(call)
            result(call)
            if confirm:
                self._confirm(timeout)
        finally:
            self._runner.calls.hub.check_refused(call)

    def _confirm(self, timeout: float | None) -> None:
        with _any_answer():
            self._runner.call(self._probe(timeout))


class AsyncClientEvents(BaseClientEvents[AsyncSubscription]):
    """The events of `AsyncClient`."""

    _runner: AsyncCallRunner
    _handlers: TaskQueue
    _subscription = AsyncSubscription

    @overload
    async def subscribe(
        self, pattern: str | bytes, *, timeout: float | None = None, limit: int = MOST_WAITING
    ) -> AsyncSubscription: ...
    @overload
    async def subscribe(
        self,
        pattern: str | bytes,
        *,
        timeout: float | None = None,
        limit: int = MOST_WAITING,
        of: type[T],
    ) -> AsyncTypedSubscription[T]: ...
    @overload
    async def subscribe(
        self,
        pattern: str | bytes,
        handler: Callable[..., object],
        *,
        timeout: float | None = None,
        of: Any = None,
    ) -> HandlerSubscription: ...
    async def subscribe(
        self,
        pattern: str | bytes,
        handler: Callable[..., object] | None = None,
        *,
        timeout: float | None = None,
        limit: int = MOST_WAITING,
        of: Any = None,
    ) -> Any:
        """Subscribe to the topics that match `pattern`, until the subscription is closed.

        Arguments and errors are those of `Client.subscribe`.
        """
        if handler is not None:
            handler = typed_handler(handler, of)
        made = self._begin_subscription(pattern, handler, limit)
        try:
            self._send_subscription(made)
            await self._confirm(timeout)
            made.check()
        except BaseException:
            self._end(made)
            raise
        if of is None or isinstance(made, HandlerSubscription):
            return made
        return AsyncTypedSubscription(made, of)

    async def unsubscribe(self, pattern: str | bytes) -> None:
        """End every iterator and handler of `pattern`."""
        self._end_subscriptions(pattern)

    async def publish(
        self,
        topic: str | bytes,
        body: Body = None,
        *,
        timeout: float | None = None,
        confirm: bool = False,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Publish an event to every subscriber of `topic`, at most once.

        Arguments and errors are those of `Client.publish`.
        """
        call = self._publication(topic, body, timeout, metadata)
        if confirm:
            self._runner.calls.hub.watch(call)
        try:
            await self._runner.run(call)
            result(call)
            if confirm:
                await self._confirm(timeout)
        finally:
            self._runner.calls.hub.check_refused(call)

    async def _confirm(self, timeout: float | None) -> None:
        with _any_answer():
            await self._runner.call(self._probe(timeout))

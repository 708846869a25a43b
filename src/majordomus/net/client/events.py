"""What a sync client does with events: hears pushes and topics, and publishes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, overload

from majordomus.core.session.events import check_name
from majordomus.errors import (
    BrokerLost,
    DeadlineExceeded,
    LocalProtocolError,
    StatusError,
)
from majordomus.net.bodies import Body
from majordomus.net.client.calls import PendingCall, PendingCalls, make_publication, result
from majordomus.net.events import (
    MOST_WAITING,
    Handler,
    Listening,
    Receiver,
    Subscription,
    ThreadQueue,
    name_of,
)

if TYPE_CHECKING:
    from majordomus.core.client.session import ClientEvent, ClientSession
    from majordomus.net.bodies import Reply
    from majordomus.net.client.driver import Driver


class ClientEvents:
    """The part of `Client` that is about events. All of it starts the client's own thread."""

    _session: ClientSession
    _calls: PendingCalls
    _driver: Driver[ClientEvent]
    _handlers: ThreadQueue
    _takes_presence: bool

    if TYPE_CHECKING:

        def call(
            self,
            service: str | bytes,
            body: Body = None,
            *,
            timeout: float | None = None,
            fail_fast: bool = False,
        ) -> Reply: ...
        def _begin(self, call: PendingCall) -> None: ...
        def _go_present(self, now: float) -> None: ...
        def _seconds(self, timeout: float | None) -> float: ...

    def events(self, *, limit: int = MOST_WAITING) -> Subscription:
        """Every event that comes from now on, pushes and topics: `for event in client.events()`.

        At most `limit` wait; then the oldest is dropped, and counted in `dropped`.
        """
        self._hear()
        made = Subscription(b"", limit, self._left)
        self._calls.hub.add(made)
        return made

    def on_event(self, handler: Handler) -> Listening:
        """`handler(event)` is called for every event that comes from now on, in a thread that all
        handlers of this client share; it may call services. `close` of what is returned ends it."""
        self._hear()
        made = Listening(b"", handler, self._handlers.put, self._left)
        self._calls.hub.add(made)
        return made

    @overload
    def subscribe(
        self, pattern: str | bytes, *, timeout: float | None = None, limit: int = MOST_WAITING
    ) -> Subscription: ...
    @overload
    def subscribe(
        self, pattern: str | bytes, handler: Handler, *, timeout: float | None = None
    ) -> Listening: ...
    def subscribe(
        self,
        pattern: str | bytes,
        handler: Handler | None = None,
        *,
        timeout: float | None = None,
        limit: int = MOST_WAITING,
    ) -> Subscription | Listening:
        """Hears of the topics that `pattern` stands for, until it is closed: `*` is one token, `>`
        the rest. Iterate over what is returned, or give a `handler` as for `on_event`.

        Returns when the broker knows of it. Raises: Forbidden, TooManyRequests, DeadlineExceeded …;
        LocalProtocolError for what is no pattern.
        """
        name = name_of(pattern)
        check_name(name, pattern=True)
        self._hear()
        if handler is None:
            made: Subscription | Listening = Subscription(name, limit, self._left)
        else:
            made = Listening(name, handler, self._handlers.put, self._left)
        self._calls.hub.add(made)
        try:
            self._driver.post(lambda now: self._session.subscribe(name, now))
            self._confirm(timeout)
            made.check()
        except BaseException:
            made.close()
            raise
        return made

    def unsubscribe(self, pattern: str | bytes) -> None:
        """Ends every iterator and handler of `pattern`."""
        for one in self._calls.hub.of(name_of(pattern)):
            one.end(None)
            self._left(one)

    def publish(
        self,
        topic: str | bytes,
        body: Body = None,
        *,
        timeout: float | None = None,
        confirm: bool = False,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """An event for everybody who subscribed to `topic`, at most once. Returns when it is handed
        to a broker's connection; what a broker refuses is logged. With `confirm` it returns when
        the broker has had it, and raises what it refuses.

        Raises: DeadlineExceeded when there is none within `timeout`; LocalProtocolError for what is
        no topic.
        """
        self._check_dialect()
        name = name_of(topic)
        call = PendingCall(make_publication(name, body, self._seconds(timeout), metadata))
        if confirm:
            self._calls.hub.watch(call)
        try:
            self._begin(call)
            result(call)
            if confirm:
                self._confirm(timeout)
        finally:
            self._calls.hub.seen(call)

    # ── inside ────────────────────────────────────────────────────────────────────────────────────

    def _check_dialect(self) -> None:
        if not self._takes_presence:
            raise LocalProtocolError("not-in-dialect", "events need MDP/0.3")

    def _hear(self) -> None:
        """Events come only to who has presence, and somebody must be there to hear them."""
        self._check_dialect()
        self._driver.go_to_background(self._go_present)

    def _confirm(self, timeout: float | None) -> None:
        """One question on the same connection: whatever the answer is, all that was said before has
        been heard."""
        try:
            self.call("mmi.service", b"mmi.service", timeout=timeout, fail_fast=True)
        except (DeadlineExceeded, BrokerLost):
            raise
        except StatusError:
            pass

    def _left(self, receiver: Receiver) -> None:
        others = self._calls.hub.remove(receiver)
        pattern = receiver.pattern
        if not pattern or others or self._driver.ended:
            return
        self._driver.post(lambda now: self._session.unsubscribe(pattern, now))

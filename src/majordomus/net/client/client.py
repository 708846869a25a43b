"""The sync client.

A call from its only thread moves the socket by itself; with more threads there is one for it.

The rules are the session's, the calls' bookkeeping is calls.py's, who moves the socket is
driver.py's matter.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from majordomus.core.client.login import LoginSession
from majordomus.core.client.session import ClientEvent, ClientSession, ClientSettings
from majordomus.errors import LocalProtocolError
from majordomus.net import endpoints
from majordomus.net.bodies import Body, Reply
from majordomus.net.client.calls import (
    CallOptions,
    ConversationCall,
    PendingCall,
    PendingCalls,
    final,
    make_ask,
    make_call,
    result,
)
from majordomus.net.client.driver import Driver
from majordomus.net.client.events import ClientEvents
from majordomus.net.client.gather import Gathering, Wait
from majordomus.net.client.hedge import hedged
from majordomus.net.connection.credentials import Access, credentials
from majordomus.net.deadline import within
from majordomus.net.events import ThreadQueue
from majordomus.protocol import spec
from majordomus.protocol.spec import Dialect
from majordomus.security.certificates import Certificate

if TYPE_CHECKING:
    from majordomus.net.client.conversation import Conversation

DEFAULT_TIMEOUT: Final = 30.0
SENT_ONCE: Final = spec.ONCE | spec.ONE_WAY
"""What is not sent again when its connection ends."""


def make_session(
    urls: Sequence[str],
    dialect: str,
    settings: ClientSettings | None,
    *,
    presence: bool,
    login: Sequence[str | bytes] | None = None,
) -> ClientSession:
    """The session of a client of ours.

    Raises: ConfigurationError for a dialect that there is not.
    """
    spoken = endpoints.dialect(dialect)
    base = settings or ClientSettings()
    present = presence and spoken is Dialect.MDP03
    kept = {name: getattr(base, name) for name in ClientSettings.__struct_fields__}
    made = ClientSettings(
        **{**kept, "dialect": spoken, "endpoints": len(urls), "presence": present}
    )
    if login is not None:
        return LoginSession(made, credentials(login), os.urandom, random.random)
    return ClientSession(made, os.urandom, random.random)


class Client(ClientEvents):
    """Calls services through a broker, or through the next of several when one is lost.

    Threads may share it.

    `timeout` is the seconds that a call gets unless it says otherwise. `dialect` is for brokers
    that know nothing newer. Nothing is connected before the first call. After a fork a process
    needs a client of its own.

    `server_key` is the public key of an encrypted broker (or the URL brings it:
    `majordomus://host:port?key=…`), `certificate` the pair that we are known by there, or its file.
    `plain` is user and password, for a broker on this machine that asks for them.
    `login` is what the broker's auth service is told, user and password for instance: the client
    logs in before its first call, and renews its token by itself (docs/tokens.md).
    """

    def __init__(
        self,
        broker: str | Sequence[str] = endpoints.DEFAULT,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        dialect: str = Dialect.MDP03,
        settings: ClientSettings | None = None,
        server_key: str = "",
        certificate: Certificate | str | Path | None = None,
        plain: tuple[str, str] | None = None,
        login: Sequence[str | bytes] | None = None,
    ) -> None:
        self._access = Access(broker, server_key, certificate, plain)
        self.endpoints = self._access.urls
        self.timeout = timeout
        # Over inproc only the broker itself can tell that it leaves, and it tells who is present.
        inproc = any(map(endpoints.is_inproc, self.endpoints))
        session = make_session(self.endpoints, dialect, settings, presence=inproc, login=login)
        self._session = session
        self._takes_presence = session.settings.dialect is Dialect.MDP03
        self._calls = PendingCalls(
            session, self.endpoints, lambda: self._driver.up, lambda: self._driver.refusal
        )
        self._driver: Driver[ClientEvent] = Driver(
            session,
            lambda: self.endpoints[session.endpoint],
            take=self._calls.take,
            broken=self._calls.fail,
            finish=self._calls.close,
            access=self._access,
        )
        self._handlers = ThreadQueue()

    def call(
        self,
        service: str | bytes,
        body: Body = None,
        *,
        timeout: float | None = None,
        fail_fast: bool = False,
        once: bool = False,
        to: bytes = b"",
        metadata: Mapping[str, Any] | None = None,
        hedge_after: float | None = None,
    ) -> Reply:
        """Asks `service` and waits for its answer; the parts of a streamed answer are joined.

        `timeout`: seconds for all of it. `fail_fast`: fail at once where no worker is, instead of
        waiting for one. `once`: never executed twice, whatever is lost. `to`: the id of the one
        worker that shall answer. `hedge_after`: another worker is asked as well after so many
        seconds without an answer, the first answer counts, and the other try is cancelled. Raises:
        a StatusError for every status but 200 (DeadlineExceeded among them), BrokerLost for a lost
        `once`.
        """
        call = make_call(service, body, self._seconds(timeout), fail_fast, once, to, metadata)
        if hedge_after is not None:
            return hedged(self, call.ask, hedge_after)
        self._begin(call)
        return result(call)

    def gather(
        self,
        service: str | bytes,
        body: Body = None,
        *,
        wait: Wait = "all",
        timeout: float | None = None,
        stall: float | None = None,
        once: bool = False,
        metadata: Mapping[str, Any] | None = None,
    ) -> Gathering:
        """Asks every worker that serves `service` now, and iterates over the replies as they come.

        `wait`: "all", "first", or how many replies are wanted; the rest is cancelled. `timeout`:
        seconds for all of it. `stall`: seconds without any reply after which nobody is waited for
        any more. With "all", who fails is in `failures` of what is returned, and nothing is raised.
        Raises: Unavailable when fewer workers are there than wanted; with "first" or a number, the
        first failure after which the replies cannot suffice, or DeadlineExceeded.
        """
        ask = make_ask(service, body, self._seconds(timeout), once=once, metadata=metadata)
        return Gathering(self, ask, wait, stall)

    def stream(
        self,
        service: str | bytes,
        body: Body = None,
        *,
        timeout: float | None = None,
        fail_fast: bool = False,
        once: bool = False,
        to: bytes = b"",
        metadata: Mapping[str, Any] | None = None,
    ) -> Stream:
        """Asks `service` and iterates over the parts of its answer as they come.

        `timeout` is for all of them.

        The request leaves now, or as soon as there is a connection: that is waited for. Closing the
        iterator, or dropping it, cancels what has not come yet.
        """
        ask = make_ask(
            service,
            body,
            self._seconds(timeout),
            fail_fast=fail_fast,
            once=once,
            to=to,
            metadata=metadata,
        )
        return Stream(self, PendingCall(ask, reads=True))

    def open(
        self,
        service: str | bytes,
        body: Body = None,
        *,
        timeout: float | None = None,
        fail_fast: bool = False,
        once: bool = False,
        to: bytes = b"",
        metadata: Mapping[str, Any] | None = None,
    ) -> Conversation:
        """Asks `service` and goes on talking: parts go both ways until both sides have finished.

        `timeout` is for all of it. Leaving its context cancels what has not ended.
        """
        from majordomus.net.client.conversation import Conversation

        ask = make_ask(
            service,
            body,
            self._seconds(timeout),
            fail_fast=fail_fast,
            once=once,
            more=True,
            to=to,
            metadata=metadata,
        )
        return Conversation(self, ConversationCall(ask))

    def submit(
        self,
        service: str | bytes,
        body: Body = None,
        *,
        timeout: float | None = None,
        fail_fast: bool = False,
        once: bool = False,
        to: bytes = b"",
        metadata: Mapping[str, Any] | None = None,
    ) -> Future[Reply]:
        """Asks `service` and returns at once. `cancel` of the future tells the broker too.

        Callbacks of the future run in the client's own thread and must not call, only submit.
        """
        ask = make_ask(
            service,
            body,
            self._seconds(timeout),
            fail_fast=fail_fast,
            once=once,
            to=to,
            metadata=metadata,
        )
        future = _Answer(self, ask)
        self._launch(future.call)
        return future

    def send(
        self,
        service: str | bytes,
        body: Body = None,
        *,
        timeout: float | None = None,
        to: bytes = b"",
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """One-way: nothing comes back. Returns when the request is handed to a broker's connection.

        Raises: DeadlineExceeded when there is none within `timeout`.
        """
        ask = make_ask(
            service, body, self._seconds(timeout), one_way=True, to=to, metadata=metadata
        )
        call = PendingCall(ask)
        self._begin(call)
        result(call)

    def ping(self, *, timeout: float | None = None) -> float:
        """Seconds that one question to the broker itself takes. Raises: as `call`."""
        began = time.perf_counter()
        self.call("mmi.service", b"mmi.service", timeout=timeout)
        return time.perf_counter() - began

    def serves(self, service: str, *, timeout: float | None = None) -> bool:
        """Whether the broker has a live worker for `service`. Raises: as `call`."""
        return self.call("mmi.service", service, timeout=timeout).frames[:1] == [b"200"]

    def close(self) -> None:
        """Cancels what is open and closes the connection; what was sent one-way still leaves.

        May be repeated.
        """
        self._driver.end()
        self._handlers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # ── for Stream and _Answer as well ────────────────────────────────────────────────────────────

    def _begin(self, call: PendingCall) -> None:
        self._wait(call, call.ended, lambda now: self._calls.begin(call, now))

    def _launch(self, call: PendingCall, begin: Callable[[float], None] | None = None) -> None:
        """Begins `call`, by `begin` if given; whoever waits is told by its `notify`."""
        self._driver.go_to_background(self._go_present)
        self._driver.post(begin or (lambda now: self._calls.begin(call, now)))

    def _wait(
        self,
        call: PendingCall,
        done: Callable[[], bool],
        command: Callable[[float], None] | None = None,
    ) -> None:
        """Until `done`, which only what happens to `call` can make true.

        An interrupted wait cancels the call.
        """
        driver = self._driver
        seated = driver.sit_down(self._go_present)
        arrived: threading.Event | None = None
        try:
            if seated:
                try:
                    driver.drive(done, command, looks=call.ask.flags & SENT_ONCE != 0)
                finally:
                    if not done():
                        arrived = _arrange(call)
                    driver.stand_up()
            else:
                arrived = _arrange(call)
                if command is not None:
                    driver.post(command)
            while arrived is not None and not done():
                arrived.wait()
                arrived.clear()
        except BaseException:
            call.unwatch(threading.get_ident())
            self._cancel(call)
            raise
        if arrived is not None:
            call.unwatch(threading.get_ident())

    def _soon(
        self, command: Callable[[float], None], done: Callable[[], bool] = lambda: True
    ) -> None:
        """Has `command` run and what it causes sent, without waiting for anything else.

        `done`: what this thread waits for all the same, if nobody else drives.
        """
        if not self._driver.sit_down(self._go_present):
            self._driver.post(command)
            return
        try:
            self._driver.post(command)
            self._driver.drive(done, looks=True)
        finally:
            self._driver.stand_up()

    def _cancel(self, call: PendingCall) -> None:
        """Leaves word that nobody waits any more; heard with the next command at the latest."""
        if not call.ended() and not self._driver.ended:
            with contextlib.suppress(LocalProtocolError):  # closed meanwhile: that cancels as well
                self._driver.post(lambda now: self._calls.cancel(call, now))

    def _cancel_soon(self, call: PendingCall) -> None:
        """The same for finalizers, and sent at once where that needs no waiting."""
        self._cancel(call)
        if not call.ended() and self._driver.sit_down_at_once():
            try:
                self._driver.drive(lambda: True)
            finally:
                self._driver.stand_up()

    def _go_present(self, now: float) -> None:
        if self._takes_presence:
            self._session.set_presence(now)

    def _seconds(self, timeout: float | None) -> float:
        return within(self.timeout if timeout is None else timeout)


def _arrange(call: PendingCall) -> threading.Event:
    """An event that is set with everything that comes for `call`.

    What has come before is not told.
    """
    event = threading.Event()
    call.watch(event.set, threading.get_ident())
    return event


class Stream(Iterator[Reply]):
    """The parts of one answer, in order; the FINAL is one more if it carries anything.

    For one thread at a time.
    """

    def __init__(self, client: Client, call: PendingCall) -> None:
        self._client = client
        self._call = call
        self._over = False
        client._soon(
            lambda now: client._calls.begin(call, now),
            lambda: call.ended() or client._session.has_left(call.id),
        )

    def __next__(self) -> Reply:
        call = self._call
        if self._over:
            raise StopIteration
        if not call.has_news():
            self._client._wait(call, call.has_news)
        if call.parts:
            frames, read = call.read_one()
            if read:
                self._client._soon(lambda now: self._client._calls.was_read(call, read))
            return Reply(frames)
        self._over = True
        last = final(call)
        if any(last.frames):
            return last
        raise StopIteration

    def close(self) -> None:
        """Cancels what has not come yet. May be repeated."""
        if not self._over:
            self._over = True
            if not self._call.ended() and not self._client._driver.ended:
                self._client._soon(lambda now: self._client._calls.cancel(self._call, now))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_over", True):
            self._over = True
            self._client._cancel_soon(self._call)


class _Answer(Future[Reply]):
    """The future of one call; the driver's thread fulfils it."""

    def __init__(self, client: Client, ask: CallOptions) -> None:
        super().__init__()
        self._client = client
        self.call = PendingCall(ask, self._fulfil)

    def cancel(self) -> bool:
        """Cancels the call as well, unless its answer is there already."""
        cancelled = super().cancel()
        if cancelled:
            self._client._cancel(self.call)
        return cancelled

    def _fulfil(self) -> None:
        if not self.call.ended() or not self.set_running_or_notify_cancel():
            return
        try:
            self.set_result(result(self.call))
        except Exception as error:
            self.set_exception(error)

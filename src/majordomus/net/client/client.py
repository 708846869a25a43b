"""The sync client.

The public methods only pack arguments. Calls run in call_runner.py, which waits in the calling
thread; their bookkeeping is in calls.py, the I/O in driver.py.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from majordomus.core.client.session import ClientSettings
from majordomus.net import endpoints
from majordomus.net.bodies import Body, Reply
from majordomus.net.client.base import BROKER_PROBE, DEFAULT_TIMEOUT, make_session
from majordomus.net.client.call_runner import CallRunner
from majordomus.net.client.calls import (
    CallOptions,
    ConversationCall,
    PendingCall,
    make_call,
    make_options,
    result,
)
from majordomus.net.client.conversation import Conversation
from majordomus.net.client.events import ClientEvents
from majordomus.net.client.gather import Gathering, Wait
from majordomus.net.client.hedge import hedged
from majordomus.net.client.streams import Stream
from majordomus.net.connection.credentials import Access
from majordomus.net.deadline import within
from majordomus.net.events import ThreadQueue
from majordomus.net.gate import SafeCondition
from majordomus.protocol.spec import Dialect
from majordomus.security.certificates import Certificate

logger = logging.getLogger("majordomus.client")


class Client(ClientEvents):
    """Calls services through a broker, or through the next of several when one is lost.

    Threads may share it. Nothing is connected before the first call. A client that was used before
    a fork belongs to the parent; one that was not may be used in the child.

    `timeout` is the seconds that a call gets if it has no timeout of its own. `dialect` is for
    brokers that support only an older one.

    `server_key` is the public key of an encrypted broker; the URL may carry it instead
    (`majordomus://host:port?key=…`). `certificate` is the key pair that identifies this client to
    an encrypted broker, or its file. `plain` is user and password, for a broker on this machine
    that asks for them. `login` is sent to the broker's auth service, user and password for
    instance: the client logs in before its first call, and renews its token by itself
    (docs/tokens.md).
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
        access = Access(broker, server_key, certificate, plain)
        # An inproc connection has no end that the socket reports. Only the broker can announce
        # that it leaves, and it does so to clients with presence.
        inproc = any(map(endpoints.is_inproc, access.urls))
        session = make_session(access.urls, dialect, settings, presence=inproc, login=login)
        super().__init__(access, session, timeout)
        self._runner = CallRunner(session, access)
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
        """Call `service` and wait for its answer; the parts of a streamed answer are joined.

        `timeout`: seconds for all of it. `fail_fast`: fail at once if no worker is there, instead
        of waiting for one. `once`: never execute the request twice, even when a connection is lost.
        `to`: the id of the one worker that is to answer. `hedge_after`: ask another worker as well
        after so many seconds without an answer; the first answer counts, and the other attempt is
        cancelled.

        Raises: a StatusError for every status but 200 (DeadlineExceeded among them); BrokerLost for
        a lost request with `once`.
        """
        seconds = within(self.timeout if timeout is None else timeout)
        call = make_call(service, body, seconds, fail_fast, once, to, metadata)
        if hedge_after is not None:
            return hedged(self._runner, call.options, hedge_after)
        self._runner.run(call)
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
        """Call every worker that serves `service` now, and iterate over the replies as they come.

        `wait`: "all", "first", or the number of replies wanted; the other calls are cancelled.
        `timeout`: seconds for all of it. `stall`: seconds without any reply after which the wait
        ends. With "all", a worker that fails is in `failures` of what is returned, and nothing is
        raised.

        Raises: Unavailable when there are fewer workers than wanted. With "first" or a number: the
        first failure after which the replies cannot suffice, or DeadlineExceeded.
        """
        options = self._options(service, body, timeout, False, once, b"", metadata)
        return Gathering(self._runner, options, wait, stall)

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
        """Call `service` and iterate over the parts of its answer as they come.

        `timeout` is for all of them. The request is sent now; if there is no connection yet, this
        waits for one. Closing the iterator, or dropping it, cancels what has not come yet.
        """
        options = self._options(service, body, timeout, fail_fast, once, to, metadata)
        return Stream(self._runner, PendingCall(options, reads=True))

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
        """Open a conversation with `service`: parts go both ways until both sides have finished.

        `timeout` is for all of it. Leaving its context cancels what has not ended.
        """
        options = self._options(service, body, timeout, fail_fast, once, to, metadata, more=True)
        return Conversation(self._runner, ConversationCall(options))

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
        """Call `service` and return at once. `cancel` of the future cancels at the broker too.

        Callbacks of the future run in the client's own thread and must not call, only submit.
        """
        options = self._options(service, body, timeout, fail_fast, once, to, metadata)
        future = _ReplyFuture(self._runner, options)
        self._runner.launch(future.call)
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
        """Send a one-way request: no reply comes. Returns when a broker's connection has taken it.

        Raises: DeadlineExceeded when there is no connection within `timeout`.
        """
        seconds = self._seconds(timeout)
        options = make_options(service, body, seconds, one_way=True, to=to, metadata=metadata)
        self._runner.call(options)

    def ping(self, *, timeout: float | None = None) -> float:
        """Measure the seconds that a call to the broker itself takes. Raises: as `call`."""
        began = time.perf_counter()
        self.call(BROKER_PROBE, BROKER_PROBE.encode(), timeout=timeout)
        return time.perf_counter() - began

    def serves(self, service: str, *, timeout: float | None = None) -> bool:
        """Return whether the broker has a live worker for `service`. Raises: as `call`."""
        return self.call(BROKER_PROBE, service, timeout=timeout).frames[:1] == [b"200"]

    def close(self) -> None:
        """Cancel what is open and close the connection; one-way requests are still sent.

        May be repeated.
        """
        self._runner.close()
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


class _ReplyFuture(Future[Reply]):
    """The future of one call; the client's background thread completes it."""

    def __init__(self, runner: CallRunner, options: CallOptions) -> None:
        super().__init__()
        self._condition = SafeCondition()
        self._runner = runner
        self.call = PendingCall(options, self._complete)

    def cancel(self) -> bool:
        """Cancel the future, and the call too, unless the answer is there already."""
        cancelled = super().cancel()
        if cancelled:
            self._runner.cancel(self.call)
        return cancelled

    def _complete(self) -> None:
        if not self.call.ended() or not self.set_running_or_notify_cancel():
            return
        try:
            reply = result(self.call)
        except Exception as error:
            self.set_exception(error)
        else:
            self.set_result(reply)

    def add_done_callback(self, fn: Callable[[Future[Reply]], object]) -> None:
        """As of every future. Whatever `fn` raises in the client's thread is logged there."""
        super().add_done_callback(partial(_run_callback, fn, threading.get_ident()))


def _run_callback(
    fn: Callable[[Future[Reply]], object], thread: int, future: Future[Reply]
) -> None:
    try:
        fn(future)
    except Exception:
        raise  # the future logs it
    except BaseException:
        if threading.get_ident() == thread:
            raise  # the call is done, and this is the thread that adds the callback
        logger.exception("a callback of a future failed")

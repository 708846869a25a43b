"""The sync client.

The public methods only pack arguments. Calls run in call_runner.py, which waits in the calling
thread; their bookkeeping is in calls.py, the I/O in driver.py.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from math import inf
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from majordomus.core.client.session import ClientSession, ClientSettings
from majordomus.errors import BadRequest, BrokerLost, DeadlineExceeded, StatusError
from majordomus.net import deadline, endpoints
from majordomus.net.bodies import Body, Reply
from majordomus.net.client.base import BROKER_PROBE, DEFAULT_TIMEOUT, make_session
from majordomus.net.client.call_runner import CallRunner, run_call
from majordomus.net.client.calls import (
    CallOptions,
    ConversationCall,
    PendingCall,
    make_call,
    make_options,
    result,
)
from majordomus.net.client.conversation import Conversation
from majordomus.net.client.durable import (
    DurableMethods,
    call_options,
    check_durable,
    durable_metadata,
)
from majordomus.net.client.events import ClientEvents
from majordomus.net.client.gather import Gathering, Wait
from majordomus.net.client.hedge import hedged
from majordomus.net.client.middleware import (
    ClientMiddleware,
    Open,
    OutgoingCall,
    PartsThrough,
    Send,
    chain,
    chain_parts,
    checked,
)
from majordomus.net.client.negotiation import (
    CONTRACT,
    CallPlan,
    ServiceTypes,
    Value,
    body_class,
    name_of,
)
from majordomus.net.client.proxy import make_proxy
from majordomus.net.client.streams import Stream
from majordomus.net.client.typed import TypedConversation, TypedStream, decode_reply
from majordomus.net.connection.credentials import Access
from majordomus.net.deadline import HANDLING, LEAST, within
from majordomus.net.events import ThreadQueue
from majordomus.net.gate import SafeCondition
from majordomus.protocol.spec import Dialect
from majordomus.security.certificates import Certificate

logger = logging.getLogger("majordomus.client")


T = TypeVar("T")


class Client(ClientEvents, DurableMethods):
    """Calls services through a broker, or through the next of several when one is lost.

    Threads may share it. Nothing is connected before the first call. A client that was used before
    a fork belongs to the parent; one that was not may be used in the child.

    `broker` is one endpoint or several. Without it, the variables MAJORDOMUS_BROKER,
    MAJORDOMUS_SERVER_KEY and MAJORDOMUS_KEY have what is not given, as in the command `majordomus`;
    else it is tcp://127.0.0.1:5555. `timeout` is the seconds that a call gets if it has no timeout
    of its own. `dialect` is for brokers that support only an older one.

    `server_key` is the public key of an encrypted broker; the URL may carry it instead
    (`majordomus://host:port?key=…`). `certificate` is the key pair that identifies this client to
    an encrypted broker, or its file. `plain` is user and password, for a broker on this machine
    that asks for them. `login` is sent to the broker's auth service, user and password for
    instance: the client logs in before its first call, and renews its token by itself
    (docs/tokens.md). `require_encryption` refuses a TCP endpoint without a key; the variable
    MAJORDOMUS_REQUIRE_ENCRYPTION sets it everywhere.

    Of several brokers each client has an order of its own, so that clients spread over them; with
    `spread=False` it is the order in which they are given. A client that had to leave the first
    broker of its order returns when that is back (docs/many.md).
    """

    def __init__(
        self,
        broker: str | Sequence[str] | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        dialect: str = Dialect.MDP03,
        settings: ClientSettings | None = None,
        server_key: str = "",
        certificate: Certificate | str | Path | None = None,
        plain: tuple[str, str] | None = None,
        login: Sequence[str | bytes] | None = None,
        require_encryption: bool = False,
        spread: bool = True,
    ) -> None:
        access = Access(broker, server_key, certificate, plain, require_encryption)
        # An inproc connection has no end that the socket reports. Only the broker can announce
        # that it leaves, and it does so to clients with presence.
        inproc = any(map(endpoints.is_inproc, access.urls))

        def make() -> tuple[ClientSession, CallRunner, ThreadQueue]:
            session = make_session(
                access.urls, dialect, settings, presence=inproc, spread=spread, login=login
            )
            return session, CallRunner(session, access), ThreadQueue()

        super().__init__(access, timeout, make)

    @overload
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
        durable: bool = False,
        key: str | bytes | None = None,
        expires: float | None = None,
        keep: float | None = None,
        returns: None = None,
    ) -> Reply: ...
    @overload
    def call(
        self,
        service: str | bytes,
        body: Body | Value = None,
        *,
        timeout: float | None = None,
        fail_fast: bool = False,
        once: bool = False,
        to: bytes = b"",
        metadata: Mapping[str, Any] | None = None,
        hedge_after: float | None = None,
        durable: bool = False,
        key: str | bytes | None = None,
        expires: float | None = None,
        keep: float | None = None,
        returns: type[T],
    ) -> T: ...
    def call(
        self,
        service: str | bytes,
        body: Any = None,
        *,
        timeout: float | None = None,
        fail_fast: bool = False,
        once: bool = False,
        to: bytes = b"",
        metadata: Mapping[str, Any] | None = None,
        hedge_after: float | None = None,
        durable: bool = False,
        key: str | bytes | None = None,
        expires: float | None = None,
        keep: float | None = None,
        returns: Any = None,
    ) -> Any:
        """Call `service` and wait for its answer; the parts of a streamed answer are joined.

        `timeout`: seconds for all of it. `fail_fast`: fail at once if no worker is there, instead
        of waiting for one. `once`: never execute the request twice, even when a connection is lost.
        `to`: the id of the one worker that is to answer. `hedge_after`: ask another worker as well
        after so many seconds without an answer; the first answer counts, and the other attempt is
        cancelled. `returns`: the type of the reply; the value is returned instead of a Reply,
        and the body may be a number or a dict too.

        `durable`: the broker stores the request before it runs, and its outcome before it is
        returned; `timeout` then bounds the waiting alone. `key`: the same key, service and body are
        the same request, with the same outcome. `expires`, `keep`: seconds until it ends without an
        outcome, and that its outcome is kept.

        Raises: a StatusError for every status but 200 (DeadlineExceeded among them); BrokerLost for
        a lost request with `once`, and for a durable one without a key.
        """
        if returns is not None:
            options: dict[str, Any] = {
                "fail_fast": fail_fast,
                "once": once,
                "to": to,
                "hedge_after": hedge_after,
                "durable": durable,
                "key": key,
                "expires": expires,
                "keep": keep,
            }
            return self._call_typed(service, body, timeout, metadata, returns, options)
        seconds = self.timeout if timeout is None else timeout
        if deadline.value(HANDLING) is not inf:
            seconds, metadata = within(seconds), self._inherited(metadata)
        if durable or key is not None:
            metadata = durable_metadata(metadata, key, expires, keep)
        if durable:
            check_durable(once=once, to=to, hedge_after=hedge_after)
            stored = call_options(service, body, seconds, metadata, fail_fast=fail_fast)
            return self._runner.call(stored)
        call = make_call(service, body, seconds, fail_fast, once, to, metadata)
        if hedge_after is not None:
            return hedged(self._runner, call.options, hedge_after)
        run_call(self._runner, call)
        return result(call)

    def _call_typed(
        self,
        service: str | bytes,
        body: Any,
        timeout: float | None,
        metadata: Mapping[str, Any] | None,
        returns: Any,
        options: dict[str, Any],
    ) -> Any:
        """Make a call whose reply is a value. Raises: as `call`; BadRequest for a reply that does
        not fit."""
        plan, timeout = self._plan(service, body_class(body), returns, timeout)
        try:
            body, metadata = plan.request(body, metadata)
            reply = self._reply(service, body, timeout, metadata, options)
            return decode_reply(reply, returns, plan)
        except BadRequest:
            self._forget(service)
            raise

    def _reply(
        self,
        service: str | bytes,
        body: Body,
        timeout: float | None,
        metadata: Mapping[str, Any] | None,
        options: dict[str, Any],
    ) -> Reply:
        """Make a call whose reply is a Reply."""
        reply: Reply = Client.call(
            self, service, body, timeout=timeout, metadata=metadata, **options
        )
        return reply

    def _plan(
        self, service: str | bytes, takes: Any, returns: Any, timeout: float | None
    ) -> tuple[CallPlan, float | None]:
        """Choose the encodings of a call, by the contract of its service. Return them, and what is
        left of the timeout.

        Raises: BadRequest when the client and the service have none in common.
        """
        encodings, key = self._encodings, (service, takes, returns)
        plan = encodings.plans.get(key)
        if plan is not None:
            return plan, timeout
        name = name_of(service)
        known = encodings.known(name)
        if known is None and self._asks_contracts:
            seconds, began = self._seconds(timeout), time.monotonic()
            known = self._ask_contract(name, seconds)
            timeout = max(LEAST, seconds - (time.monotonic() - began))
        return encodings.plan(name, known, takes, returns, key), timeout

    def _ask_contract(self, service: str, timeout: float) -> ServiceTypes | None:
        try:
            reply: Reply = Client.call(self, CONTRACT, service, timeout=timeout)
        except DeadlineExceeded:  # no broker is there
            raise
        except (StatusError, BrokerLost):
            return None
        return self._encodings.note(service, reply.frames)

    def using(self, *middleware: ClientMiddleware) -> Client:
        """Return a client with middleware around its calls; it shares this one's connection.

        Raises: ConfigurationError for an object that is no `ClientMiddleware`.
        """
        made = _UsingClient.__new__(_UsingClient)
        made.__dict__.update(self.__dict__)
        self._family.add(made)
        made._send = chain(checked(middleware), self._send_call)
        made._opening = chain_parts(middleware, self._open_stream)
        return made

    def _send_call(self, call: OutgoingCall) -> Reply:
        reply: Reply = self.call(
            call.service,
            call.body,
            timeout=call.timeout,
            metadata=call.metadata or None,
            **call.options,
        )
        return reply

    def _open_stream(self, call: OutgoingCall) -> Iterator[Reply]:
        stream: Iterator[Reply] = self.stream(
            call.service,
            call.body,
            timeout=call.timeout,
            metadata=call.metadata or None,
            **call.options,
        )
        return stream

    def service(self, protocol: Callable[..., T], *, prefix: str | None = None) -> T:
        """Return an object with the methods of a Protocol, each of which calls a service.

        A method `put` of `class Notes(Protocol)` calls `notes.put`; `prefix` replaces `notes.`.
        Methods are made with `def`; those that return an Iterator read a streamed reply.
        The body is checked by its annotation before it is sent (docs/contracts.md).

        Raises: ConfigurationError for a class whose methods cannot be calls.
        """
        made: T = make_proxy(self, protocol, prefix, waits=False)
        return made

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

    @overload
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
        of: None = None,
    ) -> Stream: ...
    @overload
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
        of: type[T],
    ) -> TypedStream[T]: ...
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
        of: Any = None,
    ) -> Any:
        """Call `service` and iterate over the parts of its answer as they come.

        `timeout` is for all of them. The request is sent now; if there is no connection yet, this
        waits for one. Closing the iterator, or dropping it, cancels what has not come yet.
        """
        options = self._options(service, body, timeout, fail_fast, once, to, metadata)
        stream = Stream(self._runner, PendingCall(options, reads=True))
        return stream if of is None else TypedStream(stream, of)

    @overload
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
        of: None = None,
    ) -> Conversation: ...
    @overload
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
        of: type[T],
    ) -> TypedConversation[T]: ...
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
        of: Any = None,
    ) -> Any:
        """Open a conversation with `service`: parts go both ways until both sides have finished.

        `timeout` is for all of it. Leaving its context cancels what has not ended.
        """
        options = self._options(service, body, timeout, fail_fast, once, to, metadata, more=True)
        made = Conversation(self._runner, ConversationCall(options))
        return made if of is None else TypedConversation(made, of)

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

    @property
    def _used(self) -> bool:
        return self._runner.driver.used

    def _redirected(self) -> None:
        self._runner.driver.redirected()

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


class _UsingClient(Client):
    """A client with middleware."""

    _send: Send
    _opening: Open

    def call(
        self,
        service: str | bytes,
        body: Any = None,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        returns: Any = None,
        **options: Any,
    ) -> Any:
        if returns is None:
            return self._reply(service, body, timeout, metadata, options)
        return self._call_typed(service, body, timeout, metadata, returns, options)

    def _reply(
        self,
        service: str | bytes,
        body: Body,
        timeout: float | None,
        metadata: Mapping[str, Any] | None,
        options: dict[str, Any],
    ) -> Reply:
        return self._send(OutgoingCall(service, body, timeout, dict(metadata or {}), options))

    def stream(
        self,
        service: str | bytes,
        body: Body = None,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        of: Any = None,
        **options: Any,
    ) -> Any:
        call = OutgoingCall(service, body, timeout, dict(metadata or {}), options)
        stream = PartsThrough(self._opening(call))
        return stream if of is None else TypedStream(stream, of)

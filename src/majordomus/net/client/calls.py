"""The calls of one client: what goes into its session, and what the session's events mean to who
waits.

Client and AsyncClient share all of this; they differ in how they wait. One thread at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeAlias
from typing import Final as Constant

from majordomus.core.client.calls import Final, Lost, Part
from majordomus.core.client.session import (
    CallCredit,
    ClientEvent,
    ClientSession,
    EventReceived,
    SubscriptionRefused,
)
from majordomus.core.session.events import check_name
from majordomus.core.session.settings import CREDIT_STEP
from majordomus.errors import (
    BrokerLost,
    Cancelled,
    ConfigurationError,
    DeadlineExceeded,
    LocalProtocolError,
    Unauthenticated,
    error_for,
)
from majordomus.messages.bodies import typed_body
from majordomus.net.bodies import Body, Reply, to_frames
from majordomus.net.connection.credentials import Refusal
from majordomus.net.events import Hub
from majordomus.protocol import metadata as packing
from majordomus.protocol import spec
from majordomus.protocol.spec import Dialect

if TYPE_CHECKING:
    from asyncio import Future

    from majordomus.net.connection.async_link import AsyncLine

Outcome: TypeAlias = Final | Lost | Exception

_EVENT: Constant = spec.EVENT
_REQUEST: Constant = spec.REQUEST
_ONE_WAY: Constant = spec.ONE_WAY
_OK: Constant = spec.OK
_TOO_LATE: Constant = spec.DEADLINE_EXCEEDED
_LEAST: Constant = 0.001
_new: Constant = Reply.__new__
_NO_PARTS: Constant[deque[list[bytes]]] = deque(maxlen=0)
"""Stands for the parts of a call that none have come for."""

NOT_SENT = b"the connection took nothing before the deadline"


class CallOptions:
    """What one call asks for, checked and packed."""

    __slots__ = ("command", "flags", "frames", "implied", "metadata", "service", "timeout", "to")

    service: bytes
    frames: list[bytes]
    timeout: float
    flags: int
    to: bytes
    metadata: bytes
    implied: bytes  # metadata that nobody asked for: left out where a dialect has none
    command: int

    def but(self, **changes: Any) -> CallOptions:
        """The same with `changes`."""
        other = CallOptions.__new__(CallOptions)
        for name in CallOptions.__slots__:
            setattr(other, name, changes.get(name, getattr(self, name)))
        return other


def make_ask(
    service: str | bytes,
    body: Body,
    timeout: float,
    *,
    fail_fast: bool = False,
    once: bool = False,
    one_way: bool = False,
    more: bool = False,
    to: bytes = b"",
    metadata: Mapping[str, Any] | None = None,
) -> CallOptions:
    """Raises:

    LocalProtocolError for a body, name or metadata that cannot be sent, ConfigurationError for a
    timeout.
    """
    flags = spec.FAIL_FAST if fail_fast else 0
    flags |= spec.ONCE if once else 0
    flags |= spec.ONE_WAY if one_way else 0
    flags |= spec.MORE if more else 0
    return pack_ask(service, body, timeout, flags, to, metadata)


def pack_ask(
    service: str | bytes,
    body: Body,
    timeout: float,
    flags: int,
    to: bytes,
    metadata: Mapping[str, Any] | None,
) -> CallOptions:
    """`make_ask`, with its flags as they are sent, by position."""
    if not timeout > 0:
        raise ConfigurationError(f"a timeout is more than 0 seconds, not {timeout}")
    name = service.encode() if isinstance(service, str) else bytes(service)
    if not 0 < len(name) <= spec.MAX_NAME:
        raise LocalProtocolError(
            "bad-name", f"a service's name has 1 to {spec.MAX_NAME} bytes, not {len(name)}"
        )
    ask = CallOptions.__new__(CallOptions)
    ask.service = name
    ask.timeout = timeout
    ask.flags = flags
    ask.to = to
    ask.metadata = ask.implied = b""
    ask.command = _REQUEST
    if metadata is None and isinstance(body, bytes):
        ask.frames = [body]
        return ask
    typed = typed_body(body)
    if typed is None:
        ask.frames = to_frames(body)
        if metadata:
            ask.metadata = packing.pack(metadata)
    else:
        ask.frames = typed.frames
        ask.implied = packing.pack({"type": typed.type, **(metadata or {})})
        if metadata:
            ask.metadata = ask.implied
    return ask


def make_publication(
    topic: bytes, body: Body, timeout: float, metadata: Mapping[str, Any] | None
) -> CallOptions:
    """An event to be published. Raises: as `make_ask`."""
    check_name(topic, pattern=False)
    ask = make_ask(topic, body, timeout, one_way=True, metadata=metadata)
    ask.command = spec.EVENT
    return ask


def make_call(
    service: str | bytes,
    body: Body,
    timeout: float,
    fail_fast: bool,
    once: bool,
    to: bytes,
    metadata: Mapping[str, Any] | None,
) -> PendingCall:
    """A call that has one reply. Raises: as `make_ask`."""
    flags = 0
    if fail_fast or once:
        flags = (spec.FAIL_FAST if fail_fast else 0) | (spec.ONCE if once else 0)
    call = PendingCall.__new__(PendingCall)
    call.prepare(pack_ask(service, body, timeout, flags, to, metadata), None, False)
    return call


class PendingCall:
    """One call as its caller sees it.

    `notify` is called, by whoever drives the session, when something has come.
    """

    __slots__ = ("ask", "began", "id", "notify", "outcome", "parts", "reads", "unsaid", "waiter")

    def __init__(
        self, ask: CallOptions, notify: Callable[[], object] | None = None, *, reads: bool = False
    ) -> None:
        self.prepare(ask, notify, reads)

    def prepare(self, ask: CallOptions, notify: Callable[[], object] | None, reads: bool) -> None:
        """Fill in what a new call is."""
        self.ask = ask
        self.reads = reads
        """Whether parts are read one by one; if not, they are taken as they come, and joined."""
        self.unsaid = 0
        self.began = monotonic()
        self.id = 0
        self.parts = _NO_PARTS
        self.outcome: Outcome | None = None
        self.notify = notify
        self.waiter: Future[None] | None = None
        """Set with the next thing that comes, and let go of: an asyncio caller's way to wait."""

    def ended(self) -> bool:
        """Whether the outcome is there; parts may still be to be taken."""
        return self.outcome is not None

    def has_news(self) -> bool:
        """Whether a part or the outcome is there."""
        return bool(self.parts) or self.outcome is not None

    def read_one(self) -> tuple[list[bytes], int]:
        """Take a part. And how many were read that the session is to be told of now, if any: see
        `Calls.was_read`."""
        frames = self.parts.popleft()
        self.unsaid += 1
        if self.unsaid < CREDIT_STEP or self.ended():
            return frames, 0
        unsaid, self.unsaid = self.unsaid, 0
        return frames, unsaid

    def watch(self, notify: Callable[[], object], who: int) -> None:
        """`notify` is called by `tell` from now on. `who` waits for it."""
        self.notify = notify

    def unwatch(self, who: int) -> None:
        """`who` waits no more."""

    def wait_on(self, waiter: Future[None] | None) -> None:
        """`waiter` is set with the next thing that comes; None: nobody waits any more."""
        self.waiter = waiter

    def end(self, outcome: Outcome) -> None:
        """The first outcome counts."""
        if self.outcome is None:
            self.outcome = outcome
            self.tell()

    def tell(self) -> None:
        """Sets `waiter`, calls `notify`."""
        waiter = self.waiter
        if waiter is not None:
            self.waiter = None
            if not waiter.done():
                waiter.set_result(None)
        if self.notify is not None:
            self.notify()


class ConversationCall(PendingCall):
    """A call with a stream of the client's own. A reader and a sender may wait for it at once.

    ``sends``: parts that wait for credit. ``last``: the body of our end, behind them.
    """

    __slots__ = ("_waiters", "_watchers", "last", "sends")

    def __init__(self, ask: CallOptions) -> None:
        super().__init__(ask, reads=True)
        self.sends: deque[list[bytes]] = deque()
        self.last: list[bytes] | None = None
        self._watchers: dict[int, Callable[[], object]] = {}
        self._waiters: list[Future[None]] = []

    def watch(self, notify: Callable[[], object], who: int) -> None:
        self._watchers[who] = notify

    def unwatch(self, who: int) -> None:
        self._watchers.pop(who, None)

    def wait_on(self, waiter: Future[None] | None) -> None:
        if waiter is not None:
            self._waiters.append(waiter)

    def tell(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        for notify in list(self._watchers.values()):
            notify()


class PendingCalls:
    """The open calls over one session, by the session's number for them."""

    def __init__(
        self,
        session: ClientSession,
        urls: Sequence[str],
        up: Callable[[], bool],
        refusal: Callable[[], Refusal | None] = lambda: None,
    ) -> None:
        self.session = session
        self._urls = urls
        self._up, self._refusal = up, refusal
        self._speaks_new = session.settings.dialect is Dialect.MDP03
        self._open: dict[int, PendingCall] = {}
        self._fault: Exception | None = None
        self._leaving: list[PendingCall] = []  # one-way, not yet handed to the socket
        self._told = 0  # calls that had their answer in the last batch of events with any
        self.hub = Hub()
        """Who hears the events that come."""

    def begin(self, call: PendingCall, now: float, restart: bool = True) -> None:
        """Gives the call to the session. What the session refuses is the call's outcome.

        `restart` False: it is sent once, whatever becomes of it.
        """
        ask = call.ask
        if self._fault is not None:
            call.end(self._fault)
            return
        left = call.began + ask.timeout - now
        if left < _LEAST:
            left = _LEAST
        metadata = ask.metadata
        if ask.implied and not metadata and self._speaks_new:
            metadata = ask.implied
        try:
            if ask.command == _EVENT:
                self._publish(call, now, left, metadata)
                return
            call.id = self.session.ask(
                ask.service, ask.frames, now, left, ask.flags, ask.to, metadata, restart
            )
        except Exception as error:
            call.end(error)
            return
        if ask.flags & _ONE_WAY:
            self._leaving.append(call)
        else:
            self._open[call.id] = call

    def launch(self, call: PendingCall, line: AsyncLine[ClientEvent]) -> Future[None] | None:
        """Begins a call on a loop; what it waits on, None where its outcome is there already.

        It leaves at once if it is the only one: where the last batch of answers woke nobody else
        and no other call is open, no other is likely to come in this turn of the loop.
        """
        self.begin(call, call.began)
        if len(self._open) == 1 and self._told <= 1:
            line.send()
        else:
            line.touch()
        if call.outcome is not None:
            return None
        call.waiter = waiter = line.loop.create_future()
        return waiter

    def _publish(self, call: PendingCall, now: float, ttl: float, metadata: bytes) -> None:
        ask = call.ask
        call.id = self.session.publish(ask.service, ask.frames, now, ttl=ttl, metadata=metadata)
        self._leaving.append(call)

    def cancel(self, call: PendingCall, now: float) -> None:
        """Nobody waits for it any more. May be repeated, also for one that has ended."""
        if call.id and not call.ended():
            self.session.cancel(call.id, now)

    def was_read(self, call: PendingCall, parts: int) -> None:
        """The parts that were read of `call` make room for others."""
        if not call.ended():
            self.session.streams.was_read(call.id, parts)

    def push(self, call: ConversationCall) -> None:
        """Hand over what `call` has to send, as far as there is credit."""
        streams, sends = self.session.streams, call.sends
        before = len(sends)
        while sends and not call.ended() and streams.room(call.id):
            streams.part(call.id, sends.popleft())
        if len(sends) < before:
            call.tell()
        if call.last is not None and not sends and not call.ended():
            streams.finish(call.id, call.last)
            call.last = None

    def close(self, now: float) -> None:
        """Ends the session and with it every call, also what was to leave one-way and has not."""
        leaving, self._leaving = self._leaving, []
        self.session.close(now)
        for call in leaving:
            call.end(Cancelled("the client was closed before this could leave"))
        self.hub.close()

    def take(self, events: Sequence[ClientEvent]) -> None:
        """Hands the session's events to the calls that they belong to.

        To be called after every flush.
        """
        refusal = self._refusal()
        if refusal is not None and refusal.final and len(self._urls) == 1:
            self._end_refused(refusal)
        if self._leaving:
            self._look_after_leaving(monotonic())
        if events:
            self._told = len(events)
        for event in events:
            if isinstance(event, Final):
                self._answered(event)
            else:
                self._on_the_way(event)

    def _answered(self, event: Final) -> None:
        ended = self._open.pop(event.call, None)
        if ended is not None:
            ended.end(self._named(event, ended) if event.status == _TOO_LATE else event)

    def _on_the_way(
        self, event: Lost | Part | CallCredit | EventReceived | SubscriptionRefused
    ) -> None:
        """Everything but an answer."""
        if isinstance(event, Lost):
            ended = self._open.pop(event.call, None)
            if ended is not None:
                ended.end(event)
        elif isinstance(event, Part):
            call = self._open.get(event.call)
            if call is None:
                return
            if call.parts is _NO_PARTS:
                call.parts = deque()
            call.parts.append(event.frames)
            if call.reads:
                call.tell()
            else:
                self.session.streams.was_read(call.id, 1)
        elif isinstance(event, CallCredit):
            sender = self._open.get(event.call)
            if isinstance(sender, ConversationCall):
                self.push(sender)
                sender.tell()
        else:
            self.hub.put(event)

    def _look_after_leaving(self, now: float) -> None:
        """The session has no event for what leaves one-way: it forgets it, sent or too late."""
        leaving, self._leaving = self._leaving, []
        for call in leaving:
            if not self.session.has_left(call.id):
                self._leaving.append(call)
            elif now < call.began + call.ask.timeout:
                call.end(Final(call.id, spec.OK, [], b""))
            else:
                call.end(self._named(Final(call.id, spec.DEADLINE_EXCEEDED, [NOT_SENT], b""), call))

    def _end_refused(self, refusal: Refusal) -> None:
        """The only broker does not let us in: what was open then need not wait for its deadline."""
        for call in [*self._open.values(), *self._leaving]:
            if call.began <= refusal.at:
                self.cancel(call, refusal.at)
                call.end(Unauthenticated(refusal.text))

    def fail(self, error: Exception) -> None:
        """Whatever drives the session has broken: all calls end with `error`, later ones too."""
        self._fault = error
        calls, self._open, self._leaving = [*self._open.values(), *self._leaving], {}, []
        for call in calls:
            call.end(error)
        self.hub.close(error)

    def _named(self, event: Final, call: PendingCall) -> Outcome:
        """A deadline that passed without any broker says which ones were tried."""
        if self._up():
            return event
        tried = ", ".join(self._urls)
        refusal = self._refusal()
        why = f": {refusal.text}" if refusal is not None else ""
        return DeadlineExceeded(
            f"no broker was reachable within {call.ask.timeout:g} s at {tried}{why}"
        )


def result(call: PendingCall) -> Reply:
    """The reply of a call that has ended; parts of a stream that were not taken come first, joined.

    Raises: a StatusError for every status but 200, BrokerLost.
    """
    if not call.parts:
        return final(call)
    last = final(call)
    frames = [frame for part in call.parts for frame in part]
    return Reply(frames + (last.frames if any(last.frames) else []), last.status, last.worker)


def final(call: PendingCall) -> Reply:
    """The FINAL alone. Raises: as `result`."""
    outcome = call.outcome
    if isinstance(outcome, Final):
        return _reply(outcome)
    if isinstance(outcome, Exception):
        raise outcome
    service = call.ask.service.decode("utf-8", "backslashreplace")
    raise BrokerLost(
        f"the broker was lost while {service} was called, and the call may not be sent again"
    )


def _reply(outcome: Final) -> Reply:
    if outcome.status != _OK:
        raise error_for(outcome.status, outcome.frames)
    reply = _new(Reply)
    reply.frames = outcome.frames
    reply.status = _OK
    reply.worker = outcome.worker
    return reply


def closed() -> LocalProtocolError:
    """For who uses a client after its `close`."""
    return LocalProtocolError("closed", "this client is closed")

"""The calls of one client: packs their options, gives them to the session, and turns the session's
events into their outcomes.

Client and AsyncClient share this module and differ only in how they wait. Nothing here waits. One
thread at a time may use the objects of one client. The types are in calls.pxd.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeAlias
from typing import Final as Constant

from majordomus.core.client.calls import Final, FinalWithMetadata, Lost, Part
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
from majordomus.net.bodies import Body, Reply, checked, reply_with, to_frames
from majordomus.net.client.waiter import Waiter, Wakeups
from majordomus.net.connection.credentials import Refusal
from majordomus.net.events import Hub
from majordomus.protocol import metadata as packing
from majordomus.protocol import spec
from majordomus.protocol.spec import Dialect

if TYPE_CHECKING:
    from asyncio import Future

    from majordomus.net.connection.async_link import AsyncSessionConnection

Outcome: TypeAlias = Final | Lost | Exception

_EVENT: Constant = spec.EVENT
_REQUEST: Constant = spec.REQUEST
_ONE_WAY: Constant = spec.ONE_WAY
_DURABLE: Constant = spec.DURABLE
_OK: Constant = spec.OK
_TOO_LATE: Constant = spec.DEADLINE_EXCEEDED
_LEAST: Constant = 0.001
_NO_PARTS: Constant[deque[Part]] = deque(maxlen=0)
"""The `parts` of every call that has received no part yet: most calls never need a deque."""
_MOST_NAMES: Constant = 1024
_TOGETHER: Constant = 16
"""Calls that are sent without waiting for the end of the turn, so that the broker and the workers
begin while this client makes the next ones; an eighth of the open calls, if that is more."""
_BUSY: Constant = 512
"""Open calls beyond which that gains nothing: the broker and the workers are busy anyway."""
_names: dict[str, bytes] = {}
"""The bytes of the names that were called last. As the same object, they have their hash."""

NOT_SENT = b"the connection took nothing before the deadline"


class CallOptions:
    """The options of one call, checked and packed.

    service: the name of the service; the topic of a publication.
    frames: the body.
    timeout: seconds from the start of the call.
    flags: the flags of the REQUEST header (protocol/spec.py).
    to: the id of the one worker that is to answer; empty for any worker.
    metadata: the packed metadata that the caller gave; empty for none.
    implied: the packed metadata that a typed body adds. It is left out, without an error, in a
        dialect that has no metadata.
    command: the command that is sent: REQUEST, or EVENT for a publication.
    """

    __slots__ = ("command", "flags", "frames", "implied", "metadata", "service", "timeout", "to")

    service: bytes
    frames: list[bytes]
    timeout: float
    flags: int
    to: bytes
    metadata: bytes
    implied: bytes
    command: int

    def replace(self, **changes: Any) -> CallOptions:
        """Return a copy with `changes` to its fields."""
        other = CallOptions.__new__(CallOptions)
        for name in CallOptions.__slots__:
            setattr(other, name, changes.get(name, getattr(self, name)))
        return other


def make_options(
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
    """Check and pack the options of a call.

    Raises: LocalProtocolError for a body, name or metadata that cannot be sent; ConfigurationError
    for a timeout that is not more than 0.
    """
    flags = spec.FAIL_FAST if fail_fast else 0
    flags |= spec.ONCE if once else 0
    flags |= spec.ONE_WAY if one_way else 0
    flags |= spec.MORE if more else 0
    return pack_options(service, body, timeout, flags, to, metadata)


def _checked_name(service: str | bytes) -> bytes:
    """The name of a service as it is sent. Raises: as `make_options`."""
    name = service.encode() if isinstance(service, str) else _name_of(service)
    if not 0 < len(name) <= spec.MAX_NAME:
        raise LocalProtocolError(
            "bad-name", f"the name of a service has 1 to {spec.MAX_NAME} bytes, not {len(name)}"
        )
    if type(service) is str:
        if len(_names) >= _MOST_NAMES:
            _names.clear()
        _names[service] = name
    return name


def _name_of(service: object) -> bytes:
    """The name of a service that is no text. Raises: ConfigurationError."""
    if isinstance(service, (bytes, bytearray, memoryview)):
        return bytes(service)
    kind = type(service).__name__
    raise ConfigurationError(f"the name of a service is text or bytes, not {kind}")


def pack_options(
    service: str | bytes,
    body: Body,
    timeout: float,
    flags: int,
    to: bytes,
    metadata: Mapping[str, Any] | None,
) -> CallOptions:
    """Do the work of `make_options`, with flags as in the header and every argument positional."""
    if not timeout > 0:
        raise ConfigurationError(f"a timeout must be more than 0 seconds, not {timeout}")
    name = _names.get(service) if type(service) is str else None
    if name is None:
        name = _checked_name(service)
    options = CallOptions.__new__(CallOptions)
    options.service = name
    options.timeout = timeout
    options.flags = flags
    options.to = to
    options.metadata = options.implied = b""
    options.command = _REQUEST
    if metadata is None and isinstance(body, bytes):
        options.frames = [body]
        return options
    typed = typed_body(body)
    if typed is None:
        options.frames = to_frames(body)
        if metadata:
            options.metadata = packing.pack(metadata)
    else:
        options.frames = checked(typed.frames)
        options.implied = (
            packing.pack({"type": typed.type, **metadata}) if metadata else _packed(typed.type)
        )
        if metadata:
            options.metadata = options.implied
    return options


@lru_cache(maxsize=64)
def _packed(type: str) -> bytes:
    """Pack the metadata that state the encoding of a body."""
    return packing.pack({"type": type})


def make_publication(
    topic: bytes, body: Body, timeout: float, metadata: Mapping[str, Any] | None
) -> CallOptions:
    """Pack an event that is to be published. Raises: as `make_options`."""
    check_name(topic, pattern=False)
    options = make_options(topic, body, timeout, one_way=True, metadata=metadata)
    options.command = spec.EVENT
    return options


def make_call(
    service: str | bytes,
    body: Body,
    timeout: float,
    fail_fast: bool,
    once: bool,
    to: bytes,
    metadata: Mapping[str, Any] | None,
) -> PendingCall:
    """Make a call whose parts are joined to one reply. Raises: as `make_options`."""
    flags = 0
    if fail_fast or once:
        flags = (spec.FAIL_FAST if fail_fast else 0) | (spec.ONCE if once else 0)
    call = PendingCall.__new__(PendingCall)
    call.prepare(pack_options(service, body, timeout, flags, to, metadata), None, False)
    return call


class PendingCall:
    """One call as its caller sees it.

    options: what was asked.
    began: when the call was made, in monotonic seconds; its timeout counts from here.
    id: the session's number of the call; 0 before the session has it.
    reads: True if the caller reads the parts one by one. If False, parts get credit as they come,
        and `result` joins them.
    parts: the parts that came and were not read.
    unreported: parts that were read and not yet reported to the session.
    outcome: the FINAL, the loss or the error that ended the call; None before the end.
    notify: called after each part and after the end, by the thread that drives the session.
    waiter: a future that is completed once by the same changes, for asyncio callers.
    awaited: the same, of a caller that waits for the end alone.
    """

    __slots__ = (
        "awaited",
        "began",
        "id",
        "notify",
        "options",
        "outcome",
        "parts",
        "reads",
        "unreported",
        "waiter",
    )

    def __init__(
        self,
        options: CallOptions,
        notify: Callable[[], object] | None = None,
        *,
        reads: bool = False,
    ) -> None:
        self.prepare(options, notify, reads)

    def prepare(
        self, options: CallOptions, notify: Callable[[], object] | None, reads: bool
    ) -> None:
        """Set every field of a new call. Separate from `__init__` because a positional call of a
        compiled method is cheaper."""
        self.options = options
        self.reads = reads
        self.unreported = 0
        self.began = monotonic()
        self.id = 0
        self.parts = _NO_PARTS
        self.outcome: Outcome | None = None
        self.notify = notify
        self.waiter: Future[None] | None = None
        self.awaited: Waiter | None = None

    def ended(self) -> bool:
        """Return whether the call has its outcome. Unread parts may remain."""
        return self.outcome is not None

    def is_readable(self) -> bool:
        """Return whether a part or the outcome can be read."""
        return bool(self.parts) or self.outcome is not None

    def read_one(self) -> tuple[Reply, int]:
        """Take one part.

        Returns it, and the number of read parts that must be reported now by
        `PendingCalls.was_read`: 0 until STEP parts have been read, and after the end.
        """
        part = self.parts.popleft()
        reply = reply_with(part.frames, part.metadata)
        self.unreported += 1
        if self.unreported < CREDIT_STEP or self.ended():
            return reply, 0
        unreported, self.unreported = self.unreported, 0
        return reply, unreported

    def watch(self, notify: Callable[[], object], watcher: int) -> None:
        """Call `notify` after each change from now on. `watcher` names the waiting thread."""
        self.notify = notify

    def unwatch(self, watcher: int) -> None:
        """Do not notify `watcher` any more. A call with one watcher may still notify it."""

    def wait_on(self, waiter: Future[None] | None) -> None:
        """Complete `waiter` with the next change. None removes every waiter."""
        self.waiter = waiter
        self.awaited = None

    def end(self, outcome: Outcome) -> None:
        """Set the outcome. Only the first one counts."""
        if self.outcome is None:
            self.outcome = outcome
            self.wake()

    def wake(self) -> None:
        """Complete the waiter and call `notify`."""
        awaited = self.awaited
        if awaited is not None:
            self.awaited = None
            awaited.complete()
        waiter = self.waiter
        if waiter is not None:
            self.waiter = None
            if not waiter.done():
                waiter.set_result(None)
        if self.notify is not None:
            self.notify()


class ConversationCall(PendingCall):
    """A call whose client sends a stream too. A reader and a sender may wait for it at once.

    sends: parts that wait for credit.
    last: the body of the FINAL of this side, sent after `sends`; None until `finish`.
    """

    __slots__ = ("_waiters", "_watchers", "last", "sends")

    def __init__(self, options: CallOptions) -> None:
        super().__init__(options, reads=True)
        self.sends: deque[list[bytes]] = deque()
        self.last: list[bytes] | None = None
        self._watchers: dict[int, Callable[[], object]] = {}
        self._waiters: list[Future[None]] = []

    def watch(self, notify: Callable[[], object], watcher: int) -> None:
        self._watchers[watcher] = notify

    def unwatch(self, watcher: int) -> None:
        self._watchers.pop(watcher, None)

    def wait_on(self, waiter: Future[None] | None) -> None:
        if waiter is not None:
            self._waiters.append(waiter)

    def wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        for notify in list(self._watchers.values()):
            notify()


class PendingCalls:
    """The open calls of one session, by the session's number of each call.

    session: the client's state machine.
    hub: distributes the events that the session receives to their subscribers.
    """

    def __init__(
        self,
        session: ClientSession,
        urls: Sequence[str],
        up: Callable[[], bool],
        refusal: Callable[[], Refusal | None] = lambda: None,
        tried: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self.session = session
        self._urls = urls
        self._up, self._refusal, self._tried = up, refusal, tried
        self._has_metadata = session.settings.dialect is Dialect.MDP03
        self._open: dict[int, PendingCall] = {}
        self._fault: Exception | None = None
        self._unsent: list[PendingCall] = []  # one-way calls that the socket has not taken yet
        self._gathered = 0  # plain calls since the last part of a turn was sent
        self._last_answers = 0  # events in the last batch that had any
        self.hub = Hub()

    def begin(self, call: PendingCall, now: float, restart: bool = True) -> None:
        """Give the call to the session. An error of the session becomes the call's outcome.

        `restart`: whether the session may send the call again after its connection is lost.
        """
        options = call.options
        if self._fault is not None:
            call.end(self._fault)
            return
        metadata = options.metadata
        if options.implied and not metadata and self._has_metadata:
            metadata = options.implied
        try:
            left = call.began + options.timeout - now
            if left < _LEAST:
                left = _LEAST
            if options.command == _EVENT:
                self._publish(call, now, left, metadata)
                return
            call.id = self.session.ask(
                options.service,
                options.frames,
                now,
                left,
                options.flags,
                options.to,
                metadata,
                restart,
            )
        except Exception as error:
            call.end(error)
            return
        if options.flags & _ONE_WAY:
            self._unsent.append(call)
        else:
            self._open[call.id] = call

    def launch(
        self,
        call: PendingCall,
        connection: AsyncSessionConnection,
        wakeups: Wakeups,
    ) -> Waiter | None:
        """Begin a call on an event loop. Return what to await, or None after its end.

        A lone call is sent at once. When no other call is open, and the last batch had at most one
        answer, another call in the same turn of the loop is unlikely. Other calls are sent
        _TOGETHER, the rest at the end of the turn. Durable calls are sent at its end alone: what
        comes together is stored by one commit.
        """
        self.begin(call, call.began)
        if not call.options.flags & _DURABLE:
            self._gathered += 1
        count = len(self._open)
        if count == 1 and self._last_answers <= 1:
            connection.send()
        elif self._gathered >= _TOGETHER and 8 * self._gathered >= count and count <= _BUSY:
            self._gathered = 0
            connection.send_now()
        elif not connection.planned:
            connection.touch()
        if call.outcome is not None:
            return None
        call.awaited = waiter = wakeups.waiter()
        return waiter

    def _publish(self, call: PendingCall, now: float, ttl: float, metadata: bytes) -> None:
        options = call.options
        call.id = self.session.publish(
            options.service, options.frames, now, ttl=ttl, metadata=metadata
        )
        self._unsent.append(call)

    def cancel(self, call: PendingCall, now: float) -> None:
        """Cancel the call at the broker. May be repeated; has no effect after the end."""
        if call.id and not call.ended():
            self.session.cancel(call.id, now)

    def was_read(self, call: PendingCall, parts: int) -> None:
        """Report that `parts` parts of `call` were read: the session sends credit for others."""
        if not call.ended():
            self.session.streams.was_read(call.id, parts)

    def push(self, call: ConversationCall) -> None:
        """Give the session the parts that `call` has to send, as far as there is credit."""
        streams, sends = self.session.streams, call.sends
        before = len(sends)
        while sends and not call.ended() and streams.room(call.id):
            streams.part(call.id, sends.popleft())
        if len(sends) < before:
            call.wake()
        if call.last is not None and not sends and not call.ended():
            streams.finish(call.id, call.last)
            call.last = None

    def close(self, now: float) -> None:
        """End the session and every call, one-way calls that were not sent included."""
        unsent, self._unsent = self._unsent, []
        self.session.close(now)
        for call in unsent:
            call.end(Cancelled("the client was closed before the request was sent"))
        self.hub.close()

    def take(self, events: Sequence[ClientEvent]) -> None:
        """Hand each event of the session to its call. Must be called after every flush."""
        refusal = self._refusal()
        if refusal is not None and refusal.final and len(self._urls) == 1:
            self._end_refused(refusal)
        if self._unsent:
            self._end_sent(monotonic())
        if events:
            self._last_answers = len(events)
        for event in events:
            if isinstance(event, Final):
                self._handle_final(event)
            else:
                self._handle_other(event)

    def _handle_final(self, event: Final) -> None:
        ended = self._open.pop(event.call, None)
        if ended is not None:
            ended.end(self._explained(event, ended) if event.status == _TOO_LATE else event)

    def _handle_other(
        self, event: Lost | Part | CallCredit | EventReceived | SubscriptionRefused
    ) -> None:
        """Handle an event that is not a FINAL."""
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
            call.parts.append(event)
            if call.reads:
                call.wake()
            else:
                self.session.streams.was_read(call.id, 1)
        elif isinstance(event, CallCredit):
            sender = self._open.get(event.call)
            if isinstance(sender, ConversationCall):
                self.push(sender)
                sender.wake()
        else:
            self.hub.put(event)

    def _end_sent(self, now: float) -> None:
        """End the one-way calls that the session has sent or dropped at their deadline.

        The session has no event for either: `has_left` is true after both.
        """
        unsent, self._unsent = self._unsent, []
        for call in unsent:
            if not self.session.has_left(call.id):
                self._unsent.append(call)
            elif now < call.began + call.options.timeout:
                call.end(Final(call.id, spec.OK, [], b""))
            else:
                late = Final(call.id, spec.DEADLINE_EXCEEDED, [NOT_SENT], b"")
                call.end(self._explained(late, call))

    def _end_refused(self, refusal: Refusal) -> None:
        """The only broker refused the handshake: end the calls that were open then, at once."""
        for call in [*self._open.values(), *self._unsent]:
            if call.began <= refusal.at:
                self.cancel(call, refusal.at)
                call.end(Unauthenticated(refusal.text))

    def fail(self, error: Exception) -> None:
        """The driver of the session has failed: end all calls with `error`, later ones too."""
        self._fault = error
        calls, self._open, self._unsent = [*self._open.values(), *self._unsent], {}, []
        for call in calls:
            call.end(error)
        self.hub.close(error)

    def _explained(self, event: Final, call: PendingCall) -> Outcome:
        """Return `event`, or an error that lists the brokers if none is connected, and how the
        last attempt at each ended."""
        if self._up():
            return event
        ends = dict(self._tried())
        refusal = self._refusal()
        why = ""
        if refusal is not None:
            why = f": {refusal.text}"
            for url in self._urls:
                if refusal.text.startswith(f"{url} "):  # it states how the attempt has ended
                    ends.pop(url, None)
        tried = ", ".join(f"{url} ({ends[url]})" if url in ends else url for url in self._urls)
        return DeadlineExceeded(
            f"no broker was reachable within {call.options.timeout:g} s at {tried}{why}"
        )


class CallStart:
    """A command of the driver: it begins a call. See `make_start`."""

    __slots__ = ("call", "calls")

    call: PendingCall
    calls: PendingCalls

    def __call__(self, now: float) -> None:
        self.calls.begin(self.call, now)


def make_start(calls: PendingCalls, call: PendingCall) -> CallStart:
    """Return the command that begins `call`; a partial function costs more where it is compiled."""
    made = CallStart.__new__(CallStart)
    made.calls = calls
    made.call = call
    return made


def result(call: PendingCall) -> Reply:
    """Return the reply of an ended call: the unread parts, then the FINAL, joined. Its metadata
    are those of the FINAL.

    Raises: a StatusError for every status but 200, BrokerLost.
    """
    if not call.parts:
        return final(call)
    last = final(call)
    frames = [frame for part in call.parts for frame in part.frames]
    frames += last.frames if any(last.frames) else []
    return reply_with(frames, packing.packed_metadata(last), last.status, last.worker)


def final(call: PendingCall) -> Reply:
    """Return the FINAL alone. Raises: as `result`."""
    outcome = call.outcome
    if type(outcome) is Final:
        return _reply(outcome)
    if isinstance(outcome, FinalWithMetadata):
        reply = _reply(outcome)
        reply._packed = outcome.metadata
        return reply
    if isinstance(outcome, Exception):
        raise outcome
    service = call.options.service.decode("utf-8", "backslashreplace")
    raise BrokerLost(
        f"the broker was lost while {service} was called, and the call may not be sent again"
    )


def _reply(outcome: Final) -> Reply:
    if outcome.status != _OK:
        raise error_for(outcome.status, outcome.frames)
    reply = Reply.__new__(Reply)
    reply.frames = outcome.frames
    reply.status = _OK
    reply.worker = outcome.worker
    return reply

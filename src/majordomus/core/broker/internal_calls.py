"""Calls that the broker makes itself. It is a client among the others, but for the socket: what
would be sent to it is read here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from majordomus.core.broker import encoding
from majordomus.core.broker.admission import KEPT_FLAGS, RefusalError
from majordomus.core.broker.completion import JOINED_TOO_LARGE
from majordomus.core.broker.state.peers import Peer
from majordomus.core.broker.state.requests import AcceptedRequest
from majordomus.core.broker.state.transitions import OPEN
from majordomus.protocol import mdp03, spec
from majordomus.protocol.spec import Dialect

if TYPE_CHECKING:
    from majordomus.core.broker.admission import Admission
    from majordomus.core.broker.completion import Completion
    from majordomus.core.broker.outgoing import Outgoing
    from majordomus.core.broker.state.registry import Registry, Send
    from majordomus.protocol.spec import Frame

Done = Callable[[int, "list[Frame]"], None]

BROKER_ID: Final = b""
"""The routing id of the broker itself: no peer can have it."""
HANDLE: Final = bytes(8)


class InternalCall:
    """Who is to be told of the answer, and the parts of it that have come."""

    __slots__ = ("done", "frames", "too_large")

    def __init__(self, done: Done) -> None:
        self.done = done
        self.frames: list[Frame] = []
        self.too_large = False


class InternalCalls:
    """The broker as a client of its own services."""

    def __init__(
        self,
        registry: Registry,
        completion: Completion,
        admission: Admission,
        outgoing: Outgoing,
    ) -> None:
        self.registry = registry
        self.completion = completion
        self.admission = admission
        self.outgoing = outgoing
        self.peer = Peer(BROKER_ID, Dialect.MDP03, HANDLE, 0.0)
        self.pending: dict[int, InternalCall] = {}
        self._header = mdp03.Fields()

    def call(
        self,
        name: bytes,
        body: list[Frame],
        ttl: float,
        now: float,
        done: Done | None,
        flags: int,
    ) -> int:
        """See `BrokerMachine.call`."""
        id = self.registry.next_number()
        if done is None:
            flags |= spec.ONE_WAY
        else:
            self.pending[id] = InternalCall(done)
        try:
            self._begin(id, name, body, ttl, now, flags)
        except RefusalError as error:
            if done is not None:
                message = encoding.refusal((), id, error.status, error.text)
                self.outgoing.send(self.peer, message, spec.FINAL, id, now)
        return id

    def _begin(
        self, id: int, name: bytes, body: list[Frame], ttl: float, now: float, flags: int
    ) -> None:
        settings = self.registry.settings
        if self.admission.too_large(body):
            raise RefusalError(spec.TOO_LARGE, "the body is larger than allowed")
        if len(self.peer.open) >= settings.max_open:
            text = f"{len(self.peer.open)} calls of the broker's own are open already"
            raise RefusalError(spec.TOO_MANY, text)
        request = AcceptedRequest().fill(
            self.peer,
            Dialect.MDP03,
            (),
            id,
            id,
            self.admission.service(name),
            body,
            sum(map(len, body)),
            flags & (KEPT_FLAGS & ~spec.METADATA & ~spec.MORE),
            b"",
            now,
            now + min(ttl or settings.default_ttl, settings.max_ttl),
        )
        self.completion.accept(request)
        self.admission.route(request, now)

    def withdraw(self, id: int, now: float) -> None:
        """See `BrokerMachine.withdraw_call`."""
        self.pending.pop(id, None)
        request = self.peer.open.get(id)
        if request is not None and request.state in OPEN:
            self.completion.cancel_silently(request, now)

    def collect(self, sends: list[Send]) -> list[Send]:
        """`sends` without what is for the broker itself: that is read, and whoever waits is
        told."""
        ended: list[tuple[Done, int, list[Frame]]] = []
        for peer_id, frames, command, id in sends:
            if peer_id == BROKER_ID and isinstance(id, int):
                call = self.pending.get(id)
                if call is None:
                    continue
                self._header.read(frames[0])
                answer = self._receive(call, command, self._header.code, frames[1:])
                if answer is not None:
                    del self.pending[id]
                    ended.append((call.done, *answer))
        sends[:] = [send for send in sends if send[0] != BROKER_ID]
        for done, status, body in ended:
            done(status, body)
        return sends

    def _receive(
        self, call: InternalCall, command: int, status: int, frames: list[Frame]
    ) -> tuple[int, list[Frame]] | None:
        """Status and body once all has come: parts are joined, as for a dialect without them."""
        if command == spec.FINAL and status != spec.OK:
            return status, frames
        if not call.too_large:
            call.frames.extend(frames)
            call.too_large = self.admission.too_large(call.frames)
        if call.too_large:
            call.frames.clear()
        if command != spec.FINAL:
            return None
        if call.too_large:
            return spec.TOO_LARGE, [JOINED_TOO_LARGE.encode()]
        return status, call.frames

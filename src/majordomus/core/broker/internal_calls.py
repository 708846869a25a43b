"""Calls that the broker makes itself.

The broker is a client like others, without a connection: `collect` takes the sends for it out of
the machine's output and reads them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from majordomus.core.broker import encoding
from majordomus.core.broker.admission import KEPT_FLAGS, RefusalError
from majordomus.core.broker.completion import JOINED_TOO_LARGE
from majordomus.core.broker.state.account import cost_of
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
    """An open call of the broker.

    done: the function to be called with status and body.
    frames: the body frames that have come, of all parts.
    too_large: whether they have exceeded the bounds of a message; `frames` is empty then.
    """

    __slots__ = ("done", "frames", "too_large")

    def __init__(self, done: Done) -> None:
        self.done = done
        self.frames: list[Frame] = []
        self.too_large = False


class InternalCalls:
    """The broker as a client of its own services.

    peer: the broker's own peer, which is in no table of the registry.
    pending: open calls with a `done`, by id.
    """

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
        if len(self.peer.requests) >= settings.max_open:
            text = f"{len(self.peer.requests)} calls of the broker's own are open already"
            raise RefusalError(spec.TOO_MANY, text)
        request = AcceptedRequest().fill(
            self.peer,
            Dialect.MDP03,
            (),
            None,
            id,
            self.admission.service(name),
            [b"", *body],
            sum(map(len, body)),
            flags & (KEPT_FLAGS & ~spec.METADATA & ~spec.MORE),
            b"",
            now,
            now + min(ttl or settings.default_ttl, settings.max_ttl),
        )
        request.cost = cost_of(request)
        if self.registry.account.exceeds(self.peer, request.cost):
            text = self.registry.account.problem(self.peer, request.cost)
            self.registry.tidy(request.service)
            raise RefusalError(spec.TOO_MANY, text)
        self.completion.accept(request)
        self.admission.route(request, now)

    def withdraw(self, id: int, now: float) -> None:
        """See `BrokerMachine.withdraw_call`."""
        self.pending.pop(id, None)
        request = self.peer.find(id)
        if request is not None and request.state in OPEN:
            self.completion.cancel_silently(request, now)

    def collect(self, sends: list[Send]) -> list[Send]:
        """Remove from `sends` the messages to the broker itself, and call `done` of the calls that
        they end.

        `done` is called last, because it may begin another call.
        """
        ended: list[tuple[Done, int, list[Frame]]] = []
        for peer_id, frames, command, id in sends:
            if id is None and peer_id == BROKER_ID:
                id = encoding.conversation_of(frames, command)
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
        """Add a message to its call; returns status and body with the last one, None before.

        Parts are joined, as for a dialect without them.
        """
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

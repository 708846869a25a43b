"""Hooks: a request, a reply or a client waits here for what a hook decides, and then goes its way.

Rule 11 lives here: limits come first, what is held counts toward them, and a hook that takes too
long is a 500. The hooks themselves are somebody else's: an object that is asked, and that answers
at once or by `resume`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Final, Protocol

from majordomus.core.broker.admission import RefusalError
from majordomus.core.broker.hooks import actions
from majordomus.core.broker.hooks.actions import Action
from majordomus.core.broker.hooks.views import ClientInfo, HookReply, HookRequest, Outcome
from majordomus.core.broker.queueing import exceeded_bound
from majordomus.core.broker.state.callers import Caller
from majordomus.core.broker.state.timer_wheel import Deadlines
from majordomus.core.broker.state.transitions import FORGOTTEN
from majordomus.errors import LocalProtocolError
from majordomus.protocol import metadata as packing
from majordomus.protocol import spec

if TYPE_CHECKING:
    from majordomus.core.broker.admission import Admission
    from majordomus.core.broker.completion import Completion
    from majordomus.core.broker.state.peers import Peer
    from majordomus.core.broker.state.registry import Registry
    from majordomus.core.broker.state.requests import AcceptedRequest
    from majordomus.protocol.spec import Frame

TOO_LARGE: Final = "what a hook of the broker made of it is larger than allowed"
NO_PATIENCE: Final = "the answer is there, and cannot wait for a hook of the broker: "
NO_ACTION: Final = "a hook of the broker returned what is no action for it"

Decide = Callable[[Action, float], None]


class Hooks(Protocol):
    """What the machine asks. Each question has a number; None for an answer means that `resume`
    brings it later, under that number, at most once."""

    asks: bool
    """Whether there is an `on_request`; the others likewise."""
    hears: bool
    parts: bool
    greets: bool
    ends: bool
    may_wait: bool
    """Whether any of them may answer later."""

    def on_request(self, number: int, request: HookRequest) -> Action | None: ...

    def on_reply(self, number: int, reply: HookReply) -> Action | None: ...

    def on_part(self, part: HookReply) -> Action: ...

    def on_client(self, number: int, client: ClientInfo) -> Action | None: ...

    def client_lost(self, client: ClientInfo, why: str) -> None: ...

    def on_end(self, outcome: Outcome) -> None: ...

    def abandon(self, number: int) -> None:
        """Nobody waits for the answer to question `number` any more."""


class PendingDecision:
    """A question that is open, and what is to be done when it is answered."""

    __slots__ = ("decide", "number", "peer", "request", "timer")

    def __init__(
        self, number: int, decide: Decide, request: AcceptedRequest | None, peer: Peer | None
    ) -> None:
        self.number = number
        self.decide = decide
        self.request = request
        self.peer = peer
        self.timer: dict[PendingDecision, None] | None = None


class KnownClient:
    """A client that the hooks were told of. ``barred``: why all its requests are refused.
    ``waiting``: requests that came before the hooks had decided about it."""

    __slots__ = ("barred", "hold", "info", "waiting")

    def __init__(self, info: ClientInfo) -> None:
        self.info = info
        self.hold: PendingDecision | None = None
        self.barred: actions.Reject | None = None
        self.waiting: dict[AcceptedRequest, bytes] = {}


class Holding:
    """Where the machine and the hooks meet. `hooks` may be replaced at any time."""

    def __init__(
        self, registry: Registry, completion: Completion, admission: Admission, hooks: Hooks
    ) -> None:
        self.registry = registry
        self.completion = completion
        self.admission = admission
        self.hooks = hooks
        self.push: Callable[[bytes, list[Frame], float], bool] | None = None
        self.holds: dict[int, PendingDecision] = {}
        self.held: dict[AcceptedRequest, PendingDecision | None] = {}
        """Requests that wait, for the answer to a question of their own or for their client's."""
        self.timers: Deadlines = Deadlines()
        self.seen: dict[Peer, KnownClient] = {}
        self.tokens: dict[Peer, str] = {}

    # ── a request ─────────────────────────────────────────────────────────────────────────────────

    def take(self, request: AcceptedRequest, field: bytes, now: float) -> None:
        """A request that was accepted; `field` is its metadata as it came, the token included."""
        if self.hooks.greets:
            seen = self.seen.get(request.peer)
            if seen is None:
                values = packing.unpack(field) if field else {}
                seen = self._meet(request.peer, ClientInfo(request.peer, values, False), None, now)
            if seen.hold is not None:
                if not self._no_room(request, now):
                    seen.waiting[request] = field
                    self._keep(request, None)
                return
            if seen.barred is not None:
                self.completion.fail(request, seen.barred.status, seen.barred.text, now)
                return
        self._ask(request, field, now)

    def _ask(self, request: AcceptedRequest, field: bytes, now: float) -> None:
        hooks = self.hooks
        if not hooks.asks:
            self.admission.proceed(request, now)
            return
        # A service without a backlog may have a free worker: `place` judges whether it must wait.
        if (hooks.may_wait or request.service.queue) and self._no_room(request, now):
            return
        view = HookRequest(request, field, self.tokens.get(request.peer, ""))
        number = self.registry.next_number()
        action = hooks.on_request(number, view)
        if action is not None:
            self._judge(request, view, action, now)
            return
        hold = PendingDecision(number, lambda a, t: self._judge(request, view, a, t), request, None)
        self._keep(request, hold)
        self._open(hold, now)

    def _no_room(self, request: AcceptedRequest, now: float) -> bool:
        """Rule 4, before the hooks: whether `request` had to be refused."""
        full = exceeded_bound(self.registry, request)
        if full:
            self.completion.fail(request, spec.TOO_MANY, full, now)
        return bool(full)

    def _judge(
        self, request: AcceptedRequest, view: HookRequest, action: Action, now: float
    ) -> None:
        completion = self.completion
        if isinstance(action, actions.ReplyAction):
            self._answer(request, action.status, action.frames, 0, b"", now)
        elif isinstance(action, actions.Reject):
            completion.fail(request, action.status, action.text, now)
        elif isinstance(action, actions.Discard):
            completion.discard(request, now)
        elif not isinstance(action, actions.ON_REQUEST):
            completion.fail(request, spec.HANDLER_FAILED, NO_ACTION, now)
        elif self._changed(request, view, now):
            if isinstance(action, actions.SendTo):
                self._aim(request, action.peer, now)
            elif isinstance(action, actions.Redirect):
                self.admission.proceed(request, now, action.service.encode())
            else:
                self.admission.proceed(request, now)

    def _changed(self, request: AcceptedRequest, view: HookRequest, now: float) -> bool:
        """Take over what the hook has changed; False when that has ended the request."""
        if (view.user, view.groups) != (request.caller.user, request.caller.groups):
            old = request.caller
            request.caller = Caller(view.user, tuple(view.groups), old.prefix)
        try:
            field = view.metadata_to_go_on()
        except LocalProtocolError as error:
            text = f"a hook of the broker set metadata that cannot be sent: {error}"
            self.completion.fail(request, spec.HANDLER_FAILED, text, now)
            return False
        if field is not None:
            request.metadata = field
            request.flags &= ~spec.METADATA
            if field:
                request.flags |= spec.METADATA
        body = view.body_to_go_on()
        if body is not request.body:
            if self.admission.too_large(body):
                self.completion.fail(request, spec.TOO_LARGE, TOO_LARGE, now)
                return False
            request.size += sum(map(len, body)) - sum(map(len, request.body))
            request.body = body
        return True

    def _aim(self, request: AcceptedRequest, worker_id: bytes, now: float) -> None:
        try:
            request.target = self.admission.target(worker_id, request.service.name, request.called)
        except RefusalError as error:
            self.completion.fail(request, error.status, error.text, now)
        else:
            self.admission.proceed(request, now)

    # ── a reply ───────────────────────────────────────────────────────────────────────────────────

    def hear(
        self,
        request: AcceptedRequest,
        status: int,
        frames: list[Frame],
        flags: int,
        field: bytes,
        now: float,
    ) -> bool:
        """A worker's FINAL, its slot given back; whether the hooks have dealt with it."""
        if not self.hooks.hears or not request.peer.id:
            return False
        view = HookReply(request, status, frames, field, now)
        number = self.registry.next_number()
        action = self.hooks.on_reply(number, view)
        if action is not None:
            self._settle(request, view, flags, action, now)
            return True
        # Nothing of the request is needed any more: what waits from here on is the reply.
        request.body, request.stream, request.size = [], None, sum(map(len, frames))
        full = exceeded_bound(self.registry, request)
        if full:  # no 429: that asks for another try, and this one has run
            self.hooks.abandon(number)
            self.completion.fail(request, spec.HANDLER_FAILED, NO_PATIENCE + full, now)
            return True
        request.move("reply")
        hold = PendingDecision(
            number, lambda a, t: self._settle(request, view, flags, a, t), request, None
        )
        self._keep(request, hold)
        self._open(hold, now)
        return True

    def part(
        self, request: AcceptedRequest, frames: list[Frame], flags: int, field: bytes, now: float
    ) -> tuple[list[Frame], int, bytes] | None:
        """A worker's PARTIAL: its frames, flags and metadata as they go on; None when it is to be
        dropped."""
        if not self.hooks.parts or not request.peer.id:
            return frames, flags, field
        view = HookReply(request, 0, frames, field, now)
        action = self.hooks.on_part(view)
        if isinstance(action, actions.Discard):
            return None
        if not isinstance(action, actions.ON_PART):
            self.completion.fail(request, spec.HANDLER_FAILED, NO_ACTION, now)
            return None
        passed = self._passed(view, flags)
        if isinstance(action, actions.Replace):
            passed = (action.body, passed[1], passed[2])
        if self.admission.too_large(passed[0]):
            self.completion.fail(request, spec.TOO_LARGE, TOO_LARGE, now)
            return None
        return passed

    def _passed(self, view: HookReply, flags: int) -> tuple[list[Frame], int, bytes]:
        try:
            field = view.metadata_to_go_on()
        except LocalProtocolError:
            field = None
            self.registry.drop("hook-metadata", view.client)
        if field is None:
            field = view._field
        flags = flags | spec.METADATA if field else flags & ~spec.METADATA
        return view.body_to_go_on(), flags, field

    def _settle(
        self, request: AcceptedRequest, view: HookReply, flags: int, action: Action, now: float
    ) -> None:
        if isinstance(action, actions.Reject):
            text = [action.text.encode()]
            self._answer(request, action.status, text, 0, b"", now)
        elif isinstance(action, actions.ReplyAction):
            self._answer(request, action.status, action.frames, 0, b"", now)
        elif isinstance(action, actions.Discard):
            self.completion.discard(request, now)
        elif not isinstance(action, actions.ON_REPLY):
            self._answer(request, spec.HANDLER_FAILED, [NO_ACTION.encode()], 0, b"", now)
        else:
            frames, flags, field = self._passed(view, flags)
            if isinstance(action, actions.Replace):
                frames = action.body
            if isinstance(action, actions.SendTo):
                self._hand_over(request, action.peer, frames, now)
            elif self.admission.too_large(frames):
                self._answer(request, spec.TOO_LARGE, [TOO_LARGE.encode()], 0, b"", now)
            else:
                self._answer(request, view.status, frames, flags, field, now)

    def _hand_over(
        self, request: AcceptedRequest, client: bytes, frames: list[Frame], now: float
    ) -> None:
        """The reply goes to another client; who asked gets an empty answer, or hears that it could
        not be."""
        if self.push is not None and self.push(client, frames, now):
            self._answer(request, spec.OK, [], 0, b"", now)
        else:
            text = "the client that the answer was meant for is not there"
            self._answer(request, spec.NOT_FOUND, [text.encode()], 0, b"", now)

    def _answer(
        self,
        request: AcceptedRequest,
        status: int,
        frames: list[Frame],
        flags: int,
        field: bytes,
        now: float,
    ) -> None:
        self.completion.answer(request, status, frames, flags, field, now)

    # ── clients ───────────────────────────────────────────────────────────────────────────────────

    def hello(self, peer: Peer, values: dict[str, object], then: Decide, now: float) -> None:
        """HELLO. `then` is called with Forward or Reject, at once or later."""
        if "token" in values:
            self.tokens[peer] = str(values["token"])
        if self.hooks.greets:
            self._meet(peer, ClientInfo(peer, dict(values), True), then, now)
        else:
            then(actions.FORWARD, now)

    def _meet(self, peer: Peer, info: ClientInfo, then: Decide | None, now: float) -> KnownClient:
        seen = self.seen.get(peer)
        if seen is None:
            seen = self.seen[peer] = KnownClient(info)
        elif seen.hold is not None:  # a new HELLO replaces the question that is open
            self._abandon(seen.hold)
            seen.hold = None
        seen.info = info
        number = self.registry.next_number()

        def decide(action: Action, at: float) -> None:
            self._decided(peer, seen, info, action, at)
            if then is not None and peer.state is not FORGOTTEN:
                then(action, at)

        action = self.hooks.on_client(number, info)
        if action is None:
            seen.hold = PendingDecision(number, decide, None, peer)
            self._open(seen.hold, now)
        else:
            decide(action, now)
        return seen

    def _decided(
        self, peer: Peer, seen: KnownClient, info: ClientInfo, action: Action, now: float
    ) -> None:
        seen.hold = None
        if not isinstance(action, actions.ON_CLIENT):
            action = actions.Reject(spec.HANDLER_FAILED, NO_ACTION)
        seen.barred = action if isinstance(action, actions.Reject) else None
        if seen.barred is None:
            if (info.user, info.groups) != (peer.user, peer.groups) or info.until < inf:
                groups = tuple(info.groups)
                self.admission.authorization.identify(peer, info.user, groups, now, info.until)
        elif seen.barred.status >= spec.HANDLER_FAILED:  # no verdict: its next message asks again
            self.seen.pop(peer, None)
        waiting, seen.waiting = seen.waiting, {}
        for request, field in waiting.items():
            self._let_go(request)
            if seen.barred is not None:
                self.completion.fail(request, seen.barred.status, seen.barred.text, now)
            else:
                self._ask(request, field, now)

    def forgotten(self, peer: Peer, why: str, now: float) -> None:
        """`peer` is no more."""
        self.tokens.pop(peer, None)
        self.admission.authorization.forgotten(peer)
        seen = self.seen.pop(peer, None)
        if seen is not None:
            if seen.hold is not None:
                self._abandon(seen.hold)
            waiting, seen.waiting = seen.waiting, {}
            for request in waiting:
                self._let_go(request)
                self.completion.cancel_silently(request, now)
            self.hooks.client_lost(seen.info, why)

    # ── questions that wait ───────────────────────────────────────────────────────────────────────

    def resume(self, number: int, action: Action, now: float) -> bool:
        """The answer to question `number`; False when nobody waits for it any more."""
        hold = self.holds.get(number)
        if hold is None:
            return False
        self._close(hold)
        if hold.request is not None:
            self._let_go(hold.request)
        hold.decide(action, now)
        return True

    def _open(self, hold: PendingDecision, now: float) -> None:
        self.holds[hold.number] = hold
        hold.timer = self.timers.add(hold, now + self.registry.settings.hook_timeout)

    def _close(self, hold: PendingDecision) -> None:
        self.holds.pop(hold.number, None)
        if hold.timer is not None:
            hold.timer.pop(hold, None)

    def _abandon(self, hold: PendingDecision) -> None:
        self._close(hold)
        self.hooks.abandon(hold.number)

    def _keep(self, request: AcceptedRequest, hold: PendingDecision | None) -> None:
        """From here on `request` waits, and counts as what is queued does."""
        self.held[request] = hold
        self._count(request, 1)

    def _let_go(self, request: AcceptedRequest) -> None:
        del self.held[request]
        self._count(request, -1)

    def _count(self, request: AcceptedRequest, sign: int) -> None:
        registry, peer, service = self.registry, request.peer, request.service
        size = sign * request.size
        registry.queued += sign
        registry.queued_bytes += size
        peer.queued += sign
        peer.queued_bytes += size
        service.held += sign
        service.held_bytes += size

    def grow(self, request: AcceptedRequest, size: int) -> str:
        """A part of the client's stream came while `request` is held: which bound that breaks;
        empty when none."""
        held = request in self.held
        if held:
            self._count(request, -1)
        full = exceeded_bound(self.registry, request, size)
        request.size += size
        if held:
            self._count(request, 1)
        return full

    def ended(self, request: AcceptedRequest, status: int) -> None:
        """`request` has ended. If it waited here, it does so no more."""
        if self.hooks.ends and request.peer.id:
            self.hooks.on_end(Outcome(request, status))
        if request not in self.held:
            return
        hold = self.held[request]
        self._let_go(request)
        if hold is not None:
            self._abandon(hold)
        else:
            self.seen[request.peer].waiting.pop(request, None)

    def next_deadline(self) -> float:
        """When a hook will have taken too long."""
        return self.timers.next() if self.holds else inf

    def tick(self, now: float) -> None:
        """Rule 11: `hook_timeout` → 500."""
        for hold in self.timers.due(now):
            hold.timer = None
            if hold.number not in self.holds:
                continue
            self.registry.drop("hook-timeout", hold.peer.id if hold.peer else b"")
            self.hooks.abandon(hold.number)
            seconds = self.registry.settings.hook_timeout
            text = f"a hook of the broker did not decide within {seconds:g} s"
            self.resume(hold.number, actions.Reject(spec.HANDLER_FAILED, text), now)


class NoHooks:
    """No hooks any more: whatever is asked already may still be answered."""

    asks = hears = parts = greets = ends = may_wait = False

    def on_request(self, number: int, request: HookRequest) -> Action:
        return actions.FORWARD

    def on_reply(self, number: int, reply: HookReply) -> Action:
        return actions.FORWARD

    def on_part(self, part: HookReply) -> Action:
        return actions.FORWARD

    def on_client(self, number: int, client: ClientInfo) -> Action:
        return actions.FORWARD

    def client_lost(self, client: ClientInfo, why: str) -> None: ...

    def on_end(self, outcome: Outcome) -> None: ...

    def abandon(self, number: int) -> None: ...

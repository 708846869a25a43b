"""Ask the hooks about requests, replies, parts and clients, and do what they decide.

Rule 11 lives here: the limits are checked before a hook is asked, a request that waits for a
decision counts toward them, and a hook that takes too long ends its request with 500. A hook
decides at once, or later through `resume` (pending.py holds the request meanwhile).
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from majordomus.core.broker.hooks import actions
from majordomus.core.broker.hooks.actions import Action
from majordomus.core.broker.hooks.pending import Decide, PendingDecision, PendingDecisions
from majordomus.core.broker.hooks.views import ClientInfo, HookReply, HookRequest, Outcome
from majordomus.core.broker.state.identity import Caller
from majordomus.core.broker.state.transitions import FORGOTTEN
from majordomus.errors import LocalProtocolError
from majordomus.protocol import metadata as packing
from majordomus.protocol import spec

if TYPE_CHECKING:
    from majordomus.core.broker.hooks.effects import Ends, Identifies, Proceeds, Pushes
    from majordomus.core.broker.hooks.interface import Hooks
    from majordomus.core.broker.state.peers import Peer
    from majordomus.core.broker.state.registry import Registry
    from majordomus.core.broker.state.requests import AcceptedRequest
    from majordomus.protocol.spec import Frame

TOO_LARGE: Final = "a hook of the broker made the body larger than allowed"
CANNOT_WAIT: Final = "the answer cannot wait for a hook of the broker: "
DISCARDED: Final = "a hook of the broker discarded the reply"
WRONG_ACTION: Final = "a hook of the broker returned an action that is not allowed here"


class KnownClient:
    """A client about which the hooks were asked.

    info: the view of the client that the hooks have.
    decision: the decision about it that is pending; None when there is none.
    rejection: the status and text for all its requests; None when it is accepted.
    waiting: requests that arrived before the decision, with their metadata as received.
    """

    __slots__ = ("decision", "info", "rejection", "waiting")

    def __init__(self, info: ClientInfo) -> None:
        self.info = info
        self.decision: PendingDecision | None = None
        self.rejection: actions.Reject | None = None
        self.waiting: dict[AcceptedRequest, bytes] = {}


class Holding:
    """Everything that waits for hooks, and the calls of the hooks.

    hooks: the hooks that are asked from now on; may be replaced at any time.
    push: sends an event to a client's handle; False when there is no such client.
    pending: decisions that hooks have not made yet, and the requests that wait for them.
    clients: clients about which the hooks were asked.
    tokens: the token of each client's last HELLO, for requests without a token of their own.
    """

    def __init__(
        self,
        registry: Registry,
        admission: Proceeds,
        completion: Ends,
        authorization: Identifies,
        push: Pushes,
        hooks: Hooks,
    ) -> None:
        self.registry = registry
        self.authorization = authorization
        self.completion = completion
        self.admission = admission
        self.hooks = hooks
        self.push = push
        self.pending = PendingDecisions(registry, admission)
        self.clients: dict[Peer, KnownClient] = {}
        self.tokens: dict[Peer, str] = {}

    # ── a request ─────────────────────────────────────────────────────────────────────────────────

    def request(self, request: AcceptedRequest, field: bytes, now: float) -> None:
        """Ask about an accepted request; `field` is its metadata as received, token included."""
        if self.hooks.has_on_client:
            client = self.clients.get(request.peer)
            if client is None:
                values = packing.unpack(field) if field else {}
                info = ClientInfo(request.peer, values, False)
                client = self._ask_about_client(request.peer, info, None, now)
            if client.decision is not None:
                if not self._queue_full(request, now):
                    client.waiting[request] = field
                    self.pending.hold(request, None)
                return
            if client.rejection is not None:
                self.completion.fail(request, client.rejection.status, client.rejection.text, now)
                return
        self._ask_about_request(request, field, now)

    def _ask_about_request(self, request: AcceptedRequest, field: bytes, now: float) -> None:
        hooks = self.hooks
        if not hooks.has_on_request:
            self.admission.proceed(request, now)
            return
        # With an empty queue a worker may be free, so that `proceed` decides whether to queue it.
        if (hooks.may_wait or request.service.queue) and self._queue_full(request, now):
            return
        view = HookRequest(request, field, self.tokens.get(request.peer, ""))
        number = self.registry.next_number()
        action = hooks.on_request(number, view)
        if action is not None:
            self._apply_to_request(request, view, action, now)
            return
        self._wait(request, number, lambda a, t: self._apply_to_request(request, view, a, t), now)

    def _wait(self, request: AcceptedRequest, number: int, decide: Decide, now: float) -> None:
        decision = PendingDecision(number, decide, request, None)
        self.pending.hold(request, decision)
        self.pending.add(decision, now)

    def _queue_full(self, request: AcceptedRequest, now: float) -> bool:
        """Check the limits of the queues before a hook is asked (rule 4).

        True when `request` exceeds one; it has been refused then.
        """
        full = self.admission.exceeded_bound(request)
        if full:
            self.completion.fail(request, spec.TOO_MANY, full, now)
        return bool(full)

    def _apply_to_request(
        self, request: AcceptedRequest, view: HookRequest, action: Action, now: float
    ) -> None:
        completion = self.completion
        if isinstance(action, actions.ReplyAction):
            self._answer_with(request, action, now)
        elif isinstance(action, actions.Reject):
            completion.fail(request, action.status, action.text, now)
        elif isinstance(action, actions.Discard):
            completion.discard(request, now)
        elif not isinstance(action, actions.ON_REQUEST):
            completion.fail(request, spec.HANDLER_FAILED, WRONG_ACTION, now)
        elif self._take_changes(request, view, now):
            if isinstance(action, actions.SendTo):
                self.admission.proceed_to_worker(request, action.peer, now)
            elif isinstance(action, actions.Redirect):
                self.admission.proceed(request, now, action.service.encode())
            else:
                self.admission.proceed(request, now)

    def _take_changes(self, request: AcceptedRequest, view: HookRequest, now: float) -> bool:
        """Copy the hook's changes from `view` to `request`.

        False when they are not valid; the request has been failed then.
        """
        if (view.user, view.groups) != (request.caller.user, request.caller.groups):
            old = request.caller
            request.caller = Caller(view.user, tuple(view.groups), old.prefix)
        try:
            field = view.changed_metadata()
        except LocalProtocolError as error:
            text = f"a hook of the broker set metadata that cannot be sent: {error}"
            self.completion.fail(request, spec.HANDLER_FAILED, text, now)
            return False
        if field is not None:
            request.metadata = field
            request.flags &= ~spec.METADATA
            if field:
                request.flags |= spec.METADATA
        body = view.final_body()
        if body != request.body:
            if self.admission.too_large(body):
                self.completion.fail(request, spec.TOO_LARGE, TOO_LARGE, now)
                return False
            request.size += sum(map(len, body)) - sum(map(len, request.body))
            request.body = body
        self.registry.account.recount(request)
        return True

    # ── a reply ───────────────────────────────────────────────────────────────────────────────────

    def reply(
        self,
        request: AcceptedRequest,
        status: int,
        frames: list[Frame],
        flags: int,
        field: bytes,
        now: float,
    ) -> bool:
        """Ask about a worker's FINAL, after its slot is free.

        True when the hooks have decided, or decide later; False when there is nothing to ask, and
        the caller answers. The broker's own calls have no routing id, and no hook sees them; they
        see the replies to durable requests, and what they decide is stored.
        """
        own = not request.peer.id and not request.flags & spec.DURABLE
        if not self.hooks.has_on_reply or own:
            return False
        view = HookReply(request, status, frames, field, now)
        number = self.registry.next_number()
        action = self.hooks.on_reply(number, view)
        if action is not None:
            self._apply_to_reply(request, view, flags, action, now)
            return True
        # The request itself is not needed any more. From here on the reply waits, so only the
        # reply counts.
        request.body, request.stream, request.size = [], None, sum(map(len, frames))
        request.parts, request.parts_size = frames, 0
        self.registry.account.recount(request)
        full = self.admission.exceeded_bound(request)
        if full:  # not 429: that invites a retry, and the handler has run already
            self.hooks.abandon(number)
            self.completion.fail(request, spec.HANDLER_FAILED, CANNOT_WAIT + full, now)
            return True
        request.move("reply")
        self._wait(
            request, number, lambda a, t: self._apply_to_reply(request, view, flags, a, t), now
        )
        return True

    def part(
        self, request: AcceptedRequest, frames: list[Frame], flags: int, field: bytes, now: float
    ) -> tuple[list[Frame], int, bytes] | None:
        """Ask about a worker's PARTIAL.

        Returns the frames, flags and metadata to send; None when the part is dropped.
        """
        if not self.hooks.has_on_part or not request.peer.id:
            return frames, flags, field
        view = HookReply(request, 0, frames, field, now)
        action = self.hooks.on_part(view)
        if isinstance(action, actions.Discard):
            return None
        if not isinstance(action, actions.ON_PART):
            self.completion.fail(request, spec.HANDLER_FAILED, WRONG_ACTION, now)
            return None
        frames, flags, field = self._outgoing(view, flags)
        if isinstance(action, actions.Replace):
            frames = action.body
        if self.admission.too_large(frames):
            self.completion.fail(request, spec.TOO_LARGE, TOO_LARGE, now)
            return None
        return frames, flags, field

    def _outgoing(self, view: HookReply, flags: int) -> tuple[list[Frame], int, bytes]:
        """The frames, flags and metadata of `view` with the hook's changes. Metadata that cannot be
        sent are replaced by the worker's."""
        try:
            field = view.changed_metadata()
        except LocalProtocolError:
            field = None
            self.registry.count_dropped("hook-metadata", view.client)
        if field is None:
            field = view._field
        flags = flags | spec.METADATA if field else flags & ~spec.METADATA
        return view.final_body(), flags, field

    def _apply_to_reply(
        self, request: AcceptedRequest, view: HookReply, flags: int, action: Action, now: float
    ) -> None:
        if not isinstance(action, actions.Forward):
            self.completion.decide(request)
        if isinstance(action, actions.Reject):
            text = [action.text.encode()]
            self._answer(request, action.status, text, 0, b"", now)
        elif isinstance(action, actions.ReplyAction):
            self._answer_with(request, action, now)
        elif isinstance(action, actions.Discard):
            if request.flags & spec.DURABLE:  # each has an outcome, whoever asks for it
                self.completion.fail(request, spec.HANDLER_FAILED, DISCARDED, now)
            else:
                self.completion.discard(request, now)
        elif not isinstance(action, actions.ON_REPLY):
            self._answer(request, spec.HANDLER_FAILED, [WRONG_ACTION.encode()], 0, b"", now)
        else:
            frames, flags, field = self._outgoing(view, flags)
            if isinstance(action, actions.Replace):
                frames = action.body
            if isinstance(action, actions.SendTo):
                self._send_to_client(request, action.peer, frames, now)
            elif self.admission.too_large(frames):
                self._answer(request, spec.TOO_LARGE, [TOO_LARGE.encode()], 0, b"", now)
            else:
                self._answer(request, view.status, frames, flags, field, now)

    def _send_to_client(
        self, request: AcceptedRequest, client: bytes, frames: list[Frame], now: float
    ) -> None:
        """Send the reply to another client. The calling client gets an empty answer, or 404 when
        there is no such client."""
        if self.push(client, frames, now):
            self._answer(request, spec.OK, [], 0, b"", now)
        else:
            text = "a hook of the broker sent the answer to a client that is not connected"
            self._answer(request, spec.NOT_FOUND, [text.encode()], 0, b"", now)

    def _answer_with(
        self, request: AcceptedRequest, action: actions.ReplyAction, now: float
    ) -> None:
        field = packing.packed_metadata(action)
        flags = spec.METADATA if field else 0
        self._answer(request, action.status, action.frames, flags, field, now)

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
        """Ask about a client that sent HELLO. `then` gets Forward or Reject, now or later."""
        if "token" in values:
            self.tokens[peer] = str(values["token"])
        if self.hooks.has_on_client:
            self._ask_about_client(peer, ClientInfo(peer, dict(values), True), then, now)
        else:
            then(actions.FORWARD, now)

    def _ask_about_client(
        self, peer: Peer, info: ClientInfo, then: Decide | None, now: float
    ) -> KnownClient:
        client = self.clients.get(peer)
        if client is None:
            client = self.clients[peer] = KnownClient(info)
        elif client.decision is not None:  # a new HELLO replaces the pending question
            self._abandon(client.decision)
            client.decision = None
        client.info = info
        number = self.registry.next_number()

        def decide(action: Action, at: float) -> None:
            self._apply_to_client(peer, client, info, action, at)
            if then is not None and peer.state is not FORGOTTEN:
                then(action, at)

        action = self.hooks.on_client(number, info)
        if action is None:
            client.decision = PendingDecision(number, decide, None, peer)
            self.pending.add(client.decision, now)
        else:
            decide(action, now)
        return client

    def _apply_to_client(
        self, peer: Peer, client: KnownClient, info: ClientInfo, action: Action, now: float
    ) -> None:
        client.decision = None
        if not isinstance(action, actions.ON_CLIENT):
            action = actions.Reject(spec.HANDLER_FAILED, WRONG_ACTION)
        client.rejection = action if isinstance(action, actions.Reject) else None
        if client.rejection is None:
            if (info.user, info.groups) != (peer.user, peer.groups) or info.until < inf:
                groups = tuple(info.groups)
                self.authorization.identify(peer, info.user, groups, now, info.until)
        elif client.rejection.status >= spec.HANDLER_FAILED:
            # The hook has failed to decide, so that the client's next message asks again.
            self.clients.pop(peer, None)
        waiting, client.waiting = client.waiting, {}
        for request, field in waiting.items():
            self.pending.release(request)
            if request.deadline <= now:
                self.completion.expire(request, now)
            elif client.rejection is not None:
                self.completion.fail(request, client.rejection.status, client.rejection.text, now)
            else:
                self._ask_about_request(request, field, now)

    def forgotten(self, peer: Peer, why: str, now: float) -> None:
        """Drop what is kept about `peer`, and cancel its requests that wait for a decision."""
        self.tokens.pop(peer, None)
        self.authorization.forgotten(peer)
        client = self.clients.pop(peer, None)
        if client is not None:
            if client.decision is not None:
                self._abandon(client.decision)
            waiting, client.waiting = client.waiting, {}
            for request in waiting:
                self.pending.release(request)
                self.completion.cancel_silently(request, now)
            self.hooks.client_lost(client.info, why)

    # ── pending decisions ─────────────────────────────────────────────────────────────────────────

    def resume(self, number: int, action: Action, now: float) -> bool:
        """Carry out the answer to question `number`; False when it is not pending any more. An
        answer that comes after the request's deadline changes nothing (rule 5)."""
        decision = self.pending.take(number)
        if decision is None:
            return False
        request = decision.request
        if request is not None and request.deadline <= now:
            self.completion.expire(request, now)
        else:
            decision.decide(action, now)
        return True

    def _abandon(self, decision: PendingDecision) -> None:
        self.pending.remove(decision)
        self.hooks.abandon(decision.number)

    def grow(self, request: AcceptedRequest, size: int) -> str:
        """As `PendingDecisions.grow`."""
        return self.pending.grow(request, size)

    def ended(self, request: AcceptedRequest, status: int) -> None:
        """Report the end of `request` to the hooks, and stop waiting for a decision about it."""
        if self.hooks.has_on_end and request.peer.id:
            self.hooks.on_end(Outcome(request, status))
        if request not in self.pending.waiting:
            return
        decision = self.pending.waiting[request]
        self.pending.release(request)
        if decision is not None:
            self._abandon(decision)
        else:
            self.clients[request.peer].waiting.pop(request, None)

    def next_deadline(self) -> float:
        """When the next pending decision is overdue."""
        return self.pending.next_deadline()

    def tick(self, now: float) -> None:
        """End decisions that have taken longer than `hook_timeout` with 500 (rule 11)."""
        for decision in self.pending.overdue(now):
            if decision.number not in self.pending.open:  # one before it has ended this one, too
                continue
            self.registry.count_dropped("hook-timeout", decision.peer.id if decision.peer else b"")
            self.hooks.abandon(decision.number)
            seconds = self.registry.settings.hook_timeout
            text = f"a hook of the broker did not decide within {seconds:g} s"
            self.resume(decision.number, actions.Reject(spec.HANDLER_FAILED, text), now)

"""A request ends: answered, failed, expired or cancelled.

Rules 1 and 5 are here. From `accept` on a request gets exactly one outcome, and everything that it
held is released in one place, `_close`. Every end follows the table of states, which lists no step
from one end to another.

The slot of a request that ends at its worker stays taken until the worker gives it back
(dispatch.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from majordomus.core.broker import encoding
from majordomus.core.broker.error_texts import no_worker_came
from majordomus.core.broker.outgoing import LEGACY
from majordomus.core.broker.queueing import Queueing
from majordomus.core.broker.state.account import FRAME
from majordomus.core.broker.state.transitions import (
    AT_WORKER,
    DISPATCHED,
    HELD,
    OPEN,
    QUEUED,
    REPLIED,
    STEPS,
    STORED,
    STREAMING,
    unlisted,
)
from majordomus.core.broker.streams import Streams
from majordomus.protocol import spec
from majordomus.protocol.spec import Dialect

if TYPE_CHECKING:
    from collections.abc import Iterable

    from majordomus.core.broker.dispatch import Dispatcher
    from majordomus.core.broker.durable.installed import InstalledStore
    from majordomus.core.broker.hooks.installed import InstalledHooks
    from majordomus.core.broker.outgoing import Outgoing
    from majordomus.core.broker.state.registry import Registry
    from majordomus.core.broker.state.requests import AcceptedRequest
    from majordomus.protocol.spec import Frame

MDP03 = Dialect.MDP03
DELPHI = Dialect.DELPHI
JOINED_TOO_LARGE = "the joined parts are too large for one reply"
NO_FRAMES: Final[list[Frame]] = []
"""The body of every request that has ended: one empty list for all, never changed."""
ANSWER = STEPS["answer"]
FINAL = spec.FINAL
"""The command in the tag of an answer: compiled, one object for all of them."""
SILENT = spec.ONE_WAY | spec.DURABLE
"""Flags of requests whose end is sent to no client. The run of a durable request has no client:
durable/lifecycle.py gets its end."""
OF_A_LIMIT = (spec.TOO_LARGE, spec.TOO_MANY)
PLACES = {
    HELD: "in a hook of the broker",
    QUEUED: "in the queue",
    REPLIED: "in a hook of the broker",
}


class Completion:
    """Ends requests, and sends their clients the answers.

    It constructs the two parts that end requests themselves, `queueing` and `streams`, and passes
    itself to them. They import only the Protocol `EndsRequests`, so no import is circular.
    """

    def __init__(
        self,
        registry: Registry,
        outgoing: Outgoing,
        dispatcher: Dispatcher,
        hooks: InstalledHooks,
        store: InstalledStore,
    ) -> None:
        self.store = store
        self.registry = registry
        self.outgoing = outgoing
        self.dispatcher = dispatcher
        self.hooks = hooks
        self.streams = Streams(registry, outgoing, self, hooks)
        self.queueing = Queueing(registry, dispatcher, self.streams, self)

    def accept(self, request: AcceptedRequest) -> None:
        """Open `request`: from here on it gets exactly one outcome (rule 1)."""
        registry = self.registry
        registry.counts.accepted += 1
        registry.open += 1
        request.service.open += 1
        peer, cost = request.peer, request.cost
        request.peer_index = len(peer.requests)
        peer.requests.append(request)
        if request.id > peer.highest_id:
            peer.highest_id = request.id
        if peer.by_key is not None:
            peer.by_key[request.key] = request
        registry.requests.add(request)
        peer.held += cost  # `account.charge`, without its call; in `_close` as well
        peer.account.held += cost
        registry.account.held += cost

    # ── a worker answers ──────────────────────────────────────────────────────────────────────────

    def pass_part(
        self, request: AcceptedRequest, frames: list[Frame], flags: int, metadata: bytes, now: float
    ) -> None:
        """PARTIAL of a worker: send it to the client, or keep it for a client whose dialect has
        only one reply."""
        if request.state not in AT_WORKER or not self.streams.may_pass(request, now):
            return
        request.move("part")
        self.streams.drop_body(request)
        self.registry.counts.parts += 1
        if request.flags & SILENT:
            durable = self.store.durable
            if request.flags & spec.DURABLE and durable is not None:
                durable.part(request, frames, flags, metadata, now)
            return
        holding = self.hooks.holding
        if holding is not None:
            passed = holding.part(request, frames, flags, metadata, now)
            if passed is None:
                if request.state in AT_WORKER:
                    self.streams.grant_back(request, 1, now)
                return
            frames, flags, metadata = passed
        if encoding.takes_parts(request):
            message = encoding.part(request, frames, flags, metadata)
            command, key = (
                (spec.PARTIAL, request.key) if request.dialect is MDP03 else (LEGACY, None)
            )
            self.outgoing.send(request.peer, message, command, key, now)
            return
        if self._join(request, frames):
            self.fail(request, spec.TOO_LARGE, JOINED_TOO_LARGE, now)

    def _join(self, request: AcceptedRequest, frames: list[Frame]) -> bool:
        """Add `frames` to the one reply of a client without parts; True when it is too large."""
        settings = self.registry.settings
        if request.parts is None:
            request.parts = []
        request.parts.extend(frames)
        size = sum(map(len, frames))
        request.parts_size += size
        self.registry.account.grow(request, size + FRAME * len(frames))
        return request.parts_size > settings.max_message or len(request.parts) > settings.max_frames

    def pass_final(
        self,
        request: AcceptedRequest,
        status: int,
        message: list[Frame],
        flags: int,
        metadata: bytes,
        now: float,
    ) -> None:
        """FINAL of a worker: answer `request` with it, unless it has ended or a hook takes the
        reply. The list `message` becomes the message to the client, and its first frame, which is
        the worker's header, the client's."""
        state = request.state
        if state is not DISPATCHED and state is not STREAMING:
            return
        if request.parts is not None and status == spec.OK:
            if self._join(request, message[1:]):
                self.fail(request, spec.TOO_LARGE, JOINED_TOO_LARGE, now)
                return
            message = [b"", *request.parts]
        holding = self.hooks.holding
        if holding is not None and holding.reply(
            request, status, message[1:], flags, metadata, now
        ):
            return
        worker_id = self._set_outcome(request, status)
        if not request.flags & SILENT:
            if request.dialect is MDP03:
                message = encoding.final_from(request, status, message, worker_id, flags, metadata)
                self.outgoing.send(request.peer, message, FINAL, request.named, now)
            else:
                self._send_legacy(request, status, message[1:], now)
        elif request.flags & spec.DURABLE:
            self._end_run(request, status, message[1:], flags, metadata, now)
        self.registry.history.ended(request, now)
        self._close(request, status)

    def answer(
        self,
        request: AcceptedRequest,
        status: int,
        frames: list[Frame],
        flags: int,
        metadata: bytes,
        now: float,
    ) -> None:
        """End `request` with an answer of the broker, or with a reply that its hooks have seen.
        The list `frames` is only read."""
        worker_id = self._set_outcome(request, status)
        self._send_final(request, status, frames, now, worker_id, flags, metadata)
        self.registry.history.ended(request, now)
        self._close(request, status)

    def _set_outcome(self, request: AcceptedRequest, status: int) -> bytes:
        """Move `request` to its outcome and count it. Returns the id of the worker that has
        answered; empty for an answer of the broker."""
        counts = self.registry.counts
        if status == spec.OK:
            at = request.state
            after = ANSWER[at]  # `request.follow(ANSWER)`, without its call
            if after is None:
                raise unlisted("request", "answer", request.state)
            request.state = after
            counts.answered += 1
            request.service.served += 1
        else:
            request.move("fail")
            request.outcome = (status, "")
            counts.failed += 1
        return request.worker.id if request.worker is not None else b""

    # ── other ends ────────────────────────────────────────────────────────────────────────────────

    def fail(self, request: AcceptedRequest, status: int, text: str, now: float) -> None:
        """End `request` with a status of the broker."""
        request.outcome = (status, text)
        self._end(request, "fail", now, status)
        self.registry.counts.failed += 1
        self._send_final(request, status, [text.encode()], now)

    def discard(self, request: AcceptedRequest, now: float) -> None:
        """End `request` without an answer to its client, as a hook has decided."""
        self._end(request, "fail", now, 0)
        self.registry.counts.failed += 1
        self.registry.counts.unanswered += 1

    def fail_if_open(self, request: AcceptedRequest, status: int, text: str, now: float) -> None:
        """`fail`, unless `request` has ended."""
        if request.state in OPEN:
            self.fail(request, status, text, now)

    def cancel(self, request: AcceptedRequest, now: float) -> None:
        """End `request` because its client has cancelled it."""
        self.cancel_silently(request, now)
        self._send_final(request, spec.CANCELLED, [b"cancelled by the client"], now)

    def cancel_silently(self, request: AcceptedRequest, now: float) -> None:
        """End `request` because no client waits for it any more; no answer is sent."""
        self._end(request, "cancel", now, spec.CANCELLED)
        self.registry.counts.cancelled += 1

    def withdraw(self, requests: Iterable[AcceptedRequest], now: float) -> None:
        """Cancel the open requests of a client that is gone. One-way requests go on: they need no
        client."""
        for request in list(requests):
            if request.state in OPEN and not request.flags & spec.ONE_WAY:
                self.cancel_silently(request, now)

    def expire(self, request: AcceptedRequest, now: float) -> None:
        """End `request` at its deadline, wherever it is (rule 5)."""
        status, text = self._expiry(request)
        request.outcome = (status, text)
        self._end(request, "expire", now, status)
        self.registry.counts.expired += 1
        self._send_final(request, status, [text.encode()], now)

    def _expiry(self, request: AcceptedRequest) -> tuple[int, str]:
        """408; 503 when the service had no live worker since the request was accepted."""
        service = request.service
        waited = f"{round(request.deadline - request.accepted, 3):g} s"
        name = request.called.decode()
        if request.state is STORED or service.workers or service.last_worker >= request.accepted:
            place = PLACES.get(request.state, "at a worker")
            if request.state is STORED and self.store.durable is not None:
                place = self.store.durable.place_of(request)
            return (
                spec.DEADLINE_EXCEEDED,
                f"'{name}' did not answer within {waited}; it was {place}",
            )
        return (
            spec.UNAVAILABLE,
            no_worker_came(self.registry, service, request.called, request.caller, waited),
        )

    # ── what every end does ───────────────────────────────────────────────────────────────────────

    def _end(self, request: AcceptedRequest, event: str, now: float, status: int) -> None:
        """Take an open request out of its queue or from its worker. A worker that has got it gets
        CANCEL and keeps the slot; what has not left for it does not leave (rule 5)."""
        if request.queue is not None:
            request.queue.remove(request)
            self.registry.leave_queue(request)
        worker = request.worker if request.state in AT_WORKER else None
        request.move(event)
        if worker is not None:
            id = request.dispatch_id
            has_slot = self.dispatcher.held_as(worker, id) is request
            if self.outgoing.withdraw(worker, id):
                worker.not_delivered(id)
            elif has_slot and worker.dialect is MDP03 and not worker.is_undelivered(id):
                self.outgoing.send(worker.peer, encoding.cancel(request), spec.CANCEL, id, now)
            if has_slot:
                self.registry.account.keep_slot(worker, request)
        self.registry.history.ended(request, now)
        self._close(request, status)
        if worker is not None:
            self.queueing.ended_at(request, worker, now)

    def _close(self, request: AcceptedRequest, status: int) -> None:
        """Release everything that an ended request held, except its slot."""
        if self.hooks.holding is not None:
            self.hooks.holding.ended(request, status)
        registry, service = self.registry, request.service
        registry.open -= 1
        peer, cost = request.peer, request.cost
        peer.held -= cost
        peer.account.held -= cost
        registry.account.held -= cost
        service.open -= 1
        last = peer.requests.pop()
        if last is not request:
            peer.requests[request.peer_index] = last
            last.peer_index = request.peer_index
        request.peer_index = -1
        if peer.by_key is not None:
            peer.forget_key(request)
        if request.bucket is not None:
            request.bucket.remove(request)
        request.message, request.kept = None, NO_FRAMES
        request.parts = None
        request.stream = None
        request.rejected = None
        if not service.open and service.newest_worker is None:
            registry.tidy(service)

    # ── the answer to the client ──────────────────────────────────────────────────────────────────

    def _send_final(
        self,
        request: AcceptedRequest,
        status: int,
        frames: list[Frame],
        now: float,
        worker_id: bytes = b"",
        flags: int = 0,
        metadata: bytes = b"",
    ) -> None:
        if request.flags & SILENT and (
            request.flags & spec.ONE_WAY
            or self._end_run(request, status, frames, flags, metadata, now)
        ):
            return
        if request.dialect is MDP03:
            message = encoding.final(request, status, frames, worker_id, flags, metadata)
            self.outgoing.send(request.peer, message, FINAL, request.key, now)
        else:
            self._send_legacy(request, status, frames, now)

    def decide(self, request: AcceptedRequest) -> None:
        """A hook has decided about the reply to `request`. Of the run of a durable request that is
        the outcome."""
        durable = self.store.durable
        if durable is not None and request.flags & spec.DURABLE:
            durable.decide(request)

    def _end_run(
        self,
        request: AcceptedRequest,
        status: int,
        frames: list[Frame],
        flags: int,
        metadata: bytes,
        now: float,
    ) -> bool:
        """Report the end of the run of a durable request; False when `request` is not one."""
        durable = self.store.durable
        return durable is not None and durable.run_ended(
            request, status, frames, flags, metadata, now
        )

    def _send_legacy(
        self, request: AcceptedRequest, status: int, frames: list[Frame], now: float
    ) -> None:
        """Send the reply to a client of an older dialect, which has no message for a failure."""
        if status == spec.OK:
            message = encoding.legacy_final(request, frames)
        elif self.registry.settings.legacy_errors == "reply":
            body = [str(status).encode(), *(frames[:1] or [b""])]
            message = encoding.legacy_final(request, body)
        else:
            self.registry.counts.unanswered += 1
            if status in OF_A_LIMIT:
                self.registry.refuse(
                    "request-refused",
                    (request.called, status),
                    now,
                    peer=request.peer.id,
                    dialect=request.dialect.value,
                    service=request.called,
                    status=status,
                    why=bytes(frames[0][:200]).decode(errors="replace") if frames else "",
                )
            return
        self.outgoing.send(request.peer, message, LEGACY, None, now)

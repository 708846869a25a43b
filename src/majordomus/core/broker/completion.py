"""A request ends: answered, failed, expired or cancelled.

Rules 1 and 5 live here: from `accept` on a request gets exactly one outcome, and what it held is
let go in one place, `_close`. Every end follows the table of states, which knows no way from one
end to another.

The slot of a request that ends at its worker stays taken until the worker gives it back
(dispatch.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from majordomus.core.broker import encoding
from majordomus.core.broker.error_texts import serving_now
from majordomus.core.broker.outgoing import LEGACY
from majordomus.core.broker.queueing import Queueing
from majordomus.core.broker.state.transitions import (
    AT_WORKER,
    DISPATCHED,
    HELD,
    OPEN,
    QUEUED,
    REPLIED,
    STEPS,
    STREAMING,
)
from majordomus.core.broker.streams import Streams
from majordomus.protocol import spec
from majordomus.protocol.spec import Dialect

if TYPE_CHECKING:
    from collections.abc import Iterable

    from majordomus.core.broker.dispatch import Dispatcher
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
PLACES = {
    HELD: "in a hook of the broker",
    QUEUED: "in the queue",
    REPLIED: "in a hook of the broker",
}


class Completion:
    """Ends requests, and sends their clients the answers.

    It makes the two parts that end requests on their own, `queueing` and `streams`, and hands
    itself to them: they know it as a Protocol.
    """

    def __init__(
        self,
        registry: Registry,
        outgoing: Outgoing,
        dispatcher: Dispatcher,
        hooks: InstalledHooks,
    ) -> None:
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
        request.peer.open[request.key] = request
        registry.requests.add(request)

    # ── a worker answers ──────────────────────────────────────────────────────────────────────────

    def pass_part(
        self, request: AcceptedRequest, frames: list[Frame], flags: int, metadata: bytes, now: float
    ) -> None:
        """PARTIAL of a worker: send it to the client, or keep it for a client whose dialect has
        only one reply."""
        if request.state not in AT_WORKER or not self.streams.may_pass(request, now):
            return
        request.move("part")
        self.registry.counts.parts += 1
        if request.flags & spec.ONE_WAY:
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
        request.parts_size += sum(map(len, frames))
        return request.parts_size > settings.max_message or len(request.parts) > settings.max_frames

    def pass_final(
        self,
        request: AcceptedRequest,
        status: int,
        frames: list[Frame],
        flags: int,
        metadata: bytes,
        now: float,
    ) -> None:
        """FINAL of a worker: answer `request` with it, unless it has ended or a hook takes the
        reply. The list `frames` becomes the message to the client."""
        state = request.state
        if state is not DISPATCHED and state is not STREAMING:
            return
        if request.parts is not None and status == spec.OK:
            if self._join(request, frames):
                self.fail(request, spec.TOO_LARGE, JOINED_TOO_LARGE, now)
                return
            frames = request.parts
        holding = self.hooks.holding
        if holding is not None and holding.reply(request, status, frames, flags, metadata, now):
            return
        worker_id = self._set_outcome(request, status)
        if not request.flags & spec.ONE_WAY:
            if request.dialect is MDP03:
                message = encoding.final_from(request, status, frames, worker_id, flags, metadata)
                self.outgoing.send(request.peer, message, spec.FINAL, request.key, now)
            else:
                self._send_legacy(request, status, frames, now)
        self._close(request, status)
        self.registry.history.ended(request, now)

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
        self._close(request, status)
        self.registry.history.ended(request, now)

    def _set_outcome(self, request: AcceptedRequest, status: int) -> bytes:
        """Move `request` to its outcome and count that. The id of the worker that answered; empty
        for an answer of the broker."""
        counts = self.registry.counts
        if status == spec.OK:
            request.follow(ANSWER)
            counts.answered += 1
            request.service.served += 1
        else:
            request.move("fail")
            request.outcome = (status, "")
            counts.failed += 1
        return request.worker.id if request.worker else b""

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
        """Cancel the open requests of a client that is gone, except those that want no answer."""
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
        if service.workers or service.last_worker >= request.accepted:
            place = PLACES.get(request.state, "at a worker")
            return (
                spec.DEADLINE_EXCEEDED,
                f"'{name}' did not answer within {waited}; it was {place}",
            )
        return (
            spec.UNAVAILABLE,
            f"no worker for service '{name}' came within {waited}; "
            + serving_now(self.registry, request.caller),
        )

    # ── what every end does ───────────────────────────────────────────────────────────────────────

    def _end(self, request: AcceptedRequest, event: str, now: float, status: int) -> None:
        """Take an open request out of its queue or from its worker, which gets CANCEL and keeps the
        slot."""
        if request.queue is not None:
            request.queue.remove(request)
            self.registry.leave_queue(request)
        worker = request.worker if request.state in AT_WORKER else None
        request.move(event)
        if worker is not None and worker.dialect is MDP03 and self._has_slot(request):
            message = encoding.cancel(request)
            self.outgoing.send(worker.peer, message, spec.CANCEL, request.dispatch_id, now)
        streamed = request.stream is not None
        self._close(request, status)
        self.registry.history.ended(request, now)
        if worker is not None and (streamed or worker.dialect is DELPHI):
            self.queueing.ended_at(request, worker, streamed, now)

    def _has_slot(self, request: AcceptedRequest) -> bool:
        return self.dispatcher.held_as(request.worker, request.dispatch_id) is request

    def _close(self, request: AcceptedRequest, status: int) -> None:
        """Let go of everything that an ended request held, except its slot."""
        if self.hooks.holding is not None:
            self.hooks.holding.ended(request, status)
        registry, service = self.registry, request.service
        registry.open -= 1
        service.open -= 1
        request.peer.open.pop(request.key, None)
        if request.bucket is not None:
            request.bucket.remove(request)
        request.body = NO_FRAMES
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
        if request.flags & spec.ONE_WAY:
            return
        if request.dialect is MDP03:
            message = encoding.final(request, status, frames, worker_id, flags, metadata)
            self.outgoing.send(request.peer, message, spec.FINAL, request.key, now)
        else:
            self._send_legacy(request, status, frames, now)

    def _send_legacy(
        self, request: AcceptedRequest, status: int, frames: list[Frame], now: float
    ) -> None:
        """Send the reply to a client of an older dialect, which has no word for a failure."""
        if status == spec.OK:
            message = encoding.legacy_final(request, frames)
        elif self.registry.settings.legacy_errors == "reply":
            body = [str(status).encode(), *(frames[:1] or [b""])]
            message = encoding.legacy_final(request, body)
        else:
            self.registry.counts.unanswered += 1
            return
        self.outgoing.send(request.peer, message, LEGACY, None, now)

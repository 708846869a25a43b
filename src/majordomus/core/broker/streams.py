"""Streams: the credit of both directions of a conversation, and the parts that a client sends
(docs/spec/mdp-0.3.md, section 14).

A sender spends credit that the other end has granted; a sender that spends more ends the
conversation with 429. Credit goes from end to end. The broker grants it itself only for an end
whose dialect has no CREDIT. A `RequestStream` is made with the first part or credit: a plain call
has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from majordomus.core.broker import encoding
from majordomus.core.broker.state.account import FRAME
from majordomus.core.broker.state.request_stream import RequestStream
from majordomus.core.broker.state.transitions import AT_WORKER, HELD, REPLIED
from majordomus.protocol import spec
from majordomus.protocol.spec import Dialect

if TYPE_CHECKING:
    from majordomus.core.broker.hooks.installed import InstalledHooks
    from majordomus.core.broker.outgoing import Outgoing
    from majordomus.core.broker.state.registry import Registry
    from majordomus.core.broker.state.request_stream import StreamPart
    from majordomus.core.broker.state.requests import AcceptedRequest
    from majordomus.core.broker.state.services import FairQueue
    from majordomus.core.broker.state.workers import RegisteredWorker

MDP03 = Dialect.MDP03
PART_COST = 64
"""Bytes that a waiting part counts beside its body: an empty one takes memory as well."""
STEP = spec.FIRST_CREDIT // 2
"""Parts that the broker grants at a time for an end whose dialect has no CREDIT."""

OVERDRAWN_BY_WORKER = "the worker sent more parts than the client had given credit for"
OVERDRAWN_BY_CLIENT = "the client sent more parts than it had been given credit for"
JOINED_TOO_LARGE = "the joined parts are too large for one request"


class EndsRequests(Protocol):
    """How `Streams` and `Queueing` end a request. The class is `Completion`, which makes both."""

    def fail(self, request: AcceptedRequest, status: int, text: str, now: float) -> None: ...

    def expire(self, request: AcceptedRequest, now: float) -> None: ...


def stream_of(request: AcceptedRequest) -> RequestStream:
    """Return the stream of `request`, made if need be."""
    stream = request.stream
    if stream is None:
        stream = request.stream = RequestStream(bool(request.flags & spec.MORE))
    return stream


class Streams:
    """Counts credit, and forwards the client's parts."""

    def __init__(
        self, registry: Registry, outgoing: Outgoing, ends: EndsRequests, hooks: InstalledHooks
    ) -> None:
        self.registry = registry
        self.settings = registry.settings
        self.outgoing = outgoing
        self.ends = ends
        self.hooks = hooks

    # ── worker → client ───────────────────────────────────────────────────────────────────────────

    def may_pass(self, request: AcceptedRequest, now: float) -> bool:
        """Spend one credit for a part of the worker. False when it had none left: the conversation
        has ended with 429.

        A worker whose dialect has no credit cannot be slowed down. It may be ahead of the client by
        as many parts as an outbox holds.
        """
        stream, worker = stream_of(request), request.worker
        slowed = worker is not None and worker.dialect is MDP03
        if stream.down <= (0 if slowed else -self.settings.max_outbox):
            self.ends.fail(request, spec.TOO_MANY, OVERDRAWN_BY_WORKER, now)
            return False
        stream.down -= 1
        grants = request.dialect is MDP03 and not request.flags & spec.ONE_WAY and request.peer.id
        if not grants and stream.down <= STEP:
            self.grant_back(request, STEP, now)
        return True

    def grant_back(self, request: AcceptedRequest, parts: int, now: float) -> None:
        """Grant credit in place of the client, which has no CREDIT or did not get the parts."""
        stream, worker = stream_of(request), request.worker
        stream.down += parts
        if worker is not None and worker.dialect is MDP03:
            self._credit_worker(request, worker, parts, now)

    def client_credit(self, request: AcceptedRequest, parts: int, now: float) -> None:
        """Handle CREDIT of a client: pass it to the worker, now or with the REQUEST."""
        if request.state is REPLIED:
            self.registry.count_dropped("late-credit", request.peer.id, count_only=True)
            return
        stream, worker = stream_of(request), request.worker
        added = min(parts, spec.MOST_CREDIT - stream.down)
        if added <= 0 or request.flags & spec.ONE_WAY:
            self.registry.count_dropped("idle-credit", request.peer.id, count_only=True)
            return
        stream.down += added
        if worker is not None and request.state in AT_WORKER and worker.dialect is MDP03:
            self._credit_worker(request, worker, added, now)

    # ── client → worker ───────────────────────────────────────────────────────────────────────────

    def client_part(self, request: AcceptedRequest, part: StreamPart, now: float) -> None:
        """Handle PARTIAL of a client: forward it, or hold it until a worker has credit for it."""
        stream = request.stream
        if stream is None or not stream.open:
            self.registry.count_dropped("late-part", request.peer.id, count_only=True)
            return
        if stream.up < 1:
            self.ends.fail(request, spec.TOO_MANY, OVERDRAWN_BY_CLIENT, now)
            return
        stream.up -= 1
        stream.waiting.append(part)
        self._forward_or_hold(request, stream, part, now)

    def client_final(self, request: AcceptedRequest, part: StreamPart, now: float) -> None:
        """Handle FINAL of a client: it closes the client's side alone."""
        stream = request.stream
        if stream is None or not stream.open:
            self.registry.count_dropped("late-part", request.peer.id, count_only=True)
            return
        stream.open = False
        stream.up = 0
        stream.final = part
        stream.final_due = True
        self._forward_or_hold(request, stream, part, now)

    def worker_credit(self, request: AcceptedRequest, parts: int, now: float) -> None:
        """Handle CREDIT of a worker: its client may send as many parts, less those that wait at the
        broker already."""
        stream = request.stream
        if stream is None or request.state not in AT_WORKER or not (stream.open or stream.waiting):
            self.registry.count_dropped("late-credit", request.peer.id, count_only=True)
            return
        stream.room = min(stream.room + parts, spec.MOST_CREDIT)
        self._forward(request, stream, now)
        if stream.open:
            self._credit_client(request, stream, stream.room - len(stream.waiting) - stream.up, now)

    def dispatch(
        self, request: AcceptedRequest, stream: RequestStream, worker: RegisteredWorker, now: float
    ) -> None:
        """Send REQUEST to `worker`, with the credit that its client has granted, and the parts that
        wait.

        A worker whose dialect has no parts gets one joined request after the client's FINAL. Until
        then only the slot is taken.
        """
        stream.final_due = stream.final is not None
        if worker.dialect is MDP03:
            stream.room = spec.FIRST_CREDIT
            message = encoding.request_to(worker, request, now)
            self.outgoing.send(worker.peer, message, spec.REQUEST, request.dispatch_id, now)
            if stream.down > spec.FIRST_CREDIT:
                added = stream.down - spec.FIRST_CREDIT
                self._credit_worker(request, worker, added, now)
        else:
            worker.not_delivered(request.dispatch_id)
        self._forward(request, stream, now)

    # ── both ──────────────────────────────────────────────────────────────────────────────────────

    def _forward_or_hold(
        self, request: AcceptedRequest, stream: RequestStream, part: StreamPart, now: float
    ) -> None:
        """Forward a part of the client if its worker has credit; else hold it, within the bounds of
        rule 4."""
        stream.size += part.size
        stream.frames += len(part.body)
        account = self.registry.account
        cost = part.size + FRAME * len(part.body)
        beyond = account.exceeds(request.peer, cost)
        account.grow(request, cost)
        if request.queue is not None:
            full = self._grow(request, request.queue, part.size)
        elif request.state is HELD and self.hooks.holding is not None:
            full = self.hooks.holding.grow(request, part.size)
        else:
            request.size += part.size
            if request.state in AT_WORKER and not self._forward(request, stream, now):
                return
            large = stream.size > self.settings.max_client_queue_bytes
            full = f"{stream.size} bytes of this stream wait already" if large else ""
        if beyond and not full:
            full = account.problem(request.peer, 0)
        if full:
            self.ends.fail(request, spec.TOO_MANY, full, now)

    def _grow(self, request: AcceptedRequest, queue: FairQueue, size: int) -> str:
        """Count more bytes of a queued request. Returns the bound that is exceeded now; empty when
        none is."""
        peer, registry, settings = request.peer, self.registry, self.settings
        request.size += size
        queue.size += size
        peer.queued_bytes += size
        registry.queued_bytes += size
        if queue.size > settings.max_service_queue_bytes:
            return f"{queue.size} bytes wait for service '{request.service.name.decode()}' already"
        if peer.queued_bytes > settings.max_client_queue_bytes:
            return f"{peer.queued_bytes} bytes of this client wait already"
        if registry.queued_bytes > settings.max_queue_bytes:
            return f"{registry.queued_bytes} bytes wait at this broker already"
        return ""

    def _forward(self, request: AcceptedRequest, stream: RequestStream, now: float) -> bool:
        """Send the worker the waiting parts that it has credit for. False when that has ended the
        request."""
        worker = request.worker
        if worker is None:
            return True
        if worker.dialect is not MDP03:
            return self._join(request, stream, worker, now)
        waiting = stream.waiting
        while waiting and stream.room:
            part = waiting.popleft()
            stream.room -= 1
            stream.size -= part.size
            stream.frames -= len(part.body)
            request.size -= part.size
            self.registry.account.grow(request, -part.size - FRAME * len(part.body))
            request.move("part")
            self.drop_body(request)
            self.registry.counts.parts += 1
            message = encoding.part_to(request, part)
            self.outgoing.send(worker.peer, message, spec.PARTIAL, request.dispatch_id, now)
        if stream.final_due and not waiting and stream.final is not None:
            stream.final_due = False
            message = encoding.final_to(request, stream.final)
            self.outgoing.send(worker.peer, message, spec.FINAL, request.dispatch_id, now)
        return True

    def drop_body(self, request: AcceptedRequest) -> None:
        """Let go of the body once a part has passed: from then on no other worker gets `request`
        (rule 3). A legacy worker may not have got it yet."""
        worker = request.worker
        if not request.body or worker is None or worker.dialect is not MDP03:
            return
        size, frames = sum(map(len, request.body)), len(request.body)
        request.body = []
        request.size -= size
        self.registry.account.grow(request, -size - FRAME * frames)

    def _join(
        self, request: AcceptedRequest, stream: RequestStream, worker: RegisteredWorker, now: float
    ) -> bool:
        """Send one joined request to a worker whose dialect has no parts, after the client's FINAL.
        Until then grant credit to the client. False when the request has ended as too large."""
        if not worker.is_undelivered(request.dispatch_id):
            return True
        frames, size = request.frame_count() + stream.frames, request.size
        if frames > self.settings.max_frames or size > self.settings.max_message:
            self.ends.fail(request, spec.TOO_LARGE, JOINED_TOO_LARGE, now)
            return False
        if stream.open:
            if stream.up <= STEP:
                self._credit_client(request, stream, STEP, now)
            return True
        worker.delivered(request.dispatch_id)
        stream.final_due = False
        body = stream.joined(request.body)
        message = encoding.request_to(worker, request, now, body)
        self.outgoing.send(worker.peer, message, spec.REQUEST, request.dispatch_id, now)
        return True

    def _credit_client(
        self, request: AcceptedRequest, stream: RequestStream, parts: int, now: float
    ) -> None:
        """Send CREDIT to the client."""
        if parts > 0:
            stream.up += parts
            frames = [*request.envelope, *encoding.credit(request.id, parts)]
            self.outgoing.send(request.peer, frames, spec.CREDIT, request.key, now)

    def _credit_worker(
        self, request: AcceptedRequest, worker: RegisteredWorker, parts: int, now: float
    ) -> None:
        """Send CREDIT to an MDP/0.3 worker."""
        message = encoding.credit(request.dispatch_id, parts)
        self.outgoing.send(worker.peer, message, spec.CREDIT, request.dispatch_id, now)

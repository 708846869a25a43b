"""Requests on their way: queued, dispatched, answered or ended in another way; slots taken and
given back.

Rules 1, 3, 5, 6 and the slot rule of MDP/0.3 live here, and nowhere else.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from majordomus.core.broker import bounds, hedging
from majordomus.core.broker import encoding as speech
from majordomus.core.broker.balancing.registry import set_weight
from majordomus.core.broker.error_texts import serving_now
from majordomus.core.broker.retries import Retries
from majordomus.core.broker.state.history import note
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
from majordomus.protocol.spec import BROKER_ID_BIT, Dialect

if TYPE_CHECKING:
    from collections.abc import Iterable

    from majordomus.core.broker.hooks.holding import Holding
    from majordomus.core.broker.outgoing import Outgoing
    from majordomus.core.broker.state.registry import Registry
    from majordomus.core.broker.state.requests import AcceptedRequest
    from majordomus.core.broker.state.services import FairQueue, Service
    from majordomus.core.broker.state.workers import RegisteredWorker
    from majordomus.protocol.spec import Frame

MDP03 = Dialect.MDP03
DELPHI = Dialect.DELPHI
JOINED_TOO_LARGE = "the joined parts are too large for one reply"
NO_FRAMES: Final[list[Frame]] = []
"""The body of what has ended; nobody puts anything in."""
DISPATCH, ANSWER = STEPS["dispatch"], STEPS["answer"]
PLACES = {
    HELD: "in a hook of the broker",
    QUEUED: "in the queue",
    REPLIED: "in a hook of the broker",
}


class Dispatcher:
    """Moves requests between clients and workers."""

    def __init__(self, registry: Registry, outgoing: Outgoing) -> None:
        self.registry = registry
        self.outgoing = outgoing
        self.streams = Streams(self)
        self.losses = Retries(self)
        self.hooks: Holding | None = None

    # ── a request comes ───────────────────────────────────────────────────────────────────────────

    def accept(self, request: AcceptedRequest) -> None:
        """Take `request` in. From here on it gets exactly one final outcome (rule 1)."""
        registry = self.registry
        registry.counts.accepted += 1
        registry.open += 1
        request.service.open += 1
        request.peer.open[request.key] = request
        registry.requests.add(request)

    def place(self, request: AcceptedRequest, now: float) -> None:
        """Dispatch `request` if a worker may have it, else let it wait behind its peer's others.
        A second try waits for nobody."""
        worker = self._choose(request)
        if worker is not None:
            self.dispatch(request, worker, now)
            return
        if request.rejected is not None:
            self.fail(request, spec.UNAVAILABLE, hedging.NO_OTHER, now)
            return
        registry = self.registry
        full = bounds.broken(self.registry, request)
        if full:
            self.fail(request, spec.TOO_MANY, full, now)
            return
        request.move("queue")
        queue = self._queue_of(request)
        request.behind = queue.count if request.service.workers else -1
        queue.push(request)
        self._entered(request)
        registry.backlogged[request.service] = None

    def _choose(self, request: AcceptedRequest) -> RegisteredWorker | None:
        if request.target is not None:
            return request.target if request.target.has_room() else None
        service = request.service
        if service.only_worker is not None:
            return service.choose(request)
        return service.strategy.choose(request)

    def _queue_of(self, request: AcceptedRequest) -> FairQueue:
        return request.target.reserved if request.target else request.service.queue

    def _entered(self, request: AcceptedRequest) -> None:
        self.registry.queued += 1
        self.registry.queued_bytes += request.size
        request.peer.queued += 1
        request.peer.queued_bytes += request.size

    def _left(self, request: AcceptedRequest) -> None:
        self.registry.queued -= 1
        self.registry.queued_bytes -= request.size
        request.peer.queued -= 1
        request.peer.queued_bytes -= request.size
        waiting = request.service.waiting
        if waiting is None or not waiting.count:
            self.registry.backlogged.pop(request.service, None)

    # ── to a worker and back ──────────────────────────────────────────────────────────────────────

    def dispatch(self, request: AcceptedRequest, worker: RegisteredWorker, now: float) -> None:
        """Give `request` to `worker`: a slot is held from here until its FINAL, its REJECT or its
        loss."""
        registry = self.registry
        request.follow(DISPATCH)
        request.attempt += 1
        request.given = now
        request.worker = worker
        number = registry.last_number = registry.dispatched.give(request, registry.last_number)
        request.dispatch = BROKER_ID_BIT | number
        if not worker.holding:
            worker.busy_since = now
        worker.hold(request)
        if worker.dialect is not MDP03:
            self._remember_handle(worker, request)
        registry.counts.dispatched += 1
        service = request.service
        if service.only_worker is None and service.given is not None:
            service.given(worker)
        self._weigh(worker)
        if request.stream is None:
            self.outgoing.say(worker.peer, speech.request_to(worker, request, now), now)
        else:
            self.streams.dispatch(request, request.stream, worker, now)

    def _remember_handle(self, worker: RegisteredWorker, request: AcceptedRequest) -> None:
        handle = speech.handle_of(worker, request, request.dispatch)
        worker.handles.setdefault(handle, deque()).append(request.dispatch)

    def _weigh(self, worker: RegisteredWorker) -> None:
        """Tell the strategies of `worker`'s services what it holds now."""
        only = worker.only_service
        if only is not None:  # the list of all would be two more lines of a cache
            only.weigh(worker)
            return
        for service in worker.order:
            service.weigh(worker)

    def release(self, worker: RegisteredWorker, number: int) -> AcceptedRequest | None:
        """Give the slot of dispatch `number` back; None when `worker` does not hold it (rule 2)."""
        request = self.registry.dispatched.take(worker, number)
        if request is None:
            return None
        worker.let_go(request)
        if worker.dialect is not MDP03:
            self._forget_handle(worker, request, number)
        self._weigh(worker)
        return request

    def held_as(self, worker: RegisteredWorker | None, number: int) -> AcceptedRequest | None:
        """The request that has a slot of `worker` as dispatch `number`."""
        return None if worker is None else self.registry.dispatched.of(worker, number)

    def _forget_handle(
        self, worker: RegisteredWorker, request: AcceptedRequest, number: int
    ) -> None:
        handle = speech.handle_of(worker, request, number)
        waiting = worker.handles[handle]
        waiting.remove(number)
        if not waiting:
            del worker.handles[handle]

    def feed(self, worker: RegisteredWorker, now: float) -> None:
        """Give `worker` what waits, as long as it has free slots (rule 6)."""
        if not self.registry.queued:
            return
        while worker.has_room():
            request = self._next_for(worker)
            if request is None:
                return
            self._left(request)
            if request.deadline <= now:
                self.expire(request, now)
            else:
                self.dispatch(request, worker, now)

    def _next_for(self, worker: RegisteredWorker) -> AcceptedRequest | None:
        """By turns a request that asks for `worker` alone and one that does not, so that nobody
        passes the others by naming workers (rule 7)."""
        reserved = worker.waiting
        if reserved is not None and reserved.count and not worker.reserved_last:
            worker.reserved_last = True
            return reserved.pop_for(worker)
        worker.reserved_last = False
        request = self._next_of_services(worker)
        return reserved.pop_for(worker) if request is None and reserved is not None else request

    def _next_of_services(self, worker: RegisteredWorker) -> AcceptedRequest | None:
        only = worker.only_service
        if only is not None:
            return None if only.waiting is None else only.waiting.pop_for(worker)
        order = worker.order
        backlogged = self.registry.backlogged
        if len(backlogged) < len(order):
            for service in backlogged:
                if service.name in worker.services:
                    request = service.queue.pop_for(worker)
                    if request is not None:
                        backlogged.move_to_end(service)
                        return request
            return None
        for _ in range(len(order)):
            service = order[0]
            order.append(order.pop(0))
            if service.queue:
                request = service.queue.pop_for(worker)
                if request is not None:
                    return request
        return None

    # ── a worker speaks of a request ──────────────────────────────────────────────────────────────

    def part(
        self, request: AcceptedRequest, frames: list[Frame], flags: int, metadata: bytes, now: float
    ) -> None:
        """PARTIAL: pass one part on, or keep it for a client whose dialect knows only one reply."""
        if request.state not in AT_WORKER or not self.streams.may_pass(request, now):
            return
        request.move("part")
        self.registry.counts.parts += 1
        if request.flags & spec.ONE_WAY:
            return
        if self.hooks is not None:
            passed = self.hooks.part(request, frames, flags, metadata, now)
            if passed is None:
                if request.state in AT_WORKER:
                    self.streams.grant_back(request, 1, now)
                return
            frames, flags, metadata = passed
        if speech.takes_parts(request):
            self.outgoing.say(request.peer, speech.part(request, frames, flags, metadata), now)
            return
        if self._join(request, frames):
            self.fail(request, spec.TOO_LARGE, JOINED_TOO_LARGE, now)

    def _join(self, request: AcceptedRequest, frames: list[Frame]) -> bool:
        """Add `frames` to the one reply that is to come; whether it breaks the bounds of a
        message."""
        settings = self.registry.settings
        if request.parts is None:
            request.parts = []
        request.parts.extend(frames)
        request.parts_size += sum(map(len, frames))
        return request.parts_size > settings.max_message or len(request.parts) > settings.max_frames

    def answer(
        self,
        request: AcceptedRequest,
        status: int,
        frames: list[Frame],
        flags: int,
        metadata: bytes,
        now: float,
        heard: bool = False,
    ) -> None:
        """FINAL: the request ends with the worker's own words, if nothing has ended it before.

        `heard`: no more is to be asked, these words are the broker's or have passed its hooks. If
        not, the list of frames becomes the message.
        """
        if not heard:
            state = request.state
            if state is not DISPATCHED and state is not STREAMING:
                return
            if request.parts is not None and status == spec.OK:
                if self._join(request, frames):
                    self.fail(request, spec.TOO_LARGE, JOINED_TOO_LARGE, now)
                    return
                frames = request.parts
            hooks = self.hooks
            if hooks is not None and hooks.reply(request, status, frames, flags, metadata, now):
                return
        counts = self.registry.counts
        if status == spec.OK:
            request.follow(ANSWER)
            counts.answered += 1
            request.service.served += 1
        else:
            request.move("fail")
            request.outcome = (status, "")
            counts.failed += 1
        worker_id = request.worker.id if request.worker else b""
        self._tell(request, status, frames, now, worker_id, flags, metadata, not heard)
        self._close(request, status)
        self.registry.stories.ended(request, now)

    def reject(self, request: AcceptedRequest, worker: RegisteredWorker, now: float) -> None:
        """REJECT: nothing ran, so it does not count as an attempt, and another worker gets the
        request."""
        self.registry.counts.rejected += 1
        if request.state not in AT_WORKER:
            return
        if request.state is STREAMING:
            self.fail(request, spec.WORKER_LOST, "the worker declined after parts had passed", now)
            return
        note(request, "declined", now)
        request.attempt -= 1
        rejected = request.rejected = request.rejected or set()
        rejected.add(worker)
        self.requeue((request,), now)

    def requeue(self, requests: Iterable[AcceptedRequest], now: float) -> None:
        """Requests that came back from a worker, oldest first: to another one, or to the front
        (rule 3)."""
        waiting: list[AcceptedRequest] = []
        for request in requests:
            if request.deadline <= now:
                self.expire(request, now)
                continue
            if self.declined_by_all(request):
                self.fail_declined(request, now)
                continue
            request.move("queue")
            request.worker = None
            worker = self._choose(request)
            if worker is None:
                waiting.append(request)
            else:
                self.dispatch(request, worker, now)
        for request in reversed(waiting):
            self._queue_of(request).push_front(request)
            self._entered(request)
            self.registry.backlogged[request.service] = None

    def declined_by_all(self, request: AcceptedRequest) -> bool:
        if request.rejected is None:
            return False
        if request.target is not None:
            return request.target in request.rejected
        workers = request.service.workers.values()
        return bool(workers) and all(worker in request.rejected for worker in workers)

    def fail_declined(self, request: AcceptedRequest, now: float) -> None:
        name = request.called.decode()
        self.fail(request, spec.UNAVAILABLE, f"every worker of '{name}' declined", now)

    # ── other ends ────────────────────────────────────────────────────────────────────────────────

    def fail(self, request: AcceptedRequest, status: int, text: str, now: float) -> None:
        """End `request` with a status of the broker's own."""
        request.outcome = (status, text)
        self._end(request, "fail", now, status)
        self.registry.counts.failed += 1
        self._tell(request, status, [text.encode()], now)

    def discard(self, request: AcceptedRequest, now: float) -> None:
        """End `request` without a word to its client: a hook wants it so."""
        self._end(request, "fail", now, 0)
        self.registry.counts.failed += 1
        self.registry.counts.unanswered += 1

    def give_up(self, request: AcceptedRequest, status: int, text: str, now: float) -> None:
        """`fail`, unless something else has ended `request` already."""
        if request.state in OPEN:
            self.fail(request, status, text, now)

    def cancel(self, request: AcceptedRequest, now: float, tell: bool = True) -> None:
        """End `request` because its client does not want it any more, or is gone."""
        self._end(request, "cancel", now, spec.CANCELLED)
        self.registry.counts.cancelled += 1
        if tell:
            self._tell(request, spec.CANCELLED, [b"cancelled by the client"], now)

    def expire(self, request: AcceptedRequest, now: float) -> None:
        """End `request` at its deadline, wherever it is (rule 5)."""
        status, text = self._expiry(request)
        request.outcome = (status, text)
        self._end(request, "expire", now, status)
        self.registry.counts.expired += 1
        self._tell(request, status, [text.encode()], now)

    def _expiry(self, request: AcceptedRequest) -> tuple[int, str]:
        """503 when no live worker was there since the request was accepted, else 408."""
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

    def _end(self, request: AcceptedRequest, event: str, now: float, status: int) -> None:
        """Take an open request out of wherever it is; the worker that has it is told, and keeps its
        slot."""
        if request.queue is not None:
            request.queue.remove(request)
            self._left(request)
        worker = request.worker if request.state in AT_WORKER else None
        request.move(event)
        if worker is not None and worker.dialect is MDP03 and self._has_slot(worker, request):
            self.outgoing.say(worker.peer, speech.cancel(request), now)
        streamed = request.stream is not None
        self._close(request, status)
        self.registry.stories.ended(request, now)
        if worker is not None and streamed:
            self.streams.ended(request, worker, now)
        if worker is not None and worker.dialect is DELPHI:
            self._make_room(worker, now)

    def _has_slot(self, worker: RegisteredWorker, request: AcceptedRequest) -> bool:
        return self.registry.dispatched.of(worker, request.dispatch) is request

    def _make_room(self, worker: RegisteredWorker, now: float) -> None:
        """A Delphi worker need not answer what it gets, and gets any number (docs/spec/delphi.md):
        what it
        left unanswered is remembered while there is room. When there is none, the oldest is
        forgotten."""
        if worker.holding < worker.capacity:
            return
        request = worker.oldest
        while request is not None and request.state in OPEN:
            request = request.newer
        if request is not None:
            self.registry.drop("never-answered", worker.id)
            self.release(worker, request.dispatch)
            self.feed(worker, now)

    def _close(self, request: AcceptedRequest, status: int) -> None:
        """Let go of everything that an ended request held, but its slot."""
        if self.hooks is not None:
            self.hooks.ended(request, status)
        registry, service = self.registry, request.service
        registry.open -= 1
        service.open -= 1
        request.peer.open.pop(request.key, None)
        if request.slot is not None:
            request.slot.remove(request)
        request.body = NO_FRAMES
        request.parts = None
        request.stream = None
        request.rejected = None
        if not service.open and service.only_worker is None and not service.workers:
            registry.tidy(service)

    def _tell(
        self,
        request: AcceptedRequest,
        status: int,
        frames: list[Frame],
        now: float,
        worker_id: bytes = b"",
        flags: int = 0,
        metadata: bytes = b"",
        own: bool = False,
    ) -> None:
        if request.flags & spec.ONE_WAY:
            return
        if request.dialect is MDP03:
            message = speech.final(request, status, frames, worker_id, flags, metadata, own)
        elif status == spec.OK:
            message = speech.legacy_final(request, frames)
        elif self.registry.settings.legacy_errors == "reply":
            message = speech.legacy_final(request, [str(status).encode(), *(frames[:1] or [b""])])
        else:
            self.registry.counts.unanswered += 1
            return
        self.outgoing.say(request.peer, message, now)

    # ── workers come and go ───────────────────────────────────────────────────────────────────────

    def enrol(self, worker: RegisteredWorker, service: Service, now: float) -> None:
        """`worker` serves `service` from now on."""
        service.enter(worker)
        self.registry.served[service] = None
        worker.services[service.name] = service
        worker.order.append(service)
        worker.only_service = service if len(worker.order) == 1 else None
        set_weight(worker, service)
        self._weigh(worker)
        self.feed(worker, now)

    def reweigh(self, worker: RegisteredWorker, now: float) -> None:
        """`worker`'s capacity, state or load has changed."""
        self._weigh(worker)
        self.feed(worker, now)

    def withdraw(self, requests: Iterable[AcceptedRequest], now: float) -> None:
        """Their client is gone: cancelled, but for those that asked for no answer."""
        for request in list(requests):
            if request.state in OPEN and not request.flags & spec.ONE_WAY:
                self.cancel(request, now, tell=False)

"""A durable request from its acceptance to its end.

    accept → write → place → run → outcome → write → answer

Nothing says that a request is accepted, and no worker gets it, before its row is stored; no client
gets an outcome before that is stored. Everything else (attempts, removal) is written along and
waits for nothing. After a restart `recover` continues with every row that has no outcome: what ran
then runs again.

The run of a durable request is a request of its owner, an internal peer. It goes through the queue
and the dispatcher as any other; `run_ended` gets its end in place of a client.
"""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING, Final

from majordomus.core.broker import encoding
from majordomus.core.broker.accel import arithmetic
from majordomus.core.broker.balancing.rng import RandomSource
from majordomus.core.broker.durable import ids, options, policy
from majordomus.core.broker.durable.backlog import Backlog
from majordomus.core.broker.durable.records import (
    DAMAGED,
    Append,
    Attempted,
    Complete,
    Find,
    Read,
    Remove,
    StoredOutcome,
    StoredRequest,
    StoreState,
    Sweep,
)
from majordomus.core.broker.durable.requests import DurableRequest, Owner, Wants
from majordomus.core.broker.durable.writes import Writes
from majordomus.core.broker.state.account import DURABLE_ROW, FRAME, cost_of
from majordomus.core.broker.state.peers import Peer
from majordomus.core.broker.state.requests import AcceptedRequest
from majordomus.core.broker.state.timer_wheel import Deadlines
from majordomus.core.broker.state.transitions import ENDING, OPEN, RUNNING, STORING, WAITING
from majordomus.protocol import spec
from majordomus.protocol.spec import Dialect

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from majordomus.core.broker.completion import Completion
    from majordomus.core.broker.durable.options import Options
    from majordomus.core.broker.durable.records import Answer, Opened
    from majordomus.core.broker.durable.writes import Consequence
    from majordomus.core.broker.outgoing import Outgoing
    from majordomus.core.broker.queueing import Queueing
    from majordomus.core.broker.state.registry import Registry
    from majordomus.core.broker.state.services import Service
    from majordomus.protocol.spec import Frame

MDP03 = Dialect.MDP03
NO_FRAMES: Final[list[Frame]] = []
NO_ANSWERS: Final[dict[int, Answer]] = {}
HANDLE: Final = bytes(8)
_ROW, _FRAME = DURABLE_ROW, FRAME
LONGEST_RUN: Final = 4_294_967.0
"""Seconds that one run may take: 49 days, the most that the header of a REQUEST can state."""
RECORD_AFTER: Final = 0.25
"""Seconds between two looks for attempts that are not stored. A faster run is stored with its
outcome."""
SWEEP_EVERY: Final = 5.0
SWEEP_MOST: Final = 1000
ID, NOTHING, OUTCOME, RESULT = Wants.ID, Wants.NOTHING, Wants.OUTCOME, Wants.RESULT
TITANIC_ID, TITANIC_REPLY = Wants.TITANIC_ID, Wants.TITANIC_REPLY
TITANIC_DONE = Wants.TITANIC_DONE
"""Python 3.11 looks a member of an Enum up by a function of Python each time."""
AT_STORING: Final = (ID, NOTHING, TITANIC_ID)
"""Wishes that are fulfilled when the request itself is stored."""
DISK_FULL: Final = "the disk of the broker's store is almost full"
NO_LONGER_KEPT: Final = "the outcome of this request is no longer kept"
NO_SUCH_ID: Final = "this broker has not given this id, or not to you"
ENDED_ALREADY: Final = "the request has an outcome already"
NOT_ENDED: Final = "the request has no outcome yet: withdraw it first"
WITHDRAWN: Final = "withdrawn"
ROW_DAMAGED: Final = "the broker's store has this request, but damaged: majordomus durable verify"
RESULT_NAME: Final = b"$durable.result"
LOOKED_THROUGH: Final = 64
AT_THE_STORE: Final = "waiting for the store"
BEING_STORED: Final = "being stored: whether it goes on is unknown"


class DurableRequests:
    """The durable requests of one broker.

    secret: what makes public ids unguessable.
    offset: wall-clock seconds minus monotonic seconds, fixed at the start.
    state: what the store has reported last.
    jobs: the durable requests without a stored outcome, by number.
    owners: the owners that have one of them.
    declared: services whose every request is durable, with the limit of attempts they declare.
    """

    def __init__(
        self,
        registry: Registry,
        outgoing: Outgoing,
        completion: Completion,
        queueing: Queueing,
        opened: Opened,
        now: float,
    ) -> None:
        self.registry = registry
        self.outgoing = outgoing
        self.completion = completion
        self.queueing = queueing
        self.name = opened.name
        self.secret = opened.secret
        self.offset = opened.wall - now
        self.state = StoreState()
        self.writes = Writes()
        self.jobs: dict[int, DurableRequest] = {}
        self.owners: dict[str, Owner] = {}
        self.declared: dict[bytes, int] = {}
        self.backlog = Backlog(registry)
        self.random = RandomSource(registry.ids(8))
        self._next = opened.first
        self._due = Deadlines()
        self._expiries = Deadlines()
        self._unrecorded: dict[DurableRequest, None] = {}
        self._finding: dict[AcceptedRequest, None] = {}
        self._record_at = inf
        self._sweep_at = now
        self._refill: dict[bytes, None] = {}
        self._refill_at = inf

    # ── acceptance ────────────────────────────────────────────────────────────────────────────────

    def submit(self, request: AcceptedRequest, now: float) -> None:
        """Store `request`, which has passed all checks of a request; refuse it when it cannot be
        durable."""
        flags = request.flags
        request.flags = flags & ~spec.DURABLE
        field = request.metadata if flags & spec.METADATA else b""
        asked = options.read(flags, field, request.target is not None)
        if isinstance(asked, str):
            self.completion.fail(request, spec.BAD_REQUEST, asked, now)
            return
        wants = OUTCOME
        if flags & spec.ONE_WAY:
            wants = NOTHING
        elif asked.detach:
            wants = ID
        body = request.body
        problem = self.problem(request.caller.user, body, field)
        if problem and asked.key:
            self._find(request, asked.key, wants, problem)
            return
        if problem:
            self.completion.fail(request, spec.TOO_MANY, problem, now)
            return
        service, called = request.service.name, request.called
        self.enter(request, service, called, body, field, asked, wants, now)

    def problem(self, owner: str, body: list[Frame], field: bytes) -> str:
        """Why no new durable request of `owner` is accepted now; empty when one is (rule 4)."""
        registry = self.registry
        if not self.state.accepts:
            return DISK_FULL
        if len(self.jobs) >= registry.settings.max_durable:
            return f"{len(self.jobs)} durable requests are open at this broker already"
        account, cost = registry.account, cost_of_row(body, field)
        known = self.owners.get(owner)
        peer = self._new_peer(owner) if known is None else known.peer
        return account.problem(peer, cost) if account.exceeds(peer, cost) else ""

    def _find(self, request: AcceptedRequest, key: bytes, wants: Wants, problem: str) -> None:
        """Answer a request with a key that cannot be accepted: it may be one that is stored."""
        digest = options.digest_of(request.body)
        find = Find(request.caller.user, request.service.name, key)
        self.let_wait(request)
        self._finding[request] = None
        self.writes.add(find, partial(self._found, request, wants, digest, problem))

    def _found(
        self,
        request: AcceptedRequest,
        wants: Wants,
        digest: bytes,
        problem: str,
        answer: Answer,
        now: float,
    ) -> None:
        self._finding.pop(request, None)
        if request.state not in OPEN:
            return
        if isinstance(answer, StoredRequest) and not self._is_over(answer, now):
            self._same_key(digest, answer, [(request, wants)], now)
        elif answer is DAMAGED:
            self._refuse(request, wants, spec.HANDLER_FAILED, ROW_DAMAGED, now)
        else:
            self._refuse(request, wants, spec.TOO_MANY, problem, now)

    def enter(
        self,
        request: AcceptedRequest,
        service: bytes,
        called: bytes,
        body: list[Frame],
        field: bytes,
        asked: Options,
        wants: Wants,
        now: float,
    ) -> None:
        """Write a new durable request. `request` waits for what it `wants` of it."""
        wall = now + self.offset
        settings = self.registry.settings
        keep = settings.durable_keep if asked.keep is None else asked.keep
        expires = inf if asked.expires is None else wall + asked.expires
        owner = request.caller.user
        row = StoredRequest.__new__(StoredRequest)
        row.fill(self._next, owner, service, called, body, field, wall, expires, keep)
        if asked.key:
            row.key = asked.key
            row.digest = options.digest_of(body)
        self._next += 1
        job = self._make(row)
        job.expires = inf if asked.expires is None else now + asked.expires
        job.kept = bool(asked.key) or asked.keep is not None
        self.let_wait(request)
        job.wait(request, wants)
        self.writes.add(Append(row), job)

    def let_wait(self, request: AcceptedRequest) -> None:
        """Let `request` wait for the store or for an outcome. It holds its body no longer."""
        request.move("store")
        request.body = NO_FRAMES
        request.size = 0
        self.registry.account.recount(request)

    def place_of(self, request: AcceptedRequest) -> str:
        """Where `request` is, which waits for the store or for an outcome, as its 408 says.
        Rows that are being stored are the last ones; behind LOOKED_THROUGH of them none is looked
        for, and nothing certain is said."""
        service = request.service
        if service.own and not service.known:  # a name that the broker answers itself
            return "waiting for the outcome" if service.name == RESULT_NAME else AT_THE_STORE
        if request in self._finding:
            return AT_THE_STORE
        for seen, job in enumerate(reversed(self.jobs.values()), 1):
            if job.state is not STORING:
                break
            if seen == LOOKED_THROUGH or any(one is request for one, _ in job.waiting):
                return BEING_STORED
        return "stored, and goes on"

    def _make(self, row: StoredRequest) -> DurableRequest:
        peer = self._owner(row.owner)
        job = DurableRequest.__new__(DurableRequest)
        job.prepare(row, peer, cost_of_row(row.body, row.metadata))
        job.size = arithmetic.size(row.body)
        self.jobs[row.number] = job
        self.registry.account.charge(peer, job.cost)
        return job

    def _owner(self, user: str) -> Peer:
        """The internal peer of an owner: runs are requests of it. It is in no table of peers."""
        owner = self.owners.get(user)
        if owner is None:
            owner = self.owners[user] = Owner(self._new_peer(user))
        owner.jobs += 1
        return owner.peer

    def _new_peer(self, user: str) -> Peer:
        peer = Peer(b"", MDP03, HANDLE, 0.0)
        peer.user = user
        peer.account = self.registry.account.of(user)
        return peer

    def _forget(self, job: DurableRequest) -> None:
        """Let go of everything that `job`, which has no run, holds in memory."""
        del self.jobs[job.row.number]
        self.registry.account.charge(job.peer, -job.cost)
        owner = self.owners[job.row.owner]
        owner.jobs -= 1
        if not owner.jobs:
            del self.owners[job.row.owner]

    def _appended(self, job: DurableRequest, answer: Answer, now: float) -> None:
        """The store has taken `job`, or refused it."""
        if answer is None:
            job.move("store")
            if job.early:
                for request, wants in job.take(AT_STORING):
                    self._answer(request, wants, job.row.number, None, now)
            if job.expires < inf:
                job.expiry = self._expiries.add(job, job.expires)
            self._wait(job, now)
            return
        if isinstance(answer, StoredRequest) and self._is_over(answer, now):
            self.writes.add(Remove(answer.number))
            self.writes.add(Append(job.row), job)
            return
        job.move("refuse")
        self._forget(job)
        waiting = [one for one in job.waiting if one[0].state in OPEN]
        if isinstance(answer, StoredRequest):
            self._same_key(job.row.digest, answer, waiting, now)
            return
        if answer is DAMAGED:
            for request, wants in waiting:
                self._refuse(request, wants, spec.HANDLER_FAILED, ROW_DAMAGED, now)
            return
        self.set_state(self.state._replace(accepts=False))
        for request, wants in waiting:
            self._refuse(request, wants, spec.TOO_MANY, DISK_FULL, now)

    def _is_over(self, row: StoredRequest, now: float) -> bool:
        """Whether `row` is kept no longer: it is deleted soon, and its key is free."""
        return row.outcome is not None and row.outcome.until <= now + self.offset

    def _same_key(
        self,
        digest: bytes,
        row: StoredRequest,
        waiting: list[tuple[AcceptedRequest, Wants]],
        now: float,
    ) -> None:
        """The key of a request belongs to `row`: that is the same request when `digest` is that of
        its body, else a conflict."""
        if row.digest != digest:
            key = row.key.decode("utf-8", "replace")
            text = f"key '{key}' belongs to a request with another body"
            for request, wants in waiting:
                self._refuse(request, wants, spec.CONFLICT, text, now)
            return
        for request, wants in waiting:
            if wants in AT_STORING:
                self._answer(request, wants, row.number, None, now)
            else:
                self._wait_for(row, request, wants, now)

    def _wait_for(
        self, row: StoredRequest, request: AcceptedRequest, wants: Wants, now: float
    ) -> None:
        """Answer `request` with the outcome of `row`, now or when there is one."""
        open_job = self.jobs.get(row.number)
        if open_job is not None:
            open_job.wait(request, wants)
            if self.registry.draining and open_job.state is WAITING:
                self._release(open_job, now)
        elif row.outcome is not None:
            self._answer(request, wants, row.number, row.outcome, now)
        else:
            self._refuse(request, wants, spec.GONE, NO_LONGER_KEPT, now)

    # ── runs ──────────────────────────────────────────────────────────────────────────────────────

    def _wait(self, job: DurableRequest, now: float) -> None:
        """Place `job`, or let it wait in the backlog of its service."""
        if self.registry.draining:
            self._release(job, now)
            return
        name = job.row.service
        own = self.backlog.of(name)
        if not own.count and self.backlog.has_space(name):
            self._run(job, now)
            self.backlog.tidy(name)
            return
        own.push(job)
        self._place(name, now)

    def _place(self, name: bytes, now: float) -> None:
        """Place durable requests of a service as long as its queue has space."""
        own = self.backlog.services.get(name)
        if own is None or self.registry.draining:
            return
        while own.count and not self.backlog.is_used(name, 1):
            job = own.pop(self.backlog.has_space(name))
            if job is None:
                break
            self._run(job, now)
        self.backlog.tidy(name)

    def _run(self, job: DurableRequest, now: float) -> None:
        row = job.row
        if job.attempts and job.attempts >= (most := self._most(job)):
            text = f"{job.attempts} of {most} attempts had no end: worker or broker was lost"
            self._end(job, spec.WORKER_LOST, [text.encode()], b"", now)
            return
        service = self.registry.service(row.service)
        if service is None:  # the bound `max_services`: later there may be space
            self._delay(job, now)
            return
        if self.is_declared(service.name):
            service.own = True
        job.move("run")
        run = job.run = AcceptedRequest.__new__(AcceptedRequest)
        field = row.metadata
        run.fill(
            job.peer,
            MDP03,
            (),
            None,
            row.number,
            service,
            [b"", *row.body],
            job.size,
            spec.DURABLE | spec.METADATA if field else spec.DURABLE,
            field,
            now,
            min(job.expires, now + LONGEST_RUN),
        )
        run.attempt = job.attempts
        run.called = row.called
        run.cost = cost_of(run)
        self.backlog.of(row.service).enter(job.peer)
        self._unrecorded[job] = None
        if self._record_at == inf:
            self._record_at = now + RECORD_AFTER
        self.completion.accept(run)
        self.queueing.place(run, now)

    def part(
        self, run: AcceptedRequest, frames: list[Frame], flags: int, field: bytes, now: float
    ) -> None:
        """PARTIAL of a worker: pass it to the clients that wait, and store nothing."""
        job = self.jobs.get(run.id)
        if job is None or job.run is not run:
            return
        for request, wants in job.waiting:
            if wants is OUTCOME and request.state in OPEN and request.dialect is MDP03:
                message = encoding.part(request, frames, flags, field)
                self.outgoing.send(request.peer, message, spec.PARTIAL, request.key, now)

    def run_ended(
        self,
        run: AcceptedRequest,
        status: int,
        frames: list[Frame],
        flags: int,
        field: bytes,
        now: float,
    ) -> bool:
        """Take the end of a run in place of a client: it is the outcome, or there is another
        attempt. False when `run` is not one."""
        job = self.jobs.get(run.id)
        if job is None or job.run is not run:
            return False
        self._leave_run(job)
        if job.state is ENDING:  # it was withdrawn; its outcome is on its way to the store
            return True
        if status != spec.OK and now >= job.expires:
            self._expire(job, now)
        elif self._is_final(job, status):
            self._end(job, status, list(frames), field if flags & spec.METADATA else b"", now)
        else:
            self._delay(job, now)
        return True

    def decide(self, run: AcceptedRequest) -> None:
        """A hook has decided about the reply of `run`: there is no further attempt."""
        job = self.jobs.get(run.id)
        if job is not None and job.run is run:
            job.decided = True

    def _is_final(self, job: DurableRequest, status: int) -> bool:
        if status == spec.OK or job.decided:
            return True
        return not policy.may_try_again(status) or job.attempts >= self._most(job)

    def _most(self, job: DurableRequest) -> int:
        """The limit of attempts of `job`."""
        declared = self.declared.get(job.row.service, 0) or job.row.most
        return policy.most_attempts(self.registry.settings, declared)

    def _leave_run(self, job: DurableRequest) -> None:
        if job.run is not None:
            job.attempts = job.run.attempt
            job.run = None
        self.backlog.of(job.row.service).leave(job.peer)
        self._unrecorded.pop(job, None)
        self._refill[job.row.service] = None

    def _delay(self, job: DurableRequest, now: float) -> None:
        """Let `job` wait until its next attempt."""
        if job.state is RUNNING:
            job.move("retry")
        job.failures += 1
        due = now + policy.delay(self.registry.settings, job.failures, self.random)
        job.recorded = job.attempts
        attempted = Attempted(job.row.number, job.attempts, self._most(job), due + self.offset)
        job.recording = True
        self.writes.add(attempted, partial(self._attempt_stored, job, due))
        self.registry.counts.retried += 1
        if self.registry.draining:
            self._release(job, now)

    def _attempt_stored(self, job: DurableRequest, due: float, _answer: Answer, now: float) -> None:
        """The next attempt of `job` may begin: a crash of the broker forgets one at most."""
        job.recording = False
        if job.state is WAITING and not self.registry.draining:
            job.timer = self._due.add(job, max(due, now))

    def _record_attempts(self, now: float) -> None:
        """Write the attempts that have begun and are not stored. Nothing waits for it: a crash
        before it forgets an attempt, and at least once stays true."""
        for job in list(self._unrecorded):
            run = job.run
            if run is None:
                self._unrecorded.pop(job, None)
            elif run.dispatch_id:
                self._unrecorded.pop(job, None)
                if run.attempt > job.recorded:
                    job.recorded = run.attempt
                    most = self._most(job)
                    wall = now + self.offset
                    self.writes.add(Attempted(job.row.number, run.attempt, most, wall))
        self._record_at = now + RECORD_AFTER if self._unrecorded else inf

    # ── the end ───────────────────────────────────────────────────────────────────────────────────

    def _end(
        self, job: DurableRequest, status: int, frames: list[Frame], field: bytes, now: float
    ) -> None:
        """Write the outcome of `job`. A client that waits for it and has no key cannot ask again,
        so its outcome is not kept: the row is deleted in place of it."""
        job.move("end")
        wall = now + self.offset
        outcome = job.outcome = StoredOutcome.__new__(StoredOutcome)
        outcome.fill(status, frames, field, wall, wall + job.row.keep)
        self._stop_waiting(job)
        if job.kept or not job.is_awaited():
            self.writes.add(Complete(job.row.number, job.attempts, outcome), job)
        else:
            self.writes.add(Remove(job.row.number), job)

    def _stop_waiting(self, job: DurableRequest) -> None:
        """Take `job` out of the backlog and of the timers."""
        own = self.backlog.services.get(job.row.service)
        if own is not None:
            if own.count:
                own.remove(job)
            self.backlog.tidy(job.row.service)
        if job.timer is not None:
            job.timer.pop(job, None)
            job.timer = None
        if job.expiry is not None:
            job.expiry.pop(job, None)
            job.expiry = None

    def _ended(self, job: DurableRequest, now: float) -> None:
        """The outcome of `job` is stored: answer all that wait for it."""
        job.move("stored")
        run = job.run
        if run is not None:
            self._leave_run(job)
            if run.state in OPEN:
                self.completion.cancel_silently(run, now)
        self._forget(job)
        for request, wants in job.waiting:
            if request.state in OPEN:
                self._answer(request, wants, job.row.number, job.outcome, now)

    def _expire(self, job: DurableRequest, now: float) -> None:
        lived = f"{round(job.row.expires - job.row.accepted, 3):g} s"
        text = f"the request had no outcome within {lived}, after {job.attempts} attempts"
        self._end(job, spec.DEADLINE_EXCEEDED, [text.encode()], b"", now)

    def withdraw(
        self, job: DurableRequest, request: AcceptedRequest, wants: Wants, keep: bool, now: float
    ) -> None:
        """End `job` with 499, and answer `request` when that is stored. Its worker gets CANCEL
        then. The row goes too, unless it is to `keep`."""
        self.let_wait(request)
        job.wait(request, wants)
        if job.state is STORING or job.state is ENDING:
            return  # its outcome or its row is on its way: `request` is answered with that
        job.kept = keep
        job.move("end")
        if job.run is not None:
            job.attempts = job.run.attempt
        wall = now + self.offset
        text = [WITHDRAWN.encode()]
        job.outcome = StoredOutcome(spec.CANCELLED, text, b"", wall, wall + job.row.keep)
        self._stop_waiting(job)
        operation: Complete | Remove = Remove(job.row.number)
        if keep:
            operation = Complete(job.row.number, job.attempts, job.outcome)
        self.writes.add(operation, job)

    # ── outcomes that are stored already ──────────────────────────────────────────────────────────

    def read(self, number: int, request: AcceptedRequest, wants: Wants, now: float) -> None:
        """Answer `request` from the row `number`, which is not in memory."""
        self.let_wait(request)
        self.writes.add(Read(number), partial(self._read, request, wants))

    def _read(self, request: AcceptedRequest, wants: Wants, answer: Answer, now: float) -> None:
        if request.state not in OPEN:
            return
        if answer is DAMAGED:
            self._refuse(request, wants, spec.HANDLER_FAILED, ROW_DAMAGED, now)
        elif not isinstance(answer, StoredRequest):
            self._refuse(request, wants, spec.GONE, NO_LONGER_KEPT, now)
        elif answer.owner and answer.owner != request.caller.user:
            self._refuse(request, wants, spec.NOT_FOUND, NO_SUCH_ID, now)
        elif self._is_over(answer, now):
            self._refuse(request, wants, spec.GONE, NO_LONGER_KEPT, now)
        elif wants is Wants.WITHDRAWN:
            self._refuse(request, wants, spec.CONFLICT, ENDED_ALREADY, now)
        elif wants in (Wants.DONE, TITANIC_DONE):
            number = answer.number
            self.writes.add(Remove(number), partial(self._removed, request, wants, number))
        else:
            self._wait_for(answer, request, wants, now)

    def _removed(
        self, request: AcceptedRequest, wants: Wants, number: int, _answer: Answer, now: float
    ) -> None:
        if request.state in OPEN:
            self._answer(request, wants, number, None, now)

    # ── answers ───────────────────────────────────────────────────────────────────────────────────

    def _answer(
        self,
        request: AcceptedRequest,
        wants: Wants,
        number: int,
        outcome: StoredOutcome | None,
        now: float,
    ) -> None:
        status, field = spec.OK, b""
        frames: list[Frame] = []
        if wants is OUTCOME:
            if outcome is not None:
                status, frames, field = outcome.status, outcome.frames, outcome.metadata
        elif wants is ID:
            frames = [ids.public_id(self.secret, number)]
        elif wants is TITANIC_ID:
            frames = [b"200", ids.public_id(self.secret, number)]
        elif wants is TITANIC_DONE:
            frames = [b"200"]
        elif outcome is not None and wants is RESULT:
            frames, field = [b"%d" % outcome.status, *outcome.frames], outcome.metadata
        elif outcome is not None and wants is TITANIC_REPLY:
            good = outcome.status == spec.OK
            frames = [b"200", *outcome.frames] if good else [b"500", *outcome.frames[:1]]
        flags = spec.METADATA if field else 0
        self.completion.answer(request, status, frames, flags, field, now)

    def _refuse(
        self, request: AcceptedRequest, wants: Wants, status: int, text: str, now: float
    ) -> None:
        """Answer `request` with a failure; in the form of RFC 9 when it came so."""
        if wants is TITANIC_DONE:
            self.completion.answer(request, spec.OK, [b"200"], 0, b"", now)
        elif wants is TITANIC_REPLY:
            self.completion.answer(request, spec.OK, [b"400"], 0, b"", now)
        elif wants is TITANIC_ID:
            self.completion.answer(request, spec.OK, [b"500", text.encode()], 0, b"", now)
        else:
            self.completion.fail(request, status, text, now)

    # ── services that are durable ─────────────────────────────────────────────────────────────────

    def is_declared(self, name: bytes) -> bool:
        """Whether every request to this service is durable."""
        return name in self.declared

    def declare(
        self, service: Service, durable: bool, attempts: int, alone: bool, now: float
    ) -> None:
        """A worker registers `service` as durable, or not. One that says so is enough; another one
        takes it back only when it is `alone`."""
        if not durable:
            if service.name in self.declared and alone:
                del self.declared[service.name]
                service.own = False
            return
        if len(self.declared) >= self.registry.settings.max_services:
            self.declared.clear()
        self.declared[service.name] = attempts
        service.own = True
        queue = service.waiting
        for request in list(queue) if queue is not None else ():
            if not request.flags & spec.DURABLE and queue is not None:
                queue.remove(request)
                self.registry.leave_queue(request)
                self.submit(request, now)

    # ── the store ─────────────────────────────────────────────────────────────────────────────────

    def stored(self, number: int, answers: Sequence[tuple[int, Answer]], now: float) -> None:
        """Every write up to `number` is stored. `answers`: those of the writes that have one."""
        found = dict(answers) if answers else NO_ANSWERS
        write = self.writes.first_unstored
        for then in self.writes.stored(number):
            if then is not None:
                self.follow(then, found.get(write) if found else None, now)
            write += 1

    def follow(self, then: Consequence, answer: Answer, now: float) -> None:
        """Do what follows a write. Of a durable request the row is stored, or the outcome."""
        if not isinstance(then, DurableRequest):
            if then is not None:
                then(answer, now)
            return
        job = then
        if job.state is STORING:
            self._appended(job, answer, now)
        else:
            self._ended(job, now)

    def set_state(self, state: StoreState) -> None:
        """Take what the store has reported. A change of what it accepts is a fact."""
        if state.accepts != self.state.accepts:
            fact = "store-accepts" if state.accepts else "store-full"
            self.registry.emit(fact, free=state.free)
        self.state = state

    # ── time ──────────────────────────────────────────────────────────────────────────────────────

    def tick(self, now: float) -> None:
        """Do what is due."""
        for job in self._due.due(now):
            job.timer = None
            if job.state is WAITING:
                self._wait(job, now)
        for job in self._expiries.due(now):
            job.expiry = None
            if job.state is WAITING:  # the deadline of a run ends the others
                self._expire(job, now)
        if now >= self._record_at:
            self._record_attempts(now)
        if now >= self._sweep_at:
            self._sweep_at = inf
            self.writes.add(Sweep(now + self.offset, SWEEP_MOST), self._swept)
        if self._refill:
            names, self._refill = self._refill, {}
            for name in names:
                self._place(name, now)
                own = self.backlog.services.get(name)
                if own is not None and own.count:
                    self._refill_at = min(self._refill_at, now + RECORD_AFTER)
        if now >= self._refill_at:
            self._refill_at = inf
            self._refill = {name: None for name, own in self.backlog.services.items() if own.count}

    def _swept(self, answer: Answer, now: float) -> None:
        more = isinstance(answer, int) and answer >= SWEEP_MOST
        self._sweep_at = now if more else now + SWEEP_EVERY

    def next_deadline(self) -> float:
        """When `tick` is next needed."""
        if self._refill or self.writes.new:
            return 0.0
        first = min(self._due.next(), self._expiries.next(), self._record_at)
        return min(first, self._sweep_at, self._refill_at)

    # ── begin and end ─────────────────────────────────────────────────────────────────────────────

    def recover(self, rows: Iterable[StoredRequest], now: float) -> None:
        """Continue with rows that have no outcome, as they were stored. Before the first
        message."""
        for row in rows:
            job = self._make(row)
            job.move("store")
            job.expires = row.expires - self.offset
            if job.expires < inf:
                job.expiry = self._expiries.add(job, job.expires)
            # a clock that was set back makes no delay longer than the longest one
            due = min(row.due - self.offset, now + self.registry.settings.max_retry_delay)
            if due <= now:
                self._wait(job, now)
            else:
                job.timer = self._due.add(job, due)

    def drain(self, now: float) -> None:
        """Place nothing more, and take back what waits in queues: it stays in the store. Requests
        that wait for an outcome which does not come in time end without an answer: their clients do
        not know it."""
        for job in list(self.jobs.values()):
            run = job.run
            if run is not None and run.worker is None and run.state in OPEN:
                self._leave_run(job)
                if job.state is RUNNING:
                    job.move("retry")
                self.completion.cancel_silently(run, now)
            if job.state is WAITING:
                self._release(job, now)

    def _release(self, job: DurableRequest, now: float) -> None:
        waiting, job.waiting = job.waiting, []
        for request, _ in waiting:
            if request.state in OPEN:
                self.completion.cancel_silently(request, now)


def cost_of_row(body: list[Frame], field: bytes) -> int:
    """What a durable request costs in memory, beside its run."""
    return _ROW + arithmetic.size(body) + _FRAME * len(body) + len(field)

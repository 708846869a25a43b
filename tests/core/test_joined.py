"""The three machines joined: client sessions, broker machines and worker sessions on one virtual
clock, and everything that may happen to processes and connections."""

from __future__ import annotations

from collections import Counter

import pytest

from majordomus.core.client.session import Final, Lost
from majordomus.core.worker.session import Cancel, Dispatch
from majordomus.protocol import spec
from majordomus.protocol.spec import Dialect
from tests.core.network_harness import WorkerEnd, World, echo, hold, reject

ALL = tuple(Dialect)
MDP03 = Dialect.MDP03
CORRELATES = (Dialect.MDP03,)
TAKES_PARTS = (Dialect.MDP02, Dialect.MDP02D, Dialect.MDP03)


@pytest.mark.parametrize("body", [(), (b"x",), (b"x", b"", b"z")], ids=["none", "one", "several"])
@pytest.mark.parametrize("worker", ALL)
@pytest.mark.parametrize("client", ALL)
def test_client_of_any_dialect_is_served_by_a_worker_of_any(
    client: Dialect, worker: Dialect, body: tuple[bytes, ...]
) -> None:
    world = World()
    world.worker(dialect=worker)
    caller = world.client(dialect=client)
    calls = [caller.call(*body) for _ in range(3)]
    world.run()
    # 0.3 alone tells a body of no frames from one empty frame
    expected = list(body) or ([] if {client, worker} == {MDP03} else [b""])
    assert [caller.answer(call) for call in calls] == [(200, expected)] * 3


@pytest.mark.parametrize("worker", TAKES_PARTS)
@pytest.mark.parametrize("client", ALL)
def test_parts_arrive_as_the_client_takes_them(client: Dialect, worker: Dialect) -> None:
    def stream(end: WorkerEnd, job: Dispatch) -> None:
        end.partial(job, b"1")
        end.partial(job, b"2", b"2")
        end.final(job, b"3")

    world = World()
    world.worker(stream, dialect=worker)
    caller = world.client(dialect=client)
    call = caller.call()
    world.run()
    if client in TAKES_PARTS:
        assert caller.parts == {call: [[b"1"], [b"2", b"2"]]}
        assert caller.answer(call) == (200, [b"3"])
    else:
        assert caller.parts == {}
        assert caller.answer(call) == (200, [b"1", b"2", b"2", b"3"])


@pytest.mark.parametrize("worker", ALL)
def test_failure_reaches_the_client(worker: Dialect) -> None:
    def fail(end: WorkerEnd, job: Dispatch) -> None:
        end.final(job, b"ValueError: no", status=500)

    world = World()
    world.worker(fail, dialect=worker)
    caller = world.client()
    call = caller.call()
    world.run()
    status, frames = caller.answer(call)
    assert (status, frames) == (
        (500, [b"ValueError: no"]) if worker is MDP03 else (200, [b"500", b"ValueError: no"])
    )


@pytest.mark.parametrize("seen", [True, False], ids=["seen", "unseen"])
@pytest.mark.parametrize("dialect", ALL)
def test_call_survives_the_worker_that_is_killed_in_the_middle_of_it(
    dialect: Dialect, seen: bool
) -> None:
    """Seen by the monitor: at once. Else silence tells, after interval × liveness at most; a busy
    0.1 or 0.2 worker may be silent until its `busy_timeout`."""
    world = World(busy_timeout=20.0)
    first = world.worker(hold, dialect=dialect)
    world.run()
    world.worker(echo)
    caller = world.client(presence=True)
    call = caller.call(b"x", ttl=60.0)
    world.run()
    assert [job.frames for job in first.held] == [[b"x"]]
    began = world.now
    first.kill(seen=seen)
    world.run(0.0 if seen else 30.0)
    assert caller.answer(call) == (200, [b"x"])
    assert world.now - began <= 30.0


def test_worker_whose_handler_takes_long_is_not_expired() -> None:
    world = World()
    worker = world.worker(hold)
    caller = world.client(presence=True)
    call = caller.call(b"x", ttl=120.0)
    world.run(100.0)
    (job,) = worker.held
    worker.final(job, b"done")
    world.run()
    assert caller.answer(call) == (200, [b"done"])
    assert len(worker.begun) == 1


def test_worker_that_is_stopped_is_expired_and_its_request_goes_to_another() -> None:
    world = World()
    stopped = world.worker(hold)
    world.run()
    world.worker(echo)
    caller = world.client(presence=True)
    call = caller.call(b"x", ttl=60.0)
    world.run()
    stopped.frozen = True
    world.run(8.0)
    assert caller.answer(call) == (200, [b"x"])
    # when it wakes up, it hears that it was sent off, gives up its job and registers anew
    stopped.frozen = False
    stopped.handler = echo
    world.run(1.0)
    assert [type(event) for event in stopped.events] == [Dispatch, Cancel]
    assert stopped.session.ready


def test_worker_that_was_paused_shortly_keeps_its_job() -> None:
    world = World()
    worker = world.worker(hold)
    caller = world.client()
    call = caller.call(b"x", ttl=60.0)
    world.run(1.0)
    worker.frozen = True
    world.run(5.0)
    worker.frozen = False
    world.run(20.0)
    worker.final(worker.held[0], b"done")
    world.run()
    assert caller.answer(call) == (200, [b"done"])


def test_broker_that_was_paused_loses_no_peer() -> None:
    world = World()
    worker = world.worker(hold)
    caller = world.client(presence=True)
    call = caller.call(b"x", ttl=600.0)
    world.run(1.0)
    world.desks[0].frozen = True
    world.run(6.0)
    world.desks[0].frozen = False
    world.run(60.0)
    worker.final(worker.held[0], b"done")
    world.run()
    assert caller.answer(call) == (200, [b"done"])
    assert [type(event) for event in worker.events] == [Dispatch]


@pytest.mark.parametrize("dialect", ALL)
def test_calls_of_a_killed_broker_are_answered_by_the_other(dialect: Dialect) -> None:
    world = World(brokers=2)
    slow = world.worker(hold, broker=0)
    world.worker(echo, broker=1)
    caller = world.client(dialect=dialect)
    calls = [caller.call(b"%d" % n) for n in range(3)]
    world.run()
    assert slow.held
    world.desks[0].kill()
    world.run(1.0)
    assert [caller.answer(call) for call in calls] == [(200, [b"%d" % n]) for n in range(3)]


def test_client_with_presence_leaves_a_stopped_broker_for_the_other() -> None:
    world = World(brokers=2, client_interval=1.0)
    world.worker(hold, broker=0)
    world.worker(echo, broker=1)
    caller = world.client(presence=True)
    call = caller.call(b"x", ttl=60.0)
    once = caller.call(b"y", ttl=60.0, flags=spec.ONCE)
    world.run()
    world.desks[0].frozen = True
    world.run(4.0)
    assert caller.answer(call) == (200, [b"x"])
    assert caller.outcomes[once] == Lost(once)


def test_everybody_comes_back_to_a_broker_that_is_restarted() -> None:
    world = World()
    worker = world.worker()
    present, plain = world.client(presence=True), world.client()
    world.run(10.0)
    world.desks[0].kill()
    calls = [(end, end.call(b"x", ttl=30.0)) for end in (present, plain)]
    world.run(5.0)
    assert present.outcomes == plain.outcomes == {}
    world.desks[0].restart()
    world.run(1.0)
    assert [end.answer(call) for end, call in calls] == [(200, [b"x"])] * 2
    assert worker.session.ready


def test_drained_broker_loses_no_call_when_there_is_another() -> None:
    world = World(brokers=2)
    slow = world.worker(hold, broker=0, capacity=2)
    world.worker(echo, broker=1)
    caller = world.client(presence=True)
    running = caller.call(b"running", flags=spec.ONCE)
    world.run()
    world.desks[0].drain()
    world.run()
    late = caller.call(b"late")
    world.run(1.0)
    assert caller.outcomes == {}
    slow.final(slow.held[0], b"done")
    world.run(3.0)
    assert caller.answer(running) == (200, [b"done"])
    assert caller.answer(late) == (200, [b"late"])
    assert world.desks[0].machine.drained


def test_broker_that_closes_sends_everybody_to_the_other() -> None:
    world = World(brokers=2)
    world.worker(broker=0)
    world.worker(broker=1)
    caller = world.client(presence=True)
    world.run(10.0)
    world.desks[0].close()
    call = caller.call(b"x")
    world.run(1.0)
    assert caller.answer(call) == (200, [b"x"])


@pytest.mark.parametrize("dialect", ALL)
def test_worker_that_drains_finishes_and_leaves_the_rest_to_others(dialect: Dialect) -> None:
    world = World()
    leaving = world.worker(hold, dialect=dialect)
    world.run()
    caller = world.client()
    first = caller.call(b"first")
    world.run()
    leaving.session.drain(world.now)
    world.run()
    world.worker(echo)
    others = [caller.call(b"%d" % n) for n in range(5)]
    world.run(1.0)
    assert [caller.answer(call) for call in others] == [(200, [b"%d" % n]) for n in range(5)]
    leaving.final(leaving.held[0], b"last")
    world.run()
    assert caller.answer(first) == (200, [b"last"])
    assert leaving.session.drained
    assert len(leaving.begun) == 1


def test_request_that_was_on_its_way_to_a_draining_worker_is_served_by_it() -> None:
    world = World()
    worker = world.worker()
    world.run()
    worker.frozen = True
    caller = world.client()
    call = caller.call(b"x", flags=spec.ONCE)
    world.run()
    worker.session.drain(world.now)
    worker.frozen = False
    world.run(1.0)
    assert caller.answer(call) == (200, [b"x"])
    assert worker.session.drained


def test_request_that_all_workers_reject_ends_with_503() -> None:
    world = World()
    world.worker(reject)
    world.worker(reject)
    caller = world.client()
    call = caller.call(ttl=0.01)
    world.run(0.02)
    status, _ = caller.answer(call)
    assert status == 503


def test_call_without_a_worker_waits_for_one_or_fails_fast() -> None:
    world = World()
    caller = world.client()
    waiting, hasty = caller.call(b"x"), caller.call(flags=spec.FAIL_FAST)
    world.run(1.0)
    assert (list(caller.outcomes), caller.answer(hasty)[0]) == ([hasty], 503)
    world.worker()
    world.run()
    assert caller.answer(waiting) == (200, [b"x"])


@pytest.mark.parametrize("dialect", ALL)
def test_call_of_a_service_without_workers_ends_at_its_deadline(dialect: Dialect) -> None:
    world = World()
    caller = world.client(dialect=dialect)
    call = caller.call(ttl=2.0)
    world.run(2.2)
    status, frames = caller.answer(call)
    assert (status, len(frames)) == (503 if dialect is MDP03 else 408, 1)


def test_cancel_reaches_the_worker_and_its_slot_comes_back_with_its_answer() -> None:
    world = World()
    worker = world.worker(hold, capacity=1)
    caller = world.client()
    call, next_call = caller.call(b"1"), caller.call(b"2")
    world.run()
    (job,) = worker.held
    caller.session.cancel(call, world.now)
    world.run()
    assert worker.events == [job, Cancel(job.id)]
    assert caller.answer(call)[0] == 499
    worker.final(job, status=499)
    world.run()
    assert [held.frames for held in worker.held] == [[b"2"]]
    worker.final(worker.held[0], b"2")
    world.run()
    assert caller.answer(next_call) == (200, [b"2"])
    assert caller.session.late == 1


def test_deadline_reaches_the_worker_as_a_cancel() -> None:
    world = World()
    worker = world.worker(hold)
    caller = world.client()
    call = caller.call(ttl=1.0)
    world.run(1.05)
    (job,) = worker.held
    assert job.deadline == pytest.approx(world.now - 0.05, abs=0.002)
    assert worker.events == [job, Cancel(job.id)]
    assert caller.answer(call)[0] == 408


def test_one_way_message_is_served_and_not_answered() -> None:
    world = World()
    worker = world.worker()
    caller = world.client()
    caller.call(b"log", flags=spec.ONE_WAY)
    world.run()
    assert ([job.frames for job in worker.begun], caller.events) == ([[b"log"]], [])
    assert (worker.session.held, caller.session.late) == (0, 0)


@pytest.mark.parametrize("dialect", [d for d in ALL if d is not MDP03])
def test_legacy_client_that_gave_up_never_takes_the_late_answer_for_another(
    dialect: Dialect,
) -> None:
    world = World()
    worker = world.worker(hold)
    caller = world.client(dialect=dialect)
    first = caller.call(b"1", ttl=1.0)
    second = caller.call(b"2", ttl=30.0)
    world.run(1.5)
    assert caller.answer(first)[0] == 408
    for job in list(worker.held):
        worker.final(job, b"answer to " + job.frames[0])
    world.run()
    assert caller.answer(second) == (200, [b"answer to 2"])


def test_one_hundred_clients_and_ten_workers_lose_no_call() -> None:
    world = World()
    for n in range(10):
        world.worker(dialect=ALL[n % 5])
    callers = [world.client(dialect=ALL[n % 5], presence=n % 2 == 0) for n in range(100)]
    calls = [(end, end.call(b"%d" % n)) for n, end in enumerate(callers) for _ in range(3)]
    world.run(1.0)
    assert [end.answer(call) for end, call in calls] == [
        (200, [b"%d" % (n // 3)]) for n in range(300)
    ]


# ── everything at once ────────────────────────────────────────────────────────────────────────────


def lives(world: World, end: WorkerEnd, job: Dispatch) -> None:
    """A handler that answers, streams, fails, declines or takes its time, as chance will have
    it."""
    chance = world.random.random()
    if chance < 0.5:
        end.final(job, *job.frames)
    elif chance < 0.6:
        end.partial(job, *job.frames)
        end.final(job)
    elif chance < 0.7:
        end.final(job, b"no", status=500)


class Storm:
    """Calls, while connections break, processes are killed and stopped, and brokers come and go."""

    def __init__(self, seed: int) -> None:
        self.world = World(brokers=2, seed=seed, max_attempts=3, client_interval=1.0)
        self.chance = self.world.random
        self.ran: Counter[bytes] = Counter()
        self.calls: list[tuple[object, int, bytes, int, float]] = []
        self.workers = [self._worker(n) for n in range(5)]
        self.clients = [
            self.world.client(dialect=ALL[n] if n < 5 else MDP03, presence=n % 2 == 1, interval=1.0)
            for n in range(7)
        ]

    def _worker(self, n: int) -> WorkerEnd:
        def handler(end: WorkerEnd, job: Dispatch) -> None:
            if self.chance.random() < 0.05 and end.session.settings.dialect is MDP03:
                reject(end, job)  # nothing ran
            else:
                self.ran[job.frames[0]] += 1
                lives(self.world, end, job)

        dialect = ALL[n] if n < 5 else MDP03
        return self.world.worker(handler, dialect=dialect, broker=n % 2)

    def step(self) -> None:
        chance, world = self.chance, self.world
        what = chance.random()
        if what < 0.4:
            self._call()
        elif what < 0.5:
            end = chance.choice(world.ends)
            end.cut(losing=chance.random() < 0.5, seen=chance.random() < 0.8)
        elif what < 0.55:
            self._replace(chance.randrange(len(self.workers)))
        elif what < 0.62:
            one = chance.choice([*world.ends, *world.desks])
            one.frozen = not one.frozen
        elif what < 0.66:
            desk = chance.choice(world.desks)
            if not desk.alive:
                desk.restart()
            else:
                chance.choice([desk.kill, desk.close, desk.drain])()
        elif what < 0.75:
            self._answer_late()
        elif what < 0.8 and self.calls:
            client, call, *_ = chance.choice(self.calls)
            client.session.cancel(call, world.now)  # type: ignore[attr-defined]
        else:
            world.run(chance.choice([0.0, 0.01, 0.3, 2.0]))

    def _call(self) -> None:
        name = b"%d" % len(self.calls)
        client = self.chance.choice(self.clients)
        flags = self.chance.choice([0, 0, spec.ONCE, spec.FAIL_FAST])
        ttl = self.chance.choice([0.5, 5.0, 20.0])
        call = client.call(name, ttl=ttl, flags=flags)
        self.calls.append((client, call, name, flags, self.world.now + ttl))

    def _replace(self, n: int) -> None:
        self.workers[n].kill(seen=self.chance.random() < 0.5)
        self.workers[n] = self._worker(n)

    def _answer_late(self) -> None:
        worker = self.chance.choice(self.workers)
        if worker.held:
            job = self.chance.choice(worker.held)
            worker.final(job, *job.frames)

    def calm(self) -> None:
        """All processes run again, and the longest deadline passes."""
        for one in [*self.world.ends, *self.world.desks]:
            one.frozen = False
        for desk in self.world.desks:
            if not desk.alive:
                desk.restart()
        self.world.run(25.0)

    def check(self) -> None:
        for client, call, name, flags, _ in self.calls:
            outcome = client.outcomes.get(call)  # type: ignore[attr-defined]
            assert outcome is not None, "a call has no outcome"
            if flags & spec.ONCE:
                assert self.ran[name] <= 1 or self._may_repeat(client)
            if not isinstance(outcome, Final) or outcome.status != spec.OK:
                continue
            parts = client.parts.get(call, [])  # type: ignore[attr-defined]
            frames = [frame for part in [*parts, outcome.frames] for frame in part if frame]
            assert frames in ([name], [b"500", b"no"]), "a call has the answer of another"

    def _may_repeat(self, client: object) -> bool:
        """The older dialects cannot tell the broker that a call is ONCE."""
        return client.session.settings.dialect is not MDP03  # type: ignore[attr-defined]


@pytest.mark.parametrize("seed", range(60))
def test_in_a_storm_every_call_has_one_outcome_its_own_and_what_is_once_runs_once(
    seed: int,
) -> None:
    storm = Storm(seed)
    for _ in range(150):
        storm.step()
    storm.calm()
    storm.check()

"""50,000 requests with hooks that decide at random, at once or later: the invariants hold and the
counts add up."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest

from majordomus.core.broker import invariants
from majordomus.core.broker.hooks.actions import (
    FORWARD,
    Action,
    Discard,
    Redirect,
    Reject,
    Replace,
    ReplyAction,
    SendTo,
)
from majordomus.core.broker.hooks.views import ClientInfo, HookReply, HookRequest, Outcome
from majordomus.core.broker.machine import BrokerMachine
from majordomus.core.broker.settings import BrokerSettings
from majordomus.protocol import mdp03, spec
from majordomus.protocol.spec import Frame
from tests import headers
from tests.core.fuzz import Fuzz

REQUESTS = 50_000
CLIENTS = [b"client-%02d" % n for n in range(20)]
WORKERS = {b"worker-%d" % n: (b"echo", b"other")[n % 2] for n in range(6)}


class RandomHooks:
    """Decides at random, at once or later; what it decided last for each body is remembered."""

    has_on_request = has_on_reply = has_on_part = has_on_client = has_on_end = may_wait = True

    def __init__(self, random: Random) -> None:
        self.random = random
        self.open: dict[int, tuple[str, bytes]] = {}
        self.asked: set[bytes] = set()
        self.decided: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.ended: set[bytes] = set()
        self.abandoned = 0

    def on_request(self, number: int, request: HookRequest) -> Action | None:
        if request.body in self.asked:
            raise AssertionError(f"{request.body!r} is asked about twice")
        self.asked.add(request.body)
        return self._now_or_later(number, "request", request.body)

    def on_reply(self, number: int, reply: HookReply) -> Action | None:
        return self._now_or_later(number, "reply", reply.body)

    def on_client(self, number: int, client: ClientInfo) -> Action | None:
        return self._now_or_later(number, "client", b"")

    def on_part(self, part: HookReply) -> Action:
        return self.random.choice((FORWARD, FORWARD, Discard(), Replace([b"another part"])))

    def _now_or_later(self, number: int, what: str, body: bytes) -> Action | None:
        if self.random.random() < 0.5:
            return self.action(what, body)
        self.open[number] = what, body
        return None

    def action(self, what: str, body: bytes) -> Action:
        choices: list[tuple[Action, int]] = {
            "request": [
                (FORWARD, 8),
                (Discard(), 1),
                (Redirect("other"), 2),
                (Redirect("mmi.broker"), 1),
                (SendTo(self.random.choice(list(WORKERS))), 2),
                (ReplyAction([body]), 2),
                (Reject(401, "no"), 1),
                (Replace([b"nonsense"]), 1),
            ],
            "reply": [
                (FORWARD, 8),
                (Replace([body]), 2),
                (Discard(), 1),
                (Reject(403, "no"), 1),
                (SendTo(b"nobody"), 1),
            ],
            "client": [(FORWARD, 8), (Reject(401, "no"), 1), (Reject(500, "no"), 1)],
        }[what]
        actions, weights = zip(*choices, strict=True)
        (action,) = self.random.choices(actions, weights)
        self.decided[f"{what}: {type(action).__name__}"] += 1
        return action

    def client_lost(self, client: ClientInfo, why: str) -> None: ...

    def on_end(self, outcome: Outcome) -> None:
        self.outcomes[outcome.outcome] += 1

    def abandon(self, number: int) -> None:
        del self.open[number]  # nothing is abandoned twice, or after it was answered
        self.abandoned += 1


class Flood:
    """Clients that ask, cancel and leave; workers that answer, stream, reject and die."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        settings = BrokerSettings(
            hook_timeout=0.5, max_queue=2000, max_client_queue=6, max_service_queue=1500
        )
        self.machine = BrokerMachine(settings, self.random.randbytes, "flood")
        self.hooks = RandomHooks(self.random)
        self.machine.use(self.hooks)
        self.now = 0.0
        self.ids = dict.fromkeys(CLIENTS, 0)
        self.open: dict[bytes, set[int]] = {client: set() for client in CLIENTS}
        self.finals: Counter[int] = Counter()
        self.requests = 0
        self.gone: set[bytes] = set()
        self.own: list[int] = []
        self.called = 0

    def say(self, peer: bytes, command: int, *body: Frame, **fields: Any) -> None:
        self.machine.receive(peer, [mdp03.pack(command, **fields), *body], self.now)

    def run(self) -> None:
        for worker in WORKERS:
            self._ready(worker)
        while self.requests < REQUESTS:
            self._step()
        self._settle()

    def _ready(self, worker: bytes) -> None:
        self.say(worker, spec.READY, service=WORKERS[worker], code=self.random.choice((2, 8, 50)))

    def _step(self) -> None:
        random = self.random
        for _ in range(random.randrange(20)):
            self._ask(random.choice(CLIENTS))
        if random.random() < 0.2:
            self.called += 1
            self.machine.call(b"echo", [b"own"], 1.0, self.now, lambda s, _: self.own.append(s))
        if random.random() < 0.1:
            client = random.choice(CLIENTS)
            if self.open[client]:
                self.say(client, spec.CANCEL, id=random.choice(sorted(self.open[client])))
        if random.random() < 0.01:
            self._leave(random.choice(CLIENTS))
        for number in list(self.hooks.open):
            slow = number % 20 == 0  # these are never answered
            if not slow and random.random() < 0.4 and number in self.hooks.open:
                what, body = self.hooks.open.pop(number)
                if not self.machine.resume(number, self.hooks.action(what, body), self.now):
                    raise AssertionError("a question that was open is not known")
        for worker in WORKERS:
            self._work(worker)
        self.now += random.choice((0.0, 0.001, 0.01, 0.05))
        self.turn()
        if random.random() < 0.02:
            invariants.check(self.machine)

    def _ask(self, client: bytes) -> None:
        self.ids[client] += 1
        id, self.requests = self.ids[client], self.requests + 1
        flags = self.random.choice((0, 0, 0, spec.ONCE, spec.ONE_WAY, spec.FAIL_FAST, spec.MORE))
        if not flags & spec.ONE_WAY:
            self.open[client].add(id)
        service = self.random.choice((b"echo", b"echo", b"other", b"nowhere"))
        body, ttl = b"%s/%d" % (client, id), self.random.choice((200, 2000))
        self.say(client, spec.REQUEST, body, id=id, flags=flags, service=service, ttl=ttl)
        if flags & spec.MORE:
            for _ in range(self.random.randrange(18)):
                self.say(client, spec.PARTIAL, b"part", id=id)
            if self.random.random() < 0.7:
                self.say(client, spec.FINAL, id=id, code=200)

    def _leave(self, client: bytes) -> None:
        self.turn()  # it has heard what was said to it so far
        self.say(client, spec.DISCONNECT)
        self.open[client].clear()

    def _work(self, worker: bytes) -> None:
        random, known = self.random, self.machine.registry.workers.get(worker)
        if known is None:
            self._ready(worker)
            return
        if random.random() < 0.002:
            self.say(worker, spec.DISCONNECT)
            return
        for number, request in list(known.held.items()):
            chance = random.random()
            body = request.body[0] if request.body else b"late"
            if chance < 0.5:
                self.say(worker, spec.FINAL, body, id=number, code=200 if chance < 0.45 else 500)
            elif chance < 0.6:
                self.say(worker, spec.PARTIAL, b"part", id=number)
            elif chance < 0.65:
                self.say(worker, spec.REJECT, id=number)

    def turn(self) -> None:
        self.machine.tick(self.now)
        _, sends, _ = self.machine.take_effects()
        for peer, frames, *_ in sends:
            if peer not in self.open:
                continue
            command, _, status, id, *_ = headers.parse(frames[0])
            if command == spec.FINAL:
                if id not in self.open[peer]:
                    raise AssertionError(f"{peer!r} hears of {id} twice")
                self.open[peer].remove(id)
                self.finals[status] += 1

    def _settle(self) -> None:
        """No more requests: every deadline passes, and nothing is left."""
        for _ in range(60):
            self.now += 0.1
            self.turn()
            for worker in WORKERS:
                self._work(worker)
        for worker in WORKERS:
            known = self.machine.registry.workers.get(worker)
            for number in list(known.held if known else ()):
                self.say(worker, spec.FINAL, id=number, code=200)
        self.turn()


def test_counts_add_up_under_50_000_requests_with_hooks_that_act_at_random() -> None:
    flood = Flood(seed=11)
    flood.run()
    invariants.check(flood.machine)
    machine, counts, hooks = flood.machine, flood.machine.registry.counts, flood.hooks
    refused = sum(counts.refused.values())
    assert machine.drained
    assert (len(hooks.open), machine.registry.queued, machine.registry.queued_bytes) == (0, 0, 0)
    # Every request was accepted or refused; every accepted one has exactly one outcome.
    assert counts.accepted + refused == flood.requests + flood.called
    ended = counts.answered + counts.failed + counts.expired + counts.cancelled
    assert counts.accepted == ended
    assert len(flood.own) == flood.called
    # The hooks were told of each, but for the broker's own calls.
    assert hooks.outcomes.total() + flood.called == ended
    # Whoever waits still was discarded by a hook; nobody else is without an answer.
    discards = hooks.decided["request: Discard"] + hooks.decided["reply: Discard"]
    waiting = sum(map(len, flood.open.values()))
    assert 0 < waiting <= discards
    assert counts.unanswered >= discards - counts.cancelled
    # And all of it has happened.
    kinds = ("Forward", "Discard", "Redirect", "SendTo", "ReplyAction", "Reject", "Replace")
    assert all(hooks.decided[f"request: {kind}"] > 100 for kind in kinds)
    assert all(hooks.decided[f"reply: {kind}"] > 100 for kind in ("Forward", "Replace", "Discard"))
    assert hooks.abandoned > 100
    assert {200, 401, 403, 404, 408, 429, 499, 500, 503} <= set(flood.finals)


class HooksAmongRubbish(RandomHooks):
    """The same, where bodies say nothing and may come twice."""

    def on_request(self, number: int, request: HookRequest) -> Action | None:
        return self._now_or_later(number, "request", request.body)


class FuzzWithHooks(Fuzz):
    """Rubbish and forged replies, and hooks that act at random between them."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.hooks = HooksAmongRubbish(self.random)
        self.machine.use(self.hooks)

    def turn(self) -> None:
        for number in list(self.hooks.open):
            if self.random.random() < 0.5 and number in self.hooks.open:
                what, body = self.hooks.open.pop(number)
                assert self.machine.resume(number, self.hooks.action(what, body), self.now)
        super().turn()


@pytest.mark.parametrize("seed", [5, 6])
def test_rubbish_among_hooks_that_act_at_random_breaks_no_invariant(seed: int) -> None:
    fuzz = FuzzWithHooks(seed)
    fuzz.run(10_000, check_every=250)
    assert fuzz.hooks.decided.total() > 100
    assert fuzz.hooks.abandoned > 0

"""Durable requests among clients, workers and a broker that crash between any two effects.

    python -m tests.simulation.durable --runs 2000 --seed 1

One run is a few hundred random steps on the virtual clock: clients submit, call with and without
keys, ask, withdraw and forget; workers come, answer, fail, reject, stall and are lost; the store
commits what it has got so far, or a part of it; the broker crashes, at a moment at which some
writes are stored and reported, some stored and not reported, some neither. Then everything heals,
and the run is judged:

* an id that a client was given leads to its outcome, or was withdrawn or forgotten by a client;
* whatever two answers say about one request is the same: its outcome never changes;
* an outcome with status 200 is what a worker has answered to this very request;
* the same key and body never lead to two requests, as long as the first is kept;
* no request is given to workers more often than its attempts allow, crashes apart;
* the invariants of the machine hold.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterator
from random import Random

from majordomus.core.broker.invariants import InvariantError
from majordomus.durable.store import write
from majordomus.errors import LocalProtocolError
from majordomus.protocol import spec
from tests.core.durable_harness import DurableHarness

STEPS = 250
CLIENTS = tuple(b"client-%d" % n for n in range(3))
SERVICES = (b"echo", b"mail")
ATTEMPTS = 3
HEALING = 40.0
"""Seconds that a step may take when everything heals."""
WAITED = (b"stored, and goes on", b"whether it goes on is unknown", b"waiting for the store")
"""Ends of the texts of a 408 that ends the waiting of a client: it is no outcome."""


class WrongError(AssertionError):
    """A run has shown a fault."""


class Run:
    """One run.

    asked: conversation → the name of its request and what was asked.
    ids: id → name of the request. outcomes: name → (status, frames), as told first.
    given: name → dispatches that workers have got. answered: name → answers of workers.
    ended: names that a client has withdrawn or forgotten.
    """

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.broker = self.make_broker()
        self.asked: dict[tuple[bytes, int], tuple[str, str]] = {}
        self.ids: dict[bytes, str] = {}
        self.names: dict[str, bytes] = {}
        self.outcomes: dict[str, tuple[int, tuple[bytes, ...]]] = {}
        self.given: Counter[str] = Counter()
        self.began: dict[str, int] = {}  # the crashes before the first attempt
        self.answered: dict[str, set[bytes]] = defaultdict(set)
        self.ended: set[str] = set()
        self.held: dict[tuple[bytes, int], str] = {}
        self.workers: set[bytes] = set()
        self.crashes = 0
        self.last = 0
        self.happened: Counter[str] = Counter()

    def make_broker(self) -> DurableHarness:
        return DurableHarness(
            max_attempts=ATTEMPTS, retry_delay=0.5, max_retry_delay=2.0, client_idle=1e6
        )

    # ── steps ─────────────────────────────────────────────────────────────────────────────────────

    def go(self) -> None:
        """Do all steps, let everything heal, and judge."""
        steps = [
            *[self.submit] * 5,
            *[self.call] * 4,
            *[self.ask] * 4,
            *[self.answer] * 9,
            *[self.commit] * 8,
            *[self.wait] * 4,
            self.join,
            self.join,
            self.lose,
            self.withdraw,
            self.forget,
            self.hold,
            self.crash,
        ]
        for _ in range(STEPS):
            self.random.choice(steps)()
            self.read()
        self.heal()

    def name(self) -> tuple[str, str]:
        """A key or "", and the name of the request: with a key, one of a few bodies."""
        if self.random.random() < 0.5:
            key = f"k{self.random.randrange(6)}"
            return key, f"{key}/{self.random.choice('aaab')}"
        self.last += 1
        return "", f"n{self.last}"

    def request(self, what: str, name: str, key: str, **fields: object) -> None:
        self.last += 1
        client, number = self.random.choice(CLIENTS), self.last
        service = SERVICES[len(name) % 2] if not key else SERVICES[0]
        self.asked[client, number] = (name, what)
        if key:
            fields["key"] = key
        self.broker.durable(client, number, name.encode(), service=service, **fields)

    def submit(self) -> None:
        key, name = self.name()
        expires = {"expires": self.random.choice((1, 3))} if self.random.random() < 0.1 else {}
        self.request("id", name, key, detach=True, **expires)

    def call(self) -> None:
        key, name = self.name()
        self.request("outcome", name, key, ttl=self.random.choice((500, 30_000)))

    def question(self, verb: str) -> None:
        if not self.ids:
            return
        id = self.random.choice(list(self.ids))
        self.last += 1
        client = self.random.choice(CLIENTS)
        self.asked[client, self.last] = (self.ids[id], verb)
        self.broker.ask(client, self.last, verb, id, ttl=30_000)

    def ask(self) -> None:
        self.question("result")

    def withdraw(self) -> None:
        self.question("withdraw")

    def forget(self) -> None:
        self.question("forget")

    def join(self) -> None:
        if len(self.workers) > 3:
            return
        self.last += 1
        worker = b"worker-%d" % self.last
        self.workers.add(worker)
        for service in SERVICES:
            self.broker.worker(worker, service, 2)

    def lose(self) -> None:
        if not self.workers:
            return
        worker = self.random.choice(sorted(self.workers))
        self.workers.discard(worker)
        self.held = {key: name for key, name in self.held.items() if key[0] != worker}
        self.broker.leave(worker)

    def answer(self) -> None:
        if not self.held:
            return
        worker, dispatch = self.random.choice(list(self.held))
        name = self.held.pop((worker, dispatch))
        chance = self.random.random()
        if chance < 0.1:
            self.given[name] -= 1
            self.broker.reject(worker, dispatch)
        elif chance < 0.3:
            self.broker.answer(worker, dispatch, b"no", status=500)
        else:
            self.last += 1
            reply = b"%b=%d" % (name.encode(), self.last)
            self.answered[name].add(reply)
            self.broker.answer(worker, dispatch, reply)

    def wait(self) -> None:
        self.broker.heartbeat(*sorted(self.workers))
        self.broker.pass_time(self.random.choice((0.01, 0.1, 0.6)))

    def hold(self) -> None:
        self.broker.holds = not self.broker.holds
        if not self.broker.holds:
            self.broker.store_now()

    def commit(self) -> None:
        self.broker.store_now(self.random.choice((1, 2, 5, 1000)))

    def crash(self) -> None:
        """End the broker. What waited for the store may have been stored, from the oldest on."""
        self.happened["crash"] += 1
        self.crashes += 1
        broker = self.broker
        stored = self.random.randrange(len(broker.writes) + 1)
        if stored:
            write(broker.store, broker.writes[:stored])
        holds, broker.holds = broker.holds, False
        for name, what in self.asked.values():  # it may be done, and its client never learns
            if what in ("withdraw", "forget"):
                self.ended.add(name)
        self.workers.clear()
        self.held.clear()
        self.asked.clear()
        broker.restart(down=self.random.choice((0.1, 1.0)))
        broker.holds = holds

    # ── what the broker says ──────────────────────────────────────────────────────────────────────

    def read(self) -> None:
        for peer, command, fields, body in self.broker.messages():
            if command == "REQUEST":
                name = body[0].decode()
                self.held[peer, fields["id"]] = name
                self.given[name] += 1
                # Each crash since then may have forgotten one attempt.
                most = ATTEMPTS + self.crashes - self.began.setdefault(name, self.crashes)
                if self.given[name] > most and not self.may_be_gone(name):  # its key is free again
                    raise WrongError(f"{name} was given {self.given[name]} times")
            elif command == "CANCEL":
                self.held.pop((peer, fields["id"]), None)
                self.broker.answer(peer, fields["id"], b"stopped", status=499)
            elif command == "DISCONNECT":
                self.workers.discard(peer)
            elif command == "FINAL" and (peer, fields["id"]) in self.asked:
                name, what = self.asked.pop((peer, fields["id"]))
                self.happened[f"{what} {fields['code']}"] += 1
                self.told(name, what, fields["code"], body)

    def told(self, name: str, what: str, status: int, body: list[bytes]) -> None:
        if status == spec.CONFLICT and what in ("id", "outcome"):
            return
        if what == "id":
            if status == spec.OK:
                self.remember(name, body[0])
        elif what == "outcome":
            if status != spec.DEADLINE_EXCEEDED or not body[0].endswith(WAITED):
                self.outcome(name, status, body)
        elif what == "result" and status == spec.OK:
            self.outcome(name, int(body[0]), body[1:])
        elif status in (spec.GONE, spec.NOT_FOUND) and not self.may_be_gone(name):
            raise WrongError(f"{what} of {name}: {status}, but nobody has ended it")
        elif what in ("withdraw", "forget") and status in (spec.OK, spec.DEADLINE_EXCEEDED):
            self.ended.add(name)  # after 408 it may be done later

    def may_be_gone(self, name: str) -> bool:
        """Whether a client has forgotten the request, or has asked for that and has no answer."""
        return name in self.ended or (name, "forget") in self.asked.values()

    def remember(self, name: str, id: bytes) -> None:
        known = self.names.setdefault(name, id)
        if known != id and not self.may_be_gone(name):
            raise WrongError(f"{name} has the ids {known!r} and {id!r}")
        if self.ids.setdefault(id, name) != name:
            raise WrongError(f"id {id!r} was given to {self.ids[id]} and {name}")

    def outcome(self, name: str, status: int, body: list[bytes]) -> None:
        found = (status, tuple(body))
        if status == spec.OK and (len(body) != 1 or body[0] not in self.answered[name]):
            raise WrongError(f"{name}: no worker has answered {body}")
        if self.may_be_gone(name):
            return
        before = self.outcomes.setdefault(name, found)
        if before != found:
            raise WrongError(f"{name}: first {before}, now {found}")

    # ── the end ───────────────────────────────────────────────────────────────────────────────────

    def heal(self) -> None:
        """Every worker works, and nothing else fails: all that was acknowledged gets an outcome."""
        self.broker.holds = False
        self.broker.store_now()
        self.read()
        self.random = Random(1)
        until = self.broker.now + HEALING
        while self.broker.now < until:
            self.join()
            for worker, dispatch in list(self.held):
                name = self.held.pop((worker, dispatch))
                reply = b"%b=healed" % name.encode()
                self.answered[name].add(reply)
                self.broker.answer(worker, dispatch, reply)
                self.read()
            self.broker.heartbeat(*sorted(self.workers))
            self.broker.pass_time(1.0)
            self.read()
        for id, name in self.ids.items():
            self.last += 1
            self.asked[CLIENTS[0], self.last] = (name, "result")
            self.broker.ask(CLIENTS[0], self.last, "result", id, b"0")
            [(_, _, status, frames)] = self.broker.finals()
            if status == spec.OK:
                self.told(name, "result", status, frames)
            elif not self.may_be_gone(name):
                raise WrongError(f"{name} was acknowledged, and has no outcome: {status}")
        self.broker.check()


def wrong(runs: int, seed: int = 1, kind: type[Run] = Run) -> Iterator[tuple[int, Exception]]:
    """Each run that shows a fault: its seed and the fault."""
    for number in range(seed, seed + runs):
        run = kind(number)
        try:
            run.go()
        except (WrongError, InvariantError, LocalProtocolError) as error:
            yield number, error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    happened: Counter[str] = Counter()
    for number in range(options.seed, options.seed + options.runs):
        run = Run(number)
        run.go()
        happened += run.happened
    for what, count in sorted(happened.items()):
        print(f"{count:>9,} × {what}")
    print(f"{options.runs} runs without a fault")


if __name__ == "__main__":
    main()

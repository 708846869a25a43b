"""Where compiled code moves references without counting them, none is lost and none is left over.

In plain Python the interpreter counts; `make compiled` runs the same through links.pxd.
"""

from __future__ import annotations

import sys

from majordomus.core.broker.machine import BrokerMachine
from majordomus.core.broker.settings import BrokerSettings
from majordomus.core.broker.state.registry import Send
from majordomus.protocol import mdp03, spec
from tests.core import broker_harness as harness
from tests.core.broker_harness import number

WORKERS = 3
ROUND = 24


def broker() -> BrokerMachine:
    made = BrokerMachine(BrokerSettings(), harness.ids(), "harness")
    for n in range(WORKERS):
        ready = mdp03.pack(spec.READY, code=ROUND, service=b"echo")
        made.receive(b"worker-%d" % n, [ready], 1.0)
    return made


def serve(machine: BrokerMachine, round: int, backwards: bool) -> list[Send]:
    """A round of requests, answered in or against their order. Returns the sends of the answers."""
    first = round * ROUND + 1
    for id in range(first, first + ROUND):
        header = mdp03.pack(spec.REQUEST, id=id, ttl=5000, service=b"echo")
        machine.receive(b"client", [header, b"body"], 1.0)
    _, sends, _ = machine.take_effects()
    asked = [
        (peer, mdp03.parse(frames[0]).id)
        for peer, frames, command, _ in sends
        if command == spec.REQUEST
    ]
    assert sorted(id for _, id in asked) == [number(id) for id in range(first, first + ROUND)]
    for peer, id in reversed(asked) if backwards else asked:
        machine.receive(peer, [mdp03.pack(spec.FINAL, code=200, id=id), b"answer"], 1.0)
    machine.tick(1.0)
    return machine.take_effects()[1]


def references(machine: BrokerMachine) -> list[int]:
    registry = machine.registry
    workers = list(registry.workers.values())
    nodes = [worker.ring_node for worker in workers]
    counted = [*workers, *nodes, registry.services[b"echo"], registry.peers[b"client"]]
    return [sys.getrefcount(one) for one in counted]


def test_rounds_of_requests_leave_the_same_references() -> None:
    machine = broker()
    for round in range(20):  # the ended requests that are kept refer to workers and client
        serve(machine, round, backwards=bool(round % 2))
    before, nothing = references(machine), sys.getrefcount(None)
    for round in range(20, 120):
        serve(machine, round, backwards=bool(round % 2))
    assert references(machine) == before
    assert abs(sys.getrefcount(None) - nothing) < ROUND * 20
    for worker in machine.registry.workers.values():
        assert (worker.holding, worker.oldest, worker.newest, worker.held) == (0, None, None, {})


def test_send_that_is_kept_does_not_change() -> None:
    machine = broker()
    kept = serve(machine, 0, backwards=False)[0]
    told = [*kept]
    frames = [*kept[1]]
    for round in range(1, 5):
        sends = serve(machine, round, backwards=False)
        assert len({id(send) for send in sends}) == len(sends) == ROUND
        assert kept not in sends
    assert ([*kept], kept[1]) == (told, frames)

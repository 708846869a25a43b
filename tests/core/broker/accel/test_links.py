"""Changes in place leave the counts of references right, compiled as in Python."""

from __future__ import annotations

import sys

from majordomus.core.broker.state.history import RECENT
from majordomus.protocol import mdp03, spec
from tests.core.broker_harness import BrokerHarness, number


def test_replaced_requests_of_the_history_are_freed(harness: BrokerHarness) -> None:
    harness.worker(b"worker-001", capacity=1)
    machine = harness.machine
    worker = machine.registry.peers[b"worker-001"].worker
    assert worker is not None
    references = []
    for id in range(1, 3 * RECENT + 1):
        harness.request(b"client-c", id)
        answer = mdp03.pack(spec.FINAL, code=200, id=number(id))
        machine.receive(b"worker-001", [answer, b"body"], harness.now)
        harness.sent()
        if id >= RECENT:
            references.append(sys.getrefcount(worker))
    recent = machine.registry.history.recent
    assert [request.id for request in recent] == list(range(2 * RECENT + 1, 3 * RECENT + 1))
    assert len(set(references)) == 1

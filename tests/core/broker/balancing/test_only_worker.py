"""A service with one worker asks its strategy nothing, and nobody notices."""

from __future__ import annotations

from tests.core.broker_harness import BrokerHarness

C, V, W = b"client-c", b"worker-v", b"worker-w"


def test_strategy_is_told_of_both_when_a_second_worker_comes(harness: BrokerHarness) -> None:
    harness.worker(W, capacity=2)
    service = harness.machine.registry.services[b"echo"]
    harness.request(C, 1)
    assert service.only_worker is harness.machine.registry.workers[W]
    harness.worker(V, capacity=2)
    assert service.only_worker is None
    harness.request(C, 2)
    harness.request(C, 3)
    held = {id: worker.holding for id, worker in harness.machine.registry.workers.items()}
    assert held == {W: 2, V: 1}


def test_only_worker_with_no_free_slot_lets_requests_wait(harness: BrokerHarness) -> None:
    harness.worker(W, capacity=1)
    harness.request(C, 1)
    harness.request(C, 2)
    service = harness.machine.registry.services[b"echo"]
    assert (service.queue.count, service.only_worker.holding) == (1, 1)

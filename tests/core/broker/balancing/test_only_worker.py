"""A service with one worker is balanced as any other."""

from __future__ import annotations

from tests.core.broker_harness import BrokerHarness

C, V, W = b"client-c", b"worker-v", b"worker-w"


def test_second_worker_gets_its_share_of_the_requests(harness: BrokerHarness) -> None:
    harness.worker(W, capacity=2)
    service, workers = (
        harness.machine.registry.services[b"echo"],
        harness.machine.registry.workers,
    )
    harness.request(C, 1)
    assert service.newest_worker is workers[W]
    harness.worker(V, capacity=2)
    assert service.newest_worker is workers[V]
    harness.request(C, 2)
    harness.request(C, 3)
    assert {id: worker.holding for id, worker in workers.items()} == {W: 2, V: 1}


def test_newest_worker_is_again_the_first_one_when_the_second_has_left(
    harness: BrokerHarness,
) -> None:
    harness.worker(W)
    harness.worker(V)
    harness.leave(V)
    registry = harness.machine.registry
    assert registry.services[b"echo"].newest_worker is registry.workers[W]


def test_only_worker_with_no_free_slot_lets_requests_wait(harness: BrokerHarness) -> None:
    harness.worker(W, capacity=1)
    harness.request(C, 1)
    harness.request(C, 2)
    registry = harness.machine.registry
    assert (registry.services[b"echo"].queue.count, registry.workers[W].holding) == (1, 1)

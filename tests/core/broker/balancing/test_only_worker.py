"""A service with one worker asks its strategy nothing, and nobody notices."""

from __future__ import annotations

from tests.core.broker_harness import House

C, V, W = b"client-c", b"worker-v", b"worker-w"


def test_strategy_is_told_of_both_when_a_second_worker_comes(house: House) -> None:
    house.worker(W, capacity=2)
    service = house.machine.registry.services[b"echo"]
    house.request(C, 1)
    assert service.only_worker is house.machine.registry.workers[W]
    house.worker(V, capacity=2)
    assert service.only_worker is None
    house.request(C, 2)
    house.request(C, 3)
    held = {id: worker.holding for id, worker in house.machine.registry.workers.items()}
    assert held == {W: 2, V: 1}


def test_only_worker_with_no_free_slot_lets_requests_wait(house: House) -> None:
    house.worker(W, capacity=1)
    house.request(C, 1)
    house.request(C, 2)
    service = house.machine.registry.services[b"echo"]
    assert (service.queue.count, service.only_worker.holding) == (1, 1)

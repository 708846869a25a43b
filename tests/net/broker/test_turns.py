"""A turn of the broker's loop ends after a few milliseconds, not after a count alone."""

from __future__ import annotations

from typing import Any

from majordomus.net.broker.listener import BATCH, SMALLEST_BATCH, PeerMessage
from majordomus.net.broker.loop import LONGEST_TURN, QUICK_MESSAGE, SLOWED_TURN, BrokerLoop

MESSAGES: list[PeerMessage] = [(b"peer", [b"%d" % n]) for n in range(BATCH)]


class Machine:
    """Counts messages; each takes `cost` seconds of the clock."""

    def __init__(self) -> None:
        self.now, self.cost = 0.0, 0.0
        self.got: list[PeerMessage] = []
        self.slices: list[int] = []
        self.empty = 0

    def receive_all(self, batch: list[PeerMessage], now: float) -> list[Any]:
        self.got += batch
        self.slices.append(len(batch))
        self.now += self.cost * len(batch)
        return []

    def socket_empty(self, now: float) -> None:
        self.empty += 1

    def tick(self, now: float) -> None:
        pass

    def take_effects(self) -> tuple[list[Any], list[Any], list[Any]]:
        return [], [], []

    def next_deadline(self) -> float:
        return float("inf")


class Listener:
    """Has `MESSAGES` at once, then nothing."""

    def __init__(self) -> None:
        self.due, self.batch = float("inf"), BATCH
        self.left = list(MESSAGES)
        self.reports = self.waits = 0

    def wait(self, milliseconds: int) -> int:
        self.waits += 1
        return 2

    def receive(self, ready: int, now: float) -> tuple[list[PeerMessage], bool]:
        batch, self.left = self.left[: self.batch], self.left[self.batch :]
        return batch, bool(self.left)

    def report_connections(self, ready: int, now: float) -> None:
        self.reports += 1

    def close(self) -> None:
        pass


class Waker:
    def wake(self) -> None:
        pass

    def clear(self) -> None:
        pass


def loop(cost: float) -> tuple[BrokerLoop, Any, Any]:
    machine, listener = Machine(), Listener()
    machine.cost = cost
    made: Any = BrokerLoop
    return made(machine, listener, Waker(), lambda: machine.now, None), machine, listener


def test_quick_messages_are_handled_in_one_turn() -> None:
    broker, machine, listener = loop(cost=1e-6)
    assert broker._turn(0.0) == float("inf")
    assert machine.got == MESSAGES
    assert machine.slices == [32, 64, 128, 256, 32]
    assert (machine.empty, listener.reports, listener.batch) == (1, 1, BATCH)


def test_turn_with_slow_messages_ends_early_and_the_rest_is_handled_next() -> None:
    broker, machine, listener = loop(cost=LONGEST_TURN / 10)
    assert broker._turn(1.0) == 0.0
    assert len(machine.got) == 32
    assert (machine.empty, listener.reports, listener.batch) == (0, 0, SMALLEST_BATCH)
    turns = 1
    while len(machine.got) < BATCH:
        assert listener.reports == 0
        broker._turn(0.0)
        turns += 1
    assert machine.got == MESSAGES
    assert machine.slices[1:] == [SMALLEST_BATCH] * 240
    assert (machine.empty, listener.reports, listener.waits) == (1, 1, 1)
    assert turns == 121


def test_batch_after_a_slow_turn_is_as_large_as_a_short_turn_can_handle() -> None:
    broker, machine, listener = loop(cost=LONGEST_TURN / 64)
    broker._turn(0.0)
    assert machine.slices == [32, 64]
    assert listener.batch == 16
    listener.left = list(MESSAGES)
    while broker._rest:
        broker._turn(0.0)
    broker._turn(0.0)
    assert machine.slices[-1] == listener.batch == 16


def test_batches_grow_again_when_messages_are_quick() -> None:
    broker, machine, listener = loop(cost=LONGEST_TURN)
    broker._turn(0.0)
    machine.cost = 0.0
    while broker._rest:
        broker._turn(0.0)
    for _ in range(7):
        broker._turn(0.0)
    assert listener.batch == BATCH


def test_long_turn_of_quick_messages_does_not_make_batches_smaller() -> None:
    broker, machine, listener = loop(cost=QUICK_MESSAGE / 3)
    broker._turn(0.0)
    assert machine.now > LONGEST_TURN
    assert listener.batch == BATCH


def test_batches_grow_after_a_disturbed_turn_although_small_ones_cost_more_per_message() -> None:
    """Another program held the processor in one turn. Small batches have more system calls for each
    message: 16 of them take longer than a quarter of a millisecond."""
    broker, machine, listener = loop(cost=LONGEST_TURN / 64)
    broker._turn(0.0)
    assert listener.batch == 16
    machine.cost = QUICK_MESSAGE * 0.9
    assert machine.cost * 16 > SLOWED_TURN / 2
    for _ in range(7):
        listener.left = list(MESSAGES)
        broker._turn(0.0)
        while broker._rest:
            broker._turn(0.0)
    assert listener.batch == BATCH


def test_few_messages_cost_no_look_at_the_clock() -> None:
    broker, _, listener = loop(cost=0.0)
    looks = 0

    def clock() -> float:
        nonlocal looks
        looks += 1
        return 0.0

    broker._clock = clock
    listener.left = MESSAGES[:SMALLEST_BATCH]
    broker._turn(0.0)
    assert looks == 1

"""Who sends a message without an end is found and cut off, and nobody else."""

from __future__ import annotations

import pytest

from majordomus.net.broker.limits import oversize_detector as flood
from majordomus.net.broker.limits.descriptors import MEASURES, Mark
from majordomus.net.broker.limits.oversize_detector import EVERY, ROOM, SLACK, WATCH, Flood, memory

pytestmark = pytest.mark.skipif(not MEASURES, reason="only Linux tells what a connection brought")

MOST = 1024 * 1024
LIMIT = MOST + ROOM


class Scene:
    """Connections by descriptors, what each has brought, and the memory that there is."""

    def __init__(self, *fds: int, quiet: tuple[int, ...] = ()) -> None:
        self.marks = {fd: Mark(fd, ("10.0.0.1", fd)) for fd in fds}
        self.brought = dict.fromkeys(fds, 0)
        self.quiet = set(quiet)
        self.memory = 50_000_000
        self.now = 0.0
        self.flood = Flood(MOST, memory=lambda: self.memory, brought=lambda fd: self.brought[fd])
        self.flood.begin(self.now)

    def look(self) -> list[int]:
        self.now = self.flood.due
        return self.flood.look(self.marks, self.quiet.__contains__, self.now)


def test_nobody_is_looked_at_while_memory_does_not_grow() -> None:
    scene = Scene(1)
    scene.brought[1] = 100 * LIMIT
    scene.memory += SLACK
    assert [scene.look() for _ in range(100)] == [[]] * 100
    assert not scene.flood.watching


def test_who_brings_more_than_a_message_without_delivering_is_guilty_at_the_second_look() -> None:
    scene = Scene(1, 2)
    scene.memory += SLACK + 1
    assert scene.look() == []
    assert scene.flood.watching
    scene.brought[1] += LIMIT + 1
    scene.brought[2] += LIMIT
    assert scene.look() == []
    assert scene.look() == [1]


def test_what_a_silent_connection_brought_before_counts_too() -> None:
    scene = Scene(1, 2, quiet=(1,))
    scene.brought = {1: LIMIT + 1, 2: LIMIT + 1}
    scene.memory += SLACK + 1
    assert scene.look() == []
    assert scene.look() == [1]


def test_who_delivers_is_measured_from_there() -> None:
    scene = Scene(1)
    scene.memory += SLACK + 1
    scene.look()
    for _ in range(20):
        scene.brought[1] += LIMIT + 1
        scene.flood.delivered([1])
        assert scene.look() == []


def test_who_delivers_between_two_looks_is_no_suspect() -> None:
    scene = Scene(1)
    scene.memory += SLACK + 1
    scene.look()
    scene.brought[1] += LIMIT + 1
    assert scene.look() == []
    scene.flood.delivered([1])
    assert scene.look() == []


def test_memory_that_nobody_is_guilty_of_is_taken_for_granted_after_a_while() -> None:
    scene = Scene(1)
    scene.memory += SLACK + 1
    began = scene.flood.due
    while scene.look() == [] and scene.flood.watching:
        pass
    assert scene.now - began == pytest.approx(WATCH, abs=2 * EVERY)
    assert scene.look() == []
    assert not scene.flood.watching
    scene.memory += SLACK + 1
    scene.look()
    assert scene.flood.watching


def test_connection_that_comes_while_it_watches_is_measured_from_its_first_look() -> None:
    scene = Scene(1)
    scene.memory += SLACK + 1
    scene.look()
    scene.marks[2], scene.brought[2] = Mark(2, ("10.0.0.2", 2)), 10
    assert scene.look() == []
    scene.brought[2] += LIMIT + 1
    assert scene.look() == []
    assert scene.look() == [2]


def test_without_connections_it_sleeps() -> None:
    scene = Scene()
    scene.look()
    assert scene.flood.due == float("inf")
    scene.flood.begin(5.0)
    assert scene.flood.due == 5.0 + EVERY


def test_memory_is_what_the_kernel_says_and_grows_with_what_is_held() -> None:
    before = memory()
    held = bytearray(b"x" * 40_000_000)
    assert memory() - before > 30_000_000
    del held
    assert flood.SLACK < 64 * 1024 * 1024

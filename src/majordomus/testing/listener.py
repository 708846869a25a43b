"""The broker's end of memory links, and its faults: lost connections, and slow readers."""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Final

from majordomus.net.broker.listener import BATCH, PeerMessage
from majordomus.net.connection.memory_link import MemoryLink
from majordomus.net.waker import Waker
from majordomus.testing.recorder import Recorder
from majordomus.testing.virtual_loop import VirtualLoop

if TYPE_CHECKING:
    from majordomus.core.broker.contract import Machine
    from majordomus.core.broker.state.registry import Send
    from majordomus.net.broker.loop import BrokerLoop

QUEUE: Final = 1000
"""Messages that a link holds for a peer that does not read."""


class MemoryWaker(Waker):
    """Has the broker do a turn."""

    def __init__(self, wake: Callable[[], object]) -> None:
        self._wake = wake

    def wake(self) -> None:
        self._wake()

    def clear(self) -> None:
        """Do nothing: `wake` has no state."""

    def close(self) -> None:
        """Do nothing."""


class MemoryListener:
    """A `Listener` of the broker, and the `MemoryEndpoint` of its peers.

    links: the links of connected peers, by routing id.
    paused: links that do not read: they hold QUEUE messages, and refuse the rest.
    """

    name = "memory"
    due = inf

    def __init__(self, loop: VirtualLoop, recorder: Recorder) -> None:
        self.batch = BATCH
        self.links: dict[bytes, MemoryLink] = {}
        self.paused: dict[MemoryLink, deque[list[bytes]]] = {}
        self._loop, self._recorder = loop, recorder
        self._inbox: deque[PeerMessage] = deque()
        self._ended: list[bytes] = []
        self._machine: Machine | None = None
        self._turns: BrokerLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._planned = False
        self._closed = False

    def begin(self, machine: Machine) -> MemoryListener:
        """Report to this machine."""
        self._machine = machine
        return self

    def drive(self, turns: BrokerLoop) -> None:
        """Do the turns of this loop from now on."""
        self._turns = turns
        self.plan()

    def plan(self) -> None:
        """Have the broker do a turn in the next step of the loop."""
        if not self._planned and not self._closed:
            self._planned = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._planned = False
        if self._turns is None or self._closed:
            return
        wait = self._turns.step()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if wait == 0.0 or self._inbox:
            self.plan()
        elif wait != inf:
            self._timer = self._loop.call_later(wait, self.plan)

    # ── the endpoint of links ─────────────────────────────────────────────────────────────────────

    def accept(self, link: MemoryLink) -> None:
        self.links[link.id] = link
        self._loop.call_soon(link.connected)

    def deliver(self, link: MemoryLink, frames: list[bytes]) -> bool:
        if link.id not in self.links:
            return False
        self._recorder.from_peer(link.id, frames)
        self._inbox.append((link.id, list(frames)))
        self.plan()
        return True

    def closed(self, link: MemoryLink) -> None:
        if self.links.pop(link.id, None) is not None:
            self.paused.pop(link, None)
            self._ended.append(link.id)
            self.plan()

    def run_until(self, done: Callable[[], bool], seconds: float) -> None:
        self._loop.step_until(done, self._loop.time() + seconds)

    # ── faults ────────────────────────────────────────────────────────────────────────────────────

    def drop(self, link: MemoryLink) -> None:
        """End the connection of a link, as a network does."""
        if self.links.pop(link.id, None) is not None:
            self.paused.pop(link, None)
            self._inbox = deque(one for one in self._inbox if one[0] != link.id)
            self._ended.append(link.id)
            link.lost()
            self.plan()

    def pause(self, link: MemoryLink) -> None:
        """Hold the messages for a link until `resume`."""
        self.paused.setdefault(link, deque())

    def resume(self, link: MemoryLink) -> None:
        """Hand over the messages that were held."""
        for frames in self.paused.pop(link, ()):
            link.put(frames)

    # ── the listener of the broker ────────────────────────────────────────────────────────────────

    def open(self) -> None:
        """Do nothing: the links are connected in this process."""

    def bind(self, url: str) -> str:
        return url

    def wait(self, milliseconds: int) -> int:
        """Do not wait: the event loop does."""
        return 0

    def receive(self, ready: int, now: float) -> tuple[list[PeerMessage], bool]:
        inbox = self._inbox
        batch = [inbox.popleft() for _ in range(min(self.batch, len(inbox)))]
        return batch, bool(inbox)

    def report_connections(self, ready: int, now: float) -> None:
        if self._machine is None or self._inbox:
            return  # the end of a connection comes after its last message
        ended, self._ended = self._ended, []
        for peer in ended:
            self._machine.connection_over(peer, now)

    def tick(self, now: float) -> None:
        """Do nothing: nothing is due."""

    def send(self, batch: list[Send], now: float) -> list[tuple[int, int]]:
        refused: list[tuple[int, int]] = []
        full: set[bytes] = set()
        for index, (peer, frames, *_) in enumerate(batch):
            link = self.links.get(peer)
            if link is None:
                refused.append((index, errno.EHOSTUNREACH))
                continue
            held = self.paused.get(link)
            if peer in full or (held is not None and len(held) >= QUEUE):
                full.add(peer)
                refused.append((index, errno.EAGAIN))
                continue
            self._recorder.to_peer(peer, frames)
            if held is not None:
                held.append(list(frames))
            else:
                link.put(frames)
        return refused

    def undelivered(self) -> int:
        return 0

    def buffers(self) -> dict[str, int]:
        return {}

    def close(self, linger: float = 0.0) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for link in list(self.links.values()):
            link.lost()
        self.links.clear()

"""A broker machine with a store in memory, which a test may stop, restart and make wait."""

from __future__ import annotations

from typing import Any

from majordomus.core.broker.durable.records import COUNTER_BITS, Opened
from majordomus.core.broker.machine import BrokerMachine
from majordomus.core.broker.settings import BrokerSettings
from majordomus.durable.memory import MemoryStore
from majordomus.durable.store import scan_all, write
from majordomus.protocol import metadata, spec
from tests.core.broker_harness import BrokerHarness, ids

WALL = 1_000_000.0
"""Wall-clock seconds minus the seconds of the harness's clock."""


class DurableHarness(BrokerHarness):
    """A machine, its program and its store.

    store: what survives a restart.
    holds: whether writes wait until `store_now`.
    writes: writes that are not stored yet.
    """

    def __init__(self, strategies: Any = None, **settings: Any) -> None:
        self.holds = False
        self.writes: list[tuple[int, Any]] = []
        self.store = MemoryStore()
        self.settings = settings
        super().__init__(strategies, **settings)
        self._open()

    def _open(self) -> None:
        store = self.store
        first = (store.epoch << COUNTER_BITS) + 1
        opened = Opened(store.name, store.secret, first, self.now + WALL)
        self.machine.use_store(opened, self.now)
        for rows in scan_all(store):
            self.machine.recover(rows, self.now)

    def _send(self) -> None:
        while True:
            writes, sends, facts = self.machine.take_effects()
            self.writes += writes
            self.facts.extend(facts)
            self._transmit(list(sends))
            if self.holds or not self.writes:
                return
            self.store_now(turn=False)

    def store_now(self, most: int = 1000, *, turn: bool = True) -> None:
        """Store the writes that wait, `most` of them, and report that."""
        batch, self.writes = self.writes[:most], self.writes[most:]
        if batch:
            answers = write(self.store, batch)
            self.machine.stored(batch[-1][0], answers, self.now)
            self.machine.store_state(self.store.state())
        if turn:
            self.turn()

    def restart(self, *, down: float = 1.0) -> None:
        """End the broker at once, as kill -9 does, and start it again with what is stored."""
        self.check()
        self.writes = []
        self.waiting.clear()
        self.unreachable.clear()
        self.now += down
        self.machine = BrokerMachine(BrokerSettings(**self.settings), ids(), "harness")
        self.store = MemoryStore(self.store.rows, self.store.epoch + 1)
        self._open()
        self.turn()

    # peers

    def durable(self, peer: bytes, id: int, *body: bytes, flags: int = 0, **fields: Any) -> None:
        """`peer` sends REQUEST with flag DURABLE; fields that the header lacks are metadata."""
        header = {k: fields.pop(k) for k in ("service", "ttl", "address") if k in fields}
        if fields:
            header["metadata"] = metadata.pack(fields)
            flags |= spec.METADATA
        self.request(peer, id, *body, flags=flags | spec.DURABLE, **header)

    def submit(self, peer: bytes, id: int, *body: bytes, **fields: Any) -> bytes:
        """`peer` submits a durable request; returns its id. Other messages are dropped."""
        self.durable(peer, id, *body, detach=True, **fields)
        [(_, _, status, frames)] = [one for one in self.finals() if one[:2] == (peer, id)]
        assert status == spec.OK, frames
        return frames[0]

    def ask(self, peer: bytes, id: int, what: str, *body: bytes, **fields: Any) -> None:
        """`peer` sends REQUEST to `$durable.what`."""
        self.request(peer, id, *body, service=b"$durable." + what.encode(), **fields)

    def become(self, peer: bytes, user: str) -> None:
        """The connection of `peer` proves a user."""
        assert self.machine.identify(peer, user, (), self.now)

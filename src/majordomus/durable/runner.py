"""The thread of a store: it writes one batch after the other.

A batch is what has gathered while the one before was written, up to ROWS operations and BYTES of
bodies. There is no delay: with one request at a time a batch has one row, with many it has many.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Final

from majordomus.core.broker.durable.records import Answer, StoreState
from majordomus.durable.batches import ROWS, fitting
from majordomus.durable.store import Numbered, Store, write

IDLE_AFTER: Final = 0.2
"""Seconds without work after which the store does its maintenance."""
LOOK_EVERY: Final = 0.4
"""Seconds between two looks at the disk while there is no work: /readyz has to be false within a
second of a full disk."""

Done = tuple[int, list[tuple[int, Answer]], StoreState]
"""The number up to which everything is stored, the answers, and the state of the store."""


class StoreThread:
    """Writes the operations of a broker's machine in a thread of its own.

    `submit`, `done`, `failed` and `close` belong to the broker's thread.

    done: what was stored, oldest first; the broker takes it.
    failed: why the store has failed; None while it works. Nothing is stored after a failure.
    """

    def __init__(self, store: Store, wake: Callable[[], None]) -> None:
        self.done: deque[Done] = deque()
        self.failed: BaseException | None = None
        self._store = store
        self._wake = wake
        self._queue: SimpleQueue[list[Numbered] | None] = SimpleQueue()
        self._rest: list[Numbered] = []
        self._ends = False
        self._reported = StoreState()
        self._thread = threading.Thread(target=self._run, name="majordomus-store", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, writes: Sequence[tuple[int, Any]]) -> None:
        """Write these operations, behind those before."""
        self._queue.put(list(writes))

    def close(self) -> None:
        """Write what has been submitted, then end the thread and close the store. May be
        repeated."""
        if self._thread.ident is None:
            self._store.close()
            return
        self._queue.put(None)
        self._thread.join()

    # ── the thread ────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        try:
            while True:
                batch = self._next_batch()
                if batch:
                    answers = write(self._store, batch)
                    self.done.append((batch[-1][0], answers, self._store.state()))
                    self._wake()
                    self._store.maintain(idle=False)
                elif self._ends:
                    break
            self._store.close()
        except BaseException as error:
            self.failed = error
            self._store.abandon()
            self._wake()

    def _next_batch(self) -> list[Numbered]:
        """Wait for work, and return what has gathered; an empty list after `close`."""
        wait = IDLE_AFTER
        while not self._rest and not self._ends:
            try:
                self._take(self._queue.get(timeout=wait))
            except Empty:
                self._store.maintain(idle=True)
                self._report()
                wait = LOOK_EVERY
        while len(self._rest) < ROWS:
            try:
                self._take(self._queue.get_nowait())
            except Empty:
                break
        count, batch = fitting(self._rest), self._rest
        self._rest = batch[count:]
        del batch[count:]
        return batch

    def _report(self) -> None:
        """Report the state of the store when it has changed while nothing was written: within a
        second readiness and metrics have it."""
        state = self._store.state()
        if state != self._reported:
            self._reported = state
            self.done.append((0, [], state))
            self._wake()

    def _take(self, writes: list[Numbered] | None) -> None:
        if writes is None:
            self._ends = True
        else:
            self._rest.extend(writes)

"""The loop of a broker. Each turn: wait → receive → tick → send (docs/rules.md).

The loop decides when to wait and what to log. All rules are in the machine.
"""

from __future__ import annotations

import logging
import threading
from math import ceil, inf
from typing import TYPE_CHECKING, Final

from majordomus.net.broker.fact_log import FactLog
from majordomus.net.broker.listener import BATCH, LINGER, SMALLEST_BATCH, WAKER
from majordomus.net.broker.program import Program
from majordomus.net.zmq.wire import GONE

if TYPE_CHECKING:
    from collections.abc import Callable

    from majordomus.core.broker.contract import Machine
    from majordomus.durable.runner import StoreThread
    from majordomus.net.broker.access_rules_watch import AccessRulesWatch
    from majordomus.net.broker.audit_log import AuditLog
    from majordomus.net.broker.listener import Listener, PeerMessage
    from majordomus.net.waker import Waker

LONGEST_WAIT: Final = 3600.0
"""Seconds that one wait may take."""
SOCKET_WAIT: Final = 0.05
"""Seconds between two looks whether the sockets have taken what was sent, at the end of a drain."""
LONGEST_TURN: Final = 0.002
"""Seconds after which a turn handles no further messages."""
SLOWED_TURN: Final = 0.0005
"""The same after such a turn: then batches are as small as a turn of that length can handle, and
connections take shorter turns."""
QUICK_MESSAGE: Final = 30e-6
"""Seconds of a turn, its sends included, for each of its messages. Up to here batches do not get
smaller: it would cost more system calls for each message, and save no time."""
FIRST_SLICE: Final = 32
"""Messages that are handled before the clock is read; each next slice is twice as long."""

logger = logging.getLogger("majordomus.broker")


class BrokerLoop:
    """The loop around a machine and its listener.

    `ask_to_stop` may be called from any thread, everything else from one.
    """

    def __init__(
        self,
        machine: Machine,
        listener: Listener,
        waker: Waker,
        clock: Callable[[], float],
        watch: AccessRulesWatch | None,
        store: StoreThread | None = None,
    ) -> None:
        self.failure: BaseException | None = None
        self._store = store
        self.waker = waker
        self.audit: AuditLog | None = None
        """The audit log, closed with the loop."""
        self.asked = False
        self.started = False
        self._at_once = False
        self._linger = LINGER
        self._rest: list[PeerMessage] = []
        self._full = False
        self._handled = -1  # messages of this turn; -1 where they were too few to measure it
        self._ready = 0
        self._machine, self._listener, self._clock = machine, listener, clock
        self._watch = watch
        self._log = FactLog(logger)
        self.program = Program(machine, waker.wake)

    def ask_to_stop(self, *, at_once: bool) -> None:
        """Ask the loop to end: after the drain, or at once."""
        self.asked = True
        self._at_once = self._at_once or at_once
        self.waker.wake()

    def run(self) -> None:
        """Run until `ask_to_stop`, then drain; close everything."""
        self.started = True
        self.program.thread = threading.get_ident()
        try:
            self.program.work(self._clock())  # tasks that middleware posted while attaching
            wait = 0.0
            while not self.asked:
                wait = self._turn(wait)
            if not self._at_once:
                self._drain()
            if self.failure is None:
                self._machine.close(self._clock())
                self._apply(self._clock())
        finally:
            self._close()

    def dispose(self) -> None:
        """Close everything, the waker included: no thread may use it afterwards. May be
        repeated."""
        self._close()
        self.waker.close()
        if self.audit is not None:
            self.audit.close()

    def _close(self) -> None:
        self.program.close(self._clock())
        if self._store is not None:
            self._store.close()
        self._listener.close(self._linger)
        self._log.close()

    def _drain(self) -> None:
        """Serve until every answer has left, for `drain_timeout` at most. Log what is given up."""
        machine, listener, now = self._machine, self._listener, self._clock()
        until = now + machine.settings.drain_timeout
        machine.drain(now)
        wait = self._apply(now)
        while not self._at_once and now < until:
            if not machine.drained or machine.unstored:
                wait = self._turn(min(wait, until - now))
            elif listener.undelivered():
                wait = self._turn(min(wait, until - now, SOCKET_WAIT))
            else:
                break
            now = self._clock()
        self._linger = max(LINGER, until - now)
        requests, answers = machine.unfinished
        messages = listener.undelivered()
        if not self._at_once and (requests or answers or messages):
            logger.warning(
                "ended with %d open requests, and with %d answers and %d other messages that slow"
                " peers have not taken",
                requests,
                answers,
                messages,
            )

    def step(self) -> float:
        """Do one turn that does not wait: for an owner that waits itself (`majordomus.testing`).

        Returns the seconds after which the next turn is needed, if no message comes before.
        """
        self.started = True
        self.program.thread = threading.get_ident()
        return self._turn(0.0)

    def _turn(self, wait: float) -> float:
        """Wait, receive one batch, tick, send. When the messages of a batch take too long, the rest
        of them is for the next turns, which do not wait or receive.

        Returns the seconds that the next turn may wait.
        """
        listener = self._listener
        if self._rest:
            now = self._clock()
            batch, self._rest = self._rest, []
        else:
            ready = listener.wait(ceil(min(wait, LONGEST_WAIT) * 1000))
            now = self._clock()
            if ready & WAKER:
                self.waker.clear()
            batch, self._full = listener.receive(ready, now)
            self._ready = ready
        self._handle(batch, now)
        full = self._full or bool(self._rest)
        if not full:
            self._machine.socket_empty(now)
        if not self._rest:  # the end of a connection is reported behind its last message
            listener.report_connections(self._ready, now)
            if now >= listener.due:
                listener.tick(now)
        if self._watch is not None and now >= self._watch.due:
            self._watch.look(now)
        if self.program.tasks:
            self.program.work(now)
        if self._store is not None:
            self._take_stored(self._store, now)
        self._machine.tick(now)
        wait = self._apply(now)
        if self._handled >= 0:
            self._adapt(self._clock() - now)
        return 0.0 if full else wait

    def _handle(self, batch: list[PeerMessage], now: float) -> None:
        """Hand a batch to the machine, for LONGEST_TURN at most; what is left is `_rest`.

        The next batch is smaller after a slow one (`_adapt`), so that a connection with slow
        messages holds the others up less.
        """
        listener, count = self._listener, len(batch)
        slowed = listener.batch < BATCH
        if count <= SMALLEST_BATCH and not slowed:
            self._receive(batch, now)
            return
        size, longest = FIRST_SLICE, LONGEST_TURN
        if slowed:
            size, longest = listener.batch, SLOWED_TURN
        at = 0
        while True:
            self._receive(batch[at : at + size], now)
            at += size
            took = self._clock() - now
            if at >= count or took > longest:
                break
            if not slowed:
                size *= 2
        self._rest = batch[at:]
        self._handled = min(at, count)

    def _adapt(self, took: float) -> None:
        """Choose the size of the next batches by the seconds that a turn took, its sends
        included.

        A turn of many quick messages may take long, too. A processor that other programs use makes
        any turn long; then batches have to grow again although small ones cost more per message.
        """
        listener, handled, self._handled = self._listener, self._handled, -1
        slowed = listener.batch < BATCH
        quick = took <= handled * QUICK_MESSAGE
        if not quick and took > (2 * SLOWED_TURN if slowed else LONGEST_TURN):
            fits = int(handled * SLOWED_TURN / took)
            listener.batch = max(SMALLEST_BATCH, min(fits, listener.batch))
        elif slowed and (quick or took < SLOWED_TURN / 2):
            listener.batch = min(BATCH, 2 * listener.batch)

    def _receive(self, batch: list[PeerMessage], now: float) -> None:
        for _, fault in self._machine.receive_all(batch, now):
            # A fault of ours costs one message; the broker continues.
            logger.critical("the core failed on a message; please report this", exc_info=fault)

    def _take_stored(self, store: StoreThread, now: float) -> None:
        """Report to the machine what has been stored. When the store has failed, end without an
        answer to what it was to store: whether that is stored is unknown."""
        while store.done:
            number, answers, state = store.done.popleft()
            self._machine.store_state(state)
            self._machine.stored(number, answers, now)
        if store.failed is not None and self.failure is None:
            self.failure = store.failed
            self.asked = self._at_once = True
            logger.critical(
                "the store has failed: %s; whether unanswered requests are stored is unknown",
                store.failed,
            )

    def _apply(self, now: float) -> float:
        """Send, and report refusals to the machine, until no send is refused; log the facts.

        Returns the seconds that the machine can wait. After a refusal because a peer is gone it is
        0: the machine decides about that peer when a receive has found the socket empty.
        """
        peer_gone = False
        while True:
            writes, sends, facts = self._machine.take_effects()
            if writes and self._store is not None:
                self._store.submit(writes)
            for name, data in facts:
                self._log.write(name, data, now)
                if self.audit is not None:
                    self.audit.write(name, data, now)
                if self.program.observer is not None:
                    self.program.observer.fact(self._machine, name, data)
            refusals = self._listener.send(sends, now) if sends else ()
            if not refusals:
                break
            for index, number in refusals:
                gone = number == GONE
                peer_gone = peer_gone or gone
                self._machine.refused(sends[index], gone, now)
        return 0.0 if peer_gone else self._wait(now)

    def _wait(self, now: float) -> float:
        deadline = min(self._machine.next_deadline(), self._listener.due)
        if self._watch is not None:
            deadline = min(deadline, self._watch.due)
        return inf if deadline == inf else max(0.0, deadline - now)

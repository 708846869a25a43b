"""The turns of a broker's loop: wait, hear, judge, send (docs/rules.md).

Nothing is decided here but when to wait and what to log.
"""

from __future__ import annotations

import logging
from math import ceil, inf
from typing import TYPE_CHECKING, Final

from majordomus.net.broker.fact_log import FactLog
from majordomus.net.broker.listener import WAKER
from majordomus.net.broker.program import Program
from majordomus.net.zmq._pure import GONE

if TYPE_CHECKING:
    from collections.abc import Callable

    from majordomus.core.broker.machine import BrokerMachine
    from majordomus.net.broker.access_rules_watch import AccessRulesWatch
    from majordomus.net.broker.listener import Listener
    from majordomus.net.waker import Waker

LONGEST_WAIT: Final = 3600.0

logger = logging.getLogger("majordomus.broker")


class BrokerLoop:
    """The turns of the loop around a machine and its port.

    `ask_to_stop` may come from any thread, the rest from one.
    """

    def __init__(
        self,
        machine: BrokerMachine,
        port: Listener,
        waker: Waker,
        clock: Callable[[], float],
        watch: AccessRulesWatch | None,
    ) -> None:
        self.waker = waker
        self.asked = False
        self.started = False
        self._at_once = False
        self._machine, self._port, self._clock = machine, port, clock
        self._watch = watch
        self._log = FactLog(logger)
        self.program = Program(machine, waker.wake)

    def ask_to_stop(self, *, at_once: bool) -> None:
        self.asked = True
        self._at_once = self._at_once or at_once
        self.waker.wake()

    def run(self) -> None:
        """Until asked to stop, then the drain; everything is closed afterwards."""
        self.started = True
        try:
            self.program.work(self._clock())  # what middleware wants before the first message
            wait = 0.0
            while not self.asked:
                wait = self._turn(wait)
            if not self._at_once:
                self._drain()
            self._machine.close(self._clock())
            self._apply(self._clock())
        finally:
            self._close()

    def dispose(self) -> None:
        """Closes everything; may be repeated. Nobody may be about to use the waker."""
        self._close()
        self.waker.close()

    def _close(self) -> None:
        self.program.close(self._clock())
        self._port.close()

    def _drain(self) -> None:
        now = self._clock()
        until = now + self._machine.settings.drain_timeout
        self._machine.drain(now)
        wait = self._apply(now)
        while not self._at_once and not self._machine.drained and now < until:
            wait = self._turn(min(wait, until - now))
            now = self._clock()

    def _turn(self, wait: float) -> float:
        """Waits, then hears, judges and sends once.

        Returns how long the next turn may wait, in seconds.
        """
        port = self._port
        ready = port.wait(ceil(min(wait, LONGEST_WAIT) * 1000))
        now = self._clock()
        if ready & WAKER:
            self.waker.clear()
        batch, full = port.receive(ready, now)
        for _, fault in self._machine.receive_all(batch, now):
            # A fault of ours: one message is lost, the others' broker is not.
            logger.critical("the core failed on a message; please report this", exc_info=fault)
        if not full:
            self._machine.socket_empty(now)
        port.hear(ready, now)
        if self._watch is not None and now >= self._watch.due:
            self._watch.look(now)
        if now >= port.due:
            port.look(now)
        if self.program.jobs:
            self.program.work(now)
        self._machine.tick(now)
        wait = self._apply(now)
        return 0.0 if full else wait

    def _apply(self, now: float) -> float:
        """Sends, and tells the machine what was refused, until nothing is refused any more; facts
        are logged.

        Returns how long the machine can wait, in seconds: not at all when it has learned that
        somebody is gone, for the verdict needs a receive that finds the socket empty.
        """
        someone_gone = False
        while True:
            _, sends, facts = self._machine.take_effects()
            for name, data in facts:
                self._log.write(name, data, now)
                if self.program.observer is not None:
                    self.program.observer.fact(self._machine, name, data)
            refusals = self._port.send(sends, now) if sends else ()
            if not refusals:
                break
            for index, number in refusals:
                gone = number == GONE
                someone_gone = someone_gone or gone
                self._machine.refused(sends[index], gone, now)
        return 0.0 if someone_gone else self._wait(now)

    def _wait(self, now: float) -> float:
        deadline = min(self._machine.next_deadline(), self._port.due)
        if self._watch is not None:
            deadline = min(deadline, self._watch.due)
        return inf if deadline == inf else max(0.0, deadline - now)

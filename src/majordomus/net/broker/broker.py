"""The broker as a program: one socket, one thread, one loop around the machine that holds all rules
(docs/rules.md).

Nothing is decided here but when to begin and when to stop; the turns of the loop are in turns.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket as plain
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from majordomus.core.broker.balancing.registry import Factory
from majordomus.core.broker.contract import Machine
from majordomus.core.broker.machine import BrokerMachine
from majordomus.core.broker.settings import BrokerSettings
from majordomus.errors import LocalProtocolError
from majordomus.net import endpoints
from majordomus.net.broker.access_rules_watch import AccessRulesWatch
from majordomus.net.broker.hooks import check_hooks
from majordomus.net.broker.listener import open_port
from majordomus.net.broker.loop import BrokerLoop
from majordomus.net.broker.program import Program, Programmable
from majordomus.net.broker.security.policy import SecuredBroker, SecurityPolicy
from majordomus.net.version import version
from majordomus.net.waker import Waker
from majordomus.net.zmq import select as wires
from majordomus.security.certificates import Certificate

logger = logging.getLogger("majordomus.broker")

MakeMachine = Callable[
    [BrokerSettings, Callable[[int], bytes], str, Mapping[str, Factory]], Machine
]


class Broker(SecuredBroker, Programmable):
    """A broker with its socket. A subclass may override the methods of `HookPoints` to decide about
    every message; `middleware` are objects with the same methods, asked before it.

    It runs in the caller's thread (`run`) or in one of its own (`start`, `with`).

    `bind` is one endpoint or several; `endpoints` holds the real ones once they are bound.
    `strategies` are ways to balance of one's own, by the name that the settings `balancing` and
    `balancings` call them: subclasses of `Strategy`.
    `curve` encrypts: True with the pair that the settings name or that is made now, or a pair, or
    its file. `clients` is a file or folder of keys that may connect, `"any"` for all of them;
    `passwords` a file of those, for this machine alone. Where others can reach an endpoint, it has
    to be encrypted, or `insecure`. They overrule the settings of the same names.
    `machine`, `ids` (n random bytes) and `clock` (monotonic seconds) can be replaced, for tests.
    """

    def __init__(
        self,
        settings: BrokerSettings | None = None,
        *,
        bind: str | Sequence[str] = endpoints.DEFAULT,
        strategies: Mapping[str, Factory] | None = None,
        middleware: Sequence[object] = (),
        curve: bool | Certificate | str | Path | None = None,
        clients: str | Path | None = None,
        passwords: str | Path | None = None,
        insecure: bool | None = None,
        machine: MakeMachine = BrokerMachine,
        ids: Callable[[int], bytes] = os.urandom,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings or BrokerSettings()
        self.endpoints: list[str] = []
        self.restarts = 0
        """How often it was started again, as `mmi.broker` tells: for who watches over it."""
        self._bind = endpoints.to_bind(bind)
        self.fence = SecurityPolicy(self.settings, self._bind, curve, clients, passwords, insecure)
        self._strategies = dict(strategies or {})
        self._make_machine, self._ids, self._clock = machine, ids, clock
        self.hooks: list[object] = [*middleware, self]
        self._loop: BrokerLoop | None = None
        self._thread: threading.Thread | None = None

    def check(self) -> None:
        """Raises: ConfigurationError for hooks and ways to balance that `open` would refuse on any
        machine."""
        check_hooks(self.hooks)
        self._make_machine(self.settings, self._ids, "", self._strategies)

    def open(self) -> None:
        """Binds; nothing is answered before `run` or `start`. May be repeated.

        Raises: ConfigurationError when an endpoint cannot be bound, a forced wire is not here, or
        a file that the settings name cannot be used.
        """
        if self._loop is not None:
            return
        wires.check()
        name = self.settings.name or f"{plain.gethostname()}-{os.getpid()}"
        machine = self._make_machine(self.settings, self._ids, name, self._strategies)
        watch = self._watch_rights(machine)
        waker = Waker()
        port = open_port(machine, waker, self._bind, self.fence.make_gate())
        machine.begin(version(), port.name, self._clock(), self.restarts)
        loop = BrokerLoop(machine, port, waker, self._clock, watch)
        try:
            self._loop = loop
            self.attach_all()
            loop.program.use(self.hooks)
            port.open()
            self.endpoints = [port.bind(url) for url in self._bind]
        except BaseException:
            loop.dispose()
            self._loop = None
            raise
        for url in self.endpoints:
            logger.info("listening on %s", url)

    def _watch_rights(self, machine: Machine) -> AccessRulesWatch | None:
        if not self.settings.acl:
            return None
        return AccessRulesWatch(self.settings.acl, machine.set_rights, logger, self._clock())

    def run(self, ready: Callable[[], None] | None = None) -> None:
        """Serves until `stop`, SIGINT or SIGTERM, then drains.

        A second signal ends without draining.

        Signals are handled only when this is the main thread. `ready` is called once the endpoints
        are bound and the signals are handled: whoever it tells may send one at once.
        """
        if self._thread is not None:
            raise LocalProtocolError("running", "this broker runs in its own thread already")
        self.open()
        loop = self._loop
        if loop is None:
            return
        try:
            with _signals(loop):
                if ready is not None:
                    ready()
                loop.run()
        finally:
            loop.dispose()
            self._loop = None

    def start(self) -> None:
        """Binds and serves in a thread of its own.

        Raises: ConfigurationError when an endpoint cannot be bound.
        """
        if self._thread is not None:
            return
        self.open()
        loop = self._loop
        if loop is None:
            return
        self._thread = threading.Thread(target=loop.run, name="majordomus-broker", daemon=True)
        self._thread.start()

    def stop(self, *, drain: bool = True) -> None:
        """Drains (unless told not to, and for `drain_timeout` at most) and ends; the endpoints are
        free afterwards.

        From any thread; may be repeated. It does not wait for the end while `run` is at work
        elsewhere, nor in a hook, which would wait for itself.
        """
        loop, thread = self._loop, self._thread
        if loop is None:
            return
        loop.ask_to_stop(at_once=not drain)
        if thread is threading.current_thread() or loop.program.in_hook:
            return
        if thread is not None:
            thread.join()
            loop.dispose()
            self._thread = self._loop = None
        elif not loop.started:
            loop.dispose()
            self._loop = None

    def _running(self) -> Program | None:
        return None if self._loop is None else self._loop.program

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop(drain=error is None)

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.stop, drain=error is None)


@contextlib.contextmanager
def _signals(loop: BrokerLoop) -> Iterator[None]:
    """SIGINT and SIGTERM ask the loop to stop: the first to drain, the second to end at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def asked(number: int, _frame: object) -> None:
        logger.info("%s: %s", signal.Signals(number).name, "ends" if loop.asked else "drains")
        loop.ask_to_stop(at_once=loop.asked)

    # The C handler itself writes to this descriptor: a signal just before the wait ends it too.
    fd_before = signal.set_wakeup_fd(loop.waker.writer_fd, warn_on_full_buffer=False)
    before = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        signal.set_wakeup_fd(fd_before)
        for number, handler in before.items():
            signal.signal(number, handler)

"""The broker as an object: its life from binding to the end.

The rules are in the machine (docs/rules.md), the turns in `loop`. This module decides when a broker
starts and stops, in which thread it runs, and how signals end it.
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
from typing import TYPE_CHECKING, Self

from majordomus import system
from majordomus.core.broker.balancing.registry import Factory
from majordomus.core.broker.contract import Machine
from majordomus.core.broker.machine import BrokerMachine
from majordomus.core.broker.settings import BrokerSettings
from majordomus.errors import ConfigurationError, LocalProtocolError
from majordomus.net import endpoints
from majordomus.net.broker.access_rules_watch import AccessRulesWatch
from majordomus.net.broker.audit_log import AuditLog
from majordomus.net.broker.hooks import check_hooks
from majordomus.net.broker.listener import Listener
from majordomus.net.broker.loop import BrokerLoop
from majordomus.net.broker.open_listener import open_listener
from majordomus.net.broker.program import Program, Programmable
from majordomus.net.broker.security.policy import SecuredBroker, SecurityPolicy
from majordomus.net.version import version
from majordomus.net.waker import Waker
from majordomus.net.zmq import select as wires
from majordomus.security.certificates import Certificate

if TYPE_CHECKING:
    from majordomus.durable.runner import StoreThread

logger = logging.getLogger("majordomus.broker")

MakeMachine = Callable[
    [BrokerSettings, Callable[[int], bytes], str, Mapping[str, Factory]], Machine
]


class Broker(SecuredBroker, Programmable):
    """A broker with its endpoints.

    It runs in the caller's thread (`run`) or in one of its own (`start`, `with`). A subclass may
    override the methods of `HookPoints`. `middleware` are objects with the same methods; their
    hooks run before those of the subclass.

    `bind` is one endpoint or several; `endpoints` holds the real ones once they are bound.
    `strategies` maps names, as the settings `balancing` and `balancings` use them, to subclasses of
    `Strategy`.

    `curve`, `clients`, `passwords` and `insecure` override the settings of the same names. `curve`
    is True (with the certificate that the settings name, or a new one), a certificate, or its file.
    `clients` is a file or folder of public keys that may connect, or `"any"`. `passwords` is a file
    of users, for endpoints on this machine. An endpoint that other machines can reach must be
    encrypted or `insecure`.

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
        if not isinstance(settings, BrokerSettings | None):
            raise ConfigurationError(
                f"the settings of a broker are BrokerSettings, not {type(settings).__name__}: "
                "its endpoints are given as bind=[…]"
            )
        self.settings = settings or BrokerSettings()
        self.endpoints: list[str] = []
        self.restarts = 0
        """How often a supervisor has restarted this broker; `mmi.broker` reports it."""
        self._bind = endpoints.to_bind(bind)
        self.security_policy = SecurityPolicy(
            self.settings, self._bind, curve, clients, passwords, insecure
        )
        self._strategies = dict(strategies or {})
        self._make_machine, self._ids, self._clock = machine, ids, clock
        self.hooks: list[object] = [*middleware, self]
        self._loop: BrokerLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def to_bind(self) -> list[str]:
        """The endpoints that `open` binds, as they were given."""
        return list(self._bind)

    def check(self) -> None:
        """Raises: ConfigurationError for hooks and ways to balance that `open` would refuse on any
        machine."""
        check_hooks(self.hooks)
        self._make_machine(self.settings, self._ids, "", self._strategies)

    def open(self) -> None:
        """Bind the endpoints. No message is handled before `run` or `start`. May be repeated.

        Raises: ConfigurationError when an endpoint cannot be bound, the forced wire is not
        available, or a file that the settings name cannot be used.
        """
        if self._loop is not None:
            return
        wires.check()
        name = self.settings.name or f"{plain.gethostname()}-{os.getpid()}"
        machine = self._make_machine(self.settings, self._ids, name, self._strategies)
        watch = self._watch_rights(machine)
        waker = Waker()
        plan = self.security_policy.make_authentication()
        store = self._open_store(machine, waker)
        try:
            listener = open_listener(machine, waker, self._bind, plan)
        except BaseException:
            if store is not None:
                store.close()
            raise
        machine.begin(
            version(),
            listener.name,
            self._clock(),
            self.restarts,
            listener.buffers,
            system.process_usage,
        )
        loop = BrokerLoop(machine, listener, waker, self._clock, watch, store)
        try:
            self._loop = loop
            if self.settings.audit:
                loop.audit = AuditLog(Path(self.settings.audit))
            self.attach_all()
            loop.program.use(self.hooks)
            listener.open()
            self.endpoints = [listener.bind(url) for url in self._bind]
        except BaseException:
            loop.dispose()
            self._loop = None
            raise
        if store is not None:
            store.start()
        for url in self.endpoints:
            logger.info("listening on %s", url)

    def _open_store(self, machine: Machine, waker: Waker) -> StoreThread | None:
        """Open the store that the settings name. Its thread is started when all is bound."""
        named = self.settings.store
        if not named:
            return None
        from majordomus.net.broker.open_store import connect

        try:
            store, count = connect(named, machine, waker.wake, self._clock())
        except BaseException:
            waker.close()
            raise
        logger.info("store %s: %d requests without an outcome", named, count)
        return store

    def embed(
        self, listener: Callable[[Machine], Listener], waker: Waker, clock: Callable[[], float]
    ) -> BrokerLoop:
        """Make the loop of this broker around another listener; its owner runs it by `step`.

        For `majordomus.testing`. Raises: ConfigurationError, as `open`, and for a store: its thread
        would not run on a virtual clock.
        """
        if self.settings.store:
            raise ConfigurationError("a TestBroker has no store: give it real=True, or no `store`")
        machine = self._make_machine(self.settings, self._ids, "test", self._strategies)
        made = listener(machine)
        machine.begin(version(), made.name, clock(), 0, made.buffers)
        loop = self._loop = BrokerLoop(machine, made, waker, clock, None)
        self.attach_all()
        loop.program.use(self.hooks)
        return loop

    def disembed(self) -> None:
        """Close the loop of `embed`. May be repeated."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.dispose()

    def _watch_rights(self, machine: Machine) -> AccessRulesWatch | None:
        if not self.settings.acl:
            return None
        return AccessRulesWatch(self.settings.acl, machine.set_rights, logger, self._clock())

    def run(self, ready: Callable[[], None] | None = None) -> None:
        """Serve until `stop`, SIGINT or SIGTERM, then drain. A second signal ends at once.

        Signals are handled in the main thread only. `ready` is called when the endpoints are bound
        and the signal handlers are set.
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
        if loop.failure is not None:
            raise loop.failure

    def start(self) -> None:
        """Bind, and serve in a new thread. May be repeated.

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
        """Drain for at most `drain_timeout` seconds, end, and free the endpoints.

        Any thread may call it; may be repeated. It returns before the end when `run` serves in
        another thread, and when a hook calls it, because the end waits for that hook.
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
    """Let the first SIGINT or SIGTERM drain the broker, and a second one end it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def asked(number: int, _frame: object) -> None:
        what = "ends" if loop.asked else "drains"
        with contextlib.suppress(LocalProtocolError):  # it has ended
            # Logged by the loop: a signal may interrupt code that holds the locks of logging.
            loop.program.post(lambda *_: logger.info("%s: %s", signal.Signals(number).name, what))
        loop.ask_to_stop(at_once=loop.asked)

    # Python's C handler writes to this descriptor, so a signal just before the wait ends the wait.
    fd_before = signal.set_wakeup_fd(loop.waker.writer_fd, warn_on_full_buffer=False)
    before = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        signal.set_wakeup_fd(fd_before)
        for number, handler in before.items():
            signal.signal(number, handler)

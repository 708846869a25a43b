"""Hooks of a running broker, and the methods that they and other threads may call.

Only the broker's thread uses the machine: calls from other threads are posted to it as tasks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from majordomus.core.broker.contract import Machine, WorkerInfo
from majordomus.core.broker.settings import BrokerSettings
from majordomus.errors import LocalProtocolError, error_for
from majordomus.net.bodies import Body, Reply, to_frames
from majordomus.net.broker.hook_thread import HookThread
from majordomus.net.broker.hooks import (
    Faults,
    Functions,
    HookChain,
    HookPoints,
)
from majordomus.protocol import spec

Function = TypeVar("Function", bound=Callable[..., object])
Task = Callable[[Machine, float], None]
"""A function for the broker's thread, called with the machine and `now`."""
STOPPED = b"the broker has stopped"
FIND_WAIT = 1.0
"""Seconds that `find_worker` waits for the broker's thread."""

logger = logging.getLogger("majordomus.broker")


class Program:
    """The hooks of a running broker, and the tasks for its thread.

    `post`, `push`, `publish`, `send`, `find_worker`, `call` and `chain` may be called from any
    thread, everything else from the broker's.
    """

    def __init__(self, machine: Machine, wake: Callable[[], None]) -> None:
        self._machine, self._wake = machine, wake
        self.tasks: deque[Task] = deque()
        self.observer: HookChain | None = None
        """The chain that gets the machine's facts; None when it has no hook for them."""
        self._thread = HookThread()
        self._faults = Faults()
        self._closed = False
        self.thread: int | None = None
        """The broker's thread, once it runs."""

    @property
    def in_hook(self) -> bool:
        """Whether the caller is an `async def` hook."""
        return self._thread.is_current

    def use(self, hooks: Sequence[object]) -> None:
        """Use these hooks from now on, in this order. Pending decisions may still be made.

        Raises: ConfigurationError for what cannot be a hook.
        """
        self.take(self.chain(hooks))

    def chain(self, hooks: Sequence[object]) -> HookChain:
        """Make a chain of these hooks. Raises: ConfigurationError."""
        return HookChain(hooks, self.post, self._thread, self._faults)

    def take(self, chain: HookChain) -> None:
        """Use this chain from now on; see `use`."""
        self._machine.use(None if chain.empty else chain)
        self.observer = chain if chain.observes else None

    def post(self, task: Task) -> None:
        """Run `task` in the broker's thread, soon.

        Raises: LocalProtocolError once the broker has ended.
        """
        self.tasks.append(task)
        # Checked after the append: `close` sets the flag first and then runs what was appended.
        if self._closed:
            raise LocalProtocolError("not-open", "this broker is not open")
        self._wake()

    def work(self, now: float) -> None:
        """Run the tasks that have been posted."""
        tasks = self.tasks
        for _ in range(len(tasks)):
            try:
                tasks.popleft()(self._machine, now)
            except BaseException:  # the thread that posted it does not wait for a result
                logger.exception("a task for the broker failed")

    def close(self, now: float) -> None:
        """End the hooks and the open calls of the broker itself. May be repeated."""
        self._thread.close()
        self._closed = True
        self.work(now)
        self._machine.end_calls(spec.UNAVAILABLE, [STOPPED])

    # ── for hooks and other threads ───────────────────────────────────────────────────────────────

    def send(self, service: str, body: Body = None) -> None:
        """Send a one-way request in the broker's own name."""
        name, frames = service.encode(), to_frames(body)

        def begin(machine: Machine, now: float) -> None:
            machine.call(name, frames, 0.0, now)

        self.post(begin)

    def push(self, client: bytes, body: Body = None) -> None:
        """Send an event to one client, at most once."""
        frames = to_frames(body)

        def begin(machine: Machine, now: float) -> None:
            machine.push(client, frames, now)

        self.post(begin)

    def publish(self, topic: str, body: Body = None) -> None:
        """Send an event to every subscriber of `topic`, at most once."""
        name, frames = topic.encode(), to_frames(body)

        def begin(machine: Machine, now: float) -> None:
            machine.publish(name, frames, now)

        self.post(begin)

    def find_worker(self, service: str, key: str | bytes = b"") -> WorkerInfo | None:
        """Return the worker that the strategy of `service` would choose now; None when none is
        free, and when the broker's thread does not answer within `FIND_WAIT`.

        Strategies are the broker's thread's own: another thread waits for its next turn.
        """
        name, chosen_by = service.encode(), key.encode() if isinstance(key, str) else key
        if self.thread in (None, threading.get_ident()):
            return self._machine.find_worker(name, chosen_by)
        answer: Future[WorkerInfo | None] = Future()

        def find(machine: Machine, now: float) -> None:
            try:
                answer.set_result(machine.find_worker(name, chosen_by))
            except Exception as error:
                answer.set_exception(error)

        self.post(find)
        try:
            return answer.result(FIND_WAIT)
        except TimeoutError:
            return None

    async def call(self, service: str, body: Body, timeout: float | None) -> Reply:
        """Call `service` in the broker's own name. Raises: StatusError."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[tuple[int, list[bytes]]] = loop.create_future()
        number = 0

        def done(status: int, frames: list[bytes]) -> None:
            read = [bytes(frame) for frame in frames]
            with contextlib.suppress(RuntimeError):  # the caller's event loop is closed
                loop.call_soon_threadsafe(_set, answer, (status, read))

        def begin(machine: Machine, now: float) -> None:
            nonlocal number
            number = machine.call(name, frames, timeout or 0.0, now, done)

        name, frames = service.encode(), to_frames(body)
        self.post(begin)
        try:
            status, found = await answer
        except asyncio.CancelledError:
            self.post(lambda machine, now: machine.withdraw_call(number, now))
            raise
        if status != spec.OK:
            raise error_for(status, found)
        return Reply(found, status)


class Programmable(HookPoints):
    """The methods of a `Broker` for hooks and other threads. Any thread may call them while the
    broker is open."""

    settings: BrokerSettings
    endpoints: list[str]
    hooks: list[object]
    host: Programmable | None = None
    """The running broker that has adopted the hooks of this one; None otherwise."""

    def _running(self) -> Program | None:
        """Return the program of this broker while it is open."""
        raise NotImplementedError

    def hook(self, function: Function, name: str = "") -> Function:
        """Add one function as a hook behind all others; usable as a decorator. The name of the
        function, or `name`, selects the hook, for instance `on_request`.

        Raises: ConfigurationError when there is no such hook.
        """
        self.hooks.append(Functions(name or function.__name__, function))
        host = self.host or self
        program = host._running() if host.hooks is self.hooks else None
        if program is not None:
            hooks = list(self.hooks)
            program.post(lambda machine, now: program.use(hooks))
        return function

    def find_worker(self, service: str, key: str | bytes = b"") -> WorkerInfo | None:
        """Return the worker that the strategy of `service` would choose now; None when none is
        free. `key` is what `sticky` chooses by: the metadata `key`, or the client of a request."""
        return self._program().find_worker(service, key)

    def push(self, client: bytes, body: Body = None) -> None:
        """Send an event to the client of a handle (`HookRequest.client`), at most once, and only
        while the client has presence."""
        self._program().push(client, body)

    def publish(self, topic: str, body: Body = None) -> None:
        """Send an event to every subscriber of `topic`, at most once."""
        self._program().publish(topic, body)

    def send(self, service: str, body: Body = None) -> None:
        """Send a one-way request in the broker's own name."""
        self._program().send(service, body)

    async def call(self, service: str, body: Body = None, *, timeout: float | None = None) -> Reply:
        """Call a service in the broker's own name, past hooks and access rules.

        Any event loop may call it. `timeout` is in seconds, by default the setting `default_ttl`.

        Raises: StatusError.
        """
        return await self._program().call(service, body, timeout)

    def adopt(self, other: Programmable, done: Callable[[tuple[str, ...]], object]) -> None:
        """Take the hooks and settings of `other`, a broker that was never opened, while this one
        runs. Requests already held by the old hooks are decided by them; later requests go to the
        new hooks.

        `done` is called in the broker's thread with the names of settings that changed but cannot
        change while a broker runs.

        Raises: ConfigurationError for invalid hooks; nothing has changed then.
        """
        program = self._program()
        other.host, other.endpoints = self, self.endpoints
        other.attach_all()
        chain = program.chain(other.hooks)

        def take(machine: Machine, now: float) -> None:
            program.take(chain)
            self.hooks = other.hooks
            left = machine.reconfigure(other.settings, now)
            self.settings = machine.settings
            done(left)

        program.post(take)

    def attach_all(self) -> None:
        """Call `attach` of each middleware."""
        for hook in self.hooks:
            attach = getattr(hook, "attach", None)
            if callable(attach):
                attach(self)

    def _program(self) -> Program:
        program = (self.host or self)._running()
        if program is None:
            raise LocalProtocolError("not-open", "this broker is not open")
        return program


def _set(answer: asyncio.Future[Any], value: object) -> None:
    if not answer.done():
        answer.set_result(value)

"""What a program adds to its broker: hooks, and what they may do from any thread.

Everything that touches the machine is brought to the broker's thread first.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
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
STOPPED = b"the broker has stopped"

logger = logging.getLogger("majordomus.broker")


class Program:
    """The hooks of a running broker, and the jobs that other threads have for its thread.

    `post`, `push`, `publish`, `send`, `find_worker` and `call` may come from any thread; the rest
    from the broker's.
    """

    def __init__(self, machine: Machine, wake: Callable[[], None]) -> None:
        self._machine, self._wake = machine, wake
        self.jobs: deque[Task] = deque()
        self.observer: HookChain | None = None
        """Who is told the machine's facts; None when nobody is."""
        self._thread = HookThread()
        self._faults = Faults()
        self._closed = False

    @property
    def in_hook(self) -> bool:
        """Whether an `async def` hook asks this."""
        return self._thread.is_current

    def use(self, hooks: Sequence[object]) -> None:
        """Ask these from now on, in this order. What is asked already may still be answered.

        Raises: ConfigurationError for what cannot be a hook.
        """
        self.take(self.chain(hooks))

    def chain(self, hooks: Sequence[object]) -> HookChain:
        """These hooks as the machine asks them. From any thread. Raises: ConfigurationError."""
        return HookChain(hooks, self.post, self._thread, self._faults)

    def take(self, chain: HookChain) -> None:
        """See `use`."""
        self._machine.use(None if chain.empty else chain)
        self.observer = chain if chain.observes else None

    def post(self, job: Task) -> None:
        """Have `job` done in the broker's thread, soon. Raises: LocalProtocolError at its end."""
        self.jobs.append(job)
        if self._closed:  # looked at behind the append: the end does what came before it
            raise LocalProtocolError("not-open", "this broker is not open")
        self._wake()

    def work(self, now: float) -> None:
        """Do what has been posted."""
        jobs = self.jobs
        for _ in range(len(jobs)):
            try:
                jobs.popleft()(self._machine, now)
            except Exception:  # whoever posted it is not here to be told
                logger.exception("a job for the broker failed")

    def close(self, now: float) -> None:
        """No hook runs after this; whoever waits for a call of the broker is told so."""
        self._thread.close()
        self._closed = True
        self.work(now)
        self._machine.end_calls(spec.UNAVAILABLE, [STOPPED])

    # ── what hooks may do ─────────────────────────────────────────────────────────────────────────

    def send(self, service: str, body: Body = None) -> None:
        """A request in the broker's own name that nobody waits for."""
        name, frames = service.encode(), to_frames(body)

        def begin(machine: Machine, now: float) -> None:
            machine.call(name, frames, 0.0, now)

        self.post(begin)

    def push(self, client: bytes, body: Body = None) -> None:
        """An event for one client, at most once."""
        frames = to_frames(body)

        def begin(machine: Machine, now: float) -> None:
            machine.push(client, frames, now)

        self.post(begin)

    def publish(self, topic: str, body: Body = None) -> None:
        """An event for everybody who subscribed to `topic`, at most once."""
        name, frames = topic.encode(), to_frames(body)

        def begin(machine: Machine, now: float) -> None:
            machine.publish(name, frames, now)

        self.post(begin)

    def find_worker(self, service: str) -> WorkerInfo | None:
        """The worker of `service` that has most room; None when none has any."""
        return self._machine.find_worker(service.encode())

    async def call(self, service: str, body: Body, timeout: float | None) -> Reply:
        """The answer of `service` to the broker itself.

        Raises: StatusError.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[tuple[int, list[bytes]]] = loop.create_future()
        number = 0

        def done(status: int, frames: list[bytes]) -> None:
            read = [bytes(frame) for frame in frames]
            with contextlib.suppress(RuntimeError):  # who asked is gone, and its loop closed
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
    """What a `Broker` offers to hooks, and to whoever else has it. All of it from any thread, while
    the broker is open."""

    settings: BrokerSettings
    endpoints: list[str]
    hooks: list[object]
    host: Programmable | None = None
    """The broker that runs, where this one only gives it its hooks."""

    def _running(self) -> Program | None:
        """The program of this broker while it is open."""
        raise NotImplementedError

    def hook(self, function: Function, name: str = "") -> Function:
        """Add one function as a hook, asked after all others: a decorator. Its name, or `name`,
        says which: `on_request`, for instance.

        Raises: ConfigurationError when there is no such hook.
        """
        self.hooks.append(Functions(name or function.__name__, function))
        host = self.host or self
        program = host._running() if host.hooks is self.hooks else None
        if program is not None:
            hooks = list(self.hooks)
            program.post(lambda machine, now: program.use(hooks))
        return function

    def find_worker(self, service: str) -> WorkerInfo | None:
        """The worker of `service` that has most room; None when none has any."""
        return self._program().find_worker(service)

    def push(self, client: bytes, body: Body = None) -> None:
        """An event for the client of a handle, as `request.client` is one: at most once, and only
        while it has presence."""
        self._program().push(client, body)

    def publish(self, topic: str, body: Body = None) -> None:
        """An event for everybody who subscribed to `topic`, at most once."""
        self._program().publish(topic, body)

    def send(self, service: str, body: Body = None) -> None:
        """A request in the broker's own name, the answer of which nobody wants."""
        self._program().send(service, body)

    async def call(self, service: str, body: Body = None, *, timeout: float | None = None) -> Reply:
        """Call a service in the broker's own name: no hook sees that, and no right is asked.

        From any event loop. `timeout` is seconds, `default_ttl` when it is not given.

        Raises: StatusError.
        """
        return await self._program().call(service, body, timeout)

    def adopt(self, other: Programmable, done: Callable[[tuple[str, ...]], object]) -> None:
        """Take the hooks and the settings of `other`, a broker that was never opened, while this
        one runs. What hooks hold already is still decided by those that were asked.

        `done` is called in the broker's thread with the settings that cannot change while it runs.

        Raises: ConfigurationError for hooks that cannot be used; nothing has changed then.
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
        """Tell the middleware whose it is."""
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

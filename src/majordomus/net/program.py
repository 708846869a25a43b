"""What a program adds to its broker: hooks, and what they may do from any thread.

Everything that touches the machine is brought to the broker's thread first.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from majordomus.core.broker import BrokerMachine
from majordomus.errors import error_for
from majordomus.net.bodies import Body, Reply, to_frames
from majordomus.net.hook_thread import HookThread
from majordomus.net.hooks import Faults, HookChain, WorkerInfo, best_worker
from majordomus.protocol import spec

Job = Callable[[BrokerMachine, float], None]
STOPPED = b"the broker has stopped"

logger = logging.getLogger("majordomus.broker")


class Program:
    """The hooks of a running broker, and the jobs that other threads have for its thread.

    `post`, `push`, `publish`, `send`, `find_worker` and `call` may come from any thread; the rest
    from the broker's.
    """

    def __init__(self, machine: BrokerMachine, wake: Callable[[], None]) -> None:
        self._machine, self._wake = machine, wake
        self.jobs: deque[Job] = deque()
        self.observer: HookChain | None = None
        """Who is told the machine's facts; None when nobody is."""
        self._thread = HookThread()
        self._faults = Faults()

    def use(self, hooks: Sequence[object]) -> None:
        """Ask these from now on, in this order. What is asked already may still be answered.

        Raises: ConfigurationError for what cannot be a hook.
        """
        chain = HookChain(hooks, self.post, self._thread, self._faults)
        self._machine.use(None if chain.empty else chain)
        self.observer = chain if chain.observes else None

    def post(self, job: Job) -> None:
        """Have `job` done in the broker's thread, soon."""
        self.jobs.append(job)
        self._wake()

    def work(self, now: float) -> None:
        """Do what has been posted."""
        jobs = self.jobs
        for _ in range(len(jobs)):
            try:
                jobs.popleft()(self._machine, now)
            except Exception:  # whoever posted it is not here to be told
                logger.exception("a job for the broker failed")

    def close(self) -> None:
        """No hook runs after this; whoever waits for a call of the broker is told so."""
        self._thread.close()
        waiting, self._machine.calls.waiting = self._machine.calls.waiting, {}
        for one in waiting.values():
            one.done(spec.UNAVAILABLE, [STOPPED])

    # ── what hooks may do ─────────────────────────────────────────────────────────────────────────

    def send(self, service: str, body: Body = None) -> None:
        """A request in the broker's own name that nobody waits for."""
        name, frames = service.encode(), to_frames(body)

        def begin(machine: BrokerMachine, now: float) -> None:
            machine.call(name, frames, 0.0, now)

        self.post(begin)

    def push(self, client: bytes, body: Body = None) -> None:
        """An event for one client, at most once."""
        frames = to_frames(body)

        def begin(machine: BrokerMachine, now: float) -> None:
            machine.push(client, frames, now)

        self.post(begin)

    def publish(self, topic: str, body: Body = None) -> None:
        """An event for everybody who subscribed to `topic`, at most once."""
        name, frames = topic.encode(), to_frames(body)

        def begin(machine: BrokerMachine, now: float) -> None:
            machine.publish(name, frames, now)

        self.post(begin)

    def find_worker(self, service: str) -> WorkerInfo | None:
        """The worker of `service` that has most room; None when none has any."""
        return best_worker(self._machine, service)

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

        def begin(machine: BrokerMachine, now: float) -> None:
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


def _set(answer: asyncio.Future[Any], value: object) -> None:
    if not answer.done():
        answer.set_result(value)

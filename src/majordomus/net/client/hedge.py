"""Hedged calls: a second worker is asked when the first answer takes long. The first answer counts,
and the other attempt is cancelled.

The rules are in `Hedge`; `hedged` and `hedged_async` differ only in how they wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from majordomus.core.client.session import Final as Outcome
from majordomus.errors import Cancelled, ConfigurationError
from majordomus.net.bodies import Reply
from majordomus.net.client.async_call_runner import AsyncCallRunner
from majordomus.net.client.call_runner import CallLauncher, CallRunner
from majordomus.net.client.calls import CallOptions, PendingCall, result
from majordomus.net.gate import Gate
from majordomus.protocol import metadata, spec

NO_ANSWERS: Final = frozenset((spec.TOO_MANY, spec.WORKER_LOST, spec.UNAVAILABLE))
"""Statuses that are not the answer of a worker: the other attempt may still get one."""


class Hedge:
    """The attempts of one hedged call.

    first: the first attempt.
    second: the second attempt; None before `start_second`.

    Raises: ConfigurationError for a call that may not be sent twice.
    """

    def __init__(
        self,
        launcher: CallLauncher,
        options: CallOptions,
        after: float,
        notify: Callable[[], object],
    ) -> None:
        if not after > 0:
            raise ConfigurationError(f"hedge_after must be more than 0 seconds, not {after}")
        if options.flags & spec.ONCE:
            raise ConfigurationError("hedge_after asks twice, once=True asks once: choose one")
        if options.to:
            raise ConfigurationError("hedge_after asks another worker, to= asks one: choose one")
        self._launcher = launcher
        self._notify = notify
        self.first = PendingCall(options, notify)
        self.second: PendingCall | None = None

    def start(self) -> None:
        """Begin the first attempt."""
        self._launcher.launch(self.first)

    def start_second(self) -> None:
        """Begin the second attempt. It has the deadline of the first."""
        second = self.second = PendingCall(self.first.options, self._notify)
        second.began = self.first.began
        self._launcher.launch(second, partial(self._begin_second, second))

    def decided(self) -> PendingCall | None:
        """Return the attempt whose outcome is the answer; None while one may still come."""
        attempts = [self.first] if self.second is None else [self.first, self.second]
        for call in attempts:
            if _is_answer(call):
                return call
        return self.first if all(call.ended() for call in attempts) else None

    def cancel_open(self) -> None:
        """Cancel the attempts that have not ended."""
        for call in (self.first, self.second):
            if call and not call.ended():
                self._launcher.cancel(call)

    def _begin_second(self, second: PendingCall, now: float) -> None:
        """Give the second attempt to the session. Its metadata names the first attempt, so that
        the broker chooses another worker. It is sent only where the first one was."""
        calls = self._launcher.calls
        wire = calls.session.wire(self.first.id)
        if not wire:
            second.end(Cancelled("the first attempt is not sent"))
            return
        options = self.first.options
        field = options.metadata or options.implied
        values = {**(metadata.unpack(field) if field else {}), "hedge": wire}
        second.options = options.replace(metadata=metadata.pack(values))
        calls.begin(second, now, restart=False)


def _is_answer(call: PendingCall) -> bool:
    return isinstance(call.outcome, Outcome) and call.outcome.status not in NO_ANSWERS


def hedged(runner: CallRunner, options: CallOptions, after: float) -> Reply:
    """Make a hedged call in this thread. Raises: as `Client.call`."""
    changed = Gate()
    hedge = Hedge(runner, options, after, changed.open)
    hedge.start()
    try:
        until = time.monotonic() + after
        while (winner := hedge.decided()) is None:
            if hedge.second is None and time.monotonic() >= until:
                hedge.start_second()
            left = until - time.monotonic()
            changed.wait(left if hedge.second is None else None)
        return result(winner)
    finally:
        hedge.cancel_open()


async def hedged_async(runner: AsyncCallRunner, options: CallOptions, after: float) -> Reply:
    """Make a hedged call in this task. Raises: as `Client.call`."""
    changed, late = asyncio.Event(), asyncio.Event()
    hedge = Hedge(runner, options, after, changed.set)
    hedge.start()

    def on_late() -> None:
        late.set()
        changed.set()

    # The timer alone decides: the clock may not have reached `after` when the timer fires.
    timer = asyncio.get_running_loop().call_later(after, on_late)
    try:
        while (winner := hedge.decided()) is None:
            if hedge.second is None and late.is_set():
                hedge.start_second()
            await changed.wait()
            changed.clear()
        return result(winner)
    finally:
        timer.cancel()
        hedge.cancel_open()

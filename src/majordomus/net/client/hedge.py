"""Hedged calls: where an answer takes long, another worker is asked as well, and the first answer
that comes counts. The other one is cancelled.

The rules are here, in `Hedge`; the two waits differ in how they wait.
"""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from majordomus.core.client.session import Final as Outcome
from majordomus.errors import Cancelled, ConfigurationError
from majordomus.net.bodies import Reply
from majordomus.net.client.calls import CallOptions, PendingCall, PendingCalls, result
from majordomus.protocol import metadata, spec

if TYPE_CHECKING:
    from majordomus.net.client.async_client import AsyncClient
    from majordomus.net.client.client import Client

NO_ANSWERS: Final = frozenset((spec.TOO_MANY, spec.WORKER_LOST, spec.UNAVAILABLE))
"""Statuses by which nobody has answered: the other try may still."""


class Hedge:
    """The first try, and the second when there is one.

    Raises: ConfigurationError for what cannot be asked twice.
    """

    def __init__(self, ask: CallOptions, after: float) -> None:
        if not after > 0:
            raise ConfigurationError(f"hedge_after is more than 0 seconds, not {after}")
        if ask.flags & spec.ONCE:
            raise ConfigurationError("hedge_after asks twice, once=True asks once: choose one")
        if ask.to:
            raise ConfigurationError("hedge_after asks another worker, to= asks one: choose one")
        self.after = after
        self.first = PendingCall(ask)
        self.second: PendingCall | None = None

    def make_second(self) -> PendingCall:
        """The second try: it has the deadline of the first."""
        second = self.second = PendingCall(self.first.ask)
        second.began = self.first.began
        return second

    def begin_second(self, calls: PendingCalls, second: PendingCall, now: float) -> None:
        """Sends the second try, if there is a first one for it to differ from."""
        wire = calls.session.wire(self.first.id)
        if not wire:
            second.end(Cancelled("the first try is not on its way"))
            return
        ask = self.first.ask
        field = ask.metadata or ask.implied
        values = {**(metadata.unpack(field) if field else {}), "hedge": wire}
        second.ask = ask.but(metadata=metadata.pack(values))
        calls.begin(second, now, restart=False)

    def decided(self) -> PendingCall | None:
        """The try whose outcome is the answer; None as long as one may still be it."""
        tries = [self.first] if self.second is None else [self.first, self.second]
        for call in tries:
            if _answers(call):
                return call
        return self.first if all(call.ended() for call in tries) else None

    def open(self) -> list[PendingCall]:
        """The tries that nobody waits for any more when the other has answered."""
        return [call for call in (self.first, self.second) if call and not call.ended()]


def _answers(call: PendingCall) -> bool:
    return isinstance(call.outcome, Outcome) and call.outcome.status not in NO_ANSWERS


def hedged(client: Client, ask: CallOptions, after: float) -> Reply:
    """`Client.call` with `hedge_after`. Raises: as `Client.call`."""
    hedge, news = Hedge(ask, after), threading.Event()
    hedge.first.notify = news.set
    client._launch(hedge.first)
    try:
        until = time.monotonic() + after
        while (winner := hedge.decided()) is None:
            if hedge.second is None and time.monotonic() >= until:
                second = hedge.make_second()
                second.notify = news.set
                client._launch(second, partial(hedge.begin_second, client._calls, second))
            left = until - time.monotonic()
            news.wait(left if hedge.second is None else None)
            news.clear()
        return result(winner)
    finally:
        for call in hedge.open():
            client._cancel(call)


async def hedged_async(client: AsyncClient, ask: CallOptions, after: float) -> Reply:
    """`AsyncClient.call` with `hedge_after`. Raises: as `Client.call`."""
    hedge, news = Hedge(ask, after), asyncio.Event()
    hedge.first.notify = news.set
    client._launch(hedge.first)
    late = asyncio.Event()

    def is_late() -> None:
        late.set()
        news.set()

    timer = asyncio.get_running_loop().call_later(after, is_late)
    try:
        while (winner := hedge.decided()) is None:
            if hedge.second is None and late.is_set():
                second = hedge.make_second()
                second.notify = news.set
                client._launch(second, partial(hedge.begin_second, client._calls, second))
            await news.wait()
            news.clear()
        return result(winner)
    finally:
        timer.cancel()
        for call in hedge.open():
            client._cancel(call)

"""The services of RFC 9, and the calls of the requests that they have stored.

    titanic.request → row stored → 200 and the id
    the row's service is called until it answers → outcome stored
    titanic.reply → 300, then 200 and the outcome, until titanic.close

Nothing answers before it is stored. A call that was under way at a crash is made again: a request
runs at least once and has one outcome. Memory has the numbers of open requests, not their bodies.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from random import Random
from typing import Final

from majordomus import AsyncClient, AsyncWorker, MajordomusError, Request, StatusError
from majordomus.contrib.titanic.writes import AsyncWrites
from majordomus.core.broker.durable import ids, policy
from majordomus.core.broker.durable.records import (
    FULL,
    Append,
    Attempted,
    Complete,
    Read,
    Remove,
    StoredOutcome,
    StoredRequest,
    Sweep,
)
from majordomus.durable.store import Store, first_number, scan_all
from majordomus.protocol import spec
from majordomus.protocol.fields import service_problem

logger = logging.getLogger("majordomus.titanic")

REQUEST: Final = "titanic.request"
REPLY: Final = "titanic.reply"
CLOSE: Final = "titanic.close"
OWN_PREFIX: Final = b"titanic."
CALLS: Final = 16
"""Calls at a time; each has a connection, because the older dialects cannot tell replies apart."""
ATTEMPT: Final = 60.0
FIRST_DELAY: Final = 1.0
LONGEST_DELAY: Final = 60.0
MOST_DOUBLINGS: Final = 10
PROBE: Final = 2.0
"""Seconds that the broker has to say whether a service has workers."""
MOST_ABSENT: Final = 1000
KEEP: Final = 7 * 86400.0
SWEEP_EVERY: Final = 5.0
SWEEP_MOST: Final = 1000


class Titanic:
    """RFC 9 for the brokers at `urls`, in one dialect.

    attempt: seconds that one call of a service may take. A service that does not answer in time is
    called again, after a delay that doubles up to a minute, until it answers or the request is
    closed.
    keep: seconds that an outcome is kept. calls: calls at a time.
    """

    def __init__(
        self,
        store: Store,
        urls: Sequence[str],
        *,
        dialect: str = "mdp01",
        attempt: float = ATTEMPT,
        keep: float = KEEP,
        calls: int = CALLS,
    ) -> None:
        self._store = store
        self._urls = list(urls)
        self._dialect = dialect
        self._attempt, self._keep, self._calls = attempt, keep, calls
        self._random = Random()  # noqa: S311 (it spreads attempts, and keeps no secret)
        self._next = first_number(store.epoch)
        self._open: set[int] = set()
        self._absent: dict[bytes, float] = {}
        self._under_way: dict[int, asyncio.Task[None]] = {}
        self._waiting: asyncio.Queue[int] = asyncio.Queue()
        self._worker = AsyncWorker(self._urls, dialect=dialect)
        for name, handler in (
            (REQUEST, self._request),
            (REPLY, self._reply),
            (CLOSE, self._close),
        ):
            self._worker.add(name, handler)

    async def run(self, *, signals: bool = True) -> None:
        """Serve until SIGINT, SIGTERM or `stop`. What is under way then is called again at the next
        start. Raises: StoreError when the store has failed; ConfigurationError."""
        self._writes = AsyncWrites(self._store)
        await self._recover()
        tasks = [asyncio.create_task(self._call_each()) for _ in range(self._calls)]
        tasks.append(asyncio.create_task(self._sweep()))
        serving = asyncio.ensure_future(self._worker.run(signals=signals))
        try:
            await asyncio.wait((serving, self._writes.failed), return_when=asyncio.FIRST_COMPLETED)
            if self._writes.failed.done():
                self._writes.failed.result()
            await serving
        finally:
            for task in (*tasks, *self._under_way.values(), serving):
                task.cancel()
            await asyncio.gather(*tasks, serving, return_exceptions=True)
            await self._writes.close()

    async def wait_ready(self, timeout: float) -> None:
        """Wait until a broker has registered the services. Raises: TimeoutError."""
        await self._worker.wait_ready(timeout)

    async def stop(self) -> None:
        """Drain and end."""
        await self._worker.stop()

    async def _recover(self) -> None:
        """Continue with every row that has no outcome."""
        rows = [(row.number, row.due) for page in scan_all(self._store) for row in page]
        for number, due in rows:
            self._open.add(number)
            self._place(number, due - time.time())
        logger.info("%d requests without an outcome", len(rows))

    def _place(self, number: int, delay: float) -> None:
        """Let a request wait for its call."""
        if delay > 0:
            asyncio.get_running_loop().call_later(delay, self._waiting.put_nowait, number)
        else:
            self._waiting.put_nowait(number)

    # ── the services ──────────────────────────────────────────────────────────────────────────────

    async def _request(self, request: Request) -> list[bytes]:
        """ "service name, request body" (RFC 9); the answer is 200 and the id."""
        service, *body = request.frames or [b""]
        reserved = service.startswith((OWN_PREFIX, *spec.RESERVED_NAMES))
        if reserved or service_problem(service):
            return [b"400"]
        now = time.time()
        number, self._next = self._next, self._next + 1
        row = StoredRequest(number, "", service, service, body, b"", now, keep=self._keep, due=now)
        if await self._writes.write(Append(row)) is FULL:
            return [b"500", b"the disk of the store is almost full"]
        self._open.add(number)
        self._place(number, 0.0)
        return [b"200", ids.public_id(self._store.secret, number)]

    async def _reply(self, request: Request) -> list[bytes]:
        """The outcome: 200 and its frames; 300 without one so far; 400 for an unknown id."""
        number = self._number(request)
        if number in self._open:
            return [b"300"]
        row = await self._writes.write(Read(number)) if number else None
        if not isinstance(row, StoredRequest):
            return [b"400"]
        if row.outcome is None:
            return [b"300"]
        if row.outcome.status == spec.OK:
            return [b"200", *row.outcome.frames]
        return [b"500", *row.outcome.frames[:1]]

    async def _close(self, request: Request) -> list[bytes]:
        """ "The Titanic service SHOULD treat the close as idempotent" (RFC 9)."""
        number = self._number(request)
        if number:
            self._open.discard(number)
            under_way = self._under_way.get(number)
            if under_way is not None:
                under_way.cancel()
            await self._writes.write(Remove(number))
        return [b"200"]

    def _number(self, request: Request) -> int:
        """The number of the id in frame 0; 0 for bytes that are no id of this store."""
        if not request.frames:
            return 0
        return ids.number_of(self._store.secret, bytes(request.frames[0])) or 0

    # ── the calls ─────────────────────────────────────────────────────────────────────────────────

    async def _call_each(self) -> None:
        """Call one request after the other."""
        async with AsyncClient(self._urls, dialect=self._dialect) as client:
            while True:
                number = await self._waiting.get()
                if number not in self._open:
                    continue
                task = asyncio.create_task(self._call(client, number))
                self._under_way[number] = task
                try:
                    await asyncio.wait((task,))
                finally:
                    del self._under_way[number]
                if not task.cancelled() and task.exception() is not None:
                    logger.error("request %d: %s", number, task.exception())

    async def _serves(self, client: AsyncClient, service: bytes) -> bool:
        """Whether a worker may serve `service`: also when the broker does not answer that. One
        that serves it not is asked again after a second."""
        now = time.monotonic()
        if now < self._absent.get(service, 0.0):
            return False
        try:
            if await client.serves(service.decode("utf-8", "surrogateescape"), timeout=PROBE):
                return True
        except MajordomusError:
            return True
        if len(self._absent) >= MOST_ABSENT:
            self._absent.clear()
        self._absent[service] = now + FIRST_DELAY
        return False

    async def _call(self, client: AsyncClient, number: int) -> None:
        """Call the service of one request, and store what it answers."""
        row = await self._writes.write(Read(number))
        if not isinstance(row, StoredRequest) or row.outcome is not None:
            self._open.discard(number)
            return
        if not await self._serves(client, row.service):  # that is no attempt
            self._place(number, self._delay(1))
            return
        attempts = row.attempts + 1
        try:
            reply = await client.call(row.service, list(row.body), timeout=self._attempt)
            status, frames = spec.OK, [bytes(frame) for frame in reply.frames]
        except StatusError as error:
            status, frames = error.status, [str(error).encode()]
        except MajordomusError as error:
            logger.info("request %d, attempt %d: %s", number, attempts, error)
            status, frames = spec.UNAVAILABLE, []
        if policy.may_try_again(status):
            delay = self._delay(attempts)
            due = time.time() + delay
            await self._writes.write(Attempted(number, attempts, 0, due))
            self._place(number, delay)
            return
        now = time.time()
        outcome = StoredOutcome(status, frames, b"", now, now + row.keep)
        await self._writes.write(Complete(number, attempts, outcome))
        self._open.discard(number)

    def _delay(self, attempts: int) -> float:
        """Seconds until the next attempt: twice as long each time, less a random share."""
        doubled = FIRST_DELAY * float(2 ** min(attempts - 1, MOST_DOUBLINGS))
        return min(doubled, LONGEST_DELAY) * (0.5 + self._random.random() / 2)

    async def _sweep(self) -> None:
        """Delete outcomes that are no longer kept."""
        while True:
            gone = await self._writes.write(Sweep(time.time(), SWEEP_MOST))
            if not isinstance(gone, int) or gone < SWEEP_MOST:
                await asyncio.sleep(SWEEP_EVERY)

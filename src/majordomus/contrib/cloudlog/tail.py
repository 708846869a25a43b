"""The viewer's side: the Parts of a Query, and a stream that outlives its broker and collector."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator, Callable
from typing import Final

from majordomus.contrib.cloudlog.record import FIRST_CREDIT, MORE, TAIL, Credit, Part, Query
from majordomus.errors import BrokerLost, Cancelled, DeadlineExceeded, Unavailable, WorkerLost
from majordomus.net.client.async_client import AsyncClient

LONGEST: Final = 3000.0
"""Seconds that one stream may take; a broker allows an hour unless it is told otherwise."""
PAUSE: Final = 0.5
"""Seconds between two attempts to find broker and collector again."""

AWAY = (BrokerLost, WorkerLost, Unavailable, DeadlineExceeded, Cancelled)
"""What may be over soon. A collector that ends cancels its streams."""


async def follow(
    client: AsyncClient,
    query: Query,
    *,
    timeout: float = 5.0,
    interrupted: Callable[[Exception], object] = lambda _error: None,
) -> AsyncGenerator[Part, None]:
    """The parts of the answer. With `query.follow` they go on for ever: when the collector, or the
    broker, is gone, `interrupted` is told, and the stream goes on where it was as soon as there is
    one again.

    `timeout`: seconds to the first part. Raises: as `AsyncClient.call`, when that does not come.
    """
    begun = False
    while True:
        try:
            async with contextlib.aclosing(_stream(client, query, timeout)) as parts:
                async for part in parts:
                    begun = True
                    yield part
                    query = dataclasses.replace(
                        query, last=0, epoch=part.epoch, position=part.position
                    )
        except AWAY as error:
            if not (begun and query.follow):
                raise
            interrupted(error)
            await asyncio.sleep(PAUSE)
        if not query.follow:
            return


async def _stream(client: AsyncClient, query: Query, timeout: float) -> AsyncGenerator[Part, None]:
    await client.ping(timeout=timeout)  # an unreachable broker is told by its name
    unread = 0
    stream = client.stream(TAIL, query.to_bytes(), timeout=LONGEST, fail_fast=True)
    async with contextlib.aclosing(stream) as replies:
        first: float | None = timeout
        while True:
            try:
                reply = await asyncio.wait_for(anext(replies), first)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                if isinstance(error, DeadlineExceeded):
                    raise
                raise DeadlineExceeded(f"no collector answered within {timeout:g} s") from None
            first = None
            part = Part.from_bytes(reply.body)
            yield part
            unread += 1
            if unread >= FIRST_CREDIT // 2:
                credit = Credit(viewer=part.viewer, parts=unread)
                await client.send(MORE, credit.to_bytes(), timeout=timeout)
                unread = 0

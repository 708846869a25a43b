"""The viewer's side of a stream, which survives the loss of its broker and collector."""

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
"""Seconds of one stream. The default limit of a broker is an hour."""
PAUSE: Final = 0.5
"""Seconds between two attempts to reach the broker and the collector again."""

AWAY = (BrokerLost, WorkerLost, Unavailable, DeadlineExceeded, Cancelled)
"""Errors that may be temporary. A collector that ends cancels its streams."""


async def follow(
    client: AsyncClient,
    query: Query,
    *,
    timeout: float = 5.0,
    interrupted: Callable[[Exception], object] = lambda _error: None,
) -> AsyncGenerator[Part, None]:
    """Yield the parts of the answer to `query`.

    With `query.follow` the stream never ends. When the collector or the broker is lost,
    `interrupted` is called with the error, and the stream continues at its position when there is
    one again. `timeout`: seconds until the first part.

    Raises: as `AsyncClient.call`, when the first part does not arrive.
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
    await client.ping(timeout=timeout)  # an error for an unreachable broker has its address
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

"""/metrics, /healthz and /readyz over HTTP, for Prometheus and for Kubernetes.

Each request asks the brokers again, except that requests which arrive within MOST_AGE of each other
share one snapshot: so scrapers cannot load a broker, and a probe sees its state as it is now.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from majordomus.errors import Forbidden, MajordomusError, NotSupported, Unauthenticated
from majordomus.observe.ended import EndedReader, EndedRequest
from majordomus.observe.exporter import BrokerCollector, Polled
from majordomus.observe.snapshot import Snapshot, read_async

MOST_AGE: Final = 0.25
"""Seconds for which a snapshot is used again."""
PROBE_WAIT: Final = 0.5
"""Seconds in which a broker must answer to be ready. Its loop is late when it does not."""
METRIC_SECTIONS: Final = ("services", "workers")

Ask = Callable[[list[bytes]], Awaitable[list[bytes]]]
"""Sends one broker a question with that body, and returns the frames of the answer."""


class Questions(NamedTuple):
    """What is asked of one broker.

    metrics: asks `mmi.metrics`. ended: asks `mmi.ended`, for exemplars; None for none.
    """

    metrics: Ask
    ended: Ask | None = None


class Brokers:
    """Reads the snapshots of brokers.

    `asks` has the questions of each endpoint. `timeout` is the most seconds for one snapshot.
    """

    def __init__(self, asks: dict[str, Questions], timeout: float) -> None:
        self._timeout = timeout
        self._asks = asks
        self._ended = {url: EndedReader() for url, one in asks.items() if one.ended is not None}
        self._collector = BrokerCollector(asks)
        self.registry = CollectorRegistry()
        self.registry.register(self._collector)
        ProcessCollector(namespace="majordomus_exporter", registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._down: set[str] = set()
        """Brokers that did not answer the last time: they may not delay every scrape."""
        self._lock = asyncio.Lock()
        self._read = 0.0

    async def update(self) -> None:
        """Read every snapshot again, unless that has just been done."""
        async with self._lock:
            if time.monotonic() - self._read < MOST_AGE:
                return
            found = await asyncio.gather(*(self._poll(url) for url in self._asks))
            for polled in found:
                self._collector.update(polled)
            self._read = time.monotonic()

    async def _poll(self, url: str) -> Polled:
        began = time.monotonic()
        seconds = 0.0

        async def ask(body: list[bytes]) -> list[bytes]:
            nonlocal seconds
            answer = await self._asks[url].metrics(body)
            seconds = seconds or time.monotonic() - began
            return answer

        found: Snapshot | str = ""
        if url not in self._down or isinstance(
            await _answer(read_async(self._asks[url].metrics), PROBE_WAIT), Snapshot
        ):
            found = await _answer(read_async(ask, METRIC_SECTIONS), self._timeout)
        if not isinstance(found, Snapshot):
            self._down.add(url)
            return Polled(url, seconds, None)
        self._down.discard(url)
        snapshot = found
        return Polled(url, seconds, snapshot, await self._read_ended(url), time.time())

    async def _read_ended(self, url: str) -> list[EndedRequest]:
        """The requests that have ended since the last snapshot; none where that may not be asked.

        A refusal is not tried again: each would be an event of the broker's audit log.
        """
        ask, reader = self._asks[url].ended, self._ended.get(url)
        if ask is None or reader is None:
            return []
        try:
            return reader.read(await asyncio.wait_for(ask(reader.question()), PROBE_WAIT)).rows
        except (Forbidden, Unauthenticated, NotSupported):
            del self._ended[url]
        except (TimeoutError, MajordomusError):
            reader.begin_anew()
        return []

    async def problems(self) -> dict[str, str]:
        """Why each broker that is not ready is not; an empty dictionary when all are."""
        urls = list(self._asks)
        found = await asyncio.gather(*(self._problem(url) for url in urls))
        return {url: problem for url, problem in zip(urls, found, strict=True) if problem}

    async def _problem(self, url: str) -> str:
        found = await _answer(read_async(self._asks[url].metrics), PROBE_WAIT)
        if isinstance(found, str):
            return found
        if found.broker.draining:
            return "the broker is draining"
        if found.broker.store is not None and not found.broker.store.accepts:
            return "the disk of the broker's store is almost full"
        return ""


async def _answer(reading: Awaitable[Snapshot], seconds: float) -> Snapshot | str:
    """A snapshot, or why there is none."""
    try:
        return await asyncio.wait_for(reading, seconds)
    except TimeoutError:  # a DeadlineExceeded of the client is one, too
        return f"the broker has not answered within {seconds:g} s"
    except MajordomusError as error:
        return str(error) or type(error).__name__


def make_app(brokers: Brokers) -> Starlette:
    """The application of an exporter, with the three paths."""
    return _app(brokers.registry, brokers.update, brokers.problems)


def make_probe_app(
    registry: CollectorRegistry, problems: Callable[[], dict[str, str]]
) -> Starlette:
    """The same paths for one process: its registry, and why it is not ready."""

    async def nothing() -> None:
        """Its metrics are collected when they are asked for."""

    async def found() -> dict[str, str]:
        return problems()

    return _app(registry, nothing, found)


def _app(
    registry: CollectorRegistry,
    update: Callable[[], Awaitable[None]],
    problems: Callable[[], Awaitable[dict[str, str]]],
) -> Starlette:
    async def metrics(request: Request) -> Response:
        await update()
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"Content-Type": content_type})

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_request: Request) -> Response:
        found = await problems()
        return JSONResponse(
            {"ready": not found, "problems": found}, status_code=503 if found else 200
        )

    routes: Sequence[Route] = [
        Route("/metrics", metrics),
        Route("/healthz", healthz),
        Route("/readyz", readyz),
    ]
    return Starlette(routes=routes)

"""What `majordomus metrics --otlp` sends to a collector: the brokers' spans, which are made from
``mmi.ended``, and their metrics.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from majordomus.contrib.otel.broker import BrokerSpans
from majordomus.contrib.otel.otlp import OtlpExporter
from majordomus.errors import MajordomusError
from majordomus.observe.ended import QUESTION, EndedReader, EndedRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from majordomus.contrib.otel.metrics import OtlpMetrics
    from majordomus.net.client.async_client import AsyncClient

PAUSE: Final = 0.1
"""Seconds between two questions."""
BATCH_MILLISECONDS: Final = 1000

logger = logging.getLogger("majordomus.otel")


def make_provider(otlp: str) -> TracerProvider:
    """Make a provider that sends its spans to a collector. Raises: ConfigurationError."""
    provider = TracerProvider(resource=Resource.create({"service.name": "majordomus-broker"}))
    exporter = OtlpExporter(otlp)
    provider.add_span_processor(
        BatchSpanProcessor(exporter, schedule_delay_millis=BATCH_MILLISECONDS)
    )
    return provider


async def follow(client: AsyncClient, url: str, provider: TracerProvider) -> None:
    """Make the spans of one broker until it is cancelled."""
    spans, reader, lost = BrokerSpans(url, provider), EndedReader(), False
    while True:
        try:
            answer = await client.call(QUESTION, reader.question())
            found = reader.read([bytes(frame) for frame in answer.frames])
        except MajordomusError as error:
            if not lost:
                logger.warning("no spans of %s: %s; asking again", url, error)
            lost = True
            reader.begin_anew()
            await asyncio.sleep(PAUSE)
            continue
        lost = False
        if found.missed:
            logger.warning("%d requests of %s have ended unseen", found.missed, url)
        for one in found.rows:
            spans.add(one, await _attempts(client, one))
        if not found.more:
            await asyncio.sleep(PAUSE)


async def push_metrics(
    update: Callable[[], Awaitable[None]], metrics: OtlpMetrics, seconds: float
) -> None:
    """Send the metrics every `seconds` until it is cancelled. `update` reads them anew."""
    while True:
        await update()
        body, count = metrics.encoded()
        await asyncio.to_thread(metrics.send, body, count)
        await asyncio.sleep(seconds)


async def _attempts(client: AsyncClient, one: EndedRequest) -> list[dict[str, Any]]:
    """The attempts of a request that had several; none when the broker does not keep them."""
    if one.attempts < 2 or not one.trace:
        return []
    try:
        frames = (await client.call("mmi.explain", one.id)).frames
        attempts: list[dict[str, Any]] = json.loads(bytes(frames[1]))["attempts"]
    except (MajordomusError, ValueError, LookupError):
        return []
    return attempts

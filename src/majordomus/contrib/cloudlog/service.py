"""The collector: a worker that receives batches, keeps the last entries, and serves viewers.

Run one process for a broker: a second one would get half of the entries. It runs on one event loop.
Expensive work for a viewer is done in slices, so that no regular expression delays new entries.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from majordomus.contrib.cloudlog import record
from majordomus.contrib.cloudlog.journal import Journal
from majordomus.contrib.cloudlog.record import Batch, Credit, LogEntry, Query
from majordomus.contrib.cloudlog.ring import Ring
from majordomus.contrib.cloudlog.sieve import Sieve, for_collector
from majordomus.contrib.cloudlog.tally import Tally
from majordomus.contrib.cloudlog.watchboard import Watchboard
from majordomus.errors import BadRequest, ConfigurationError, Conflict, RecordError
from majordomus.messages import Record, uint64
from majordomus.messages.records import codec_of
from majordomus.net import endpoints
from majordomus.net.worker.request import Request
from majordomus.net.worker.worker import Worker

RECORDS: Final = 100_000
MEMORY: Final = 64 * 1024 * 1024
FILE_BYTES: Final = 256 * 1024 * 1024
VIEWERS: Final = 64
BATCHES: Final = 64
"""Batches that a collector handles at a time; more wait at the broker."""
CHUNK: Final = 500
"""Most entries of one part."""
SLICE: Final = 0.005
"""Seconds of work for one viewer, after which it pauses as long."""
IDLE: Final = 1.0
"""Seconds after which an idle stream checks whether it has ended."""
DRAIN: Final = 2.0
"""Seconds at the end for batches that are being written; then streams are cancelled."""
LAST_SECOND: Final = 1.0
"""Seconds before its deadline at which a stream ends, so that the viewer can ask again."""


class PackedBatch(Record, name="Batch"):
    """A Batch whose entries stay encoded. It is the same on the wire, and cheaper to read."""

    sender: Annotated[bytes, 1] = b""
    first: Annotated[uint64, 2] = 0
    dropped: Annotated[uint64, 3] = 0
    records: Annotated[list[bytes], 4] = ()  # type: ignore[assignment]


class PackedPart(Record, name="Part"):
    """A Part whose entries stay encoded. It is the same on the wire, and cheaper to write."""

    records: Annotated[list[bytes], 1] = ()  # type: ignore[assignment]
    left_out: Annotated[uint64, 2] = 0
    epoch: Annotated[bytes, 3] = b""
    position: Annotated[uint64, 4] = 0
    viewer: Annotated[bytes, 5] = b""


class Viewer:
    """One stream to a viewer.

    id: the id that a Credit names.
    sieve: the filter of its query.
    position: the number of the next entry that it reads.
    credit: parts that it may still send.
    left_out: entries that it missed since the last part.
    version: the version of the watches that it has sent.
    news: set when entries, watches or credit have arrived.
    slice: seconds of work since its last pause.
    """

    __slots__ = ("credit", "id", "left_out", "news", "position", "sieve", "slice", "version")

    def __init__(self, sieve: Sieve, position: int) -> None:
        self.id = os.urandom(8)
        self.sieve = sieve
        self.position = position
        self.credit = record.FIRST_CREDIT
        self.left_out = 0
        self.version = 0
        self.news = asyncio.Event()
        self.slice = 0.0


class Collector:
    """The handlers of the services, and their state. All of it belongs to the worker's loop.

    records, memory: most entries that are kept, and most bytes of them.
    file: entries are appended to it as lines of JSON. At `file_bytes` it is renamed to `.1`.
    viewers: most streams at a time.
    """

    def __init__(
        self,
        *,
        records: int = RECORDS,
        memory: int = MEMORY,
        file: str | Path | None = None,
        file_bytes: int = FILE_BYTES,
        viewers: int = VIEWERS,
    ) -> None:
        """Raises: ConfigurationError."""
        if viewers < 0 or file_bytes < 1:
            raise ConfigurationError("viewers must be at least 0, file_bytes at least 1")
        self.epoch = os.urandom(8)
        self.ring = Ring(records, memory)
        self.board = Watchboard()
        self.journal = Journal(Path(file), file_bytes) if file is not None else None
        self.most_viewers = viewers
        self.dropped = 0
        self.lost = 0
        self.invalid = 0
        self._tally = Tally()
        self._viewers: dict[bytes, Viewer] = {}
        self._writing = asyncio.Lock()
        self._parse = codec_of(LogEntry).message.FromString

    # ── requests of programs ──────────────────────────────────────────────────────────────────────

    async def write(self, request: Request) -> None:
        """Add LogEntries, one a frame: the original's form. Raises: BadRequest, and adds none."""
        try:
            entries = [LogEntry.from_bytes(frame) for frame in request.frames]
            lines = [
                bytes(frame)
                for frame, entry in zip(request.frames, entries, strict=True)
                if entry.data_format >= 0
            ]
            for entry in entries:
                if entry.data_format == record.DataFormat.LIVE_WATCHES:
                    self._show(entry)
        except RecordError as error:
            raise self._refusal(error) from None
        await self._add(lines)

    async def batch(self, request: Request) -> None:
        """Add the entries of a Batch. Raises: BadRequest."""
        body = request.body
        try:
            Batch.from_bytes(body)  # checks all of it; the result is not used
            batch = PackedBatch.from_bytes(body)
        except RecordError as error:
            raise self._refusal(error) from None
        records = batch.records
        if not records:
            return
        missing = self._tally.count(batch.sender, batch.first, batch.dropped, len(records))
        self.dropped += missing.dropped
        self.lost += missing.lost
        notices = [
            self._notice(records[0], f"{count} records {what}")
            for count, what in (
                (missing.lost, "were lost on the way"),
                (missing.dropped, "were dropped: the queue of their program was full"),
            )
            if count
        ]
        await self._add([*notices, *records])

    async def _add(self, entries: Sequence[bytes]) -> None:
        if not entries:
            return
        self.ring.append(entries)
        self._notify_viewers()
        if self.journal is not None:
            async with self._writing:  # keeps the order; meanwhile the broker sends no more
                await asyncio.to_thread(self.journal.write, entries)

    def _show(self, entry: LogEntry) -> None:
        if self.board.update(entry, time.monotonic()):
            self._notify_viewers()

    def _notify_viewers(self) -> None:
        for viewer in self._viewers.values():
            viewer.news.set()

    def _notice(self, about: bytes, text: str) -> bytes:
        """An entry of the collector itself, in the name of the process of the entry `about`."""
        entry = LogEntry.from_bytes(about)
        return LogEntry(
            text=f"cloudlog: {text}",
            level=logging.WARNING,
            process_id=entry.process_id,
            thread_id=entry.thread_id,
            application=entry.application,
            time=entry.time,
        ).to_bytes()

    def _refusal(self, error: RecordError) -> BadRequest:
        self.invalid += 1
        return BadRequest(str(error))

    # ── requests of viewers ───────────────────────────────────────────────────────────────────────

    async def tail(self, request: Request) -> AsyncGenerator[bytes, None]:
        """Answer a Query by a stream of Parts. Raises: BadRequest; Conflict at the limit."""
        try:
            query = Query.from_bytes(request.body)
            sieve = for_collector(query.level, query.applications, query.grep)
        except (RecordError, ConfigurationError) as error:
            raise BadRequest(str(error)) from None
        if len(self._viewers) >= self.most_viewers:
            raise Conflict(f"{self.most_viewers} viewers are connected, no more are allowed")
        viewer = Viewer(sieve, self.ring.end)
        self._viewers[viewer.id] = viewer
        try:
            stream = self._watches if query.watch else self._entries
            parts = stream(viewer, query, request)
            async with contextlib.aclosing(parts):
                async for part in parts:
                    viewer.credit -= 1
                    yield part
        finally:
            del self._viewers[viewer.id]

    async def more(self, request: Request) -> None:
        """Add a Credit. An unknown viewer is ignored. Raises: BadRequest."""
        try:
            credit = Credit.from_bytes(request.body)
            viewer = self._viewers.get(credit.viewer)
        except RecordError as error:
            raise self._refusal(error) from None
        if viewer is not None:
            viewer.credit = min(viewer.credit + credit.parts, record.FIRST_CREDIT)
            viewer.news.set()

    async def status(self, _request: Request) -> bytes:
        """The counters, as JSON."""
        return msgspec.json.encode(self.counters())

    def counters(self) -> dict[str, Any]:
        """The counters of this collector, by name."""
        return {
            "received": self.ring.end,
            "held": self.ring.end - self.ring.first,
            "held_bytes": self.ring.size,
            "dropped": self.dropped,
            "lost": self.lost,
            "invalid": self.invalid,
            "not_written": self.journal.lost if self.journal else 0,
            "viewers": len(self._viewers),
        }

    # ── streams ───────────────────────────────────────────────────────────────────────────────────

    async def _entries(
        self, viewer: Viewer, query: Query, request: Request
    ) -> AsyncGenerator[bytes, None]:
        backlog: deque[bytes] = deque()
        if query.position and query.epoch == self.epoch:
            viewer.position = min(query.position, self.ring.end)
        elif query.epoch:
            viewer.position = self.ring.first  # the position is one of an earlier collector
        else:
            backlog = await self._backlog(viewer, query.last)
        yield self._part(viewer, _pop(backlog))
        while backlog:
            while viewer.credit <= 0:
                await _wait_for_news(viewer, IDLE)
            yield self._part(viewer, _pop(backlog))
        while query.follow and _continues(request):
            if viewer.credit > 0 and (chunk := await self._next(viewer)):
                yield self._part(viewer, chunk)
            elif viewer.credit <= 0 or viewer.position == self.ring.end:
                await _wait_for_news(viewer, IDLE)

    async def _watches(
        self, viewer: Viewer, query: Query, request: Request
    ) -> AsyncGenerator[bytes, None]:
        yield self._part(viewer, self._changes(viewer))
        while query.follow and _continues(request):
            if viewer.credit > 0 and (changes := self._changes(viewer)):
                yield self._part(viewer, changes)
            else:
                await _wait_for_news(viewer, IDLE)

    def _changes(self, viewer: Viewer) -> list[bytes]:
        if self.board.expire(time.monotonic(), time.time()):
            self._notify_viewers()
        applications = viewer.sieve.applications
        changes = [
            entry.to_bytes()
            for entry in self.board.newer(viewer.version)
            if not applications or entry.application in applications
        ]
        viewer.version = self.board.version
        return changes

    async def _next(self, viewer: Viewer) -> list[bytes]:
        """The next entries for `viewer`; empty when there are none, or none passes its filter."""
        viewer.news.clear()
        self._catch_up(viewer)
        chunk = self.ring.read(viewer.position, CHUNK)
        viewer.position += len(chunk)
        return await self._sift(viewer, chunk)

    def _catch_up(self, viewer: Viewer) -> None:
        """What went before the viewer came to it is left out."""
        missed = self.ring.first - viewer.position
        if missed > 0:
            viewer.left_out += missed
            viewer.position = self.ring.first

    async def _backlog(self, viewer: Viewer, last: int) -> deque[bytes]:
        """The last entries that pass the filter, searched from the newest. Sets the position."""
        found: deque[bytes] = deque()
        at = viewer.position = self.ring.end
        while len(found) < last and at > self.ring.first:
            begin = max(self.ring.first, at - CHUNK)
            chunk: list[bytes] = []
            while begin + len(chunk) < at:  # a read ends early when entries are large
                chunk += self.ring.read(begin + len(chunk), at - begin - len(chunk))
            at = begin
            wanted = await self._sift(viewer, chunk)
            found.extendleft(reversed(wanted[-(last - len(found)) :]))
        return found

    async def _sift(self, viewer: Viewer, chunk: list[bytes]) -> list[bytes]:
        """The entries that may pass. After a slice of work, pause as long as the work took."""
        if viewer.sieve.open:
            await asyncio.sleep(0)
            return chunk
        may_pass, parse = viewer.sieve.may_pass, self._parse
        passed: list[bytes] = []
        began = time.perf_counter()
        for entry in chunk:
            if may_pass(parse(entry)):
                passed.append(entry)
            worked = viewer.slice + time.perf_counter() - began
            if worked > SLICE:
                await asyncio.sleep(worked)
                viewer.slice, began = 0.0, time.perf_counter()
        viewer.slice += time.perf_counter() - began
        await asyncio.sleep(0)
        return passed

    def _part(self, viewer: Viewer, entries: list[bytes]) -> bytes:
        left_out, viewer.left_out = viewer.left_out, 0
        return PackedPart(
            records=entries,
            left_out=left_out,
            epoch=self.epoch,
            position=viewer.position,
            viewer=viewer.id,
        ).to_bytes()


def _pop(backlog: deque[bytes]) -> list[bytes]:
    return [backlog.popleft() for _ in range(min(CHUNK, len(backlog)))]


def _continues(request: Request) -> bool:
    return request.remaining > LAST_SECOND


async def _wait_for_news(viewer: Viewer, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await viewer.news.wait()
    except TimeoutError:
        pass
    viewer.news.clear()


def make_collector(
    broker: str | Sequence[str] = endpoints.DEFAULT,
    *,
    records: int = RECORDS,
    memory: int = MEMORY,
    file: str | Path | None = None,
    file_bytes: int = FILE_BYTES,
    viewers: int = VIEWERS,
) -> Worker:
    """A worker that is a collector. The arguments are those of `Collector`.

    Raises: ConfigurationError.
    """
    collector = Collector(
        records=records, memory=memory, file=file, file_bytes=file_bytes, viewers=viewers
    )
    worker = Worker(broker, capacity=viewers + BATCHES, drain_timeout=DRAIN)
    worker.add(record.WRITE, collector.write)
    worker.add(record.BATCH, collector.batch)
    worker.add(record.TAIL, collector.tail)
    worker.add(record.MORE, collector.more)
    worker.add(record.STATUS, collector.status)
    return worker

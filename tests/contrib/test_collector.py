"""The collector's functions, called as the worker calls them, without a broker."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from majordomus.contrib.cloudlog import record, service
from majordomus.contrib.cloudlog.encode import Queued, encode
from majordomus.contrib.cloudlog.record import (
    Credit,
    LogEntry,
    Part,
    Query,
    Watch,
    watches_entry,
    watches_of,
)
from majordomus.contrib.cloudlog.service import Collector
from majordomus.errors import BadRequest, ConfigurationError, Conflict
from majordomus.net.worker.request import Request


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """The test on an event loop of its own."""

    def in_loop(**fixtures: Any) -> None:
        asyncio.run(asyncio.wait_for(test(**fixtures), 60.0))

    in_loop.__name__, in_loop.__doc__ = test.__name__, test.__doc__
    in_loop.__signature__ = inspect.signature(test)  # type: ignore[attr-defined]
    return in_loop


def request(*frames: bytes, seconds: float = 3600.0) -> Request:
    return Request("cloudlog", list(frames), deadline=time.monotonic() + seconds)


def batch(
    *texts: str, first: int = 0, dropped: int = 0, sender: bytes = b"s", **odd: Any
) -> Request:
    queued = [
        Queued(first + at, text, odd.get("level", 20), 1, 2, 0.0) for at, text in enumerate(texts)
    ]
    return request(encode(sender, dropped, queued, odd.get("application", "app")))


def texts(parts: Sequence[Part]) -> list[str]:
    return [entry.text for part in parts for entry in part.records]


async def ask(collector: Collector, **query: Any) -> list[Part]:
    """The whole answer to a query that does not follow; credit is given as a viewer gives it."""
    found = []
    async for body in collector.tail(request(Query(**{"last": 10_000, **query}).to_bytes())):
        found.append(part := Part.from_bytes(body))
        await collector.more(request(Credit(part.viewer, 1).to_bytes()))
    return found


class Follower:
    """A stream that follows, one part at a time."""

    def __init__(self, collector: Collector, query: Query, seconds: float) -> None:
        self.collector = collector
        self.stream = collector.tail(request(query.to_bytes(), seconds=seconds))
        self.viewer = b""

    async def next(self, within: float = 20.0) -> Part:
        part = Part.from_bytes(await asyncio.wait_for(anext(self.stream), within))
        self.viewer = part.viewer
        return part

    async def credit(self, parts: int) -> None:
        await self.collector.more(request(Credit(self.viewer, parts).to_bytes()))


@asynccontextmanager
async def following(
    collector: Collector, seconds: float = 3600.0, **query: Any
) -> AsyncIterator[Follower]:
    follower = Follower(collector, Query(follow=True, **query), seconds)
    try:
        yield follower
    finally:
        await follower.stream.aclose()


# ── what comes in ─────────────────────────────────────────────────────────────────────────────────


@run
async def test_batch_is_held_and_shown_in_order() -> None:
    collector = Collector()
    await collector.batch(batch("a", "b"))
    await collector.batch(batch("c", first=2))
    assert texts(await ask(collector)) == ["a", "b", "c"]
    assert collector.counters() == {
        "received": 3,
        "held": 3,
        "held_bytes": collector.ring.size,
        "dropped": 0,
        "lost": 0,
        "invalid": 0,
        "not_written": 0,
        "viewers": 0,
    }


@run
async def test_single_entries_come_as_the_original_sends_them() -> None:
    collector = Collector()
    await collector.write(request(LogEntry("a").to_bytes(), LogEntry("b", 2).to_bytes()))
    assert texts(await ask(collector)) == ["a", "b"]
    assert texts(await ask(collector, level=40)) == ["b"]


@run
async def test_what_is_no_record_is_refused_and_counted() -> None:
    collector = Collector()
    broken = batch("a", "b").body[:-3]
    for call, body in (
        (collector.batch, broken),
        (collector.batch, b"\x22\x03\x0a\x01\xff"),  # an entry whose text is no UTF-8
        (collector.write, b"\xff"),
        (collector.write, watches_entry([], "a", 1, 0.0).to_bytes()[:-1] + b"\xff"),
        (collector.more, b"\xff"),
    ):
        with pytest.raises(BadRequest):
            await call(request(body))
    assert (collector.invalid, collector.ring.end) == (5, 0)
    with pytest.raises(BadRequest):
        await anext(collector.tail(request(b"\xff")))
    with pytest.raises(BadRequest, match="not a regular expression"):
        await anext(collector.tail(request(Query(grep="(").to_bytes())))


@run
async def test_missing_records_are_counted_and_shown_at_their_place() -> None:
    collector = Collector()
    await collector.batch(batch("a"))
    await collector.batch(batch("b", first=8, dropped=4))
    assert texts(await ask(collector)) == [
        "a",
        "cloudlog: 3 records were lost on the way",
        "cloudlog: 4 records were dropped: the queue of their program was full",
        "b",
    ]
    assert (collector.dropped, collector.lost) == (4, 3)
    notice = (await ask(collector, level=30))[0].records[0]
    assert (notice.application, notice.process_id, notice.level) == ("app", 1, 30)


@run
async def test_batch_without_entries_changes_nothing() -> None:
    collector = Collector()
    await collector.batch(request(b""))
    assert collector.ring.end == 0


def test_entries_are_appended_to_a_file_in_order(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"

    async def collect() -> None:
        collector = Collector(file=path)
        await asyncio.gather(*(collector.batch(batch(f"{n}", first=n)) for n in range(50)))
        assert collector.journal is not None
        collector.journal.close()

    asyncio.run(collect())
    lines = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    assert lines == [str(number) for number in range(50)]


@pytest.mark.parametrize("options", [{"records": 0}, {"viewers": -1}, {"file_bytes": 0}])
def test_wrong_setting_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Collector(**options)


# ── what viewers get ──────────────────────────────────────────────────────────────────────────────


@run
async def test_last_entries_are_the_last_of_those_that_are_wanted() -> None:
    collector = Collector(records=5000)
    for start in range(0, 3000, 1000):
        await collector.batch(batch(*(f"n{n}" for n in range(start, start + 1000)), first=start))
    assert texts(await ask(collector, last=3)) == ["n2997", "n2998", "n2999"]
    assert texts(await ask(collector, last=3, grep="00$")) == ["n2700", "n2800", "n2900"]
    assert texts(await ask(collector, last=0)) == []
    assert len(texts(await ask(collector, last=2000, grep="n"))) == 2000


@run
async def test_level_and_application_are_sifted_at_the_collector() -> None:
    collector = Collector()
    await collector.batch(batch("a", level=20, application="shop"))
    await collector.batch(batch("b", level=40, application="shop", sender=b"t"))
    await collector.batch(batch("c", level=40, application="bank", sender=b"u"))
    assert texts(await ask(collector, level=30)) == ["b", "c"]
    assert texts(await ask(collector, applications=["shop"])) == ["a", "b"]
    assert texts(await ask(collector, applications=["bank", "x"], level=30)) == ["c"]


@run
async def test_follower_gets_what_comes_after_what_was_there() -> None:
    collector = Collector()
    await collector.batch(batch("a", "b"))
    async with following(collector, last=1) as follower:
        assert texts([await follower.next()]) == ["b"]
        waiting = asyncio.ensure_future(follower.next())
        await asyncio.sleep(0.01)
        began = time.monotonic()
        await collector.batch(batch("c", first=2))
        assert texts([await waiting]) == ["c"]
        assert time.monotonic() - began < 0.5


@run
async def test_follower_with_a_sieve_gets_nothing_else() -> None:
    collector = Collector()
    async with following(collector, grep="b") as follower:
        assert texts([await follower.next()]) == []
        for at, text in enumerate("abcab"):
            await collector.batch(batch(text, first=at))
        assert texts([await follower.next()]) == ["b", "b"]


@run
async def test_viewer_without_credit_gets_no_more_and_is_told_what_it_missed() -> None:
    collector = Collector(records=10)
    async with following(collector) as follower:
        for at in range(record.FIRST_CREDIT):
            assert texts([await follower.next()]) == ([str(at - 1)] if at else [])
            await collector.batch(batch(str(at), first=at))
        with pytest.raises(TimeoutError):
            await follower.next(within=0.1)


@run
async def test_slow_viewer_costs_nothing_and_learns_how_much_it_missed() -> None:
    collector = Collector(records=10)
    async with following(collector) as follower:
        await follower.next()
        for at in range(100):
            await collector.batch(batch(str(at), first=at))
        part = await follower.next()
        assert texts([part]) == [str(at) for at in range(90, 100)]
        assert part.left_out == 90
        await collector.batch(batch("next", first=100))
        assert (await follower.next()).left_out == 0


@run
async def test_credit_lets_a_stream_go_on_and_never_exceeds_its_bound() -> None:
    collector = Collector()
    async with following(collector) as follower:
        await follower.next()
        (viewer,) = collector._viewers.values()
        assert viewer.credit == record.FIRST_CREDIT - 1
        viewer.credit = 0
        await collector.batch(batch("a"))
        waiting = asyncio.ensure_future(follower.next())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await follower.credit(2)
        assert texts([await waiting]) == ["a"]
        await follower.credit(1_000_000)
        assert viewer.credit == record.FIRST_CREDIT
        await collector.more(request(Credit(b"nobody", 1).to_bytes()))


@run
async def test_stream_goes_on_where_an_earlier_one_ended() -> None:
    collector = Collector(records=100)
    await collector.batch(batch("a", "b", "c"))
    first = (await ask(collector, last=2))[0]
    await collector.batch(batch("d", first=3))
    async with following(collector, epoch=first.epoch, position=first.position) as follower:
        assert texts([await follower.next(), await follower.next()]) == ["d"]
    async with following(Collector(), epoch=first.epoch, position=first.position) as follower:
        assert texts([await follower.next()]) == []


@run
async def test_stream_after_a_new_collector_begins_with_all_that_it_has() -> None:
    collector = Collector()
    await collector.batch(batch("a", "b"))
    async with following(collector, epoch=b"another", position=1000) as follower:
        assert texts([await follower.next(), await follower.next()]) == ["a", "b"]


@run
async def test_stream_ends_by_itself_before_its_deadline() -> None:
    collector = Collector()
    async with following(collector, seconds=1.2) as follower:
        await follower.next()
        with pytest.raises(StopAsyncIteration):
            await follower.next()
    assert collector.counters()["viewers"] == 0


@run
async def test_viewer_too_many_is_refused_and_finds_a_place_later() -> None:
    collector = Collector(viewers=1)
    async with following(collector) as follower:
        await follower.next()
        with pytest.raises(Conflict, match="1 viewers are connected"):
            await ask(collector)
    assert texts(await ask(collector)) == []


@run
async def test_dear_expression_leaves_the_loop_time_for_others() -> None:
    collector = Collector()
    lines = [f"{n} " + "x" * 80 for n in range(3000)]
    for at in range(0, len(lines), 1000):
        await collector.batch(batch(*lines[at : at + 1000], first=at))
    search = asyncio.ensure_future(ask(collector, grep="x*x*y"))
    longest, last = 0.0, time.perf_counter()
    while not search.done():
        await asyncio.sleep(0)
        longest, last = max(longest, time.perf_counter() - last), time.perf_counter()
    assert texts(await search) == []
    assert longest < 0.5


# ── watches ───────────────────────────────────────────────────────────────────────────────────────


def word(process_id: int, **values: str) -> Request:
    watches = [Watch(*item) for item in values.items()]
    return request(watches_entry(watches, "app", process_id, 0.0).to_bytes())


def shown(part: Part) -> dict[int, dict[str, str]]:
    return {
        entry.process_id: {watch.name: watch.value for watch in watches_of(entry)}
        for entry in part.records
    }


@run
async def test_watches_are_no_lines_of_the_log() -> None:
    collector = Collector()
    await collector.write(word(1, a="1"))
    assert texts(await ask(collector)) == []
    (part,) = await ask(collector, watch=True)
    assert shown(part) == {1: {"a": "1"}}


@run
async def test_follower_of_watches_sees_every_change_in_place() -> None:
    collector = Collector()
    await collector.write(word(1, a="1"))
    await collector.write(word(2, b="1"))
    async with following(collector, watch=True, applications=["app"]) as follower:
        assert shown(await follower.next()) == {1: {"a": "1"}, 2: {"b": "1"}}
        await collector.write(word(1, a="2"))
        assert shown(await follower.next()) == {1: {"a": "2"}}
        await collector.write(word(2))
        assert shown(await follower.next()) == {2: {}}
    assert shown((await ask(collector, watch=True, applications=["other"]))[0]) == {}


@run
async def test_watches_of_a_process_that_is_gone_disappear() -> None:
    collector = Collector()
    collector.board.expiry = 0.05
    await collector.write(word(1, a="1"))
    async with following(collector, watch=True) as follower:
        assert shown(await follower.next()) == {1: {"a": "1"}}
        assert shown(await follower.next()) == {1: {}}


def test_collector_offers_its_services() -> None:
    worker = service.make_collector("tcp://127.0.0.1:1")
    assert sorted(worker.handlers) == [
        "cloudlog.batch",
        "cloudlog.more",
        "cloudlog.status",
        "cloudlog.tail",
        "cloudlog.write",
    ]

"""Gathering: one request to every worker of a service, replies as they come, and the cancelling of
calls whose replies are no longer needed."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from majordomus.core.broker import pages
from majordomus.errors import (
    BadRequest,
    ConfigurationError,
    DeadlineExceeded,
    LocalProtocolError,
    NotFound,
    Unavailable,
)
from majordomus.net.bodies import Reply
from majordomus.net.client.async_client import AsyncClient
from majordomus.net.client.client import Client
from majordomus.net.client.gather import AsyncGathering, Gathering
from majordomus.net.worker.request import Request
from tests.net.client.test_hedge import FOREVER, Fleet
from tests.net.conftest import eventually

Outcome = tuple[list[Reply], Gathering | AsyncGathering]
Gather = Callable[..., Outcome]


@pytest.fixture
def fleet(url: str) -> Iterator[Fleet]:
    made = Fleet(url)
    yield made
    made.stop()


@pytest.fixture(params=["sync", "async"])
def gather(request: pytest.FixtureRequest, url: str) -> Gather:
    """Return a function that gathers with either client, which returns replies and gathering."""

    def run_sync(*arguments: Any, **options: Any) -> Outcome:
        with Client(url, timeout=FOREVER) as client:
            gathering = client.gather(*arguments, **options)
            return list(gathering), gathering

    def run_async(*arguments: Any, **options: Any) -> Outcome:
        async def main() -> Outcome:
            async with AsyncClient(url, timeout=FOREVER) as client:
                gathering = client.gather(*arguments, **options)
                return [reply async for reply in gathering], gathering

        return asyncio.run(main())

    return run_sync if request.param == "sync" else run_async


def bodies(outcome: Outcome) -> list[str]:
    return sorted(reply.text for reply in outcome[0])


def test_every_worker_is_asked_once_and_each_reply_names_its_worker(
    fleet: Fleet, gather: Gather
) -> None:
    for name in ("a", "b", "c"):
        fleet.add(name, lambda request, name=name: name + request.text)
    outcome = gather("svc", "!")
    assert bodies(outcome) == ["a!", "b!", "c!"]
    assert sorted(fleet.asked) == ["a", "b", "c"]
    assert {reply.worker for reply in outcome[0]} == set(outcome[1].workers)
    assert outcome[1].failures == {}


def test_workers_that_are_listed_in_several_pages_are_all_asked(
    fleet: Fleet, gather: Gather, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "PAGE", 1)
    for name in ("a", "b", "c"):
        fleet.add(name, lambda request, name=name: name + request.text)
    assert bodies(gather("svc", "!")) == ["a!", "b!", "c!"]


def test_gathering_yields_each_reply_as_it_comes(fleet: Fleet, url: str) -> None:
    fleet.add("slow")
    fleet.add("fast", lambda request: b"fast")
    with Client(url, timeout=FOREVER) as client:
        gathering = client.gather("svc")
        assert next(gathering).body == b"fast"
        fleet.release.set()
        assert next(gathering).body == b"slow"
        with pytest.raises(StopIteration):
            next(gathering)


def test_first_reply_is_enough_and_the_others_are_cancelled(fleet: Fleet, gather: Gather) -> None:
    fleet.add("slow")
    fleet.add("fast", fleet.when_asked(3, b"fast"))
    fleet.add("slower")
    assert bodies(gather("svc", wait="first")) == ["fast"]
    eventually(lambda: sorted(fleet.cancelled) == ["slow", "slower"], within=FOREVER)


def test_gathering_ends_with_the_wanted_number_of_replies(fleet: Fleet, gather: Gather) -> None:
    fleet.add("slow")
    fleet.add("a", fleet.when_asked(3, b"a"))
    fleet.add("b", lambda request: b"b")
    assert bodies(gather("svc", wait=2)) == ["a", "b"]
    eventually(lambda: fleet.cancelled == ["slow"], within=FOREVER)


def test_worker_that_fails_is_in_failures_and_stops_no_other(fleet: Fleet, gather: Gather) -> None:
    def refuse(request: Request) -> bytes:
        raise BadRequest("not me")

    fleet.add("strict", refuse)
    fleet.add("kind", lambda request: b"kind")
    replies, gathering = gather("svc")
    assert [reply.body for reply in replies] == [b"kind"]
    (worker,) = gathering.failures
    assert isinstance(gathering.failures[worker], BadRequest)
    assert {worker, replies[0].worker} == set(gathering.workers)


def test_failure_after_which_the_replies_cannot_suffice_is_raised(
    fleet: Fleet, gather: Gather
) -> None:
    def refuse(request: Request) -> bytes:
        fleet.when_asked(2, b"")(request)
        raise BadRequest("not me")

    fleet.add("strict", refuse)
    fleet.add("slow")
    with pytest.raises(BadRequest, match="not me"):
        gather("svc", wait=2)
    eventually(lambda: fleet.cancelled == ["slow"], within=FOREVER)


def test_wait_for_the_first_reply_skips_failed_workers(fleet: Fleet, gather: Gather) -> None:
    def refuse(request: Request) -> bytes:
        raise BadRequest("not me")

    fleet.add("strict", refuse)
    fleet.add("kind", lambda request: b"kind")
    assert bodies(gather("svc", wait="first")) == ["kind"]


def test_gathering_ends_when_no_worker_answers_within_stall(fleet: Fleet, gather: Gather) -> None:
    fleet.add("slow")
    fleet.add("fast", lambda request: b"fast")
    replies, gathering = gather("svc", stall=0.5)
    assert [reply.body for reply in replies] == [b"fast"]
    (error,) = gathering.failures.values()
    assert isinstance(error, DeadlineExceeded)
    assert str(error) == "408 no worker answered for 0.5 s"
    eventually(lambda: fleet.cancelled == ["slow"], within=FOREVER)


def test_gathering_ends_at_its_timeout(fleet: Fleet, gather: Gather) -> None:
    fleet.add("slow")
    replies, gathering = gather("svc", timeout=0.5)
    assert replies == []
    assert [str(error) for error in gathering.failures.values()] == ["408 no answer within 0.5 s"]
    with pytest.raises(DeadlineExceeded):
        gather("svc", timeout=0.3, wait="first")


def test_fewer_workers_than_wanted_are_unavailable(fleet: Fleet, gather: Gather) -> None:
    with pytest.raises(Unavailable, match="0 workers serve 'svc' now, 1 are wanted"):
        gather("svc")
    fleet.add("a", lambda request: b"a")
    with pytest.raises(Unavailable, match="1 workers serve 'svc' now, 2 are wanted"):
        gather("svc", wait=2)
    assert fleet.asked == []


@pytest.mark.parametrize("options", [{"wait": 0}, {"wait": "some"}, {"stall": 0}, {"timeout": -1}])
def test_invalid_options_of_gather_are_refused(gather: Gather, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        gather("svc", **options)


def test_leaving_a_gathering_cancels_its_open_calls(fleet: Fleet, url: str) -> None:
    fleet.add("slow")
    fleet.add("fast", fleet.when_asked(2, b"fast"))
    with Client(url, timeout=FOREVER) as client:
        with client.gather("svc") as gathering:
            assert next(gathering).body == b"fast"
        eventually(lambda: fleet.cancelled == ["slow"], within=FOREVER)
        assert list(gathering) == []


def test_dropping_a_gathering_cancels_its_open_calls(fleet: Fleet, url: str) -> None:
    fleet.add("slow")
    with Client(url, timeout=FOREVER) as client:
        gathering = client.gather("svc")
        eventually(lambda: fleet.asked == ["slow"], within=FOREVER)
        del gathering
        gc.collect()
        eventually(lambda: fleet.cancelled == ["slow"], within=FOREVER)


def test_leaving_an_async_gathering_cancels_its_open_calls(fleet: Fleet, url: str) -> None:
    fleet.add("slow")
    fleet.add("fast", fleet.when_asked(2, b"fast"))

    async def main() -> None:
        async with AsyncClient(url, timeout=FOREVER) as client:
            async with client.gather("svc") as gathering:
                async for reply in gathering:
                    assert reply.body == b"fast"
                    break
            async with asyncio.timeout(FOREVER):
                while fleet.cancelled != ["slow"]:
                    await asyncio.sleep(0.005)

    asyncio.run(main())


def test_cancelled_task_cancels_all_calls(fleet: Fleet, url: str) -> None:
    fleet.add("slow")

    async def main() -> None:
        async def ask(replies: AsyncIterator[Reply]) -> None:
            async for _ in replies:
                raise AssertionError("nobody answers")

        async with AsyncClient(url, timeout=FOREVER) as client, asyncio.timeout(FOREVER):
            task = asyncio.create_task(ask(client.gather("svc")))
            while not fleet.asked:
                await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            while not fleet.cancelled:
                await asyncio.sleep(0.005)

    asyncio.run(main())


def test_call_to_one_worker_is_answered_by_that_one(fleet: Fleet, url: str) -> None:
    for name in ("a", "b", "c"):
        fleet.add(name, lambda request, name=name: name)
    with Client(url, timeout=FOREVER) as client:
        for reply in list(client.gather("svc")):
            for _ in range(3):
                again = client.call("svc", to=reply.worker)
                assert (again.body, again.worker) == (reply.body, reply.worker)
        fleet.workers[0].stop()
        with pytest.raises(NotFound, match="serves 'svc'"):
            client.call("svc", to=b"nobody")


def test_older_dialects_cannot_name_a_worker(url: str) -> None:
    with Client(url, dialect="mdp02") as client, pytest.raises(LocalProtocolError):
        client.call("svc", to=b"worker")

"""Events of clients and workers: pushes, topics, handlers and iterators, in threads and tasks."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from majordomus.core.broker.state.access_rules import AccessRules, Rule
from majordomus.core.session.events import EventReceived
from majordomus.errors import (
    ConfigurationError,
    DeadlineExceeded,
    Forbidden,
    LocalProtocolError,
    Unauthenticated,
)
from majordomus.net.broker.broker import Broker
from majordomus.net.client.async_client import AsyncClient
from majordomus.net.client.client import Client
from majordomus.net.events import (
    MOST_WAITING,
    AsyncSubscription,
    Event,
    Hub,
    Subscription,
    TaskQueue,
)
from majordomus.net.worker.async_worker import AsyncWorker
from majordomus.net.worker.request import Request
from majordomus.net.worker.worker import Worker
from tests.docs_runner import run_page
from tests.net.conftest import eventually

WAIT = 10.0
"""Seconds in which an event must come; on an idle machine it comes at once."""


def on_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test that is a coroutine function on a loop of its own."""

    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        asyncio.run(test(**fixtures))  # type: ignore[arg-type]

    return run


class Pusher:
    """A worker that acknowledges each request and keeps the handle of its client."""

    def __init__(self, url: str) -> None:
        self.worker = Worker(url)
        self.clients: list[bytes] = []

        @self.worker.service("slow")
        async def slow(request: Request) -> str:
            self.clients.append(request.client)
            return "accepted"

    def push(self, *bodies: bytes) -> None:
        for body in bodies:
            self.worker.push(self.clients[-1], body)


@pytest.fixture
def pusher(url: str) -> Iterator[Pusher]:
    made = Pusher(url)
    with made.worker:
        made.worker.wait_ready(WAIT)
        yield made


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as made:
        yield made


def test_subscription_of_a_type_yields_values(client: Client) -> None:
    with client.subscribe("sizes.*", of=list[int]) as sizes:
        client.publish("sizes.new", b"\xc1")  # no MessagePack: it is left out
        client.publish("sizes.new", b"\x92\x01\x02")
        assert next(sizes) == [1, 2]


# ── push ──────────────────────────────────────────────────────────────────────────────────────────


def test_worker_keeps_the_handle_of_a_client_and_pushes_later(
    pusher: Pusher, client: Client
) -> None:
    with client.events() as events:
        assert client.call("slow").text == "accepted"
        pusher.push(b"first", b"second")
        assert [events.get(WAIT).body for _ in range(2)] == [b"first", b"second"]


def test_client_that_called_before_it_took_on_presence_is_pushed_to(
    pusher: Pusher, client: Client
) -> None:
    client.call("slow")
    with client.events() as events:
        client.ping()
        pusher.push(b"x")
        assert events.get(WAIT).body == b"x"


def test_handler_is_called_in_a_thread_where_it_may_call(pusher: Pusher, client: Client) -> None:
    done: list[tuple[str, str]] = []

    def handler(event: Event) -> None:
        done.append((event.text, client.call("slow").text))

    listening = client.on_event(handler)
    client.call("slow")
    pusher.push(b"x", b"y")
    eventually(lambda: len(done) == 2, WAIT)
    assert done == [("x", "accepted"), ("y", "accepted")]
    listening.close()
    with client.events() as events:
        pusher.push(b"z")
        events.get(WAIT)
    assert len(done) == 2


def test_handler_that_fails_is_logged_and_called_again(
    pusher: Pusher, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []

    def handler(event: Event) -> None:
        seen.append(event.text)
        raise ValueError("no")

    client.on_event(handler)
    client.call("slow")
    pusher.push(b"x", b"y")
    eventually(lambda: seen == ["x", "y"], WAIT)
    eventually(lambda: caplog.text.count("a handler of events failed") == 2, WAIT)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration])
def test_handler_that_raises_a_base_exception_is_called_again(
    pusher: Pusher, client: Client, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    seen: list[str] = []

    def handler(event: Event) -> None:
        seen.append(event.text)
        raise error

    client.on_event(handler)
    client.call("slow")
    pusher.push(b"x", b"y")
    eventually(lambda: seen == ["x", "y"], WAIT)
    eventually(lambda: caplog.text.count("a handler of events failed") == 2, WAIT)


ERRORS = (SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, ValueError)


@pytest.mark.parametrize("in_threads", [False, True])
@pytest.mark.parametrize("error", ERRORS)
def test_handler_of_a_loop_that_raises_a_base_exception_is_called_again(
    caplog: pytest.LogCaptureFixture, error: type[BaseException], in_threads: bool
) -> None:
    seen: list[str] = []

    def handler(event: Event) -> None:
        seen.append(event.text)
        raise error

    async def later(event: Event) -> None:
        await asyncio.sleep(0)
        handler(event)

    async def program() -> None:
        handlers = TaskQueue(in_threads=in_threads)
        for one in (handler, later, handler):
            handlers.put(one, Event("", [b"x"]))
        while caplog.text.count("a handler of events failed") < 3:
            await asyncio.sleep(0.001)
        handlers.close()

    asyncio.run(asyncio.wait_for(program(), 5.0))
    assert seen == ["x"] * 3


def test_push_to_a_client_that_is_gone_is_logged(
    pusher: Pusher, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    client.call("slow")  # without presence
    with caplog.at_level(logging.WARNING):
        pusher.push(b"x")
        eventually(lambda: "has no presence" in caplog.text, WAIT)


def test_worker_that_does_not_run_cannot_push(url: str) -> None:
    worker = Worker(url)
    with pytest.raises(LocalProtocolError, match="is not running"):
        worker.push(b"handle", b"x")
    with pytest.raises(LocalProtocolError, match="is not running"):
        worker.publish("a", b"x")


# ── topics ────────────────────────────────────────────────────────────────────────────────────────


def test_subscriber_receives_events_of_workers_and_clients(
    url: str, pusher: Pusher, client: Client
) -> None:
    with client.subscribe("prices.*") as prices, Client(url) as other:
        pusher.worker.publish("prices.eur", b"1.08", metadata={"source": "ecb"})
        event = prices.get(WAIT)
        assert (event.topic, event.body, event.metadata) == (
            "prices.eur",
            b"1.08",
            {"source": "ecb"},
        )
        other.publish("news", b"unheard")
        other.publish("prices.usd", ["1", "2"])
        event = prices.get(WAIT)
        assert (event.topic, event.frames) == ("prices.usd", [b"1", b"2"])


def test_event_reaches_each_receiver_whose_pattern_matches(client: Client) -> None:
    seen: list[str] = []
    with client.events() as all_, client.subscribe("a.*") as one, client.subscribe("*.b") as two:
        listening = client.subscribe("a.>", lambda event: seen.append(event.topic))
        for topic in ("a.b", "c.b", "a.c"):
            client.publish(topic, b"x")
        assert [all_.get(WAIT).topic for _ in range(3)] == ["a.b", "c.b", "a.c"]
        assert [one.get(WAIT).topic for _ in range(2)] == ["a.b", "a.c"]
        assert [two.get(WAIT).topic for _ in range(2)] == ["a.b", "c.b"]
        eventually(lambda: seen == ["a.b", "a.c"], WAIT)
        listening.close()


def test_last_receiver_of_a_pattern_unsubscribes(broker: Broker, client: Client) -> None:
    topics = broker._loop._machine.registry.topics  # type: ignore[union-attr]
    first, second = client.subscribe("a.*"), client.subscribe("a.*")
    assert len(topics) == 1
    first.close()
    client.ping()
    assert len(topics) == 1
    second.close()
    second.close()
    eventually(lambda: len(topics) == 0, WAIT)
    third = client.subscribe("b")
    client.unsubscribe("b")
    assert list(third) == []
    eventually(lambda: len(topics) == 0, WAIT)


def test_iterator_ends_with_its_client(url: str) -> None:
    with Client(url) as client:
        events = client.subscribe("a")
        heard: list[Event] = []
        reader = threading.Thread(target=lambda: heard.extend(events))
        reader.start()
        client.publish("a", b"x")
        eventually(lambda: heard, WAIT)
    reader.join(WAIT)
    assert not reader.is_alive()
    with pytest.raises(LocalProtocolError, match="no more events"):
        events.get()


def test_get_without_an_event_raises_timeout_error(client: Client) -> None:
    with client.subscribe("a") as events, pytest.raises(TimeoutError, match=r"0\.01 s"):
        events.get(0.01)


def test_refused_subscription_raises_and_leaves_nothing(broker: Broker, client: Client) -> None:
    machine = broker._loop._machine  # type: ignore[union-attr]
    machine.registry.rights = AccessRules([Rule(True, frozenset(("call",)))])
    with pytest.raises((Forbidden, Unauthenticated), match="subscribe 'secret'"):
        client.subscribe("secret")
    assert client._runner.calls.hub.of(b"secret") == []
    assert client._session.events.patterns == {}


def test_refused_publication_is_logged_or_raised(
    broker: Broker, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    client.publish("a", b"x", confirm=True)
    machine = broker._loop._machine  # type: ignore[union-attr]
    machine.registry.rights = AccessRules([Rule(True, frozenset(("call",)))])
    with pytest.raises(Unauthenticated, match="publish 'a'"):
        client.publish("a", b"x", confirm=True)
    assert caplog.text == ""
    client.publish("a", b"x")
    client.ping()
    assert "an event to a was refused: 401 authenticate first" in caplog.text


def test_each_of_several_threads_gets_the_refusal_of_its_own_publication(
    broker: Broker, client: Client
) -> None:
    machine = broker._loop._machine  # type: ignore[union-attr]
    machine.registry.rights = AccessRules([Rule(True, frozenset(("call",)))])
    refused: list[Exception] = []

    def publish() -> None:
        for _ in range(50):
            with pytest.raises(Unauthenticated) as caught:
                client.publish("a", b"x", confirm=True)
            refused.append(caught.value)

    threads = [threading.Thread(target=publish) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(refused) == 200
    assert client._runner.calls.hub._watched == {}


def test_publishing_without_a_broker_ends_at_its_deadline() -> None:
    with Client("tcp://127.0.0.1:1") as client, pytest.raises(DeadlineExceeded):
        client.publish("a", b"x", timeout=0.2)
    with Client("tcp://127.0.0.1:1") as client, pytest.raises(DeadlineExceeded):
        client.subscribe("a", timeout=0.2)


def test_invalid_names_and_handlers_are_refused_at_once(client: Client, url: str) -> None:
    with pytest.raises(LocalProtocolError, match="one topic"):
        client.publish("a.*", b"x")
    with pytest.raises(LocalProtocolError, match="last token"):
        client.subscribe("a.>.b")
    with pytest.raises(ConfigurationError, match="a handler is a function"):
        client.on_event("nothing")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="at least 1"):
        client.events(limit=0)
    worker = Worker(url)
    worker.subscribe("a", print)
    with pytest.raises(ConfigurationError, match="has a handler already"):
        worker.subscribe("a", print)
    with Client(url, dialect="mdp02") as old, pytest.raises(LocalProtocolError, match=r"MDP/0\.3"):
        old.subscribe("a")


def test_worker_receives_events_beside_its_services(url: str, client: Client) -> None:
    seen: list[tuple[str, str]] = []
    worker = Worker(url)

    @worker.service("echo")
    async def echo(request: Request) -> bytes:
        return request.body

    worker.subscribe("config.>", lambda event: seen.append((event.topic, event.text)))
    with worker:
        worker.wait_ready(WAIT)
        client.call("echo", b"x")
        client.publish("config.log.level", "debug")
        eventually(lambda: seen == [("config.log.level", "debug")], WAIT)
        worker.unsubscribe("config.>")


# ── bounds ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", [Subscription, AsyncSubscription])
def test_full_queue_drops_the_oldest_event_and_counts_it(
    kind: type[Subscription] | type[AsyncSubscription],
) -> None:
    hub = Hub()
    events = kind(b"", 3, lambda _: None)
    hub.add(events)
    for number in range(5):
        hub.put(EventReceived(b"a", [b"%d" % number], b""))
    assert events.dropped == 2
    assert [event.body for event in events._waiting] == [b"2", b"3", b"4"]


def test_handler_that_is_slow_loses_the_oldest_events(client: Client) -> None:
    begun, go_on, seen = threading.Event(), threading.Event(), []

    def handler(event: Event) -> None:
        begun.set()
        go_on.wait(WAIT)
        seen.append(event.text)

    client.subscribe("a", handler)
    client.publish("a", b"first")
    assert begun.wait(WAIT)
    for number in range(MOST_WAITING + 5):
        client._runner.calls.hub.put(EventReceived(b"a", [b"%d" % number], b""))
    go_on.set()
    eventually(lambda: len(seen) == 1 + MOST_WAITING, WAIT)
    assert seen[:2] == ["first", "5"]
    assert client._handlers.dropped == 5


def test_event_without_a_receiver_is_counted() -> None:
    hub = Hub()
    hub.put(EventReceived(b"a", [b"x"], b""))
    assert hub.unclaimed == 1


# ── on a loop ─────────────────────────────────────────────────────────────────────────────────────


@on_loop
async def test_asyncio_client_receives_pushes_and_topics(url: str, pusher: Pusher) -> None:
    async with AsyncClient(url) as client:
        events = client.events()
        await client.call("slow")
        pusher.push(b"pushed")
        assert (await events.get(WAIT)).body == b"pushed"
        prices = await client.subscribe("prices.*")
        pusher.worker.publish("prices.eur", b"1.08")
        await client.publish("prices.usd", b"1")
        heard = {(await prices.get(WAIT)).topic for _ in range(2)}
        assert heard == {"prices.eur", "prices.usd"}
        await prices.aclose()
        await events.aclose()


@on_loop
async def test_asyncio_handlers_are_functions_or_coroutine_functions(url: str) -> None:
    seen: list[str] = []

    async def slowly(event: Event) -> None:
        await asyncio.sleep(0)
        seen.append(f"a {event.text}")

    async with AsyncClient(url) as client:
        await client.subscribe("a", slowly)
        client.on_event(lambda event: seen.append(f"b {event.text}"))
        await client.publish("a", "1")
        async with asyncio.timeout(WAIT):
            while len(seen) < 2:
                await asyncio.sleep(0.005)
        await client.unsubscribe("a")
    assert sorted(seen) == ["a 1", "b 1"]


@on_loop
async def test_asyncio_iterator_ends_with_its_client(url: str) -> None:
    client = AsyncClient(url)
    events = await client.subscribe("a")

    async def read(events: AsyncIterator[Event]) -> list[str]:
        return [event.text async for event in events]

    reading = asyncio.create_task(read(events))
    await client.publish("a", "1")
    await client.publish("a", "2")
    await client.ping()
    await asyncio.sleep(0)
    await client.close()
    async with asyncio.timeout(WAIT):
        assert await reading == ["1", "2"]
    with pytest.raises(LocalProtocolError, match="no more events"):
        await events.get()


@on_loop
async def test_asyncio_worker_pushes_and_publishes_from_its_own_loop(url: str) -> None:
    worker = AsyncWorker(url)

    @worker.service("slow")
    async def slow(request: Request) -> str:
        worker.push(request.client, "pushed")
        worker.publish("news", "published")
        return "accepted"

    async with worker, AsyncClient(url) as client:
        await worker.wait_ready(WAIT)
        pushes, news = client.events(), await client.subscribe("news")
        assert (await client.call("slow")).text == "accepted"
        assert {(await pushes.get(WAIT)).text for _ in range(2)} == {"pushed", "published"}
        assert (await news.get(WAIT)).text == "published"


@on_loop
async def test_asyncio_refusal_raises(broker: Broker, url: str) -> None:
    broker._loop._machine.registry.rights = AccessRules([])  # type: ignore[union-attr]
    async with AsyncClient(url) as client:
        (await client.subscribe("a")).end(None)
        denied = AccessRules([Rule(False, frozenset(("subscribe",)))])
        broker._loop._machine.registry.rights = denied  # type: ignore[union-attr]
        with pytest.raises(Unauthenticated, match="subscribe 'b'"):
            await client.subscribe("b")


def test_client_keeps_its_handle_and_topics_through_a_reconnect(
    pusher: Pusher, client: Client
) -> None:
    """The connection breaks; the broker finds the session again."""
    with client.events() as events, client.subscribe("a") as topic:
        client.call("slow")
        client._runner.driver.post(client._runner.driver._connection.give_up)
        client.ping()
        pusher.push(b"x")
        assert events.get(WAIT).body == b"x"
        client.publish("a", b"y")
        assert topic.get(WAIT).body == b"y"


def test_program_of_the_events_page_prints_what_the_page_shows(tmp_path: Path) -> None:
    run_page(Path(__file__).parents[3] / "docs/events.md", tmp_path)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration])
def test_handler_that_raises_what_is_no_exception_is_called_again(
    pusher: Pusher, client: Client, kind: type[BaseException]
) -> None:
    seen: list[str] = []

    def handler(event: Event) -> None:
        seen.append(event.text)
        raise kind

    client.on_event(handler)
    client.call("slow")
    pusher.push(b"x", b"y")
    eventually(lambda: seen == ["x", "y"], WAIT)

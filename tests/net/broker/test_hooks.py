"""Hooks of a running broker: methods of a subclass, middleware and functions, plain and async."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from majordomus import (
    AsyncClient,
    Broker,
    BrokerSettings,
    Client,
    Discard,
    Forward,
    HandlerFailed,
    HookReply,
    HookRequest,
    Middleware,
    Redirect,
    Reject,
    Replace,
    Reply,
    SendTo,
    Unauthenticated,
    Unavailable,
    Worker,
)
from majordomus.core.broker.contract import WorkerInfo
from majordomus.errors import ConfigurationError, DeadlineExceeded, LocalProtocolError
from tests.net.conftest import QUICK, eventually

BIND = "tcp://127.0.0.1:0"


class BrokerHarness:
    """A broker with hooks, a worker with a few services, and clients."""

    def __init__(self) -> None:
        self.stack = ExitStack()
        self.url = ""

    def open(self, broker: Broker) -> Client:
        self.stack.enter_context(broker)
        self.url = broker.endpoints[0]
        worker = Worker(self.url)

        @worker.service("echo")
        def echo(request: Any) -> list[bytes]:
            return [b"echo", *request.frames]

        @worker.service("other")
        def other(request: Any) -> list[bytes]:
            return [b"other", *request.frames]

        @worker.service("user")
        def user(request: Any) -> str:
            return str(request.broker_metadata.get("user", "nobody"))

        @worker.service("parts")
        def parts(request: Any) -> Iterator[bytes]:
            yield b"1"
            yield b"2"

        self.stack.enter_context(worker)
        worker.wait_ready()
        return self.client()

    def client(self) -> Client:
        return self.stack.enter_context(Client(self.url, timeout=10))


@pytest.fixture
def harness() -> Iterator[BrokerHarness]:
    made = BrokerHarness()
    with made.stack:
        yield made


class Deciding(Broker):
    """Returns the action that the first frame names."""

    def on_request(self, request: HookRequest) -> Any:
        word = request.text
        if word == "redirect":
            return Redirect("other")
        if word == "reply":
            return Reply("from the broker")
        if word == "reject":
            return Reject(401, "who are you?")
        if word == "discard":
            return Discard()
        if word == "worker":
            worker = self.find_worker("echo")
            assert worker is not None
            return SendTo(worker.id)
        if word == "user":
            request.user = "ada"
        if word == "change":
            request.frames[0] = b"changed"
        if word == "raise":
            raise ValueError("broken")
        if word == "nonsense":
            return 42
        return None if word == "none" else Forward()


class DecidingLater(Deciding):
    """The same, from the thread of hooks."""

    async def on_request(self, request: HookRequest) -> Any:
        await asyncio.sleep(0)
        assert threading.current_thread().name == "majordomus-hooks"
        return super().on_request(request)


@pytest.mark.parametrize("kind", [Deciding, DecidingLater])
def test_every_action_of_a_subclass_is_carried_out(
    harness: BrokerHarness, kind: type[Broker]
) -> None:
    client = harness.open(kind(QUICK, bind=BIND))
    assert client.call("echo", "plain").frames == [b"echo", b"plain"]
    assert client.call("echo", "none").frames == [b"echo", b"none"]
    assert client.call("echo", "redirect").frames == [b"other", b"redirect"]
    assert client.call("echo", "reply").text == "from the broker"
    assert client.call("echo", "worker").frames == [b"echo", b"worker"]
    assert client.call("user", "user").text == "ada"
    assert client.call("user", "plain").text == "nobody"
    assert client.call("echo", "change").frames == [b"echo", b"changed"]
    with pytest.raises(Unauthenticated, match="who are you"):
        client.call("echo", "reject")
    with pytest.raises(DeadlineExceeded):
        client.call("echo", "discard", timeout=0.3)


@pytest.mark.parametrize("kind", [Deciding, DecidingLater])
def test_hook_that_raises_is_a_500_and_its_traceback_is_logged_once(
    harness: BrokerHarness, kind: type[Broker], caplog: pytest.LogCaptureFixture
) -> None:
    client = harness.open(kind(QUICK, bind=BIND))
    with caplog.at_level(logging.ERROR, "majordomus.broker"):
        for _ in range(3):
            with pytest.raises(HandlerFailed, match="a hook of the broker failed"):
                client.call("echo", "raise")
        with pytest.raises(HandlerFailed):
            client.call("echo", "nonsense")
    assert client.call("echo", "plain").frames == [b"echo", b"plain"]
    stories = [record for record in caplog.records if record.exc_info]
    assert [record.exc_info[0] for record in stories if record.exc_info] == [ValueError, TypeError]
    assert "returned 42, which is no action" in caplog.text
    assert "hook on_request failed 2 times by now: ValueError" in caplog.text


def test_broker_serves_other_requests_while_an_async_hook_waits(harness: BrokerHarness) -> None:
    released = threading.Event()

    class Slow(Broker):
        async def on_request(self, request: HookRequest) -> None:
            if request.text == "slow":
                await asyncio.to_thread(released.wait, 10)

    client = harness.open(Slow(QUICK, bind=BIND))
    slow = client.submit("echo", "slow")
    for _ in range(10):
        assert client.call("echo", "fast").frames[1] == b"fast"
    assert not slow.done()
    released.set()
    assert slow.result(10).frames[1] == b"slow"


def test_async_hook_calls_a_service_and_continues_with_its_reply(
    harness: BrokerHarness,
) -> None:
    class Asking(Broker):
        async def on_request(self, request: HookRequest) -> Any:
            if request.service != "echo":
                return None
            answer = await self.call("other", ["asked", request.body])
            with pytest.raises(Unavailable):
                await self.call("nowhere", timeout=0.05)
            return Reply(answer)

    client = harness.open(Asking(QUICK, bind=BIND))
    assert client.call("echo", "x").frames == [b"other", b"asked", b"x"]


def test_hook_that_takes_too_long_is_a_500_and_is_cancelled(harness: BrokerHarness) -> None:
    cancelled = threading.Event()

    class Endless(Broker):
        async def on_request(self, request: HookRequest) -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.set()
                raise

    client = harness.open(Endless(BrokerSettings(hook_timeout=0.1), bind=BIND))
    with pytest.raises(HandlerFailed, match=r"did not decide within 0\.1 s"):
        client.call("echo")
    assert cancelled.wait(10)


def test_broker_that_stops_cancels_its_hooks_and_leaves_no_thread(harness: BrokerHarness) -> None:
    begun, ended = threading.Event(), threading.Event()

    class Endless(Broker):
        async def on_request(self, request: HookRequest) -> None:
            begun.set()
            try:
                await self.call("nobody", timeout=60)
            finally:
                ended.set()

    broker = Endless(BrokerSettings(drain_timeout=0.1, hook_timeout=60), bind=BIND)
    client = harness.open(broker)
    client.submit("echo")
    assert begun.wait(10)
    broker.stop()
    assert ended.is_set()
    assert "majordomus-hooks" not in [thread.name for thread in threading.enumerate()]
    client.close()


class Noting(Middleware):
    """Records its calls under its name."""

    def __init__(self, name: str, notes: list[str], **actions: Any) -> None:
        self.name, self.notes, self.actions = name, notes, actions

    def _note(self, what: str) -> Any:
        self.notes.append(f"{self.name} {what}")
        return self.actions.get(what)

    def on_request(self, request: HookRequest) -> Any:
        return self._note("request")

    def on_reply(self, reply: HookReply) -> Any:
        return self._note("reply")


class NotingLater(Noting):
    """The same, async."""

    async def on_request(self, request: HookRequest) -> Any:
        return self._note("request")

    async def on_reply(self, reply: HookReply) -> Any:
        return self._note("reply")


@pytest.mark.parametrize("second", [Noting, NotingLater])
def test_middleware_is_called_in_order_and_for_replies_in_reverse(
    harness: BrokerHarness, second: type[Noting]
) -> None:
    notes: list[str] = []
    chain = [Noting("a", notes), second("b", notes), Noting("c", notes)]

    class Last(Broker):
        def on_request(self, request: HookRequest) -> None:
            notes.append("broker request")

    client = harness.open(Last(QUICK, bind=BIND, middleware=chain))
    client.call("echo", "x")
    requests = ["a request", "b request", "c request", "broker request"]
    assert notes == [*requests, "c reply", "b reply", "a reply"]
    assert all(one.broker.endpoints == [harness.url] for one in chain)


@pytest.mark.parametrize("kind", [Noting, NotingLater])
def test_first_hook_that_does_not_forward_decides(
    harness: BrokerHarness, kind: type[Noting]
) -> None:
    notes: list[str] = []
    chain = [Noting("a", notes), kind("b", notes, request=Reject(403, "b")), Noting("c", notes)]
    client = harness.open(Broker(QUICK, bind=BIND, middleware=chain))
    with pytest.raises(Exception, match="403 b"):
        client.call("echo", "x")
    assert notes == ["a request", "b request"]


@pytest.mark.parametrize("kind", [Noting, NotingLater])
def test_replaced_reply_is_passed_to_earlier_hooks(
    harness: BrokerHarness, kind: type[Noting]
) -> None:
    seen: list[str] = []
    broker = Broker(QUICK, bind=BIND, middleware=[kind("b", [], reply=Replace("else"))])
    broker.hooks.insert(0, type("First", (), {"on_reply": lambda _, r: seen.append(r.text)})())
    client = harness.open(broker)
    assert client.call("echo", "x").text == "else"
    assert seen == ["else"]


class Speaking(Broker):
    """Pushes and publishes as the request asks."""

    def on_request(self, request: HookRequest) -> Any:
        if request.service == "push":
            self.push(bytes(request.frames[0]), request.frames[1:])
        elif request.service == "publish":
            self.publish("news.today", request.frames)
        else:
            return Reply(request.client)
        return Reply("said")


class SpeakingLater(Speaking):
    """The same, from the thread of hooks."""

    async def on_request(self, request: HookRequest) -> Any:
        await asyncio.sleep(0)
        return super().on_request(request)


@pytest.mark.parametrize("kind", [Speaking, SpeakingLater])
def test_hook_pushes_to_any_client_and_publishes(
    harness: BrokerHarness, kind: type[Broker]
) -> None:
    asker = harness.open(kind(QUICK, bind=BIND))
    hearer = harness.client()
    with hearer.events() as events:
        handle = hearer.call("who").body
        assert asker.call("push", [handle, b"for", b"you"]).text == "said"
        event = events.get(10)
        assert (event.topic, event.frames) == ("", [b"for", b"you"])
    with hearer.subscribe("news.*") as news:
        assert asker.call("publish", ["it", "rains"]).text == "said"
        event = news.get(10)
        assert (event.topic, event.frames) == ("news.today", [b"it", b"rains"])


def test_functions_can_be_added_to_a_broker_also_while_it_runs(harness: BrokerHarness) -> None:
    broker = Broker(QUICK, bind=BIND)

    @broker.hook
    def on_reply(reply: HookReply) -> Any:
        return Replace(reply.text + "!")

    client = harness.open(broker)
    assert client.call("other", "x").text == "otherx!"
    broker.hook(lambda request: Redirect("other"), "on_request")
    eventually(lambda: client.call("echo", "x").text == "otherx!", 10)
    with pytest.raises(ConfigurationError, match="there is no hook 'on_nothing'"):
        broker.hook(print, "on_nothing")


def test_functions_are_added_to_what_a_broker_has_adopted(harness: BrokerHarness) -> None:
    broker, new = Broker(QUICK, bind=BIND), Broker(QUICK, bind=BIND)
    broker.hook(lambda request: Reply("old"), "on_request")
    client = harness.open(broker)
    new.hook(lambda request: Redirect("other"), "on_request")
    adopted = threading.Event()
    broker.adopt(new, lambda left: adopted.set())
    assert adopted.wait(10)
    assert client.call("echo", "x").frames == [b"other", b"x"]
    for one, text in ((broker, "first"), (new, "second")):
        one.hook(lambda reply, text=text: Replace([text, *reply.frames]), "on_reply")
    eventually(lambda: client.call("echo", "x").frames == [b"first", b"second", b"other", b"x"], 10)


def test_parts_pass_a_hook_that_cannot_be_async(harness: BrokerHarness) -> None:
    class Parts(Broker):
        def on_part(self, part: HookReply) -> Any:
            return Replace(part.text * 2)

    class Async(Broker):
        async def on_part(self, part: HookReply) -> Any: ...

    client = harness.open(Parts(QUICK, bind=BIND))
    with client.stream("parts") as stream:
        assert [part.text for part in stream] == ["11", "22"]
    with pytest.raises(ConfigurationError, match="on_part cannot be async"):
        Async(QUICK, bind=BIND).open()


@pytest.mark.parametrize("later", [False, True])
def test_hooks_are_called_for_new_and_lost_clients_and_workers(
    harness: BrokerHarness, later: bool
) -> None:
    told: list[tuple[Any, ...]] = []

    class Told(Broker):
        def on_worker_ready(self, worker: WorkerInfo) -> None:
            told.append(("ready", sorted(worker.services)))

        def on_worker_lost(self, worker: WorkerInfo, why: str) -> None:
            told.append(("lost", sorted(worker.services), why))

        def on_client_seen(self, client: Any) -> Any:
            client.user = "ada"
            told.append(("seen", client.present))

        def on_client_lost(self, client: Any) -> None:
            told.append(("gone", client.user))

        def on_request_ended(self, outcome: Any) -> None:
            told.append((outcome.service, outcome.outcome, outcome.status, outcome.user))

    class ToldLater(Told):
        async def on_worker_ready(self, worker: WorkerInfo) -> None:
            super().on_worker_ready(worker)

        async def on_client_seen(self, client: Any) -> Any:
            return super().on_client_seen(client)

        async def on_request_ended(self, outcome: Any) -> None:
            super().on_request_ended(outcome)

    client = harness.open((ToldLater if later else Told)(QUICK, bind=BIND))
    assert client.call("user").text == "ada"
    worker = Worker(harness.url)
    worker.service("brief")(lambda request: None)
    with worker:
        worker.wait_ready()
    client.close()
    wanted = {
        ("seen", False),
        ("user", "answered", 200, "ada"),
        ("gone", "ada"),
        ("lost", ("brief",), "left"),
    }
    eventually(lambda: {tuple(map(_frozen, one)) for one in told} >= wanted, 10)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def test_call_and_send_come_from_any_event_loop_and_thread(harness: BrokerHarness) -> None:
    got: queue.Queue[str] = queue.Queue()
    broker = Broker(QUICK, bind=BIND)
    with pytest.raises(LocalProtocolError, match="not open"):
        broker.send("echo")
    harness.open(broker)
    worker = Worker(harness.url)
    worker.service("sink")(lambda request: got.put(request.text))
    with worker:
        worker.wait_ready()
        broker.send("sink", "x")
        assert got.get(timeout=10) == "x"
        assert asyncio.run(broker.call("echo", ["a", "b"])).frames == [b"echo", b"a", b"b"]


def test_call_that_is_cancelled_is_withdrawn(harness: BrokerHarness) -> None:
    broker = Broker(QUICK, bind=BIND)
    harness.open(broker)

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(broker.call("nobody"), 0.05)

    asyncio.run(give_up())
    asyncio.run(broker.call("echo"))
    counts = broker._loop._machine.registry.counts  # type: ignore[union-attr]
    assert counts.cancelled == 1


def test_asyncio_client_gets_through_the_hooks_as_well() -> None:
    async def program() -> str:
        broker = Deciding(QUICK, bind=BIND)
        async with broker, AsyncClient(broker.endpoints[0]) as client:
            return (await client.call("echo", "reply")).text

    assert asyncio.run(program()) == "from the broker"

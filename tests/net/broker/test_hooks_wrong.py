"""Hooks that return or set invalid values: a 500 at once, and the broker continues."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from majordomus import Broker, Client, Redirect, Reject, Replace, Reply, SendTo, Worker
from majordomus.core.broker.hooks import actions
from majordomus.errors import HandlerFailed

Hook = Callable[[Any], Any]


class Switched(Broker):
    """A broker whose hooks a test case replaces."""

    hooks_now: dict[str, Hook]

    def on_request(self, request: Any) -> Any:
        return self.hooks_now.get("on_request", lambda _: None)(request)

    def on_reply(self, reply: Any) -> Any:
        return self.hooks_now.get("on_reply", lambda _: None)(reply)

    def on_client_seen(self, client: Any) -> Any:
        return self.hooks_now.get("on_client_seen", lambda _: None)(client)

    def on_request_ended(self, outcome: Any) -> Any:
        return self.hooks_now.get("on_request_ended", lambda _: None)(outcome)


@pytest.fixture(scope="module")
def broker() -> Iterator[Switched]:
    made = Switched(bind="tcp://127.0.0.1:0")
    made.hooks_now = {}
    with made:
        worker = Worker(made.endpoints[0])
        worker.add("echo", lambda request: request.frames)
        with worker:
            worker.wait_ready()
            yield made


def setting(name: str, value: object) -> Hook:
    return lambda view: setattr(view, name, value)


WRONG: dict[str, tuple[str, Hook]] = {
    "a text that is none": ("on_request", lambda _: Reject(401, None)),  # type: ignore[arg-type]
    "a text that is no UTF-8": ("on_request", lambda _: Reject(401, "\udc80")),
    "half a status": ("on_request", lambda _: Reject(401.5)),  # type: ignore[arg-type]
    "a status beyond its field": ("on_request", lambda _: Reply(b"", 70000)),
    "no status": ("on_request", lambda _: Reply(b"", 0)),
    "a status in words": ("on_request", lambda _: Reply(b"", "200")),  # type: ignore[arg-type]
    "frames that are none": ("on_request", lambda _: Reply([object()])),
    "no frames at all": ("on_request", lambda _: actions.ReplyAction(None)),  # type: ignore[arg-type]
    "a worker by a number": ("on_request", lambda _: SendTo(10**15)),  # type: ignore[arg-type]
    "a worker by its name": ("on_request", lambda _: SendTo("worker")),  # type: ignore[arg-type]
    "a service by bytes": ("on_request", lambda _: Redirect(b"echo")),  # type: ignore[arg-type]
    "a user that is a number": ("on_request", setting("user", 5)),
    "a user that is no UTF-8": ("on_request", setting("user", "\udc80")),
    "no groups": ("on_request", setting("groups", None)),
    "groups that are letters": ("on_request", setting("groups", "admin")),
    "an answer's status": ("on_reply", setting("status", 70000)),
    "an answer without one": ("on_reply", setting("status", 0)),
    "an answer's body": ("on_reply", lambda _: Replace(object())),
    "an answer's text": ("on_reply", lambda _: Reject(500, b"x")),  # type: ignore[arg-type]
    "a client without end": ("on_client_seen", setting("until", "tomorrow")),
    "a client's groups": ("on_client_seen", setting("groups", None)),
}


class Text(str):
    __slots__ = ()


class Hostile:
    def __getattribute__(self, name: str) -> Any:
        raise KeyboardInterrupt

    def __eq__(self, other: object) -> bool:
        raise SystemExit

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("make", [lambda: Text("x"), Hostile], ids=["subclass", "hostile"])
def test_metadata_that_a_hook_sets_and_that_cannot_be_packed_is_a_500(
    broker: Switched, make: Callable[[], object]
) -> None:
    def set_metadata(view: Any) -> None:
        view.metadata["x"] = make()

    with Client(broker.endpoints[0], timeout=20) as client:
        broker.hooks_now = {"on_request": set_metadata}
        with pytest.raises(HandlerFailed, match="metadata that cannot be sent"):
            client.call("echo", b"1")
        broker.hooks_now = {}
        assert client.call("echo", b"2").body == b"2"


@pytest.mark.parametrize("name", WRONG)
def test_impossible_action_is_a_500_and_the_next_request_is_served(
    broker: Switched, name: str
) -> None:
    hook, function = WRONG[name]
    with Client(broker.endpoints[0], timeout=20) as client:
        broker.hooks_now = {hook: function}
        with pytest.raises(HandlerFailed) as caught:
            client.call("echo", b"1")
        assert "hook" in str(caught.value)
        broker.hooks_now = {}
        assert client.call("echo", b"2").body == b"2"


def test_text_in_the_frames_of_a_reply_is_sent_as_utf8(broker: Switched) -> None:
    broker.hooks_now = {"on_request": lambda _: Reply(["ä"])}  # type: ignore[list-item]
    with Client(broker.endpoints[0], timeout=20) as client:
        assert client.call("echo").text == "ä"
    broker.hooks_now = {}


class NamelessMeta(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise RuntimeError("no name")


class NamelessError(Exception, metaclass=NamelessMeta):
    pass


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


RAISED: dict[str, Callable[[], BaseException]] = {
    "SystemExit": lambda: SystemExit(2),
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "StopIteration": StopIteration,
    "CancelledError": asyncio.CancelledError,
    "an exception without a text": MuteError,
    "an exception without a name": NamelessError,
}


def raising(error: Callable[[], BaseException]) -> Hook:
    def hook(_: object) -> None:
        raise error()

    return hook


@pytest.mark.parametrize("name", RAISED)
@pytest.mark.parametrize("hook", ["on_request", "on_reply", "on_client_seen", "on_request_ended"])
def test_hook_that_raises_anything_costs_its_own_request_alone(
    broker: Switched, hook: str, name: str
) -> None:
    with Client(broker.endpoints[0], timeout=20) as client:
        broker.hooks_now = {hook: raising(RAISED[name])}
        if hook == "on_request_ended":
            assert client.call("echo", b"1").body == b"1"
        else:
            with pytest.raises(HandlerFailed, match="hook"):
                client.call("echo", b"1")
        broker.hooks_now = {}
        assert client.call("echo", b"2").body == b"2"


class Awaiting(Broker):
    """A broker with an `async def` hook that a test replaces."""

    hook_now: Callable[[Any], Any] | None = None

    async def on_request(self, request: Any) -> Any:
        if self.hook_now is not None:
            return await self.hook_now(request)
        return None


def exit_in_callback() -> None:
    raise SystemExit(3)


async def exit_in_task() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", [*RAISED, "SystemExit of a callback", "a task that raises"])
def test_async_hook_that_raises_anything_costs_its_own_request_alone(name: str) -> None:
    async def raises(_: object) -> None:
        await asyncio.sleep(0)
        if name == "SystemExit of a callback":
            asyncio.get_running_loop().call_soon(exit_in_callback)
            await asyncio.sleep(0.01)
        elif name == "a task that raises":
            asyncio.get_running_loop().create_task(exit_in_task())
            await asyncio.sleep(0.01)
        else:
            raise RAISED[name]()

    async def serves(_: object) -> None:
        await asyncio.sleep(0)

    with Awaiting(bind="tcp://127.0.0.1:0") as broker, Client(broker.endpoints[0]) as client:
        broker.hook_now = raises
        if name in RAISED:
            with pytest.raises(HandlerFailed, match="hook"):
                client.call("mmi.service", b"x", timeout=20)
        else:
            client.call("mmi.service", b"x", timeout=20)
        broker.hook_now = serves
        assert client.call("mmi.service", b"x", timeout=20).body == b"404"

"""The methods that a program overrides to decide about what passes its broker, and their chain.

Nothing here decides: core/broker/hooks/holding.py does what an action says. Plain hooks run in
the broker's own thread, `async def` ones on the thread of hooks.
"""

from __future__ import annotations

import inspect
import logging
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from majordomus.core.broker.hooks import actions
from majordomus.core.broker.hooks.actions import FORWARD, Action
from majordomus.core.broker.hooks.views import (
    ClientInfo,
    HookReply,
    HookRequest,
    Outcome,
    check_status,
)
from majordomus.errors import ConfigurationError
from majordomus.net.bodies import to_frames
from majordomus.protocol import spec

if TYPE_CHECKING:
    from majordomus.core.broker.machine import BrokerMachine
    from majordomus.net.broker.hook_thread import HookThread
    from majordomus.net.broker.program import Programmable

Result: TypeAlias = Action | Awaitable[Action | None] | None
Told: TypeAlias = Awaitable[None] | None
Post: TypeAlias = Callable[[Callable[["BrokerMachine", float], None]], None]

FAILED: Final = actions.Reject(spec.HANDLER_FAILED, "a hook of the broker failed")

logger = logging.getLogger("majordomus.broker")


class WorkerInfo(NamedTuple):
    """A worker as it was a moment ago. ``load`` is None while nobody knows it."""

    id: bytes
    services: tuple[str, ...]
    dialect: str = ""
    capacity: int = 0
    held: int = 0
    load: float | None = None
    user: str = ""


class HookPoints:
    """What a subclass of `Broker`, or a middleware, may override. Each may be `def` or `async def`,
    but `on_part`, which keeps the order of parts and so cannot wait.

    A method that is not overridden is never called, and costs nothing.
    """

    def on_request(self, request: HookRequest) -> Result:
        """When a request has passed the limits, and before anything else is decided about it:
        Forward, Discard, SendTo, Redirect, Reply or Reject."""

    def on_reply(self, reply: HookReply) -> Result:
        """When a worker has answered: Forward, Discard, SendTo, Replace, Reply or Reject."""

    def on_part(self, part: HookReply) -> Action | None:
        """When a worker has sent a part of an answer: Forward, Discard or Replace."""

    def on_client_seen(self, client: ClientInfo) -> Result:
        """At the first request of a client, and whenever it says HELLO: Forward or Reject.

        Who is rejected with a status below 500 gets it for all its requests, until it says HELLO
        again.
        """

    def on_client_lost(self, client: ClientInfo) -> Told:
        """When a client that was seen is gone or forgotten."""

    def on_worker_ready(self, worker: WorkerInfo) -> Told:
        """When a worker has registered a service."""

    def on_worker_lost(self, worker: WorkerInfo, why: str) -> Told:
        """When a worker has left, or was lost."""

    def on_request_ended(self, outcome: Outcome) -> Told:
        """When a request has ended, in whatever way."""


class Middleware(HookPoints):
    """A hook for any broker. ``broker`` is the one that uses it, once that is open."""

    broker: Programmable

    def attach(self, broker: Programmable) -> None:
        """Told once, before the first message."""
        self.broker = broker


NAMES: Final = tuple(name for name in vars(HookPoints) if name.startswith("on_"))


class ChainLink(NamedTuple):
    """One method of one hook."""

    name: str
    function: Callable[..., Any]
    waits: bool


def links_of(hook: object, name: str) -> list[ChainLink]:
    """The method `name` of `hook`, if it has one of its own."""
    method = getattr(hook, name, None)
    if method is None or getattr(method, "__func__", None) is getattr(HookPoints, name):
        return []
    if not callable(method):
        raise ConfigurationError(f"{name} of {type(hook).__name__} is no function")
    target = method if inspect.isroutine(method) else getattr(method, "__call__", method)  # noqa: B004
    waits = inspect.iscoroutinefunction(target)
    if waits and name == "on_part":
        raise ConfigurationError("on_part cannot be async: the order of parts would be lost")
    return [ChainLink(name, method, waits)]


def check_hooks(hooks: Sequence[object]) -> None:
    """Raises: ConfigurationError for what cannot be a hook."""
    for hook in hooks:
        for name in NAMES:
            links_of(hook, name)


class Functions:
    """Single functions that act as hooks, under the name of the method that each stands for."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        if name not in NAMES:
            known = ", ".join(NAMES)
            raise ConfigurationError(f"there is no hook {name!r}; there is: {known}")
        setattr(self, name, function)


class Faults:
    """Logs what hooks raise: with its story once per kind, and later how often it has been."""

    def __init__(self) -> None:
        self._seen: Counter[tuple[str, str, int]] = Counter()

    def note(self, name: str, error: BaseException) -> None:
        frame = (traceback.extract_tb(error.__traceback__) or [None])[-1]
        kind = (name, type(error).__name__, (frame.lineno or 0) if frame else 0)
        self._seen[kind] += 1
        times = self._seen[kind]
        if times == 1:
            logger.error("hook %s failed; its request gets 500", name, exc_info=error)
        elif times & (times - 1) == 0:
            logger.error("hook %s failed %d times by now: %s", name, times, type(error).__name__)

    def wrong(self, name: str, found: object) -> None:
        """A hook returned what is no action."""
        self.note(name, TypeError(f"{name} returned {found!r:.100}, which is no action"))


class HookChain:
    """The hooks of one broker, as its machine asks them: one after the other until one decides;
    replies in reverse order."""

    def __init__(
        self, hooks: Sequence[object], post: Post, thread: HookThread, faults: Faults
    ) -> None:
        self._post, self._thread, self._faults = post, thread, faults
        self._links = {name: [link for h in hooks for link in links_of(h, name)] for name in NAMES}
        for name in ("on_reply", "on_part"):
            self._links[name].reverse()
        self._lost: dict[bytes, WorkerInfo] = {}
        self.has_on_request = bool(self._links["on_request"])
        self.has_on_reply = bool(self._links["on_reply"])
        self.has_on_part = bool(self._links["on_part"])
        self.has_on_client = bool(self._links["on_client_seen"] or self._links["on_client_lost"])
        self.has_on_end = bool(self._links["on_request_ended"])
        self.observes = bool(self._links["on_worker_ready"] or self._links["on_worker_lost"])
        self.may_wait = any(
            link.waits
            for name in ("on_request", "on_reply", "on_client_seen")
            for link in self._links[name]
        )

    @property
    def empty(self) -> bool:
        """Whether nobody has to be asked or told anything."""
        return not any(self._links.values())

    # ── questions of the machine ──────────────────────────────────────────────────────────────────

    def on_request(self, number: int, request: HookRequest) -> Action | None:
        return self._ask(number, self._links["on_request"], 0, request)

    def on_reply(self, number: int, reply: HookReply) -> Action | None:
        return self._ask(number, self._links["on_reply"], 0, reply)

    def on_client(self, number: int, client: ClientInfo) -> Action | None:
        return self._ask(number, self._links["on_client_seen"], 0, client)

    def on_part(self, part: HookReply) -> Action:
        return self._ask(0, self._links["on_part"], 0, part) or FORWARD

    def on_end(self, outcome: Outcome) -> None:
        self._tell("on_request_ended", outcome)

    def client_lost(self, client: ClientInfo, why: str) -> None:
        self._tell("on_client_lost", client)

    def abandon(self, number: int) -> None:
        self._thread.cancel(number)

    def _ask(self, number: int, links: list[ChainLink], at: int, view: Any) -> Action | None:
        """Ask the links from `at` on; None when one of them will answer later."""
        for index in range(at, len(links)):
            link = links[index]
            if link.waits:
                self._later(number, links, index, view)
                return None
            try:
                result = link.function(view)
            except Exception as error:
                self._faults.note(link.name, error)
                return FAILED
            action = self._action(link, view, result)
            if action is not FORWARD:
                return action
        return FORWARD

    def _later(self, number: int, links: list[ChainLink], index: int, view: Any) -> None:
        def done(result: object, error: Exception | None) -> None:
            self._heard(number, links, index, view, result, error)

        self._thread.run(number, links[index].function(view), done)

    def _heard(
        self,
        number: int,
        links: list[ChainLink],
        index: int,
        view: Any,
        result: object,
        error: Exception | None,
    ) -> None:
        """On the thread of hooks: back to the broker's own with what came out."""

        def go_on(machine: BrokerMachine, now: float) -> None:
            link = links[index]
            if error is not None:
                self._faults.note(link.name, error)
                machine.resume(number, FAILED, now)
                return
            if machine.hooks is None or number not in machine.hooks.pending.open:
                return  # its request has ended: nobody else is asked
            action: Action | None = self._action(link, view, result)
            if action is FORWARD:
                action = self._ask(number, links, index + 1, view)
            if action is not None:
                machine.resume(number, action, now)

        self._post(go_on)

    def _action(self, link: ChainLink, view: Any, result: object) -> Action:
        """What `result` means: FORWARD itself, or an action that decides, and that can be done."""
        try:
            view.check()
            if result is None or isinstance(result, actions.Forward):
                return FORWARD
            if isinstance(result, actions.Replace):
                view.frames = to_frames(result.body)
                return FORWARD
            if isinstance(result, Action):
                return _sound(result)
        except Exception as error:
            self._faults.note(link.name, error)
            return FAILED
        if inspect.iscoroutine(result):
            result.close()
        self._faults.wrong(link.name, result)
        return FAILED

    # ── what is only told ─────────────────────────────────────────────────────────────────────────

    def _tell(self, name: str, *args: object) -> None:
        for link in self._links[name]:
            try:
                told = link.function(*args)
            except Exception as error:
                self._faults.note(name, error)
                continue
            if link.waits:
                self._thread.run(0, told, partial(self._told, name))

    def _told(self, name: str, _: object, error: Exception | None) -> None:
        if error is not None:
            self._faults.note(name, error)

    def fact(self, machine: BrokerMachine, name: str, data: dict[str, Any]) -> None:
        """A fact of the machine, if it is one that hooks are told."""
        if name == "worker-ready":
            info = worker_info(machine, data["worker"])
            if info is not None:
                self._lost[info.id] = info
                self._tell("on_worker_ready", info)
        elif name == "worker-lost":
            id = data["worker"]
            services = tuple(service.decode() for service in data["services"])
            info = self._lost.pop(id, WorkerInfo(id, services))
            self._tell("on_worker_lost", info._replace(services=services), data["why"])


def _sound(action: Action) -> Action:
    """`action` as the machine takes it. Raises: TypeError, ValueError for what nobody can do."""
    if isinstance(action, actions.SendTo):
        peer = getattr(action.peer, "id", None) or getattr(action.peer, "client", None)
        peer = peer or action.peer
        if not isinstance(peer, bytes | bytearray | memoryview):
            raise TypeError(f"SendTo wants the id of a worker or a client's handle, not {peer!r}")
        return actions.SendTo(bytes(peer))
    if isinstance(action, actions.Redirect):
        action.service.encode()
    elif isinstance(action, actions.Reject):
        check_status(action.status)
        action.text.encode()
    elif isinstance(action, actions.ReplyAction):
        check_status(action.status)
        return actions.ReplyAction(to_frames(list(action.frames)), action.status)
    return action


def worker_info(machine: BrokerMachine, id: bytes) -> WorkerInfo | None:
    """What is known of a worker."""
    worker = machine.registry.workers.get(id)
    if worker is None:
        return None
    return WorkerInfo(
        worker.id,
        tuple(service.name.decode() for service in list(worker.order)),
        worker.dialect.value,
        worker.capacity,
        worker.holding,
        worker.load,
        worker.peer.user,
    )


def best_worker(machine: BrokerMachine, name: str) -> WorkerInfo | None:
    """The worker of a service that has most room. Reading is safe from any thread."""
    service = machine.registry.services.get(name.encode())
    workers: Iterable[Any] = list(service.workers.values()) if service is not None else ()
    serving = [worker for worker in workers if worker.free]
    best = min(serving, key=lambda worker: worker.holding / worker.capacity, default=None)
    return worker_info(machine, best.id) if best is not None else None

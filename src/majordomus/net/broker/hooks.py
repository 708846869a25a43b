"""The hook methods that a program can override, and the chain that calls them.

The chain returns actions; core/broker/hooks/holding.py carries them out. Plain hooks run in the
broker's thread, `async def` hooks in the thread of `hook_thread`. Whatever a hook raises, also
SystemExit and KeyboardInterrupt, is a fault of that hook alone: it costs one request.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from majordomus.core.broker.contract import Machine, WorkerInfo
from majordomus.core.broker.hooks import actions
from majordomus.core.broker.hooks.actions import FORWARD, Action
from majordomus.core.broker.hooks.views import (
    ClientInfo,
    HookReply,
    HookRequest,
    Outcome,
    check_status,
)
from majordomus.errors import ConfigurationError, class_name
from majordomus.net.bodies import to_frames
from majordomus.protocol import spec
from majordomus.protocol.metadata import packed_metadata

if TYPE_CHECKING:
    from majordomus.net.broker.hook_thread import HookThread
    from majordomus.net.broker.program import Programmable

Result: TypeAlias = Action | Awaitable[Action | None] | None
Notified: TypeAlias = Awaitable[None] | None
Post: TypeAlias = Callable[[Callable[[Machine, float], None]], None]

FAILED: Final = actions.Reject(spec.HANDLER_FAILED, "a hook of the broker failed")

logger = logging.getLogger("majordomus.broker")


class HookPoints:
    """The methods that a subclass of `Broker`, or a middleware, can override. Each may be `def` or
    `async def`, except `on_part`, which must keep the order of parts.

    A method that is not overridden is never called.
    """

    def on_request(self, request: HookRequest) -> Result:
        """Called when a request has passed the limits, before anything else is decided about it.

        Returns Forward, Discard, SendTo, Redirect, Reply or Reject.
        """

    def on_reply(self, reply: HookReply) -> Result:
        """Called when a worker has answered.

        Returns Forward, Discard, SendTo, Replace, Reply or Reject.
        """

    def on_part(self, part: HookReply) -> Action | None:
        """Called when a worker has sent a part. Returns Forward, Discard or Replace."""

    def on_client_seen(self, client: ClientInfo) -> Result:
        """Called at the first request of a client, and at each HELLO. Returns Forward or Reject.

        After a Reject with a status below 500 all requests of that client are rejected until its
        next HELLO.
        """

    def on_client_lost(self, client: ClientInfo) -> Notified:
        """Called when a client that `on_client_seen` was called for is gone or forgotten."""

    def on_worker_ready(self, worker: WorkerInfo) -> Notified:
        """Called when a worker has registered a service."""

    def on_worker_lost(self, worker: WorkerInfo, why: str) -> Notified:
        """Called when a worker has left or was lost."""

    def on_request_ended(self, outcome: Outcome) -> Notified:
        """Called when a request has ended, with any outcome."""


class Middleware(HookPoints):
    """Hooks for any broker. ``broker`` is the one that uses them, once that is open."""

    broker: Programmable

    def attach(self, broker: Programmable) -> None:
        """Called once, before the first message."""
        self.broker = broker


NAMES: Final = tuple(name for name in vars(HookPoints) if name.startswith("on_"))


class ChainLink(NamedTuple):
    """One method of one hook. ``waits``: it is `async def`."""

    name: str
    function: Callable[..., Any]
    waits: bool


def links_of(hook: object, name: str) -> list[ChainLink]:
    """Return the method `name` of `hook` as a list of one; an empty list if it is not overridden.

    Raises: ConfigurationError.
    """
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
    """Raise ConfigurationError for an object that cannot be a hook."""
    for hook in hooks:
        for name in NAMES:
            links_of(hook, name)


class Functions:
    """A single function as a hook, under the name of the method that it replaces."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        if name not in NAMES:
            known = ", ".join(NAMES)
            raise ConfigurationError(f"there is no hook {name!r}; there is: {known}")
        setattr(self, name, function)


class Faults:
    """Logs exceptions of hooks: with the traceback once per kind, later only the count, at powers
    of two."""

    def __init__(self) -> None:
        self._seen: Counter[tuple[str, str, int]] = Counter()

    def note(self, name: str, error: BaseException) -> None:
        line = 0
        with contextlib.suppress(BaseException):  # attributes of the exception may be overridden
            line = traceback.extract_tb(error.__traceback__)[-1].lineno or 0
        kind = (name, class_name(error), line)
        self._seen[kind] += 1
        times = self._seen[kind]
        if times == 1:
            with contextlib.suppress(BaseException):  # formatting runs methods of the exception
                logger.error("hook %s failed; its request gets 500", name, exc_info=error)
        elif times & (times - 1) == 0:
            logger.error("hook %s failed %d times by now: %s", name, times, kind[1])

    def wrong(self, name: str, found: object) -> None:
        """Log a hook whose result is not an action."""
        try:
            shown = f"{found!r:.100}"
        except BaseException:
            shown = f"a {class_name(found)}"
        self.note(name, TypeError(f"{name} returned {shown}, which is no action"))


class HookChain:
    """The hooks of one broker as one object: called in order until one decides; for replies and
    parts in reverse order. Implements `core.broker.hooks.holding.Hooks`."""

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
        """Whether the chain has no hook at all."""
        return not any(self._links.values())

    # ── called by the machine ─────────────────────────────────────────────────────────────────────

    def on_request(self, number: int, request: HookRequest) -> Action | None:
        return self._ask(number, self._links["on_request"], 0, request)

    def on_reply(self, number: int, reply: HookReply) -> Action | None:
        return self._ask(number, self._links["on_reply"], 0, reply)

    def on_client(self, number: int, client: ClientInfo) -> Action | None:
        return self._ask(number, self._links["on_client_seen"], 0, client)

    def on_part(self, part: HookReply) -> Action:
        return self._ask(0, self._links["on_part"], 0, part) or FORWARD

    def on_end(self, outcome: Outcome) -> None:
        self._notify("on_request_ended", outcome)

    def client_lost(self, client: ClientInfo, why: str) -> None:
        self._notify("on_client_lost", client)

    def abandon(self, number: int) -> None:
        self._thread.cancel(number)

    def _ask(self, number: int, links: list[ChainLink], at: int, view: Any) -> Action | None:
        """Call the links from `at` on; None when the decision is pending in an async hook."""
        for index in range(at, len(links)):
            link = links[index]
            try:
                result = link.function(view)
            except BaseException as error:
                self._faults.note(link.name, error)
                return FAILED
            if link.waits:
                self._later(number, links, index, view, result)
                return None
            action = self._action(link, view, result)
            if action is not FORWARD:
                return action
        return FORWARD

    def _later(
        self, number: int, links: list[ChainLink], index: int, view: Any, coroutine: Any
    ) -> None:
        def done(result: object, error: BaseException | None) -> None:
            self._resume(number, links, index, view, result, error)

        self._thread.run(number, coroutine, done)

    def _resume(
        self,
        number: int,
        links: list[ChainLink],
        index: int,
        view: Any,
        result: object,
        error: BaseException | None,
    ) -> None:
        """Continue the chain in the broker's thread; called in the thread of hooks."""

        def continue_chain(machine: Machine, now: float) -> None:
            link = links[index]
            if error is not None:
                self._faults.note(link.name, error)
                machine.resume(number, FAILED, now)
                return
            if not machine.is_pending(number):
                return  # the request has ended: the rest of the chain is not called
            action: Action | None = self._action(link, view, result)
            if action is FORWARD:
                action = self._ask(number, links, index + 1, view)
            if action is not None:
                machine.resume(number, action, now)

        self._post(continue_chain)

    def _action(self, link: ChainLink, view: Any, result: object) -> Action:
        """Return the action that `result` stands for: FORWARD, or one that can be carried out."""
        try:
            view.check()
            if result is None or isinstance(result, actions.Forward):
                return FORWARD
            if isinstance(result, actions.Replace):
                view.frames = to_frames(result.body)
                return FORWARD
            if isinstance(result, Action):
                return _checked(result)
        except BaseException as error:
            self._faults.note(link.name, error)
            return FAILED
        if inspect.iscoroutine(result):
            with contextlib.suppress(BaseException):
                result.close()
        self._faults.wrong(link.name, result)
        return FAILED

    # ── notifications ─────────────────────────────────────────────────────────────────────────────

    def _notify(self, name: str, *args: object) -> None:
        for link in self._links[name]:
            try:
                result = link.function(*args)
            except BaseException as error:
                self._faults.note(name, error)
                continue
            if link.waits:
                self._thread.run(0, result, partial(self._notified, name))

    def _notified(self, name: str, _: object, error: BaseException | None) -> None:
        if error is not None:
            self._faults.note(name, error)

    def fact(self, machine: Machine, name: str, data: dict[str, Any]) -> None:
        """Call the hooks for a fact of the machine; most facts have none."""
        if name == "worker-ready":
            info = machine.worker_info(data["worker"])
            if info is not None:
                self._lost[info.id] = info
                self._notify("on_worker_ready", info)
        elif name == "worker-lost":
            id = data["worker"]
            services = tuple(service.decode() for service in data["services"])
            info = self._lost.pop(id, WorkerInfo(id, services))
            self._notify("on_worker_lost", info._replace(services=services), data["why"])


def _checked(action: Action) -> Action:
    """Return `action` in the form that the machine takes.

    Raises: TypeError or ValueError for one that cannot be carried out.
    """
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
        frames = to_frames(list(action.frames))
        return actions.ReplyAction(frames, action.status, packed_metadata(action))
    return action

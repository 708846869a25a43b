"""Hooks for tests of the machine: each decision is made by a function, at once or later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from majordomus.core.broker.hooks import actions
from majordomus.core.broker.hooks.actions import FORWARD, Action
from majordomus.core.broker.hooks.views import ClientInfo, HookReply, HookRequest, Outcome
from tests.core.broker_harness import BrokerHarness

LATER = object()
"""The decision is made later, by `ScriptedHooks.decide`."""


class ScriptedHooks:
    """Hooks with a script for each method: `on_request=`, `on_reply=`, `on_part=`, `on_client=` are
    an action, or a function that returns one.

    seen: (number of the decision, argument) of every call.
    abandoned: numbers of pending decisions that are not needed any more.
    outcomes: the outcome of every request, with `ends=True`.
    lost: (routing id, reason) of every client that was lost.
    """

    def __init__(self, harness: BrokerHarness, *, ends: bool = False, **scripts: Any) -> None:
        self.scripts = scripts
        self.has_on_request = "on_request" in scripts
        self.has_on_reply = "on_reply" in scripts
        self.has_on_part = "on_part" in scripts
        self.has_on_client = "on_client" in scripts
        self.has_on_end = ends
        self.may_wait = True
        self.harness = harness
        self.seen: list[tuple[int, Any]] = []
        self.abandoned: list[int] = []
        self.outcomes: list[Outcome] = []
        self.lost: list[tuple[bytes, str]] = []
        harness.machine.use(self)

    def _ask(self, name: str, number: int, view: Any) -> Any:
        self.seen.append((number, view))
        script = self.scripts[name]
        action = script(view) if isinstance(script, Callable) else script  # type: ignore[arg-type]
        return None if action is LATER else action

    def on_request(self, number: int, request: HookRequest) -> Action | None:
        return self._ask("on_request", number, request)

    def on_reply(self, number: int, reply: HookReply) -> Action | None:
        return self._ask("on_reply", number, reply)

    def on_part(self, part: HookReply) -> Action:
        return self._ask("on_part", 0, part) or FORWARD

    def on_client(self, number: int, client: ClientInfo) -> Action | None:
        return self._ask("on_client", number, client)

    def client_lost(self, client: ClientInfo, why: str) -> None:
        self.lost.append((client.id, why))

    def on_end(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    def abandon(self, number: int) -> None:
        self.abandoned.append(number)

    @property
    def last(self) -> Any:
        """The argument of the last call."""
        return self.seen[-1][1]

    def decide(self, action: Action = FORWARD, which: int = -1) -> bool:
        """Make a pending decision. False when it is not pending any more."""
        harness = self.harness
        done = harness.machine.resume(self.seen[which][0], action, harness.now)
        harness.turn()
        return done


__all__ = ["FORWARD", "LATER", "ScriptedHooks", "actions"]

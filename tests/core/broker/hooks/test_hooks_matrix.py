"""A request has one outcome and at most one answer, and the hooks keep nothing of it: for every
event while a hook decides, every action and every combination of flags."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest

from majordomus.core.broker.hooks.actions import (
    Action,
    Discard,
    Redirect,
    Reject,
    Replace,
    ReplyAction,
    SendTo,
)
from majordomus.protocol import spec
from tests.core.broker_harness import BrokerHarness
from tests.core.hook_harness import FORWARD, LATER, ScriptedHooks

C, W, W2 = b"client-c", b"worker-w", b"worker-2"

HAPPENS: dict[str, Callable[[BrokerHarness], object]] = {
    "nothing": lambda harness: None,
    "its client cancels": lambda harness: harness.receive_03(C, spec.CANCEL, id=1),
    "its deadline passes": lambda harness: harness.pass_time(61.0),
    "its client leaves": lambda harness: harness.leave(C),
    "its worker is lost": lambda harness: harness.leave(W),
    "the hook takes too long": lambda harness: harness.pass_time(5.1),
    "the broker drains": lambda harness: harness.machine.drain(harness.now),
}
ACTIONS: tuple[Action, ...] = (
    *(FORWARD, Discard(), SendTo(W), Redirect("other"), ReplyAction([b"r"])),
    *(Reject(401, "no"), Replace([b"n"])),
)
FLAGS = (0, spec.ONE_WAY, spec.MORE, spec.ONCE, spec.FAIL_FAST)


@pytest.mark.parametrize("what", HAPPENS)
@pytest.mark.parametrize("where", ["on_request", "on_reply"])
def test_request_has_one_outcome(
    make_harness: Callable[..., BrokerHarness], where: str, what: str
) -> None:
    for action, flags in product(ACTIONS, FLAGS):
        timeout = 100.0 if "deadline" in what else 5.0
        harness = make_harness(hook_timeout=timeout)
        hooks = ScriptedHooks(harness, ends=True, **{where: LATER})
        harness.worker(W)
        harness.worker(W2, b"other")
        harness.request(C, 1, b"x", flags=flags)
        if flags & spec.MORE:
            harness.receive_03(C, spec.PARTIAL, b"p", id=1)
        if where == "on_reply":
            (number,) = harness.machine.registry.workers[W].held
            harness.answer(W, number, b"answer")
        assert len(hooks.seen) == 1
        HAPPENS[what](harness)
        harness.check()
        assert not (hooks.decide(action) and hooks.decide(action))
        harness.check()
        harness.pass_time(120.0)
        holding, counts = harness.machine.hooks, harness.counts
        ended = counts.answered + counts.failed + counts.expired + counts.cancelled
        answers = [answer for answer in harness.finals() if answer[0] == C]
        assert (counts.accepted, ended, len(hooks.outcomes)) == (1, 1, 1), (action, flags)
        assert len(answers) <= (0 if flags & spec.ONE_WAY else 1), (action, flags)
        assert holding is not None
        pending = holding.pending
        left = (len(pending.waiting), len(pending.open), len(pending.deadlines))
        assert left == (0, 0, 0), (action, flags)

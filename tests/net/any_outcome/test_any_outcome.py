"""Whatever a handler, hook or caller does: exactly one outcome, and nobody else is hurt.

`make test` makes some hundred examples. `ANY_OUTCOME=full` (`make outcomes`) makes 20,000, and
prints how many there were of each kind and combination.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import pickle
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from majordomus.errors import MajordomusError, StatusError
from majordomus.net.bodies import to_frames
from tests.net.any_outcome import world as worlds
from tests.net.any_outcome.recipes import BEHAVIOURS, HOOKS, VALUES, made
from tests.net.any_outcome.world import CALL_TIMEOUT, HOOK_MODES, LATE, PLACES, World

FULL = os.environ.get("ANY_OUTCOME") == "full"
EXAMPLES = int(os.environ.get("ANY_OUTCOME_EXAMPLES", "22000" if FULL else "200"))
SEED = int(os.environ.get("ANY_OUTCOME_SEED", "1"))
CLIENTS = ("sync client", "asyncio client")
WAYS = ("call", "submit", "stream", "cancel", "leave")

counts: Counter[str] = Counter()
combinations: Counter[tuple[str, ...]] = Counter()

CASES = st.fixed_dictionaries(
    {
        "client": st.sampled_from(CLIENTS),
        "way": st.sampled_from(WAYS),
        "do": BEHAVIOURS,
        "plan": HOOKS,
        # A body or metadata of the caller's own; mostly the behaviour alone is what is tried.
        "body": st.one_of(st.none(), st.none(), st.none(), VALUES),
        "metadata": st.one_of(
            st.none(), st.none(), st.none(), st.dictionaries(st.text(max_size=3), VALUES)
        ),
    }
)


class Shared:
    """The world of all examples. One that was hurt is replaced, so that shrinking goes on."""

    def __init__(self) -> None:
        self._world: World | None = None

    def world(self) -> World:
        if self._world is None:
            self._world = World()
        return self._world

    def replace(self) -> None:
        if self._world is not None:
            self._world.close()
            self._world = None


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    made_for_all = Shared()
    logging.disable(logging.CRITICAL)
    try:
        yield made_for_all
    finally:
        made_for_all.replace()
        logging.disable(logging.NOTSET)
        report()


@pytest.mark.parametrize("hooks", HOOK_MODES)
@pytest.mark.parametrize("place", PLACES)
def test_call_has_one_outcome_whatever_handler_hook_and_caller_do(
    shared: Shared, place: str, hooks: str
) -> None:
    # A failure is not shrunk: the example that is printed is small, and a hurt world is slow.
    @seed(SEED + 31 * sorted(PLACES).index(place) + HOOK_MODES.index(hooks))
    @settings(
        max_examples=EXAMPLES // (len(PLACES) * len(HOOK_MODES)) + 1,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(CASES)
    def run(case: dict[str, Any]) -> None:
        try:
            attempt(shared.world(), {**case, "place": place, "hooks": hooks})
        except BaseException:
            worlds.plan.clear()
            shared.replace()
            raise

    run()


def attempt(world: World, case: dict[str, Any]) -> None:
    """Make one call, and check its outcome and that everything is as it was."""
    shape, place = PLACES[case["place"]]
    service, mode, way = f"{shape}-{place}", case["hooks"], case["way"]
    try:
        options = options_of(case)
    except BaseException:  # of a value that cannot be made at all
        return
    worlds.plan.update(case["plan"] if mode != "no hooks" else {})
    began = time.monotonic()
    try:
        outcome = world.call(mode, case["client"], service, options, way)
    finally:
        renewed = "strategy" in worlds.plan
        worlds.plan.clear()
    took = time.monotonic() - began
    if renewed:
        world.renew_strategy(mode, service)
    assert took < CALL_TIMEOUT + LATE, f"the outcome came after {took:.1f} s"
    check_outcome(case, outcome, options)
    world.check_serves(mode)
    world.check_whole()
    counts[kind_of(outcome)] += 1
    combinations[case["place"], case["client"], mode, way] += 1


def options_of(case: dict[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {"timeout": CALL_TIMEOUT, "body": pickle.dumps(case["do"])}
    if case["body"] is not None:
        options["body"] = made(case["body"])
        options["metadata"] = {"own": True}
    if case["metadata"] is not None:
        extra = {name: made(value) for name, value in case["metadata"].items()}
        options["metadata"] = {**options.get("metadata", {}), **extra}
    return options


def check_outcome(case: dict[str, Any], outcome: tuple[str, Any], options: dict[str, Any]) -> None:
    """The outcome is one that the case can have."""
    kind, found = outcome
    if kind == "raised":
        own = case["body"] is not None or case["metadata"] is not None
        ours = (MajordomusError, asyncio.CancelledError, concurrent.futures.CancelledError)
        # What a caller's own body raises when it is encoded is the caller's.
        assert own or isinstance(found, ours), repr(type(found))
        if isinstance(found, StatusError):
            assert type(found.status) is int and type(found.text) is str
        return
    replies = found if kind == "parts" else [found]
    for reply in replies:
        assert type(reply.status) is int
        assert all(type(frame) is bytes for frame in reply.frames)
    expected = expectation(case)
    if expected is not None and kind == "reply":
        assert (found.status, found.frames) == expected


def expectation(case: dict[str, Any]) -> tuple[int, list[bytes]] | None:
    """The reply where nothing but a good body is at work; None where more than one is right."""
    shape, _ = PLACES[case["place"]]
    do = case["do"]
    if shape not in ("function", "coroutine") or case["body"] is not None:
        return None
    if case["plan"] or do["later"] is not None or do["before"] not in (None, "wait"):
        return None
    how, value = do["end"]
    if how == "return" and value[0] in ("plain", "bytearray", "list"):
        try:
            return 200, to_frames(made(value))
        except Exception:
            return None
    return None


def kind_of(outcome: tuple[str, Any]) -> str:
    kind, found = outcome
    if kind != "raised":
        return kind
    return f"{found.status}" if isinstance(found, StatusError) else type(found).__name__


def report() -> None:
    """Print the counts, for the long form's log."""
    total = sum(combinations.values())
    print(f"\n{total} examples, {len(combinations)} of {6 * 2 * 3 * 5} combinations")
    print("hooks used:", ", ".join(f"{name} {count}" for name, count in worlds.used.most_common()))
    print("outcomes:", ", ".join(f"{kind} {count}" for kind, count in counts.most_common()))
    for number in range(4):
        parts: Counter[str] = Counter()
        for key, count in combinations.items():
            parts[key[number]] += count
        print("  ", ", ".join(f"{kind} {count}" for kind, count in sorted(parts.items())))

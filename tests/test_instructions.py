"""What a request costs the rules, a durable one, and a worker that only lives, in instructions: a
regression that no noise can hide."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
from benchmarks import instructions

from majordomus.core.broker.state.registry import RULES


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(not shutil.which("valgrind"), reason="valgrind is not here")
@pytest.mark.parametrize(
    ("what", "count"),
    [
        (instructions.REQUEST, instructions.per_request),
        (instructions.INTERVAL, instructions.per_interval),
        (instructions.DURABLE, instructions.per_durable_request),
    ],
)
def test_rules_spend_no_more_instructions_than_their_bound(
    what: str, count: Callable[[], float]
) -> None:
    most = instructions.bound(what)
    if most is None:
        pytest.skip(f"no bound is set for {instructions.kind()}")
    counted = count()
    print(f"{instructions.kind()}: {counted:,.0f} instructions for {what}, {most:,.0f} allowed")
    assert counted <= most * (1 + instructions.TOLERANCE), (
        f"{counted:,.0f} instructions for {what}; {most:,.0f} were enough before. "
        "See `make instructions`, or set a new bound in benchmarks/instructions.json and say why"
    )
    assert counted >= most * 0.8, f"only {counted:,.0f}: set the lower bound ({RULES})"

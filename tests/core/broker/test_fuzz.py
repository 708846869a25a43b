"""Invalid messages through the machine; the long form is ``python -m tests.core.fuzz``."""

from __future__ import annotations

import pytest

from tests.core.fuzz import Fuzz


@pytest.mark.parametrize("seed", [1, 2])
def test_invalid_messages_are_counted_and_change_nothing_else(seed: int) -> None:
    fuzz = Fuzz(seed)
    fuzz.run(10_000, check_every=250)
    reasons, outcomes = fuzz.reasons, fuzz.outcomes
    assert {"unrecognised", "truncated-header", "wrong-hash", "unknown-worker"} <= reasons.keys()
    assert {"unasked-reply", "reserved-service-name", "unsupported-version"} <= reasons.keys()
    assert all(count > 0 for count in outcomes.values()), outcomes


def test_run_is_the_same_for_the_same_seed() -> None:
    runs = [Fuzz(3) for _ in range(2)]
    for fuzz in runs:
        fuzz.run(2000, check_every=2000)
    assert runs[0].reasons == runs[1].reasons
    assert runs[0].outcomes == runs[1].outcomes

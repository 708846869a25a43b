"""Rule 2 in bulk: forged, late and double replies between honest ones; the short form of
`make fuzz`."""

from __future__ import annotations

import pytest

from majordomus.core.broker.state.registry import RULES
from majordomus.core.broker.state.workers import RegisteredWorker
from tests.core.forgery import KINDS, DeliveredError, Forge

MESSAGES = 20_000


def test_no_forged_late_or_double_reply_reaches_a_client() -> None:
    forge = Forge(seed=1)
    forge.run(MESSAGES, check_every=500)
    assert forge.sent.total() == MESSAGES
    assert set(forge.sent) == set(KINDS)
    assert min(forge.sent.values()) > 20
    assert forge.delivered == forge.answered > 500
    assert forge.machine.registry.counts.dropped["unasked-reply"] > MESSAGES / 10


@pytest.mark.skipif(RULES == "compiled", reason="a compiled method cannot be replaced")
def test_forge_notices_a_broker_that_forgets_who_holds_what(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The run above could not fail if it did not see what it looks for."""
    forge = Forge(seed=1)
    forge.run(200, check_every=500)
    release = forge.machine.dispatcher.release

    def careless(worker: RegisteredWorker, number: int) -> object:
        for other in list(forge.machine.registry.workers.values()):
            if number in other.held:
                return release(other, number)
        return None

    monkeypatch.setattr(forge.machine.dispatcher, "release", careless)
    with pytest.raises(DeliveredError, match="forged reply"):
        forge.run(5000, check_every=10**9)

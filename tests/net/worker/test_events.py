"""The events of a worker's engine; tests/net/client/test_events.py has those between programs."""

from __future__ import annotations

import pytest

from majordomus.core.session.events import SubscriptionRefused
from majordomus.net.worker.events import EngineEvents


def test_refused_subscription_is_logged_even_if_its_text_is_not_utf_8(
    caplog: pytest.LogCaptureFixture,
) -> None:
    events = EngineEvents([], {})
    events.put(SubscriptionRefused("subscribe", b"news.\xff", 403, [b"not yours \xff", b"more"]))
    events.put(SubscriptionRefused("publish", b"news", 403, [b"not yours"]))
    assert caplog.messages == [
        "no subscription to news.\ufffd: 403 not yours \ufffd",
        "an event to news was refused: 403 not yours",
    ]
    events.close()

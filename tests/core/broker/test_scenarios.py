"""The transcripts in tests/core/transcripts; each begins with its purpose. See transcript.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.core.broker_harness import BrokerHarness
from tests.core.transcript import FOLDER, Transcript

SCENARIOS = sorted(path.stem for path in FOLDER.glob("*.txt"))


@pytest.mark.parametrize("name", SCENARIOS)
def test_broker_sends_the_messages_of_the_transcript(
    make_harness: Callable[..., BrokerHarness], name: str
) -> None:
    text = (FOLDER / f"{name}.txt").read_text("utf-8")
    assert Transcript(make_harness).play(text) == text


def test_every_transcript_begins_with_a_comment_and_has_messages() -> None:
    assert len(SCENARIOS) >= 5
    for name in SCENARIOS:
        lines = (FOLDER / f"{name}.txt").read_text("utf-8").splitlines()
        assert lines[0].startswith("# ")
        assert sum(line.startswith("    ") for line in lines) >= 5


def test_transcript_with_a_wrong_message_is_detected(
    make_harness: Callable[..., BrokerHarness],
) -> None:
    text = "worker-w READY code=1 service=echo\n    worker-w DISCONNECT\n"
    played = Transcript(make_harness).play(text)
    assert played != text
    assert "worker-w WELCOME" in played

"""`mmi.ended`: each ended request is in one answer, or counted as missed."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from majordomus.core.broker.ended import MOST_ROWS
from majordomus.core.broker.state.history import RECENT
from tests.core.broker_harness import BrokerHarness, number

C, W = b"client-c", b"worker-w"


def asked(harness: BrokerHarness, *body: bytes) -> list[bytes]:
    harness.sent()
    harness.request(C, 1, *body, service=b"mmi.ended")
    (word,) = harness.messages()
    return list(word[3])


class Watcher:
    """Asks again and again, with the cursor of the last answer."""

    def __init__(self, harness: BrokerHarness) -> None:
        self._harness = harness
        self._cursor: list[bytes] = []
        self.missed = 0

    def ask(self) -> dict[str, Any]:
        status, text, cursor = asked(self._harness, b"", *self._cursor)
        assert status == b"200"
        self._cursor = [cursor]
        found: dict[str, Any] = json.loads(text)
        self.missed += found["missed"]
        return found

    def rows(self) -> list[list[Any]]:
        """The rows of all answers until no more wait."""
        found = self.ask()
        rows = found["rows"]
        while found["more"]:
            found = self.ask()
            rows += found["rows"]
        return list(rows)


def test_first_answer_is_where_to_begin(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.request(C, 2, b"x")
    harness.answer(W, number(1))
    watcher = Watcher(harness)
    assert watcher.ask() == {"v": 1, "missed": 0, "more": False, "rows": []}


def test_row_has_what_happened_to_the_request(harness: BrokerHarness) -> None:
    watcher = Watcher(harness)
    watcher.ask()
    harness.request(C, 2, b"x", metadata=b"\x81\xa5trace\xa3abc", flags=0x01)
    harness.pass_time(0.5)
    harness.worker(W)
    harness.pass_time(0.25)
    harness.answer(W, number(1), status=500)
    harness.pass_time(0.125)
    (row,) = watcher.rows()
    assert row == [
        *(0.125, f"{C.hex()}-2", "echo", 500, "", 0.75, 0.5, 1, W.hex(), "", "abc"),
    ]


def test_every_request_is_in_one_answer_also_when_many_end_at_one_time(
    harness: BrokerHarness,
) -> None:
    """Requests end at random times, many of them at the same; questions come in between."""
    random.seed(17)
    harness.worker(W, capacity=1000)
    watcher = Watcher(harness)
    watcher.ask()
    sent, seen = 0, []
    for _ in range(60):
        for _ in range(random.randrange(20)):
            sent += 1
            harness.request(C, 1 + sent, b"x")
            harness.answer(W, number(sent), status=random.choice((200, 200, 500)))
        if random.random() < 0.5:
            seen += watcher.rows()
        if random.random() < 0.3:
            harness.pass_time(random.random() / 10)
    seen += watcher.rows()
    assert [row[1] for row in seen] == [f"{C.hex()}-{n}" for n in range(2, sent + 2)]
    assert watcher.missed == 0


def test_requests_that_are_not_kept_are_counted_as_missed(harness: BrokerHarness) -> None:
    harness.worker(W, capacity=1000)
    watcher = Watcher(harness)
    watcher.ask()
    for n in range(1, RECENT + 11):
        harness.request(C, 1 + n, b"x")
        harness.answer(W, number(n))
        harness.pass_time(0.001)
    assert len(watcher.rows()) == RECENT
    assert watcher.missed == 10


def test_answer_is_bounded(harness: BrokerHarness) -> None:
    harness.worker(W, capacity=1000)
    watcher = Watcher(harness)
    watcher.ask()
    for n in range(1, MOST_ROWS + 2):
        harness.request(C, 1 + n, b"x")
        harness.answer(W, number(n))
    found = watcher.ask()
    assert (len(found["rows"]), found["more"]) == (MOST_ROWS, True)
    assert len(watcher.ask()["rows"]) == 1


@pytest.mark.parametrize("cursor", [b"x", b"1.0", b"-1", b" ", b"9" * 100, b"\xd9\xa3"])
def test_invalid_cursor_is_400(harness: BrokerHarness, cursor: bytes) -> None:
    assert asked(harness, b"", cursor) == [b"400"]


def test_cursor_of_another_broker_is_no_error(harness: BrokerHarness) -> None:
    """One from the future has nothing to show; one from the past has what is kept."""
    harness.worker(W)
    harness.request(C, 2, b"x")
    harness.answer(W, number(1))
    for cursor, rows in ((b"1000", 0), (b"0", 1)):
        status, text, after = asked(harness, b"", cursor)
        assert (status, len(json.loads(text)["rows"]), after) == (b"200", rows, b"1")

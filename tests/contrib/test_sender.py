"""The sender: what is queued is sent in order and once, and what was dropped is told exactly."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from majordomus.contrib.cloudlog import sender as module
from majordomus.contrib.cloudlog.record import WRITE, Align, LogEntry, Watch, watches_of
from majordomus.contrib.cloudlog.sender import Options, Sender
from majordomus.errors import ConfigurationError
from tests.contrib.conftest import Line, eventually

Make = Callable[..., Sender]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes senders that send to a pretended line, and closes them."""
    made: list[Sender] = []

    def build(line: Line, **options: Any) -> Sender:
        told = {"application": "app", "capacity": 100, "linger": 0.0, "ttl": 30.0, **options}
        made.append(Sender(Options(lambda: line, **told)))
        return made[-1]

    yield build
    for sender in made:
        sender.close(0.0)


def put(sender: Sender, *texts: str) -> None:
    for text in texts:
        sender.put(text, 20, 1, 2, 0.0)


def numbered(count: int, start: int = 0) -> list[str]:
    return [str(number) for number in range(start, start + count)]


def test_entries_arrive_in_order_in_few_batches(make: Make) -> None:
    line = Line()
    sender = make(line, capacity=10_000, linger=0.05)
    put(sender, *numbered(2500))
    assert sender.flush(10.0)
    assert line.texts == numbered(2500)
    assert [len(batch.records) for batch in line.batches] == [1000, 1000, 500]
    assert [batch.first for batch in line.batches] == [0, 1000, 2000]
    assert (sender.sent, sender.dropped, sender.pending) == (2500, 0, 0)


def test_entries_of_one_linger_make_one_batch(make: Make) -> None:
    line = Line()
    sender = make(line, linger=0.3)
    put(sender, "a", "b")
    time.sleep(0.05)
    put(sender, "c")
    eventually(lambda: line.texts == ["a", "b", "c"])
    assert len(line.batches) == 1


def test_batch_is_bounded_in_characters(make: Make) -> None:
    line = Line()
    sender = make(line, linger=0.2)
    put(sender, *["x" * 100_000] * 7)
    assert sender.flush(10.0)
    assert [len(batch.records) for batch in line.batches] == [3, 3, 1]


def test_no_thread_is_there_before_the_first_entry(make: Make) -> None:
    before = threading.active_count()
    sender = make(Line())
    assert threading.active_count() == before
    assert sender.flush(0.0)
    assert sender.close(0.0) == 0


def test_full_queue_drops_its_oldest_and_the_next_batch_says_how_many(make: Make) -> None:
    line = Line(away=True)
    sender = make(line, capacity=100)
    put(sender, "0")
    assert line.waits.wait(10.0)
    put(sender, *numbered(350, start=1))
    assert (sender.dropped, sender.pending, sender.sent) == (250, 101, 0)
    line.here.set()
    assert sender.flush(10.0)
    first, second = line.batches
    assert [entry.text for entry in first.records] == ["0"]
    assert (second.first, second.dropped, len(second.records)) == (251, 250, 100)
    assert [entry.text for entry in second.records] == numbered(100, start=251)
    assert (sender.dropped, sender.pending, sender.sent) == (250, 0, 101)


def test_numbers_add_up_whatever_is_dropped_while_batches_are_made(make: Make) -> None:
    line = Line()
    sender = make(line, capacity=50)
    put(sender, *numbered(50_000))
    assert sender.flush(10.0)
    at = 0
    for batch in line.batches:
        assert batch.first == at + batch.dropped
        assert [entry.text for entry in batch.records] == numbered(
            len(batch.records), start=batch.first
        )
        at = batch.first + len(batch.records)
    assert at == 50_000
    assert sender.dropped == sum(batch.dropped for batch in line.batches) > 0
    assert sender.sent + sender.dropped == 50_000


def test_flush_gives_up_in_time_when_no_broker_is_there(make: Make) -> None:
    sender = make(Line(away=True))
    put(sender, "a")
    began = time.monotonic()
    assert not sender.flush(0.1)
    assert 0.1 <= time.monotonic() - began < 5.0
    assert sender.pending == 1


def test_flush_does_not_wait_for_the_linger(make: Make) -> None:
    line = Line()
    sender = make(line, linger=60.0)
    put(sender, "a")
    assert sender.flush(10.0)
    assert line.texts == ["a"]


def test_close_sends_what_is_there_and_ends_thread_and_client(make: Make) -> None:
    line = Line()
    sender = make(line, linger=60.0)
    put(sender, "a", "b")
    assert sender.close(10.0) == 0
    assert line.texts == ["a", "b"]
    assert line.closed.is_set()
    assert sender.close(10.0) == 0


def test_close_without_a_broker_ends_in_time_and_says_what_is_lost(make: Make) -> None:
    line = Line(away=True)
    sender = make(line, capacity=10)
    put(sender, *numbered(25))
    began = time.monotonic()
    assert sender.close(0.1) == 25
    assert time.monotonic() - began < 5.0
    assert line.closed.is_set()
    assert "majordomus-cloudlog" not in [thread.name for thread in threading.enumerate()]


def test_entry_after_the_end_waits_for_nobody_and_starts_nothing(make: Make) -> None:
    line = Line()
    sender = make(line)
    sender.close(0.0)
    put(sender, "late")
    assert not sender.flush(1.0)
    assert line.sent == []


def test_broken_connection_is_told_once_and_replaced(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RETRY", 0.01)
    line, failures = Line(), [OSError("no descriptor"), OSError("no descriptor")]

    def fail() -> None:
        if failures:
            raise failures.pop()

    line.on_send = fail
    with caplog.at_level(logging.ERROR):
        sender = make(line)
        put(sender, "a")
        assert sender.flush(10.0)
    assert line.texts == ["a"]
    assert [record.message for record in caplog.records] == [
        "log entries cannot be sent for the moment: OSError('no descriptor')"
    ]


# ── watches ───────────────────────────────────────────────────────────────────────────────────────


def words(line: Line) -> list[list[Watch]]:
    return [
        watches_of(LogEntry.from_bytes(body)) for service, body in line.sent if service == WRITE
    ]


def test_watches_are_sent_all_together_the_last_value_of_each(make: Make) -> None:
    line = Line()
    sender = make(line, linger=0.1)
    for depth in range(100):
        sender.watch("depth", depth)
    sender.watch("state", "up")
    assert sender.flush(10.0)
    assert words(line) == [[Watch("depth", "99", Align.RIGHT), Watch("state", "up", Align.LEFT)]]
    entry = LogEntry.from_bytes(line.sent[-1][1])
    assert (entry.application, entry.process_id) == ("app", os.getpid())


def test_watch_that_changes_often_is_sent_ten_times_a_second_at_most(make: Make) -> None:
    line = Line()
    sender = make(line, linger=0.001)
    until = time.monotonic() + 0.55
    value = 0
    while time.monotonic() < until:
        sender.watch("value", value := value + 1)
        time.sleep(0.001)
    eventually(lambda: words(line)[-1] == [Watch("value", str(value), Align.RIGHT)])
    assert 2 <= len(words(line)) <= 8


def test_watches_are_told_again_while_nothing_changes(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WATCH_REFRESH", 0.05)
    line = Line()
    make(line).watch("state", "up")
    eventually(lambda: len(words(line)) >= 3)
    assert words(line)[2] == words(line)[0]


def test_watch_without_a_value_goes_and_at_the_end_all_do(make: Make) -> None:
    line = Line()
    sender = make(line)
    sender.watch("a", 1)
    sender.watch("b", 2)
    sender.watch("a", None)
    assert sender.flush(10.0)
    assert [watch.name for watch in words(line)[-1]] == ["b"]
    sender.close(10.0)
    assert words(line)[-1] == []


def test_watches_are_bounded_in_number_and_length(make: Make) -> None:
    line = Line()
    sender = make(line, linger=0.1)
    for number in range(256):
        sender.watch(f"{number}", "x" * 1000)
    with pytest.raises(ConfigurationError, match="at most 256 watches"):
        sender.watch("one more", 1)
    sender.watch("0", "\ud800")
    assert sender.flush(10.0)
    assert len(words(line)[-1]) == 256
    assert {len(watch.value) for watch in words(line)[-1]} == {256, len("\\ud800")}

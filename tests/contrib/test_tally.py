"""Which records are missing: those that a sender dropped, and those that were lost on the way."""

from __future__ import annotations

from majordomus.contrib.cloudlog import tally
from majordomus.contrib.cloudlog.tally import Missing, Tally


def test_batches_without_a_gap_miss_nothing() -> None:
    counts = Tally()
    assert counts.count(b"a", 0, 0, 10) == Missing(0, 0)
    assert counts.count(b"a", 10, 0, 5) == Missing(0, 0)
    assert counts.count(b"b", 0, 0, 1) == Missing(0, 0)


def test_gap_is_what_the_sender_dropped_and_the_rest_was_lost() -> None:
    counts = Tally()
    counts.count(b"a", 0, 0, 10)
    assert counts.count(b"a", 17, 7, 1) == Missing(7, 0)
    assert counts.count(b"a", 28, 4, 1) == Missing(4, 6)


def test_first_batch_of_a_sender_tells_of_drops_only() -> None:
    assert Tally().count(b"a", 500, 100, 1) == Missing(100, 0)


def test_batch_that_comes_twice_misses_nothing() -> None:
    counts = Tally()
    counts.count(b"a", 0, 0, 10)
    assert counts.count(b"a", 0, 0, 10) == Missing(0, 0)
    assert counts.count(b"a", 10, 0, 1) == Missing(0, 0)


def test_senders_that_were_silent_longest_are_forgotten(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(tally, "MOST_SENDERS", 2)
    counts = Tally()
    for sender in (b"a", b"b", b"a", b"c"):
        counts.count(sender, 0, 0, 1)
    assert counts.count(b"b", 9, 0, 1) == Missing(0, 0)  # forgotten
    assert counts.count(b"c", 9, 0, 1) == Missing(0, 8)

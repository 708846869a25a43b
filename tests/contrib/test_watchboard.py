"""The live watches of all processes: the last word of each counts, and ends with its process."""

from __future__ import annotations

import pytest

from majordomus.contrib.cloudlog import watchboard
from majordomus.contrib.cloudlog.record import LogEntry, Watch, watches_entry, watches_of
from majordomus.contrib.cloudlog.watchboard import Watchboard
from majordomus.errors import RecordError


def entry(process_id: int, **values: str) -> LogEntry:
    return watches_entry([Watch(*item) for item in values.items()], "app", process_id, 0.0)


def seen(board: Watchboard, version: int = 0) -> dict[int, dict[str, str]]:
    return {
        entry.process_id: {watch.name: watch.value for watch in watches_of(entry)}
        for entry in board.newer(version)
    }


def test_last_word_of_a_process_takes_the_place_of_the_one_before() -> None:
    board = Watchboard()
    assert board.update(entry(1, a="1", b="2"), 0.0)
    assert board.update(entry(1, a="3"), 0.0)
    assert seen(board) == {1: {"a": "3"}}


def test_viewer_asks_for_what_is_newer_than_what_it_has_seen() -> None:
    board = Watchboard()
    board.update(entry(1, a="1"), 0.0)
    version = board.version
    board.update(entry(2, a="2"), 0.0)
    assert seen(board, version) == {2: {"a": "2"}}
    assert seen(board, board.version) == {}


def test_same_word_again_is_no_news_but_keeps_it_alive() -> None:
    board = Watchboard(expiry=10.0)
    board.update(entry(1, a="1"), 0.0)
    assert not board.update(entry(1, a="1"), 9.0)
    assert not board.expire(15.0, 0.0)
    assert seen(board) == {1: {"a": "1"}}


def test_process_that_says_nothing_any_more_has_no_watches_and_viewers_hear_it() -> None:
    board = Watchboard(expiry=10.0)
    board.update(entry(1, a="1"), 0.0)
    version = board.version
    assert board.expire(10.0, 0.0)
    assert seen(board, version) == {1: {}}
    assert seen(board) == {}
    assert not board.expire(20.0, 0.0)
    assert seen(board, version) == {}


def test_processes_are_bounded_and_so_is_the_word_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchboard, "MOST_PROCESSES", 2)
    board = Watchboard()
    for process_id in (1, 2, 3):
        board.update(entry(process_id, a="1"), 0.0)
    assert set(seen(board)) == {2, 3}
    with pytest.raises(RecordError, match="bytes of watches"):
        board.update(entry(4, a="x" * 300_000), 0.0)


def test_entry_that_holds_no_watches_is_refused() -> None:
    with pytest.raises(RecordError):
        Watchboard().update(LogEntry(text="x"), 0.0)

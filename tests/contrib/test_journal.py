"""The collector's file: lines of JSON, bounded, and never the end of the collector."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from majordomus.contrib.cloudlog.journal import Journal
from majordomus.contrib.cloudlog.record import LogEntry


def lines(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text().splitlines()]


def packed(*texts: str) -> list[bytes]:
    return [LogEntry(text=text).to_bytes() for text in texts]


def test_entries_are_appended_as_lines_of_json(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for texts in (("a", "b\nc"), ("d",)):
        journal = Journal(path, 10_000)
        journal.write(packed(*texts))
        journal.close()
    assert lines(path) == ["a", "b\nc", "d"]


def test_full_file_makes_room_for_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    journal = Journal(path, 400)
    for number in range(12):
        journal.write(packed(str(number)))
    journal.close()
    old = lines(path.with_name("log.jsonl.1"))
    new = lines(path)
    assert old + new == [str(number) for number in range(12 - len(old) - len(new), 12)]
    assert len(old) == 4
    assert path.stat().st_size <= 400


def test_disk_that_fails_is_told_once_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "not yet"
    journal = Journal(folder / "log.jsonl", 1000)
    with caplog.at_level(logging.ERROR):
        journal.write(packed("a", "b"))
        journal.write(packed("c"))
    assert journal.lost == 3
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        f"cannot write {folder / 'log.jsonl'}"
    ]
    folder.mkdir()
    journal.write(packed("d"))
    journal.close()
    assert lines(folder / "log.jsonl") == ["d"]

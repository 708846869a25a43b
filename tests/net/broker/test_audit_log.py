"""The audit log: JSON lines that are on disk, in a file that other programs may rotate."""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from majordomus import system
from majordomus.core.broker.settings import BrokerSettings
from majordomus.errors import ConfigurationError, Unauthenticated
from majordomus.net.broker import audit_log
from majordomus.net.broker.audit_log import MOST_WAITING, PER_SECOND, AuditLog
from majordomus.net.broker.broker import Broker
from majordomus.net.client.client import Client

MOMENT = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
LIMIT = 20.0


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def until(path: Path, count: int) -> list[dict[str, Any]]:
    """The lines of the file, once there are that many."""
    end = time.monotonic() + LIMIT
    while not path.exists() or len(lines(path)) < count:
        assert time.monotonic() < end
        time.sleep(0.01)
    return lines(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def test_event_is_one_line_with_its_time_and_fields(path: Path) -> None:
    log = AuditLog(path, lambda: MOMENT)
    log.write("not-allowed", {"peer": b"\x01\x80", "user": "ann\n", "event": "x"}, 1.0)
    log.write("worker-ready", {"worker": b"w"}, 1.0)
    log.close()
    assert lines(path) == [
        {
            "time": "2026-11-30T12:00:00.000+00:00",
            "event": "not-allowed",
            "peer": "0180",
            "user": "ann\\n",
        }
    ]
    if system.HAS_MODES:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_lines_are_appended_to_those_of_the_last_run(path: Path) -> None:
    for _ in range(2):
        log = AuditLog(path)
        log.write("drain", {}, 1.0)
        log.close()
    assert len(lines(path)) == 2


@pytest.mark.parametrize("how", ["moved", "removed"])
def test_file_is_opened_anew_after_a_rotation(path: Path, how: str) -> None:
    log = AuditLog(path)
    log.write("drain", {"n": 1}, 1.0)
    until(path, 1)
    old = path.with_suffix(".1")
    path.rename(old) if how == "moved" else path.unlink()
    log.write("drain", {"n": 2}, 1.0)
    assert until(path, 1)[0]["n"] == 2
    log.close()
    assert how == "removed" or lines(old)[0]["n"] == 1


def test_every_line_is_synced(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(path.stat().st_size), sync(file)))
    log = AuditLog(path)
    log.write("drain", {}, 1.0)
    log.close()
    assert synced == [path.stat().st_size] != [0]


def test_events_that_a_full_disk_costs_are_counted(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write, full = os.write, threading.Event()
    tried = threading.Semaphore(0)

    def write_if_there_is_space(file: int, data: bytes) -> int:
        if full.is_set():
            tried.release()
            raise OSError(28, "No space left on device")
        return write(file, data[:10])  # a part of it, as a disk that is nearly full does

    monkeypatch.setattr(audit_log.os, "write", write_if_there_is_space)
    log = AuditLog(path)
    full.set()
    for _ in range(2):
        log.write("drain", {}, 1.0)
        assert tried.acquire(timeout=LIMIT)
    full.clear()
    log.write("drain", {}, 1.0)
    log.close()
    assert [(one["event"], one.get("count")) for one in lines(path)] == [
        ("drain", None),
        ("lost", 2),
    ]
    assert len([one for one in caplog.records if one.levelname == "CRITICAL"]) == 1


def test_half_a_line_on_a_full_disk_is_taken_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, parts = os.write, iter([10, OSError(28, "No space left on device")])

    def write_a_part(file: int, data: bytes) -> int:
        part = next(parts, None)
        if isinstance(part, OSError):
            failed.set()
            raise part
        return write(file, data[:part])

    failed = threading.Event()
    monkeypatch.setattr(audit_log.os, "write", write_a_part)
    log = AuditLog(path)
    log.write("drain", {}, 1.0)
    assert failed.wait(LIMIT)
    log.write("reload", {}, 1.0)
    log.close()
    assert [(one["event"], one.get("count")) for one in lines(path)] == [
        ("reload", None),
        ("lost", 1),
    ]


def test_log_may_be_a_pipe_which_cannot_be_synced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    log = AuditLog(pipe)
    log.write("drain", {}, 1.0)
    log.close()
    assert json.loads(os.read(reader, 1000))["event"] == "drain"
    os.close(reader)


def test_flood_of_one_event_is_counted_beyond_its_bound(path: Path) -> None:
    log = AuditLog(path)
    for _ in range(PER_SECOND + 7):
        log.write("not-allowed", {}, 1.0)
    log.write("drain", {}, 1.0)
    log.write("not-allowed", {}, 2.0)
    log.close()
    found = lines(path)
    assert sum(one.get("count", 0) for one in found) == 7
    events = [one["event"] for one in found]
    assert (events.count("not-allowed"), events.count("drain")) == (PER_SECOND + 1, 1)
    assert MOST_WAITING >= PER_SECOND


def test_file_that_cannot_be_opened_ends_the_start(tmp_path: Path) -> None:
    broker = Broker(BrokerSettings(audit=str(tmp_path / "no" / "file")), bind="tcp://127.0.0.1:*")
    with pytest.raises(ConfigurationError, match=r"audit = .*: No such file or directory"):
        broker.open()


def test_broker_writes_what_it_refuses_and_what_changes(tmp_path: Path, path: Path) -> None:
    rules = tmp_path / "acl.toml"
    rules.write_text("[[rule]]\nallow = ['call']\nusers = ['ann']\n")
    rules.chmod(0o600)
    settings = BrokerSettings(audit=str(path), acl=str(rules))
    with Broker(settings, bind="tcp://127.0.0.1:*") as broker:
        with Client(broker.endpoints, timeout=LIMIT) as client, pytest.raises(Unauthenticated):
            client.call("echo")
        changed = Broker(BrokerSettings(max_ttl=5.0, audit=str(path), acl=str(rules)))
        broker.adopt(changed, lambda left: None)
        until(path, 3)
    found = lines(path)
    events = [one["event"] for one in found]
    assert [name for name in events if name != "handshake-failed"] == [
        *("rights-changed", "not-allowed", "reload", "drain"),
    ]
    by_event = {one["event"]: one for one in found}
    assert by_event["not-allowed"]["name"] == "echo"
    assert by_event["not-allowed"]["action"] == "call"
    assert by_event["reload"]["changed"] == "[max_ttl]"
    assert by_event["rights-changed"]["rules"] == 1

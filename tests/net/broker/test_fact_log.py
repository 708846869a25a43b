"""A fact becomes one printable line, and the lines per second are limited."""

from __future__ import annotations

import logging
from queue import SimpleQueue

import pytest

from majordomus.net.broker.fact_log import LONGEST, PER_SECOND, FactLog, line


def test_peers_bytes_are_escaped_and_cut() -> None:
    text = line(
        "invalid",
        {"peer": b"\x00\xff", "service": b"echo", "name": "a\nb\x1b[0m", "much": "x" * 999},
    )
    assert text.startswith("invalid peer=00ff service=echo name=a\\nb\\x1b[0m much=xxx")
    assert text.isprintable()
    assert len(text) < LONGEST + 60


def test_list_of_names_is_one_value() -> None:
    assert (
        line("worker-lost", {"services": ["a", b"\n"], "held": 3})
        == "worker-lost services=[a,0a] held=3"
    )


def test_worker_that_left_by_its_own_will_is_nothing_to_warn_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = FactLog(logging.getLogger("majordomus.broker"))
    with caplog.at_level(logging.INFO, logger="majordomus.broker"):
        log.write("worker-lost", {"why": "left"}, 1.0)
        log.write("worker-lost", {"why": "expired"}, 1.0)
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]


def test_flood_of_one_fact_is_cut_and_the_rest_counted(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("majordomus.broker")
    log = FactLog(logger)
    with caplog.at_level(logging.INFO, logger="majordomus.broker"):
        for number in range(PER_SECOND + 30):
            log.write("invalid", {"number": number}, 100.2)
        log.write("worker-ready", {}, 100.3)
        log.write("invalid", {"number": 0}, 101.0)
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        *(f"invalid number={number}" for number in range(PER_SECOND)),
        "worker-ready",
        "invalid left_out=30",
        "invalid number=0",
    ]


def test_number_of_the_cut_ones_is_logged_when_no_other_fact_comes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logged: SimpleQueue[logging.LogRecord] = SimpleQueue()
    logger = logging.getLogger("majordomus.broker")
    log = FactLog(logger, pause=0.01)
    watch = logging.Handler()
    watch.emit = lambda record: logged.put(record) if "left_out" in record.getMessage() else None  # type: ignore[method-assign]
    root = logging.getLogger()
    root.addHandler(watch)  # behind that of caplog, which has the record when this one gets it
    try:
        for number in range(PER_SECOND + 3):
            log.write("invalid", {"number": number}, 100.2)
        last = logged.get(timeout=10)
    finally:
        root.removeHandler(watch)
    assert (last.getMessage(), last.__dict__["fact"]) == (
        "invalid left_out=3",
        ("invalid", {"left_out": 3}),
    )
    log.close()
    assert caplog.records[-1] is last


def test_no_value_can_look_like_another_field() -> None:
    name = b'x why="rule 1 allows it" user=root'
    text = line("not-allowed", {"user": "", "name": name, "why": "no rule allows it"})
    assert text == (
        'not-allowed user= name="x why=\\"rule 1 allows it\\" user=root" why="no rule allows it"'
    )

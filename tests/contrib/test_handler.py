"""The handler: formats at once, never waits, keeps out of its own way, and survives forks."""

from __future__ import annotations

import logging
import logging.handlers
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from majordomus.contrib import cloudlog
from majordomus.contrib.cloudlog import handler as module
from majordomus.contrib.cloudlog.handler import CloudLogHandler, program
from majordomus.contrib.cloudlog.record import LogEntry, to_seconds, unpack_data, watches_of
from majordomus.errors import ConfigurationError
from tests.contrib.conftest import Line

Make = Callable[..., CloudLogHandler]


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    """What every handler of the test sends to."""
    made = Line()
    monkeypatch.setattr(module, "_connect", lambda *_told: made)
    return made


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger at DEBUG, as it was afterwards."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.DEBUG)
    yield logger
    logger.setLevel(level)


def logger_with(handler: logging.Handler, name: str = "shop.orders") -> logging.Logger:
    logger = logging.Logger(name, logging.DEBUG)  # noqa: LOG001 - known to this test alone
    logger.addHandler(handler)
    return logger


def sent(handler: CloudLogHandler, line: Line) -> list[LogEntry]:
    handler.flush_timeout = 10.0
    handler.flush()
    return [entry for batch in line.batches for entry in batch.records]


# ── what is sent ──────────────────────────────────────────────────────────────────────────────────


def test_record_becomes_an_entry_with_all_that_it_says(line: Line, handlers: Make) -> None:
    handler = handlers(application="shop")
    logger_with(handler).warning("order %d of %s", 17, "smith")
    (entry,) = sent(handler, line)
    assert entry.text == "shop.orders: order 17 of smith"
    assert (entry.level, entry.application) == (30, "shop")
    assert entry.process_id == module.os.getpid()
    assert entry.thread_id == threading.get_native_id()
    assert abs(to_seconds(entry.time) - time.time()) < 60
    assert (entry.data_format, entry.data) == (0, b"")


def test_argument_that_changes_after_the_call_is_logged_as_it_was(
    line: Line, handlers: Make
) -> None:
    handler = handlers(linger=0.2)
    basket = ["apple"]
    logger_with(handler).info("basket %s", basket)
    basket.append("pear")
    assert sent(handler, line)[0].text == "shop.orders: basket ['apple']"


def test_exception_and_stack_are_part_of_the_text(line: Line, handlers: Make) -> None:
    handler = handlers()
    logger = logger_with(handler)
    try:
        int("wrong")
    except ValueError:
        logger.exception("failed")
    logger.info("here", stack_info=True)
    failed, here = sent(handler, line)
    assert failed.text.startswith("shop.orders: failed\nTraceback (most recent call last):\n")
    assert failed.text.endswith("\nValueError: invalid literal for int() with base 10: 'wrong'")
    assert here.text.startswith("shop.orders: here\nStack (most recent call last):\n")


def test_formatter_of_the_user_makes_the_text(line: Line, handlers: Make) -> None:
    handler = handlers()
    handler.setFormatter(logging.Formatter("<%(levelname)s %(message)s>"))
    logger_with(handler).info("x")
    assert sent(handler, line)[0].text == "<INFO x>"


def test_data_travel_with_the_record(line: Line, handlers: Make) -> None:
    handler = handlers()
    logger = logger_with(handler)
    logger.info("a", extra={"data": {"order": 17}})
    logger.info("b", extra={"data": b"\x00\xff"})
    found = [unpack_data(entry.data_format, entry.data) for entry in sent(handler, line)]
    assert found == [{"order": 17}, {"base64": "AP8="}]


def test_endless_text_is_cut_and_says_so(line: Line, handlers: Make) -> None:
    handler = handlers()
    logger_with(handler, "a").info("x" * 20_000)
    text = sent(handler, line)[0].text
    assert text == "a: " + "x" * (module.MOST_TEXT - 3) + "… (3619 more characters)"


def test_record_of_another_process_keeps_its_own_numbers(line: Line, handlers: Make) -> None:
    handler = handlers()
    record = logging.LogRecord("a", 20, "f", 1, "m", (), None)
    record.process, record.thread = 4711, (1 << 40) + 5
    handler.handle(record)
    (entry,) = sent(handler, line)
    assert (entry.process_id, entry.thread_id) == (4711, 5)


def test_queue_listener_in_another_thread_keeps_the_threads_apart(
    line: Line, handlers: Make
) -> None:
    handler = handlers()
    records: queue.SimpleQueue[Any] = queue.SimpleQueue()
    listener = logging.handlers.QueueListener(records, handler)
    listener.start()
    logger_with(logging.handlers.QueueHandler(records)).info("x")
    listener.stop()
    (entry,) = sent(handler, line)
    assert entry.text == "shop.orders: x"
    assert entry.thread_id == threading.get_ident() & 0xFFFFFFFF


def test_record_that_cannot_be_formatted_harms_nobody(
    line: Line, handlers: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = handlers()
    logger = logger_with(handler)
    logger.info("%d", "no number")
    logger.info("next")
    assert [entry.text for entry in sent(handler, line)] == ["shop.orders: next"]
    assert "--- Logging error ---" in capsys.readouterr().err


def test_records_of_many_threads_all_arrive_each_threads_in_order(
    line: Line, handlers: Make
) -> None:
    handler = handlers(capacity=100_000)
    logger = logger_with(handler, "t")

    def log(name: int) -> None:
        for number in range(1000):
            logger.info("%d %d", name, number)

    threads = [threading.Thread(target=log, args=(name,)) for name in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [entry.text.split()[1:] for entry in sent(handler, line)]
    for name in range(5):
        assert [n for t, n in found if t == str(name)] == [str(n) for n in range(1000)]
    assert len({entry.thread_id for batch in line.batches for entry in batch.records}) == 5


# ── never in the way ──────────────────────────────────────────────────────────────────────────────


def test_program_never_waits_while_no_broker_is_there(handlers: Make) -> None:
    handler = handlers(capacity=1000)
    logger = logger_with(handler)
    longest = 0.0
    for number in range(20_000):
        began = time.perf_counter()
        logger.info("order %d", number)
        longest = max(longest, time.perf_counter() - began)
    assert longest < 0.5
    assert handler.sent == 0
    assert handler.pending + handler.dropped == 20_000
    assert handler.pending <= 1000 + 1000 + 1  # what waits, and the batch in the sender's hands


def test_sender_does_not_send_what_it_logs_itself(
    line: Line, handlers: Make, root: logging.Logger
) -> None:
    handler = handlers()
    root.addHandler(handler)
    chatter = logging.getLogger("majordomus.net")
    line.on_send = lambda: chatter.warning("a batch is sent")
    try:
        logging.getLogger("shop").info("x")
        chatter.info("of a thread of the program")
        texts = [entry.text for entry in sent(handler, line)]
        time.sleep(0.2)
        assert handler.sent == 2
        assert texts == ["shop: x", "majordomus.net: of a thread of the program"]
    finally:
        root.removeHandler(handler)


def test_real_client_without_a_broker_feeds_nothing_back(
    handlers: Make, root: logging.Logger
) -> None:
    handler = handlers()
    root.addHandler(handler)
    try:
        logging.getLogger("shop").info("x")
        time.sleep(0.5)
        assert (handler.pending, handler.dropped) == (1, 0)
    finally:
        root.removeHandler(handler)


def test_end_of_logging_does_not_wait_for_a_sender_that_logs(
    line: Line, handlers: Make, root: logging.Logger
) -> None:
    handler = handlers(linger=10.0)
    root.addHandler(handler)
    line.on_send = lambda: logging.getLogger("majordomus.net").warning("sending")
    handler.flush_timeout = 20.0
    try:
        logging.getLogger("shop").info("x")
        began = time.monotonic()
        handler.acquire()  # as logging.shutdown does
        handler.flush()
        handler.close()
        handler.release()
        assert time.monotonic() - began < 10.0
        assert line.texts == ["shop: x"]
    finally:
        root.removeHandler(handler)


# ── the end ───────────────────────────────────────────────────────────────────────────────────────


def test_close_says_what_was_lost(capsys: pytest.CaptureFixture[str]) -> None:
    handler = CloudLogHandler("tcp://127.0.0.1:1", flush_timeout=0.0)
    logger_with(handler).info("x")
    handler.close()
    handler.close()
    said = "cloudlog: 1 log records were lost: no broker took them\n"
    assert capsys.readouterr().err == said
    logger_with(handler).info("too late")
    handler.flush()


@pytest.mark.parametrize(
    "options",
    [{"capacity": 0}, {"linger": -1}, {"ttl": 0}, {"flush_timeout": -1}, {"broker": "nonsense"}],
)
def test_wrong_setting_is_refused_when_the_handler_is_made(options: dict[str, Any]) -> None:
    before = len(logging._handlerList)  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError):
        CloudLogHandler(**options)
    assert len(logging._handlerList) == before  # type: ignore[attr-defined]


def test_program_is_called_what_its_file_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    for argument, name in [
        ("/srv/shop.py", "shop"),
        ("/srv/shop/__main__.py", "shop"),
        ("/usr/bin/gunicorn", "gunicorn"),
        ("-c", "python"),
        ("", "python"),
    ]:
        monkeypatch.setattr(module.sys, "argv", [argument])
        assert program() == name


def test_watch_reaches_the_line_of_every_handler(line: Line, handlers: Make) -> None:
    first, second = handlers(), handlers(application="other")
    cloudlog.watch("depth", 17)
    for handler in (first, second):
        handler.flush_timeout = 10.0
        handler.flush()
    found = [LogEntry.from_bytes(body) for _, body in line.sent]
    assert {entry.application for entry in found} == {"test", "other"}
    assert {watch.value for entry in found for watch in watches_of(entry)} == {"17"}

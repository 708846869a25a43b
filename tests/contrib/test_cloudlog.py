"""Handler, broker, collector and viewer together; the last tests in processes of their own."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from majordomus import AsyncClient, Broker, BrokerSettings, Client, Worker
from majordomus.contrib.cloudlog import CloudLogHandler, LogEntry, Query, follow, make_collector
from tests.cli.shell import LIMIT, Running, Shell, Terminal
from tests.contrib.conftest import entries, eventually, free_port, texts

QUICK = BrokerSettings(drain_timeout=0.2)
"""A stream that follows would hold a broker that is to stop for as long as it may."""

Make = Callable[..., CloudLogHandler]


def logger_with(handler: logging.Handler, name: str = "shop") -> logging.Logger:
    logger = logging.Logger(name, logging.DEBUG)  # noqa: LOG001 - known to this test alone
    logger.addHandler(handler)
    return logger


# ── in one process ────────────────────────────────────────────────────────────────────────────────


def test_records_of_two_programs_reach_the_collector(collecting: str, handlers: Make) -> None:
    shop, bank = handlers(collecting, application="shop"), handlers(collecting, application="bank")
    logger_with(shop).info("order %d", 1)
    logger_with(bank, "bank").error("no money")
    shop.flush_timeout = bank.flush_timeout = 10.0
    shop.flush()
    bank.flush()
    eventually(lambda: len(entries(collecting)) == 2)
    assert sorted(texts(collecting)) == ["bank: no money", "shop: order 1"]
    assert texts(collecting, level=logging.ERROR) == ["bank: no money"]
    assert texts(collecting, applications=["shop"]) == ["shop: order 1"]
    assert texts(collecting, grep="ord.r") == ["shop: order 1"]


def test_program_of_the_original_writes_to_our_collector(collecting: str) -> None:
    entry = LogEntry("order 1", 1, 7, 8, "Shop.exe", 45292.25)
    with Client(collecting, dialect="delphi") as client:
        client.call("cloudlog.write", entry.to_bytes(), timeout=10.0)
    assert entries(collecting, level=logging.WARNING) == [entry]


def test_viewers_are_told_how_many_records_were_dropped_while_the_broker_was_away(
    handlers: Make,
) -> None:
    port = free_port()
    url = f"tcp://127.0.0.1:{port}"
    handler = handlers(url, capacity=100)
    logger = logger_with(handler)
    for number in range(1000):
        logger.info("%d", number)
    dropped = handler.dropped
    assert 0 < dropped <= 900
    with Broker(bind=[url]), make_collector(url) as collector:
        collector.wait_ready()
        logger.info("back")
        eventually(lambda: "shop: back" in texts(url))
        found = texts(url)
    dropped = handler.dropped
    notices = [text for text in found if text.startswith("cloudlog: ")]
    told = sum(int(text.split()[1]) for text in notices)
    assert told == dropped == 1001 - (len(found) - len(notices))
    assert all(
        text.endswith("were dropped: the queue of their program was full") for text in notices
    )


def test_records_survive_the_restart_of_a_broker(handlers: Make) -> None:
    url = f"tcp://127.0.0.1:{free_port()}"
    handler = handlers(url, flush_timeout=10.0)
    logger = logger_with(handler)
    with make_collector(url) as collector:
        with Broker(bind=[url]):
            collector.wait_ready()
            logger.info("before")
            eventually(lambda: texts(url) == ["shop: before"])
        logger.info("meanwhile")
        time.sleep(0.2)
        with Broker(bind=[url]):
            eventually(lambda: collector.ready)
            logger.info("after")
            eventually(lambda: "shop: after" in texts(url))
            assert texts(url) == ["shop: before", "shop: meanwhile", "shop: after"]
    assert handler.dropped == 0


def test_follower_goes_on_where_it_was_when_the_broker_comes_back(handlers: Make) -> None:
    url = f"tcp://127.0.0.1:{free_port()}"
    handler = handlers(url, flush_timeout=10.0)
    logger = logger_with(handler)
    interruptions: list[Exception] = []

    async def watch(collector: Worker) -> list[str]:
        found: list[str] = []
        broker = Broker(QUICK, bind=[url])
        broker.start()
        await asyncio.to_thread(collector.wait_ready)
        async with AsyncClient(url) as client:
            query = Query(follow=True, last=10)
            parts = follow(client, query, interrupted=interruptions.append)
            logger.info("one")
            async for part in parts:
                found += [entry.text for entry in part.records]
                if found == ["shop: one"]:
                    await asyncio.to_thread(broker.stop)
                    logger.info("two")
                    broker = Broker(QUICK, bind=[url])
                    broker.start()
                elif len(found) == 2:
                    break
            await parts.aclose()
        broker.stop()
        return found

    with make_collector(url) as collector:
        assert asyncio.run(asyncio.wait_for(watch(collector), 30.0)) == ["shop: one", "shop: two"]
    assert interruptions


# ── programs ──────────────────────────────────────────────────────────────────────────────────────

PROGRAM = """
import logging, sys
from majordomus.contrib.cloudlog import CloudLogHandler, watch
logging.basicConfig(level=logging.INFO, handlers=[CloudLogHandler(sys.argv[1], flush_timeout=20.0)])
log = logging.getLogger("shop")
"""


def run(shell: Shell, url: str, program: str) -> str:
    """Runs a program to its end, and what it said on stderr."""
    path = shell.write("program.py", PROGRAM + program)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path), url],
        env=shell.environment,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
    )
    return done.stderr


def test_program_that_ends_at_once_loses_nothing(shell: Shell, collecting: str) -> None:
    said = run(
        shell,
        collecting,
        """
import atexit
atexit.register(log.info, "registered before the first record")
for number in range(5000):
    log.info("%d", number)
atexit.register(log.info, "registered after it")
""",
    )
    assert said == ""
    eventually(lambda: len(texts(collecting)) == 5000)  # as many as this collector holds
    found = texts(collecting)
    assert found[-2:] == [
        "shop: registered after it",
        "shop: registered before the first record",
    ]
    assert found[:-2] == [f"shop: {number}" for number in range(2, 5000)]
    assert {entry.application for entry in entries(collecting)} == {"program"}


def test_program_without_a_broker_ends_soon_and_says_what_it_lost(shell: Shell) -> None:
    began = time.monotonic()
    said = run(
        shell,
        "tcp://127.0.0.1:1",
        """
logging.getLogger().handlers[0].flush_timeout = 0.2
log.info("one")
log.info("two")
""",
    )
    assert said == "cloudlog: 2 log records were lost: no broker took them\n"
    assert time.monotonic() - began < 15.0


def test_forked_child_sends_its_own_records_and_not_its_parents(
    shell: Shell, collecting: str
) -> None:
    said = run(
        shell,
        collecting,
        """
import os
log.info("parent before")
watch("who", "parent")
logging.getLogger().handlers[0].flush()
log.info("parent queued")
child = os.fork()
if child == 0:
    log.info("child %d", os.getpid())
    log.info("child again")
    logging.shutdown()
    os._exit(0)
os.waitpid(child, 0)
log.info("parent after %d", child)
""",
    )
    assert said == ""
    eventually(lambda: len(texts(collecting)) == 5)
    found = entries(collecting)
    child = next(int(e.text.split()[-1]) for e in found if "child " in e.text)
    of_child = [entry.text for entry in found if entry.process_id == child]
    assert of_child == [f"shop: child {child}", "shop: child again"]
    assert [entry.text for entry in found if entry.process_id != child] == [
        "shop: parent before",
        "shop: parent queued",
        f"shop: parent after {child}",
    ]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_of_multiprocessing_lose_nothing_when_they_end(
    shell: Shell, collecting: str, method: str
) -> None:
    said = run(
        shell,
        collecting,
        f"""
import multiprocessing, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on forks of threads

def work(number):
    logging.getLogger("child").warning("work %d", number)

if __name__ == "__main__":
    log.info("parent")
    logging.getLogger().handlers[0].flush()
    context = multiprocessing.get_context({method!r})
    children = [context.Process(target=work, args=(number,)) for number in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
""",
    )
    assert said == ""
    wanted = ["child: work 0", "child: work 1", "child: work 2", "shop: parent"]
    eventually(lambda: sorted(texts(collecting)) == wanted)


# ── the command ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def harness(shell: Shell) -> str:
    """A broker and a collector as processes; the broker's URL."""
    url = shell.broker().url
    collector = shell.start("worker", "majordomus.contrib.cloudlog:collector", "--broker", url)
    collector.out.until("serving cloudlog.batch")
    answered = shell.run("call", "cloudlog.status", "--broker", url, "--timeout", "20")
    assert answered.code == 0
    return url


@pytest.fixture
def shop(harness: str) -> Iterator[CloudLogHandler]:
    """A handler of this process at the harness's broker."""
    handler = CloudLogHandler(harness, application="shop", flush_timeout=10.0)
    yield handler
    handler.close()


def test_command_shows_what_was_asked_for(
    shell: Shell, harness: str, shop: CloudLogHandler
) -> None:
    logger = logger_with(shop)
    logger.debug("one")
    logger.info("two\n2026-01-01 00:00:00.000 INFO     bank[1] forged\x1b[2J")
    logger.error("three", extra={"data": {"a": 1}})
    shop.flush()
    pid = os.getpid()

    def shown(*arguments: str) -> list[str]:
        done = shell.run("logs", "--broker", harness, *arguments)
        assert done.code == 0, done.err
        return [
            re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} ", "", line)
            for line in done.out.decode().splitlines()
        ]

    one = f"DEBUG    shop[{pid}] shop: one"
    two = [
        f"INFO     shop[{pid}] shop: two",
        "    2026-01-01 00:00:00.000 INFO     bank[1] forged\\x1b[2J",
    ]
    three = [f"ERROR    shop[{pid}] shop: three", '    {"a": 1}']
    eventually(lambda: shown() == [one, *two, *three])
    assert shown("--level", "info") == [*two, *three]
    assert shown("--level", "40") == three
    assert shown("--grep", "^shop: t") == [*two, *three]
    assert shown("--app", "shop", "--last", "1") == three
    assert shown("--app", "bank") == []
    (line,) = shown("--grep", "three", "--json")
    found = json.loads(line)
    assert (found["level"], found["pid"], found["data"]) == ("ERROR", pid, {"a": 1})


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--grep", "("], 2, "'(' is not a regular expression: missing )"),
        (["--level", "loud"], 2, "'loud' is not a level: expected a number or one of CRITICAL"),
        (["--last", "-1"], 2, "Invalid value for '--last'"),
        (["--broker", "tcp://127.0.0.1:1", "--timeout", "0.3"], 1, "no broker was reachable"),
    ],
)
def test_what_cannot_be_shown_is_told_in_one_line(
    shell: Shell, arguments: list[str], code: int, said: str
) -> None:
    done = shell.run("logs", *arguments)
    assert (done.code, done.out) == (code, b"")
    assert done.err.startswith("majordomus logs: ")
    assert said in done.err
    assert done.err.count("\n") == 1


def test_missing_collector_is_told_at_once(shell: Shell) -> None:
    url = shell.broker().url
    for arguments in ([], ["--follow"]):
        done = shell.run("logs", "--broker", url, *arguments)
        assert done.code == 1
        assert done.err.startswith("majordomus logs: 503 no worker serves 'cloudlog.tail'")
        start = "start a collector: majordomus worker majordomus.contrib.cloudlog:collector"
        assert done.err.endswith(f"; {start}\n")
        assert done.err.count("\n") == 1


def follower(shell: Shell, url: str, *arguments: str) -> Running:
    return shell.start("logs", "--follow", "--broker", url, *arguments)


def test_follower_shows_records_in_near_real_time(
    shell: Shell, harness: str, shop: CloudLogHandler
) -> None:
    logger = logger_with(shop)
    logger.info("before")
    viewer = follower(shell, harness, "--level", "INFO", "--app", "shop", "--grep", "before|now")
    viewer.out.until("before")
    delays = []
    for number in range(20):
        began = time.monotonic()
        logger.debug("now %d, but of no interest", number)
        logger.info("nothing")
        logger.info("now %d", number)
        assert viewer.out.next().endswith(f"shop: now {number}")
        delays.append(time.monotonic() - began)
    assert sorted(delays)[10] < 1.0, delays
    assert viewer.stop(signal.SIGINT) == 130
    assert viewer.err.rest() == []


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_follower_goes_on_when_the_collector_comes_back(shell: Shell, end: signal.Signals) -> None:
    url = shell.broker().url
    target = "majordomus.contrib.cloudlog:collector"

    def collector() -> Running:
        made = shell.start("worker", target, "--broker", url)
        made.out.until("serving cloudlog.batch")
        return made

    first = collector()
    handler = CloudLogHandler(url, application="shop", flush_timeout=10.0)
    try:
        logger = logger_with(handler)
        logger.info("one")
        viewer = follower(shell, url, "--timeout", "20")
        viewer.out.until("shop: one")
        first.stop(end)
        viewer.err.until("waiting")
        collector()
        logger.info("two")
        viewer.out.until("shop: two")
        assert viewer.stop(signal.SIGINT) == 130
    finally:
        handler.close()


def test_watches_are_shown_once_or_as_they_change(
    shell: Shell, harness: str, shop: CloudLogHandler
) -> None:
    pid = os.getpid()
    shop.watch("depth", 1)
    shop.watch("state", "up")
    shop.flush()
    viewer = follower(shell, harness, "--watch", "--json", "--timeout", "20")
    said = [json.loads(viewer.out.next()) for _ in range(2)]
    assert said == [
        {"app": "shop", "pid": pid, "name": "depth", "value": "1"},
        {"app": "shop", "pid": pid, "name": "state", "value": "up"},
    ]
    shop.watch("depth", 2)
    assert json.loads(viewer.out.next())["value"] == "2"
    assert viewer.stop(signal.SIGINT) == 130
    done = shell.run("logs", "--watch", "--grep", "dep", "--broker", harness)
    assert done.out.decode() == f"shop[{pid}] depth 2\n"
    shop.close()
    eventually(lambda: shell.run("logs", "--watch", "--broker", harness).err == "no live watches\n")


def test_terminal_shows_levels_in_colour(shell: Shell, harness: str, shop: CloudLogHandler) -> None:
    logger_with(shop).error("wrong")
    terminal = Terminal(shell, "logs", "--follow", "--broker", harness, "--grep", "wr")
    try:
        terminal.until("ong")
        assert "\x1b[1;31mERROR" in terminal.text
        assert "\x1b[7mwr\x1b[0m" in terminal.text
    finally:
        code = terminal.end()
    assert code == 130


def test_terminal_shows_watches_in_place(shell: Shell, harness: str, shop: CloudLogHandler) -> None:
    shop.watch("depth", "shallow")
    terminal = Terminal(shell, "logs", "--watch", "--follow", "--broker", harness)
    try:
        terminal.until("shallow")
        drawn = len(terminal.text)
        shop.watch("depth", "deep")
        terminal.until("deep")
        assert "\x1b[1A" in terminal.text[drawn - 20 :]  # over the lines that are there
        assert "shallow" not in terminal.text[drawn:]
    finally:
        code = terminal.end()
    assert code == 130

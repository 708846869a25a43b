"""`majordomus worker`: it serves, it comes back, it drains, and says in one line what is wrong."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from benchmarks.ledger.programs import children

from majordomus.errors import StatusError
from majordomus.net.client.client import Client
from tests.cli.shell import LIMIT, Running, Shell, alive, gone

WORKER = """
import os, time
from majordomus.net.worker.worker import Worker

worker = Worker("tcp://127.0.0.1:1")
nothing = 5

@worker.service("pid")
def pid(request):
    return str(os.getpid())

@worker.service("nap")
def nap(request):
    time.sleep(float(request.body))
    return "slept"

at_work = most = 0

@worker.service("parallel")
def parallel(request):
    global at_work, most
    at_work += 1
    most = max(most, at_work)
    time.sleep(0.3)
    at_work -= 1
    return str(most)
"""

MISSING = (
    "needs cannot be imported: ModuleNotFoundError: No module named 'no' ({folder}/needs.py:1)"
)

ASYNC_WORKER = """
from majordomus.net.worker.async_worker import AsyncWorker

worker = AsyncWorker()

@worker.service("hello")
async def hello(request):
    return b"hello, " + request.body
"""


def start(shell: Shell, broker: Running, *flags: str, source: str = WORKER) -> Running:
    """A worker with its module in the folder, told about the broker; returns when it is loaded."""
    shell.write("mine.py", source)
    running = shell.start("worker", "mine:worker", "--broker", broker.url, *flags)
    assert running.out.next().startswith("serving ")
    return running


def pids(client: Client, wanted: int) -> set[int]:
    """The processes that answer, when there are `wanted`."""
    found: set[int] = set()
    until = time.monotonic() + LIMIT
    while len(found) < wanted:
        assert time.monotonic() < until, f"only {found} answer"
        answers = [client.submit("pid") for _ in range(8)]
        found |= {int(answer.result().text) for answer in answers}
    assert len(found) == wanted
    return found


def test_worker_of_a_module_in_this_folder_serves_and_says_so(
    shell: Shell, broker: Running
) -> None:
    running = start(shell, broker)
    assert running.out.seen == [f"serving nap, parallel, pid at {broker.url}"]
    with Client(broker.url) as client:
        assert client.call("nap", b"0", timeout=LIMIT).body == b"slept"
    assert running.stop() == 0
    assert running.err.rest() == []


def test_async_worker_serves_as_well(shell: Shell, broker: Running) -> None:
    running = start(shell, broker, source=ASYNC_WORKER)
    with Client(broker.url) as client:
        assert client.call("hello", b"you", timeout=LIMIT).body == b"hello, you"
    assert running.stop(signal.SIGINT) == 0


def test_broker_s_url_may_come_from_the_environment(shell: Shell, broker: Running) -> None:
    shell.write("mine.py", WORKER)
    running = shell.start("worker", "mine:worker", MAJORDOMUS_BROKER=broker.url)
    assert running.out.next().endswith(f" at {broker.url}")


def test_as_many_functions_run_at_a_time_as_there_are_threads(
    shell: Shell, broker: Running
) -> None:
    start(shell, broker, "--threads", "2")
    with Client(broker.url) as client:
        replies = [client.submit("parallel") for _ in range(6)]
        assert max(int(reply.result(LIMIT).text) for reply in replies) == 2


def test_killed_process_is_started_again_while_the_others_serve(
    shell: Shell, broker: Running
) -> None:
    running = start(shell, broker, "--processes", "3")
    assert running.out.seen[0].endswith(" in 3 processes")
    with Client(broker.url) as client:
        first = pids(client, 3)
        victim = min(first)
        os.kill(victim, signal.SIGKILL)
        assert running.err.next() == (
            f"majordomus worker: process {victim} died (SIGKILL), restarting in 0.2 s"
        )
        until = time.monotonic() + LIMIT
        while victim in (second := pids(client, 3)) or second == first:
            assert time.monotonic() < until
        assert first - second == {victim}
    assert running.stop() == 0
    assert all(gone(pid) for pid in first | second)


def test_process_that_keeps_dying_is_started_after_growing_delays(
    shell: Shell, broker: Running
) -> None:
    source = WORKER + "\nimport threading\nthreading.Timer(2.0, os._exit, (3,)).start()\n"
    running = start(shell, broker, source=source)
    delays = [running.err.next().partition("died ")[2] for _ in range(3)]
    assert delays == [
        "(exit code 3), restarting in 0.2 s",
        "(exit code 3), restarting in 0.4 s",
        "(exit code 3), restarting in 0.8 s",
    ]
    assert running.stop() == 0


def test_drained_worker_finishes_its_request_first(shell: Shell, broker: Running) -> None:
    running = start(shell, broker)
    with Client(broker.url) as client:
        future = client.submit("nap", b"1.0", timeout=LIMIT)
        pids(client, 1)  # the nap came first: it is under way
        assert running.stop() == 0
        assert future.done()
        assert future.result().body == b"slept"


def test_second_signal_ends_at_once(shell: Shell, broker: Running) -> None:
    running = start(shell, broker)
    with Client(broker.url) as client:
        future = client.submit("nap", b"60", timeout=2)
        children = pids(client, 1)
        running.send(signal.SIGTERM)
        time.sleep(0.5)
        began = time.monotonic()
        assert running.stop() == 1
        assert time.monotonic() - began < 5
        assert running.err.rest() == ["majordomus worker: killed before all requests were answered"]
        assert all(gone(pid) for pid in children)
        with pytest.raises(StatusError):
            future.result(LIMIT)


def test_processes_end_when_their_supervisor_is_killed(shell: Shell, broker: Running) -> None:
    running = start(shell, broker, "--processes", "2")
    with Client(broker.url) as client:
        children = pids(client, 2)
    running.stop(signal.SIGKILL)
    assert all(gone(pid) for pid in children)


def test_reload_serves_the_changed_file_and_waits_out_a_broken_one(
    shell: Shell, broker: Running
) -> None:
    running = start(shell, broker, "--reload", source=ASYNC_WORKER)
    with Client(broker.url) as client:
        assert client.call("hello", b"you", timeout=LIMIT).body == b"hello, you"
        shell.write("mine.py", "this is no Python")
        assert running.err.next() == "majordomus worker: mine.py changed, restarting"
        assert running.err.next().startswith(
            "majordomus worker: mine cannot be imported: SyntaxError"
        )
        assert (
            running.err.next()
            == "majordomus worker: waiting for a changed file before the next start"
        )
        assert client.call("hello", b"you", timeout=LIMIT).body == b"hello, you"
        shell.write("mine.py", ASYNC_WORKER.replace("hello, ", "good morning, "))
        assert running.err.next() == "majordomus worker: mine.py changed, restarting"
        assert running.err.next() == "majordomus worker: reloaded"
        assert running.out.next().startswith("serving ")
        assert client.call("hello", b"you", timeout=LIMIT).body == b"good morning, you"
    assert running.stop() == 0


def test_hangup_replaces_the_processes_one_at_a_time_and_no_call_waits(
    shell: Shell, broker: Running
) -> None:
    running = start(shell, broker, "--processes", "2")
    with Client(broker.url) as client:
        before = pids(client, 2)
        running.send(signal.SIGHUP)
        assert running.err.next() == "majordomus worker: SIGHUP, restarting"
        seen: list[int] = []
        longest = 0.0
        while len(seen) < 20 or not before.isdisjoint(seen[-20:]):
            began = time.monotonic()
            seen.append(int(client.call("pid", timeout=LIMIT, fail_fast=True).text))
            longest = max(longest, time.monotonic() - began)
        assert running.err.next() == "majordomus worker: reloaded"
        assert running.out.next() == f"serving nap, parallel, pid at {broker.url} in 2 processes"
        assert pids(client, 2).isdisjoint(before)
    assert longest < 1.0
    assert all(gone(pid) for pid in before)
    assert running.stop() == 0


def test_process_that_dies_while_it_is_replaced_is_replaced_by_its_successor_alone(
    shell: Shell, broker: Running
) -> None:
    """Both its successor and its restart served, and the supervisor did not wait any more."""
    running = start(shell, broker)
    with Client(broker.url) as client:
        (before,) = pids(client, 1)
        running.send(signal.SIGHUP)
        assert running.err.next() == "majordomus worker: SIGHUP, restarting"
        time.sleep(0.05)  # the successor has been started, and has not been imported yet
        os.kill(before, signal.SIGKILL)
        assert running.err.next().startswith(f"majordomus worker: process {before} died (SIGKILL)")
        assert running.err.next() == "majordomus worker: reloaded"
        assert running.out.next().startswith("serving ")
        time.sleep(0.5)  # the delay of a restart is 0.2 s
        assert children(running.process.pid) == sorted(pids(client, 1))
    assert running.stop() == 0


def test_hangup_leaves_the_old_processes_when_the_new_one_cannot_be_loaded(
    shell: Shell, broker: Running
) -> None:
    running = start(shell, broker)
    shell.write("mine.py", "this is no Python")
    with Client(broker.url) as client:
        before = pids(client, 1)
        running.send(signal.SIGHUP)
        assert running.err.next() == "majordomus worker: SIGHUP, restarting"
        assert running.err.next().startswith("majordomus worker: mine cannot be imported")
        assert running.err.next() == (
            "majordomus worker: the new process ended (exit code 2), the old ones go on"
        )
        assert pids(client, 1) == before
    assert running.stop() == 0


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("mine", "'mine': expected MODULE:NAME, as in worker:worker"),
        ("mine:", "'mine:': expected MODULE:NAME, as in worker:worker"),
        (
            "./mine.py:worker",
            "'./mine.py' is no module's name: write it as in import, without path and .py",
        ),
        (
            ".mine:worker",
            "'.mine' is no module's name: write it as in import, without path and .py",
        ),
        ("nowhere:worker", "no module 'nowhere' in {folder}"),
        ("mine:wrker", "'mine:wrker': mine has no wrker (it has worker)"),
        (
            "mine:nothing",
            "'mine:nothing': nothing is of type int, not a Worker or AsyncWorker (it has worker)",
        ),
        (
            "raises:worker",
            "raises cannot be imported: ZeroDivisionError: division by zero ({folder}/raises.py:2)",
        ),
        ("ends:worker", "ends cannot be imported: SystemExit: 3 ({folder}/ends.py:1)"),
        ("needs:worker", MISSING),
        (
            "empty:worker",
            "'empty:worker' has no service: decorate a function with @worker.service(name)",
        ),
    ],
)
def test_target_that_is_no_worker_is_wrong_usage_in_one_line(
    target: str, line: str, shell: Shell, tmp_path: Path
) -> None:
    shell.write("mine.py", WORKER)
    shell.write("raises.py", "x = 1\nx / 0\n")
    shell.write("ends.py", "raise SystemExit(3)\n")
    shell.write("needs.py", "import no\n")
    shell.write("empty.py", "from majordomus.net.worker.worker import Worker\nworker = Worker()\n")
    done = shell.run("worker", target, "--processes", "3")
    assert (done.code, done.out) == (2, b"")
    assert done.err == f"majordomus worker: {line.format(folder=tmp_path)}\n"


def test_wrong_url_of_the_broker_is_wrong_usage_in_one_line(shell: Shell) -> None:
    shell.write("mine.py", WORKER)
    done = shell.run("worker", "mine:worker", "--broker", "localhost:5555")
    assert (done.code, done.out) == (2, b"")
    assert done.err.startswith("majordomus worker: 'localhost:5555' is no endpoint")
    assert done.err.count("\n") == 1


def test_worker_whose_broker_is_not_there_says_so_and_goes_on_trying(shell: Shell) -> None:
    shell.write("mine.py", WORKER)
    running = shell.start("worker", "mine:worker")
    url = "tcp://127.0.0.1:1"
    assert running.err.next().endswith(
        f"cannot connect to {url} (connection refused); trying again"
    )
    assert running.stop() == 0
    assert running.out.rest() == []


def test_signal_before_the_worker_is_loaded_exits_0(shell: Shell, broker: Running) -> None:
    shell.write("mine.py", "open('begun', 'w').close()\nimport time\ntime.sleep(60)\n")
    running = shell.start("worker", "mine:worker")
    until = time.monotonic() + LIMIT
    while not (shell.folder / "begun").exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    assert running.stop() == 0
    assert not alive(running.process.pid)

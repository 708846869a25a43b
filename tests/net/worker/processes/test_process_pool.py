"""Handlers in processes: their requests and outcomes, how they die, and that no process is left
over."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from majordomus import BrokerSettings, system
from majordomus.errors import (
    BadRequest,
    ConfigurationError,
    DeadlineExceeded,
    HandlerFailed,
    NotFound,
    NotSupported,
    StatusError,
)
from majordomus.net.broker.broker import Broker
from majordomus.net.client.async_client import AsyncClient
from majordomus.net.client.client import Client
from majordomus.net.worker.async_worker import AsyncWorker
from majordomus.net.worker.processes import child, pool
from majordomus.net.worker.processes.target import Target
from majordomus.net.worker.worker import Worker
from tests.net.conftest import QUICK, complaints, eventually
from tests.net.worker.processes import handlers

WITHIN = 20.0
"""Seconds that anything may take here: an interpreter starts slowly on a loaded machine."""


@contextmanager
def serving(url: str, processes: int, kill_after: float = 2.0) -> Iterator[Worker]:
    worker = Worker(url, processes=processes, kill_after=kill_after)
    handlers.serve(worker)
    with worker:
        worker.wait_ready(WITHIN)
        yield worker


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, timeout=WITHIN) as made:
        yield made


@pytest.fixture
def worker(url: str) -> Iterator[Worker]:
    """A worker with one process."""
    with serving(url, 1) as made:
        yield made


def pids_of(worker: Worker) -> list[int]:
    """The handler processes of a worker now."""
    run = worker._active
    assert run is not None
    assert run._engine is not None
    processes = run._engine._processes
    assert processes is not None
    return [process.popen.pid for process in list(processes._all)]


@pytest.fixture(scope="class")
def serving_url() -> Iterator[str]:
    """A broker with a worker with one process, for all tests of a class."""
    with Broker(QUICK, bind=["tcp://127.0.0.1:0"]) as broker, serving(broker.endpoints[0], 1):
        yield broker.endpoints[0]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def written(file: Path, words: int = 1) -> list[str]:
    """The words of a file, as soon as there are at least so many."""
    eventually(lambda: file.exists() and len(file.read_text().split()) >= words, WITHIN)
    return file.read_text().split()


def capacities(client: Client) -> list[int]:
    workers = json.loads(client.call("mmi.workers").frames[1])
    return sorted(0 if worker["state"] == "draining" else worker["capacity"] for worker in workers)


class TestOneRequest:
    """All with one broker, and one worker with one process, which none of them ends."""

    @pytest.fixture
    def url(self, serving_url: str) -> str:
        return serving_url

    def test_handler_runs_in_another_process_of_its_own(self, client: Client) -> None:
        pids = {client.call("pid").text for _ in range(5)}
        assert len(pids) == 1
        assert pids != {str(os.getpid())}

    @pytest.mark.parametrize(
        "frames", [[], [b""], [b"a", b"", b"\xff" * 70_000], [b"x" * 3_000_000]]
    )
    def test_frames_come_back_as_they_were_sent(self, client: Client, frames: list[bytes]) -> None:
        assert client.call("echo", frames).frames == frames

    def test_handler_gets_deadline_client_and_metadata_of_its_request(self, client: Client) -> None:
        facts = client.call("facts", timeout=30.0, metadata={"colour": "red"}, once=True).frames
        service, client_id, left, metadata, once = (frame.decode() for frame in facts)
        assert (service, metadata, once) == ("facts", "{'colour': 'red'}", "True")
        assert int(client_id) > 0
        assert 20 < int(left) <= 30

    def test_typed_handler_decodes_and_encodes_in_its_process(self, client: Client) -> None:
        answer = client.call("mirror", handlers.Point(1, 2))
        assert handlers.Point.from_bytes(answer.body) == handlers.Point(2, 1)
        with pytest.raises(BadRequest):
            client.call("mirror", b"\xff\xff")

    def test_parts_come_as_they_are_made(self, client: Client, tmp_path: Path) -> None:
        file = tmp_path / "go"
        stream = client.stream("parts", str(file))
        assert next(stream).text == "first"
        file.touch()
        assert [part.text for part in stream] == ["second"]

    def test_parts_are_not_made_far_ahead_of_their_reader(
        self, client: Client, tmp_path: Path
    ) -> None:
        file = tmp_path / "made"
        with client.stream("eager", str(file)) as stream:
            next(stream)
            eventually(lambda: int(file.read_text() or 0) > 10, WITHIN)
            time.sleep(0.3)  # time enough to get far ahead
            assert int(file.read_text() or 0) < 200
            assert sum(1 for _ in stream) == 999

    def test_exception_carries_its_status_and_its_traceback_is_logged(
        self, client: Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        with pytest.raises(NotFound, match="no cat here"):
            client.call("absent", "cat")
        assert caplog.records == []
        with pytest.raises(HandlerFailed, match="ValueError: a reason"):
            client.call("boom", "a reason")
        (record,) = caplog.records
        assert "processes/handlers.py" in record.getMessage()
        assert "raise ValueError(request.text)" in record.getMessage()

    def test_stream_from_a_client_is_refused(self, client: Client) -> None:
        with client.open("echo") as conversation, pytest.raises(NotSupported, match="no stream"):
            for _ in conversation:
                pass

    def test_process_has_only_its_pipes_open_and_no_thread_of_zeromq(self, client: Client) -> None:
        assert client.call("descriptors").text == "socket socket"
        assert "ZMQ" not in client.call("threads").text.upper()

    @pytest.mark.parametrize(
        ("kind", "text"),
        [
            ("surrogate", "500 ValueError: \\udc80"),
            ("mute", "500 MuteError: its text cannot be read (SystemExit)"),
            ("text", "400 no such user"),
            ("status", "500 LocalProtocolError: bad-status: a status is an int"),
            ("frames", "500 LocalProtocolError: bad-body: a body is bytes"),
        ],
    )
    def test_outcome_that_is_hard_to_send_costs_its_process_nothing(
        self, client: Client, kind: str, text: str
    ) -> None:
        before = client.call("pid").body
        with pytest.raises(StatusError) as caught:
            client.call("hurt", kind)
        assert str(caught.value).startswith(text)
        assert client.call("pid").body == before


class TestOwnWorkers:
    def test_deadline_of_a_request_bounds_the_calls_of_its_handler(
        self, url: str, client: Client
    ) -> None:
        with serving(url, 2, kill_after=30.0):
            with suppress(DeadlineExceeded):  # the handler's own call ends a moment earlier
                client.call("asks", url, timeout=1.0)
            began = time.monotonic()
            assert client.call("pid").text  # the process has given up its own call
            assert time.monotonic() - began < WITHIN

    def test_async_worker_has_processes_too(self, url: str) -> None:
        async def scenario() -> str:
            worker = AsyncWorker(url, processes=1)
            handlers.serve(worker)
            async with worker, AsyncClient(url, timeout=WITHIN) as client:
                await worker.wait_ready(WITHIN)
                return (await client.call("pid")).text

        pid = int(asyncio.run(scenario()))
        assert pid != os.getpid()
        assert not alive(pid)


class TestDeath:
    def test_request_of_a_killed_process_is_answered_by_its_successor(
        self, worker: Worker, client: Client, tmp_path: Path
    ) -> None:
        file = tmp_path / "who"
        future = client.submit("held", str(file))
        (first,) = written(file)
        os.kill(int(first), signal.SIGKILL)
        assert future.result(WITHIN).text == file.read_text().split()[1] != first

    def test_request_that_kills_its_process_costs_two_and_fails_with_the_cause(
        self, worker: Worker, client: Client, tmp_path: Path
    ) -> None:
        file = tmp_path / "victims"
        with pytest.raises(HandlerFailed, match=r"died: killed by SIGSEGV.* 2 in all"):
            client.call("segfault", str(file))
        assert len(file.read_text().split()) == 2
        assert client.call("pid").text not in file.read_text().split()

    def test_durable_request_that_kills_its_process_runs_as_often_as_its_broker_says(
        self, tmp_path: Path
    ) -> None:
        file = tmp_path / "victims"
        settings = BrokerSettings(store=f"sqlite:{tmp_path / 'store.db'}", retry_delay=0.05)
        with Broker(settings, bind="tcp://127.0.0.1:0") as broker:
            worker = Worker(broker.endpoints)
            worker.add("segfault", handlers.segfault, run="process", durable=True, max_attempts=2)
            died = pytest.raises(HandlerFailed, match=r"died: killed by SIGSEGV$")
            with worker, Client(broker.endpoints) as client, died:
                client.call("segfault", str(file), durable=True, timeout=WITHIN)
        assert len(file.read_text().split()) == 2

    def test_request_that_may_run_once_costs_one(
        self, worker: Worker, client: Client, tmp_path: Path
    ) -> None:
        file = tmp_path / "victims"
        with pytest.raises(HandlerFailed, match=r"died: killed by SIGSEGV$"):
            client.call("segfault", str(file), once=True)
        assert len(file.read_text().split()) == 1

    def test_stream_of_a_killed_process_fails_after_the_parts_that_it_sent(
        self, worker: Worker, client: Client
    ) -> None:
        stream = client.stream("part_and_death")
        assert next(stream).text == "first"
        with pytest.raises(HandlerFailed, match="killed by SIGKILL"):
            next(stream)

    def test_process_that_dies_idle_is_replaced_and_costs_no_request(
        self, worker: Worker, client: Client
    ) -> None:
        for _ in range(3):
            pid = client.call("pid").text
            os.kill(int(pid), signal.SIGKILL)
            assert client.call("pid", once=True).text != pid

    def test_processes_that_die_before_they_have_loaded_are_replaced_after_a_delay(
        self, worker: Worker, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pool, "FIRST_DELAY", 0.01)
        client.call("pid")
        for _ in range(3):
            (died,) = pids_of(worker)
            os.kill(died, signal.SIGKILL)
            eventually(lambda died=died: pids_of(worker) not in ([], [died]), WITHIN)  # type: ignore[misc]
        assert [int(client.call("pid").text)] == pids_of(worker)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_signal_to_all_processes_ends_no_handler_process(
        self, worker: Worker, client: Client, number: signal.Signals, tmp_path: Path
    ) -> None:
        file = tmp_path / "who"
        future = client.submit("held", str(file))
        (pid,) = written(file)
        os.kill(int(pid), number)
        time.sleep(0.05)
        file.unlink()
        assert future.result(WITHIN).text == pid


class TestCancel:
    def test_cancel_is_seen_by_the_handler_and_the_process_stays(
        self, worker: Worker, client: Client, tmp_path: Path
    ) -> None:
        file = tmp_path / "state"
        future = client.submit("obeys_cancel", str(file))
        (pid,) = written(file)
        future.cancel()
        assert written(file, 2) == ["cancelled", pid]
        assert client.call("pid").text == pid

    def test_generator_is_closed_when_its_reader_leaves(
        self, worker: Worker, client: Client, tmp_path: Path
    ) -> None:
        file = tmp_path / "state"
        with client.stream("endless", str(file)) as stream:
            pid = next(stream).text
        assert written(file) == ["ended"]
        assert client.call("pid").text == pid

    def test_handler_that_ignores_its_cancellation_is_killed_with_its_process(
        self, url: str, client: Client, tmp_path: Path
    ) -> None:
        file = tmp_path / "who"
        with serving(url, 1, kill_after=0.1):
            client.call("pid")
            with pytest.raises(DeadlineExceeded):
                client.call("ignores_cancel", str(file), timeout=1.0)
            (pid,) = written(file)
            assert client.call("pid").text != pid
            assert not alive(int(pid))


class TestSizes:
    def test_capacity_is_the_number_of_processes_and_follows_it(
        self, url: str, client: Client
    ) -> None:
        worker = Worker(url, processes=2, threads=7)
        handlers.serve(worker)
        worker.add("thread", lambda request: b"")
        with worker:
            worker.wait_ready(WITHIN)
            assert capacities(client) == [2, 7]
            worker.resize(processes=3, threads=5)
            eventually(lambda: capacities(client) == [3, 5], WITHIN)
            worker.set_capacity(100)
            eventually(lambda: capacities(client) == [3, 100], WITHIN)
            worker.set_capacity(0)
            eventually(lambda: capacities(client) == [0, 0], WITHIN)
            worker.set_capacity(None)
            eventually(lambda: capacities(client) == [3, 5], WITHIN)
            assert client.call("pid").text

    def test_capacity_follows_the_services_that_are_added(self, url: str, client: Client) -> None:
        async def on_the_loop(request: object) -> bytes:
            return b""

        worker = Worker(url, processes=2, threads=7)
        worker.add("loop", on_the_loop)
        with worker:
            worker.wait_ready(WITHIN)
            assert capacities(client) == [1000]
            worker.add("thread", lambda request: b"here")
            eventually(lambda: capacities(client) == [7, 1000], WITHIN)
            worker.set_capacity(0)
            eventually(lambda: capacities(client) == [0, 0], WITHIN)
            worker.add("late", lambda request: b"late")
            worker.add("pid", handlers.pid, run="process")
            worker.set_capacity(None)
            eventually(lambda: capacities(client) == [2, 7, 1000], WITHIN)
            assert client.call("late").text == "late"
            assert client.call("pid").text

    def test_capacity_is_not_the_number_of_processors_if_a_number_is_given(
        self, url: str, client: Client
    ) -> None:
        processes = 1 if system.usable_processors() > 1 else 2
        worker = Worker(url, processes=processes)
        worker.add("pid", handlers.pid, run="process")
        with worker:
            worker.wait_ready(WITHIN)
            assert capacities(client) == [processes]

    def test_as_many_run_at_a_time_as_there_are_processes(
        self, url: str, client: Client, tmp_path: Path
    ) -> None:
        with serving(url, 1) as worker:
            files = [tmp_path / str(number) for number in range(3)]
            futures = [client.submit("held", str(file)) for file in files]
            eventually(lambda: sum(file.exists() for file in files) == 1, WITHIN)
            worker.resize(processes=3)
            pids = {written(file)[0] for file in files}
            assert len(pids) == 3
            worker.resize(processes=1)
            for file in files:
                file.unlink()
            assert {future.result(WITHIN).text for future in futures} == pids
            eventually(lambda: sum(alive(int(pid)) for pid in pids) == 1, WITHIN)
            assert client.call("pid").text in pids

    def test_worker_is_ready_when_all_its_processes_have_loaded(self, url: str) -> None:
        with serving(url, 2) as worker:
            assert worker._processes_started

    def test_processes_that_load_slowly_do_not_hold_up_a_ready_worker_for_longer_than_asked(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pool.ProcessPool, "started", False)
        worker = Worker(url, processes=1)
        handlers.serve(worker)
        with worker:
            eventually(lambda: worker.ready, WITHIN)
            worker.wait_ready(0.1)

    @pytest.mark.parametrize(
        "arguments", [{"processes": 0}, {"processes": 65536}, {"kill_after": -1.0}]
    )
    def test_impossible_sizes_are_refused(self, url: str, arguments: dict[str, int]) -> None:
        with pytest.raises(ConfigurationError):
            Worker(url, **arguments)  # type: ignore[arg-type]

    def test_impossible_sizes_are_refused_at_run_time_too(self, url: str) -> None:
        worker = Worker(url)
        for change in ({"threads": 0}, {"processes": 0}):
            with pytest.raises(ConfigurationError, match=r"at least 1|has 1 to"):
                worker.resize(**change)
        with pytest.raises(ConfigurationError, match="capacity"):
            worker.set_capacity(-1)
        with pytest.raises(ConfigurationError, match="mdp01 cannot pause"):
            Worker(url, dialect="mdp01").set_capacity(0)


class TestFunctions:
    @pytest.mark.parametrize(
        ("function", "why"),
        [
            (lambda request: b"", "inside of another"),
            (handlers.made(), "inside of another"),
            (functools.partial(handlers.echo), "it is a partial"),
            (handlers.Holder().method, "it is a method"),
            (print, "it is a builtin"),
            (handlers.coroutine, "made with def"),
        ],
    )
    def test_function_that_no_process_can_import_is_refused(
        self, url: str, function: object, why: str
    ) -> None:
        with pytest.raises(ConfigurationError, match=why):
            Worker(url).add("x", function, run="process")  # type: ignore[arg-type]

    def test_name_that_leads_to_another_function_is_refused(self, url: str) -> None:
        worker = Worker(url)
        worker.add("x", handlers.original, run="process")
        with pytest.raises(ConfigurationError, match="shadowed is not one: the name refers to"):
            worker.start()

    @pytest.mark.parametrize(
        ("run", "function", "why"),
        [
            ("fork", handlers.echo, "a thread, a process, a loop, not in 'fork'"),
            ("loop", handlers.echo, "made with async def"),
            ("thread", handlers.coroutine, "made with def"),
        ],
    )
    def test_place_that_does_not_fit_the_function_is_refused(
        self, url: str, run: str, function: object, why: str
    ) -> None:
        with pytest.raises(ConfigurationError, match=why):
            Worker(url).add("x", function, run=run)  # type: ignore[arg-type]

    def test_function_of_a_file_that_cannot_be_imported_by_its_name_is_found(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "aside.py"
        file.write_text("def name(request): return __name__\n")
        monkeypatch.setitem(sys.modules, "aside", sys)  # to be restored
        monkeypatch.delitem(sys.modules, "aside")
        found = child.find(Target("aside", "name", str(file)))
        assert found(None) == "aside"
        assert sys.modules["aside"].__file__ == str(file)

    def test_function_in_a_class_and_one_added_later_are_served(
        self, url: str, client: Client
    ) -> None:
        worker = Worker(url, processes=1)
        worker.add("thread", lambda request: b"")
        with worker:
            worker.wait_ready(WITHIN)
            worker.add("static", handlers.Holder.static, run="process")
            worker.add("pid", handlers.pid, run="process")
            assert client.call("static").text == "static"
            assert client.call("pid").text != str(os.getpid())


PROGRAM = """
import os, sys
from majordomus import Worker
{before}
worker = Worker({url!r}, processes=2)

@worker.service("pid", run="process")
def pid(request):
    return str(os.getpid())

if {guard}:
    worker.run()
"""
GUARD = '__name__ == "__main__"'


def program(folder: Path, url: str, *, before: str = "", guard: str = GUARD) -> list[str]:
    file = folder / "program.py"
    file.write_text(PROGRAM.format(url=url, before=before, guard=guard))
    return [sys.executable, str(file)]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=WITHIN)


class TestPrograms:
    def test_handlers_of_the_main_program_are_found(
        self, url: str, client: Client, tmp_path: Path
    ) -> None:
        worker = subprocess.Popen(program(tmp_path, url), stderr=subprocess.PIPE, text=True)
        pid = int(client.call("pid").text)
        assert pid != worker.pid
        worker.send_signal(signal.SIGTERM)
        _, errors = worker.communicate(timeout=WITHIN)
        assert (worker.returncode, complaints(errors)) == (0, [])
        assert not alive(pid)

    def test_main_program_that_starts_a_worker_on_import_fails_with_the_reason(
        self, url: str, tmp_path: Path
    ) -> None:
        done = run(program(tmp_path, url, guard="True"))
        assert done.returncode == 1
        assert 'start it below if __name__ == "__main__"' in done.stderr.splitlines()[-1]

    def test_module_that_a_process_cannot_import_ends_the_worker(
        self, url: str, tmp_path: Path
    ) -> None:
        before = "if __name__ != '__main__': raise ValueError('not today')"
        done = run(program(tmp_path, url, before=before))
        assert done.returncode == 1
        last = done.stderr.splitlines()[-1]
        assert last.endswith("a process cannot load the handlers: ValueError: not today")

    @pytest.mark.parametrize("busy", ["ignores_cancel", "hold_the_lock", "with_a_child"])
    @pytest.mark.parametrize("end", ["stop", "kill -9"])
    def test_no_process_outlives_its_worker(
        self, url: str, client: Client, tmp_path: Path, busy: str, end: str
    ) -> None:
        file = tmp_path / "who"
        text = (
            "from majordomus import Worker\n"
            "from tests.net.worker.processes.handlers import serve\n"
            f"worker = Worker({url!r}, processes=2, drain_timeout=0.1); serve(worker)\n"
            "worker.run()\n"
        )
        worker = subprocess.Popen([sys.executable, "-c", text], stderr=subprocess.PIPE, text=True)
        idle = int(client.call("pid").text)
        client.send(busy, str(file))
        pids = [idle, *map(int, written(file, 2 if busy == "with_a_child" else 1))]
        assert all(alive(pid) for pid in pids)
        worker.send_signal(signal.SIGTERM if end == "stop" else signal.SIGKILL)
        _, errors = worker.communicate(timeout=WITHIN)
        eventually(lambda: not any(alive(pid) for pid in pids), WITHIN)
        assert complaints(errors) == []


def test_handlers_that_end_their_processes_do_not_delay_the_requests_of_others(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "FIRST_DELAY", 3600.0)
    monkeypatch.setattr(pool, "LAST_DELAY", 3600.0)
    with serving(url, 1), Client(url, timeout=2 * WITHIN) as client:
        deaths = [client.submit("die") for _ in range(3)]
        assert client.call("pid").body
        for death in deaths:
            with pytest.raises(HandlerFailed, match="died: exit code 3, and so was"):
                death.result()

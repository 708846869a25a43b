"""The pool starts threads when it needs them, and never more than its size."""

from __future__ import annotations

import threading
import time

import pytest

from majordomus.net.worker.thread_pool import ThreadPool


def test_work_that_comes_one_by_one_needs_one_thread() -> None:
    pool = ThreadPool(4, "one-by-one")
    try:
        names = set()
        for _ in range(5):
            done = threading.Event()
            pool.submit(lambda done=done: (names.add(threading.current_thread().name), done.set()))  # type: ignore[misc]
            assert done.wait(2)
            time.sleep(0.01)
        assert names == {"one-by-one-0"}
    finally:
        pool.close(1.0)


def test_work_at_the_same_time_gets_a_thread_each_up_to_the_size() -> None:
    pool = ThreadPool(3)
    release, running, done = threading.Event(), threading.Semaphore(0), threading.Semaphore(0)

    def work() -> None:
        running.release()
        release.wait(5)
        done.release()

    try:
        for _ in range(5):
            pool.submit(work)
        for _ in range(3):
            assert running.acquire(timeout=2)
        assert not running.acquire(timeout=0.05)
        release.set()
        for _ in range(5):
            assert done.acquire(timeout=2)
    finally:
        pool.close(2.0)
    assert not [
        thread for thread in threading.enumerate() if thread.name.startswith("majordomus-handler")
    ]


def test_thread_that_hangs_does_not_hold_the_close() -> None:
    pool = ThreadPool(1)
    release = threading.Event()
    pool.submit(lambda: release.wait(5) and None)
    began = time.monotonic()
    pool.close(0.05)
    assert time.monotonic() - began < 1.0
    release.set()


def occupy(pool: ThreadPool, count: int) -> tuple[threading.Event, threading.Semaphore]:
    """Submit work `count` times; each releases the semaphore and runs until the event is set."""
    release, running = threading.Event(), threading.Semaphore(0)

    def work() -> None:
        running.release()
        release.wait(20)

    for _ in range(count):
        pool.submit(work)
    return release, running


def alive(name: str) -> int:
    return sum(thread.name.startswith(name) for thread in threading.enumerate())


def wait_for(name: str, count: int) -> None:
    until = time.monotonic() + 10
    while alive(name) != count:
        assert time.monotonic() < until, f"{alive(name)} threads, {count} are wanted"
        time.sleep(0.005)


def test_pool_that_grows_starts_waiting_work_at_once() -> None:
    pool = ThreadPool(1, "grows")
    release, running = occupy(pool, 4)
    try:
        assert running.acquire(timeout=5)
        assert not running.acquire(timeout=0.05)
        pool.resize(3)
        for _ in range(2):
            assert running.acquire(timeout=5)
        assert not running.acquire(timeout=0.05)
    finally:
        release.set()
        pool.close(5.0)
    assert alive("grows") == 0


def test_pool_that_shrinks_ends_idle_threads_at_once_and_busy_ones_after_their_work() -> None:
    pool = ThreadPool(4, "shrinks")
    release, running = occupy(pool, 4)
    for _ in range(4):
        assert running.acquire(timeout=5)
    try:
        pool.resize(2)
        assert alive("shrinks") == 4
        release.set()
        wait_for("shrinks", 2)
        pool.resize(1)
        wait_for("shrinks", 1)
        release, running = occupy(pool, 2)
        assert running.acquire(timeout=5)
        assert not running.acquire(timeout=0.05)
        release.set()
        assert running.acquire(timeout=5)
    finally:
        release.set()
        pool.close(5.0)
    assert alive("shrinks") == 0


def test_no_work_is_lost_while_the_size_changes() -> None:
    pool = ThreadPool(1, "changes")
    done = threading.Semaphore(0)
    for number in range(3000):
        pool.submit(done.release)
        if number % 7 == 0:
            pool.resize(1 + number % 5)
    for _ in range(3000):
        assert done.acquire(timeout=10)
    pool.close(5.0)
    assert alive("changes") == 0


def test_thread_whose_work_raises_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    pool = ThreadPool(1, "hurt")
    done, names = threading.Event(), []

    def hurt() -> None:
        names.append(threading.current_thread().name)
        raise SystemExit(2)

    def note() -> None:
        names.append(threading.current_thread().name)
        done.set()

    try:
        pool.submit(hurt)
        pool.submit(note)
        assert done.wait(5)
    finally:
        pool.close(2.0)
    assert names == ["hurt-0", "hurt-0"]
    assert "the work of a thread raised" in caplog.text
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[0] is SystemExit


def test_work_is_dropped_when_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ThreadPool(1)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            pool.submit(lambda: pytest.fail("it was dropped"))
    done = threading.Event()
    pool.submit(done.set)
    assert done.wait(5)
    pool.close(2.0)

"""The pool makes threads when it needs them, never more than it may."""

from __future__ import annotations

import threading
import time

from majordomus.net.pool import Pool


def test_work_that_comes_one_by_one_needs_one_thread() -> None:
    pool = Pool(4, "one-by-one")
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
    pool = Pool(3)
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
    pool = Pool(1)
    release = threading.Event()
    pool.submit(lambda: release.wait(5) and None)
    began = time.monotonic()
    pool.close(0.05)
    assert time.monotonic() - began < 1.0
    release.set()

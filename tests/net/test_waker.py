"""A wake-up ends a wait once, however often it was given, and may come too late."""

from __future__ import annotations

import select

from majordomus.net.waker import Waker


def readable(waker: Waker) -> bool:
    return bool(select.select([waker.fd], [], [], 0)[0])


def test_many_wake_ups_are_cleared_together() -> None:
    waker = Waker()
    try:
        assert not readable(waker)
        for _ in range(1_000_000 // 100):
            waker.wake()
        assert readable(waker)
        waker.clear()
        assert not readable(waker)
        waker.clear()
    finally:
        waker.close()


def test_wake_up_after_the_close_is_nothing() -> None:
    waker = Waker()
    waker.close()
    waker.close()
    waker.wake()
    waker.clear()

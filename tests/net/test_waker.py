"""Many wake-ups end one wait, and a wake-up after the close has no effect."""

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


def test_wake_after_close_has_no_effect() -> None:
    waker = Waker()
    waker.close()
    waker.close()
    waker.wake()
    waker.clear()

"""A wait for several descriptors ends in its time, and names every one that is readable."""

from __future__ import annotations

import threading

import pytest

from majordomus import system
from majordomus.net.readiness import Readiness
from majordomus.net.waker import Waker


@pytest.fixture(params=["poll", "select"])
def _kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "select":  # as on Windows
        monkeypatch.setattr(system, "poller", lambda: None)


@pytest.mark.usefixtures("_kind")
def test_every_readable_descriptor_has_its_bit_and_a_wait_for_none_ends() -> None:
    wakers = [Waker(), Waker(), Waker()]
    late = threading.Timer(5.0, wakers[0].wake)  # ends a wait that has no time of its own
    late.start()
    try:
        wait = Readiness(*(waker.fd for waker in wakers))
        assert wait(1) == 0
        wakers[0].wake()
        wakers[2].wake()
        assert wait(1) == 0b101
    finally:
        late.cancel()
        late.join()
        for waker in wakers:
            waker.close()

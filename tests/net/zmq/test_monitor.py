"""The monitor reports the events of a socket's connections, and leaves nothing open."""

from __future__ import annotations

import time
from pathlib import Path

import zmq

from majordomus.net.zmq import sockets
from majordomus.net.zmq.monitor import Monitor, MonitorEvent, MonitorRecord


def wait_for(monitor: Monitor, event: MonitorEvent) -> list[MonitorRecord]:
    seen: list[MonitorRecord] = []
    while not any(one.event is event for one in seen):
        assert monitor.socket.poll(3000), f"{event!r} did not come, only {seen}"
        seen += monitor.read()
    return seen


def test_connecting_socket_sees_connection_and_end_in_order() -> None:
    with sockets.router(1000, 10) as router, sockets.dealer() as dealer:
        url = sockets.bind(router, "tcp://127.0.0.1:*")
        monitor = Monitor(dealer, MonitorEvent.CONNECTED, MonitorEvent.LOST)
        sockets.connect(dealer, url)
        wait_for(monitor, MonitorEvent.CONNECTED)
        dealer.send(b"it is there", zmq.NOBLOCK)
        router.close(0)
        assert [seen.event for seen in wait_for(monitor, MonitorEvent.LOST)] == [MonitorEvent.LOST]
        monitor.close()


def test_connecting_socket_reports_an_endpoint_without_a_listener() -> None:
    with sockets.dealer() as dealer:
        monitor = Monitor(dealer, MonitorEvent.CONNECTED, MonitorEvent.LOST, MonitorEvent.FAILED)
        sockets.connect(dealer, "tcp://127.0.0.1:1")
        ((event, wait),) = wait_for(monitor, MonitorEvent.FAILED)
        assert event is MonitorEvent.FAILED
        assert wait >= sockets.RECONNECT
        monitor.close()


def test_nothing_to_read_is_an_empty_list() -> None:
    with sockets.dealer() as dealer:
        monitor = Monitor(dealer, MonitorEvent.LOST)
        assert monitor.read() == []
        monitor.close()


def test_close_may_be_repeated_and_may_come_after_the_sockets_own() -> None:
    dealer = sockets.dealer()
    monitor = Monitor(dealer, MonitorEvent.LOST)
    dealer.close()
    monitor.close()
    monitor.close()
    assert monitor.socket.closed


def test_a_thousand_monitors_one_after_the_other_leave_no_descriptor() -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    def once() -> None:
        dealer = sockets.dealer()
        monitor = Monitor(dealer, MonitorEvent.LOST)
        monitor.close()
        dealer.close(0)

    once()
    before = descriptors()
    for _ in range(1000):
        once()
    until = time.monotonic() + 5.0
    while descriptors() > before and time.monotonic() < until:
        time.sleep(0.01)  # libzmq's reaper thread closes the last few
    assert descriptors() <= before

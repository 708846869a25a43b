"""What speaks something else than ZMTP is counted and logged, by what its connection is missing."""

from __future__ import annotations

import logging
import socket

import pytest

from majordomus import Broker, Client
from majordomus.net.broker.limits.non_zmtp_detector import Strays
from majordomus.net.broker.security import curve
from majordomus.net.zmq.monitor import MonitorEvent, MonitorRecord
from tests.net.conftest import QUICK, eventually

TCP = "tcp://127.0.0.1:0"


def hear(strays: Strays, *events: tuple[MonitorEvent, int]) -> list[int]:
    """The descriptors of those that are found."""
    return [value for event, value in events if strays.hear(MonitorRecord(event, value))]


def test_connection_that_ends_without_a_handshake_is_one() -> None:
    assert hear(Strays(), (MonitorEvent.ACCEPTED, 7), (MonitorEvent.LOST, 7)) == [7]


@pytest.mark.parametrize(
    "failure", [MonitorEvent.AUTH_FAILED, MonitorEvent.PROTOCOL_FAILED, MonitorEvent.BROKEN_OFF]
)
def test_connection_whose_handshake_failed_is_counted_elsewhere(failure: MonitorEvent) -> None:
    strays = Strays()
    assert hear(strays, (MonitorEvent.ACCEPTED, 7), (failure, 400), (MonitorEvent.LOST, 7)) == []
    assert hear(strays, (MonitorEvent.ACCEPTED, 7), (MonitorEvent.LOST, 7)) == [7]


def test_connection_that_came_in_is_none_whether_it_spoke_or_not() -> None:
    strays = Strays()
    came = [(MonitorEvent.ACCEPTED, 7), (MonitorEvent.CONNECTED, 0), (MonitorEvent.LOST, 7)]
    assert hear(strays, *came) == []
    hear(strays, *came[:2])
    strays.spoke(7)
    assert hear(strays, came[2]) == []
    assert hear(strays, (MonitorEvent.ACCEPTED, 8), (MonitorEvent.LOST, 8)) == [8]


def test_connection_that_we_cut_is_counted_elsewhere() -> None:
    strays = Strays()
    hear(strays, (MonitorEvent.ACCEPTED, 7))
    strays.cut(7)
    assert hear(
        strays, (MonitorEvent.LOST, 7), (MonitorEvent.ACCEPTED, 7), (MonitorEvent.LOST, 7)
    ) == [7]


def test_connection_from_before_the_watch_began_is_not_counted() -> None:
    assert hear(Strays(), (MonitorEvent.LOST, 7)) == []


@pytest.mark.parametrize(
    "text",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x16\x03\x01" + bytes(200),
        bytes(range(1, 255)),
    ],
)
def test_other_protocols_at_an_encrypted_port_are_refused_counted_and_logged_in_one_line(
    caplog: pytest.LogCaptureFixture, text: bytes
) -> None:
    caplog.set_level(logging.WARNING, "majordomus.broker")
    pair = curve.make()
    broker = Broker(QUICK, bind=TCP, curve=pair)
    with broker:
        port = int(broker.endpoints[0].rpartition(":")[2])
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as stray:
                stray.sendall(text)
                try:
                    while stray.recv(4096):
                        pass
                except ConnectionError:
                    pass
        loop = broker._loop
        assert loop is not None
        counts = loop._machine.registry.counts
        eventually(lambda: sum(counts.handshakes.values()) == 3)
        assert dict(counts.handshakes) == {"not-zmtp": 3}
        with Client(broker.endpoints[0], server_key=pair.public) as client:
            client.ping()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 3
    assert all(line.startswith("handshake-failed why=not-zmtp address=") for line in lines)

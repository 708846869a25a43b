"""Which transport is chosen, and how it is reported."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest
import zmq

from majordomus import Client
from majordomus.core.broker.settings import BrokerSettings
from majordomus.errors import ConfigurationError
from majordomus.net.broker import open_listener
from majordomus.net.broker.broker import Broker
from majordomus.net.connection.zmq_link import ZmqLink
from majordomus.net.zmq import select as wires
from majordomus.net.zmq import sockets
from majordomus.protocol import spec
from tests.net.conftest import RawPeer

OWN_MODULE = "majordomus.net.zmtp.router"
PUMP_MODULE = "majordomus.net.zmq._pump"


@pytest.fixture
def choice(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Choose as at the start of a process with this value of MAJORDOMUS_WIRE."""

    def choose(wanted: str) -> None:
        missing = wires._missing(wanted)
        monkeypatch.setattr(wires, "_wanted", wanted)
        monkeypatch.setattr(wires, "MISSING", missing)
        monkeypatch.setattr(wires, "OWN_ZMTP", not missing)
        monkeypatch.setattr(wires, "_warned", [])

    return choose


@pytest.fixture
def not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, OWN_MODULE, None)


@pytest.mark.skipif(sys.platform != "linux", reason="our own ZMTP needs Linux")
@pytest.mark.skipif(os.environ.get(wires.VARIABLE) == wires.PYZMQ, reason="pyzmq was asked for")
@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler to build it")
def test_own_zmtp_serves_where_there_is_a_compiler(
    choice: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    choice("")
    wires.check()
    assert wires.MISSING == ""
    assert caplog.records == []


def test_libzmq_that_is_forced_serves_without_a_warning(
    choice: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    choice("pyzmq")
    wires.check()
    assert wires.MISSING == "MAJORDOMUS_WIRE asks for it"
    assert caplog.records == []


@pytest.mark.usefixtures("not_built")
def test_libzmq_that_is_not_forced_is_logged_once(
    choice: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    choice("")
    wires.check()
    wires.check()
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("majordomus", logging.WARNING)
    assert "our own ZMTP was not built at installation" in record.getMessage()


def test_libzmq_on_another_system_is_not_logged(
    choice: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    choice("")
    wires.check()
    assert wires.MISSING == "our own ZMTP needs Linux"
    assert caplog.records == []


@pytest.mark.usefixtures("not_built")
def test_own_zmtp_that_is_forced_and_missing_is_an_error(choice: Callable[[str], None]) -> None:
    choice("zmtp")
    with pytest.raises(ConfigurationError, match="MAJORDOMUS_WIRE=zmtp is not available: our own"):
        Broker(bind="tcp://127.0.0.1:0").open()


@pytest.mark.parametrize("unknown", ["carrier-pigeon", "native"])
def test_unknown_wire_is_an_error(choice: Callable[[str], None], unknown: str) -> None:
    choice(unknown)
    with pytest.raises(ConfigurationError, match=f"={unknown} is unknown; use zmtp or pyzmq"):
        Broker(bind="tcp://127.0.0.1:0").open()
    with pytest.raises(ConfigurationError, match=f"={unknown} is unknown; use zmtp or pyzmq"):
        ZmqLink("inproc://nowhere")


@pytest.mark.parametrize(
    ("elsewhere", "reason"),
    [
        ("zmq.backend.Socket.__module__ = 'zmq.backend.cffi.socket'", "not on its Cython backend"),
        ("zmq.backend.cython._zmq.__file__ = '/nowhere.so'", "cannot be called: /nowhere.so"),
        ("zmq.zmq_version_info = lambda: (4, 9, 9)", "found was 4.3."),
    ],
    ids=["backend", "file", "version"],
)
def test_native_pump_refuses_a_pyzmq_that_it_does_not_know(elsewhere: str, reason: str) -> None:
    """In a process of its own: a native module is loaded once."""
    pytest.importorskip(PUMP_MODULE)
    program = f"""
import types, zmq, zmq.backend
from majordomus.net.zmq import pump
zmq.backend.Socket = types.SimpleNamespace(__module__=zmq.backend.Socket.__module__)
{elsewhere}
print(type(pump.make_pump(None, None)).__module__)
import {PUMP_MODULE}
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert done.stdout == "majordomus.net.zmq.pump\n"
    assert f"{reason}" in done.stderr.splitlines()[-1]


@pytest.fixture(params=["zmtp", "pyzmq"])
def seen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """What a broker has counted of the body of `TestCutMessages` when it refuses it.

    Our own ZMTP delivers a message as soon as it exceeds 1,000 bytes and 64 KiB for its head.
    """
    if request.param == "pyzmq":
        monkeypatch.setattr(open_listener, "is_own", lambda _, **__: False)
        return 90_000
    if not wires.OWN_ZMTP:
        pytest.skip("our own ZMTP is not built or not wanted")
    return 67_500


class TestCutMessages:
    """The machine refuses a truncated message like any other that is too large."""

    SETTINGS = BrokerSettings(max_message=1000, max_frames=100, drain_timeout=0.2)

    @pytest.mark.parametrize(
        ("body", "text"),
        [
            ([b"x" * 1500] * 60, "{} bytes or more; at most 1000 are allowed"),
            ([b""] * 2000, "116 frames or more; at most 100 are allowed"),
        ],
        ids=["bytes", "frames"],
    )
    def test_client_is_answered_413_and_continues(
        self, seen: int, body: list[bytes], text: str, peers: Callable[[str], RawPeer]
    ) -> None:
        with Broker(self.SETTINGS, bind="tcp://127.0.0.1:0") as broker:
            client = peers(broker.endpoints[0])
            client.request(b"echo", *body)
            header, frames = client.receive()
            assert header[:4] == (spec.FINAL, 0, spec.TOO_LARGE, 1)
            assert frames == [text.format(seen).encode()]
            client.request(b"mmi.service", b"echo", id=2)
            header, frames = client.receive()
            assert (header[2], frames) == (200, [b"404"])

    @pytest.mark.usefixtures("seen")
    def test_worker_whose_reply_is_truncated_stays_registered(
        self, peers: Callable[[str], RawPeer]
    ) -> None:
        with Broker(self.SETTINGS, bind="tcp://127.0.0.1:0") as broker:
            client, worker = (peers(broker.endpoints[0]) for _ in range(2))
            worker.ready(b"echo")
            client.request(b"echo", b"hello")
            request, _ = worker.receive()
            worker.final(request[3], *[b"x" * 1500] * 60)
            header, _ = client.receive()
            assert header[2] == spec.TOO_LARGE
            client.request(b"echo", b"again", id=2)
            request, body = worker.receive()
            assert body == [b"again"]


def test_peers_without_a_routing_id_are_served_by_libzmq_under_other_ids(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(open_listener, "is_own", lambda _, **__: False)
    with (
        Broker(bind="tcp://127.0.0.1:0") as broker,
        Client(broker.endpoints[0]) as client,
        sockets.context().socket(zmq.REQ) as anonymous,
        sockets.dealer() as thief,
    ):
        anonymous.setsockopt(zmq.LINGER, 0)
        anonymous.setsockopt(zmq.RCVTIMEO, 10_000)
        anonymous.connect(broker.endpoints[0])
        anonymous.send_multipart([b"MDPC01", b"mmi.service", b"nobody"])
        assert anonymous.recv_multipart()[-1] == b"404"
        thief.setsockopt(zmq.IMMEDIATE, 0)
        thief.setsockopt(zmq.ROUTING_ID, b"\0a thief")
        thief.setsockopt(zmq.LINGER, 0)
        thief.connect(broker.endpoints[0])
        thief.send_multipart([b"", b"MDPC01", b"mmi.service", b"nobody"])
        assert not thief.poll(200)
        client.ping()
        loop = broker._loop
        assert loop is not None
        registry = loop._machine.registry
        assert [peer for peer in registry.peers if peer[:1] == b"\0"] == []
        assert registry.counts.dropped == {"routing-id-reserved": 1}

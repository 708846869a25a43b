"""Which wire is chosen, and how it is reported."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq

from majordomus.core.broker.settings import BrokerSettings
from majordomus.errors import ConfigurationError
from majordomus.net.broker.broker import Broker
from majordomus.net.zmq import select as wires
from majordomus.net.zmq import sockets, wire
from majordomus.protocol import mdp03, spec
from tests import headers
from tests.net.conftest import RawPeer

NATIVE_MODULE = "majordomus.net.zmq._native"


@pytest.fixture
def choice(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Choose the wire as at the start of a process with this value of MAJORDOMUS_WIRE."""

    def choose(wanted: str) -> None:
        kind = wires._choose(wanted)
        monkeypatch.setattr(wires, "_wanted", wanted)
        monkeypatch.setattr(wires, "_kind", kind)
        monkeypatch.setattr(wires, "WIRE", kind.name)
        monkeypatch.setattr(wires, "_warned", [])

    return choose


@pytest.fixture
def not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, NATIVE_MODULE, None)


def make_one_of_each() -> list[str]:
    """The modules that the wires come from."""
    with sockets.dealer() as dealer, sockets.router(max_message=1000, send_hwm=10) as router:
        made = [wires.make_dealer(dealer), wires.make_router(router), wires.make_wait(router)]
    return [type(one).__module__ for one in made]


@pytest.mark.skipif(os.environ.get(wires.VARIABLE) == wires.TWIN, reason="the twin was asked for")
@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler to build it")
def test_native_wire_serves_where_there_is_a_compiler() -> None:
    assert wires.WIRE == wires.NATIVE


def test_native_wire_serves_without_being_forced(
    choice: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip(NATIVE_MODULE)
    choice("")
    assert make_one_of_each() == [NATIVE_MODULE] * 3
    assert caplog.records == []


def test_twin_that_is_forced_serves_without_a_warning(
    choice: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    choice("pyzmq")
    assert make_one_of_each() == [wire.__name__] * 3
    assert wires.WIRE == "pyzmq: MAJORDOMUS_WIRE asks for it"
    assert caplog.records == []


@pytest.mark.usefixtures("not_built")
def test_twin_that_is_not_forced_is_logged_once(
    choice: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    choice("")
    assert make_one_of_each() == [wire.__name__] * 3
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("majordomus", logging.WARNING)
    assert "the native wire was not built when this was installed" in record.getMessage()


@pytest.mark.usefixtures("not_built")
def test_native_wire_that_is_forced_and_missing_is_an_error(choice: Callable[[str], None]) -> None:
    choice("native")
    with pytest.raises(ConfigurationError, match="MAJORDOMUS_WIRE=native is not available"):
        Broker(bind="tcp://127.0.0.1:0").open()


def test_unknown_wire_is_an_error(choice: Callable[[str], None]) -> None:
    choice("carrier-pigeon")
    with pytest.raises(ConfigurationError, match="use zmtp, native or pyzmq"):
        make_one_of_each()


@pytest.mark.parametrize(
    ("elsewhere", "reason"),
    [
        ("zmq.backend.Socket.__module__ = 'zmq.backend.cffi.socket'", "not on its Cython backend"),
        ("zmq.backend.cython._zmq.__file__ = '/nowhere.so'", "cannot be called: /nowhere.so"),
        ("zmq.zmq_version_info = lambda: (4, 9, 9)", "found was 4.3."),
    ],
    ids=["backend", "file", "version"],
)
def test_native_wire_refuses_a_pyzmq_that_it_does_not_know(elsewhere: str, reason: str) -> None:
    """In a process of its own: a native module is loaded once."""
    native = pytest.importorskip(NATIVE_MODULE)
    program = f"""
import types, zmq, zmq.backend, majordomus.net.zmq
zmq.backend.Socket = types.SimpleNamespace(__module__=zmq.backend.Socket.__module__)
majordomus.net.zmq.__path__.append({str(Path(native.__file__).parent)!r})
{elsewhere}
from majordomus.net.zmq import select as wires
print(wires.WIRE)
"""
    said = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert said.stdout.startswith("pyzmq: the native wire refuses to load: "), said
    assert reason in said.stdout


SEEN = 67_500 if wires.OWN_ZMTP else 90_000
"""Our own ZMTP delivers a message as soon as it exceeds 1,000 bytes and 64 KiB for its head."""


@pytest.mark.parametrize("kind", ["native", "pyzmq"])
class TestCutMessages:
    """The machine refuses a truncated message like any other that is too large."""

    SETTINGS = BrokerSettings(max_message=1000, max_frames=100, drain_timeout=0.2)

    @pytest.mark.parametrize(
        ("body", "text"),
        [
            ([b"x" * 1500] * 60, f"{SEEN} bytes or more; at most 1000 are allowed"),
            ([b""] * 2000, "116 frames or more; at most 100 are allowed"),
        ],
        ids=["bytes", "frames"],
    )
    def test_client_is_answered_413_and_continues(
        self,
        kind: str,
        body: list[bytes],
        text: str,
        choice: Callable[[str], None],
        peers: Callable[[str], RawPeer],
    ) -> None:
        if kind == "native":
            pytest.importorskip(NATIVE_MODULE)
        choice(kind)
        with Broker(self.SETTINGS, bind="tcp://127.0.0.1:0") as broker:
            client = peers(broker.endpoints[0])
            client.request(b"echo", *body)
            header, frames = client.receive()
            assert header[:4] == (spec.FINAL, 0, spec.TOO_LARGE, 1)
            assert frames == [text.encode()]
            client.request(b"mmi.service", b"echo", id=2)
            header, frames = client.receive()
            assert (header[2], frames) == (200, [b"404"])

    def test_worker_whose_reply_is_truncated_stays_registered(
        self, kind: str, choice: Callable[[str], None], peers: Callable[[str], RawPeer]
    ) -> None:
        if kind == "native":
            pytest.importorskip(NATIVE_MODULE)
        choice(kind)
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


def test_header_too_large_to_be_bytes_is_parsed_all_the_same() -> None:
    """MDP/0.3 headers with two maps may be over SMALL: the codec takes a shared frame."""
    native: Any = pytest.importorskip(NATIVE_MODULE)
    flags = spec.METADATA | spec.BROKER_METADATA
    header = mdp03.pack(spec.FINAL, flags, 200, 5, metadata=b"\x80" * 8000)
    with sockets.router(max_message=1 << 20, send_hwm=10) as router, sockets.dealer() as dealer:
        url = sockets.bind(router, "tcp://127.0.0.1:*")
        dealer.setsockopt(zmq.IMMEDIATE, 0)
        sockets.connect(dealer, url)
        dealer.send_multipart([header, b"body"])
        assert router.poll(2000)
        ((_, (frame, _)),) = native.RouterWire(router).receive(1)
    assert type(frame) is native.SharedFrame
    assert headers.parse(frame) == headers.parse(header)

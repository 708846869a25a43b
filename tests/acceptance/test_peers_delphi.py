"""The broker accepts Delphi workers and clients with all their variants.

The workers run in the test's own thread: `pump` runs a worker until a condition holds.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise

import pytest

from majordomus import Broker, BrokerSettings
from tests.acceptance.conftest import ask, ask_json, wait_for_service
from tests.peers.delphi import HEARTBEAT, LOADS, READY, DelphiClient, DelphiWorker, seal, unseal
from tests.peers.loop import Client, Frames, Handler, echo
from tests.peers.rfc import Mdp02Client


def pump(worker: DelphiWorker, condition: Callable[[], bool], seconds: float = 5.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "the condition was never true"
        worker.socket.poll(20)
        worker.receive()
        worker.tick()


def keep(held: list[Frames]) -> Handler:
    """A handler that stores the body and sends no reply."""

    def handler(body: Frames) -> list[Frames]:
        held.append(body)
        return []

    return handler


def registered(
    endpoint: str, service: bytes, handler: Handler = echo, **more: object
) -> DelphiWorker:
    worker = DelphiWorker(endpoint, service, handler, **more)  # type: ignore[arg-type]
    pump(worker, lambda: bool(worker.ids))
    return worker


def test_broker_answers_ready_with_the_routing_id_in_upper_case_hex(endpoint: str) -> None:
    with Client(endpoint, ROUTING_ID=b"\x01delphi\xff") as peer:
        peer.send(seal([b"", READY, b"named"]))
        assert unseal(peer.receive()) == [b"", READY, b"0164656C706869FF"]


def test_second_ready_for_the_same_service_is_answered_again(endpoint: str) -> None:
    with closing(registered(endpoint, b"again", ready_again=True)) as worker:
        pump(worker, lambda: len(worker.ids) == 2)
        assert re.fullmatch(rb"[0-9A-F]+", worker.ids[0])
        assert worker.ids[0] == worker.ids[1]
        assert worker.registrations == 1


def test_ready_for_another_service_moves_the_worker(endpoint: str) -> None:
    with closing(registered(endpoint, b"before")) as worker:
        worker.service = b"after"
        worker.send_ready()
        pump(worker, lambda: len(worker.ids) == 2)
        assert ask(endpoint, b"mmi.service", b"before")[0] == b"404"
        assert ask(endpoint, b"mmi.service", b"after")[0] == b"200"


@pytest.mark.parametrize("delimit", [True, False], ids=["with ∅", "without ∅"])
def test_reply_is_accepted_with_and_without_the_empty_frame(endpoint: str, delimit: bool) -> None:
    with (
        closing(registered(endpoint, b"delimit", delimit=delimit)) as worker,
        DelphiClient(endpoint) as client,
    ):
        client.request(b"delimit", [b"one", b"", b"three"])
        pump(worker, lambda: worker.served == 1)
        assert client.reply(b"delimit") == [b"one", b"", b"three"]


@pytest.mark.parametrize(
    "load", ["one number", "comma", "loadavg", "NULs behind", "rubbish behind"]
)
def test_broker_uses_the_first_token_of_the_load_text(endpoint: str, load: str) -> None:
    with closing(registered(endpoint, b"load", load=load)) as worker:
        worker.send_heartbeat()
        assert load_becomes(endpoint, b"load", 0.25)
        worker.load = LOADS["empty"]
        worker.send_heartbeat()
        time.sleep(0.1)
        assert load_becomes(endpoint, b"load", 0.25)  # "an empty frame leaves the load as it was"


@pytest.mark.parametrize("load", ["never", "unreadable"])
def test_worker_with_load_minus_one_is_never_chosen(endpoint: str, load: str) -> None:
    with (
        closing(registered(endpoint, b"choice", load=load)) as unwilling,
        closing(registered(endpoint, b"choice")) as willing,
        DelphiClient(endpoint) as client,
    ):
        unwilling.send_heartbeat()
        assert load_becomes(endpoint, b"choice", -1.0)
        for number in range(1, 6):
            client.request(b"choice", [b"x"])
            pump(willing, lambda: willing.served == number)  # noqa: B023
        unwilling.receive()
        assert unwilling.served == 0


def load_becomes(endpoint: str, service: bytes, load: float) -> bool:
    """Whether a worker of the service gets the load `load` within a second."""
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        if load in [worker["load"] for worker in ask_json(endpoint, b"mmi.workers", service)]:
            return True
        time.sleep(0.02)
    return False


def test_delphi_worker_gets_any_number_of_requests_at_once(endpoint: str) -> None:
    held: list[Frames] = []
    with (
        closing(registered(endpoint, b"many", keep(held))) as worker,
        Mdp02Client(endpoint) as one,
        DelphiClient(endpoint) as other,
    ):
        for number in range(50):
            one.send([b"MDPC02", b"\x01", b"many", b"%d" % number])
            other.request(b"many", [b"%d" % number])
        pump(worker, lambda: len(held) == 100)
        for handle, body in zip(worker.handles, held, strict=True):
            worker.send_reply(handle, body)
        for number in range(50):
            assert one.receive()[3:] == [b"%d" % number]
            assert other.reply(b"many") == [b"%d" % number]


def test_reply_to_the_handle_of_a_delphi_client_answers_its_oldest_request(endpoint: str) -> None:
    with (
        closing(registered(endpoint, b"oldest", keep([]))) as worker,
        DelphiClient(endpoint) as client,
    ):
        for number in range(3):
            client.request(b"oldest", [b"%d" % number])
        pump(worker, lambda: len(worker.handles) == 3)
        assert len(set(worker.handles)) == 1
        for text in (b"first", b"second", b"third"):
            worker.send_reply(worker.handles[0], [text])
        assert [client.reply(b"oldest") for _ in range(3)] == [[b"first"], [b"second"], [b"third"]]


def test_late_second_reply_with_the_same_handle_reaches_a_delphi_client(endpoint: str) -> None:
    with (
        closing(registered(endpoint, b"late")) as worker,
        DelphiClient(endpoint) as client,
    ):
        client.request(b"late", [b"final"])
        pump(worker, lambda: worker.served == 1)
        assert client.reply(b"late") == [b"final"]
        worker.send_reply(worker.handles[0], [b"much", b"later"])
        assert client.reply(b"late", timeout=0.5) == [b"much", b"later"]


def test_late_second_reply_does_not_reach_a_client_of_another_dialect(endpoint: str) -> None:
    with (
        closing(registered(endpoint, b"late-02")) as worker,
        Mdp02Client(endpoint) as client,
    ):
        client.send([b"MDPC02", b"\x01", b"late-02", b"final"])
        pump(worker, lambda: worker.served == 1)
        assert client.receive() == [b"MDPC02", b"\x03", b"late-02", b"final"]
        worker.send_reply(worker.handles[0], [b"later"])
        assert client.rest(0.3) == []
        client.send([b"MDPC02", b"\x01", b"late-02", b"next"])
        pump(worker, lambda: worker.served == 2)
        assert client.receive() == [b"MDPC02", b"\x03", b"late-02", b"next"]


@pytest.mark.slow
def test_busy_delphi_worker_gets_a_heartbeat_each_interval(endpoint: str) -> None:
    beats: list[float] = []

    class Listener(DelphiWorker):
        def handle(self, frames: Frames) -> None:
            if frames[1] == HEARTBEAT:
                beats.append(time.monotonic())
            super().handle(frames)

    with (
        closing(Listener(endpoint, b"busy", echo)) as worker,
        DelphiClient(endpoint) as client,
    ):
        end = time.monotonic() + 8.0
        while time.monotonic() < end:
            client.request(b"busy", [b"x"])
            pump(worker, lambda: client.socket.poll(0) != 0)
            assert client.reply(b"busy") == [b"x"]
            time.sleep(0.02)
        assert worker.registrations == 1
    assert len(beats) == 3
    assert max(later - sooner for sooner, later in pairwise(beats)) < 3.0


@pytest.mark.slow
def test_delphi_worker_without_heartbeats_is_lost_unless_it_replies(endpoint: str) -> None:
    """docs/rules.md.8: 'Any traffic is a heartbeat'; §3 here: 'expiry 5 s'."""

    class Mute(DelphiWorker):
        def send_heartbeat(self) -> None:
            pass

    with (
        closing(Mute(endpoint, b"mute", echo)),
        closing(Mute(endpoint, b"talks", echo)) as talking,
        DelphiClient(endpoint) as client,
    ):
        wait_for_service(endpoint, b"mute")
        wait_for_service(endpoint, b"talks")
        began = time.monotonic()
        while ask(endpoint, b"mmi.service", b"mute")[0] == b"200":
            assert time.monotonic() < began + 20.0, "the worker was never considered lost"
            client.request(b"talks", [b"x"])
            pump(talking, lambda: client.socket.poll(0) != 0)
            assert client.reply(b"talks") == [b"x"]
            time.sleep(0.02)
        assert time.monotonic() > began + 4.0
        assert ask(endpoint, b"mmi.service", b"talks")[0] == b"200"
        assert talking.registrations == 1


@pytest.mark.parametrize("accepted", [False, True])
def test_hash_of_zero_is_accepted_only_with_the_setting(accepted: bool) -> None:
    settings = BrokerSettings(delphi_unverified=accepted)
    with (
        Broker(settings, bind="tcp://127.0.0.1:0") as broker,
        Client(broker.endpoints[0]) as peer,
    ):
        peer.send([b"", READY, b"unverified", b"\0\0\0\0"])
        assert (peer.rest(0.3) != []) is accepted
        if accepted:
            wait_for_service(broker.endpoints[0], b"unverified")

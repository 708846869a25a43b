"""An invalid message is counted by reason, is answered as the protocol requires, and has no effect.

A valid worker and a valid client stay connected during the tests and are not affected.
"""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from majordomus import Broker, BrokerSettings
from tests.acceptance.conftest import ask, ask_json, wait_for_service
from tests.peers import delphi, mdp03, rfc
from tests.peers.loop import Answer, Client, Frames, Worker, echo
from tests.peers.process import PYTHON, running
from tests.peers.rubbish import NAME, RUBBISH, Rubbish, mutation


@pytest.fixture(scope="module")
def own_endpoint() -> Iterator[str]:
    """A broker that only these tests use, with one valid worker."""
    with Broker(BrokerSettings(), bind="tcp://127.0.0.1:0") as broker:
        endpoint = broker.endpoints[0]
        served = f"{NAME.decode()}=echo"
        with running(*PYTHON, "tests.peers.serve", "mdp02", endpoint, served):
            wait_for_service(endpoint, NAME)
            yield endpoint


@pytest.fixture
def valid_traffic(own_endpoint: str) -> Iterator[None]:
    """Check that a valid call works before and after the test, over the same connections."""
    with mdp03.Mdp03Client(own_endpoint) as client:
        assert client.call(NAME, [b"before"]) == Answer([], [b"before"])
        (worker,) = ask_json(own_endpoint, b"mmi.workers", NAME)
        yield
        assert client.call(NAME, [b"after"]) == Answer([], [b"after"])
        assert client.rest(0.02) == []
        assert [w["id"] for w in ask_json(own_endpoint, b"mmi.workers", NAME)] == [worker["id"]]


class Counters:
    """`dropped` and `refused` of mmi.stats, as differences from their values at the start."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.first = ask_json(endpoint, b"mmi.stats")

    def risen(self, name: str) -> dict[str, int]:
        now, before = ask_json(self.endpoint, b"mmi.stats")[name], self.first[name]
        return {key: n - before.get(key, 0) for key, n in now.items() if n != before.get(key, 0)}

    def wait(self, name: str, wanted: dict[str, int], seconds: float = 3.0) -> None:
        until = time.monotonic() + seconds
        while (risen := self.risen(name)) != wanted:
            assert time.monotonic() < until, f"{name}: {risen}, expected {wanted}"
            time.sleep(0.01)


@pytest.mark.parametrize("rubbish", RUBBISH.values(), ids=RUBBISH.keys())
def test_rubbish_is_counted_by_reason_and_has_no_other_effect(
    own_endpoint: str, valid_traffic: None, rubbish: Rubbish
) -> None:
    counters = Counters(own_endpoint)
    with Client(own_endpoint) as peer:
        peer.send(rubbish.frames)
        if rubbish.reason:
            counters.wait("dropped", {rubbish.reason: 1})
        else:
            counters.wait("refused", {str(rubbish.answer): 1})
        if isinstance(rubbish.answer, int):
            header = mdp03.read(frames := peer.receive())
            assert (header.command, header.code) == (mdp03.FINAL, rubbish.answer)
            assert frames[1].decode()  # the explanation
        elif rubbish.answer is not None:
            assert peer.receive() == rubbish.answer
        assert peer.rest(0.02) == []


@pytest.mark.parametrize("name", [b"mmi.service", b"mmi.stats", b"mmi.", b"mmi.mine"])
def test_worker_that_registers_a_management_name_is_disconnected(
    own_endpoint: str, name: bytes
) -> None:
    with Client(own_endpoint) as thief:
        thief.send([b"MDPW02", b"\x01", name])
        assert thief.receive() == [b"MDPW02", b"\x06"]
        assert ask(own_endpoint, b"mmi.service", name)[0] in (b"200", b"404")
        assert ask(own_endpoint, b"mmi.stats")[0] == b"200"
        assert thief.rest(0.02) == []


class SilentWorker(rfc.Mdp02Worker):
    """A worker that stores the addresses of its requests and sends no replies itself."""

    addresses: list[bytes]

    def open(self) -> None:
        self.addresses = []
        super().open()

    def answer(self, address: bytes, parts: list[Frames]) -> None:
        self.addresses.append(address)


def run_until(worker: Worker, until: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "the condition was never true"
        worker.socket.poll(20)
        worker.receive()


def test_reply_with_another_workers_address_is_refused(
    own_endpoint: str, valid_traffic: None
) -> None:
    counters = Counters(own_endpoint)
    with (
        closing(SilentWorker(own_endpoint, b"deaf", echo)) as owner,
        closing(SilentWorker(own_endpoint, b"other", echo)) as thief,
        rfc.Mdp02Client(own_endpoint) as client,
    ):
        wait_for_service(own_endpoint, b"other")
        client.send([b"MDPC02", b"\x01", b"deaf", b"question"])
        run_until(owner, lambda: bool(owner.addresses))
        thief.send_part(thief.final, owner.addresses[0], [b"stolen"])
        counters.wait("dropped", {"unasked-reply": 1})
        assert client.rest(0.02) == []
        owner.send_part(owner.final, owner.addresses[0], [b"true"])
        assert client.receive() == [b"MDPC02", b"\x03", b"deaf", b"true"]


def test_second_final_for_one_request_never_reaches_the_client(
    own_endpoint: str, valid_traffic: None
) -> None:
    counters = Counters(own_endpoint)
    with (
        closing(SilentWorker(own_endpoint, b"twice", echo)) as worker,
        rfc.Mdp02Client(own_endpoint) as client,
    ):
        client.send([b"MDPC02", b"\x01", b"twice", b"question"])
        run_until(worker, lambda: bool(worker.addresses))
        for text in (b"first", b"second"):
            worker.send_part(worker.final, worker.addresses[0], [text])
        worker.send_part(worker.partial, worker.addresses[0], [b"third"])
        assert client.receive() == [b"MDPC02", b"\x03", b"twice", b"first"]
        counters.wait("dropped", {"unasked-reply": 2})
        assert client.rest(0.02) == []


def test_reply_with_an_id_that_a_worker_does_not_hold_is_refused(
    own_endpoint: str, valid_traffic: None
) -> None:
    counters = Counters(own_endpoint)
    with closing(mdp03.Mdp03Worker(own_endpoint, b"guesser", echo)) as worker:
        worker.wait_until_welcome()
        for guess in (1, 7, (1 << 63) + 1, (1 << 64) - 1):
            worker.send([mdp03.write(mdp03.FINAL, code=200, id=guess), b"guess"])
        counters.wait("dropped", {"late-part": 2, "unasked-reply": 2})


def test_request_of_a_worker_that_sends_rubbish_goes_to_another_worker(own_endpoint: str) -> None:
    with (
        closing(SilentWorker(own_endpoint, b"mad", echo)) as mad,
        rfc.Mdp02Client(own_endpoint) as client,
    ):
        client.send([b"MDPC02", b"\x01", b"mad", b"question"])
        run_until(mad, lambda: bool(mad.addresses))
        mad.send([b"MDPW02", b"\x09", b"?"])
        assert mad.socket.poll(5000)
        assert mad.socket.recv_multipart() == [b"MDPW02", b"\x06"]
        with closing(rfc.Mdp02Worker(own_endpoint, b"mad", echo)) as sane:
            run_until(sane, lambda: sane.served == 1)
            assert client.receive() == [b"MDPC02", b"\x03", b"mad", b"question"]


def test_message_with_a_wrong_hash_from_a_known_delphi_worker_is_only_counted(
    own_endpoint: str, valid_traffic: None
) -> None:
    counters = Counters(own_endpoint)
    with closing(delphi.DelphiWorker(own_endpoint, b"hashless", echo)) as worker:
        run_until(worker, lambda: bool(worker.ids))
        worker.send([b"", delphi.HEARTBEAT, b"hashless", b"0.5", b"\0\0\0\0"])
        counters.wait("dropped", {"wrong-hash": 1})
        assert ask(own_endpoint, b"mmi.service", b"hashless")[0] == b"200"
        assert not worker.socket.poll(50)


def test_thousands_of_mutated_messages_do_not_affect_valid_traffic(
    own_endpoint: str, valid_traffic: None
) -> None:
    seed = int(os.environ.get("MAJORDOMUS_SEED", "2026"))
    rng = random.Random(seed)
    counters = Counters(own_endpoint)
    with ExitStack() as stack, mdp03.Mdp03Client(own_endpoint) as client:
        peers = [stack.enter_context(Client(own_endpoint)) for _ in range(20)]
        for number in range(5000):
            peer = rng.choice(peers)
            peer.send(mutation(rng))
            while peer.socket.poll(0):
                peer.receive()
            if number % 100 == 0:
                body = [b"%d" % number, b""]
                assert client.call(NAME, body) == Answer([], body), f"seed {seed}"
    dropped = counters.risen("dropped")
    assert sum(dropped.values()) > 2000, dropped
    assert len(dropped) > 10, dropped


@pytest.mark.parametrize(
    "greeting",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        os.urandom(300),
        b"\xff\0\0\0\0\0\0\0\x01\x7f",  # the first half of a ZMTP greeting, then nothing
        b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\x01NULL".ljust(64, b"\0") + b"\x04\xff" * 50,
    ],
    ids=["nothing", "HTTP", "noise", "half a greeting", "rubbish behind a greeting"],
)
def test_connection_that_is_not_zeromq_has_no_effect(
    own_endpoint: str, valid_traffic: None, greeting: bytes
) -> None:
    host, _, port = own_endpoint.removeprefix("tcp://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5.0) as connection:
        connection.sendall(greeting)
        with mdp03.Mdp03Client(own_endpoint) as client:
            assert client.call(NAME, [b"meanwhile"]).final == [b"meanwhile"]

"""The rules of docs/spec/mdp-0.3.md, tested by raw sockets written only from that page."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from majordomus import Broker, BrokerSettings
from tests.acceptance.conftest import wait_for_service
from tests.peers.loop import Client, Frames, echo
from tests.peers.mdp03 import (
    BROKER_METADATA,
    CANCEL,
    CAPACITY,
    DISCONNECT,
    EVENT,
    FAIL_FAST,
    FINAL,
    HEARTBEAT,
    HELLO,
    METADATA,
    ONCE,
    ONE_WAY,
    PARTIAL,
    READY,
    REJECT,
    REQUEST,
    SUBSCRIBE,
    UNSUBSCRIBE,
    WELCOME,
    FailedError,
    Header,
    Mdp03Client,
    Mdp03ReqClient,
    Mdp03Worker,
    read,
    write,
)


class ManualWorker(Mdp03Worker):
    """A worker that stores each message; the test takes messages and sends the replies."""

    def open(self) -> None:
        self.inbox: list[tuple[Header, Frames]] = []
        super().open()

    def handle(self, frames: Frames) -> None:
        header = read(frames)
        self.inbox.append((header, frames[1:]))
        if header.command == WELCOME:
            self.welcome = header

    def take(self, command: int, seconds: float = 5.0) -> tuple[Header, Frames]:
        """Return the first message with this command, and drop the messages before it."""
        until = time.monotonic() + seconds
        while True:
            while self.inbox:
                header, body = self.inbox.pop(0)
                if header.command == command:
                    return header, body
            assert time.monotonic() < until, f"no command {command}"
            self.socket.poll(20)
            self.receive()


Join = Callable[..., ManualWorker]


@pytest.fixture
def join(endpoint: str) -> Iterator[Join]:
    """A function that registers a ManualWorker. The workers are closed at the end."""
    workers: list[ManualWorker] = []

    def one(service: bytes, capacity: int = 1) -> ManualWorker:
        workers.append(ManualWorker(endpoint, service, echo, capacity=capacity))
        workers[-1].take(WELCOME)
        return workers[-1]

    yield one
    for worker in workers:
        worker.close()


@pytest.fixture
def client(endpoint: str) -> Iterator[Mdp03Client]:
    with closing(Mdp03Client(endpoint)) as peer:
        yield peer


def test_first_ready_is_answered_with_welcome_and_later_ones_are_not(endpoint: str) -> None:
    with Mdp03Client(endpoint) as peer:
        peer.send([write(READY, code=3, service=b"w1")])
        header, body = peer.next()
        assert (header.command, header.flags, header.code, header.id) == (
            WELCOME,
            BROKER_METADATA,
            0,
            0,
        )
        assert (header.ttl, body) == (2500, [])
        assert header.address
        peer.send([write(READY, code=3, service=b"w2")])
        wait_for_service(endpoint, b"w2")
        assert peer.rest(0.1) == []


def test_request_to_a_worker_has_the_remaining_time_and_the_clients_handle(
    join: Join, client: Mdp03Client
) -> None:
    worker = join(b"look", capacity=2)
    for _ in range(2):
        client.request(b"look", [b"a", b""], ttl=3.0)
    (one, body), (two, _) = worker.take(REQUEST), worker.take(REQUEST)
    assert body == [b"a", b""]
    assert 1 <= one.ttl <= 3000
    assert one.service == b"look"
    assert one.address
    assert one.address == two.address
    assert one.id >> 63 == 1
    assert one.id != two.id
    worker.answer(two.id, [[b"2"]])
    worker.answer(one.id, [[b"1"]])
    first, second = client.next(), client.next()
    assert [(h.command, h.code, h.id, b) for h, b in (first, second)] == [
        (FINAL, 200, 2, [b"2"]),
        (FINAL, 200, 1, [b"1"]),
    ]
    assert worker.welcome is not None
    assert first[0].address == worker.welcome.address


def test_worker_never_gets_more_than_its_capacity(join: Join, client: Mdp03Client) -> None:
    worker = join(b"slots", capacity=3)
    for number in range(5):
        client.request(b"slots", [b"%d" % number])
    held = [worker.take(REQUEST) for _ in range(3)]
    with pytest.raises(AssertionError, match="no command"):
        worker.take(REQUEST, seconds=0.2)
    worker.answer(held[1][0].id, [held[1][1]])
    assert worker.take(REQUEST)[1] == [b"3"]
    worker.send([write(CAPACITY, code=4)])
    assert worker.take(REQUEST)[1] == [b"4"]


def test_client_receives_the_status_and_the_explanation_of_a_worker(
    join: Join, client: Mdp03Client
) -> None:
    worker = join(b"raises")
    id = client.request(b"raises", [])
    worker.send([write(FINAL, code=500, id=worker.take(REQUEST)[0].id), b"ValueError: no"])
    with pytest.raises(FailedError) as caught:
        client.finish(id)
    assert (caught.value.status, caught.value.body) == (500, [b"ValueError: no"])


def test_fail_fast_request_is_refused_at_once_without_a_worker(client: Mdp03Client) -> None:
    with pytest.raises(FailedError) as caught:
        client.finish(client.request(b"nobody-here", [b"x"], flags=FAIL_FAST), timeout=1.0)
    assert caught.value.status == 503
    assert b"nobody-here" in caught.value.body[0]


def test_deadline_ends_a_call_with_503_without_a_worker_and_408_with_one(
    join: Join, client: Mdp03Client
) -> None:
    with pytest.raises(FailedError) as caught:
        client.finish(client.request(b"never-there", [], ttl=0.2), timeout=2.0)
    assert caught.value.status == 503
    worker = join(b"slow")
    id = client.request(b"slow", [], ttl=0.2)
    dispatch, _ = worker.take(REQUEST)
    with pytest.raises(FailedError) as caught:
        client.finish(id, timeout=2.0)
    assert caught.value.status == 408
    assert worker.take(CANCEL)[0].id == dispatch.id


def test_cancel_is_answered_499_and_forwarded_to_the_worker(
    join: Join, client: Mdp03Client
) -> None:
    worker = join(b"cancelled")
    id = client.request(b"cancelled", [])
    dispatch, _ = worker.take(REQUEST)
    client.send([write(CANCEL, id=id)])
    with pytest.raises(FailedError) as caught:
        client.finish(id)
    assert caught.value.status == 499
    assert worker.take(CANCEL)[0].id == dispatch.id
    other = client.request(b"cancelled", [b"next"])
    with pytest.raises(AssertionError, match="no command"):
        worker.take(REQUEST, seconds=0.2)  # only the FINAL frees the slot
    worker.send([write(FINAL, code=499, id=dispatch.id)])
    worker.answer(worker.take(REQUEST)[0].id, [[b"done"]])
    assert client.finish(other).final == [b"done"]


def test_one_way_request_is_served_and_never_answered(join: Join, client: Mdp03Client) -> None:
    worker = join(b"log")
    client.send([write(REQUEST, flags=ONE_WAY, service=b"log"), b"line"])
    header, body = worker.take(REQUEST)
    assert (header.flags & ONE_WAY, body) == (ONE_WAY, [b"line"])
    worker.answer(header.id, [[b"ignored"], [b"ignored"]])
    assert client.rest(0.2) == []


def test_rejected_request_goes_to_the_other_worker_even_under_once(
    join: Join, client: Mdp03Client
) -> None:
    workers = {worker.socket: worker for worker in (join(b"picky"), join(b"picky"))}
    id = client.request(b"picky", [b"x"], flags=ONCE)
    first = next(w for w in workers.values() if w.socket.poll(500) and not w.receive())
    (second,) = (w for w in workers.values() if w is not first)
    first.send([write(REJECT, id=first.take(REQUEST)[0].id)])
    header, body = second.take(REQUEST)
    assert (header.flags & ONCE, body) == (ONCE, [b"x"])
    second.send([write(REJECT, id=header.id)])
    with pytest.raises(FailedError) as caught:
        client.finish(id)
    assert caught.value.status == 503


def test_metadata_of_requests_and_replies_pass_unchanged(join: Join, client: Mdp03Client) -> None:
    worker = join(b"typed")
    asked, told = b"\x81\xa4type\xa4text", b"\x81\xa4type\xa3png"
    client.send([write(REQUEST, flags=METADATA, id=9, service=b"typed", metadata=asked)])
    header, _ = worker.take(REQUEST)
    assert (header.flags, header.metadata) == (METADATA, asked)
    worker.send([write(PARTIAL, flags=METADATA, id=header.id, metadata=told), b"p"])
    worker.send([write(FINAL, flags=METADATA, code=200, id=header.id, metadata=told)])
    part, final = client.next(), client.next()
    assert [(h.command, h.metadata, b) for h, b in (part, final)] == [
        (PARTIAL, told, [b"p"]),
        (FINAL, told, []),
    ]


def test_lost_workers_request_is_dispatched_again_with_its_attempt(
    join: Join, client: Mdp03Client
) -> None:
    loser = join(b"again")
    client.request(b"again", [b"x"])
    loser.take(REQUEST)
    loser.send([write(DISCONNECT)])
    header, body = join(b"again").take(REQUEST)  # "WELCOME, before any REQUEST"
    assert (header.flags, header.metadata, body) == (
        BROKER_METADATA,
        b"\x81\xa7attempt\x02",
        [b"x"],
    )
    assert client.rest(0.05) == []


def test_hello_is_answered_with_welcome_and_both_sides_send_heartbeats() -> None:
    settings = BrokerSettings(client_interval=0.2)
    with (
        Broker(settings, bind="tcp://127.0.0.1:0") as broker,
        Mdp03Client(broker.endpoints[0]) as peer,
    ):
        peer.send([write(HELLO)])
        header, _ = peer.next()
        assert (header.command, header.ttl) == (WELCOME, 200)
        for _ in range(4):
            header, _ = peer.next(timeout=1.0)
            assert header == Header(HEARTBEAT, 0, 0, 0, 0, b"", b"", b"")
            peer.send([write(HEARTBEAT)])
        silent_since = time.monotonic()
        while peer.next(timeout=1.0)[0].command == HEARTBEAT:
            assert time.monotonic() < silent_since + 2.0, "the client was never considered lost"


def present(peer: Mdp03Client) -> None:
    """Send HELLO and receive WELCOME."""
    peer.send([write(HELLO)])
    assert peer.next()[0].command == WELCOME


def asked(peer: Mdp03Client) -> None:
    """Wait until the broker has handled all earlier messages of this connection.

    It handles the messages of a connection in order, so the reply to a last request shows it.
    """
    peer.call(b"mmi.service", [b"x"])


def test_event_on_a_topic_reaches_its_subscribers_only(endpoint: str, client: Mdp03Client) -> None:
    with Mdp03Client(endpoint) as reader, Mdp03Client(endpoint) as other:
        for peer, pattern in ((reader, b"prices.*"), (other, b"weather.>")):
            present(peer)
            peer.send([write(SUBSCRIBE, service=pattern)])
            asked(peer)
        client.send([write(EVENT, service=b"prices.eur"), b"1.17", b""])
        header, body = reader.next()
        assert (header.command, header.id, header.service) == (EVENT, 0, b"prices.eur")
        assert body == [b"1.17", b""]
        reader.send([write(UNSUBSCRIBE, service=b"prices.*")])
        asked(reader)
        client.send([write(EVENT, service=b"prices.eur"), b"1.18"])
        asked(client)
        assert reader.rest(0.1) == other.rest(0.1) == []


def test_worker_pushes_to_the_client_of_a_handle_long_after_its_answer(
    endpoint: str, join: Join
) -> None:
    worker = join(b"slow")
    with Mdp03Client(endpoint) as client:
        present(client)
        id = client.request(b"slow", [b"work"])
        request, _ = worker.take(REQUEST)
        worker.send([write(FINAL, code=200, id=request.id), b"begun"])
        assert client.finish(id).final == [b"begun"]
        worker.send([write(EVENT, address=request.address), b"done"])
        header, body = client.next()
        assert (header.command, header.id, body) == (EVENT, 0, [b"done"])


def test_push_to_an_unknown_handle_is_answered_404(client: Mdp03Client) -> None:
    client.send([write(EVENT, id=3, address=b"nobody"), b"lost"])
    header, body = client.next()
    assert (header.command, header.code, header.id) == (FINAL, 404, 3)
    assert body[0].decode()


@pytest.mark.parametrize("command", [REJECT, HEARTBEAT, CAPACITY, DISCONNECT, READY])
def test_workers_commands_behind_an_envelope_get_disconnect(endpoint: str, command: int) -> None:
    with Client(endpoint) as peer:
        peer.send([b"env", b"", write(command, code=1, service=b"w" if command == READY else b"")])
        assert peer.receive() == [b"env", b"", write(DISCONNECT)]


def test_req_socket_with_correlate_is_served(join: Join, endpoint: str) -> None:
    worker = join(b"req")
    with Mdp03ReqClient(endpoint) as peer:
        id = peer.request(b"req", [b"x"])
        worker.answer(worker.take(REQUEST)[0].id, [[b"y"]])
        assert peer.finish(id).final == [b"y"]

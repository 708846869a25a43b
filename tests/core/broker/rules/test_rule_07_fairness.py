"""Rule 7: a service's queue is round-robin over routing ids; envelopes behind one routing id share
its one turn."""

from __future__ import annotations

from majordomus.protocol import mdp03, spec
from tests.core.broker_harness import BrokerHarness, number

A, B, C, P, V, W = b"client-a", b"client-b", b"client-c", b"proxy-p", b"worker-v", b"worker-w"


def served_in_order(harness: BrokerHarness, worker: bytes = W) -> list[bytes]:
    """Bodies in the order in which `worker`, which takes one at a time, gets them."""
    bodies: list[bytes] = []
    while True:
        given = [word for word in harness.messages() if word[:2] == (worker, "REQUEST")]
        if not given:
            return bodies
        bodies += [word[3][0] for word in given]
        harness.answer(worker, given[-1][2]["id"])


def ask_many(harness: BrokerHarness, client: bytes, *bodies: bytes) -> None:
    for id, body in enumerate(bodies, 1):
        harness.request(client, id, body)


def test_clients_are_served_in_turn_however_much_each_asks(harness: BrokerHarness) -> None:
    ask_many(harness, A, b"a1", b"a2", b"a3", b"a4")
    ask_many(harness, B, b"b1", b"b2")
    ask_many(harness, C, b"c1")
    harness.worker(W)
    assert served_in_order(harness) == [b"a1", b"b1", b"c1", b"a2", b"b2", b"a3", b"a4"]


def test_client_that_asks_again_waits_behind_those_that_wait(harness: BrokerHarness) -> None:
    harness.worker(W)
    ask_many(harness, A, b"a1", b"a2")
    ask_many(harness, B, b"b1")
    harness.sent()
    harness.answer(W, number(1))
    harness.request(A, 3, b"a3")
    given = harness.messages()
    assert [word[3] for word in given if word[1] == "REQUEST"] == [[b"a2"]]
    harness.answer(W, number(2))
    assert served_in_order(harness) == [b"b1", b"a3"]


def test_envelopes_behind_one_routing_id_share_its_one_turn(harness: BrokerHarness) -> None:
    ask_many(harness, A, b"a1", b"a2")
    for envelope in (b"x", b"y", b"z"):
        harness.receive(
            P, envelope, mdp03.pack(spec.REQUEST, id=1, service=b"echo"), b"p" + envelope
        )
    harness.worker(W)
    assert served_in_order(harness) == [b"a1", b"px", b"a2", b"py", b"pz"]


def test_requests_that_came_back_go_before_all_turns(harness: BrokerHarness) -> None:
    harness.worker(V)
    ask_many(harness, A, b"a1")
    ask_many(harness, B, b"b1", b"b2")
    ask_many(harness, C, b"c1")
    harness.leave(V)
    harness.worker(W)
    assert served_in_order(harness) == [b"a1", b"b1", b"c1", b"b2"]


def test_client_that_cancels_leaves_its_turn_to_its_next_request(harness: BrokerHarness) -> None:
    ask_many(harness, A, b"a1", b"a2")
    ask_many(harness, B, b"b1")
    harness.receive_03(A, spec.CANCEL, id=1)
    harness.worker(W)
    assert served_in_order(harness) == [b"a2", b"b1"]


def test_late_client_waits_at_most_one_turn_more_than_there_are_clients(
    harness: BrokerHarness,
) -> None:
    """An early client with a flood of requests, and a late one with a single request."""
    harness.worker(W)
    clients = [b"early-%d" % n for n in range(7)]
    for client in clients:
        ask_many(harness, client, *(b"%s/%d" % (client, n) for n in range(200)))
    harness.sent()
    harness.request(b"late", 1, b"late")
    harness.answer(W, number(1))
    turns = served_in_order(harness).index(b"late") + 1
    assert turns <= 1 + len([*clients, b"late"])


def test_client_that_names_a_worker_does_not_pass_the_others(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.request(A, 1, b"a1", address=W)
    for id in (2, 3, 4):
        harness.request(A, id, b"a%d" % id, address=W)
    ask_many(harness, B, b"b1", b"b2")
    assert served_in_order(harness) == [b"a1", b"a2", b"b1", b"a3", b"b2", b"a4"]


def test_worker_of_several_services_takes_them_in_turn(harness: BrokerHarness) -> None:
    for service in (b"one", b"two", b"three"):
        harness.worker(W, service)
    harness.request(C, 99, b"busy", service=b"one")
    for service in (b"one", b"two", b"three"):
        for id in range(2):
            harness.request(A, harness.counts.accepted + 1, service + b"%d" % id, service=service)
    assert served_in_order(harness) == [
        b"busy",
        b"one0",
        b"two0",
        b"three0",
        b"one1",
        b"two1",
        b"three1",
    ]


def test_worker_of_many_services_takes_the_few_that_wait_in_turn(harness: BrokerHarness) -> None:
    for n in range(6):
        harness.worker(W, b"s%d" % n)
    harness.request(C, 99, b"busy", service=b"s0")
    for service in (b"s2", b"s4"):
        for id in range(3):
            name = service + b"-%d" % id
            harness.request(A, harness.counts.accepted + 1, name, service=service)
    order = served_in_order(harness)
    assert order == [b"busy", b"s2-0", b"s4-0", b"s2-1", b"s4-1", b"s2-2", b"s4-2"]

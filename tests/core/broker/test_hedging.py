"""A second try goes to another worker than the first one, at once, or nowhere."""

from __future__ import annotations

from majordomus.protocol import mdp03, metadata, spec
from tests.core.broker_harness import BrokerHarness, cancel, final, number

C, D, V, W = b"client-c", b"client-d", b"worker-v", b"worker-w"
NO_OTHER = b"no other worker is free for a second try"
NOT_THERE = b"the request that this is a second try of is at no worker"


def try_again(
    harness: BrokerHarness, id: int, first: int, client: bytes = C, **fields: object
) -> None:
    packed = metadata.pack({"hedge": first, **fields.pop("more", {})})  # type: ignore[dict-item]
    harness.request(client, id, b"x", flags=spec.METADATA, metadata=packed, **fields)


def test_second_try_goes_to_another_worker(harness: BrokerHarness) -> None:
    harness.worker(V, capacity=9)
    harness.request(C, 1, b"x")
    harness.worker(W, capacity=1)
    harness.request(D, 1)
    assert harness.dispatched() == [(V, number(1)), (W, number(2))]
    harness.answer(W, number(2))
    harness.sent()
    try_again(harness, 2, first=1)
    assert harness.dispatched() == [(W, number(3))]


def test_second_try_that_no_other_worker_is_free_for_is_refused_at_once(
    harness: BrokerHarness,
) -> None:
    harness.worker(V, capacity=9)
    harness.worker(W, capacity=1)
    harness.request(D, 1)
    harness.request(D, 2)
    assert [worker for worker, _ in harness.dispatched()] == [V, W]
    harness.request(C, 1, b"x")
    assert harness.dispatched() == [(V, number(3))]
    try_again(harness, 2, first=1)
    assert harness.messages() == [final(C, 2, NO_OTHER, status=503)]
    assert harness.machine.registry.queued == 0


def test_answer_of_the_second_try_counts_and_the_first_can_be_cancelled(
    harness: BrokerHarness,
) -> None:
    harness.worker(V)
    harness.worker(W)
    harness.request(C, 1, b"x")
    try_again(harness, 2, first=1)
    harness.sent()
    harness.answer(W, number(2), b"fast")
    harness.receive_03(C, spec.CANCEL, id=1)
    assert harness.messages() == [
        final(C, 2, b"fast", worker=W),
        cancel(V, 1),
        final(C, 1, b"cancelled by the client", status=499),
    ]
    harness.answer(V, number(1), b"slow")
    assert harness.messages() == []


def test_second_try_of_what_waits_is_refused(harness: BrokerHarness) -> None:
    harness.request(C, 1, b"x")
    try_again(harness, 2, first=1)
    assert harness.messages() == [final(C, 2, NOT_THERE, status=503)]


def test_second_try_of_what_nobody_asked_is_refused(harness: BrokerHarness) -> None:
    harness.worker(V, capacity=9)
    harness.worker(W, capacity=9)
    harness.request(D, 1, b"x")
    harness.sent()
    try_again(harness, 2, first=1)
    try_again(harness, 3, first=3)
    assert harness.messages() == [
        final(C, 2, NOT_THERE, status=503),
        final(C, 3, NOT_THERE, status=503),
    ]


def test_second_try_at_another_service_is_refused_and_leaves_nothing(
    harness: BrokerHarness,
) -> None:
    harness.worker(V, capacity=9)
    harness.request(C, 1, b"x")
    harness.sent()
    try_again(harness, 2, first=1, service=b"time")
    assert harness.messages() == [final(C, 2, NOT_THERE, status=503)]
    assert set(harness.machine.registry.services) == {b"echo"}


def test_second_try_whose_worker_declines_too_fails(harness: BrokerHarness) -> None:
    harness.worker(V)
    harness.worker(W)
    harness.request(C, 1, b"x")
    try_again(harness, 2, first=1)
    harness.sent()
    harness.reject(W, number(2))
    assert harness.messages() == [final(C, 2, b"every worker of 'echo' declined", status=503)]


def test_first_try_goes_on_when_the_second_was_refused(harness: BrokerHarness) -> None:
    harness.worker(V, capacity=9)
    harness.request(C, 1, b"x")
    try_again(harness, 2, first=1)
    harness.sent()
    harness.answer(V, number(1), b"late")
    assert harness.messages() == [final(C, 1, b"late", worker=V)]


def test_clients_behind_one_proxy_hedge_their_own_requests(harness: BrokerHarness) -> None:
    for worker in (V, W):
        harness.worker(worker, capacity=9)
    harness.sent()
    for client in (b"a", b"b"):
        harness.receive(b"proxy", client, mdp03.pack(spec.REQUEST, id=1, service=b"echo"), b"x")
    (worker, _), _ = harness.dispatched()
    packed = metadata.pack({"hedge": 1})
    header = mdp03.pack(spec.REQUEST, spec.METADATA, id=2, service=b"echo", metadata=packed)
    harness.receive(b"proxy", b"a", header, b"x")
    assert [other for other, _ in harness.dispatched()] == [{V: W, W: V}[worker]]


def test_key_that_is_no_id_or_only_looks_like_the_mark_means_nothing(
    harness: BrokerHarness,
) -> None:
    harness.worker(V, capacity=9)
    for id, values in enumerate(({"hedge": "1"}, {"x": {"hedge": 1}}, {"y": "hedge"}), 1):
        packed = metadata.pack(values)
        harness.request(C, id, b"x", flags=spec.METADATA, metadata=packed)
    assert [worker for worker, _ in harness.dispatched()] == [V, V, V]

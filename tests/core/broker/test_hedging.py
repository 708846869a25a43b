"""A second try goes to another worker than the first one, at once, or nowhere."""

from __future__ import annotations

from majordomus.protocol import mdp03, metadata, spec
from tests.core.broker_harness import House, cancel, final, number

C, D, V, W = b"client-c", b"client-d", b"worker-v", b"worker-w"
NO_OTHER = b"no other worker is free for a second try"
NOT_THERE = b"what this is a second try of is at no worker"


def try_again(house: House, id: int, first: int, client: bytes = C, **fields: object) -> None:
    packed = metadata.pack({"hedge": first, **fields.pop("more", {})})  # type: ignore[dict-item]
    house.request(client, id, b"x", flags=spec.METADATA, metadata=packed, **fields)


def test_second_try_goes_to_another_worker(house: House) -> None:
    house.worker(V, capacity=9)
    house.request(C, 1, b"x")
    house.worker(W, capacity=1)
    house.request(D, 1)
    assert house.dispatched() == [(V, number(1)), (W, number(2))]
    house.answer(W, number(2))
    house.said()
    try_again(house, 2, first=1)
    assert house.dispatched() == [(W, number(3))]


def test_second_try_that_no_other_worker_is_free_for_is_refused_at_once(house: House) -> None:
    house.worker(V, capacity=9)
    house.worker(W, capacity=1)
    house.request(D, 1)
    house.request(D, 2)
    assert [worker for worker, _ in house.dispatched()] == [V, W]
    house.request(C, 1, b"x")
    assert house.dispatched() == [(V, number(3))]
    try_again(house, 2, first=1)
    assert house.words() == [final(C, 2, NO_OTHER, status=503)]
    assert house.machine.registry.queued == 0


def test_answer_of_the_second_try_counts_and_the_first_can_be_cancelled(house: House) -> None:
    house.worker(V)
    house.worker(W)
    house.request(C, 1, b"x")
    try_again(house, 2, first=1)
    house.said()
    house.answer(W, number(2), b"fast")
    house.say(C, spec.CANCEL, id=1)
    assert house.words() == [
        final(C, 2, b"fast", worker=W),
        cancel(V, 1),
        final(C, 1, b"cancelled by the client", status=499),
    ]
    house.answer(V, number(1), b"slow")
    assert house.words() == []


def test_second_try_of_what_waits_is_refused(house: House) -> None:
    house.request(C, 1, b"x")
    try_again(house, 2, first=1)
    assert house.words() == [final(C, 2, NOT_THERE, status=503)]


def test_second_try_of_what_nobody_asked_is_refused(house: House) -> None:
    house.worker(V, capacity=9)
    house.worker(W, capacity=9)
    house.request(D, 1, b"x")
    house.said()
    try_again(house, 2, first=1)
    try_again(house, 3, first=3)
    assert house.words() == [
        final(C, 2, NOT_THERE, status=503),
        final(C, 3, NOT_THERE, status=503),
    ]


def test_second_try_at_another_service_is_refused_and_leaves_nothing(house: House) -> None:
    house.worker(V, capacity=9)
    house.request(C, 1, b"x")
    house.said()
    try_again(house, 2, first=1, service=b"time")
    assert house.words() == [final(C, 2, NOT_THERE, status=503)]
    assert set(house.machine.registry.services) == {b"echo"}


def test_second_try_whose_worker_declines_too_fails(house: House) -> None:
    house.worker(V)
    house.worker(W)
    house.request(C, 1, b"x")
    try_again(house, 2, first=1)
    house.said()
    house.reject(W, number(2))
    assert house.words() == [final(C, 2, b"every worker of 'echo' declined", status=503)]


def test_first_try_goes_on_when_the_second_was_refused(house: House) -> None:
    house.worker(V, capacity=9)
    house.request(C, 1, b"x")
    try_again(house, 2, first=1)
    house.said()
    house.answer(V, number(1), b"late")
    assert house.words() == [final(C, 1, b"late", worker=V)]


def test_clients_behind_one_proxy_hedge_their_own_requests(house: House) -> None:
    for worker in (V, W):
        house.worker(worker, capacity=9)
    house.said()
    for client in (b"a", b"b"):
        house.hear(b"proxy", client, mdp03.pack(spec.REQUEST, id=1, service=b"echo"), b"x")
    (worker, _), _ = house.dispatched()
    packed = metadata.pack({"hedge": 1})
    header = mdp03.pack(spec.REQUEST, spec.METADATA, id=2, service=b"echo", metadata=packed)
    house.hear(b"proxy", b"a", header, b"x")
    assert [other for other, _ in house.dispatched()] == [{V: W, W: V}[worker]]


def test_key_that_is_no_id_or_only_looks_like_the_mark_means_nothing(house: House) -> None:
    house.worker(V, capacity=9)
    for id, values in enumerate(({"hedge": "1"}, {"x": {"hedge": 1}}, {"y": "hedge"}), 1):
        packed = metadata.pack(values)
        house.request(C, id, b"x", flags=spec.METADATA, metadata=packed)
    assert [worker for worker, _ in house.dispatched()] == [V, V, V]

"""Rule 3: what a lost, disconnected or rejecting worker had goes to the front of the queue and to
another worker, where nothing of it can have reached anyone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from majordomus.protocol import mdp03, metadata, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect
from tests.core.broker_harness import (
    House,
    disconnect,
    final,
    handle,
    heartbeat,
    number,
    partial,
    welcome,
)

C, D, U, V, W = b"client-c", b"client-d", b"worker-u", b"worker-v", b"worker-w"
MakeHouse = Callable[..., House]


def second(attempt: int = 2) -> dict[str, object]:
    """What the broker adds to a REQUEST that it gives for the second time."""
    return {"flags": spec.BROKER_METADATA, "metadata": metadata.pack({"attempt": attempt})}


def at_worker_v(house: House, **fields: object) -> None:
    """V holds the request, W is free."""
    house.worker(V)
    house.request(C, 1, b"x", **fields)
    house.worker(W)
    house.said()


def test_request_of_a_worker_that_leaves_goes_to_another(house: House) -> None:
    at_worker_v(house)
    house.leave(V)
    assert house.words() == [house.given(W, 2, C, b"x", **second())]
    house.answer(W, number(2), b"y")
    assert house.words() == [final(C, 1, b"y", worker=W)]
    assert (house.counts.retried, house.counts.dispatched) == (1, 2)


def test_request_of_a_worker_that_is_silent_goes_to_another(house: House) -> None:
    at_worker_v(house)
    for _ in range(3):
        house.pass_time(2.4)
        house.heartbeat(W)
    house.said()
    house.pass_time(0.5)
    assert house.words() == [
        house.given(W, 2, C, b"x", ttl=52492, **second()),
        disconnect(V),
    ]


def test_request_of_a_worker_whose_connection_ends_goes_to_another(house: House) -> None:
    at_worker_v(house)
    house.lose_connection(V)
    assert house.words() == [house.given(W, 2, C, b"x", **second())]


def test_requests_of_a_lost_worker_go_to_the_front_in_their_order(house: House) -> None:
    house.worker(V, capacity=2)
    for id in (1, 2, 3):
        house.request(C, id, b"%d" % id)
    house.request(D, 1, b"d")
    house.said()
    house.leave(V)
    house.worker(W, capacity=4)
    assert house.words() == [
        welcome(W),
        house.given(W, 3, C, b"1", **second()),
        house.given(W, 4, C, b"2", **second()),
        house.given(W, 5, C, b"3"),
        house.given(W, 6, D, b"d"),
    ]


def test_request_that_lost_three_workers_fails(house: House) -> None:
    house.request(C, 1, b"x")
    for n in (1, 2, 3):
        house.worker(W)
        extra = second(n) if n > 1 else {}
        assert house.words() == [welcome(W), house.given(W, n, C, b"x", **extra)]
        house.leave(W)
    assert house.words() == [
        final(C, 1, b"worker lost (left) at attempt 3", status=502),
    ]
    assert (house.counts.retried, house.counts.failed) == (2, 1)


def test_max_attempts_is_a_setting(make_house: MakeHouse) -> None:
    house = make_house(max_attempts=1)
    at_worker_v(house)
    house.leave(V)
    assert house.words() == [final(C, 1, b"worker lost (left) at attempt 1", status=502)]


def test_stream_of_a_lost_worker_is_not_tried_again(house: House) -> None:
    at_worker_v(house)
    house.part(V, number(1), b"part")
    house.leave(V)
    assert house.words() == [
        partial(C, 1, b"part"),
        final(C, 1, b"worker lost (left) at attempt 1", status=502),
    ]


def test_one_way_stream_of_a_lost_worker_is_not_tried_again_either(house: House) -> None:
    at_worker_v(house, flags=spec.ONE_WAY)
    house.part(V, number(1), b"part")
    house.leave(V)
    assert house.words() == []
    assert house.counts.failed == 1


@pytest.mark.parametrize("dialect", [Dialect.MDP01, Dialect.DELPHI])
def test_joined_parts_of_a_lost_worker_are_not_tried_again(house: House, dialect: Dialect) -> None:
    house.worker(V)
    house.hear(C, *LEGACY[dialect].c2b_request(b"echo", [b"x"]))
    house.worker(W)
    house.part(V, number(2), b"part")
    house.said()
    house.leave(V)
    assert house.words() == []
    assert (house.counts.failed, house.counts.unanswered) == (1, 1)


def test_once_request_of_a_lost_worker_is_not_tried_again(house: House) -> None:
    at_worker_v(house, flags=spec.ONCE)
    house.leave(V)
    assert house.words() == [final(C, 1, b"worker lost (left) at attempt 1", status=502)]


def test_worker_that_rejects_gets_no_second_try(house: House) -> None:
    at_worker_v(house)
    house.reject(V, number(1))
    assert house.words() == [house.given(W, 2, C, b"x")]
    house.leave(W)
    house.pass_time(0)
    assert house.words() == [final(C, 1, b"every worker of 'echo' declined", status=503)]


def test_reject_is_allowed_under_once_and_does_not_count(make_house: MakeHouse) -> None:
    house = make_house(max_attempts=1)
    at_worker_v(house, flags=spec.ONCE)
    house.reject(V, number(1))
    assert house.words() == [house.given(W, 2, C, b"x", flags=spec.ONCE)]
    house.answer(W, number(2), b"y")
    assert house.words() == [final(C, 1, b"y", worker=W)]
    assert house.counts.rejected == 1


def test_request_that_every_worker_rejects_is_answered_503(house: House) -> None:
    at_worker_v(house)
    house.reject(V, number(1))
    house.reject(W, number(2))
    assert house.words() == [
        house.given(W, 2, C, b"x"),
        final(C, 1, b"every worker of 'echo' declined", status=503),
    ]


def test_request_that_waits_for_the_one_willing_worker_fails_when_that_one_leaves(
    house: House,
) -> None:
    house.worker(V)
    house.worker(W)
    house.request(C, 1, b"at v")
    house.request(D, 1, b"at w")
    house.reject(V, number(1))
    house.said()
    house.leave(W)
    assert house.words() == [
        house.given(V, 3, D, b"at w", **second()),
        final(C, 1, b"every worker of 'echo' declined", status=503),
    ]


def test_request_that_all_declined_waits_when_none_of_them_is_left(house: House) -> None:
    house.worker(V)
    house.worker(W)
    house.request(C, 1, b"at v")
    house.request(D, 1, b"at w", flags=spec.ONE_WAY)
    house.reject(V, number(1))
    house.leave(V)
    house.said()
    house.leave(W)
    house.worker(U, capacity=2)
    assert house.words() == [
        welcome(U),
        house.given(U, 3, D, b"at w", flags=spec.BROKER_METADATA | spec.ONE_WAY,
                    metadata=metadata.pack({"attempt": 2})),
        house.given(U, 4, C, b"at v"),
    ]  # fmt: skip


def test_worker_that_declined_all_that_came_back_still_gets_what_is_new(house: House) -> None:
    house.worker(V)
    house.worker(W)
    house.request(C, 1, b"at v")
    house.request(C, 2, b"at w")
    house.reject(V, number(1))
    house.said()
    house.request(D, 1, b"new")
    assert house.words() == [house.given(V, 3, D, b"new")]
    house.answer(W, number(2), b"y")
    assert house.words() == [final(C, 2, b"y", worker=W), house.given(W, 4, C, b"at v")]


def test_worker_that_declined_what_waits_at_one_service_still_serves_its_others(
    house: House,
) -> None:
    """V serves three services. At the first that waits there is nothing but what V declined."""
    for service in (b"echo", b"time", b"date"):
        house.worker(V, service, capacity=2)
    house.request(C, 1, b"declined")
    house.worker(W)
    house.request(D, 1, b"at w")
    house.reject(V, number(1))
    for id in (2, 3):
        house.request(D, id, service=b"date")
    house.request(C, 2, b"wanted", service=b"time")
    house.said()
    house.answer(V, number(3))
    assert house.words() == [
        final(D, 2, worker=V),
        house.given(V, 5, C, b"wanted", service=b"time"),
    ]


def test_new_worker_gets_first_what_others_declined(house: House) -> None:
    house.worker(V)
    house.worker(W)
    house.request(C, 1, b"x")
    house.request(C, 2, b"y")
    house.request(D, 1, b"z")
    house.reject(V, number(1))
    house.said()
    house.worker(U)
    assert house.words() == [welcome(U), house.given(U, 4, C, b"x")]


def test_reject_after_a_part_is_answered_502(house: House) -> None:
    at_worker_v(house)
    house.part(V, number(1), b"part")
    house.reject(V, number(1))
    assert house.words() == [
        partial(C, 1, b"part"),
        final(C, 1, b"the worker declined after parts had passed", status=502),
    ]


def test_reject_of_a_cancelled_request_only_frees_the_slot(house: House) -> None:
    house.worker(V)
    house.request(C, 1)
    house.request(C, 2, b"next")
    house.say(C, spec.CANCEL, id=1)
    house.said()
    house.reject(V, number(1))
    assert house.words() == [house.given(V, 2, C, b"next")]


def test_request_that_never_left_the_broker_does_not_count_as_an_attempt(
    make_house: MakeHouse,
) -> None:
    """V's connection has ended and the broker learns it from this send alone (EHOSTUNREACH)."""
    house = make_house(max_attempts=1)
    house.worker(V)
    house.unreachable.add(V)
    house.request(C, 1, b"x", flags=spec.ONCE)
    house.worker(W)
    assert house.words()[1:] == [welcome(W), house.given(W, 2, C, b"x", flags=spec.ONCE)]


def test_part_of_a_request_that_never_left_is_a_lie_and_the_request_is_not_tried_again(
    house: House,
) -> None:
    """Numbers can be guessed: the socket refused the REQUEST, and its PARTIAL is heard all the
    same."""
    house.worker(V)
    house.unreachable.add(V)
    house.request(C, 1, b"x")
    house.machine.receive(V, [mdp03.pack(spec.PARTIAL, id=number(1)), b"lie"], house.now)
    house.turn()
    assert house.words()[1:] == [
        partial(C, 1, b"lie"),
        final(C, 1, b"worker lost (connection lost) at attempt 1", status=502),
    ]


def test_request_that_waited_in_the_outbox_of_a_lost_worker_never_left(
    make_house: MakeHouse,
) -> None:
    house = make_house(max_attempts=1)
    house.worker(V, capacity=2)
    house.request(C, 1, b"left", flags=spec.ONCE)
    house.full.add(V)
    house.request(C, 2, b"did not", flags=spec.ONCE)
    house.said()
    house.leave(V)
    assert house.words() == [final(C, 1, b"worker lost (left) at attempt 1", status=502)]
    house.worker(W)
    assert house.words() == [welcome(W), house.given(W, 3, C, b"did not", flags=spec.ONCE)]


def test_of_several_dispatches_behind_one_delphi_handle_only_the_refused_never_left(
    make_house: MakeHouse,
) -> None:
    """To a Delphi worker the handle stands for the Delphi client: it is the same for both."""
    house = make_house(max_attempts=1)
    codec = LEGACY[Dialect.DELPHI]
    house.hear(V, *codec.w2b_ready(b"echo"))
    house.hear(C, *codec.c2b_request(b"echo", [b"left"]))
    house.unreachable.add(V)
    house.hear(C, *codec.c2b_request(b"echo", [b"did not"]))
    house.said()
    house.turn()
    assert (house.counts.failed, house.counts.retried) == (1, 1)
    house.worker(W)
    assert house.words() == [welcome(W), house.given(W, 5, C, b"did not", ttl=60000)]


def test_body_that_looks_like_a_handle_is_not_taken_for_one(make_house: MakeHouse) -> None:
    """The body of the second request is the handle of the first."""
    house = make_house(max_attempts=1)
    codec = LEGACY[Dialect.DELPHI]
    house.hear(V, *codec.w2b_ready(b"echo"))
    house.request(C, 1, b"ran, perhaps")
    house.unreachable.add(V)
    house.request(C, 2, handle(1))
    house.said()
    house.turn()
    assert house.words() == [final(C, 1, b"worker lost (connection lost) at attempt 1", status=502)]


def test_request_for_one_worker_alone_fails_with_that_worker(house: House) -> None:
    house.worker(V)
    house.worker(W)
    house.request(C, 1, b"x", address=V)
    house.said()
    house.leave(V)
    assert house.words() == [final(C, 1, b"worker lost (left) at attempt 1", status=502)]


def test_request_that_waits_for_one_worker_alone_is_answered_404_when_it_leaves(
    house: House,
) -> None:
    house.worker(V)
    house.worker(W)
    house.request(D, 1, b"first", address=V)
    house.request(C, 1, b"waits", address=V)
    house.said()
    house.leave(V)
    assert house.words() == [
        final(C, 1, b"the worker that was asked for is gone", status=404),
        final(D, 1, b"worker lost (left) at attempt 1", status=502),
    ]


def test_request_that_its_only_worker_rejects_is_answered_503(house: House) -> None:
    house.worker(V)
    house.worker(W)
    house.request(C, 1, b"x", address=V)
    house.said()
    house.reject(V, number(1))
    assert house.words() == [final(C, 1, b"every worker of 'echo' declined", status=503)]


def test_worker_that_sends_rubbish_is_lost_and_its_request_goes_on(house: House) -> None:
    at_worker_v(house)
    house.hear(V, b"MDP\x03\x05", b"truncated")
    assert house.words() == [house.given(W, 2, C, b"x", **second()), disconnect(V)]
    assert house.counts.dropped == {"truncated-header": 1}


def test_request_whose_deadline_has_passed_is_not_given_to_another_worker(house: House) -> None:
    at_worker_v(house, ttl=1000)
    house.now += 1.0
    house.leave(V)
    text = b"'echo' did not answer within 1 s; it was at a worker"
    assert house.words() == [final(C, 1, text, status=408)]


def test_lost_worker_is_told_to_the_observers(house: House) -> None:
    at_worker_v(house)
    house.facts.clear()
    house.leave(V)
    assert house.facts == [
        ("worker-lost", {"worker": V, "services": [b"echo"], "why": "left", "held": 1})
    ]
    assert heartbeat(V) not in house.words()

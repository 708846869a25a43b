"""Rule 3: requests of a lost, disconnected or rejecting worker go to the front of the queue and to
another worker, unless a part of the answer has been sent."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from majordomus.protocol import mdp03, metadata, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect
from tests.core.broker_harness import (
    BrokerHarness,
    disconnect,
    final,
    handle,
    heartbeat,
    number,
    partial,
    welcome,
)

C, D, U, V, W = b"client-c", b"client-d", b"worker-u", b"worker-v", b"worker-w"
MakeHarness = Callable[..., BrokerHarness]


def second(attempt: int = 2) -> dict[str, object]:
    """The broker's metadata of the second dispatch of a request."""
    return {"flags": spec.BROKER_METADATA, "metadata": metadata.pack({"attempt": attempt})}


def at_worker_v(harness: BrokerHarness, **fields: object) -> None:
    """V holds the request, W is free."""
    harness.worker(V)
    harness.request(C, 1, b"x", **fields)
    harness.worker(W)
    harness.sent()


def test_request_of_a_worker_that_leaves_goes_to_another(harness: BrokerHarness) -> None:
    at_worker_v(harness)
    harness.leave(V)
    assert harness.messages() == [harness.request_to(W, 2, C, b"x", **second())]
    harness.answer(W, number(2), b"y")
    assert harness.messages() == [final(C, 1, b"y", worker=W)]
    assert (harness.counts.retried, harness.counts.dispatched) == (1, 2)


def test_request_of_a_worker_that_is_silent_goes_to_another(harness: BrokerHarness) -> None:
    at_worker_v(harness)
    for _ in range(3):
        harness.pass_time(2.4)
        harness.heartbeat(W)
    harness.sent()
    harness.pass_time(0.5)
    assert harness.messages() == [
        harness.request_to(W, 2, C, b"x", ttl=52492, **second()),
        disconnect(V),
    ]


def test_request_of_a_worker_whose_connection_ends_goes_to_another(harness: BrokerHarness) -> None:
    at_worker_v(harness)
    harness.lose_connection(V)
    assert harness.messages() == [harness.request_to(W, 2, C, b"x", **second())]


def test_requests_of_a_lost_worker_go_to_the_front_in_their_order(harness: BrokerHarness) -> None:
    harness.worker(V, capacity=2)
    for id in (1, 2, 3):
        harness.request(C, id, b"%d" % id)
    harness.request(D, 1, b"d")
    harness.sent()
    harness.leave(V)
    harness.worker(W, capacity=4)
    assert harness.messages() == [
        welcome(W),
        harness.request_to(W, 3, C, b"1", **second()),
        harness.request_to(W, 4, C, b"2", **second()),
        harness.request_to(W, 5, C, b"3"),
        harness.request_to(W, 6, D, b"d"),
    ]


def test_request_that_lost_three_workers_fails(harness: BrokerHarness) -> None:
    harness.request(C, 1, b"x")
    for n in (1, 2, 3):
        harness.worker(W)
        extra = second(n) if n > 1 else {}
        assert harness.messages() == [welcome(W), harness.request_to(W, n, C, b"x", **extra)]
        harness.leave(W)
    assert harness.messages() == [
        final(C, 1, b"worker lost (left) at attempt 3", status=502),
    ]
    assert (harness.counts.retried, harness.counts.failed) == (2, 1)


def test_max_attempts_is_a_setting(make_harness: MakeHarness) -> None:
    harness = make_harness(max_attempts=1)
    at_worker_v(harness)
    harness.leave(V)
    assert harness.messages() == [final(C, 1, b"worker lost (left) at attempt 1", status=502)]


def test_stream_of_a_lost_worker_is_not_tried_again(harness: BrokerHarness) -> None:
    at_worker_v(harness)
    harness.part(V, number(1), b"part")
    harness.leave(V)
    assert harness.messages() == [
        partial(C, 1, b"part"),
        final(C, 1, b"worker lost (left) at attempt 1", status=502),
    ]


def test_one_way_stream_of_a_lost_worker_is_not_tried_again_either(harness: BrokerHarness) -> None:
    at_worker_v(harness, flags=spec.ONE_WAY)
    harness.part(V, number(1), b"part")
    harness.leave(V)
    assert harness.messages() == []
    assert harness.counts.failed == 1


@pytest.mark.parametrize("dialect", [Dialect.MDP01, Dialect.DELPHI])
def test_joined_parts_of_a_lost_worker_are_not_tried_again(
    harness: BrokerHarness, dialect: Dialect
) -> None:
    harness.worker(V)
    harness.receive(C, *LEGACY[dialect].c2b_request(b"echo", [b"x"]))
    harness.worker(W)
    harness.part(V, number(2), b"part")
    harness.sent()
    harness.leave(V)
    assert harness.messages() == []
    assert (harness.counts.failed, harness.counts.unanswered) == (1, 1)


def test_once_request_of_a_lost_worker_is_not_tried_again(harness: BrokerHarness) -> None:
    at_worker_v(harness, flags=spec.ONCE)
    harness.leave(V)
    assert harness.messages() == [final(C, 1, b"worker lost (left) at attempt 1", status=502)]


def test_worker_that_rejects_gets_no_second_try(harness: BrokerHarness) -> None:
    at_worker_v(harness)
    harness.reject(V, number(1))
    assert harness.messages() == [harness.request_to(W, 2, C, b"x")]
    harness.leave(W)
    harness.pass_time(0)
    assert harness.messages() == [final(C, 1, b"every worker of 'echo' declined", status=503)]


def test_reject_is_allowed_under_once_and_does_not_count(make_harness: MakeHarness) -> None:
    harness = make_harness(max_attempts=1)
    at_worker_v(harness, flags=spec.ONCE)
    harness.reject(V, number(1))
    assert harness.messages() == [harness.request_to(W, 2, C, b"x", flags=spec.ONCE)]
    harness.answer(W, number(2), b"y")
    assert harness.messages() == [final(C, 1, b"y", worker=W)]
    assert harness.counts.rejected == 1


def test_request_that_every_worker_rejects_is_answered_503(harness: BrokerHarness) -> None:
    at_worker_v(harness)
    harness.reject(V, number(1))
    harness.reject(W, number(2))
    assert harness.messages() == [
        harness.request_to(W, 2, C, b"x"),
        final(C, 1, b"every worker of 'echo' declined", status=503),
    ]


def test_request_fails_when_the_last_worker_that_has_not_rejected_it_leaves(
    harness: BrokerHarness,
) -> None:
    harness.worker(V)
    harness.worker(W)
    harness.request(C, 1, b"at v")
    harness.request(D, 1, b"at w")
    harness.reject(V, number(1))
    harness.sent()
    harness.leave(W)
    assert harness.messages() == [
        harness.request_to(V, 3, D, b"at w", **second()),
        final(C, 1, b"every worker of 'echo' declined", status=503),
    ]


def test_request_that_all_rejected_waits_when_none_of_them_is_left(harness: BrokerHarness) -> None:
    harness.worker(V)
    harness.worker(W)
    harness.request(C, 1, b"at v")
    harness.request(D, 1, b"at w", flags=spec.ONE_WAY)
    harness.reject(V, number(1))
    harness.leave(V)
    harness.sent()
    harness.leave(W)
    harness.worker(U, capacity=2)
    assert harness.messages() == [
        welcome(U),
        harness.request_to(U, 3, D, b"at w", flags=spec.BROKER_METADATA | spec.ONE_WAY,
                    metadata=metadata.pack({"attempt": 2})),
        harness.request_to(U, 4, C, b"at v"),
    ]  # fmt: skip


def test_worker_that_rejected_all_requeued_requests_still_gets_new_ones(
    harness: BrokerHarness,
) -> None:
    harness.worker(V)
    harness.worker(W)
    harness.request(C, 1, b"at v")
    harness.request(C, 2, b"at w")
    harness.reject(V, number(1))
    harness.sent()
    harness.request(D, 1, b"new")
    assert harness.messages() == [harness.request_to(V, 3, D, b"new")]
    harness.answer(W, number(2), b"y")
    assert harness.messages() == [final(C, 2, b"y", worker=W), harness.request_to(W, 4, C, b"at v")]


def test_worker_that_rejected_the_queue_of_one_service_still_serves_its_others(
    harness: BrokerHarness,
) -> None:
    """V serves three services. It has rejected every request in the queue of the first."""
    for service in (b"echo", b"time", b"date"):
        harness.worker(V, service, capacity=2)
    harness.request(C, 1, b"declined")
    harness.worker(W)
    harness.request(D, 1, b"at w")
    harness.reject(V, number(1))
    for id in (2, 3):
        harness.request(D, id, service=b"date")
    harness.request(C, 2, b"wanted", service=b"time")
    harness.sent()
    harness.answer(V, number(3))
    assert harness.messages() == [
        final(D, 2, worker=V),
        harness.request_to(V, 5, C, b"wanted", service=b"time"),
    ]


def test_new_worker_gets_the_requests_first_that_others_rejected(harness: BrokerHarness) -> None:
    harness.worker(V)
    harness.worker(W)
    harness.request(C, 1, b"x")
    harness.request(C, 2, b"y")
    harness.request(D, 1, b"z")
    harness.reject(V, number(1))
    harness.sent()
    harness.worker(U)
    assert harness.messages() == [welcome(U), harness.request_to(U, 4, C, b"x")]


def test_reject_after_a_part_is_answered_502(harness: BrokerHarness) -> None:
    at_worker_v(harness)
    harness.part(V, number(1), b"part")
    harness.reject(V, number(1))
    assert harness.messages() == [
        partial(C, 1, b"part"),
        final(C, 1, b"the worker declined after parts had passed", status=502),
    ]


def test_reject_of_a_cancelled_request_only_frees_the_slot(harness: BrokerHarness) -> None:
    harness.worker(V)
    harness.request(C, 1)
    harness.request(C, 2, b"next")
    harness.receive_03(C, spec.CANCEL, id=1)
    harness.sent()
    harness.reject(V, number(1))
    assert harness.messages() == [harness.request_to(V, 2, C, b"next")]


def test_request_that_never_left_the_broker_does_not_count_as_an_attempt(
    make_harness: MakeHarness,
) -> None:
    """V's connection has ended; only this refused send (EHOSTUNREACH) shows it to the broker."""
    harness = make_harness(max_attempts=1)
    harness.worker(V)
    harness.unreachable.add(V)
    harness.request(C, 1, b"x", flags=spec.ONCE)
    harness.worker(W)
    assert harness.messages()[1:] == [
        welcome(W),
        harness.request_to(W, 2, C, b"x", flags=spec.ONCE),
    ]


def test_part_of_a_request_that_never_left_is_forged_and_the_request_is_not_tried_again(
    harness: BrokerHarness,
) -> None:
    """Numbers can be guessed: the socket refused the REQUEST, and its PARTIAL is heard all the
    same."""
    harness.worker(V)
    harness.unreachable.add(V)
    harness.request(C, 1, b"x")
    harness.machine.receive(V, [mdp03.pack(spec.PARTIAL, id=number(1)), b"lie"], harness.now)
    harness.turn()
    assert harness.messages()[1:] == [
        partial(C, 1, b"lie"),
        final(C, 1, b"worker lost (connection lost) at attempt 1", status=502),
    ]


def test_request_that_waited_in_the_outbox_of_a_lost_worker_never_left(
    make_harness: MakeHarness,
) -> None:
    harness = make_harness(max_attempts=1)
    harness.worker(V, capacity=2)
    harness.request(C, 1, b"left", flags=spec.ONCE)
    harness.full.add(V)
    harness.request(C, 2, b"did not", flags=spec.ONCE)
    harness.sent()
    harness.leave(V)
    assert harness.messages() == [final(C, 1, b"worker lost (left) at attempt 1", status=502)]
    harness.worker(W)
    assert harness.messages() == [
        welcome(W),
        harness.request_to(W, 3, C, b"did not", flags=spec.ONCE),
    ]


def test_of_several_dispatches_behind_one_delphi_handle_only_the_refused_never_left(
    make_harness: MakeHarness,
) -> None:
    """A Delphi worker gets the handle of the Delphi client: it is the same for both dispatches."""
    harness = make_harness(max_attempts=1)
    codec = LEGACY[Dialect.DELPHI]
    harness.receive(V, *codec.w2b_ready(b"echo"))
    harness.receive(C, *codec.c2b_request(b"echo", [b"left"]))
    harness.unreachable.add(V)
    harness.receive(C, *codec.c2b_request(b"echo", [b"did not"]))
    harness.sent()
    harness.turn()
    assert (harness.counts.failed, harness.counts.retried) == (1, 1)
    harness.worker(W)
    assert harness.messages() == [welcome(W), harness.request_to(W, 5, C, b"did not", ttl=60000)]


def test_body_that_looks_like_a_handle_is_not_taken_for_one(make_harness: MakeHarness) -> None:
    """The body of the second request is the handle of the first."""
    harness = make_harness(max_attempts=1)
    codec = LEGACY[Dialect.DELPHI]
    harness.receive(V, *codec.w2b_ready(b"echo"))
    harness.request(C, 1, b"ran, perhaps")
    harness.unreachable.add(V)
    harness.request(C, 2, handle(1))
    harness.sent()
    harness.turn()
    assert harness.messages() == [
        final(C, 1, b"worker lost (connection lost) at attempt 1", status=502)
    ]


def test_request_for_one_worker_alone_fails_with_that_worker(harness: BrokerHarness) -> None:
    harness.worker(V)
    harness.worker(W)
    harness.request(C, 1, b"x", address=V)
    harness.sent()
    harness.leave(V)
    assert harness.messages() == [final(C, 1, b"worker lost (left) at attempt 1", status=502)]


def test_request_that_waits_for_one_worker_alone_is_answered_404_when_it_leaves(
    harness: BrokerHarness,
) -> None:
    harness.worker(V)
    harness.worker(W)
    harness.request(D, 1, b"first", address=V)
    harness.request(C, 1, b"waits", address=V)
    harness.sent()
    harness.leave(V)
    assert harness.messages() == [
        final(
            C, 1, b"the requested worker is gone; call again without naming a worker", status=404
        ),
        final(D, 1, b"worker lost (left) at attempt 1", status=502),
    ]


def test_request_that_its_only_worker_rejects_is_answered_503(harness: BrokerHarness) -> None:
    harness.worker(V)
    harness.worker(W)
    harness.request(C, 1, b"x", address=V)
    harness.sent()
    harness.reject(V, number(1))
    assert harness.messages() == [final(C, 1, b"every worker of 'echo' declined", status=503)]


def test_worker_that_sends_an_invalid_message_is_lost_and_its_request_is_retried(
    harness: BrokerHarness,
) -> None:
    at_worker_v(harness)
    harness.receive(V, b"MDP\x03\x05", b"truncated")
    assert harness.messages() == [harness.request_to(W, 2, C, b"x", **second()), disconnect(V)]
    assert harness.counts.dropped == {"truncated-header": 1}


def test_request_whose_deadline_has_passed_is_not_given_to_another_worker(
    harness: BrokerHarness,
) -> None:
    at_worker_v(harness, ttl=1000)
    harness.now += 1.0
    harness.leave(V)
    text = b"'echo' did not answer within 1 s; it was at a worker"
    assert harness.messages() == [final(C, 1, text, status=408)]


def test_loss_of_a_worker_is_a_fact_for_observers(harness: BrokerHarness) -> None:
    at_worker_v(harness)
    harness.facts.clear()
    harness.leave(V)
    assert harness.facts == [
        (
            "worker-lost",
            {
                "worker": V,
                "services": [b"echo"],
                "why": "left",
                "held": 1,
                "requests": [f"{C.hex()}-1"],
            },
        )
    ]
    assert heartbeat(V) not in harness.messages()


# FAIL-FAST: no worker is left that takes new requests

ALL_DRAIN = b"every worker of 'echo' drains; no service is served now"


def one_waits_fast(harness: BrokerHarness) -> None:
    """V has the request of D; those of C and D, the first FAIL-FAST, wait."""
    harness.worker(V)
    harness.request(D, 1)
    harness.request(C, 1, flags=spec.FAIL_FAST)
    harness.request(D, 2)
    harness.sent()


def test_request_that_fails_fast_and_waits_gets_503_when_the_last_worker_drains(
    harness: BrokerHarness,
) -> None:
    one_waits_fast(harness)
    harness.receive_03(V, spec.CAPACITY, code=0)
    assert harness.messages() == [final(C, 1, ALL_DRAIN, status=503)]
    assert harness.machine.registry.queued == 1


def test_request_that_fails_fast_waits_on_while_another_worker_serves(
    harness: BrokerHarness,
) -> None:
    one_waits_fast(harness)
    harness.worker(W)
    harness.request(D, 3)
    harness.request(C, 2, flags=spec.FAIL_FAST)
    harness.sent()
    harness.receive_03(V, spec.CAPACITY, code=0)
    assert harness.messages() == []


def test_request_that_fails_fast_gets_503_when_the_last_worker_that_serves_is_lost(
    harness: BrokerHarness,
) -> None:
    """W drains, so it is no worker for what waits, nor for what V had."""
    harness.worker(V)
    harness.request(C, 1, flags=spec.FAIL_FAST)
    harness.worker(W)
    harness.request(D, 1)
    harness.request(C, 2, flags=spec.FAIL_FAST)
    harness.receive_03(W, spec.CAPACITY, code=0)
    harness.sent()
    harness.leave(V)
    assert harness.messages() == [
        final(C, 1, ALL_DRAIN, status=503),
        final(C, 2, ALL_DRAIN, status=503),
    ]


def test_request_that_fails_fast_and_names_a_worker_gets_503_when_that_one_drains(
    harness: BrokerHarness,
) -> None:
    harness.worker(V)
    harness.worker(W, capacity=9)
    harness.request(C, 1, address=V)
    harness.request(C, 2, address=V, flags=spec.FAIL_FAST)
    harness.sent()
    harness.receive_03(V, spec.CAPACITY, code=0)
    harness.request(C, 3, address=V, flags=spec.FAIL_FAST)
    text = b"the requested worker takes no new requests"
    assert harness.messages() == [final(C, 2, text, status=503), final(C, 3, text, status=503)]


def test_request_that_fails_fast_and_was_declined_waits_for_no_worker_that_drains(
    harness: BrokerHarness,
) -> None:
    harness.worker(V, capacity=2)
    harness.worker(W)
    harness.receive_03(W, spec.CAPACITY, code=0)
    harness.request(C, 1, flags=spec.FAIL_FAST)
    harness.receive_03(V, spec.CAPACITY, code=0)
    harness.sent()
    harness.reject(V, number(1))
    assert harness.messages() == [final(C, 1, ALL_DRAIN, status=503)]

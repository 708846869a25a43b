"""Rule 1: every accepted request gets exactly one final outcome: answered, failed, expired or
cancelled."""

from __future__ import annotations

from majordomus.protocol import spec
from tests.core.broker_harness import BrokerHarness, cancel, final, number

A, C, W = b"client-a", b"client-c", b"worker-w"


def outcomes(harness: BrokerHarness) -> dict[str, int]:
    counts = harness.counts
    names = ("accepted", "answered", "failed", "expired", "cancelled")
    return {name: getattr(counts, name) for name in names if getattr(counts, name)}


def one_request_at_the_worker(harness: BrokerHarness, **fields: object) -> None:
    harness.worker(W)
    harness.request(C, 1, b"x", **fields)
    harness.sent()


def test_request_that_its_worker_answers_is_answered(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.sent()
    harness.request(C, 1, b"x")
    assert harness.messages() == [harness.request_to(W, 1, C, b"x")]
    harness.answer(W, number(1), b"y")
    assert harness.messages() == [final(C, 1, b"y", worker=W)]
    assert outcomes(harness) == {"accepted": 1, "answered": 1}
    assert harness.machine.drained


def test_request_whose_handler_failed_is_failed_with_the_workers_words(
    harness: BrokerHarness,
) -> None:
    one_request_at_the_worker(harness)
    harness.answer(W, number(1), b"ValueError: no", status=500)
    assert harness.messages() == [final(C, 1, b"ValueError: no", worker=W, status=500)]
    assert outcomes(harness) == {"accepted": 1, "failed": 1}


def test_final_with_status_0_is_taken_as_500(harness: BrokerHarness) -> None:
    one_request_at_the_worker(harness)
    harness.answer(W, number(1), status=0)
    assert harness.messages() == [final(C, 1, worker=W, status=500)]
    assert outcomes(harness) == {"accepted": 1, "failed": 1}


def test_status_that_the_broker_does_not_know_is_passed_on(harness: BrokerHarness) -> None:
    one_request_at_the_worker(harness)
    harness.answer(W, number(1), b"tea", status=418)
    assert harness.messages() == [final(C, 1, b"tea", worker=W, status=418)]
    assert outcomes(harness) == {"accepted": 1, "failed": 1}


def test_request_at_its_deadline_is_expired_and_its_late_answer_reaches_nobody(
    harness: BrokerHarness,
) -> None:
    one_request_at_the_worker(harness, ttl=500)
    harness.pass_time(0.6)
    text = b"'echo' did not answer within 0.5 s; it was at a worker"
    assert harness.messages() == [cancel(W, 1), final(C, 1, text, status=408)]
    harness.answer(W, number(1), b"late")
    assert harness.messages() == []
    assert outcomes(harness) == {"accepted": 1, "expired": 1}
    assert harness.counts.dropped == {}


def test_cancelled_request_is_answered_499_once_and_its_late_answer_reaches_nobody(
    harness: BrokerHarness,
) -> None:
    one_request_at_the_worker(harness)
    harness.receive_03(C, spec.CANCEL, id=1)
    assert harness.messages() == [cancel(W, 1), final(C, 1, b"cancelled by the client", status=499)]
    harness.answer(W, number(1), b"late")
    harness.receive_03(C, spec.CANCEL, id=1)
    assert harness.messages() == []
    assert outcomes(harness) == {"accepted": 1, "cancelled": 1}
    assert harness.counts.dropped == {"late-cancel": 1}


def test_cancel_in_the_queue_ends_a_request_that_no_worker_saw(harness: BrokerHarness) -> None:
    harness.request(C, 1)
    harness.receive_03(C, spec.CANCEL, id=1)
    assert harness.messages() == [final(C, 1, b"cancelled by the client", status=499)]
    harness.worker(W)
    assert [word[1] for word in harness.messages()] == ["WELCOME"]
    assert outcomes(harness) == {"accepted": 1, "cancelled": 1}


def test_cancel_after_the_answer_changes_nothing(harness: BrokerHarness) -> None:
    one_request_at_the_worker(harness)
    harness.answer(W, number(1), b"y")
    harness.receive_03(C, spec.CANCEL, id=1)
    assert harness.messages() == [final(C, 1, b"y", worker=W)]
    assert outcomes(harness) == {"accepted": 1, "answered": 1}


def test_second_final_of_a_worker_is_no_second_outcome(harness: BrokerHarness) -> None:
    one_request_at_the_worker(harness)
    harness.answer(W, number(1), b"first")
    harness.answer(W, number(1), b"second")
    assert harness.messages() == [final(C, 1, b"first", worker=W)]
    assert outcomes(harness) == {"accepted": 1, "answered": 1}
    assert harness.counts.dropped == {"unasked-reply": 1}


def test_one_way_request_has_an_outcome_that_nobody_is_told(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.sent()
    harness.request(C, 0, b"x", flags=spec.ONE_WAY)
    assert harness.messages() == [harness.request_to(W, 2, C, b"x", flags=spec.ONE_WAY)]
    harness.part(W, number(2), b"part")
    harness.answer(W, number(2), b"y")
    assert harness.messages() == []
    assert outcomes(harness) == {"accepted": 1, "answered": 1}


def test_one_way_request_outlives_its_client(harness: BrokerHarness) -> None:
    harness.request(C, 7, b"x", flags=spec.ONE_WAY)
    harness.leave(C)
    harness.worker(W)
    assert harness.messages()[1:] == [harness.request_to(W, 1, C, b"x", flags=spec.ONE_WAY)]
    harness.answer(W, number(1))
    assert harness.messages() == []
    assert outcomes(harness) == {"accepted": 1, "answered": 1}


def test_client_that_leaves_has_its_requests_cancelled_wherever_they_are(
    harness: BrokerHarness,
) -> None:
    harness.worker(W)
    harness.request(C, 1)
    harness.request(C, 2)
    harness.request(A, 1)
    harness.sent()
    harness.leave(C)
    assert harness.messages() == [cancel(W, 1)]
    assert outcomes(harness) == {"accepted": 3, "cancelled": 2}
    harness.answer(W, number(1))
    assert harness.messages() == [harness.request_to(W, 2, A)]


def test_unknown_command_with_an_open_id_is_that_requests_one_outcome(
    harness: BrokerHarness,
) -> None:
    one_request_at_the_worker(harness)
    harness.receive_03(C, 99, id=1)
    assert harness.messages() == [
        cancel(W, 1),
        final(C, 1, b"not implemented: command 99", status=501),
    ]
    harness.answer(W, number(1), b"late")
    assert harness.messages() == []
    assert outcomes(harness) == {"accepted": 1, "failed": 1}


def test_request_that_is_refused_was_never_accepted(harness: BrokerHarness) -> None:
    harness.request(C, 1, flags=spec.FAIL_FAST)
    text = b"no worker serves 'echo'; no service is served now"
    assert harness.messages() == [final(C, 1, text, status=503)]
    assert outcomes(harness) == {}
    assert harness.counts.refused == {503: 1}


def test_id_may_be_open_again_for_another_client(harness: BrokerHarness) -> None:
    harness.worker(W, capacity=2)
    harness.request(A, 1, b"a")
    harness.request(C, 1, b"c")
    harness.sent()
    harness.answer(W, number(2), b"to c")
    harness.answer(W, number(1), b"to a")
    assert harness.messages() == [final(C, 1, b"to c", worker=W), final(A, 1, b"to a", worker=W)]

"""Rule 1: every accepted request gets exactly one final outcome: answered, failed, expired or
cancelled."""

from __future__ import annotations

from majordomus.protocol import spec
from tests.core.broker_harness import House, cancel, final, number

A, C, W = b"client-a", b"client-c", b"worker-w"


def outcomes(house: House) -> dict[str, int]:
    counts = house.counts
    names = ("accepted", "answered", "failed", "expired", "cancelled")
    return {name: getattr(counts, name) for name in names if getattr(counts, name)}


def one_request_at_the_worker(house: House, **fields: object) -> None:
    house.worker(W)
    house.request(C, 1, b"x", **fields)
    house.said()


def test_request_that_its_worker_answers_is_answered(house: House) -> None:
    house.worker(W)
    house.said()
    house.request(C, 1, b"x")
    assert house.words() == [house.given(W, 1, C, b"x")]
    house.answer(W, number(1), b"y")
    assert house.words() == [final(C, 1, b"y", worker=W)]
    assert outcomes(house) == {"accepted": 1, "answered": 1}
    assert house.machine.drained


def test_request_whose_handler_failed_is_failed_with_the_workers_words(house: House) -> None:
    one_request_at_the_worker(house)
    house.answer(W, number(1), b"ValueError: no", status=500)
    assert house.words() == [final(C, 1, b"ValueError: no", worker=W, status=500)]
    assert outcomes(house) == {"accepted": 1, "failed": 1}


def test_final_with_status_0_is_taken_as_500(house: House) -> None:
    one_request_at_the_worker(house)
    house.answer(W, number(1), status=0)
    assert house.words() == [final(C, 1, worker=W, status=500)]
    assert outcomes(house) == {"accepted": 1, "failed": 1}


def test_status_that_the_broker_does_not_know_is_passed_on(house: House) -> None:
    one_request_at_the_worker(house)
    house.answer(W, number(1), b"tea", status=418)
    assert house.words() == [final(C, 1, b"tea", worker=W, status=418)]
    assert outcomes(house) == {"accepted": 1, "failed": 1}


def test_request_at_its_deadline_is_expired_and_its_late_answer_reaches_nobody(
    house: House,
) -> None:
    one_request_at_the_worker(house, ttl=500)
    house.pass_time(0.6)
    text = b"'echo' did not answer within 0.5 s; it was at a worker"
    assert house.words() == [cancel(W, 1), final(C, 1, text, status=408)]
    house.answer(W, number(1), b"late")
    assert house.words() == []
    assert outcomes(house) == {"accepted": 1, "expired": 1}
    assert house.counts.dropped == {}


def test_cancelled_request_is_answered_499_once_and_its_late_answer_reaches_nobody(
    house: House,
) -> None:
    one_request_at_the_worker(house)
    house.say(C, spec.CANCEL, id=1)
    assert house.words() == [cancel(W, 1), final(C, 1, b"cancelled by the client", status=499)]
    house.answer(W, number(1), b"late")
    house.say(C, spec.CANCEL, id=1)
    assert house.words() == []
    assert outcomes(house) == {"accepted": 1, "cancelled": 1}
    assert house.counts.dropped == {"late-cancel": 1}


def test_cancel_in_the_queue_ends_a_request_that_no_worker_saw(house: House) -> None:
    house.request(C, 1)
    house.say(C, spec.CANCEL, id=1)
    assert house.words() == [final(C, 1, b"cancelled by the client", status=499)]
    house.worker(W)
    assert [word[1] for word in house.words()] == ["WELCOME"]
    assert outcomes(house) == {"accepted": 1, "cancelled": 1}


def test_cancel_after_the_answer_changes_nothing(house: House) -> None:
    one_request_at_the_worker(house)
    house.answer(W, number(1), b"y")
    house.say(C, spec.CANCEL, id=1)
    assert house.words() == [final(C, 1, b"y", worker=W)]
    assert outcomes(house) == {"accepted": 1, "answered": 1}


def test_second_final_of_a_worker_is_no_second_outcome(house: House) -> None:
    one_request_at_the_worker(house)
    house.answer(W, number(1), b"first")
    house.answer(W, number(1), b"second")
    assert house.words() == [final(C, 1, b"first", worker=W)]
    assert outcomes(house) == {"accepted": 1, "answered": 1}
    assert house.counts.dropped == {"unasked-reply": 1}


def test_one_way_request_has_an_outcome_that_nobody_is_told(house: House) -> None:
    house.worker(W)
    house.said()
    house.request(C, 0, b"x", flags=spec.ONE_WAY)
    assert house.words() == [house.given(W, 2, C, b"x", flags=spec.ONE_WAY)]
    house.part(W, number(2), b"part")
    house.answer(W, number(2), b"y")
    assert house.words() == []
    assert outcomes(house) == {"accepted": 1, "answered": 1}


def test_one_way_request_outlives_its_client(house: House) -> None:
    house.request(C, 7, b"x", flags=spec.ONE_WAY)
    house.leave(C)
    house.worker(W)
    assert house.words()[1:] == [house.given(W, 1, C, b"x", flags=spec.ONE_WAY)]
    house.answer(W, number(1))
    assert house.words() == []
    assert outcomes(house) == {"accepted": 1, "answered": 1}


def test_client_that_leaves_has_its_requests_cancelled_wherever_they_are(house: House) -> None:
    house.worker(W)
    house.request(C, 1)
    house.request(C, 2)
    house.request(A, 1)
    house.said()
    house.leave(C)
    assert house.words() == [cancel(W, 1)]
    assert outcomes(house) == {"accepted": 3, "cancelled": 2}
    house.answer(W, number(1))
    assert house.words() == [house.given(W, 2, A)]


def test_unknown_command_with_an_open_id_is_that_requests_one_outcome(house: House) -> None:
    one_request_at_the_worker(house)
    house.say(C, 99, id=1)
    assert house.words() == [cancel(W, 1), final(C, 1, b"not implemented: command 99", status=501)]
    house.answer(W, number(1), b"late")
    assert house.words() == []
    assert outcomes(house) == {"accepted": 1, "failed": 1}


def test_request_that_is_refused_was_never_accepted(house: House) -> None:
    house.request(C, 1, flags=spec.FAIL_FAST)
    text = b"no worker serves 'echo'; no service is served now"
    assert house.words() == [final(C, 1, text, status=503)]
    assert outcomes(house) == {}
    assert house.counts.refused == {503: 1}


def test_id_may_be_open_again_for_another_client(house: House) -> None:
    house.worker(W, capacity=2)
    house.request(A, 1, b"a")
    house.request(C, 1, b"c")
    house.said()
    house.answer(W, number(2), b"to c")
    house.answer(W, number(1), b"to a")
    assert house.words() == [final(C, 1, b"to c", worker=W), final(A, 1, b"to a", worker=W)]

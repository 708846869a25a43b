"""A durable request from its acceptance to its outcome, and what survives a restart."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from majordomus.core.broker.durable.records import DAMAGED, Append, Complete, Remove
from majordomus.durable.store import RowDamagedError
from majordomus.protocol import metadata, spec
from tests.core import durable_harness
from tests.core.broker_harness import final, heartbeat, number, partial
from tests.core.durable_harness import DurableHarness

C, D, W, V = b"client", b"second", b"worker", b"other"
HANDLE = bytes(8)
FOREVER = 4_294_967_000


def given(broker: DurableHarness) -> list[tuple[bytes, int, list[bytes]]]:
    """(worker, dispatch id, body) of every REQUEST since the last call."""
    return [(one[0], one[2]["id"], one[3]) for one in broker.messages() if one[1] == "REQUEST"]


def test_nothing_is_sent_before_the_request_is_stored(broker: DurableHarness) -> None:
    broker.worker(W)
    broker.holds = True
    broker.messages()
    broker.durable(C, 1, b"x")
    assert broker.messages() == []
    assert isinstance(broker.writes[-1][1], Append)
    broker.store_now()
    expected = {"id": number(1), "ttl": FOREVER, "service": b"echo", "address": HANDLE}
    assert broker.messages() == [(W, "REQUEST", expected, [b"x"])]


def test_answer_is_not_sent_before_the_outcome_is_stored(broker: DurableHarness) -> None:
    broker.worker(W)
    broker.durable(C, 1, b"x", key="k")
    broker.holds = True
    broker.messages()
    broker.answer(W, number(1), b"y")
    assert broker.messages() == []
    assert isinstance(broker.writes[-1][1], Complete)
    broker.store_now()
    assert broker.messages() == [final(C, 1, b"y")]


def test_plain_call_does_not_wait_for_the_store(broker: DurableHarness) -> None:
    broker.worker(W, capacity=2)
    broker.holds = True
    broker.durable(C, 1, b"x")
    broker.messages()
    broker.request(C, 2, b"plain")
    assert given(broker) == [(W, number(1), [b"plain"])]


def test_outcome_that_a_client_without_key_has_waited_for_is_not_kept(
    broker: DurableHarness,
) -> None:
    broker.worker(W)
    broker.durable(C, 1, b"x")
    broker.holds = True
    broker.answer(W, number(1), b"y")
    assert isinstance(broker.writes[-1][1], Remove)
    broker.store_now()
    assert broker.store.rows == {}


def test_submitted_request_is_answered_with_its_id_and_its_result_can_be_read(
    broker: DurableHarness,
) -> None:
    id = broker.submit(C, 1, b"x")
    broker.worker(W)
    broker.answer(W, number(1), b"y", b"")
    broker.messages()
    broker.ask(D, 7, "result", id)
    assert broker.messages() == [final(D, 7, b"200", b"y", b"")]


def test_result_waits_for_the_outcome(broker: DurableHarness) -> None:
    id = broker.submit(C, 1, b"x")
    broker.ask(C, 2, "result", id)
    broker.worker(W)
    broker.messages()
    broker.answer(W, number(1), b"no", status=400)
    assert broker.finals() == [(C, 2, 200, [b"400", b"no"])]


def test_result_that_must_not_wait_is_408_before_the_outcome(broker: DurableHarness) -> None:
    id = broker.submit(C, 1, b"x")
    broker.ask(C, 2, "result", id, b"0")
    assert broker.finals() == [(C, 2, 408, [b"the request has no outcome yet"])]


def test_ttl_ends_the_waiting_and_not_the_request(broker: DurableHarness) -> None:
    broker.durable(C, 1, b"x", ttl=1000, key="k")
    broker.pass_time(1.1)
    text = b"'echo' did not answer within 1 s; it was stored, and goes on"
    assert broker.finals() == [(C, 1, 408, [text])]
    broker.worker(W)
    broker.answer(W, number(1), b"y")
    broker.messages()
    broker.durable(C, 2, b"x", key="k")
    assert broker.finals() == [(C, 2, 200, [b"y"])]


def test_ttl_that_ends_before_the_row_is_stored_does_not_say_that_it_is(
    broker: DurableHarness,
) -> None:
    broker.durable(C, 1, b"x", ttl=60_000)
    broker.holds = True
    broker.durable(C, 2, b"x", ttl=1000, detach=True)
    broker.durable(C, 3, b"x", ttl=1000, key="k")
    broker.pass_time(1.1)
    text = b"'echo' did not answer within 1 s; it was being stored: whether it goes on is unknown"
    assert broker.finals() == [(C, 2, 408, [text]), (C, 3, 408, [text])]


def test_ttl_that_ends_behind_many_unstored_rows_says_nothing_certain(
    broker: DurableHarness,
) -> None:
    broker.durable(C, 1, b"x", ttl=1000)
    broker.holds = True
    for id in range(2, 67):
        broker.durable(C, id, b"x", ttl=60_000)
    broker.pass_time(1.1)
    [(_, id, status, [text])] = broker.finals()
    assert (id, status) == (1, 408)
    assert text.endswith(b"it was being stored: whether it goes on is unknown")


def test_question_whose_ttl_ends_tells_what_it_waited_for(broker: DurableHarness) -> None:
    id = broker.submit(C, 1, b"x")
    broker.ask(C, 2, "result", id, ttl=1000)
    broker.holds = True
    broker.ask(C, 3, "withdraw", id, ttl=1000)
    broker.pass_time(1.1)
    ends = [(id, status, text) for _, id, status, [text] in broker.finals()]
    assert ends == [
        (2, 408, b"'$durable.result' did not answer within 1 s; it was waiting for the outcome"),
        (3, 408, b"'$durable.withdraw' did not answer within 1 s; it was waiting for the store"),
    ]


def test_stored_key_is_answered_where_no_new_request_is_accepted(
    make: Callable[..., DurableHarness],
) -> None:
    broker = make(max_durable=1)
    id = broker.submit(C, 1, b"x", key="k")
    text = b"1 durable requests are open at this broker already"
    for at, full in ((10, False), (20, True)):
        if full:
            broker.store.accepts = False
            broker.machine.store_state(broker.store.state())
            text = b"the disk of the broker's store is almost full"
        broker.durable(C, at, b"x", key="k", detach=True)
        broker.durable(C, at + 1, b"other", key="k")
        broker.durable(C, at + 2, b"x", key="new")
        broker.durable(C, at + 3, b"x")
        assert sorted(broker.finals()) == [
            (C, at, 200, [id]),
            (C, at + 1, 409, [b"key 'k' belongs to a request with another body"]),
            (C, at + 2, 429, [text]),
            (C, at + 3, 429, [text]),
        ]


def test_stored_key_is_answered_when_the_disk_is_full_before_the_machine_knows(
    broker: DurableHarness,
) -> None:
    id = broker.submit(C, 1, b"x", key="k")
    broker.store.accepts = False  # not reported yet
    broker.durable(C, 2, b"x", key="k", detach=True)
    assert broker.finals() == [(C, 2, 200, [id])]


def test_outcome_whose_time_is_over_is_gone_before_it_is_deleted(broker: DurableHarness) -> None:
    id = broker.submit(C, 1, b"x", keep=1)
    broker.worker(W)
    broker.answer(W, number(1), b"y")
    broker.messages()
    broker.pass_time(1.1)
    assert len(broker.store.rows) == 1
    broker.ask(C, 2, "result", id)
    broker.ask(C, 3, "forget", id)
    text = b"the outcome of this request is no longer kept"
    assert broker.finals() == [(C, 2, 410, [text]), (C, 3, 410, [text])]


@pytest.mark.parametrize("body", [b"x", b"another"])
def test_key_is_free_when_its_outcome_is_kept_no_longer(
    broker: DurableHarness, body: bytes
) -> None:
    first = broker.submit(C, 1, b"x", key="k", keep=1)
    broker.worker(W)
    broker.answer(W, number(1), b"old")
    broker.messages()
    broker.pass_time(1.1)
    assert len(broker.store.rows) == 1  # it was not swept yet
    second = broker.submit(C, 2, body, key="k", keep=1)
    assert second != first
    assert [row.body for row in broker.store.rows.values()] == [[body]]
    broker.answer(W, number(2), b"new")
    broker.messages()
    broker.ask(C, 3, "result", second)
    assert broker.finals() == [(C, 3, 200, [b"200", b"new"])]


def test_key_whose_outcome_is_kept_no_longer_does_not_pass_a_limit(
    make: Callable[..., DurableHarness],
) -> None:
    broker = make(max_durable=1)
    broker.submit(C, 1, b"x", key="k", keep=1)
    broker.worker(W)
    broker.answer(W, number(1), b"old")
    broker.leave(W)
    broker.pass_time(1.1)
    broker.submit(C, 2, b"fills the broker")
    broker.durable(C, 3, b"x", key="k", keep=1)
    assert [one[2] for one in broker.finals()] == [429]


def test_withdrawn_request_tells_the_attempts_that_it_had(broker: DurableHarness) -> None:
    broker.worker(W)
    id = broker.submit(C, 1, b"x")
    broker.ask(C, 2, "withdraw", id)
    [row] = broker.store.rows.values()
    assert (row.attempts, row.outcome and row.outcome.status) == (1, 499)


def test_clock_that_was_set_back_delays_an_attempt_no_longer_than_others(
    make: Callable[..., DurableHarness], monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = make(retry_delay=1.0, max_retry_delay=2.0)
    broker.submit(C, 1, b"x")
    broker.worker(W)
    broker.answer(W, number(1), b"no", status=500)
    monkeypatch.setattr(durable_harness, "WALL", durable_harness.WALL - 86_400)
    broker.restart()
    broker.worker(W)
    broker.messages()
    broker.pass_time(2.1)
    assert [(worker, body) for worker, _, body in given(broker)] == [(W, [b"x"])]


def test_damaged_row_is_the_matter_of_those_that_ask_for_it(
    broker: DurableHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = broker.submit(C, 1, b"x", key="k")
    broker.worker(W)
    broker.answer(W, number(1), b"y")
    broker.messages()

    def damaged(*_: object) -> None:
        raise RowDamagedError("row 1 is damaged")

    monkeypatch.setattr(broker.store, "read", damaged)
    monkeypatch.setattr(broker.store, "append", lambda rows: [DAMAGED for _ in rows])
    broker.ask(C, 2, "result", id)
    broker.durable(C, 3, b"x", key="k")
    text = b"the broker's store has this request, but damaged: majordomus durable verify"
    assert broker.finals() == [(C, 2, 500, [text]), (C, 3, 500, [text])]


def test_key_that_is_looked_for_when_its_ttl_ends_was_not_stored(
    make: Callable[..., DurableHarness],
) -> None:
    broker = make(max_durable=1)
    broker.submit(C, 1, b"x", key="k")
    broker.holds = True
    broker.durable(C, 2, b"x", ttl=1000, key="k")
    broker.pass_time(1.1)
    text = b"'echo' did not answer within 1 s; it was waiting for the store"
    assert broker.finals() == [(C, 2, 408, [text])]
    broker.store_now()
    assert broker.messages() == []


@pytest.mark.parametrize("name", [b"mmi.services", b"$durable.result", b"$x", b"titanic.request"])
def test_name_that_the_broker_answers_cannot_be_durable(
    broker: DurableHarness, name: bytes
) -> None:
    broker.durable(C, 1, b"x", service=name)
    text = b"a name that the broker answers itself (mmi., $, RFC 9) cannot be durable"
    assert broker.finals() == [(C, 1, 400, [text])]
    assert broker.store.rows == {}


def test_cancel_ends_the_waiting_and_not_the_request(broker: DurableHarness) -> None:
    broker.worker(W)
    broker.durable(C, 1, b"x")
    broker.messages()
    broker.receive_03(C, spec.CANCEL, id=1)
    assert broker.messages() == [final(C, 1, b"cancelled by the client", status=499)]
    broker.answer(W, number(1), b"y")
    assert [row.outcome and row.outcome.status for row in broker.store.rows.values()] == [200]


def test_client_that_is_lost_leaves_its_request_behind(broker: DurableHarness) -> None:
    broker.worker(W)
    broker.durable(C, 1, b"x")
    broker.lose_connection(C)
    broker.answer(W, number(1), b"y")
    [row] = broker.store.rows.values()
    assert row.outcome is not None
    assert row.outcome.frames == [b"y"]


def test_one_way_request_is_stored_and_runs(broker: DurableHarness) -> None:
    broker.durable(C, 0, b"x", flags=spec.ONE_WAY)
    assert broker.messages() == []
    broker.restart()
    broker.worker(W)
    assert [body for _, _, body in given(broker)] == [[b"x"]]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"flags": spec.MORE}, "a stream from the client cannot be durable"),
        ({"flags": spec.ONCE}, "a durable request runs at least once: it cannot be ONCE"),
        ({"address": W}, "a durable request cannot name its worker"),
        ({"hedge": 3}, "a durable request cannot be a hedge"),
        ({"key": ""}, "a key has 1 to 255 bytes"),
        ({"key": "x" * 256}, "a key has 1 to 255 bytes"),
        ({"key": 7}, "a key is text or bytes"),
        ({"detach": 1}, "detach is true or false"),
        ({"expires": "soon"}, "expires is a number of seconds"),
        ({"expires": float("nan")}, "expires is from 0 to 3153600000 seconds"),
        ({"keep": -1}, "keep is from 0 to 3153600000 seconds"),
    ],
)
def test_request_that_cannot_be_durable_is_400(
    broker: DurableHarness, fields: dict[str, object], text: str
) -> None:
    broker.worker(W)
    broker.messages()
    broker.durable(C, 1, b"x", **fields)  # type: ignore[arg-type]
    assert broker.messages() == [final(C, 1, text.encode(), status=400)]
    assert broker.store.rows == {}


# ── keys ──────────────────────────────────────────────────────────────────────────────────────────


def test_same_key_and_body_is_the_same_request(broker: DurableHarness) -> None:
    broker.worker(W, capacity=9)
    broker.durable(C, 1, b"x", key="k")
    broker.durable(D, 2, b"x", key="k")
    assert [body for _, _, body in given(broker)] == [[b"x"]]
    broker.answer(W, number(1), b"y")
    assert broker.finals() == [(C, 1, 200, [b"y"]), (D, 2, 200, [b"y"])]
    broker.durable(D, 3, b"x", key="k")
    assert broker.finals() == [(D, 3, 200, [b"y"])]


def test_same_key_with_another_body_is_409(broker: DurableHarness) -> None:
    broker.durable(C, 1, b"x", b"y", key="k")
    broker.durable(C, 2, b"xy", key="k")
    text = b"key 'k' belongs to a request with another body"
    assert broker.finals() == [(C, 2, 409, [text])]


def test_two_requests_with_one_key_in_one_batch_are_one(broker: DurableHarness) -> None:
    broker.worker(W, capacity=9)
    broker.holds = True
    for id in (1, 2):
        broker.durable(C, id, b"x", key="k")
    broker.store_now()
    assert len(given(broker)) == 1
    broker.holds = False
    broker.answer(W, number(1), b"y")
    assert broker.finals() == [(C, 1, 200, [b"y"]), (C, 2, 200, [b"y"])]


def test_key_that_is_asked_while_its_outcome_is_written_gets_that_outcome(
    broker: DurableHarness,
) -> None:
    broker.worker(W, capacity=9)
    broker.durable(C, 1, b"x", key="k")
    broker.holds = True
    broker.durable(C, 2, b"x", key="k")
    broker.answer(W, number(1), b"y")
    broker.messages()
    broker.store_now()
    assert broker.finals() == [(C, 1, 200, [b"y"]), (C, 2, 200, [b"y"])]


def test_key_of_another_user_or_service_is_another_request(broker: DurableHarness) -> None:
    broker.become(C, "ann")
    broker.become(D, "bob")
    broker.worker(W, capacity=9)
    broker.worker(W, b"time", capacity=9)
    for peer, id, service in ((C, 1, b"echo"), (D, 2, b"echo"), (C, 3, b"time")):
        broker.durable(peer, id, b"x", key="k", service=service)
    assert len(given(broker)) == 3


def test_key_is_known_after_a_restart(broker: DurableHarness) -> None:
    broker.worker(W)
    broker.durable(C, 1, b"x", key="k")
    broker.answer(W, number(1), b"y")
    broker.restart()
    broker.durable(D, 5, b"x", key="k")
    assert broker.finals() == [(D, 5, 200, [b"y"])]


# ── attempts ──────────────────────────────────────────────────────────────────────────────────────


def test_failed_attempt_is_followed_by_another_one_after_a_delay(broker: DurableHarness) -> None:
    broker.worker(W)
    broker.durable(C, 1, b"x")
    broker.messages()
    broker.answer(W, number(1), b"no", status=500)
    broker.pass_time(0.4)
    assert broker.dispatched() == []
    broker.pass_time(0.7)
    [(peer, _, fields, body)] = [one for one in broker.messages() if one[1] == "REQUEST"]
    assert (peer, fields["id"], body) == (W, number(2), [b"x"])
    assert metadata.split(fields["metadata"], fields["flags"])[0] == {"attempt": 2}
    broker.answer(W, number(2), b"y")
    assert broker.finals() == [(C, 1, 200, [b"y"])]


def test_next_attempt_begins_when_the_one_before_is_stored(broker: DurableHarness) -> None:
    """Else a crash while the disk is slow would forget more than one."""
    broker.worker(W)
    broker.durable(C, 1, b"x", key="k")
    [(_, id, _)] = given(broker)
    broker.holds = True
    broker.answer(W, id, b"no", status=500)
    broker.pass_time(2.1)
    assert given(broker) == []
    broker.holds = False
    broker.store_now()
    broker.pass_time(0.01)
    assert len(given(broker)) == 1
    assert [row.attempts for row in broker.store.rows.values()] == [1]


def test_request_that_is_withdrawn_while_its_attempt_is_written_runs_no_more(
    broker: DurableHarness,
) -> None:
    public = broker.submit(C, 1, b"x")
    broker.worker(W)
    [(_, id, _)] = given(broker)
    broker.holds = True
    broker.answer(W, id, b"no", status=500)
    broker.ask(C, 2, "withdraw", public)
    broker.holds = False
    broker.store_now()
    broker.pass_time(2.1)
    assert given(broker) == []
    assert [row.outcome and row.outcome.status for row in broker.store.rows.values()] == [499]


def test_delays_grow_and_the_last_failure_is_the_outcome(
    make: Callable[..., DurableHarness],
) -> None:
    broker = make(max_attempts=4, worker_interval=1000.0)
    broker.worker(W)
    id = broker.submit(C, 1, b"x")
    waits = []
    for attempt in range(1, 5):
        [(_, dispatch, _)] = given(broker) or [(W, number(1), [])]
        broker.answer(W, dispatch, b"no %d" % attempt, status=500)
        began = broker.now
        while attempt < 4 and not any(one[1] == "REQUEST" for one in broker.waiting_messages()):
            broker.pass_time(0.05)
        waits.append(broker.now - began)
    assert 0.5 <= waits[0] <= 1.1
    assert 1.0 <= waits[1] <= 2.1
    assert 2.0 <= waits[2] <= 4.1
    broker.messages()
    broker.ask(C, 2, "result", id)
    assert broker.finals() == [(C, 2, 200, [b"500", b"no 4"])]


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422, 501])
def test_status_that_no_other_attempt_would_change_is_the_outcome(
    broker: DurableHarness, status: int
) -> None:
    broker.worker(W)
    broker.durable(C, 1, b"x")
    broker.messages()
    broker.answer(W, number(1), b"no", status=status)
    assert broker.finals() == [(C, 1, status, [b"no"])]


@pytest.mark.parametrize("status", [408, 429, 499, 500, 502, 503, 504])
def test_status_that_another_attempt_may_change_is_tried_again(
    broker: DurableHarness, status: int
) -> None:
    broker.worker(W)
    broker.durable(C, 1, b"x")
    broker.answer(W, number(1), b"no", status=status)
    broker.messages()
    broker.pass_time(1.1)
    assert [body for _, _, body in given(broker)] == [[b"x"]]


def test_request_of_a_lost_worker_runs_again_until_its_attempts_are_used_up(
    make: Callable[..., DurableHarness],
) -> None:
    broker = make(max_attempts=2)
    broker.durable(C, 1, b"x", ttl=60_000)
    for worker in (W, V):
        broker.worker(worker)
        broker.messages()
        broker.leave(worker)
        broker.pass_time(2.1)
    text = b"worker lost (left) at attempt 2"
    assert broker.finals() == [(C, 1, 502, [text])]


def test_request_that_kills_its_workers_stops_also_when_the_broker_restarts(
    make: Callable[..., DurableHarness],
) -> None:
    broker = make(max_attempts=3)
    id = broker.submit(C, 1, b"x")
    runs = 0
    for _ in range(5):
        broker.worker(W)
        runs += len(broker.dispatched())
        broker.pass_time(0.3)  # the attempt is recorded
        broker.restart()
    assert runs == 3
    broker.ask(C, 2, "result", id)
    text = b"3 of 3 attempts had no end: worker or broker was lost"
    assert broker.finals() == [(C, 2, 200, [b"502", text])]


def test_rejected_dispatch_is_no_attempt(broker: DurableHarness) -> None:
    broker.worker(W)
    broker.worker(V)
    broker.durable(C, 1, b"x", key="k")
    [(first, id, _)] = given(broker)
    broker.reject(first, id)
    [(second, id, _)] = given(broker)
    assert second != first
    broker.answer(second, id, b"y")
    assert [row.attempts for row in broker.store.rows.values()] == [1]


def test_service_declares_its_attempts_up_to_the_limit_of_the_broker(
    make: Callable[..., DurableHarness],
) -> None:
    broker = make(max_durable_attempts=2)
    field = metadata.pack({"durable": True, "max_attempts": 50})
    broker.receive_03(W, spec.READY, service=b"echo", code=1, flags=spec.METADATA, metadata=field)
    broker.request(C, 1, b"x")
    broker.answer(W, number(1), b"no", status=500)
    broker.pass_time(1.1)
    broker.messages()
    broker.answer(W, number(2), b"no", status=500)
    assert broker.finals() == [(C, 1, 500, [b"no"])]


# ── expiry ────────────────────────────────────────────────────────────────────────────────────────


def test_request_without_outcome_expires_with_408(broker: DurableHarness) -> None:
    id = broker.submit(C, 1, b"x", expires=5)
    broker.pass_time(5.1)
    broker.ask(C, 2, "result", id)
    text = b"the request had no outcome within 5 s, after 0 attempts"
    assert broker.finals() == [(C, 2, 200, [b"408", text])]
    broker.worker(W)
    assert broker.dispatched() == []


def test_worker_gets_the_time_that_is_left_and_a_cancel_at_the_end(
    broker: DurableHarness,
) -> None:
    broker.worker(W)
    broker.submit(C, 1, b"x", expires=5)
    for _ in range(5):
        broker.pass_time(1.0)
        broker.heartbeat(W)
    broker.pass_time(0.1)
    sent = [one[1] for one in broker.messages() if one[0] == W and one[1] != "HEARTBEAT"]
    assert sent == ["CANCEL"]
    [row] = broker.store.rows.values()
    assert row.outcome is not None
    assert row.outcome.status == 408


def test_outcome_is_kept_for_its_time_and_then_gone_not_unknown(broker: DurableHarness) -> None:
    broker.worker(W)
    id = broker.submit(C, 1, b"x", keep=100)
    broker.answer(W, number(1), b"y")
    broker.leave(W)
    broker.pass_time(90)
    broker.messages()
    broker.ask(C, 2, "result", id)
    broker.pass_time(20)
    broker.ask(C, 3, "result", id)
    gone = b"the outcome of this request is no longer kept"
    assert broker.finals() == [(C, 2, 200, [b"200", b"y"]), (C, 3, 410, [gone])]


# ── restart ───────────────────────────────────────────────────────────────────────────────────────


def test_request_that_was_stored_runs_after_a_restart(broker: DurableHarness) -> None:
    id = broker.submit(C, 1, b"x", b"")
    broker.restart()
    broker.worker(W)
    assert given(broker) == [(W, number(1), [b"x", b""])]
    broker.answer(W, number(1), b"y")
    broker.ask(D, 2, "result", id)
    assert broker.finals() == [(D, 2, 200, [b"200", b"y"])]


def test_request_that_ran_runs_again_after_a_restart(broker: DurableHarness) -> None:
    broker.worker(W)
    broker.submit(C, 1, b"x")
    broker.pass_time(0.3)
    broker.restart()
    broker.worker(V)
    [(_, _, fields, _)] = [one for one in broker.messages() if one[1] == "REQUEST"]
    assert metadata.split(fields["metadata"], fields["flags"])[0] == {"attempt": 2}


def test_request_that_was_not_stored_is_gone_after_a_restart(broker: DurableHarness) -> None:
    broker.holds = True
    broker.durable(C, 1, b"x")
    broker.holds = False
    broker.restart()
    broker.worker(W)
    assert broker.dispatched() == []


def test_outcome_that_was_not_stored_is_found_anew_after_a_restart(
    broker: DurableHarness,
) -> None:
    broker.worker(W)
    broker.durable(C, 1, b"x", key="k")
    broker.holds = True
    broker.answer(W, number(1), b"first")
    assert broker.finals() == []
    broker.holds = False
    broker.restart()
    broker.durable(D, 2, b"x", key="k")
    broker.worker(V)
    broker.answer(V, number(1), b"second")
    assert broker.finals() == [(D, 2, 200, [b"second"])]


def test_answer_of_a_dispatch_from_before_the_restart_is_dropped(broker: DurableHarness) -> None:
    broker.worker(W)
    id = broker.submit(C, 1, b"x")
    broker.restart()
    broker.answer(W, number(1), b"old")
    broker.messages()
    broker.ask(C, 2, "result", id, b"0")
    assert [one[2] for one in broker.finals()] == [408]


def test_expiry_and_delay_go_on_over_a_restart(broker: DurableHarness) -> None:
    broker.worker(W)
    id = broker.submit(C, 1, b"x", expires=60)
    broker.answer(W, number(1), b"no", status=500)
    broker.restart(down=59.5)
    broker.pass_time(0.6)
    broker.ask(C, 2, "result", id)
    text = b"the request had no outcome within 60 s, after 1 attempts"
    assert broker.finals() == [(C, 2, 200, [b"408", text])]


# ── drain ─────────────────────────────────────────────────────────────────────────────────────────


def test_broker_that_drains_finishes_what_runs_and_keeps_what_waits(
    broker: DurableHarness,
) -> None:
    broker.worker(W)
    broker.durable(C, 1, b"runs")
    broker.durable(C, 2, b"waits", key="k")
    broker.messages()
    broker.machine.drain(broker.now)
    assert not broker.machine.drained
    broker.answer(W, number(1), b"y")
    assert broker.finals() == [(C, 1, 200, [b"y"])]
    assert broker.machine.drained
    assert broker.machine.unstored == 0
    broker.restart()
    broker.worker(V)
    assert [body for _, _, body in given(broker)] == [[b"waits"]]


def test_broker_that_drains_does_not_try_again(broker: DurableHarness) -> None:
    broker.worker(W)
    broker.durable(C, 1, b"x", key="k")
    broker.machine.drain(broker.now)
    broker.messages()
    broker.answer(W, number(1), b"no", status=500)
    assert broker.finals() == []
    assert broker.machine.drained


def test_key_of_a_waiting_request_that_is_asked_during_the_drain_holds_nothing_up(
    broker: DurableHarness,
) -> None:
    broker.submit(C, 1, b"x", key="k")
    broker.holds = True
    broker.durable(D, 1, b"x", key="k")
    broker.machine.drain(broker.now)
    broker.store_now()
    assert broker.machine.drained


# ── parts ─────────────────────────────────────────────────────────────────────────────────────────


def test_parts_reach_the_client_that_waits_and_are_not_stored(broker: DurableHarness) -> None:
    broker.worker(W)
    broker.durable(C, 1, b"x", key="k")
    broker.messages()
    broker.part(W, number(1), b"half")
    assert broker.messages() == [partial(C, 1, b"half")]
    broker.answer(W, number(1), b"end")
    broker.durable(D, 2, b"x", key="k")
    assert broker.finals() == [(C, 1, 200, [b"end"]), (D, 2, 200, [b"end"])]


def test_worker_that_streams_gets_credit_without_a_client(broker: DurableHarness) -> None:
    broker.worker(W)
    broker.submit(C, 1, b"x")
    for _ in range(40):
        broker.part(W, number(1), b"p")
    broker.answer(W, number(1), b"end")
    [row] = broker.store.rows.values()
    assert row.outcome is not None
    assert row.outcome.frames == [b"end"]


def test_request_whose_worker_is_lost_amid_its_parts_runs_again(broker: DurableHarness) -> None:
    broker.worker(W)
    broker.durable(C, 1, b"x")
    broker.part(W, number(1), b"half")
    broker.leave(W)
    broker.worker(V)
    broker.messages()
    broker.pass_time(1.1)
    assert [body for _, _, body in given(broker)] == [[b"x"]]
    broker.heartbeat(V)
    assert heartbeat(V) not in broker.messages()


# ── limits ────────────────────────────────────────────────────────────────────────────────────────


def test_request_beyond_the_limit_of_open_ones_is_429(make: Callable[..., DurableHarness]) -> None:
    broker = make(max_durable=1)
    broker.submit(C, 1, b"x")
    broker.durable(C, 2, b"x")
    text = b"1 durable requests are open at this broker already"
    assert broker.finals() == [(C, 2, 429, [text])]


def test_store_without_space_refuses_new_requests_and_takes_outcomes(
    broker: DurableHarness,
) -> None:
    broker.worker(W)
    id = broker.submit(C, 1, b"x")
    broker.store.accepts = False
    broker.durable(C, 2, b"y")
    broker.durable(C, 3, b"y")
    text = b"the disk of the broker's store is almost full"
    assert broker.finals() == [(C, 2, 429, [text]), (C, 3, 429, [text])]
    broker.answer(W, number(1), b"done")
    broker.ask(C, 4, "result", id)
    assert broker.finals() == [(C, 4, 200, [b"200", b"done"])]
    assert [name for name, _ in broker.facts if name.startswith("store")] == ["store-full"]
    broker.store.accepts = True
    broker.machine.store_state(broker.store.state())
    broker.submit(C, 5, b"z")


def test_long_backlog_leaves_the_queue_to_plain_requests(
    make: Callable[..., DurableHarness],
) -> None:
    broker = make(max_service_queue=300)
    for id in range(1, 600):
        broker.submit(C, id, b"%d" % id)
    assert broker.machine.registry.queued < 300
    broker.request(D, 1, b"plain")
    broker.worker(W)
    seen = []
    while len(seen) < 600:
        for _, dispatch, body in given(broker):
            seen.append(body[0])
            broker.answer(W, dispatch, b"")
        broker.pass_time(0.01)
    assert seen.index(b"plain") == 1
    assert sorted(seen) == sorted([b"plain", *(b"%d" % id for id in range(1, 600))])


@pytest.mark.parametrize(
    "bounds",
    [
        {"max_service_queue": 10},
        {"max_queue": 30},
        {"max_service_queue_bytes": 20},
        {"max_queue_bytes": 60},
        {"max_queue": 1, "max_service_queue": 1},
    ],
)
def test_durable_requests_keep_the_bounds_of_the_queues_and_all_run(
    make: Callable[..., DurableHarness], bounds: dict[str, int]
) -> None:
    broker = make(**bounds)
    bodies = [b"%d" % id for id in range(100, 200)]
    for id, body in enumerate(bodies, 1):
        broker.submit(C, id, body)
        broker.submit(C, 1000 + id, body, service=b"other")
    registry = broker.machine.registry
    assert registry.queued <= bounds.get("max_queue", 1000)
    assert registry.queued_bytes <= bounds.get("max_queue_bytes", 10**6) + 3
    for service in registry.services.values():
        if service.waiting is not None:
            assert service.waiting.count <= bounds.get("max_service_queue", 1000)
            assert service.waiting.size <= bounds.get("max_service_queue_bytes", 10**6) + 3
    broker.worker(W)
    broker.worker(V, service=b"other")
    seen: dict[bytes, list[bytes]] = {W: [], V: []}
    for _ in range(1000):
        for worker, dispatch, body in given(broker):
            seen[worker].append(body[0])
            broker.answer(worker, dispatch, b"")
        broker.pass_time(0.3)
        if sum(map(len, seen.values())) == 2 * len(bodies):
            break
    assert sorted(seen[W]) == sorted(seen[V]) == bodies


def test_owners_take_turns(broker: DurableHarness) -> None:
    broker.become(C, "ann")
    broker.become(D, "bob")
    for id in range(1, 400):
        broker.submit(C, id, b"ann")
    for id in range(1, 4):
        broker.submit(D, id, b"bob")
    broker.worker(W, capacity=8)
    assert [body[0] for _, _, body in given(broker)] == [b"ann", b"bob"] * 3 + [b"ann"] * 2


def test_request_that_is_withdrawn_leaves_the_backlog(broker: DurableHarness) -> None:
    ids = [broker.submit(C, id, b"x") for id in range(1, 400)]
    for n, id in enumerate(ids):
        broker.ask(C, 1000 + n, "withdraw", id)
    assert broker.machine.store.durable is not None
    assert broker.machine.store.durable.jobs == {}
    broker.pass_time(0.3)
    assert broker.machine.store.durable.backlog.services == {}
    assert broker.machine.registry.account.told()["requests"] == 0

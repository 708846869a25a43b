"""`$durable.…`, `titanic.…` (RFC 9), `mmi.durable…`, owners, access rules and hooks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from majordomus.core.broker.hooks.actions import FORWARD, Discard, Reject, ReplyAction
from majordomus.core.broker.state.access_rules import CALL, AccessRules, Rule
from majordomus.protocol import metadata, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect
from tests.core.broker_harness import final, number
from tests.core.durable_harness import DurableHarness
from tests.core.hook_harness import ScriptedHooks

C, D, W, V = b"client", b"second", b"worker", b"other"
GONE = b"the outcome of this request is no longer kept"
UNKNOWN = b"this broker has not given this id, or not to you"


def mmi(broker: DurableHarness, name: str, *body: bytes) -> Any:
    broker.request(D, 900 + len(body), *body, service=name.encode())
    [(_, _, status, frames)] = broker.finals()
    assert (status, frames[0]) == (200, b"200")
    return json.loads(frames[1])


# ── $durable ──────────────────────────────────────────────────────────────────────────────────────


def test_withdrawn_request_ends_with_499_and_its_worker_gets_cancel_when_that_is_stored(
    broker: DurableHarness,
) -> None:
    broker.worker(W)
    id = broker.submit(C, 1, b"x")
    broker.messages()
    broker.holds = True
    broker.ask(C, 2, "withdraw", id)
    assert broker.messages() == []
    broker.store_now()
    sent = broker.messages()
    assert sent == [(W, "CANCEL", {"id": number(1)}, []), final(C, 2)]
    broker.holds = False
    broker.answer(W, number(1), b"too late")
    broker.ask(C, 3, "result", id)
    assert broker.finals() == [(C, 3, 200, [b"499", b"withdrawn"])]


def test_request_that_waits_for_its_next_attempt_can_be_withdrawn(broker: DurableHarness) -> None:
    broker.worker(W)
    id = broker.submit(C, 1, b"x")
    broker.answer(W, number(1), b"no", status=500)
    broker.ask(C, 2, "withdraw", id)
    broker.messages()
    broker.pass_time(2.0)
    assert broker.dispatched() == []


def test_request_with_an_outcome_cannot_be_withdrawn(broker: DurableHarness) -> None:
    broker.worker(W)
    id = broker.submit(C, 1, b"x")
    broker.answer(W, number(1), b"y")
    broker.ask(C, 2, "withdraw", id)
    assert broker.finals() == [(C, 2, 409, [b"the request has an outcome already"])]


def test_outcome_that_is_forgotten_is_gone(broker: DurableHarness) -> None:
    broker.worker(W)
    id = broker.submit(C, 1, b"x")
    broker.answer(W, number(1), b"y")
    broker.ask(C, 2, "forget", id)
    broker.ask(C, 3, "forget", id)
    broker.ask(C, 4, "result", id)
    broker.ask(C, 5, "withdraw", id)
    expected = [(C, 2, 200, []), *((C, n, 410, [GONE]) for n in (3, 4, 5))]
    assert broker.finals() == expected
    assert broker.store.rows == {}


def test_request_without_outcome_cannot_be_forgotten(broker: DurableHarness) -> None:
    id = broker.submit(C, 1, b"x")
    broker.ask(C, 2, "forget", id)
    text = b"the request has no outcome yet: withdraw it first"
    assert broker.finals() == [(C, 2, 409, [text])]


@pytest.mark.parametrize("what", ["result", "withdraw", "forget"])
@pytest.mark.parametrize(
    ("id", "status"),
    [(b"", 400), (b"zz" * 16, 400), (b"00" * 15, 400), (b"00" * 16, 404), (b"7f" * 16, 404)],
)
def test_id_that_the_broker_has_not_given(
    broker: DurableHarness, what: str, id: bytes, status: int
) -> None:
    broker.ask(C, 1, what, id)
    assert [one[2] for one in broker.finals()] == [status]


def test_id_with_one_digit_changed_is_unknown(broker: DurableHarness) -> None:
    id = broker.submit(C, 1, b"x")
    for at in range(32):
        digit = b"0" if id[at : at + 1] != b"0" else b"1"
        broker.ask(C, 2 + at, "result", id[:at] + digit + id[at + 1 :], b"0")
        assert [one[2] for one in broker.finals()] == [404]


def test_unknown_service_of_the_prefix_is_501(broker: DurableHarness) -> None:
    broker.ask(C, 1, "other")
    assert broker.finals() == [(C, 1, 501, [b"no such service: $durable.other"])]


@pytest.mark.parametrize("ended", [False, True])
def test_id_of_another_user_is_unknown(broker: DurableHarness, ended: bool) -> None:
    broker.become(C, "ann")
    broker.become(D, "bob")
    id = broker.submit(C, 1, b"x")
    if ended:
        broker.worker(W)
        broker.answer(W, number(1), b"y")
        broker.messages()
    for n, what in enumerate(("result", "withdraw", "forget"), 1):
        broker.ask(D, n, what, id)
        assert broker.finals() == [(D, n, 404, [UNKNOWN])]
    broker.ask(V, 9, "result", id, b"0")
    assert broker.finals() == [(V, 9, 404, [UNKNOWN])]
    broker.ask(C, 9, "result", id, b"0")
    assert [one[2] for one in broker.finals()] == [200 if ended else 408]


def test_outcome_of_an_anonymous_request_is_read_by_its_id_alone(broker: DurableHarness) -> None:
    broker.become(D, "bob")
    broker.worker(W)
    id = broker.submit(C, 1, b"x")
    broker.answer(W, number(1), b"y")
    broker.messages()
    broker.ask(D, 1, "result", id)
    assert broker.finals() == [(D, 1, 200, [b"200", b"y"])]


def test_worker_gets_the_user_of_the_request_also_after_a_restart(broker: DurableHarness) -> None:
    broker.become(C, "ann")
    broker.submit(C, 1, b"x")
    broker.restart()
    broker.worker(W)
    [(_, _, fields, _)] = [one for one in broker.messages() if one[1] == "REQUEST"]
    said = metadata.split(fields["metadata"], fields["flags"])[0]
    assert said == {"attempt": 1, "user": "ann"}


# ── without a store ───────────────────────────────────────────────────────────────────────────────


def test_broker_without_a_store_answers_501(make_harness: Callable[..., Any]) -> None:
    broker = make_harness()
    text = b"not implemented: this broker has no store for durable requests"
    broker.request(C, 1, b"x", flags=spec.DURABLE)
    broker.request(C, 2, b"x", service=b"$durable.result")
    assert broker.finals() == [(C, 1, 501, [text]), (C, 2, 501, [text])]
    broker.request(C, 3, service=b"mmi.durable")
    assert broker.finals() == [(C, 3, 200, [b"501"])]
    broker.worker(W, b"titanic.request")
    broker.request(C, 4, b"x", service=b"titanic.request")
    assert len(broker.dispatched()) == 1


def test_worker_that_is_durable_is_refused_without_a_store(
    make_harness: Callable[..., Any],
) -> None:
    broker = make_harness()
    field = metadata.pack({"durable": True})
    broker.receive_03(W, spec.READY, service=b"echo", code=1, flags=spec.METADATA, metadata=field)
    [(peer, command, fields, _)] = broker.messages()
    assert (peer, command) == (W, "DISCONNECT")
    reason = metadata.unpack(fields["metadata"])
    assert (reason["status"], reason["service"]) == (501, "echo")


# ── services that are durable ─────────────────────────────────────────────────────────────────────


def ready(broker: DurableHarness, peer: bytes, **values: Any) -> None:
    field = metadata.pack(values)
    broker.receive_03(
        peer, spec.READY, service=b"echo", code=9, flags=spec.METADATA, metadata=field
    )


def test_every_request_to_a_durable_service_is_stored(broker: DurableHarness) -> None:
    ready(broker, W, durable=True)
    broker.request(C, 1, b"x")
    assert len(broker.store.rows) == 1
    broker.answer(W, number(1), b"y")
    assert broker.finals() == [(C, 1, 200, [b"y"])]


def test_client_of_an_older_dialect_calls_a_durable_service(broker: DurableHarness) -> None:
    ready(broker, W, durable=True)
    broker.receive(C, *LEGACY[Dialect.MDP01].c2b_request(b"echo", [b"x"]))
    assert len(broker.store.rows) == 1
    [(_, dispatch)] = broker.dispatched()
    broker.answer(W, dispatch, b"y")
    assert broker.sent() == [(C, LEGACY[Dialect.MDP01].b2c_final(b"echo", [b"y"]))]


def test_requests_that_waited_before_the_durable_worker_came_are_stored(
    broker: DurableHarness,
) -> None:
    for id in (1, 2):
        broker.request(C, id, b"%d" % id)
    ready(broker, W, durable=True)
    assert len(broker.store.rows) == 2
    for n in (1, 2):
        broker.answer(W, number(n), b"y")
    assert [one[:3] for one in broker.finals()] == [(C, 1, 200), (C, 2, 200)]


def test_requests_after_the_durable_worker_has_left_are_stored(broker: DurableHarness) -> None:
    ready(broker, W, durable=True)
    broker.leave(W)
    broker.request(C, 1, b"x")
    assert len(broker.store.rows) == 1


def test_service_whose_last_worker_is_not_durable_is_plain(broker: DurableHarness) -> None:
    ready(broker, W, durable=True)
    broker.leave(W)
    broker.worker(V)
    broker.request(C, 1, b"x")
    assert broker.store.rows == {}
    assert len(broker.dispatched()) == 1


def test_once_at_a_durable_service_is_400(broker: DurableHarness) -> None:
    ready(broker, W, durable=True)
    broker.request(C, 1, b"x", flags=spec.ONCE)
    assert [one[2] for one in broker.finals()] == [400]


# ── RFC 9 ─────────────────────────────────────────────────────────────────────────────────────────


def call_01(broker: DurableHarness, service: bytes, *body: bytes) -> list[bytes]:
    """The body of the reply to an MDP/0.1 client."""
    broker.sent()
    broker.receive(C, b"", b"MDPC01", service, *body)
    replies = [frames for peer, frames in broker.sent() if peer == C]
    [(empty, head, name, *frames)] = replies
    assert (empty, head, name) == (b"", b"MDPC01", service)
    return frames


def titanic(broker: DurableHarness) -> bytes:
    """Submit by RFC 9, and return the id. Other messages are kept."""
    broker.sent()
    broker.receive(C, b"", b"MDPC01", b"titanic.request", b"echo", b"x")
    [frames] = [one for peer, one in broker.waiting if peer == C]
    broker.waiting.remove((C, frames))
    assert frames[3] == b"200"
    return frames[4]


def test_titanic_keeps_a_request_of_mdp_01_over_a_restart(broker: DurableHarness) -> None:
    status, id = call_01(broker, b"titanic.request", b"echo", b"x", b"y")
    assert (status, len(id)) == (b"200", 32)
    assert call_01(broker, b"titanic.reply", id) == [b"300"]
    broker.restart()
    assert call_01(broker, b"titanic.reply", id) == [b"300"]
    broker.receive(W, b"", b"MDPW01", b"\x01", b"echo")
    [(_, frames)] = broker.sent()
    assert (frames[:3], frames[-2:]) == ([b"", b"MDPW01", b"\x02"], [b"x", b"y"])
    broker.receive(W, b"", b"MDPW01", b"\x03", *frames[3:])
    assert call_01(broker, b"titanic.reply", id) == [b"200", b"x", b"y"]
    broker.restart()
    assert call_01(broker, b"titanic.reply", id) == [b"200", b"x", b"y"]
    assert call_01(broker, b"titanic.close", id) == [b"200"]
    assert call_01(broker, b"titanic.close", id) == [b"200"]
    assert call_01(broker, b"titanic.reply", id) == [b"400"]
    assert broker.store.rows == {}


def test_titanic_close_ends_a_request_that_runs(broker: DurableHarness) -> None:
    broker.worker(W)
    id = titanic(broker)
    [(_, dispatch)] = broker.dispatched()
    assert call_01(broker, b"titanic.close", id) == [b"200"]
    assert broker.store.rows == {}
    broker.answer(W, dispatch, b"late")
    assert call_01(broker, b"titanic.reply", id) == [b"400"]


def test_titanic_reply_to_a_failure_is_500_with_its_text(broker: DurableHarness) -> None:
    broker.worker(W)
    id = titanic(broker)
    [(_, dispatch)] = broker.dispatched()
    broker.answer(W, dispatch, b"why", status=422)
    assert call_01(broker, b"titanic.reply", id) == [b"500", b"why"]


@pytest.mark.parametrize(
    "body",
    [(), (b"",), (b"mmi.service",), (b"$durable.result",), (b"titanic.reply",), (b"\xff",)],
)
def test_titanic_request_without_a_service_is_400(
    broker: DurableHarness, body: tuple[bytes, ...]
) -> None:
    assert call_01(broker, b"titanic.request", *body) == [b"400"]


def test_titanic_request_beyond_a_limit_is_500(make: Callable[..., DurableHarness]) -> None:
    broker = make(max_durable=1)
    call_01(broker, b"titanic.request", b"echo", b"x")
    status, text = call_01(broker, b"titanic.request", b"echo", b"x")
    assert (status, text) == (b"500", b"1 durable requests are open at this broker already")


@pytest.mark.parametrize("body", [(), (b"",), (b"00" * 16,), (b"x" * 32,)])
def test_titanic_reply_and_close_of_an_unknown_id(
    broker: DurableHarness, body: tuple[bytes, ...]
) -> None:
    assert call_01(broker, b"titanic.reply", *body) == [b"400"]
    assert call_01(broker, b"titanic.close", *body) == [b"200"]


def test_worker_cannot_serve_titanic_names_of_a_broker_with_a_store(
    broker: DurableHarness,
) -> None:
    broker.worker(W, b"titanic.request")
    assert [one[1] for one in broker.messages()] == ["DISCONNECT"]


# ── access rules and hooks ────────────────────────────────────────────────────────────────────────


def test_access_rules_hold_for_durable_requests(broker: DurableHarness) -> None:
    rule = Rule(True, frozenset((CALL,)), users=("ann",), names=("echo",), source="rule 1")
    broker.machine.set_rights(AccessRules([rule]), broker.now)
    broker.become(C, "ann")
    broker.become(D, "bob")
    id = broker.submit(C, 1, b"x")
    broker.durable(D, 2, b"x")
    broker.request(D, 3, b"echo", b"x", service=b"titanic.request")
    broker.request(C, 4, b"echo", b"x", service=b"titanic.request")
    first, second, third = broker.finals()
    assert first[:3] == (D, 2, 403)
    assert second == (D, 3, 200, [b"403", b"'bob' may not call 'echo'"])
    assert third[3][0] == b"200"
    broker.ask(C, 5, "result", id, b"0")
    broker.request(C, 6, service=b"mmi.durable")
    assert [one[2] for one in broker.finals()] == [408, 403]


def test_hook_decides_before_the_request_is_stored_and_never_again(
    broker: DurableHarness,
) -> None:
    def upper(view: Any) -> Any:
        view.frames = [b"CHANGED"]
        return FORWARD

    hooks = ScriptedHooks(broker, on_request=upper)
    broker.durable(C, 1, b"x", key="k")
    assert [row.body for row in broker.store.rows.values()] == [[b"CHANGED"]]
    seen = len(hooks.seen)
    broker.restart()
    again = ScriptedHooks(broker, on_request=upper)
    broker.worker(W)
    assert [one[3] for one in broker.messages() if one[1] == "REQUEST"] == [[b"CHANGED"]]
    assert (seen, again.seen) == (1, [])


def test_request_that_a_hook_answers_is_not_stored(broker: DurableHarness) -> None:
    ScriptedHooks(broker, on_request=ReplyAction([b"hook"]))
    broker.durable(C, 1, b"x")
    assert broker.finals() == [(C, 1, 200, [b"hook"])]
    assert broker.store.rows == {}


def test_reply_that_a_hook_replaces_is_the_stored_outcome(broker: DurableHarness) -> None:
    ScriptedHooks(broker, on_reply=ReplyAction([b"hook"]))
    broker.worker(W)
    id = broker.submit(C, 1, b"x")
    broker.answer(W, number(1), b"y")
    broker.ask(C, 2, "result", id)
    assert (C, 2, 200, [b"200", b"hook"]) in broker.finals()


@pytest.mark.parametrize(
    ("action", "outcome"),
    [
        (Discard(), [b"500", b"a hook of the broker discarded the reply"]),
        (Reject(503, "not now"), [b"503", b"not now"]),
        (ReplyAction([b"busy"], status=429), [b"429", b"busy"]),
        (
            "no action",
            [b"500", b"a hook of the broker returned an action that is not allowed here"],
        ),
    ],
)
def test_decision_about_a_reply_is_the_outcome_and_no_attempt_follows(
    broker: DurableHarness, action: Any, outcome: list[bytes]
) -> None:
    hooks = ScriptedHooks(broker, on_reply=action)
    broker.worker(W)
    id = broker.submit(C, 1, b"x")
    broker.answer(W, number(1), b"y")
    broker.messages()
    broker.pass_time(60.0)
    assert not broker.dispatched()
    broker.ask(C, 2, "result", id)
    assert (C, 2, 200, outcome) in broker.finals()
    assert len(hooks.seen) == 1


# ── the management interface ──────────────────────────────────────────────────────────────────────


def test_list_has_every_row_and_no_id_of_an_anonymous_one(broker: DurableHarness) -> None:
    broker.become(C, "ann")
    id = broker.submit(C, 1, b"x", key="k")
    broker.submit(V, 1, b"y")
    rows = mmi(broker, "mmi.durable.list")
    assert [(row["id"], row["owner"], row["key"]) for row in rows] == [
        (id.decode(), "ann", "k"),
        ("", "", ""),
    ]
    assert [row["state"] for row in rows] == ["waiting", "waiting"]


def test_list_comes_in_pages(broker: DurableHarness) -> None:
    for id in range(1, 151):
        broker.submit(C, id, b"x")
    broker.request(D, 1, service=b"mmi.durable.list")
    [(_, _, _, frames)] = broker.finals()
    first = json.loads(frames[1])
    second = mmi(broker, "mmi.durable.list", b"", frames[2])
    assert (len(first), len(second)) == (100, 50)
    assert len({row["number"] for row in first + second}) == 150


def test_status_names_the_oldest_request(broker: DurableHarness) -> None:
    broker.submit(C, 1, b"x")
    broker.pass_time(7.0)
    found = mmi(broker, "mmi.durable")
    assert (found["open"], found["rows"], found["accepts"]) == (1, 1, True)
    assert 6.9 <= found["oldest"] <= 7.1


def test_stats_report_the_durable_requests(broker: DurableHarness) -> None:
    broker.submit(C, 1, b"x")
    assert mmi(broker, "mmi.stats")["durable"]["open"] == 1


def test_services_of_rfc_9_are_reported_as_served(broker: DurableHarness) -> None:
    broker.request(C, 1, b"titanic.request", service=b"mmi.service")
    broker.request(C, 2, b"echo", service=b"mmi.service")
    assert broker.finals() == [(C, 1, 200, [b"200"]), (C, 2, 200, [b"404"])]

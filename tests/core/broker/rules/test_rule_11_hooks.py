"""Rule 11: limits are checked first, then hooks, then access rules, before a request is placed.
Actions of hooks are carried out, held requests are counted, and each request has one outcome."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from majordomus.core.broker.hooks.actions import (
    Discard,
    Redirect,
    Reject,
    Replace,
    ReplyAction,
    SendTo,
)
from majordomus.core.broker.invariants import InvariantError
from majordomus.core.broker.settings import BrokerSettings
from majordomus.core.broker.state.access_rules import AccessRules, Rule
from majordomus.core.broker.state.identity import Caller
from majordomus.protocol import metadata, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect
from tests.core.broker_harness import BrokerHarness, cancel, final, number, partial, welcome
from tests.core.hook_harness import FORWARD, LATER, ScriptedHooks

C, C2, W, W2 = b"client-c", b"client-2", b"worker-w", b"worker-2"


def outcomes(harness: BrokerHarness) -> dict[str, int]:
    names = ("accepted", "answered", "failed", "expired", "cancelled")
    return {name: getattr(harness.counts, name) for name in names if getattr(harness.counts, name)}


def settled(harness: BrokerHarness) -> None:
    """Check that no request is open, held or counted any more."""
    harness.check()
    registry, holding = harness.machine.registry, harness.machine.hooks
    assert (registry.open, registry.queued, registry.queued_bytes) == (0, 0, 0)
    assert holding is not None
    pending = holding.pending
    assert (len(pending.waiting), len(pending.open), len(pending.deadlines)) == (0, 0, 0)


class TestRequests:
    """The effect of each action on a request, at once and later."""

    @pytest.fixture(params=["at once", "later"])
    def ask(
        self, request: pytest.FixtureRequest, harness: BrokerHarness
    ) -> Callable[..., ScriptedHooks]:
        """Send one request of C, for which the hook decides an action."""
        harness.worker(W)
        harness.worker(W2, b"other")
        harness.messages()

        def asked(action: Any, **fields: Any) -> ScriptedHooks:
            if request.param == "at once":
                hooks = ScriptedHooks(harness, on_request=action)
                harness.request(C, 1, b"hi", **fields)
            else:
                hooks = ScriptedHooks(harness, on_request=LATER)
                harness.request(C, 1, b"hi", **fields)
                assert harness.messages() == []
                harness.check()
                assert harness.machine.registry.queued == 1
                hooks.decide(action)
                assert not hooks.decide(action)
            return hooks

        return asked

    def test_forward_places_the_request(self, harness: BrokerHarness, ask: Any) -> None:
        ask(FORWARD)
        (worker, n) = harness.dispatched()[0]
        assert worker == W
        harness.answer(W, n, b"there")
        assert harness.messages() == [final(C, 1, b"there", worker=W)]
        assert outcomes(harness) == {"accepted": 1, "answered": 1}
        settled(harness)

    def test_discard_ends_the_request_without_an_answer(
        self, harness: BrokerHarness, ask: Any
    ) -> None:
        ask(Discard())
        assert harness.messages() == []
        assert outcomes(harness) == {"accepted": 1, "failed": 1}
        assert harness.counts.unanswered == 1
        settled(harness)

    def test_redirect_moves_the_request_to_another_service_unseen_by_the_client(
        self, harness: BrokerHarness, ask: Any
    ) -> None:
        ask(Redirect("other"))
        (word,) = harness.messages()
        assert (word[0], word[1], word[2]["service"]) == (W2, "REQUEST", b"other")
        harness.answer(W2, word[2]["id"], b"there")
        assert harness.messages() == [final(C, 1, b"there", worker=W2)]
        settled(harness)
        assert set(harness.machine.registry.services) == {b"echo", b"other"}

    def test_redirect_to_a_service_without_a_worker_is_what_the_503_states(
        self, harness: BrokerHarness, ask: Any
    ) -> None:
        """The client called "echo", which is served: its text must not deny that."""
        ask(Redirect("nobody"), ttl=1000)
        harness.pass_time(1.5)
        text = (
            b"a hook of the broker redirected 'echo', and no worker for the target came within "
            b"1 s; serving now: echo, other"
        )
        assert harness.finals() == [(C, 1, 503, [text])]

    def test_redirect_to_a_service_without_a_worker_fails_fast_with_that_text(
        self, harness: BrokerHarness, ask: Any
    ) -> None:
        ask(Redirect("nobody"), flags=spec.FAIL_FAST)
        text = (
            b"a hook of the broker redirected 'echo', and no worker serves the target; "
            b"serving now: echo, other"
        )
        assert harness.finals() == [(C, 1, 503, [text])]

    def test_redirect_to_the_management_interface_is_answered(
        self, harness: BrokerHarness, ask: Any
    ) -> None:
        ask(Redirect("mmi.nothing"))
        assert harness.messages() == [final(C, 1, b"501")]
        settled(harness)

    def test_redirect_to_an_invalid_name_is_refused(self, harness: BrokerHarness, ask: Any) -> None:
        ask(Redirect(""))
        assert harness.messages() == [final(C, 1, b"a service needs a name", status=400)]
        settled(harness)

    def test_send_to_dispatches_to_that_worker_alone(
        self, harness: BrokerHarness, ask: Any
    ) -> None:
        harness.worker(b"worker-3")
        harness.messages()
        ask(SendTo(b"worker-3"))
        ((worker, _),) = harness.dispatched()
        assert worker == b"worker-3"
        harness.answer(worker, harness.machine.registry.last_number | spec.BROKER_ID_BIT)
        settled(harness)

    def test_send_to_a_worker_without_the_service_is_a_404(
        self, harness: BrokerHarness, ask: Any
    ) -> None:
        ask(SendTo(W2))
        text = f"no worker {W2.hex()} serves 'echo'".encode()
        assert harness.messages() == [final(C, 1, text, status=404)]
        settled(harness)

    def test_reply_is_the_brokers_own_answer(self, harness: BrokerHarness, ask: Any) -> None:
        ask(ReplyAction([b"from", b"here"]))
        assert harness.messages() == [final(C, 1, b"from", b"here")]
        assert outcomes(harness) == {"accepted": 1, "answered": 1}
        settled(harness)

    def test_reply_may_have_another_status(self, harness: BrokerHarness, ask: Any) -> None:
        ask(ReplyAction([b"no"], 404))
        assert harness.messages() == [final(C, 1, b"no", status=404)]
        assert outcomes(harness) == {"accepted": 1, "failed": 1}
        settled(harness)

    def test_reject_answers_with_its_status_and_text(
        self, harness: BrokerHarness, ask: Any
    ) -> None:
        ask(Reject(401, "who are you?"))
        assert harness.messages() == [final(C, 1, b"who are you?", status=401)]
        assert outcomes(harness) == {"accepted": 1, "failed": 1}
        settled(harness)

    def test_invalid_action_for_a_request_is_a_500(self, harness: BrokerHarness, ask: Any) -> None:
        ask(Replace([b"x"]))
        ((_, _, status, _),) = harness.finals()
        assert status == 500
        settled(harness)

    def test_one_way_request_that_is_rejected_is_not_answered(
        self, harness: BrokerHarness, ask: Any
    ) -> None:
        ask(Reject(401), flags=spec.ONE_WAY)
        assert harness.messages() == []
        settled(harness)


class TestChanges:
    """The worker gets the changes of a hook, and everything else unchanged."""

    def test_frames_and_metadata_are_passed_on_as_the_hook_left_them(
        self, harness: BrokerHarness
    ) -> None:
        def change(request: Any) -> None:
            assert request.metadata == {"type": "text", "token": "secret"}
            assert request.token.startswith("secret")
            assert list(request.frames) == [b"a", b"b"]
            request.frames[0] = "A"
            request.frames.append(b"c")
            request.metadata["seen"] = True

        ScriptedHooks(harness, on_request=lambda r: change(r) or FORWARD)
        harness.worker(W)
        packed = metadata.pack({"type": "text", "token": "secret"})
        harness.request(C, 1, b"a", b"b", flags=spec.METADATA, metadata=packed)
        word = harness.messages()[-1]
        assert word[3] == [b"A", b"b", b"c"]
        assert metadata.unpack(word[2]["metadata"]) == {"type": "text", "seen": True}
        harness.answer(W, word[2]["id"])

    def test_token_is_taken_out_when_the_hook_changes_nothing(self, harness: BrokerHarness) -> None:
        ScriptedHooks(harness, on_request=FORWARD)
        harness.worker(W)
        packed = metadata.pack({"token": "secret"})
        harness.request(C, 1, flags=spec.METADATA, metadata=packed)
        word = harness.messages()[-1]
        assert "metadata" not in word[2]
        harness.answer(W, word[2]["id"])

    def test_token_of_hello_is_there_for_each_request(self, harness: BrokerHarness) -> None:
        hooks = ScriptedHooks(harness, on_request=Discard())
        packed = metadata.pack({"token": "t"})
        harness.receive_03(C, spec.HELLO, flags=spec.METADATA, metadata=packed)
        harness.request(C, 1)
        assert hooks.last.token.startswith("t")

    def test_body_that_no_hook_changes_is_the_same_object(self, harness: BrokerHarness) -> None:
        big = bytes(1000)
        hooks = ScriptedHooks(harness, on_request=lambda r: FORWARD if r.metadata == {} else None)
        harness.worker(W)
        harness.request(C, 1, big)
        assert harness.messages()[-1][3][0] is big
        assert len(hooks.last.frames) == 1
        harness.answer(W, number(2))

    def test_user_that_a_hook_names_is_sent_to_the_worker(self, harness: BrokerHarness) -> None:
        def name(request: Any) -> Any:
            request.user, request.groups = "ada", ["staff"]
            return FORWARD

        ScriptedHooks(harness, on_request=name)
        harness.worker(W)
        harness.request(C, 1)
        word = harness.messages()[-1]
        (request,) = harness.machine.registry.peers[C].open.values()
        assert request.caller == Caller("ada", ("staff",))
        assert harness.machine.registry.peers[C].user == ""
        told, _ = metadata.split(word[2]["metadata"], word[2]["flags"])
        assert told == {"attempt": 1, "user": "ada"}
        harness.answer(W, word[2]["id"])

    def test_request_that_a_hook_makes_too_large_is_a_413(self, make_harness: Any) -> None:
        harness = make_harness(max_message=10)

        def grow(request: Any) -> Any:
            request.frames = [bytes(11)]
            return FORWARD

        ScriptedHooks(harness, on_request=grow)
        harness.request(C, 1, b"x")
        assert [f[2] for f in harness.finals()] == [413]

    def test_metadata_that_cannot_be_packed_is_a_500(self, harness: BrokerHarness) -> None:
        def spoil(request: Any) -> Any:
            request.metadata["x"] = "y" * 5000
            return FORWARD

        ScriptedHooks(harness, on_request=spoil)
        harness.request(C, 1, b"x")
        assert [f[2] for f in harness.finals()] == [500]


class TestHeld:
    """A request that a hook holds is open as any other."""

    def test_deadline_passes_in_a_hook(self, harness: BrokerHarness) -> None:
        harness.worker(W)
        hooks = ScriptedHooks(harness, on_request=LATER)
        harness.messages()
        harness.request(C, 1, ttl=1000)
        harness.pass_time(1.1)
        ((_, _, status, (text,)),) = harness.finals()
        assert (status, text) == (
            408,
            b"'echo' did not answer within 1 s; it was in a hook of the broker",
        )
        assert hooks.abandoned == [hooks.seen[0][0]]
        assert not hooks.decide()
        settled(harness)

    def test_hook_that_takes_too_long_is_a_500(self, make_harness: Any) -> None:
        harness = make_harness(hook_timeout=0.5)
        hooks = ScriptedHooks(harness, on_request=LATER)
        harness.request(C, 1)
        harness.pass_time(0.6)
        text = b"a hook of the broker did not decide within 0.5 s"
        assert harness.messages() == [final(C, 1, text, status=500)]
        assert hooks.abandoned == [hooks.seen[0][0]]
        assert harness.counts.dropped["hook-timeout"] == 1
        settled(harness)

    def test_client_cancels_a_request_in_a_hook(self, harness: BrokerHarness) -> None:
        hooks = ScriptedHooks(harness, on_request=LATER)
        harness.request(C, 1)
        harness.receive_03(C, spec.CANCEL, id=1)
        assert [f[2] for f in harness.finals()] == [499]
        assert not hooks.decide()
        settled(harness)

    def test_client_of_a_request_in_a_hook_is_gone(self, harness: BrokerHarness) -> None:
        hooks = ScriptedHooks(harness, on_request=LATER)
        harness.request(C, 1)
        harness.leave(C)
        assert not hooks.decide()
        assert outcomes(harness) == {"accepted": 1, "cancelled": 1}
        settled(harness)

    def test_one_way_request_outlives_its_client(self, harness: BrokerHarness) -> None:
        harness.worker(W)
        hooks = ScriptedHooks(harness, on_request=LATER)
        harness.request(C, 1, flags=spec.ONE_WAY)
        harness.leave(C)
        harness.messages()
        hooks.decide()
        ((worker, n),) = harness.dispatched()
        harness.answer(worker, n)
        settled(harness)

    def test_resend_of_a_held_request_is_dropped(self, harness: BrokerHarness) -> None:
        hooks = ScriptedHooks(harness, on_request=LATER)
        harness.request(C, 1)
        harness.request(C, 1)
        assert len(hooks.seen) == 1
        assert harness.counts.dropped["resend"] == 1

    @pytest.mark.parametrize(
        "limit",
        [
            {"max_queue": 2},
            {"max_queue_bytes": 2},
            {"max_client_queue": 2},
            {"max_client_queue_bytes": 2},
            {"max_service_queue": 2},
            {"max_service_queue_bytes": 2},
        ],
    )
    def test_held_requests_count_toward_every_limit_of_the_queues(
        self, make_harness: Any, limit: dict[str, int]
    ) -> None:
        harness = make_harness(**limit)
        hooks = ScriptedHooks(harness, on_request=LATER)
        for id in (1, 2, 3):
            harness.request(C, id, b"x")
        assert [(id, status) for _, id, status, _ in harness.finals()] == [(3, 429)]
        assert len(hooks.seen) == 2
        harness.check()
        hooks.decide(Discard(), 0)
        harness.request(C, 4, b"x")
        assert len(hooks.seen) == 3

    def test_limits_come_before_hooks(self, make_harness: Any) -> None:
        harness = make_harness(max_message=10, max_open=1)
        hooks = ScriptedHooks(harness, on_request=LATER)
        harness.request(C, 1, bytes(11))
        harness.request(C, 2)
        harness.request(C, 3)
        harness.request(C2, 1, service=b"")
        assert [status for _, _, status, _ in harness.finals()] == [413, 429, 400]
        assert len(hooks.seen) == 1

    def test_hooks_that_answer_at_once_do_not_get_requests_beyond_the_queue(
        self, make_harness: Any
    ) -> None:
        harness = make_harness(max_service_queue=1)
        hooks = ScriptedHooks(harness, on_request=FORWARD)
        hooks.may_wait = False
        for id in (1, 2, 3):
            harness.request(C, id)
        assert len(hooks.seen) == 1
        assert [status for _, _, status, _ in harness.finals()] == [429, 429]

    def test_drain_waits_for_hooks(self, harness: BrokerHarness) -> None:
        hooks = ScriptedHooks(harness, on_request=LATER)
        harness.request(C, 1)
        harness.machine.drain(harness.now)
        assert not harness.machine.drained
        hooks.decide(ReplyAction([b"x"]))
        assert harness.machine.drained

    def test_pending_decisions_outlive_the_hooks_that_got_them(
        self, harness: BrokerHarness
    ) -> None:
        hooks = ScriptedHooks(harness, on_request=LATER)
        harness.request(C, 1)
        harness.machine.use(None)
        harness.worker(W)
        harness.request(C, 2, b"straight")
        assert harness.messages()[-1][3] == [b"straight"]
        hooks.decide(ReplyAction([b"late"]))
        assert harness.messages() == [final(C, 1, b"late")]
        harness.answer(W, number(2))
        settled(harness)

    def test_invariants_detect_a_held_request_without_a_pending_decision(
        self, harness: BrokerHarness
    ) -> None:
        hooks = ScriptedHooks(harness, on_request=LATER)
        harness.request(C, 1)
        holding = harness.machine.hooks
        assert holding is not None
        decision = holding.pending.open.pop(hooks.seen[0][0])
        with pytest.raises(InvariantError, match="the decision that it waits for is not pending"):
            harness.check()
        holding.pending.open[decision.number] = decision


class TestReplies:
    """The effect of each action on a worker's reply; its slot is free in any case."""

    @pytest.fixture(params=["at once", "later"])
    def reply(
        self, request: pytest.FixtureRequest, harness: BrokerHarness
    ) -> Callable[..., ScriptedHooks]:
        def replied(action: Any, status: int = 200) -> ScriptedHooks:
            later = request.param == "later"
            hooks = ScriptedHooks(harness, on_reply=LATER if later else action)
            harness.worker(W)
            harness.request(C, 1, b"hi")
            harness.messages()
            harness.answer(W, number(1), b"there", status=status)
            if later:
                assert harness.messages() == []
                harness.check()
                hooks.decide(action)
            return hooks

        return replied

    def test_forward_passes_the_reply_on(self, harness: BrokerHarness, reply: Any) -> None:
        hooks = reply(FORWARD)
        assert harness.messages() == [final(C, 1, b"there", worker=W)]
        view = hooks.last
        assert (view.service, view.worker, view.status, view.text) == ("echo", W, 200, "there")
        settled(harness)

    def test_forward_passes_a_failure_on(self, harness: BrokerHarness, reply: Any) -> None:
        reply(FORWARD, 404)
        assert harness.messages() == [final(C, 1, b"there", worker=W, status=404)]
        assert outcomes(harness) == {"accepted": 1, "failed": 1}
        settled(harness)

    def test_replace_changes_the_body_of_the_reply(
        self, harness: BrokerHarness, reply: Any
    ) -> None:
        reply(Replace([b"else"]))
        assert harness.messages() == [final(C, 1, b"else", worker=W)]
        settled(harness)

    def test_reject_turns_the_reply_into_a_failure(
        self, harness: BrokerHarness, reply: Any
    ) -> None:
        reply(Reject(403, "not yours"))
        assert harness.messages() == [final(C, 1, b"not yours", worker=W, status=403)]
        settled(harness)

    def test_discard_drops_the_reply(self, harness: BrokerHarness, reply: Any) -> None:
        reply(Discard())
        assert harness.messages() == []
        assert outcomes(harness) == {"accepted": 1, "failed": 1}
        settled(harness)

    def test_invalid_action_for_a_reply_is_a_500(self, harness: BrokerHarness, reply: Any) -> None:
        reply(Redirect("other"))
        assert [f[2] for f in harness.finals()] == [500]
        settled(harness)

    def test_slot_is_free_while_the_hook_holds_the_reply(self, harness: BrokerHarness) -> None:
        hooks = ScriptedHooks(harness, on_reply=LATER)
        harness.worker(W)
        harness.request(C, 1)
        harness.request(C, 2)
        harness.messages()
        harness.answer(W, number(1), b"one")
        assert harness.dispatched() == [(W, number(3))]
        harness.answer(W, number(3), b"two")
        hooks.decide()
        hooks.decide(which=0)
        assert harness.messages() == [final(C, 2, b"two", worker=W), final(C, 1, b"one", worker=W)]
        settled(harness)

    def test_worker_may_leave_while_the_hook_holds_its_reply(self, harness: BrokerHarness) -> None:
        hooks = ScriptedHooks(harness, on_reply=LATER)
        harness.worker(W)
        harness.request(C, 1)
        harness.answer(W, number(1), b"one")
        harness.leave(W)
        harness.messages()
        harness.check()
        hooks.decide()
        assert harness.messages() == [final(C, 1, b"one", worker=W)]
        settled(harness)

    def test_answer_that_came_too_late_is_seen_by_no_hook(self, harness: BrokerHarness) -> None:
        hooks = ScriptedHooks(harness, on_reply=FORWARD)
        harness.worker(W)
        harness.request(C, 1)
        harness.receive_03(C, spec.CANCEL, id=1)
        harness.answer(W, number(1), b"one")
        assert hooks.seen == []
        settled(harness)

    def test_parts_are_seen_changed_and_dropped_in_their_order(
        self, harness: BrokerHarness
    ) -> None:
        def part(view: Any) -> Any:
            if view.body == b"2":
                return Discard()
            if view.body == b"3":
                return Replace([b"three"])
            return FORWARD

        ScriptedHooks(harness, on_part=part)
        harness.worker(W)
        harness.request(C, 1)
        harness.messages()
        for body in (b"1", b"2", b"3"):
            harness.part(W, number(1), body)
        harness.answer(W, number(1))
        assert harness.messages() == [
            partial(C, 1, b"1"),
            (W, "CREDIT", {"id": number(1), "code": 1}, []),  # for the one that C never gets
            partial(C, 1, b"three"),
            final(C, 1, worker=W),
        ]
        settled(harness)

    def test_invalid_action_for_a_part_ends_the_stream(self, harness: BrokerHarness) -> None:
        ScriptedHooks(harness, on_part=Redirect("x"))
        harness.worker(W)
        harness.request(C, 1)
        harness.messages()
        harness.part(W, number(1), b"1")
        assert harness.messages()[0] == cancel(W, 1)
        harness.answer(W, number(1))
        settled(harness)


class TestClients:
    """Decisions about clients at their first message."""

    def test_client_is_seen_once_at_its_first_request(self, harness: BrokerHarness) -> None:
        hooks = ScriptedHooks(harness, on_client=FORWARD)
        harness.worker(W, capacity=9)
        harness.request(C, 1)
        harness.request(C, 2)
        assert [(view.id, view.present) for _, view in hooks.seen] == [(C, False)]
        harness.leave(C)
        assert hooks.lost == [(C, "left")]
        for n in list(harness.machine.registry.workers[W].held):
            harness.answer(W, n)
        settled(harness)

    def test_hello_shows_its_metadata_and_the_user_is_kept(self, harness: BrokerHarness) -> None:
        def seen(client: Any) -> Any:
            client.user, client.groups = client.metadata["token"].upper(), ("g",)
            return FORWARD

        hooks = ScriptedHooks(harness, on_client=seen)
        packed = metadata.pack({"token": "ada"})
        harness.receive_03(C, spec.HELLO, flags=spec.METADATA, metadata=packed)
        assert harness.messages() == [welcome(C, 30000)]
        peer = harness.machine.registry.peers[C]
        assert (peer.user, peer.groups) == ("ADA", ("g",))
        assert hooks.last.present

    @pytest.mark.parametrize("later", [False, True])
    def test_rejected_hello_is_answered_and_so_is_every_request(
        self, harness: BrokerHarness, later: bool
    ) -> None:
        reject = Reject(401, "no token")
        hooks = ScriptedHooks(harness, on_client=LATER if later else reject)
        harness.worker(W)
        harness.messages()
        harness.receive_03(C, spec.HELLO, id=7)
        harness.request(C, 8)
        if later:
            assert harness.messages() == []
            harness.check()
            hooks.decide(reject)
        words = harness.messages()
        assert sorted(word[2]["id"] for word in words) == [7, 8]
        assert all(word[3] == [b"no token"] and word[2]["code"] == 401 for word in words)
        harness.request(C, 9)
        assert [f[1:3] for f in harness.finals()] == [(9, 401)]
        assert len(hooks.seen) == 1
        settled(harness)

    def test_second_hello_of_a_client_is_passed_to_the_hook_again(
        self, harness: BrokerHarness
    ) -> None:
        answers = [Reject(401), FORWARD]
        ScriptedHooks(harness, on_client=lambda _: answers.pop(0))
        harness.worker(W)
        harness.receive_03(C, spec.HELLO)
        harness.request(C, 1)
        harness.messages()
        harness.receive_03(C, spec.HELLO)
        harness.request(C, 2, b"x")
        words = harness.messages()
        assert [word[1] for word in words] == ["WELCOME", "REQUEST"]
        harness.answer(W, words[1][2]["id"])
        settled(harness)

    def test_requests_wait_for_the_decision_about_their_client(
        self, harness: BrokerHarness
    ) -> None:
        hooks = ScriptedHooks(harness, on_client=LATER)
        harness.worker(W, capacity=9)
        harness.messages()
        harness.request(C, 1, b"one")
        harness.request(C, 2, b"two")
        assert harness.messages() == []
        harness.check()
        hooks.decide()
        words = harness.messages()
        assert [word[3] for word in words] == [[b"one"], [b"two"]]
        for word in words:
            harness.answer(W, word[2]["id"])
        settled(harness)

    def test_failed_or_late_hook_does_not_bar_a_client_for_ever(self, make_harness: Any) -> None:
        harness = make_harness(hook_timeout=0.5)
        hooks = ScriptedHooks(harness, on_client=LATER)
        harness.request(C, 1)
        harness.pass_time(0.6)
        assert [f[1:3] for f in harness.finals()] == [(1, 500)]
        harness.request(C, 2)
        assert len(hooks.seen) == 2
        hooks.decide(Reject(403, "x"))
        assert [f[1:3] for f in harness.finals()] == [(2, 403)]
        settled(harness)

    @pytest.mark.parametrize("flags", [0, spec.ONE_WAY])
    def test_client_that_leaves_before_the_decision_leaves_no_entry(
        self, harness: BrokerHarness, flags: int
    ) -> None:
        hooks = ScriptedHooks(harness, on_client=LATER)
        harness.request(C, 1, flags=flags)
        harness.leave(C)
        assert not hooks.decide()
        assert outcomes(harness) == {"accepted": 1, "cancelled": 1}
        settled(harness)


class TestOrder:
    """Hooks run after the limits and before the access rules."""

    RULES = AccessRules([Rule(True, frozenset(("call", "serve")), users=("ada",))])

    def test_rules_are_checked_for_the_user_that_a_hook_names(self, harness: BrokerHarness) -> None:
        harness.worker(W)

        def name(request: Any) -> Any:
            request.user = "ada" if request.token else ""
            return FORWARD

        hooks = ScriptedHooks(harness, on_request=name)
        peer = harness.machine.registry.peers[W]
        harness.machine.authorization.identify(peer, "ada", (), harness.now)
        harness.machine.set_rights(self.RULES, harness.now)
        harness.messages()
        harness.request(C, 1, flags=spec.METADATA, metadata=metadata.pack({"token": "a"}))
        ((_, n),) = harness.dispatched()
        harness.request(C, 2)
        assert [f[1:3] for f in harness.finals()] == [(2, 401)]
        assert len(hooks.seen) == 2
        harness.answer(W, n)
        settled(harness)

    def test_redirect_needs_the_right_for_the_named_service_alone(
        self, harness: BrokerHarness
    ) -> None:
        rules = AccessRules([Rule(True, frozenset(("call",)), names=("front",))])
        ScriptedHooks(harness, on_request=Redirect("back"))
        harness.machine.set_rights(rules, harness.now)
        harness.request(C, 1, service=b"front", ttl=100)
        harness.request(C, 2, service=b"back")
        assert [f[1:3] for f in harness.finals()] == [(2, 401)]
        harness.pass_time(0.2)
        assert [f[1:3] for f in harness.finals()] == [(1, 503)]
        settled(harness)

    def test_fail_fast_is_checked_after_the_hooks(self, harness: BrokerHarness) -> None:
        hooks = ScriptedHooks(harness, on_request=ReplyAction([b"virtual"]))
        harness.request(C, 1, flags=spec.FAIL_FAST)
        assert harness.messages() == [final(C, 1, b"virtual")]
        hooks.scripts["on_request"] = FORWARD
        harness.request(C, 2, flags=spec.FAIL_FAST)
        assert [f[1:3] for f in harness.finals()] == [(2, 503)]
        settled(harness)

    def test_management_interface_passes_the_hooks_as_well(self, harness: BrokerHarness) -> None:
        hooks = ScriptedHooks(harness, on_request=LATER)
        harness.request(C, 1, service=b"mmi.service")
        harness.check()
        hooks.decide()
        assert harness.messages() == [final(C, 1, b"400")]
        settled(harness)

    @pytest.mark.parametrize("dialect", [Dialect.MDP01, Dialect.MDP02, Dialect.DELPHI])
    def test_clients_of_the_older_dialects_are_passed_to_the_hooks_too(
        self, make_harness: Any, dialect: Dialect
    ) -> None:
        harness = make_harness(legacy_errors="reply")
        codec = LEGACY[dialect]
        hooks = ScriptedHooks(harness, on_request=Redirect("other"), on_reply=FORWARD)
        harness.worker(W, b"other")
        harness.messages()
        harness.receive(C, *codec.c2b_request(b"echo", [b"hi"]))
        assert (hooks.last.dialect, hooks.last.text) == (dialect.value, "hi")
        ((_, n),) = harness.dispatched()
        harness.answer(W, n, b"there")
        assert harness.sent() == [(C, codec.b2c_final(b"echo", [b"there"]))]
        hooks.scripts["on_request"] = Reject(401, "who?")
        harness.receive(C, *codec.c2b_request(b"echo", [b"hi"]))
        assert harness.sent() == [(C, codec.b2c_final(b"echo", [b"401", b"who?"]))]
        settled(harness)

    def test_outcome_of_every_request_is_reported_once(self, harness: BrokerHarness) -> None:
        hooks = ScriptedHooks(harness, ends=True)
        harness.worker(W)
        harness.request(C, 1, ttl=500)
        harness.request(C, 2, ttl=500)
        harness.answer(W, number(1), b"x", status=404)
        harness.pass_time(0.6)
        harness.request(C, 3)
        harness.receive_03(C, spec.CANCEL, id=3)
        told = [(o.outcome, o.status, o.attempts) for o in hooks.outcomes]
        assert told == [("failed", 404, 1), ("expired", 408, 1), ("cancelled", 499, 0)]


class TestOwnCalls:
    """The broker as a client of its own services."""

    def call(
        self, harness: BrokerHarness, body: list[bytes], **options: Any
    ) -> list[tuple[int, list[bytes]]]:
        answers: list[tuple[int, list[bytes]]] = []
        done = lambda status, frames: answers.append((status, frames))  # noqa: E731
        options = {"ttl": 0.0, "done": done, **options}
        harness.machine.call(b"echo", body, now=harness.now, **options)
        harness.turn()
        return answers

    def test_answer_to_the_brokers_own_call_passes_no_hook(self, harness: BrokerHarness) -> None:
        hooks = ScriptedHooks(harness, on_request=Discard(), on_reply=Discard(), ends=True)
        harness.worker(W)
        harness.messages()
        answers = self.call(harness, [b"hi"])
        (word,) = harness.messages()
        assert (word[0], word[1], word[3]) == (W, "REQUEST", [b"hi"])
        harness.check()
        harness.answer(W, word[2]["id"], b"there")
        assert answers == [(200, [b"there"])]
        assert harness.messages() == []
        assert (hooks.seen, hooks.outcomes) == ([], [])
        assert outcomes(harness) == {"accepted": 1, "answered": 1}

    def test_parts_are_joined(self, harness: BrokerHarness) -> None:
        harness.worker(W)
        harness.messages()
        answers = self.call(harness, [])
        ((_, n),) = harness.dispatched()
        harness.part(W, n, b"1")
        harness.part(W, n, b"2")
        harness.answer(W, n, b"3")
        assert answers == [(200, [b"1", b"2", b"3"])]
        assert harness.messages() == []

    def test_parts_beyond_the_bounds_are_a_413(self, make_harness: Any) -> None:
        harness = make_harness(max_frames=2)
        harness.worker(W)
        harness.messages()
        answers = self.call(harness, [])
        ((_, n),) = harness.dispatched()
        for _ in range(3):
            harness.part(W, n, b"1")
        harness.answer(W, n)
        assert [status for status, _ in answers] == [413]
        assert harness.messages() == []

    def test_deadline_refusal_and_withdrawal(self, make_harness: Any) -> None:
        harness = make_harness(max_message=10, max_open=1)
        late = self.call(harness, [], ttl=1.0)
        refused = self.call(harness, [])
        large = self.call(harness, [bytes(11)])
        harness.pass_time(1.1)
        assert [answers[0][0] for answers in (late, refused, large)] == [503, 429, 413]
        harness.worker(W)
        gone = self.call(harness, [])
        ((_, n),) = harness.dispatched()
        harness.machine.withdraw_call(harness.machine.registry.last_number - 1, harness.now)
        harness.machine.withdraw_call(harness.machine.registry.last_number - 1, harness.now)
        harness.turn()
        assert harness.messages() == [cancel(W, n & ~spec.BROKER_ID_BIT)]
        harness.answer(W, n)
        assert gone == []
        assert harness.machine.drained

    def test_call_without_done_is_one_way(self, harness: BrokerHarness) -> None:
        harness.worker(W)
        harness.messages()
        harness.machine.call(b"echo", [b"x"], 0.0, harness.now)
        harness.turn()
        (word,) = harness.messages()
        assert word[2]["flags"] & spec.ONE_WAY
        harness.answer(W, word[2]["id"])
        assert harness.messages() == []
        assert harness.machine.drained

    def test_hook_calls_a_service_and_decides_after_the_answer(
        self, harness: BrokerHarness
    ) -> None:
        hooks = ScriptedHooks(harness, on_request=LATER)
        harness.worker(W)
        harness.worker(W2, b"login")
        harness.request(C, 1, b"secret", service=b"login")
        harness.messages()

        def done(status: int, frames: list[bytes]) -> None:
            harness.machine.resume(hooks.seen[0][0], ReplyAction(frames), harness.now)

        harness.machine.call(b"echo", [b"ask"], 0.0, harness.now, done)
        harness.turn()
        ((_, n),) = harness.dispatched()
        harness.answer(W, n, b"granted")
        harness.turn()
        assert harness.messages() == [final(C, 1, b"granted")]
        settled(harness)


class TestReconfigure:
    """Settings of a running machine."""

    def test_new_limits_hold_at_once_and_fixed_settings_are_returned(
        self, harness: BrokerHarness
    ) -> None:
        settings = BrokerSettings(max_open=1, default_ttl=1.0, name="x", max_message=5)
        harness.request(C, 1)
        assert harness.machine.reconfigure(settings, harness.now) == ("name", "max_message")
        assert harness.machine.settings.max_message == 16 << 20
        harness.request(C, 2)
        assert [f[1:3] for f in harness.finals()] == [(2, 429)]
        harness.request(C2, 1)
        harness.pass_time(1.1)
        assert [f[:3] for f in harness.finals()] == [(C2, 1, 503)]

    def test_every_part_of_the_machine_has_the_new_settings(self, harness: BrokerHarness) -> None:
        harness.machine.reconfigure(BrokerSettings(legacy_errors="reply"), harness.now)
        harness.machine.drain(harness.now)
        harness.receive(C, *LEGACY[Dialect.MDP02].c2b_request(b"echo", [b"x"]))
        assert len(harness.sent()) == 1
        machine = harness.machine
        rooms = (
            machine,
            machine.registry,
            machine._mdp03,
            machine._legacy,
            machine.completion.streams,
        )
        assert {id(room.settings) for room in rooms} == {id(machine.settings)}


class TestGoneMeanwhile:
    """Peers that are lost or change while a decision is pending."""

    def test_named_worker_is_lost_while_a_decision_is_pending(self, harness: BrokerHarness) -> None:
        hooks = ScriptedHooks(harness, on_request=LATER)
        harness.worker(W)
        harness.request(C, 1, b"x", address=W)
        harness.leave(W)
        harness.worker(W2)
        harness.messages()
        hooks.decide(FORWARD)
        gone = b"the requested worker is gone; call again without naming a worker"
        assert harness.messages() == [final(C, 1, gone, status=404)]
        settled(harness)

    RULES = (
        Rule(True, frozenset(("call", "serve")), users=("",), source="1"),
        Rule(True, frozenset(("call",)), users=("bob",), source="2"),
    )

    @pytest.mark.parametrize("flags", [0, spec.ONE_WAY])
    def test_worker_that_a_hook_gives_another_user_loses_its_requests(
        self, harness: BrokerHarness, flags: int
    ) -> None:
        hooks = ScriptedHooks(harness, on_client=LATER)
        harness.machine.set_rights(AccessRules(self.RULES, {}), harness.now)
        harness.worker(W)
        harness.request(W, 1, b"x", service=b"other", flags=flags)
        hooks.last.user = "bob"
        assert hooks.decide(FORWARD)
        assert [word[:2] for word in harness.messages()] == [(W, "WELCOME"), (W, "DISCONNECT")]
        assert outcomes(harness) == {"accepted": 1, "cancelled": 1}
        settled(harness)

    def test_worker_that_a_hook_gives_another_user_at_hello_gets_no_second_welcome(
        self, harness: BrokerHarness
    ) -> None:
        hooks = ScriptedHooks(harness, on_client=LATER)
        harness.machine.set_rights(AccessRules(self.RULES, {}), harness.now)
        harness.worker(W)
        harness.receive_03(W, spec.HELLO, id=9)
        hooks.last.user = "bob"
        assert hooks.decide(FORWARD)
        assert [word[:2] for word in harness.messages()] == [(W, "WELCOME"), (W, "DISCONNECT")]
        settled(harness)

    def test_repeated_hello_replaces_the_pending_decision(self, harness: BrokerHarness) -> None:
        hooks = ScriptedHooks(harness, on_client=LATER)
        harness.receive_03(C, spec.HELLO, id=1)
        harness.request(C, 2, b"x", flags=spec.FAIL_FAST)
        harness.receive_03(C, spec.HELLO, id=3)
        assert hooks.abandoned == [hooks.seen[0][0]]
        assert not hooks.decide(Reject(401, "too late"), 0)
        assert harness.messages() == []
        assert hooks.decide(FORWARD)
        assert [word[:2] for word in harness.messages()] == [(C, "FINAL"), (C, "WELCOME")]
        settled(harness)

    def test_no_entry_is_kept_of_a_client_that_has_left(self, harness: BrokerHarness) -> None:
        hooks = ScriptedHooks(harness, on_client=FORWARD)
        token = {"flags": spec.METADATA, "metadata": metadata.pack({"token": "t"})}
        harness.receive_03(C, spec.HELLO, **token)
        harness.leave(C)
        holding = harness.machine.hooks
        assert holding is not None
        assert (holding.tokens, holding.clients, hooks.lost) == ({}, {}, [(C, "left")])


def test_answer_that_hooks_have_no_space_to_hold_is_answered_500_and_not_429(
    make_harness: Any,
) -> None:
    """A client repeats a request after 429, but this one has run already."""
    harness = make_harness(max_queue=1)
    hooks = ScriptedHooks(harness, on_reply=LATER)
    harness.worker(W, capacity=2)
    harness.request(C, 1, b"x", flags=spec.ONCE)
    harness.request(C, 2, b"x", flags=spec.ONCE)
    harness.messages()
    harness.answer(W, number(1), b"one")
    harness.answer(W, number(2), b"two")
    assert [f[:3] for f in harness.finals()] == [(C, 2, 500)]
    assert hooks.abandoned == [hooks.seen[1][0]]
    harness.check()
    hooks.decide(FORWARD, 0)
    assert harness.messages() == [final(C, 1, b"one", worker=W)]
    settled(harness)


def test_body_that_a_hook_has_changed_counts_with_its_new_size(harness: BrokerHarness) -> None:
    def grow(request: Any) -> None:
        request.frames = [bytes(100), bytes(20)]

    ScriptedHooks(harness, on_request=lambda request: grow(request) or FORWARD)
    harness.request(C, 1, b"x")
    assert harness.machine.registry.queued_bytes == 120
    assert harness.machine.registry.services[b"echo"].queue.size == 120


def test_withdrawn_call_of_the_broker_leaves_no_entry(harness: BrokerHarness) -> None:
    told: list[int] = []
    calls = harness.machine.calls
    number = harness.machine.call(
        b"echo", [b"x"], 5.0, harness.now, lambda *said: told.append(said[0])
    )
    harness.turn()
    harness.machine.withdraw_call(number, harness.now)
    harness.turn()
    assert (told, calls.pending, calls.peer.open) == ([], {}, {})

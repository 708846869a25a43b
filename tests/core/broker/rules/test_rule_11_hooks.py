"""Rule 11: limits first, then hooks, then rights and place. What a hook decides is done, what it
holds is counted, and each request still has exactly one outcome."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from majordomus.core.broker.hooks.actions import Discard, Redirect, Reject, Replace, Reply, SendTo
from majordomus.core.broker.invariants import InvariantError
from majordomus.core.broker.settings import BrokerSettings
from majordomus.core.broker.state.access_rules import Rights, Rule
from majordomus.core.broker.state.callers import Caller
from majordomus.protocol import metadata, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect
from tests.core.broker_harness import House, cancel, final, number, partial, welcome
from tests.core.hook_harness import FORWARD, LATER, ScriptedHooks

C, C2, W, W2 = b"client-c", b"client-2", b"worker-w", b"worker-2"


def outcomes(house: House) -> dict[str, int]:
    names = ("accepted", "answered", "failed", "expired", "cancelled")
    return {name: getattr(house.counts, name) for name in names if getattr(house.counts, name)}


def settled(house: House) -> None:
    """Nothing is open, held or counted any more."""
    house.check()
    registry, room = house.machine.registry, house.machine.hooks
    assert (registry.open, registry.queued, registry.queued_bytes) == (0, 0, 0)
    assert room is not None
    assert (len(room.held), len(room.holds), len(room.timers)) == (0, 0, 0)


class TestRequests:
    """What each action does to a request, at once and later."""

    @pytest.fixture(params=["at once", "later"])
    def ask(self, request: pytest.FixtureRequest, house: House) -> Callable[..., ScriptedHooks]:
        """Sends one request of C that the hook answers with an action."""
        house.worker(W)
        house.worker(W2, b"other")
        house.words()

        def asked(action: Any, **fields: Any) -> ScriptedHooks:
            if request.param == "at once":
                hooks = ScriptedHooks(house, on_request=action)
                house.request(C, 1, b"hi", **fields)
            else:
                hooks = ScriptedHooks(house, on_request=LATER)
                house.request(C, 1, b"hi", **fields)
                assert house.words() == []
                house.check()
                assert house.machine.registry.queued == 1
                hooks.decide(action)
                assert not hooks.decide(action)
            return hooks

        return asked

    def test_forward_lets_the_request_go_its_way(self, house: House, ask: Any) -> None:
        ask(FORWARD)
        (worker, n) = house.dispatched()[0]
        assert worker == W
        house.answer(W, n, b"there")
        assert house.words() == [final(C, 1, b"there", worker=W)]
        assert outcomes(house) == {"accepted": 1, "answered": 1}
        settled(house)

    def test_discard_ends_it_without_a_word(self, house: House, ask: Any) -> None:
        ask(Discard())
        assert house.words() == []
        assert outcomes(house) == {"accepted": 1, "failed": 1}
        assert house.counts.unanswered == 1
        settled(house)

    def test_redirect_gives_it_to_another_service_unseen_by_the_client(
        self, house: House, ask: Any
    ) -> None:
        ask(Redirect("other"))
        (word,) = house.words()
        assert (word[0], word[1], word[2]["service"]) == (W2, "REQUEST", b"other")
        house.answer(W2, word[2]["id"], b"there")
        assert house.words() == [final(C, 1, b"there", worker=W2)]
        settled(house)
        assert set(house.machine.registry.services) == {b"echo", b"other"}

    def test_redirect_to_the_management_interface_is_answered(self, house: House, ask: Any) -> None:
        ask(Redirect("mmi.nothing"))
        assert house.words() == [final(C, 1, b"501")]
        settled(house)

    def test_redirect_to_what_is_no_name_is_refused(self, house: House, ask: Any) -> None:
        ask(Redirect(""))
        assert house.words() == [final(C, 1, b"a service needs a name", status=400)]
        settled(house)

    def test_send_to_gives_it_to_that_worker_alone(self, house: House, ask: Any) -> None:
        house.worker(b"worker-3")
        house.words()
        ask(SendTo(b"worker-3"))
        ((worker, _),) = house.dispatched()
        assert worker == b"worker-3"
        house.answer(worker, house.machine.registry.last_number | spec.BROKER_ID_BIT)
        settled(house)

    def test_send_to_who_does_not_serve_it_is_a_404(self, house: House, ask: Any) -> None:
        ask(SendTo(W2))
        text = f"no worker {W2.hex()} serves 'echo'".encode()
        assert house.words() == [final(C, 1, text, status=404)]
        settled(house)

    def test_reply_is_the_brokers_own_answer(self, house: House, ask: Any) -> None:
        ask(Reply([b"from", b"here"]))
        assert house.words() == [final(C, 1, b"from", b"here")]
        assert outcomes(house) == {"accepted": 1, "answered": 1}
        settled(house)

    def test_reply_may_have_another_status(self, house: House, ask: Any) -> None:
        ask(Reply([b"no"], 404))
        assert house.words() == [final(C, 1, b"no", status=404)]
        assert outcomes(house) == {"accepted": 1, "failed": 1}
        settled(house)

    def test_reject_tells_status_and_sentence(self, house: House, ask: Any) -> None:
        ask(Reject(401, "who are you?"))
        assert house.words() == [final(C, 1, b"who are you?", status=401)]
        assert outcomes(house) == {"accepted": 1, "failed": 1}
        settled(house)

    def test_what_is_no_action_for_a_request_is_a_500(self, house: House, ask: Any) -> None:
        ask(Replace([b"x"]))
        ((_, _, status, _),) = house.finals()
        assert status == 500
        settled(house)

    def test_one_way_request_that_is_rejected_is_told_nobody(self, house: House, ask: Any) -> None:
        ask(Reject(401), flags=spec.ONE_WAY)
        assert house.words() == []
        settled(house)


class TestChanges:
    """What a hook changes in a request is what the worker gets; the rest is passed as it came."""

    def test_frames_and_metadata_go_on_as_they_were_left(self, house: House) -> None:
        def change(request: Any) -> None:
            assert request.metadata == {"type": "text", "token": "secret"}
            assert request.token.startswith("secret")
            assert list(request.frames) == [b"a", b"b"]
            request.frames[0] = "A"
            request.frames.append(b"c")
            request.metadata["seen"] = True

        ScriptedHooks(house, on_request=lambda r: change(r) or FORWARD)
        house.worker(W)
        packed = metadata.pack({"type": "text", "token": "secret"})
        house.request(C, 1, b"a", b"b", flags=spec.METADATA, metadata=packed)
        word = house.words()[-1]
        assert word[3] == [b"A", b"b", b"c"]
        assert metadata.unpack(word[2]["metadata"]) == {"type": "text", "seen": True}
        house.answer(W, word[2]["id"])

    def test_token_is_taken_out_when_the_hook_changes_nothing(self, house: House) -> None:
        ScriptedHooks(house, on_request=FORWARD)
        house.worker(W)
        packed = metadata.pack({"token": "secret"})
        house.request(C, 1, flags=spec.METADATA, metadata=packed)
        word = house.words()[-1]
        assert "metadata" not in word[2]
        house.answer(W, word[2]["id"])

    def test_token_of_hello_is_there_for_each_request(self, house: House) -> None:
        hooks = ScriptedHooks(house, on_request=Discard())
        packed = metadata.pack({"token": "t"})
        house.say(C, spec.HELLO, flags=spec.METADATA, metadata=packed)
        house.request(C, 1)
        assert hooks.last.token.startswith("t")

    def test_body_that_nobody_touches_is_the_same_object(self, house: House) -> None:
        big = bytes(1000)
        hooks = ScriptedHooks(house, on_request=lambda r: FORWARD if r.metadata == {} else None)
        house.worker(W)
        house.request(C, 1, big)
        assert house.words()[-1][3][0] is big
        assert len(hooks.last.frames) == 1
        house.answer(W, number(2))

    def test_user_that_a_hook_names_is_told_to_the_worker(self, house: House) -> None:
        def name(request: Any) -> Any:
            request.user, request.groups = "ada", ["staff"]
            return FORWARD

        ScriptedHooks(house, on_request=name)
        house.worker(W)
        house.request(C, 1)
        word = house.words()[-1]
        (request,) = house.machine.registry.peers[C].open.values()
        assert request.caller == Caller("ada", ("staff",))
        assert house.machine.registry.peers[C].user == ""
        told, _ = metadata.split(word[2]["metadata"], word[2]["flags"])
        assert told == {"attempt": 1, "user": "ada"}
        house.answer(W, word[2]["id"])

    def test_what_a_hook_makes_too_large_is_a_413(self, make_house: Any) -> None:
        house = make_house(max_message=10)

        def grow(request: Any) -> Any:
            request.frames = [bytes(11)]
            return FORWARD

        ScriptedHooks(house, on_request=grow)
        house.request(C, 1, b"x")
        assert [f[2] for f in house.finals()] == [413]

    def test_metadata_that_cannot_be_packed_is_a_500(self, house: House) -> None:
        def spoil(request: Any) -> Any:
            request.metadata["x"] = "y" * 5000
            return FORWARD

        ScriptedHooks(house, on_request=spoil)
        house.request(C, 1, b"x")
        assert [f[2] for f in house.finals()] == [500]


class TestHeld:
    """A request that waits for a hook is as open as any other."""

    def test_deadline_passes_in_a_hook(self, house: House) -> None:
        house.worker(W)
        hooks = ScriptedHooks(house, on_request=LATER)
        house.words()
        house.request(C, 1, ttl=1000)
        house.pass_time(1.1)
        ((_, _, status, (text,)),) = house.finals()
        assert (status, text) == (
            408,
            b"'echo' did not answer within 1 s; it was in a hook of the broker",
        )
        assert hooks.abandoned == [hooks.seen[0][0]]
        assert not hooks.decide()
        settled(house)

    def test_hook_that_takes_too_long_is_a_500(self, make_house: Any) -> None:
        house = make_house(hook_timeout=0.5)
        hooks = ScriptedHooks(house, on_request=LATER)
        house.request(C, 1)
        house.pass_time(0.6)
        text = b"a hook of the broker did not decide within 0.5 s"
        assert house.words() == [final(C, 1, text, status=500)]
        assert hooks.abandoned == [hooks.seen[0][0]]
        assert house.counts.dropped["hook-timeout"] == 1
        settled(house)

    def test_client_takes_it_back(self, house: House) -> None:
        hooks = ScriptedHooks(house, on_request=LATER)
        house.request(C, 1)
        house.say(C, spec.CANCEL, id=1)
        assert [f[2] for f in house.finals()] == [499]
        assert not hooks.decide()
        settled(house)

    def test_client_is_gone(self, house: House) -> None:
        hooks = ScriptedHooks(house, on_request=LATER)
        house.request(C, 1)
        house.leave(C)
        assert not hooks.decide()
        assert outcomes(house) == {"accepted": 1, "cancelled": 1}
        settled(house)

    def test_one_way_request_outlives_its_client(self, house: House) -> None:
        house.worker(W)
        hooks = ScriptedHooks(house, on_request=LATER)
        house.request(C, 1, flags=spec.ONE_WAY)
        house.leave(C)
        house.words()
        hooks.decide()
        ((worker, n),) = house.dispatched()
        house.answer(worker, n)
        settled(house)

    def test_resend_of_what_is_held_is_dropped(self, house: House) -> None:
        hooks = ScriptedHooks(house, on_request=LATER)
        house.request(C, 1)
        house.request(C, 1)
        assert len(hooks.seen) == 1
        assert house.counts.dropped["resend"] == 1

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
    def test_what_is_held_counts_toward_every_limit_of_the_queues(
        self, make_house: Any, limit: dict[str, int]
    ) -> None:
        house = make_house(**limit)
        hooks = ScriptedHooks(house, on_request=LATER)
        for id in (1, 2, 3):
            house.request(C, id, b"x")
        assert [(id, status) for _, id, status, _ in house.finals()] == [(3, 429)]
        assert len(hooks.seen) == 2
        house.check()
        hooks.decide(Discard(), 0)
        house.request(C, 4, b"x")
        assert len(hooks.seen) == 3

    def test_limits_come_before_hooks(self, make_house: Any) -> None:
        house = make_house(max_message=10, max_open=1)
        hooks = ScriptedHooks(house, on_request=LATER)
        house.request(C, 1, bytes(11))
        house.request(C, 2)
        house.request(C, 3)
        house.request(C2, 1, service=b"")
        assert [status for _, _, status, _ in house.finals()] == [413, 429, 400]
        assert len(hooks.seen) == 1

    def test_hooks_that_answer_at_once_do_not_see_what_the_queue_has_no_room_for(
        self, make_house: Any
    ) -> None:
        house = make_house(max_service_queue=1)
        hooks = ScriptedHooks(house, on_request=FORWARD)
        hooks.may_wait = False
        for id in (1, 2, 3):
            house.request(C, id)
        assert len(hooks.seen) == 1
        assert [status for _, _, status, _ in house.finals()] == [429, 429]

    def test_drain_waits_for_hooks(self, house: House) -> None:
        hooks = ScriptedHooks(house, on_request=LATER)
        house.request(C, 1)
        house.machine.drain(house.now)
        assert not house.machine.drained
        hooks.decide(Reply([b"x"]))
        assert house.machine.drained

    def test_questions_outlive_the_hooks_that_were_asked(self, house: House) -> None:
        hooks = ScriptedHooks(house, on_request=LATER)
        house.request(C, 1)
        house.machine.use(None)
        house.worker(W)
        house.request(C, 2, b"straight")
        assert house.words()[-1][3] == [b"straight"]
        hooks.decide(Reply([b"late"]))
        assert house.words() == [final(C, 1, b"late")]
        house.answer(W, number(2))
        settled(house)

    def test_invariants_notice_what_nobody_will_answer(self, house: House) -> None:
        hooks = ScriptedHooks(house, on_request=LATER)
        house.request(C, 1)
        room = house.machine.hooks
        assert room is not None
        hold = room.holds.pop(hooks.seen[0][0])
        with pytest.raises(InvariantError, match="waits for a question that nobody answers"):
            house.check()
        room.holds[hold.number] = hold


class TestReplies:
    """What each action does to a worker's answer; its slot is free in any case."""

    @pytest.fixture(params=["at once", "later"])
    def reply(self, request: pytest.FixtureRequest, house: House) -> Callable[..., ScriptedHooks]:
        def replied(action: Any, status: int = 200) -> ScriptedHooks:
            later = request.param == "later"
            hooks = ScriptedHooks(house, on_reply=LATER if later else action)
            house.worker(W)
            house.request(C, 1, b"hi")
            house.words()
            house.answer(W, number(1), b"there", status=status)
            if later:
                assert house.words() == []
                house.check()
                hooks.decide(action)
            return hooks

        return replied

    def test_forward_passes_it_on(self, house: House, reply: Any) -> None:
        hooks = reply(FORWARD)
        assert house.words() == [final(C, 1, b"there", worker=W)]
        view = hooks.last
        assert (view.service, view.worker, view.status, view.text) == ("echo", W, 200, "there")
        settled(house)

    def test_forward_passes_a_failure_on(self, house: House, reply: Any) -> None:
        reply(FORWARD, 404)
        assert house.words() == [final(C, 1, b"there", worker=W, status=404)]
        assert outcomes(house) == {"accepted": 1, "failed": 1}
        settled(house)

    def test_replace_puts_another_body_there(self, house: House, reply: Any) -> None:
        reply(Replace([b"else"]))
        assert house.words() == [final(C, 1, b"else", worker=W)]
        settled(house)

    def test_reject_makes_a_failure_of_it(self, house: House, reply: Any) -> None:
        reply(Reject(403, "not yours"))
        assert house.words() == [final(C, 1, b"not yours", worker=W, status=403)]
        settled(house)

    def test_discard_lets_the_client_hear_nothing(self, house: House, reply: Any) -> None:
        reply(Discard())
        assert house.words() == []
        assert outcomes(house) == {"accepted": 1, "failed": 1}
        settled(house)

    def test_what_is_no_action_for_a_reply_is_a_500(self, house: House, reply: Any) -> None:
        reply(Redirect("other"))
        assert [f[2] for f in house.finals()] == [500]
        settled(house)

    def test_slot_is_free_while_the_hook_looks_at_the_answer(self, house: House) -> None:
        hooks = ScriptedHooks(house, on_reply=LATER)
        house.worker(W)
        house.request(C, 1)
        house.request(C, 2)
        house.words()
        house.answer(W, number(1), b"one")
        assert house.dispatched() == [(W, number(3))]
        house.answer(W, number(3), b"two")
        hooks.decide()
        hooks.decide(which=0)
        assert house.words() == [final(C, 2, b"two", worker=W), final(C, 1, b"one", worker=W)]
        settled(house)

    def test_worker_may_leave_while_the_hook_looks_at_its_answer(self, house: House) -> None:
        hooks = ScriptedHooks(house, on_reply=LATER)
        house.worker(W)
        house.request(C, 1)
        house.answer(W, number(1), b"one")
        house.leave(W)
        house.words()
        house.check()
        hooks.decide()
        assert house.words() == [final(C, 1, b"one", worker=W)]
        settled(house)

    def test_answer_that_came_too_late_is_seen_by_no_hook(self, house: House) -> None:
        hooks = ScriptedHooks(house, on_reply=FORWARD)
        house.worker(W)
        house.request(C, 1)
        house.say(C, spec.CANCEL, id=1)
        house.answer(W, number(1), b"one")
        assert hooks.seen == []
        settled(house)

    def test_parts_are_seen_changed_and_dropped_in_their_order(self, house: House) -> None:
        def part(view: Any) -> Any:
            if view.body == b"2":
                return Discard()
            if view.body == b"3":
                return Replace([b"three"])
            return FORWARD

        ScriptedHooks(house, on_part=part)
        house.worker(W)
        house.request(C, 1)
        house.words()
        for body in (b"1", b"2", b"3"):
            house.part(W, number(1), body)
        house.answer(W, number(1))
        assert house.words() == [
            partial(C, 1, b"1"),
            (W, "CREDIT", {"id": number(1), "code": 1}, []),  # for the one that C never gets
            partial(C, 1, b"three"),
            final(C, 1, worker=W),
        ]
        settled(house)

    def test_what_a_hook_cannot_do_to_a_part_ends_the_stream(self, house: House) -> None:
        ScriptedHooks(house, on_part=Redirect("x"))
        house.worker(W)
        house.request(C, 1)
        house.words()
        house.part(W, number(1), b"1")
        assert house.words()[0] == cancel(W, 1)
        house.answer(W, number(1))
        settled(house)


class TestClients:
    """Who is seen for the first time, and what follows."""

    def test_client_is_seen_once_at_its_first_request(self, house: House) -> None:
        hooks = ScriptedHooks(house, on_client=FORWARD)
        house.worker(W, capacity=9)
        house.request(C, 1)
        house.request(C, 2)
        assert [(view.id, view.present) for _, view in hooks.seen] == [(C, False)]
        house.leave(C)
        assert hooks.lost == [(C, "left")]
        for n in list(house.machine.registry.workers[W].held):
            house.answer(W, n)
        settled(house)

    def test_hello_shows_its_metadata_and_the_user_is_kept(self, house: House) -> None:
        def seen(client: Any) -> Any:
            client.user, client.groups = client.metadata["token"].upper(), ("g",)
            return FORWARD

        hooks = ScriptedHooks(house, on_client=seen)
        packed = metadata.pack({"token": "ada"})
        house.say(C, spec.HELLO, flags=spec.METADATA, metadata=packed)
        assert house.words() == [welcome(C, 30000)]
        peer = house.machine.registry.peers[C]
        assert (peer.user, peer.groups) == ("ADA", ("g",))
        assert hooks.last.present

    @pytest.mark.parametrize("later", [False, True])
    def test_rejected_hello_is_told_and_so_is_every_request(
        self, house: House, later: bool
    ) -> None:
        reject = Reject(401, "no token")
        hooks = ScriptedHooks(house, on_client=LATER if later else reject)
        house.worker(W)
        house.words()
        house.say(C, spec.HELLO, id=7)
        house.request(C, 8)
        if later:
            assert house.words() == []
            house.check()
            hooks.decide(reject)
        words = house.words()
        assert sorted(word[2]["id"] for word in words) == [7, 8]
        assert all(word[3] == [b"no token"] and word[2]["code"] == 401 for word in words)
        house.request(C, 9)
        assert [f[1:3] for f in house.finals()] == [(9, 401)]
        assert len(hooks.seen) == 1
        settled(house)

    def test_who_says_hello_again_is_asked_about_again(self, house: House) -> None:
        answers = [Reject(401), FORWARD]
        ScriptedHooks(house, on_client=lambda _: answers.pop(0))
        house.worker(W)
        house.say(C, spec.HELLO)
        house.request(C, 1)
        house.words()
        house.say(C, spec.HELLO)
        house.request(C, 2, b"x")
        words = house.words()
        assert [word[1] for word in words] == ["WELCOME", "REQUEST"]
        house.answer(W, words[1][2]["id"])
        settled(house)

    def test_requests_wait_until_it_is_decided_who_asks(self, house: House) -> None:
        hooks = ScriptedHooks(house, on_client=LATER)
        house.worker(W, capacity=9)
        house.words()
        house.request(C, 1, b"one")
        house.request(C, 2, b"two")
        assert house.words() == []
        house.check()
        hooks.decide()
        words = house.words()
        assert [word[3] for word in words] == [[b"one"], [b"two"]]
        for word in words:
            house.answer(W, word[2]["id"])
        settled(house)

    def test_hook_that_fails_or_sleeps_over_a_client_bars_it_not_for_ever(
        self, make_house: Any
    ) -> None:
        house = make_house(hook_timeout=0.5)
        hooks = ScriptedHooks(house, on_client=LATER)
        house.request(C, 1)
        house.pass_time(0.6)
        assert [f[1:3] for f in house.finals()] == [(1, 500)]
        house.request(C, 2)
        assert len(hooks.seen) == 2
        hooks.decide(Reject(403, "x"))
        assert [f[1:3] for f in house.finals()] == [(2, 403)]
        settled(house)

    @pytest.mark.parametrize("flags", [0, spec.ONE_WAY])
    def test_client_that_leaves_before_the_verdict_leaves_nothing(
        self, house: House, flags: int
    ) -> None:
        hooks = ScriptedHooks(house, on_client=LATER)
        house.request(C, 1, flags=flags)
        house.leave(C)
        assert not hooks.decide()
        assert outcomes(house) == {"accepted": 1, "cancelled": 1}
        settled(house)


class TestOrder:
    """Hooks stand between the limits and the rights."""

    RULES = Rights([Rule(True, frozenset(("call", "serve")), users=("ada",))])

    def test_right_is_asked_of_the_user_that_the_hook_names(self, house: House) -> None:
        house.worker(W)

        def name(request: Any) -> Any:
            request.user = "ada" if request.token else ""
            return FORWARD

        hooks = ScriptedHooks(house, on_request=name)
        peer = house.machine.registry.peers[W]
        house.machine.authority.identify(peer, "ada", (), house.now)
        house.machine.set_rights(self.RULES, house.now)
        house.words()
        house.request(C, 1, flags=spec.METADATA, metadata=metadata.pack({"token": "a"}))
        ((_, n),) = house.dispatched()
        house.request(C, 2)
        assert [f[1:3] for f in house.finals()] == [(2, 401)]
        assert len(hooks.seen) == 2
        house.answer(W, n)
        settled(house)

    def test_redirect_is_the_brokers_own_decision_but_the_first_right_is_asked(
        self, house: House
    ) -> None:
        rules = Rights([Rule(True, frozenset(("call",)), names=("front",))])
        ScriptedHooks(house, on_request=Redirect("back"))
        house.machine.set_rights(rules, house.now)
        house.request(C, 1, service=b"front", ttl=100)
        house.request(C, 2, service=b"back")
        assert [f[1:3] for f in house.finals()] == [(2, 401)]
        house.pass_time(0.2)
        assert [f[1:3] for f in house.finals()] == [(1, 503)]
        settled(house)

    def test_fail_fast_is_judged_after_the_hooks(self, house: House) -> None:
        hooks = ScriptedHooks(house, on_request=Reply([b"virtual"]))
        house.request(C, 1, flags=spec.FAIL_FAST)
        assert house.words() == [final(C, 1, b"virtual")]
        hooks.scripts["on_request"] = FORWARD
        house.request(C, 2, flags=spec.FAIL_FAST)
        assert [f[1:3] for f in house.finals()] == [(2, 503)]
        settled(house)

    def test_management_interface_passes_the_hooks_as_well(self, house: House) -> None:
        hooks = ScriptedHooks(house, on_request=LATER)
        house.request(C, 1, service=b"mmi.service")
        house.check()
        hooks.decide()
        assert house.words() == [final(C, 1, b"400")]
        settled(house)

    @pytest.mark.parametrize("dialect", [Dialect.MDP01, Dialect.MDP02, Dialect.DELPHI])
    def test_clients_of_the_older_dialects_are_asked_about_too(
        self, make_house: Any, dialect: Dialect
    ) -> None:
        house = make_house(legacy_errors="reply")
        codec = LEGACY[dialect]
        hooks = ScriptedHooks(house, on_request=Redirect("other"), on_reply=FORWARD)
        house.worker(W, b"other")
        house.words()
        house.hear(C, *codec.c2b_request(b"echo", [b"hi"]))
        assert (hooks.last.dialect, hooks.last.text) == (dialect.value, "hi")
        ((_, n),) = house.dispatched()
        house.answer(W, n, b"there")
        assert house.said() == [(C, codec.b2c_final(b"echo", [b"there"]))]
        hooks.scripts["on_request"] = Reject(401, "who?")
        house.hear(C, *codec.c2b_request(b"echo", [b"hi"]))
        assert house.said() == [(C, codec.b2c_final(b"echo", [b"401", b"who?"]))]
        settled(house)

    def test_outcome_of_every_request_is_told_once(self, house: House) -> None:
        hooks = ScriptedHooks(house, ends=True)
        house.worker(W)
        house.request(C, 1, ttl=500)
        house.request(C, 2, ttl=500)
        house.answer(W, number(1), b"x", status=404)
        house.pass_time(0.6)
        house.request(C, 3)
        house.say(C, spec.CANCEL, id=3)
        told = [(o.outcome, o.status, o.attempts) for o in hooks.outcomes]
        assert told == [("failed", 404, 1), ("expired", 408, 1), ("cancelled", 499, 0)]


class TestOwnCalls:
    """The broker as a client of its own services."""

    def call(
        self, house: House, body: list[bytes], **options: Any
    ) -> list[tuple[int, list[bytes]]]:
        answers: list[tuple[int, list[bytes]]] = []
        done = lambda status, frames: answers.append((status, frames))  # noqa: E731
        options = {"ttl": 0.0, "done": done, **options}
        house.machine.call(b"echo", body, now=house.now, **options)
        house.turn()
        return answers

    def test_answer_comes_back_and_no_hook_sees_it(self, house: House) -> None:
        hooks = ScriptedHooks(house, on_request=Discard(), on_reply=Discard(), ends=True)
        house.worker(W)
        house.words()
        answers = self.call(house, [b"hi"])
        (word,) = house.words()
        assert (word[0], word[1], word[3]) == (W, "REQUEST", [b"hi"])
        house.check()
        house.answer(W, word[2]["id"], b"there")
        assert answers == [(200, [b"there"])]
        assert house.words() == []
        assert (hooks.seen, hooks.outcomes) == ([], [])
        assert outcomes(house) == {"accepted": 1, "answered": 1}

    def test_parts_are_joined(self, house: House) -> None:
        house.worker(W)
        house.words()
        answers = self.call(house, [])
        ((_, n),) = house.dispatched()
        house.part(W, n, b"1")
        house.part(W, n, b"2")
        house.answer(W, n, b"3")
        assert answers == [(200, [b"1", b"2", b"3"])]
        assert house.words() == []

    def test_parts_beyond_the_bounds_are_a_413(self, make_house: Any) -> None:
        house = make_house(max_frames=2)
        house.worker(W)
        house.words()
        answers = self.call(house, [])
        ((_, n),) = house.dispatched()
        for _ in range(3):
            house.part(W, n, b"1")
        house.answer(W, n)
        assert [status for status, _ in answers] == [413]
        assert house.words() == []

    def test_deadline_refusal_and_withdrawal(self, make_house: Any) -> None:
        house = make_house(max_message=10, max_open=1)
        late = self.call(house, [], ttl=1.0)
        refused = self.call(house, [])
        large = self.call(house, [bytes(11)])
        house.pass_time(1.1)
        assert [answers[0][0] for answers in (late, refused, large)] == [503, 429, 413]
        house.worker(W)
        gone = self.call(house, [])
        ((_, n),) = house.dispatched()
        house.machine.withdraw_call(house.machine.registry.last_number - 1, house.now)
        house.machine.withdraw_call(house.machine.registry.last_number - 1, house.now)
        house.turn()
        assert house.words() == [cancel(W, n & ~spec.BROKER_ID_BIT)]
        house.answer(W, n)
        assert gone == []
        assert house.machine.drained

    def test_call_without_a_listener_is_one_way(self, house: House) -> None:
        house.worker(W)
        house.words()
        house.machine.call(b"echo", [b"x"], 0.0, house.now)
        house.turn()
        (word,) = house.words()
        assert word[2]["flags"] & spec.ONE_WAY
        house.answer(W, word[2]["id"])
        assert house.words() == []
        assert house.machine.drained

    def test_hook_calls_and_goes_on_when_the_answer_is_there(self, house: House) -> None:
        hooks = ScriptedHooks(house, on_request=LATER)
        house.worker(W)
        house.worker(W2, b"login")
        house.request(C, 1, b"secret", service=b"login")
        house.words()

        def done(status: int, frames: list[bytes]) -> None:
            house.machine.resume(hooks.seen[0][0], Reply(frames), house.now)

        house.machine.call(b"echo", [b"ask"], 0.0, house.now, done)
        house.turn()
        ((_, n),) = house.dispatched()
        house.answer(W, n, b"granted")
        house.turn()
        assert house.words() == [final(C, 1, b"granted")]
        settled(house)


class TestReconfigure:
    """Settings of a running machine."""

    def test_new_limits_hold_from_now_on_and_what_is_fixed_is_named(self, house: House) -> None:
        settings = BrokerSettings(max_open=1, default_ttl=1.0, name="x", max_message=5)
        house.request(C, 1)
        assert house.machine.reconfigure(settings, house.now) == ("name", "max_message")
        assert house.machine.settings.max_message == 16 << 20
        house.request(C, 2)
        assert [f[1:3] for f in house.finals()] == [(2, 429)]
        house.request(C2, 1)
        house.pass_time(1.1)
        assert [f[:3] for f in house.finals()] == [(C2, 1, 503)]

    def test_every_room_has_the_new_settings(self, house: House) -> None:
        house.machine.reconfigure(BrokerSettings(legacy_errors="reply"), house.now)
        house.machine.drain(house.now)
        house.hear(C, *LEGACY[Dialect.MDP02].c2b_request(b"echo", [b"x"]))
        assert len(house.said()) == 1
        machine = house.machine
        rooms = (
            machine,
            machine.registry,
            machine._mdp03,
            machine._legacy,
            machine.dispatcher.streams,
        )
        assert {id(room.settings) for room in rooms} == {id(machine.settings)}


class TestGoneMeanwhile:
    """Who was there when a hook was asked need not be there when it answers."""

    def test_worker_that_was_asked_for_is_lost_while_a_hook_thinks(self, house: House) -> None:
        hooks = ScriptedHooks(house, on_request=LATER)
        house.worker(W)
        house.request(C, 1, b"x", address=W)
        house.leave(W)
        house.worker(W2)
        house.words()
        hooks.decide(FORWARD)
        gone = b"the worker that was asked for is gone"
        assert house.words() == [final(C, 1, gone, status=404)]
        settled(house)

    RULES = (
        Rule(True, frozenset(("call", "serve")), users=("",), source="1"),
        Rule(True, frozenset(("call",)), users=("bob",), source="2"),
    )

    @pytest.mark.parametrize("flags", [0, spec.ONE_WAY])
    def test_worker_that_a_hook_finds_to_be_another_loses_what_it_asked(
        self, house: House, flags: int
    ) -> None:
        hooks = ScriptedHooks(house, on_client=LATER)
        house.machine.set_rights(Rights(self.RULES, {}), house.now)
        house.worker(W)
        house.request(W, 1, b"x", service=b"other", flags=flags)
        hooks.last.user = "bob"
        assert hooks.decide(FORWARD)
        assert [word[:2] for word in house.words()] == [(W, "WELCOME"), (W, "DISCONNECT")]
        assert outcomes(house) == {"accepted": 1, "cancelled": 1}
        settled(house)

    def test_worker_that_says_hello_and_is_found_to_be_another_is_not_greeted(
        self, house: House
    ) -> None:
        hooks = ScriptedHooks(house, on_client=LATER)
        house.machine.set_rights(Rights(self.RULES, {}), house.now)
        house.worker(W)
        house.say(W, spec.HELLO, id=9)
        hooks.last.user = "bob"
        assert hooks.decide(FORWARD)
        assert [word[:2] for word in house.words()] == [(W, "WELCOME"), (W, "DISCONNECT")]
        settled(house)

    def test_hello_that_comes_again_replaces_the_question_that_is_open(self, house: House) -> None:
        hooks = ScriptedHooks(house, on_client=LATER)
        house.say(C, spec.HELLO, id=1)
        house.request(C, 2, b"x", flags=spec.FAIL_FAST)
        house.say(C, spec.HELLO, id=3)
        assert hooks.abandoned == [hooks.seen[0][0]]
        assert not hooks.decide(Reject(401, "too late"), 0)
        assert house.words() == []
        assert hooks.decide(FORWARD)
        assert [word[:2] for word in house.words()] == [(C, "FINAL"), (C, "WELCOME")]
        settled(house)

    def test_nothing_is_kept_of_a_client_that_has_left(self, house: House) -> None:
        hooks = ScriptedHooks(house, on_client=FORWARD)
        token = {"flags": spec.METADATA, "metadata": metadata.pack({"token": "t"})}
        house.say(C, spec.HELLO, **token)
        house.leave(C)
        room = house.machine.hooks
        assert room is not None
        assert (room.tokens, room.seen, hooks.lost) == ({}, {}, [(C, "left")])


def test_answer_that_finds_no_room_to_wait_in_is_no_reason_to_ask_again(make_house: Any) -> None:
    """A client sends again after 429, and what it asked for has run already."""
    house = make_house(max_queue=1)
    hooks = ScriptedHooks(house, on_reply=LATER)
    house.worker(W, capacity=2)
    house.request(C, 1, b"x", flags=spec.ONCE)
    house.request(C, 2, b"x", flags=spec.ONCE)
    house.words()
    house.answer(W, number(1), b"one")
    house.answer(W, number(2), b"two")
    assert [f[:3] for f in house.finals()] == [(C, 2, 500)]
    assert hooks.abandoned == [hooks.seen[1][0]]
    house.check()
    hooks.decide(FORWARD, 0)
    assert house.words() == [final(C, 1, b"one", worker=W)]
    settled(house)


def test_body_that_a_hook_has_changed_counts_with_its_new_size(house: House) -> None:
    def grow(request: Any) -> None:
        request.frames = [bytes(100), bytes(20)]

    ScriptedHooks(house, on_request=lambda request: grow(request) or FORWARD)
    house.request(C, 1, b"x")
    assert house.machine.registry.queued_bytes == 120
    assert house.machine.registry.services[b"echo"].queue.size == 120


def test_call_of_the_broker_that_is_withdrawn_leaves_nobody_waiting(house: House) -> None:
    told: list[int] = []
    calls = house.machine.calls
    number = house.machine.call(b"echo", [b"x"], 5.0, house.now, lambda *said: told.append(said[0]))
    house.turn()
    house.machine.withdraw_call(number, house.now)
    house.turn()
    assert (told, calls.waiting, calls.peer.open) == ([], {}, {})

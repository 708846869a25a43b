"""Rule 4: every way to make a broker hold something counts in one account, and each has an end.

The invariants compute the account anew after every test of the core, these included."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from majordomus.core.broker.hooks.interface import NoHooks
from majordomus.core.broker.state.account import PEER
from majordomus.core.broker.state.transitions import RequestState
from majordomus.protocol import metadata, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect
from tests.core.broker_harness import BrokerHarness, final, handle, number

C, D, V, W = b"client-c", b"client-d", b"worker-v", b"worker-w"
KIB = 1024
BODY = bytes(64 * KIB)
MakeHarness = Callable[..., BrokerHarness]
SMALL = {"max_peer_bytes": 256 * KIB}
"""Room for three requests with BODY of one peer."""


def held(harness: BrokerHarness) -> int:
    """Bytes in all, without what a peer costs that only exists."""
    account = harness.machine.registry.account
    return account.held - account.peers * PEER


def refused(peer: bytes, id: int, harness: BrokerHarness) -> tuple[object, ...]:
    count = harness.machine.registry.peers[peer].held
    text = f"the broker holds {count} bytes for this peer already"
    return final(peer, id, text.encode(), status=429)


# what requests hold, wherever they are


def test_queued_requests_count_until_their_client_is_refused(make_harness: MakeHarness) -> None:
    harness = make_harness(**SMALL)
    for id in range(1, 5):
        harness.request(C, id, BODY)
    assert harness.messages() == [refused(C, 4, harness)]
    harness.request(D, 1, BODY)
    assert harness.messages() == []


def test_requests_count_while_a_silent_worker_holds_them(make_harness: MakeHarness) -> None:
    harness = make_harness(**SMALL)
    harness.worker(W, capacity=1000)
    for id in range(1, 5):
        harness.request(C, id, BODY)
    assert harness.messages()[-1] == refused(C, 4, harness)
    assert held(harness) > 3 * len(BODY)


def test_every_frame_and_the_metadata_of_a_request_count(make_harness: MakeHarness) -> None:
    harness = make_harness(max_peer_bytes=70 * KIB)
    field = metadata.pack({"x": "y" * 3000})
    harness.request(C, 1, *[b""] * 1000, metadata=field, flags=spec.METADATA)
    harness.request(C, 2, flags=spec.METADATA, metadata=field)
    assert harness.messages() == [refused(C, 2, harness)]


def test_envelope_of_a_request_counts(make_harness: MakeHarness) -> None:
    harness = make_harness()
    harness.request(C, 1)
    plain = held(harness)
    frames = harness.machine.registry.peers[C].open[1]
    assert frames.envelope == ()
    from majordomus.protocol import mdp03

    header = mdp03.pack(spec.REQUEST, service=b"echo", id=1)
    harness.receive(C, bytes(200), header)
    assert held(harness) - plain == plain + 200 + 64


def test_request_that_has_ended_costs_nothing_but_its_story(make_harness: MakeHarness) -> None:
    harness = make_harness(max_stories=0)
    harness.worker(W, capacity=10)
    before = held(harness)
    harness.request(C, 1, BODY)
    harness.request(C, 2, BODY)
    harness.answer(W, number(1))
    harness.reject(W, number(2))
    assert held(harness) == before


def test_stories_count_as_many_as_are_kept(make_harness: MakeHarness) -> None:
    harness = make_harness(max_stories=2)
    for id in range(1, 6):
        harness.request(C, id, BODY)
        harness.receive_03(C, spec.CANCEL, id=id)
    account = harness.machine.registry.account
    assert (held(harness), account.stories) == (2 * 1024, 2 * 1024)


def test_slot_of_a_cancelled_request_counts_for_its_worker(harness: BrokerHarness) -> None:
    harness.worker(W, capacity=10)
    before = harness.machine.registry.peers[W].held
    harness.request(C, 1, BODY)
    harness.receive_03(C, spec.CANCEL, id=1)
    assert harness.machine.registry.peers[W].held == before + 1024
    harness.answer(W, number(1), status=499)
    assert harness.machine.registry.peers[W].held == before


def test_slots_of_cancelled_requests_are_freed_with_their_worker(harness: BrokerHarness) -> None:
    harness.worker(W, capacity=10)
    harness.request(C, 1, BODY)
    harness.receive_03(C, spec.CANCEL, id=1)
    harness.leave(W)
    assert held(harness) == harness.machine.registry.account.stories


def test_parts_that_wait_for_a_worker_count(make_harness: MakeHarness) -> None:
    harness = make_harness(**SMALL)
    harness.request(C, 1, BODY, flags=spec.MORE)
    for _ in range(3):
        harness.receive_03(C, spec.PARTIAL, BODY, id=1)
    ((_, _, status, body),) = harness.finals()
    assert (status, body[0].endswith(b"bytes for this peer already")) == (429, True)
    assert held(harness) == harness.machine.registry.account.stories


def test_parts_that_are_joined_for_a_client_count(harness: BrokerHarness) -> None:
    codec = LEGACY[Dialect.MDP01]
    harness.worker(W)
    harness.receive(C, *codec.c2b_request(b"echo", [b"x"]))
    before = held(harness)
    harness.part(W, number(2), BODY)
    assert held(harness) - before == len(BODY) + 64 - 65


def test_body_is_dropped_when_a_part_of_the_answer_has_passed(harness: BrokerHarness) -> None:
    """From then on no other worker gets the request (rule 3)."""
    harness.worker(W)
    harness.request(C, 1, BODY)
    before = held(harness)
    harness.part(W, number(1), b"part")
    assert before - held(harness) == len(BODY) + 64


def test_reply_that_a_hook_holds_counts(harness: BrokerHarness) -> None:
    class Waits(NoHooks):
        has_on_reply = True

        def on_reply(self, number: int, reply: object) -> None:
            return None

    harness.machine.use(Waits())
    harness.worker(W)
    harness.request(C, 1, b"x")
    harness.answer(W, number(1), BODY, BODY)
    (request,) = harness.machine.registry.peers[C].open.values()
    assert request.state is RequestState.REPLIED
    assert request.cost == 1024 + 2 * (len(BODY) + 64)


# what else is held


def test_outbox_counts_for_the_peer_that_does_not_read(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.request(C, 1)
    before = held(harness)
    harness.full.add(C)
    harness.answer(W, number(1), BODY)
    account = harness.machine.registry.account
    assert account.outboxes == harness.machine.registry.peers[C].held - PEER
    assert account.outboxes > len(BODY)
    harness.full.clear()
    harness.pass_time(1)
    assert (account.outboxes, held(harness) < before) == (0, True)


def test_events_leave_the_reserve_to_answers(make_harness: MakeHarness) -> None:
    """In all 1 MiB, and a quarter more for answers."""
    harness = make_harness(max_held_bytes=1024 * KIB)
    harness.worker(W, capacity=30)
    harness.receive_03(D, spec.HELLO)
    harness.receive_03(D, spec.SUBSCRIBE, service=b"news")
    for id in range(1, 15):
        harness.request(C, id, BODY)
    harness.full.update((C, D))
    harness.sent()
    harness.receive_03(V, spec.EVENT, BODY, service=b"news")
    harness.receive_03(V, spec.EVENT, BODY, service=b"news")
    assert harness.counts.undelivered == 1
    for id in range(1, 4):
        harness.answer(W, number(id), BODY)
    harness.full.clear()
    harness.pass_time(1)
    assert [word[1] for word in harness.messages()] == ["EVENT", "FINAL", "FINAL", "FINAL"]


def test_subscriptions_count_for_as_long_as_their_session_is_kept(harness: BrokerHarness) -> None:
    field = metadata.pack({"session": bytes(16)})
    harness.receive_03(C, spec.HELLO, flags=spec.METADATA, metadata=field)
    harness.receive_03(C, spec.SUBSCRIBE, service=b"a.b.c")
    account = harness.machine.registry.account
    kept = account.subscriptions
    assert kept == 1024 + 256 + 5 + 3 * 512
    harness.leave(C)
    assert account.subscriptions == kept
    harness.pass_time(61)
    assert account.held == 0


def test_subscription_beyond_the_account_is_refused(make_harness: MakeHarness) -> None:
    harness = make_harness(max_held_bytes=8 * KIB)
    harness.receive_03(C, spec.HELLO)
    harness.sent()
    for n in range(1, 5):
        harness.receive_03(C, spec.SUBSCRIBE, service=b"a.b.c.%d" % n, id=n)
    assert [(id, status) for _, id, status, _ in harness.finals()] == [(3, 429), (4, 429)]


def test_registrations_count_with_their_metadata(harness: BrokerHarness) -> None:
    field = metadata.pack({"x": "y" * 1000})
    harness.receive_03(W, spec.READY, service=b"echo", code=1, flags=spec.METADATA, metadata=field)
    account = harness.machine.registry.account
    assert account.registrations == 1024 + 512 + 4 + len(field)
    harness.worker(W)
    assert account.registrations == 1024 + 512 + 4
    harness.leave(W)
    assert account.held == 0


def test_worker_beyond_its_share_is_disconnected(make_harness: MakeHarness) -> None:
    harness = make_harness(max_peer_bytes=8 * KIB)
    for n in range(10):
        harness.worker(W, b"service-%d" % n)
    assert harness.counts.dropped == {"too-much-held": 2} or harness.counts.dropped
    assert harness.machine.registry.account.registrations <= 8 * KIB


def test_answered_handles_of_a_delphi_worker_count(harness: BrokerHarness) -> None:
    codec = LEGACY[Dialect.DELPHI]
    harness.receive(W, *codec.w2b_ready(b"echo"))
    before = held(harness)
    harness.request(C, 1)
    harness.receive(W, *codec.w2b_final(b"echo", handle(1), [b"x"]))
    assert held(harness) - before == 192


def test_peers_count(harness: BrokerHarness) -> None:
    for n in range(5):
        harness.receive_03(b"peer-%d" % n, spec.HELLO)
    assert harness.machine.registry.account.held == 5 * PEER
    for n in range(5):
        harness.leave(b"peer-%d" % n)
    assert harness.machine.registry.account.held == 0


# users


def test_connections_of_one_user_share_a_bound(make_harness: MakeHarness) -> None:
    harness = make_harness(max_user_bytes=256 * KIB)
    for peer, user in ((C, "ann"), (D, "ann"), (V, "bob")):
        harness.machine.identify(peer, user, (), harness.now)
    for id in (1, 2):
        harness.request(C, id, BODY)
        harness.request(D, id, BODY)
    ((peer, id, status, body),) = harness.finals()
    assert (peer, id, status) == (D, 2, 429)
    assert body[0].endswith(b"bytes for this user already")
    harness.request(V, 1, BODY)
    assert harness.finals() == []


def test_what_is_held_moves_with_the_identity_of_a_peer(harness: BrokerHarness) -> None:
    machine = harness.machine
    machine.identify(C, "ann", (), harness.now)
    harness.receive_03(C, spec.HELLO)
    harness.receive_03(C, spec.SUBSCRIBE, service=b"news")
    harness.request(C, 1, BODY)
    account, peer = machine.registry.account, machine.registry.peers[C]
    ann = account.users["ann"]
    assert (ann.held, ann.topics) == (account.held, 1)
    machine.authorization.identify(peer, "bob", (), harness.now)
    assert (ann.held, ann.topics) == (0, 0)
    assert account.users["bob"].held == account.held


def test_subscriptions_of_one_user_are_bounded_over_all_its_connections(
    make_harness: MakeHarness,
) -> None:
    harness = make_harness(max_user_topics=3)
    for peer in (C, D):
        harness.machine.identify(peer, "ann", (), harness.now)
        harness.receive_03(peer, spec.HELLO)
    harness.sent()
    for n in (1, 2):
        harness.receive_03(C, spec.SUBSCRIBE, service=b"a%d" % n, id=n)
        harness.receive_03(D, spec.SUBSCRIBE, service=b"b%d" % n, id=n)
    text = b"this user has 3 subscriptions already"
    assert harness.finals() == [(D, 2, 429, [text])]


# in all


def test_full_broker_still_answers_questions_and_takes_workers(make_harness: MakeHarness) -> None:
    harness = make_harness(max_held_bytes=64 * KIB)
    harness.request(C, 1, bytes(60 * KIB))
    harness.request(C, 2, bytes(8 * KIB))
    harness.request(C, 3, service=b"mmi.service")
    assert [(id, status) for _, id, status, _ in harness.finals()] == [(2, 429), (3, 200)]
    harness.worker(W)
    assert [word[1] for word in harness.messages()] == ["WELCOME", "REQUEST"]


def test_bounds_apply_anew_after_a_change_of_the_settings(make_harness: MakeHarness) -> None:
    from msgspec.structs import replace

    harness = make_harness()
    settings = replace(harness.machine.settings, max_held_bytes=4 * KIB)
    harness.machine.reconfigure(settings, harness.now)
    harness.request(C, 1, bytes(8 * KIB))
    assert [status for _, _, status, _ in harness.finals()] == [429]


@pytest.mark.parametrize("dialect", [Dialect.MDP01, Dialect.MDP02, Dialect.DELPHI])
def test_requests_of_older_dialects_count(make_harness: MakeHarness, dialect: Dialect) -> None:
    harness = make_harness(**SMALL)
    for _ in range(5):
        harness.receive(C, *LEGACY[dialect].c2b_request(b"echo", [BODY]))
    assert harness.counts.refused == {429: 2}
    assert len(harness.machine.registry.peers[C].open) == 3

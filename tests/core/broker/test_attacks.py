"""What somebody who means harm would try against the rules, each attempt once: none may work.

The attacker has a connection, knows the protocol and this source, and guesses nothing random.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from majordomus.core.broker.hooks.actions import Action
from majordomus.core.broker.hooks.interface import NoHooks
from majordomus.core.broker.hooks.views import HookRequest
from majordomus.core.broker.state.access_rules import (
    ACTIONS,
    CALL,
    MANAGE,
    PUBLISH,
    SERVE,
    SUBSCRIBE,
    AccessRules,
    Rule,
)
from majordomus.protocol import mdp03, metadata, spec
from tests.core.broker_harness import BrokerHarness, cancel, final, number

A, B, W, X = b"client-a", b"client-b", b"worker-w", b"worker-x"
EVERYTHING = Rule(True, frozenset(ACTIONS), users=("*",), source="rule 1")
TENANTS = {"acme": "acme.", "umbrella": "u."}


def known(harness: BrokerHarness, peer: bytes, user: str, *groups: str) -> None:
    harness.machine.identify(peer, user, groups, harness.now)


@pytest.fixture
def tenants(harness: BrokerHarness) -> BrokerHarness:
    """A broker of two tenants, each with a worker for echo and a client that has presence."""
    harness.machine.set_rights(AccessRules([EVERYTHING], TENANTS), harness.now)
    for peer, user, group in (
        (A, "ann", "acme"),
        (W, "wes", "acme"),
        (B, "bob", "umbrella"),
        (X, "xia", "umbrella"),
    ):
        known(harness, peer, user, group)
    harness.worker(W, b"echo", 9)
    harness.worker(X, b"echo", 9)
    for client in (A, B):
        harness.receive_03(client, spec.HELLO)
    harness.sent()
    return harness


# ── from one tenant to another ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", [b"u.echo", b"acme.echo", b"../u.echo", b".u.echo", b"u\x00.echo"])
def test_tenant_reaches_no_other_by_the_names_that_the_broker_knows(
    tenants: BrokerHarness, name: bytes
) -> None:
    tenants.request(A, 1, service=name, flags=spec.FAIL_FAST)
    ((_, _, status, _),) = tenants.finals()
    assert status == 503
    assert set(tenants.machine.registry.services) == {b"acme.echo", b"u.echo"}


def test_tenant_cannot_ask_for_another_tenants_worker(tenants: BrokerHarness) -> None:
    tenants.request(A, 1, address=X)
    assert [(word[0], word[2]["code"]) for word in tenants.messages()] == [(A, 404)]


def test_tenant_that_registers_another_tenants_name_serves_its_own(tenants: BrokerHarness) -> None:
    tenants.worker(W, b"u.echo", 9)
    tenants.request(B, 1)
    assert [word[0] for word in tenants.messages() if word[1] == "REQUEST"] == [X]
    assert b"acme.u.echo" in tenants.machine.registry.services


@pytest.mark.parametrize("topic", [b"$chat", b"mmi.chat", b"titanic.chat"])
def test_no_topic_leads_from_one_tenant_to_another(tenants: BrokerHarness, topic: bytes) -> None:
    for pattern in (topic, b"u.news", b">", b"*.*"):
        tenants.receive_03(B, spec.SUBSCRIBE, service=pattern)
    tenants.receive_03(A, spec.EVENT, b"hello", service=topic, id=7)
    tenants.receive_03(A, spec.EVENT, b"hello", service=b"u.news")
    tenants.receive_03(A, spec.EVENT, b"hello", service=b"news")
    assert [(word[0], word[1], word[2]["code"]) for word in tenants.messages()] == [
        (A, "FINAL", 403)
    ]


def test_patterns_of_a_tenant_hold_for_its_own_topics_alone(tenants: BrokerHarness) -> None:
    for pattern in (b">", b"*.news", b"$x.>"):
        tenants.receive_03(A, spec.SUBSCRIBE, service=pattern)
    assert {pattern for pattern, _ in tenants.machine.registry.topics.pairs()} == {
        b"acme.>",
        b"acme.*.news",
        b"$x.>",
    }


def test_unknown_handle_reaches_no_client(tenants: BrokerHarness) -> None:
    guesses = [B, X, bytes(16), b"", tenants.handles[B][:15], tenants.handles[B] + b"\0"]
    for guess in guesses:
        tenants.receive_03(A, spec.EVENT, b"hello", address=guess, id=7)
    assert {word[0] for word in tenants.messages()} == {A}
    tenants.check()


def test_session_of_another_user_is_not_taken_over(tenants: BrokerHarness) -> None:
    session = bytes(range(16))
    field = {"flags": spec.METADATA, "metadata": metadata.pack({"session": session})}
    tenants.receive_03(B, spec.HELLO, **field)
    tenants.receive_03(B, spec.SUBSCRIBE, service=b"news")
    tenants.receive_03(A, spec.HELLO, **field)
    tenants.sent()
    tenants.machine.publish(b"u.news", [b"secret"], tenants.now)
    tenants.turn()
    assert [word[0] for word in tenants.messages()] == [B]


def test_client_that_answers_like_a_worker_is_sent_off(tenants: BrokerHarness) -> None:
    tenants.request(B, 1)
    tenants.sent()
    tenants.answer(A, number(1), b"forged")
    assert [word[:2] for word in tenants.messages()] == [(A, "DISCONNECT")]


def test_worker_of_one_tenant_cannot_answer_what_another_was_given(tenants: BrokerHarness) -> None:
    tenants.request(B, 1)
    ((_, _, fields, _),) = tenants.messages()
    tenants.answer(W, fields["id"], b"forged")
    tenants.part(W, fields["id"], b"forged")
    tenants.reject(W, fields["id"])
    tenants.receive_03(W, spec.CREDIT, id=fields["id"], code=9)
    assert tenants.messages() == []
    assert tenants.counts.dropped["unasked-reply"] == 3
    tenants.answer(X, fields["id"], b"true")
    assert tenants.finals() == [(B, 1, 200, [b"true"])]


# ── around the rules ──────────────────────────────────────────────────────────────────────────────


def test_management_is_not_reached_in_the_name_of_a_service_that_may_be_called(
    harness: BrokerHarness,
) -> None:
    rules = [Rule(True, frozenset((CALL,)), names=("echo",), source="rule 1")]
    harness.machine.set_rights(AccessRules(rules), harness.now)
    attempts = [
        (b"mmi.workers", []),
        (b"mmi.workers", [b""]),
        (b"mmi.workers", [b"", b"echo"]),
        (b"mmi.workers", [b"other"]),
        (b"mmi.workers", [b"echo\0"]),
        (b"mmi.service", []),
        (b"mmi.services", [b"echo"]),
        (b"mmi.explain", [b"echo"]),
        (b"mmi.stats", [b"echo"]),
        (b"mmi.unknown", [b"echo"]),
        (b"mmi.", [b"echo"]),
        (b"MMI.stats", [b"echo"]),
    ]
    for id, (name, body) in enumerate(attempts, 1):
        harness.request(A, id, *body, service=name, flags=spec.FAIL_FAST)
    assert [status for _, _, status, _ in harness.finals()] == [401] * len(attempts)


def test_forged_broker_metadata_give_no_identity(harness: BrokerHarness) -> None:
    harness.worker(W)
    said = metadata.pack({"user": "root", "attempt": 1})
    harness.sent()
    harness.request(A, 1, flags=spec.BROKER_METADATA, metadata=said)
    harness.request(A, 2, flags=spec.BROKER_METADATA | spec.METADATA, metadata=said + said)
    harness.receive_03(A, spec.HELLO, flags=spec.BROKER_METADATA, metadata=said)
    assert [(word[0], word[2]["code"]) for word in harness.messages()] == [(A, 400), (A, 400)]
    assert harness.machine.registry.peers[A].user == ""


def test_token_that_comes_twice_in_one_map_reaches_no_worker(harness: BrokerHarness) -> None:
    harness.worker(W, capacity=9)
    harness.sent()
    token = b"\xa5token\xa6secret"
    harness.request(A, 1, flags=spec.METADATA, metadata=b"\x82" + token * 2)
    harness.request(A, 2, flags=spec.METADATA, metadata=b"\xde\x00\x01" + token)
    harness.request(A, 3, flags=spec.METADATA, metadata=b"\x81\xd9\x05token\xa6secret")
    words = harness.messages()
    assert [(word[0], word[1]) for word in words] == [
        (A, "FINAL"),
        (W, "REQUEST"),
        (W, "REQUEST"),
    ]
    assert b"secret" not in repr(words).encode()


class Waits(NoHooks):
    """Hooks that answer when they are asked to."""

    has_on_request = may_wait = True

    def __init__(self) -> None:
        self.open: list[int] = []

    def on_request(self, number: int, request: HookRequest) -> Action:
        self.open.append(number)
        return None  # type: ignore[return-value]


def test_rules_that_vanish_while_a_hook_decides_lead_to_no_worker_of_another_service(
    harness: BrokerHarness,
) -> None:
    from majordomus.core.broker.hooks.actions import FORWARD

    hooks = Waits()
    harness.machine.use(hooks)
    harness.machine.set_rights(AccessRules([EVERYTHING]), harness.now)
    known(harness, A, "ann")
    known(harness, X, "xia")
    harness.worker(X, b"other", 9)
    harness.sent()
    harness.request(A, 1, address=X)
    harness.machine.set_rights(None, harness.now)
    harness.machine.resume(hooks.open[0], FORWARD, harness.now)
    harness.turn()
    assert [(word[0], word[2]["code"]) for word in harness.messages()] == [(A, 404)]


# ── after a right is gone ─────────────────────────────────────────────────────────────────────────


def test_stream_ends_on_both_sides_when_its_caller_loses_the_right(harness: BrokerHarness) -> None:
    harness.machine.set_rights(AccessRules([EVERYTHING]), harness.now)
    known(harness, A, "ann")
    known(harness, W, "wes")
    harness.worker(W, b"echo", 9)
    harness.request(A, 1, b"x", flags=spec.MORE)
    harness.part(A, 1, b"y")
    harness.request(A, 2, b"x")
    harness.part(W, number(2), b"first")
    harness.request(A, 3, b"x")
    harness.sent()
    only_wes = Rule(True, frozenset(ACTIONS), users=("wes",), source="rule 1")
    harness.machine.set_rights(AccessRules([only_wes]), harness.now)
    harness.turn()
    words = harness.messages()
    refused = [final(A, id, b"'ann' may not call 'echo'", status=403) for id in (1, 2)]
    assert sorted(words, key=repr) == sorted([*refused, cancel(W, 1), cancel(W, 2)], key=repr)
    harness.part(A, 1, b"z")
    assert harness.messages() == []
    harness.answer(W, number(1), b"late")
    assert harness.messages() == []
    harness.answer(W, number(3), b"asked for before")
    assert harness.finals() == [(A, 3, 200, [b"asked for before"])]


@pytest.mark.parametrize("glob", ["*a*a*a*a*a*a*a*b", "*?*?*?*?*?*?*?*b", "a*" * 30 + "b"])
def test_name_that_nearly_matches_costs_no_more_than_another(glob: str) -> None:
    rights = AccessRules([Rule(True, frozenset((CALL, SUBSCRIBE)), names=(glob,), source="rule 1")])
    began = time.process_time()
    for size in range(200, 255):
        assert not rights.allows("ann", (), CALL, b"a" * size).allowed
        assert not rights.allows("ann", (), SUBSCRIBE, b"a" * size).allowed
    assert time.process_time() - began < 5
    assert rights.allows("ann", (), CALL, b"a" * 60 + b"b").allowed


def test_pattern_that_nearly_meets_a_denial_costs_no_more_than_another() -> None:
    deny = Rule(False, frozenset((SUBSCRIBE,)), names=("*a*a*a*a*a*b",), source="rule 2")
    rights = AccessRules([EVERYTHING, deny])
    began = time.process_time()
    pattern = b".".join([b"*", b"a"] * 60)
    assert not rights.allows("ann", (), SUBSCRIBE, b".".join([b"*"] * 100)).allowed
    rights.allows("ann", (), SUBSCRIBE, pattern)
    assert time.process_time() - began < 5


def test_reserved_names_are_for_no_peer_whatever_the_rules_say() -> None:
    rights = AccessRules([Rule(True, frozenset(ACTIONS), source="rule 1")])
    for name in (b"mmi.service", b"titanic.request", b"$SYS.load", b"$"):
        for action in (SERVE, PUBLISH):
            assert not rights.allows("root", ("wheel",), action, name).allowed
        for action in (CALL, SUBSCRIBE, MANAGE):
            assert rights.allows("root", ("wheel",), action, name).allowed


# ── behind an envelope ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("command", [spec.HELLO, spec.SUBSCRIBE, spec.EVENT, spec.READY])
def test_identity_and_presence_cannot_be_set_behind_an_envelope(
    make_harness: Callable[..., BrokerHarness], command: int
) -> None:
    harness = make_harness()
    harness.machine.set_rights(AccessRules([EVERYTHING]), harness.now)
    known(harness, A, "proxy")
    header = mdp03.pack(command, id=5, code=1, service=b"echo")
    harness.receive(A, b"inner", header)
    peer = harness.machine.registry.peers[A]
    assert (peer.worker, peer.subscriber, peer.state.name) == (None, None, "SEEN")
    (said,) = harness.sent()
    assert said[1][0] == b"inner"

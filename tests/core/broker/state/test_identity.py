"""Rule 2: "A worker is known by its routing id and, where there is one, its authenticated user"."""

from __future__ import annotations

import json

from majordomus.core.broker.state.identity import UNPROVED, Identity
from majordomus.protocol import spec
from tests.core.broker_harness import BrokerHarness, final, number

C, D, W = b"client-c", b"client-d", b"worker-w"


def identify(
    harness: BrokerHarness, peer: bytes, user: str, *groups: str, key: str = "", turn: bool = True
) -> bool:
    told = harness.machine.identify(peer, user, groups, harness.now, key)
    if turn:
        harness.turn()
    return told


def test_peer_has_the_user_and_groups_of_its_connection_from_its_first_message_on(
    harness: BrokerHarness,
) -> None:
    assert identify(harness, C, "ann", "admins", "ops", key="K")
    harness.request(C, 1)
    peer = harness.machine.registry.peers[C]
    assert (peer.user, peer.groups) == ("ann", ("admins", "ops"))
    assert peer.identity == Identity("ann", ("admins", "ops"), "K")


def test_peer_that_proved_nothing_is_nobody(harness: BrokerHarness) -> None:
    harness.request(C, 1)
    peer = harness.machine.registry.peers[C]
    assert (peer.user, peer.groups, peer.identity) == ("", (), UNPROVED)


def test_worker_is_told_the_user_of_every_request(harness: BrokerHarness) -> None:
    harness.worker(W)
    identify(harness, C, "ann")
    harness.sent()
    harness.request(C, 1, b"x")
    ((_, name, fields, _),) = harness.messages()
    assert name == "REQUEST"
    assert b"ann" in fields["metadata"]


def test_client_that_is_forgotten_for_silence_is_still_the_same_user(
    harness: BrokerHarness,
) -> None:
    identify(harness, C, "ann")
    harness.worker(W)
    harness.request(C, 1)
    harness.answer(W, number(1))
    harness.pass_time(harness.machine.settings.client_idle * 3)
    assert C not in harness.machine.registry.peers
    harness.request(C, 2)
    assert harness.machine.registry.peers[C].user == "ann"


def test_identity_goes_with_its_connection(harness: BrokerHarness) -> None:
    identify(harness, C, "ann")
    harness.machine.connection_ended(C, harness.now)
    harness.turn()
    assert harness.machine.registry.identities == {}
    harness.request(C, 1)
    assert harness.machine.registry.peers[C].user == ""


def test_routing_id_that_comes_back_with_another_user_is_refused_until_the_old_one_is_gone(
    harness: BrokerHarness,
) -> None:
    harness.worker(W, capacity=5)
    identify(harness, C, "ann")
    harness.request(C, 1, b"secret of ann")
    harness.sent()
    assert not identify(harness, C, "bob", turn=False)  # the shell drops bob's message
    assert harness.counts.dropped == {"another-user": 1}
    harness.turn()  # everything that ann had sent was heard
    assert C not in harness.machine.registry.peers
    assert identify(harness, C, "bob")
    harness.request(C, 1, b"of bob")
    harness.answer(W, number(1), b"answer to ann")
    assert not harness.finals()
    harness.answer(W, number(2), b"answer to bob")
    assert harness.messages() == [final(C, 1, b"answer to bob", worker=W)]
    assert harness.machine.registry.peers[C].user == "bob"


def test_user_may_come_back_with_another_key_and_nobody_known_may_not(
    harness: BrokerHarness,
) -> None:
    identify(harness, C, "ann", key="K")
    harness.request(C, 1)
    assert identify(harness, C, "ann", key="L")
    identify(harness, D, "", key="K")
    harness.request(D, 1)
    assert identify(harness, D, "", key="K")
    assert not identify(harness, D, "", key="L")


def test_worker_whose_routing_id_comes_back_with_another_user_is_lost_and_its_work_goes_on(
    harness: BrokerHarness,
) -> None:
    identify(harness, W, "ann")
    harness.worker(W)
    harness.request(C, 1)
    harness.sent()
    assert not identify(harness, W, "bob")
    assert W not in harness.machine.registry.workers
    harness.worker(D)
    assert (D, number(2)) in harness.dispatched()


def test_connection_of_somebody_known_that_ended_is_not_probed(harness: BrokerHarness) -> None:
    """A probe would reach whoever has the routing id by then, and believe that it is the same."""
    identify(harness, W, "ann")
    harness.worker(W)
    harness.sent()
    harness.machine.connection_ended(W, harness.now)
    harness.turn()
    assert harness.sent() == []
    assert W not in harness.machine.registry.workers


def test_groups_that_change_hold_at_once(harness: BrokerHarness) -> None:
    identify(harness, C, "ann", "ops")
    harness.request(C, 1)
    assert identify(harness, C, "ann", "admins")
    assert harness.machine.registry.peers[C].groups == ("admins",)


def test_groups_that_a_token_gave_stay_when_those_of_the_connection_change(
    harness: BrokerHarness,
) -> None:
    identify(harness, C, "ann", "ops")
    harness.request(C, 1)
    peer = harness.machine.registry.peers[C]
    peer.user, peer.groups = "root", ("tokens",)
    assert identify(harness, C, "ann", "admins")
    assert (peer.user, peer.groups) == ("root", ("tokens",))
    assert peer.identity.groups == ("admins",)


def test_revoked_client_is_forgotten_and_what_it_waits_for_is_cancelled(
    harness: BrokerHarness,
) -> None:
    harness.worker(W)
    identify(harness, C, "ann")
    harness.request(C, 1)
    harness.request(C, 2)
    harness.sent()
    harness.machine.revoke(C, harness.now)
    harness.turn()
    assert C not in harness.machine.registry.peers
    assert harness.machine.registry.identities == {}
    assert harness.counts.cancelled == 2
    assert not [word for word in harness.messages() if word[0] == C]
    assert ("revoked", {"peer": C, "user": "ann"}) in harness.facts


def test_work_of_a_revoked_worker_goes_to_another(harness: BrokerHarness) -> None:
    identify(harness, W, "ann")
    harness.worker(W)
    harness.request(C, 1)
    harness.worker(D)
    harness.sent()
    harness.machine.revoke(W, harness.now)
    harness.turn()
    assert harness.dispatched() == [(D, number(2))]


def test_refused_handshakes_are_counted_by_reason_and_shown(harness: BrokerHarness) -> None:
    harness.machine.handshake_failed("unknown-key")
    harness.machine.handshake_failed("unknown-key")
    harness.machine.handshake_failed("not-encrypted")
    harness.receive_03(C, spec.REQUEST, id=1, service=b"mmi.stats")
    ((_, _, _, (status, answer)),) = harness.messages()
    assert status == b"200"
    assert json.loads(answer)["handshakes_refused"] == {"not-encrypted": 1, "unknown-key": 2}

"""Rule 2: "A worker is known by its routing id and, where there is one, its authenticated user"."""

from __future__ import annotations

import json

from majordomus.core.broker.state.identity import NOBODY, Identity
from majordomus.protocol import spec
from tests.core.broker_harness import House, final, number

C, D, W = b"client-c", b"client-d", b"worker-w"


def identify(
    house: House, peer: bytes, user: str, *groups: str, key: str = "", turn: bool = True
) -> bool:
    told = house.machine.identify(peer, user, groups, house.now, key)
    if turn:
        house.turn()
    return told


def test_peer_has_the_user_and_groups_of_its_connection_from_its_first_message_on(
    house: House,
) -> None:
    assert identify(house, C, "ann", "admins", "ops", key="K")
    house.request(C, 1)
    peer = house.machine.registry.peers[C]
    assert (peer.user, peer.groups) == ("ann", ("admins", "ops"))
    assert peer.identity == Identity("ann", ("admins", "ops"), "K")


def test_peer_that_proved_nothing_is_nobody(house: House) -> None:
    house.request(C, 1)
    peer = house.machine.registry.peers[C]
    assert (peer.user, peer.groups, peer.identity) == ("", (), NOBODY)


def test_worker_is_told_the_user_of_every_request(house: House) -> None:
    house.worker(W)
    identify(house, C, "ann")
    house.said()
    house.request(C, 1, b"x")
    ((_, name, fields, _),) = house.words()
    assert name == "REQUEST"
    assert b"ann" in fields["metadata"]


def test_client_that_is_forgotten_for_silence_is_still_the_same_user(house: House) -> None:
    identify(house, C, "ann")
    house.worker(W)
    house.request(C, 1)
    house.answer(W, number(1))
    house.pass_time(house.machine.settings.client_idle * 3)
    assert C not in house.machine.registry.peers
    house.request(C, 2)
    assert house.machine.registry.peers[C].user == "ann"


def test_identity_goes_with_its_connection(house: House) -> None:
    identify(house, C, "ann")
    house.machine.connection_ended(C, house.now)
    house.turn()
    assert house.machine.registry.identities == {}
    house.request(C, 1)
    assert house.machine.registry.peers[C].user == ""


def test_routing_id_that_comes_back_with_another_user_is_refused_until_the_old_one_is_gone(
    house: House,
) -> None:
    house.worker(W, capacity=5)
    identify(house, C, "ann")
    house.request(C, 1, b"secret of ann")
    house.said()
    assert not identify(house, C, "bob", turn=False)  # the shell drops bob's message
    assert house.counts.dropped == {"another-user": 1}
    house.turn()  # everything that ann had sent was heard
    assert C not in house.machine.registry.peers
    assert identify(house, C, "bob")
    house.request(C, 1, b"of bob")
    house.answer(W, number(1), b"answer to ann")
    assert not house.finals()
    house.answer(W, number(2), b"answer to bob")
    assert house.words() == [final(C, 1, b"answer to bob", worker=W)]
    assert house.machine.registry.peers[C].user == "bob"


def test_user_may_come_back_with_another_key_and_nobody_known_may_not(house: House) -> None:
    identify(house, C, "ann", key="K")
    house.request(C, 1)
    assert identify(house, C, "ann", key="L")
    identify(house, D, "", key="K")
    house.request(D, 1)
    assert identify(house, D, "", key="K")
    assert not identify(house, D, "", key="L")


def test_worker_whose_routing_id_comes_back_with_another_user_is_lost_and_its_work_goes_on(
    house: House,
) -> None:
    identify(house, W, "ann")
    house.worker(W)
    house.request(C, 1)
    house.said()
    assert not identify(house, W, "bob")
    assert W not in house.machine.registry.workers
    house.worker(D)
    assert (D, number(2)) in house.dispatched()


def test_connection_of_somebody_known_that_ended_is_not_probed(house: House) -> None:
    """A probe would reach whoever has the routing id by then, and believe that it is the same."""
    identify(house, W, "ann")
    house.worker(W)
    house.said()
    house.machine.connection_ended(W, house.now)
    house.turn()
    assert house.said() == []
    assert W not in house.machine.registry.workers


def test_groups_that_change_hold_at_once(house: House) -> None:
    identify(house, C, "ann", "ops")
    house.request(C, 1)
    assert identify(house, C, "ann", "admins")
    assert house.machine.registry.peers[C].groups == ("admins",)


def test_groups_that_a_token_gave_stay_when_those_of_the_connection_change(house: House) -> None:
    identify(house, C, "ann", "ops")
    house.request(C, 1)
    peer = house.machine.registry.peers[C]
    peer.user, peer.groups = "root", ("tokens",)
    assert identify(house, C, "ann", "admins")
    assert (peer.user, peer.groups) == ("root", ("tokens",))
    assert peer.identity.groups == ("admins",)


def test_revoked_client_is_forgotten_and_what_it_waits_for_is_cancelled(house: House) -> None:
    house.worker(W)
    identify(house, C, "ann")
    house.request(C, 1)
    house.request(C, 2)
    house.said()
    house.machine.revoke(C, house.now)
    house.turn()
    assert C not in house.machine.registry.peers
    assert house.machine.registry.identities == {}
    assert house.counts.cancelled == 2
    assert not [word for word in house.words() if word[0] == C]
    assert ("revoked", {"peer": C, "user": "ann"}) in house.facts


def test_work_of_a_revoked_worker_goes_to_another(house: House) -> None:
    identify(house, W, "ann")
    house.worker(W)
    house.request(C, 1)
    house.worker(D)
    house.said()
    house.machine.revoke(W, house.now)
    house.turn()
    assert house.dispatched() == [(D, number(2))]


def test_refused_handshakes_are_counted_by_reason_and_shown(house: House) -> None:
    house.machine.handshake_failed("unknown-key")
    house.machine.handshake_failed("unknown-key")
    house.machine.handshake_failed("not-encrypted")
    house.say(C, spec.REQUEST, id=1, service=b"mmi.stats")
    ((_, _, _, (status, answer)),) = house.words()
    assert status == b"200"
    assert json.loads(answer)["handshakes_refused"] == {"not-encrypted": 1, "unknown-key": 2}

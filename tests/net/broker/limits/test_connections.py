"""Descriptors belong to one routing id at a time, and an ended connection is probed until it is
known to be gone.
"""

from __future__ import annotations

from math import inf

from majordomus.net.broker.limits.connections import DELAYS, ConnectionMap, Probes


def test_end_of_a_descriptor_returns_its_peer_once() -> None:
    connections = ConnectionMap()
    assert connections.opened(b"a", 7) is None
    assert connections.ended(7) == b"a"
    assert connections.ended(7) is None


def test_descriptor_without_a_message_has_no_peer() -> None:
    assert ConnectionMap().ended(7) is None


def test_descriptor_with_a_new_peer_reports_the_end_of_the_old_one() -> None:
    connections = ConnectionMap()
    connections.opened(b"a", 7)
    assert connections.opened(b"b", 7) == b"a"
    assert connections.ended(7) == b"b"


def test_peer_that_comes_back_by_another_descriptor_is_known_by_that_one_alone() -> None:
    connections = ConnectionMap()
    connections.opened(b"a", 7)
    assert connections.opened(b"a", 8) is None
    assert connections.ended(7) is None
    assert connections.ended(8) == b"a"


def test_peer_that_is_noted_again_by_the_same_descriptor_has_not_ended() -> None:
    connections = ConnectionMap()
    connections.opened(b"a", 7)
    assert connections.opened(b"a", 7) is None


def test_ended_connection_is_probed_after_each_delay_and_then_no_more() -> None:
    probes = Probes()
    probes.begin(b"a", 7, 100.0)
    found = []
    while probes.next() < inf:
        when = probes.next()
        found.append((round(when - 100.0, 6), probes.due(when)))
    assert found == [(delay, [b"a"]) for delay in DELAYS]


def test_peer_known_to_be_gone_is_probed_no_more() -> None:
    probes = Probes()
    probes.begin(b"a", 7, 100.0)
    probes.gone(b"a")
    assert probes.due(200.0) == []


def test_peer_that_is_back_by_another_descriptor_is_probed_no_more() -> None:
    probes = Probes()
    probes.begin(b"a", 7, 100.0)
    probes.received(b"a", 8)
    assert probes.due(200.0) == []


def test_message_from_the_ended_descriptor_does_not_stop_the_probes() -> None:
    probes = Probes()
    probes.begin(b"a", 7, 100.0)
    probes.received(b"a", 7)
    assert probes.due(100.0 + DELAYS[0]) == [b"a"]


def test_peer_that_is_back_by_the_same_descriptor_is_probed_no_more() -> None:
    probes = Probes()
    probes.begin(b"a", 7, 100.0)
    probes.accepted(7)
    probes.received(b"a", 7)
    assert probes.due(200.0) == []


def test_peer_that_reuses_a_descriptor_does_not_stop_the_probes_of_the_old_peer() -> None:
    probes = Probes()
    probes.begin(b"a", 7, 100.0)
    probes.accepted(7)
    probes.received(b"b", 7)
    assert probes.due(100.0 + DELAYS[0]) == [b"a"]


def test_connection_that_ended_again_is_probed_from_then_on() -> None:
    probes = Probes()
    probes.begin(b"a", 7, 100.0)
    probes.begin(b"a", 8, 100.1)
    probes.received(b"a", 8)
    assert probes.due(100.1 + DELAYS[-1])
    probes.received(b"a", 7)
    assert probes.due(200.0) == []
    assert probes.next() == inf

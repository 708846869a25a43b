"""A refusal that a peer repeats: delayed, so that it costs nothing, and reported with a count."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from majordomus.core.broker import outgoing
from majordomus.core.broker.state.refusals import MOST_KINDS, QUIET, Refusals
from majordomus.protocol import mdp03, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect
from tests.core import dialects
from tests.core.broker_harness import BrokerHarness, Message, disconnect

C, V, W, X = b"client-c", b"worker-v", b"worker-w", b"worker-x"
RESERVED = b"$log"


REASON = "'$log' is reserved: no worker may serve it"


def refused(peer: bytes) -> Message:
    """The DISCONNECT for a READY of RESERVED in MDP/0.3."""
    return disconnect(peer, spec.FORBIDDEN, REASON, "$log")


def farewell(peer: bytes, dialect: Dialect) -> Message:
    return refused(peer) if dialect is Dialect.MDP03 else (peer, *dialects.farewell(dialect))


def reported(harness: BrokerHarness, fact: str) -> list[dict[str, object]]:
    return [data for name, data in harness.facts if name == fact]


@pytest.mark.parametrize("dialect", Dialect)
def test_first_refusal_is_sent_at_once_and_a_repeated_one_after_a_second(
    harness: BrokerHarness, dialect: Dialect
) -> None:
    harness.receive(V, *dialects.ready(dialect, RESERVED))
    assert harness.messages() == [farewell(V, dialect)]
    harness.receive(W, *dialects.ready(dialect, RESERVED))
    harness.pass_time(0.98)
    assert harness.messages() == []
    harness.pass_time(0.03)
    assert harness.messages() == [farewell(W, dialect)]
    assert harness.machine.registry.peers == {}
    assert harness.machine.next_deadline() > harness.now + QUIET


def test_worker_that_reconnects_at_once_does_so_once_a_second(harness: BrokerHarness) -> None:
    """The workers of the guide open a new socket when they receive DISCONNECT."""
    refused = 0
    for n in range(10_000):
        harness.receive(b"socket-%d" % n, *dialects.ready(Dialect.MDP01, RESERVED))
        while not harness.messages() and harness.now < 1010:
            harness.pass_time(0.1)
        refused += 1
        if harness.now >= 1010:
            break
    assert 10 <= refused <= 12


@pytest.mark.parametrize("dialect", Dialect)
def test_repeated_refusal_is_reported_at_each_power_of_two(
    harness: BrokerHarness, dialect: Dialect
) -> None:
    for n in range(9):
        harness.receive(b"worker-%d" % n, *dialects.ready(dialect, RESERVED))
    assert [data["times"] for data in reported(harness, "worker-refused")] == [1, 2, 4, 8]
    assert reported(harness, "worker-refused")[0] == {
        "peer": b"worker-0",
        "dialect": dialect.value,
        "service": RESERVED,
        "why": REASON,
        "times": 1,
    }
    assert reported(harness, "dropped") == []
    assert harness.counts.dropped == {"reserved-service-name": 9}


def test_refusal_of_another_name_is_sent_at_once(harness: BrokerHarness) -> None:
    for peer, name in ((V, b"$a"), (W, b"$b")):
        harness.receive(peer, *dialects.ready(Dialect.MDP02, name))
    assert harness.messages() == [farewell(V, Dialect.MDP02), farewell(W, Dialect.MDP02)]


def test_refusal_after_a_quiet_minute_is_sent_and_reported_at_once(harness: BrokerHarness) -> None:
    for _ in range(3):
        harness.receive(V, *dialects.ready(Dialect.MDP01, RESERVED))
        harness.pass_time(2)
    harness.sent()
    harness.pass_time(QUIET)
    harness.receive(V, *dialects.ready(Dialect.MDP01, RESERVED))
    assert harness.messages() == [farewell(V, Dialect.MDP01)]
    assert [data["times"] for data in reported(harness, "worker-refused")] == [1, 2, 1]


def test_worker_whose_refusal_waits_is_not_heard(harness: BrokerHarness) -> None:
    harness.worker(V, RESERVED)
    harness.sent()
    for peer in (W, X):
        harness.worker(peer, RESERVED)
    harness.worker(W, b"echo")
    harness.receive(X, *dialects.ready(Dialect.MDP01, b"echo"))
    assert harness.messages() == []
    assert harness.machine.registry.workers == {}
    assert harness.counts.dropped["refused-peer"] == 2
    harness.pass_time(1.1)
    assert harness.messages() == [refused(W), refused(X)]
    harness.worker(W, b"echo")
    assert list(harness.machine.registry.workers) == [W]


def test_refusal_of_a_connection_that_has_ended_is_dropped(harness: BrokerHarness) -> None:
    for peer in (V, W, X):
        harness.worker(peer, RESERVED)
    harness.sent()
    harness.machine.connection_ended(W, harness.now)
    harness.machine.connection_over(X, harness.now)
    harness.pass_time(1.1)
    assert harness.messages() == []
    assert "unsendable" not in harness.counts.dropped


def test_repeated_refusal_behind_an_envelope_is_delayed_too(harness: BrokerHarness) -> None:
    ready = mdp03.pack(spec.READY, code=1, service=b"echo")
    harness.receive(V, b"one", ready)
    harness.receive(V, b"two", ready)
    harness.receive(V, b"three", ready)
    bye = mdp03.pack(spec.DISCONNECT)
    assert harness.sent() == [(V, [b"one", bye])]
    harness.pass_time(1.1)
    assert harness.sent() == [(V, [b"two", bye]), (V, [b"three", bye])]


def test_worker_that_loses_its_work_by_a_refusal_is_told_later(harness: BrokerHarness) -> None:
    """The requests that it holds go to another worker at once."""
    for peer in (V, W):
        harness.worker(peer, b"echo")
        harness.worker(peer, RESERVED)
        harness.sent()
    assert harness.machine.registry.workers == {}
    harness.pass_time(1.1)
    assert harness.messages() == [refused(W)]


def test_refusals_beyond_the_most_that_wait_are_sent_at_once(
    harness: BrokerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "MOST_DELAYED", 2)
    peers = [b"worker-%d" % n for n in range(5)]
    for peer in peers:
        harness.worker(peer, RESERVED)
    assert harness.messages() == [refused(peer) for peer in (peers[0], *peers[3:])]
    harness.pass_time(1.1)
    assert harness.messages() == [refused(peer) for peer in peers[1:3]]
    assert len(harness.machine.outgoing.delayed) == 2
    harness.worker(V, RESERVED)
    assert len(harness.machine.outgoing.delayed) == 1


def test_kinds_that_are_remembered_are_bounded() -> None:
    refusals = Refusals()
    for n in range(MOST_KINDS + 1):
        assert refusals.count(n, 0.0) == 1
    assert refusals.count(MOST_KINDS, 1.0) == 2
    assert refusals.count(0, 1.0) == 1


@pytest.mark.parametrize("name", [b"titanic.request", b"titanic.reply", b"titanic.close"])
@pytest.mark.parametrize("dialect", Dialect)
def test_titanic_services_are_served_by_workers(
    harness: BrokerHarness, dialect: Dialect, name: bytes
) -> None:
    harness.receive(W, *dialects.ready(dialect, name))
    assert name in harness.machine.registry.services
    assert list(harness.machine.registry.workers) == [W]


# requests of the older dialects

SILENT = tuple(LEGACY)


@pytest.mark.parametrize("dialect", SILENT)
@pytest.mark.parametrize(
    ("settings", "body", "status", "why"),
    [
        ({"max_open": 1}, [b"x"], 429, "1 conversations are open already"),
        ({"max_client_queue": 1}, [b"x"], 429, "1 requests of this client wait already"),
        ({"max_message": 1}, [b"xy"], 413, "2 bytes or more; at most 1 are allowed"),
    ],
)
def test_request_that_a_limit_refuses_and_that_cannot_be_answered_is_reported(
    make_harness: Callable[..., BrokerHarness],
    dialect: Dialect,
    settings: dict[str, int],
    body: list[bytes],
    status: int,
    why: str,
) -> None:
    harness = make_harness(**settings)
    harness.receive(C, *dialects.ask(dialect, b"echo", [b"x"]))
    for _ in range(5):
        harness.receive(C, *dialects.ask(dialect, b"echo", body))
    assert harness.messages() == []
    assert reported(harness, "request-refused") == [
        {
            "peer": C,
            "dialect": dialect.value,
            "service": b"echo",
            "status": status,
            "why": why,
            "times": times,
        }
        for times in (1, 2, 4)
    ]


@pytest.mark.parametrize("dialect", SILENT)
def test_request_that_is_answered_with_its_refusal_is_not_reported(
    make_harness: Callable[..., BrokerHarness], dialect: Dialect
) -> None:
    harness = make_harness(max_message=1, legacy_errors="reply")
    harness.receive(C, *dialects.ask(dialect, b"echo", [b"xy"]))
    assert len(harness.sent()) == 1
    assert reported(harness, "request-refused") == []

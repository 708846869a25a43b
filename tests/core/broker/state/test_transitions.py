"""The tables of states: every listed pair is followed, every other raises, and the page in the docs
shows what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import IntEnum
from itertools import product
from typing import Any

import pytest

from majordomus.core.broker.balancing.strategy import LeastOutstanding
from majordomus.core.broker.durable.records import StoredRequest
from majordomus.core.broker.durable.requests import DurableRequest
from majordomus.core.broker.state import transitions as states
from majordomus.core.broker.state.peers import Peer
from majordomus.core.broker.state.requests import AcceptedRequest
from majordomus.core.broker.state.services import Service
from majordomus.core.broker.state.transitions import (
    DurableState,
    PeerState,
    RequestState,
    WorkerState,
)
from majordomus.core.broker.state.workers import RegisteredWorker
from majordomus.errors import LocalProtocolError
from majordomus.protocol.spec import Dialect
from tests.core import states_diagram


def peer() -> Peer:
    return Peer(b"p", Dialect.MDP03, b"h", 0.0)


def worker() -> RegisteredWorker:
    return RegisteredWorker(peer(), Dialect.MDP03, 1, 0.0)


def request() -> AcceptedRequest:
    service = Service(b"echo", LeastOutstanding())
    return AcceptedRequest().fill(peer(), Dialect.MDP03, (), 1, 1, service, [], 0, 0, b"", 0.0, 1.0)


def durable() -> DurableRequest:
    row = StoredRequest(1, "", b"echo", b"echo", [], b"", 0.0)
    return DurableRequest(row, peer(), 0)


NOUNS: dict[str, tuple[Callable[[], Any], Any, type[IntEnum]]] = {
    "request": (request, states.REQUEST, RequestState),
    "durable": (durable, states.DURABLE, DurableState),
    "worker": (worker, states.WORKER, WorkerState),
    "peer": (peer, states.PEER, PeerState),
}


def pairs() -> Iterator[tuple[str, str, IntEnum]]:
    for noun, (_, table, every) in NOUNS.items():
        for event, state in product(table, every):
            yield noun, event, state


@pytest.mark.parametrize(("noun", "event", "state"), list(pairs()))
def test_listed_pair_is_followed_and_any_other_raises(
    noun: str, event: str, state: IntEnum
) -> None:
    make, table, _ = NOUNS[noun]
    thing = make()
    thing.state = state
    if state in table[event]:
        thing.move(event)
        assert thing.state is table[event][state]
        return
    with pytest.raises(LocalProtocolError, match=f"{noun}: {event} in {state.name}"):
        thing.move(event)
    assert thing.state is state


@pytest.mark.parametrize("noun", NOUNS)
def test_event_that_no_table_lists_raises(noun: str) -> None:
    with pytest.raises(LocalProtocolError, match=f"{noun}: sing in"):
        NOUNS[noun][0]().move("sing")


def test_outcomes_are_the_states_that_nothing_leaves() -> None:
    left = {before for pairs in states.REQUEST.values() for before in pairs}
    assert left == states.OPEN
    outcomes = {states.ANSWERED, states.FAILED, states.EXPIRED, states.CANCELLED}
    assert set(RequestState) - left == outcomes


@pytest.mark.parametrize("event", ["expire", "fail", "cancel"])
def test_every_open_request_can_expire_fail_and_be_cancelled(event: str) -> None:
    assert set(states.REQUEST[event]) == states.OPEN


def test_nothing_that_streams_is_queued_again() -> None:
    assert states.STREAMING not in states.REQUEST["queue"]
    assert states.STREAMING not in states.REQUEST["dispatch"]


def test_every_state_is_reached() -> None:
    for noun, (table, first) in states_diagram.TABLES.items():
        reached = {first} | {after for pairs in table.values() for after in pairs.values()}
        assert reached == set(NOUNS[noun][2])


def test_page_shows_the_tables_as_they_are() -> None:
    for path in states_diagram.PAGES:
        text = path.read_text("utf-8")
        assert states_diagram.generated(text) == text
    page = states_diagram.PAGE.read_text("utf-8")
    assert page.count("```mermaid") == len(states_diagram.TABLES)


def test_page_explains_every_state_and_event() -> None:
    page = states_diagram.PAGE.read_text("utf-8")
    for _, table, every in NOUNS.values():
        assert all(f"| `{state.name}` |" in page for state in every)
        assert table is states.PEER or all(f"| `{event}` |" in page for event in table)


def test_diagram_is_what_mermaid_reads() -> None:
    assert states_diagram.diagram(states.PEER, states.SEEN) == (
        "```mermaid\n"
        "stateDiagram-v2\n"
        "    [*] --> SEEN\n"
        "    SEEN --> PRESENT: hello\n"
        "    SEEN --> FORGOTTEN: forget\n"
        "    PRESENT --> PRESENT: hello\n"
        "    PRESENT --> FORGOTTEN: forget\n"
        "    FORGOTTEN --> [*]\n"
        "```\n"
    )

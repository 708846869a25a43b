"""The client's session in the dialects without correlation: one call in flight at a time ."""

from __future__ import annotations

from typing import Any

import pytest

from majordomus.core.client.session import BY_CALLER, NO_ANSWER, Final, Lost, Part
from majordomus.errors import LocalProtocolError
from majordomus.protocol import mdp03, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect
from tests.core.session_harness import LEGACY_DIALECTS, ClientScript, answer, asked

ALL = pytest.mark.parametrize("dialect", LEGACY_DIALECTS)
STREAMING = pytest.mark.parametrize("dialect", [Dialect.MDP02, Dialect.MDP02D])
NAMING = pytest.mark.parametrize("dialect", [Dialect.MDP01, Dialect.MDP02, Dialect.DELPHI])


def connected(dialect: Dialect, **settings: Any) -> ClientScript:
    script = ClientScript(dialect=dialect, **settings)
    script.connect()
    return script


@ALL
@pytest.mark.parametrize("body", [(), (b"x",), (b"x", b"", b"z")])
def test_legacy_client_sends_its_dialect_and_takes_the_answer_as_200(
    dialect: Dialect, body: tuple[bytes, ...]
) -> None:
    script = connected(dialect)
    call = script.call(*body)
    assert script.out() == ([asked(dialect, *body)], [], [])
    script.hear(*answer(dialect, *body))
    assert script.out() == ([], [Final(call, 200, list(body) or [b""], b"")], [])


@ALL
def test_legacy_client_sends_the_next_call_only_after_the_answer(dialect: Dialect) -> None:
    script = connected(dialect)
    calls = [script.call(b"%d" % n) for n in range(3)]
    assert script.out() == ([asked(dialect, b"0")], [], [])
    for n in range(3):
        script.hear(*answer(dialect, b"r%d" % n))
    assert script.out() == (
        [asked(dialect, b"1"), asked(dialect, b"2")],
        [Final(call, 200, [b"r%d" % n], b"") for n, call in enumerate(calls)],
        [],
    )


@STREAMING
def test_legacy_client_takes_parts_and_then_the_final(dialect: Dialect) -> None:
    script = connected(dialect)
    call = script.call()
    script.said()
    script.hear(*LEGACY[dialect].b2c_partial(b"echo", [b"1"]))
    script.hear(*LEGACY[dialect].b2c_partial(b"echo", [b"2", b"2"]))
    script.hear(*answer(dialect, b"end"))
    assert script.events() == [
        Part(call, [b"1"]),
        Part(call, [b"2", b"2"]),
        Final(call, 200, [b"end"], b""),
    ]


@ALL
def test_legacy_client_counts_messages_that_it_never_asked_for(dialect: Dialect) -> None:
    script = connected(dialect)
    script.hear(*answer(dialect, b"x"))
    assert script.out() == ([], [], [])
    assert script.session.late == 1


@NAMING
def test_legacy_client_does_not_take_the_answer_of_another_service(dialect: Dialect) -> None:
    script = connected(dialect)
    script.call()
    script.said()
    script.hear(*answer(dialect, b"x", service=b"other"))
    assert script.out() == ([], [], [])
    assert script.session.invalid == {"wrong-service": 1}


@ALL
@pytest.mark.parametrize("frames", [[], [b""], [b"", b""], [b"rubbish"], [mdp03.pack(spec.FINAL)]])
def test_legacy_client_counts_what_is_not_in_its_dialect(
    dialect: Dialect, frames: list[bytes]
) -> None:
    script = connected(dialect)
    script.call()
    script.said()
    script.hear(*frames)
    assert script.out() == ([], [], [])
    assert sum(script.session.invalid.values()) == 1


def test_delphi_client_drops_an_answer_with_a_wrong_hash() -> None:
    script = connected(Dialect.DELPHI)
    script.call()
    script.said()
    script.hear(*answer(Dialect.DELPHI, b"x")[:-1], b"\x00\x00\x00\x01")
    assert script.out() == ([], [], [])
    assert script.session.invalid == {"wrong-hash": 1}


@ALL
def test_legacy_call_that_times_out_renews_the_connection_for_its_answer_may_still_come(
    dialect: Dialect,
) -> None:
    script = connected(dialect, endpoints=2)
    first = script.call(b"1", ttl=1.0)
    second = script.call(b"2", ttl=9.0)
    script.said()
    script.pass_time(1.0)
    assert script.out() == ([], [Final(first, 408, [NO_ANSWER], b"")], [0])
    script.hear(*answer(dialect, b"1"))
    script.connect()
    assert script.out() == ([asked(dialect, b"2")], [], [])
    script.hear(*answer(dialect, b"2"))
    assert script.out() == ([], [Final(second, 200, [b"2"], b"")], [])
    assert script.session.late == 1


@ALL
def test_legacy_call_that_is_cancelled_in_flight_renews_the_connection(dialect: Dialect) -> None:
    script = connected(dialect)
    call = script.call()
    script.said()
    script.cancel(call)
    assert script.out() == ([], [Final(call, 499, [BY_CALLER], b"")], [0])


@ALL
def test_legacy_call_that_is_cancelled_before_its_turn_is_never_sent(dialect: Dialect) -> None:
    script = connected(dialect)
    script.call(b"1")
    second = script.call(b"2")
    script.call(b"3")
    script.cancel(second)
    script.hear(*answer(dialect))
    assert script.out()[0::2] == ([asked(dialect, b"1"), asked(dialect, b"3")], [])


@ALL
def test_legacy_call_that_times_out_before_its_turn_leaves_the_connection_alone(
    dialect: Dialect,
) -> None:
    script = connected(dialect)
    script.call(b"1", ttl=9.0)
    second = script.call(b"2", ttl=1.0)
    script.pass_time(2.0)
    assert script.out() == (
        [asked(dialect, b"1")],
        [Final(second, 408, [NO_ANSWER], b"")],
        [],
    )


@ALL
def test_legacy_call_is_sent_again_after_the_broker_is_lost(dialect: Dialect) -> None:
    script = connected(dialect, endpoints=2)
    calls = [script.call(b"1"), script.call(b"2")]
    script.cut()
    script.connect()
    assert script.out() == ([asked(dialect, b"1"), asked(dialect, b"1")], [], [1])
    for n in range(2):
        script.hear(*answer(dialect, b"r%d" % n))
    assert script.events() == [Final(call, 200, [b"r%d" % n], b"") for n, call in enumerate(calls)]


@ALL
def test_legacy_call_that_is_once_is_lost_with_its_broker(dialect: Dialect) -> None:
    script = connected(dialect)
    once, waiting = script.call(b"1", flags=spec.ONCE), script.call(b"2", flags=spec.ONCE)
    script.said()
    script.cut()
    script.connect()
    assert script.out() == ([asked(dialect, b"2")], [Lost(once)], [0])
    script.hear(*answer(dialect, b"2"))
    assert script.events() == [Final(waiting, 200, [b"2"], b"")]


@STREAMING
def test_legacy_call_whose_parts_were_delivered_is_lost_with_its_broker(dialect: Dialect) -> None:
    script = connected(dialect)
    call = script.call()
    script.said()
    script.hear(*LEGACY[dialect].b2c_partial(b"echo", [b"1"]))
    script.cut()
    assert script.out() == ([], [Part(call, [b"1"]), Lost(call)], [0])


@ALL
def test_legacy_one_way_message_waits_for_its_answer_and_reports_nothing(
    dialect: Dialect,
) -> None:
    script = connected(dialect)
    one_way = script.call(b"log", flags=spec.ONE_WAY)
    script.call(b"ask")
    assert script.out() == ([asked(dialect, b"log")], [], [])
    assert script.session.has_left(one_way)
    script.hear(*answer(dialect, b"ignored"))
    assert script.out() == ([asked(dialect, b"ask")], [], [])


@ALL
def test_legacy_call_that_the_socket_refused_is_tried_again(dialect: Dialect) -> None:
    script = connected(dialect)
    script.full = True
    script.call(b"1", flags=spec.ONCE)
    script.call(b"2")
    script.full = False
    script.pass_time(0.005)
    assert script.out() == ([asked(dialect, b"1")], [], [])


@ALL
def test_legacy_client_has_no_presence(dialect: Dialect) -> None:
    script = ClientScript(dialect=dialect, presence=True)
    script.session.set_presence(script.now)
    script.connect()
    script.pass_time(1000.0)
    script.close()
    assert script.out() == ([], [], [])


@ALL
@pytest.mark.parametrize(
    "options", [{"to": b"w"}, {"metadata": b"\x80"}, {"flags": spec.DURABLE}, {"service": b""}]
)
def test_legacy_call_cannot_use_features_that_the_dialect_lacks(
    dialect: Dialect, options: dict[str, Any]
) -> None:
    script = connected(dialect)
    with pytest.raises(LocalProtocolError):
        script.call(**options)
    assert script.out() == ([], [], [])


@ALL
def test_legacy_client_that_closes_cancels_what_it_has(dialect: Dialect) -> None:
    script = connected(dialect)
    calls = [script.call(b"1"), script.call(b"2")]
    script.said()
    script.close()
    assert script.out() == ([], [Final(call, 499, [BY_CALLER], b"") for call in calls], [])

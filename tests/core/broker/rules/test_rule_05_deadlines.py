"""Rule 5: a deadline is fixed when a request is accepted, and ends it wherever it is. What has
expired is never dispatched; every dispatch carries what is left, at least 1 ms."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from majordomus.protocol import metadata, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect
from tests.core.broker_harness import BrokerHarness, cancel, final, number, partial, welcome

C, V, W = b"client-c", b"worker-v", b"worker-w"
MakeHarness = Callable[..., BrokerHarness]


def test_request_without_a_ttl_gets_the_default(make_harness: MakeHarness) -> None:
    harness = make_harness(default_ttl=2.0)
    harness.worker(W)
    harness.sent()
    harness.request(C, 1)
    assert harness.messages() == [harness.request_to(W, 1, C, ttl=2000)]


@pytest.mark.parametrize("dialect", list(LEGACY))
def test_request_of_a_legacy_client_gets_the_default(
    make_harness: MakeHarness, dialect: Dialect
) -> None:
    harness = make_harness(default_ttl=2.0)
    harness.worker(W)
    harness.sent()
    harness.receive(C, *LEGACY[dialect].c2b_request(b"echo", [b"x"]))
    assert harness.messages() == [harness.request_to(W, 2, C, b"x", ttl=2000)]


def test_ttl_is_capped(make_harness: MakeHarness) -> None:
    harness = make_harness(max_ttl=10.0)
    harness.worker(W)
    harness.sent()
    harness.request(C, 1, ttl=4_294_967_295)
    assert harness.messages() == [harness.request_to(W, 1, C, ttl=10_000)]


@pytest.mark.parametrize("start", [0.0, 0.1, 1234.567, 8_640_000.3])
@pytest.mark.parametrize("ttl", [1, 7, 333, 5000, 59_999])
def test_ttl_at_once_is_told_as_it_was_given(
    harness: BrokerHarness, start: float, ttl: int
) -> None:
    """Whatever sums of floats say: 5 s are 5000 ms, not 4999 and not 5001."""
    harness.now = start
    harness.worker(W)
    harness.sent()
    harness.request(C, 1, ttl=ttl)
    assert harness.messages() == [harness.request_to(W, 1, C, ttl=ttl)]


def test_longest_ttl_of_the_wire_fits_when_it_is_allowed(make_harness: MakeHarness) -> None:
    harness = make_harness(max_ttl=4_294_967.295)
    harness.now = 0.1
    harness.worker(W)
    harness.sent()
    harness.request(C, 1, ttl=0xFFFFFFFF)
    assert harness.messages() == [harness.request_to(W, 1, C, ttl=0xFFFFFFFF)]


def test_dispatch_carries_what_is_left(harness: BrokerHarness) -> None:
    harness.request(C, 1, ttl=1000)
    harness.pass_time(0.75)
    harness.worker(W)
    assert harness.messages() == [welcome(W), harness.request_to(W, 1, C, ttl=250)]


def test_dispatch_carries_at_least_a_millisecond(harness: BrokerHarness) -> None:
    harness.request(C, 1, ttl=1000)
    harness.now += 0.9999
    harness.worker(W)
    assert harness.messages() == [welcome(W), harness.request_to(W, 1, C, ttl=1)]


def test_request_that_expired_in_the_queue_is_never_dispatched(harness: BrokerHarness) -> None:
    """The worker joins at the very moment of the deadline, before any tick."""
    harness.request(C, 1, ttl=1000)
    harness.now += 1.0
    harness.worker(W)
    text = b"'echo' did not answer within 1 s; it was in the queue"
    assert harness.messages() == [welcome(W), final(C, 1, text, status=408)]


def test_second_dispatch_does_not_move_the_deadline(harness: BrokerHarness) -> None:
    harness.worker(V)
    harness.request(C, 1, ttl=1000)
    harness.sent()
    harness.pass_time(0.6)
    harness.leave(V)
    harness.worker(W)
    second = {"flags": spec.BROKER_METADATA, "metadata": metadata.pack({"attempt": 2})}
    assert harness.messages() == [welcome(W), harness.request_to(W, 2, C, ttl=400, **second)]
    harness.pass_time(0.5)
    text = b"'echo' did not answer within 1 s; it was at a worker"
    assert harness.messages() == [cancel(W, 2), final(C, 1, text, status=408)]


def test_deadline_ends_a_stream(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.request(C, 1, ttl=1000)
    harness.part(W, number(1), b"part")
    harness.sent()
    harness.pass_time(1.1)
    text = b"'echo' did not answer within 1 s; it was at a worker"
    assert harness.messages() == [cancel(W, 1), final(C, 1, text, status=408)]
    harness.part(W, number(1), b"late")
    harness.answer(W, number(1))
    assert harness.messages() == []
    assert harness.counts.dropped == {}


def test_expiry_is_told_at_the_deadline_and_not_much_later(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.request(C, 1, ttl=1000)
    harness.sent()
    harness.pass_time(0.999)
    assert harness.messages() == []
    harness.pass_time(0.009)
    assert [word[1] for word in harness.messages()] == ["CANCEL", "FINAL"]


def test_expiry_is_503_when_no_worker_came(harness: BrokerHarness) -> None:
    harness.worker(W, b"time")
    harness.worker(V, b"date")
    harness.sent()
    harness.request(C, 1, ttl=500, service=b"ech0")
    harness.pass_time(0.6)
    text = b"no worker for service 'ech0' came within 0.5 s; serving now: date, time"
    assert harness.messages() == [final(C, 1, text, status=503)]


def test_long_wait_is_told_in_plain_seconds(harness: BrokerHarness) -> None:
    harness.request(C, 1, ttl=3_600_000)
    harness.pass_time(3601)
    text = b"no worker for service 'echo' came within 3600 s; no service is served now"
    assert harness.messages() == [final(C, 1, text, status=503)]


def test_expiry_is_408_when_a_worker_was_there_meanwhile(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.request(C, 1, ttl=60_000, flags=spec.ONE_WAY)
    harness.request(C, 2, ttl=500)
    harness.leave(W)
    harness.sent()
    harness.pass_time(0.6)
    text = b"'echo' did not answer within 0.5 s; it was in the queue"
    assert harness.messages() == [final(C, 2, text, status=408)]


def test_expiry_is_503_when_the_last_worker_left_before_the_request_came(
    harness: BrokerHarness,
) -> None:
    harness.worker(W)
    harness.request(C, 1, ttl=60_000, flags=spec.ONE_WAY)
    harness.leave(W)
    harness.sent()
    harness.pass_time(1)
    harness.request(C, 2, ttl=500)
    harness.pass_time(0.6)
    text = b"no worker for service 'echo' came within 0.5 s; no service is served now"
    assert harness.messages() == [final(C, 2, text, status=503)]


def test_more_than_ten_services_are_counted_and_not_named(harness: BrokerHarness) -> None:
    for n in range(12):
        harness.worker(b"worker-%d" % n, b"s%02d" % n)
    harness.sent()
    harness.request(C, 1, flags=spec.FAIL_FAST)
    named = b", ".join(b"s%02d" % n for n in range(10))
    text = b"no worker serves 'echo'; serving now: " + named + b" and 2 more"
    assert harness.messages() == [final(C, 1, text, status=503)]


def test_parts_of_an_expired_stream_are_not_joined_for_anyone(make_harness: MakeHarness) -> None:
    harness = make_harness(default_ttl=1.0)
    harness.worker(W)
    harness.receive(C, *LEGACY[Dialect.MDP01].c2b_request(b"echo", [b"x"]))
    harness.part(W, number(2), b"part")
    harness.sent()
    harness.pass_time(1.1)
    assert harness.messages() == [cancel(W, 2)]
    harness.answer(W, number(2), b"end")
    assert harness.messages() == []
    assert (harness.counts.expired, harness.counts.unanswered) == (1, 1)


def test_partial_word_is_what_a_stream_says(harness: BrokerHarness) -> None:
    """The parts before the deadline pass at once; nothing is held back until the end."""
    harness.worker(W)
    harness.request(C, 1, ttl=1000)
    harness.sent()
    harness.part(W, number(1), b"a")
    assert harness.messages() == [partial(C, 1, b"a")]

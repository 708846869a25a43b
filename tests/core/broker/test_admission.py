"""Rule 4: nothing is unbounded. A request beyond a limit is answered with 429 or 413, another
invalid one with 400, 404, 501 or 503. In legacy dialects it is counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from majordomus.core.broker.settings import BrokerSettings
from majordomus.errors import ConfigurationError
from majordomus.protocol import mdp03, metadata, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect
from tests.core.broker_harness import BrokerHarness, disconnect, final, number, partial, welcome

B, C, D, P, V, W = b"client-b", b"client-c", b"client-d", b"proxy-p", b"worker-v", b"worker-w"
MakeHarness = Callable[..., BrokerHarness]


def refused(harness: BrokerHarness) -> dict[int, int]:
    return dict(harness.counts.refused)


# 413


def test_body_of_too_many_frames_is_refused(make_harness: MakeHarness) -> None:
    harness = make_harness(max_frames=2)
    harness.request(C, 1, b"", b"", b"")
    text = b"3 frames or more; at most 2 are allowed"
    assert harness.messages() == [final(C, 1, text, status=413)]
    assert refused(harness) == {413: 1}


def test_body_of_too_many_bytes_is_refused(make_harness: MakeHarness) -> None:
    harness = make_harness(max_message=10)
    harness.worker(W)
    harness.sent()
    harness.request(C, 1, b"x" * 6, b"x" * 4)
    assert harness.messages() == [harness.request_to(W, 1, C, b"x" * 6, b"x" * 4)]
    harness.request(C, 2, b"x" * 6, b"x" * 5)
    assert harness.messages() == [
        final(C, 2, b"11 bytes or more; at most 10 are allowed", status=413)
    ]


@pytest.mark.parametrize("body", [[b"x" * 11], [b""] * 4])
def test_reply_that_is_too_large_fails_its_request_and_frees_the_slot(
    make_harness: MakeHarness, body: list[bytes]
) -> None:
    harness = make_harness(max_message=10, max_frames=3)
    harness.worker(W)
    harness.request(C, 1)
    harness.request(C, 2)
    harness.sent()
    harness.answer(W, number(1), *body)
    assert harness.messages() == [
        final(C, 1, b"the reply is larger than allowed", status=413),
        harness.request_to(W, 2, C),
    ]


def test_part_that_is_too_large_ends_the_stream(make_harness: MakeHarness) -> None:
    harness = make_harness(max_message=10)
    harness.worker(W)
    harness.request(C, 1)
    harness.sent()
    harness.part(W, number(1), b"x" * 10)
    harness.part(W, number(1), b"x" * 11)
    harness.part(W, number(1), b"late")
    harness.answer(W, number(1))
    assert harness.messages() == [
        partial(C, 1, b"x" * 10),
        (W, "CANCEL", {"id": number(1)}, []),
        final(C, 1, b"a part is larger than allowed", status=413),
    ]


@pytest.mark.parametrize("dialect", [Dialect.MDP02, Dialect.MDP02D])
def test_part_of_a_legacy_worker_that_is_too_large_ends_the_stream(
    make_harness: MakeHarness, dialect: Dialect
) -> None:
    harness = make_harness(max_message=10)
    codec = LEGACY[dialect]
    harness.receive(W, *codec.w2b_ready(b"echo"))
    harness.request(C, 1)
    harness.sent()
    address = b"%016x" % number(1)
    harness.receive(W, *codec.w2b_partial(b"echo", address, [b"x" * 11]))
    assert harness.messages() == [final(C, 1, b"a part is larger than allowed", status=413)]
    harness.request(C, 2, b"y")
    assert harness.messages() == []
    harness.receive(W, *codec.w2b_final(b"echo", address, [b"x" * 11]))
    assert [word[:3] for word in harness.messages()] == [(W, *codec.b2w_request(b"z", [b""])[:2])]


@pytest.mark.parametrize("dialect", [Dialect.MDP01, Dialect.DELPHI])
@pytest.mark.parametrize(
    "parts", [[[b"x" * 6], [b"x" * 5]], [[b""] * 3, [b""]]], ids=["bytes", "frames"]
)
def test_joined_parts_are_bounded_like_any_reply(
    make_harness: MakeHarness, dialect: Dialect, parts: list[list[bytes]]
) -> None:
    harness = make_harness(max_message=10, max_frames=3, legacy_errors="reply")
    codec = LEGACY[dialect]
    harness.worker(W)
    harness.receive(C, *codec.c2b_request(b"echo", [b"x"]))
    harness.sent()
    for part in parts:
        harness.part(W, number(2), *part)
    text = b"the joined parts are too large for one reply"
    assert harness.messages() == [
        (W, "CANCEL", {"id": number(2)}, []),
        (C, *codec.b2c_final(b"echo", [b"413", text])),
    ]


@pytest.mark.parametrize("last", [[b"x" * 5], [b"", b"", b""]], ids=["bytes", "frames"])
def test_final_that_makes_joined_parts_too_large_fails_the_request(
    make_harness: MakeHarness, last: list[bytes]
) -> None:
    harness = make_harness(max_message=10, max_frames=3, legacy_errors="reply")
    codec = LEGACY[Dialect.MDP01]
    harness.worker(W)
    harness.receive(C, *codec.c2b_request(b"echo", [b"x"]))
    harness.sent()
    harness.part(W, number(2), b"x" * 6)
    harness.answer(W, number(2), *last)
    text = b"the joined parts are too large for one reply"
    assert harness.messages() == [(C, *codec.b2c_final(b"echo", [b"413", text]))]


def test_metadata_beyond_their_bound_are_refused_413(harness: BrokerHarness) -> None:
    header = mdp03.pack(
        spec.REQUEST, spec.METADATA, id=1, service=b"echo", metadata=metadata.pack({})
    )
    harness.receive(C, header + b"x" * spec.MAX_METADATA)
    assert harness.messages() == [
        final(C, 1, b"at most 4096 bytes of metadata are allowed", status=413)
    ]
    assert harness.counts.dropped == {"long-metadata": 1}


def test_metadata_beyond_their_bound_are_only_counted_where_no_answer_is_due(
    harness: BrokerHarness,
) -> None:
    harness.request(C, 3)
    for fields in ({"id": 0}, {"id": 2, "more": spec.ONE_WAY}, {"id": 3}):
        flags = spec.METADATA | fields.pop("more", 0)
        header = mdp03.pack(spec.REQUEST, flags, service=b"echo", metadata=b"\x80", **fields)
        harness.receive(C, header + b"x" * spec.MAX_METADATA)
    harness.receive(C, mdp03.pack(spec.CANCEL, spec.METADATA, id=9, metadata=b"\x80") + b"x" * 4096)
    assert harness.messages() == []
    assert harness.counts.dropped == {"long-metadata": 4}


# 429


def test_client_with_too_many_open_conversations_is_refused(make_harness: MakeHarness) -> None:
    harness = make_harness(max_open=2)
    for id in (1, 2, 3):
        harness.request(C, id)
    harness.request(D, 1)
    assert harness.messages() == [final(C, 3, b"2 conversations are open already", status=429)]
    harness.receive_03(C, spec.CANCEL, id=1)
    harness.sent()
    harness.request(C, 4)
    assert harness.messages() == []


QUEUE_LIMITS = {
    "max_service_queue": (2, b"2 requests wait for service 'echo' already"),
    "max_service_queue_bytes": (9, b"8 bytes wait for service 'echo' already"),
    "max_client_queue": (2, b"2 requests of this client wait already"),
    "max_client_queue_bytes": (9, b"8 bytes of this client wait already"),
    "max_queue": (2, b"2 requests wait at this broker already"),
    "max_queue_bytes": (9, b"8 bytes wait at this broker already"),
}


@pytest.mark.parametrize("limit", QUEUE_LIMITS)
def test_queue_is_bounded(make_harness: MakeHarness, limit: str) -> None:
    """Three requests of four bytes each, and a bound that two of them reach exactly."""
    value, text = QUEUE_LIMITS[limit]
    harness = make_harness(**{limit: value})
    for id in (1, 2, 3):
        harness.request(C, id, b"four")
    assert harness.messages() == [final(C, 3, text, status=429)]
    harness.receive_03(C, spec.CANCEL, id=1)
    harness.sent()
    harness.request(C, 4, b"four")
    assert harness.messages() == []


OTHERS = {
    "max_service_queue": {"service": b"time"},
    "max_service_queue_bytes": {"service": b"time"},
    "max_client_queue": {"peer": D},
    "max_client_queue_bytes": {"peer": D},
}


@pytest.mark.parametrize("limit", OTHERS)
def test_bound_of_one_queue_does_not_touch_another(make_harness: MakeHarness, limit: str) -> None:
    harness = make_harness(**{limit: QUEUE_LIMITS[limit][0]})
    for id in (1, 2):
        harness.request(C, id, b"four")
    other: dict[str, Any] = dict(OTHERS[limit])
    harness.request(other.pop("peer", C), 3, b"four", **other)
    assert harness.messages() == []


def test_requests_for_one_worker_alone_are_bounded_too(make_harness: MakeHarness) -> None:
    harness = make_harness(max_service_queue=2)
    harness.worker(W)
    harness.sent()
    for id in (1, 2, 3, 4):
        harness.request(C, id, address=W)
    assert harness.messages() == [
        harness.request_to(W, 1, C),
        final(C, 4, b"2 requests wait for service 'echo' already", status=429),
    ]


def test_full_queue_is_no_bound_while_a_worker_is_free(make_harness: MakeHarness) -> None:
    harness = make_harness(max_queue=0)
    harness.worker(W)
    harness.sent()
    harness.request(C, 1)
    harness.request(C, 2)
    assert harness.messages() == [
        harness.request_to(W, 1, C),
        final(C, 2, b"0 requests wait at this broker already", status=429),
    ]


def test_envelopes_behind_one_routing_id_share_its_bounds(make_harness: MakeHarness) -> None:
    harness = make_harness(max_open=1)
    for envelope in (b"x", b"y"):
        harness.receive(P, envelope, mdp03.pack(spec.REQUEST, id=1, service=b"echo"))
    assert harness.sent() == [
        (P, [b"y", mdp03.pack(spec.FINAL, code=429, id=1), b"1 conversations are open already"])
    ]


def test_services_are_bounded(make_harness: MakeHarness) -> None:
    harness = make_harness(max_services=2)
    harness.worker(W, b"a")
    harness.request(C, 1, service=b"b", ttl=1000)
    harness.sent()
    harness.request(C, 2, service=b"c")
    assert harness.messages() == [final(C, 2, b"2 services are known already", status=429)]
    harness.worker(V, b"c")
    text = "no room for 'c': the broker has 2 services"
    assert harness.messages() == [disconnect(V, 429, text, "c")]
    harness.request(C, 3, service=b"mmi.service")
    assert harness.messages() == [final(C, 3, b"400")]
    harness.pass_time(1.1)
    harness.sent()
    harness.worker(V, b"c")
    assert harness.messages() == [welcome(V)]


def test_services_of_a_worker_are_bounded(make_harness: MakeHarness) -> None:
    harness = make_harness(max_worker_services=2)
    for service in (b"a", b"b", b"a"):
        harness.worker(W, service)
    assert harness.messages() == [welcome(W)]
    harness.worker(W, b"c")
    text = "no room for 'c': a worker has 2 services"
    assert harness.messages() == [disconnect(W, 429, text, "c")]
    assert harness.counts.dropped == {"too-many-services-of-a-worker": 1}


def test_peers_are_bounded(make_harness: MakeHarness) -> None:
    harness = make_harness(max_peers=2)
    harness.request(B, 1)
    harness.request(C, 1)
    harness.request(D, 1)
    harness.request(D, 0, flags=spec.ONE_WAY)
    harness.receive_03(D, spec.CANCEL, id=1)
    text = b"this broker has reached its limit of peers"
    assert harness.messages() == [final(D, 1, text, status=429)]
    harness.worker(W)
    harness.receive_03(D, spec.HELLO)
    assert harness.messages() == [disconnect(W), disconnect(D)]
    harness.receive(D, *LEGACY[Dialect.MDP01].c2b_request(b"echo", [b"x"]))
    assert harness.messages() == []
    assert harness.counts.dropped == {"too-many-peers": 6}
    assert refused(harness) == {429: 1}
    harness.leave(B)
    harness.request(D, 2)
    assert harness.messages() == []


# 400


@pytest.mark.parametrize(
    ("name", "text"),
    [(b"", b"a service needs a name"), (b"\xff", b"the name of a service must be UTF-8")],
)
def test_bad_name_of_a_service_is_refused(harness: BrokerHarness, name: bytes, text: bytes) -> None:
    harness.request(C, 1, service=name)
    assert harness.messages() == [final(C, 1, text, status=400)]


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        (b"\xc1", b"metadata: bad-metadata"),
        (b"\x91\x01", b"metadata: bad-metadata"),
        (b"\x80\x80", b"metadata: bad-metadata"),
        (b"\x81\xa1a\x81\xa1a\x81\xa1a\x81\xa1a\x80", b"metadata: deep-metadata"),
    ],
)
def test_malformed_metadata_are_refused(
    harness: BrokerHarness, field: bytes, reason: bytes
) -> None:
    harness.request(C, 1, flags=spec.METADATA, metadata=field)
    (word,) = harness.messages()
    assert word[:3] == (C, "FINAL", {"code": 400, "id": 1})
    assert word[3][0].startswith(reason)


@pytest.mark.parametrize("also", [0, spec.METADATA])
def test_forged_broker_metadata_are_refused(harness: BrokerHarness, also: int) -> None:
    forged = metadata.pack({"user": "root"}) + (b"\x80" if also else b"")
    harness.request(C, 1, flags=spec.BROKER_METADATA | also, metadata=forged)
    text = b"only a broker may send broker metadata"
    assert harness.messages() == [final(C, 1, text, status=400)]


# 404


def test_request_for_an_unknown_worker_is_answered_404(harness: BrokerHarness) -> None:
    harness.worker(W, b"time")
    harness.sent()
    harness.request(C, 1, address=b"\x0a\x01")
    harness.request(C, 2, address=W)
    assert harness.messages() == [
        final(C, 1, b"no worker 0a01 serves 'echo'", status=404),
        final(C, 2, b"no worker 776f726b65722d77 serves 'echo'", status=404),
    ]


def test_request_for_one_worker_goes_to_that_one_and_waits_for_it_alone(
    harness: BrokerHarness,
) -> None:
    harness.worker(V)
    harness.worker(W)
    harness.sent()
    harness.request(C, 1, address=W)
    harness.request(C, 2, address=W)
    assert harness.messages() == [harness.request_to(W, 1, C)]
    harness.answer(W, number(1))
    assert harness.messages() == [final(C, 1, worker=W), harness.request_to(W, 2, C)]


# 501


@pytest.mark.parametrize(
    ("flag", "what"),
    [
        (spec.CRITICAL, b"a flag that this broker does not know"),
        (spec.DURABLE, b"this broker has no store for durable requests"),
    ],
)
def test_request_with_an_unimplemented_flag_is_refused(
    harness: BrokerHarness, flag: int, what: bytes
) -> None:
    harness.worker(W)
    harness.sent()
    harness.request(C, 1, flags=flag)
    assert harness.messages() == [final(C, 1, b"not implemented: " + what, status=501)]


# 503


def test_fail_fast_does_not_wait_for_a_worker(harness: BrokerHarness) -> None:
    harness.worker(W, b"time")
    harness.sent()
    harness.request(C, 1, flags=spec.FAIL_FAST)
    text = b"no worker serves 'echo'; serving now: time"
    assert harness.messages() == [final(C, 1, text, status=503)]
    assert set(harness.machine.registry.services) == {b"time"}


def test_fail_fast_waits_for_a_busy_worker(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.request(C, 1)
    harness.sent()
    harness.request(C, 2, flags=spec.FAIL_FAST)
    assert harness.messages() == []
    harness.answer(W, number(1))
    assert harness.messages() == [final(C, 1, worker=W), harness.request_to(W, 2, C)]


def test_fail_fast_does_not_wait_for_a_worker_that_drains(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.receive_03(W, spec.CAPACITY, code=0)
    harness.sent()
    harness.request(C, 1, flags=spec.FAIL_FAST)
    text = b"every worker of 'echo' drains; no service is served now"
    assert harness.messages() == [final(C, 1, text, status=503)]


def test_fail_fast_that_waited_fails_when_the_last_worker_leaves(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.request(C, 1)
    harness.request(C, 2, flags=spec.FAIL_FAST)
    harness.request(C, 3)
    harness.sent()
    harness.leave(W)
    text = b"no worker serves 'echo'; no service is served now"
    assert harness.messages() == [final(C, 2, text, status=503)]


def test_draining_broker_refuses_new_requests_and_still_answers_about_itself(
    harness: BrokerHarness,
) -> None:
    harness.machine.drain(harness.now)
    harness.request(C, 1)
    harness.request(C, 2, b"echo", service=b"mmi.service")
    assert harness.messages() == [
        final(C, 1, b"the broker is draining", status=503),
        final(C, 2, b"404"),
    ]


# requests that are not answered


def test_one_way_request_that_is_refused_is_counted_and_not_answered(
    make_harness: MakeHarness,
) -> None:
    harness = make_harness(max_message=10, max_open=0)
    harness.request(C, 1, b"x" * 11, flags=spec.ONE_WAY)
    harness.request(C, 0, b"x", flags=spec.ONE_WAY)
    assert harness.messages() == []
    assert harness.counts.unanswered == 2


@pytest.mark.parametrize("dialect", list(LEGACY))
def test_legacy_request_that_is_refused_is_counted(
    make_harness: MakeHarness, dialect: Dialect
) -> None:
    harness = make_harness(max_message=10)
    harness.receive(C, *LEGACY[dialect].c2b_request(b"echo", [b"x" * 11]))
    assert harness.messages() == []
    assert (refused(harness), harness.counts.unanswered) == ({413: 1}, 1)


@pytest.mark.parametrize("dialect", list(LEGACY))
def test_legacy_request_that_is_refused_is_answered_where_that_is_set(
    make_harness: MakeHarness, dialect: Dialect
) -> None:
    harness = make_harness(max_message=10, legacy_errors="reply")
    codec = LEGACY[dialect]
    harness.receive(C, *codec.c2b_request(b"echo", [b"x" * 11]))
    text = b"11 bytes or more; at most 10 are allowed"
    assert harness.messages() == [(C, *codec.b2c_final(b"echo", [b"413", text]))]


# settings

ALL_STRATEGIES = (
    "least-load, least-outstanding, least-recently-used, random-two, round-robin, sticky"
)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (
            {"balancing": "best"},
            f"balancing = 'best' is not one of: {ALL_STRATEGIES}",
        ),
        (
            {"balancings": {"echo": "Sticky"}},
            f"balancings.echo = 'Sticky' is not one of: {ALL_STRATEGIES}",
        ),
        ({"legacy_errors": "no"}, "legacy_errors = 'no' is not one of: silence, reply"),
    ],
)
def test_setting_with_an_unknown_choice_is_named_in_the_error(
    wrong: dict[str, str], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        BrokerHarness(**wrong)


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_queue", "x"), ("max_queue", True), ("max_message", 1.5), ("default_ttl", "2")],
)
def test_setting_of_another_type_is_refused_when_it_is_made(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} = .* must be a"):
        BrokerSettings(**{name: value})  # type: ignore[arg-type]


def test_every_limit_is_a_setting_with_a_default() -> None:
    limits = {name for name in BrokerSettings.__struct_fields__ if name.startswith("max_")}
    assert limits == {
        "max_retry_delay", "max_durable_attempts", "max_durable",
        "max_ttl", "max_attempts", "max_frames", "max_message", "max_peers", "max_services",
        "max_worker_services", "max_open", "max_queue", "max_queue_bytes", "max_service_queue",
        "max_service_queue_bytes", "max_client_queue", "max_client_queue_bytes", "max_outbox",
        "max_outbox_bytes", "max_topic", "max_topic_tokens", "max_client_topics", "max_topics",
        "max_sessions", "max_answered", "max_outboxes_bytes", "max_address_connections",
        "max_address_handshakes", "max_stories", "max_unfinished_bytes",
        "max_held_bytes", "max_user_bytes", "max_peer_bytes", "max_unsent_bytes",
        "max_topic_wildcards", "max_user_topics",
    }  # fmt: skip
    assert all(getattr(BrokerSettings(), name) > 0 for name in limits)


@pytest.mark.parametrize(
    ("setting", "value", "text"),
    [
        ("liveness", 0, "liveness = 0 must be from 1 to 2147483647"),
        ("client_idle", float("inf"), "client_idle = inf must be from 0.001 to 3153600000"),
        ("worker_interval", -1.0, "worker_interval = -1 must be from 0.001 to 3153600000"),
        ("max_ttl", 4.3e6, "max_ttl = 4300000 must be from 0.001 to 4294967.295"),
        ("default_ttl", float("nan"), "default_ttl = nan must be from 0.001 to 3153600000"),
        ("busy_timeouts", {"slow": 0.0}, "busy_timeouts.slow = 0 must be from 0.001 to 3153600000"),
        ("legacy_errors", "loud", "legacy_errors = 'loud' is not one of: silence, reply"),
    ],
)
def test_setting_out_of_bounds_is_refused(setting: str, value: object, text: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        BrokerSettings(**{setting: value})  # type: ignore[arg-type]
    assert str(refused.value) == text

"""docs/spec/mdp-0.3.md: names that start with `mmi.` are answered by the broker, in every dialect.

The answer's own status is body frame 0. The status in the header is that of the request.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from majordomus.core.broker import mmi
from majordomus.core.broker.state.registry import RULES
from majordomus.protocol import spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect
from tests.core.broker_harness import BrokerHarness, final, number

C, V, W = b"client-c", b"worker-v", b"worker-w"


def asked(harness: BrokerHarness, name: bytes, *body: bytes) -> list[bytes]:
    """The body of the answer to an MDP/0.3 client."""
    harness.sent()
    harness.request(C, 1, *body, service=name)
    (word,) = harness.messages()
    assert word[:3] == (C, "FINAL", {"code": 200, "id": 1})
    return list(word[3])


def data(harness: BrokerHarness, name: bytes, *body: bytes) -> Any:
    status, text = asked(harness, name, *body)
    assert status == b"200"
    return json.loads(text)


def test_service_that_a_live_worker_serves_is_200_and_any_other_404(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.request(C, 7, service=b"wanted")
    assert asked(harness, b"mmi.service", b"echo") == [b"200"]
    assert asked(harness, b"mmi.service", b"wanted") == [b"404"]
    assert asked(harness, b"mmi.service", b"\xff") == [b"404"]
    harness.leave(W)
    assert asked(harness, b"mmi.service", b"echo") == [b"404"]


def test_service_query_without_a_name_is_400(harness: BrokerHarness) -> None:
    assert asked(harness, b"mmi.service") == [b"400"]
    assert asked(harness, b"mmi.service", b"") == [b"400"]


@pytest.mark.parametrize("name", [b"mmi.", b"mmi.nothing", b"mmi.service.more"])
def test_unknown_name_is_501(harness: BrokerHarness, name: bytes) -> None:
    assert asked(harness, name, b"echo") == [b"501"]


@pytest.mark.parametrize("dialect", list(LEGACY))
def test_management_is_reached_by_every_dialect(harness: BrokerHarness, dialect: Dialect) -> None:
    codec = LEGACY[dialect]
    harness.worker(W)
    harness.sent()
    for name in (b"echo", b"time"):
        harness.receive(C, *codec.c2b_request(b"mmi.service", [name]))
    harness.receive(C, *codec.c2b_request(b"mmi.nothing", [b""]))
    assert harness.messages() == [
        (C, *codec.b2c_final(b"mmi.service", [b"200"])),
        (C, *codec.b2c_final(b"mmi.service", [b"404"])),
        (C, *codec.b2c_final(b"mmi.nothing", [b"501"])),
    ]


def test_services_lists_services_with_workers_or_queued_requests(harness: BrokerHarness) -> None:
    harness.worker(W, capacity=1)
    harness.request(C, 2, b"x")
    harness.request(C, 3, b"four")
    harness.answer(W, number(1))
    harness.request(C, 4, b"waits", service=b"time")
    none = {"workers": 0, "queued": 0, "queued_bytes": 0, "open": 0, "answered": 0, "took": []}
    assert data(harness, b"mmi.services") == [
        {"service": "echo", **none, "workers": 1, "open": 1, "answered": 1, "took": [1]},
        {"service": "time", **none, "queued": 1, "queued_bytes": 5, "open": 1},
    ]


def test_workers_lists_all_workers_or_those_of_one_service(harness: BrokerHarness) -> None:
    harness.worker(W, b"echo", capacity=3)
    harness.worker(W, b"time", capacity=3)
    harness.receive(V, *LEGACY[Dialect.MDP01].w2b_ready(b"date"))
    harness.request(C, 9)
    harness.pass_time(1)
    harness.receive_03(W, spec.HEARTBEAT, code=42)
    harness.receive_03(W, spec.CAPACITY, code=0)
    of_w = {
        "id": W.hex(),
        "services": ["echo", "time"],
        "dialect": "mdp03",
        "state": "draining",
        "capacity": 3,
        "held": 1,
        "load": 0.42,
        "silent": 0.0,
    }
    of_v = {
        "id": V.hex(),
        "services": ["date"],
        "dialect": "mdp01",
        "state": "serving",
        "capacity": 1,
        "held": 0,
        "load": None,
        "silent": 1.0,
    }
    assert data(harness, b"mmi.workers") == [of_w, of_v]
    assert data(harness, b"mmi.workers", b"time") == [of_w]
    assert data(harness, b"mmi.workers", b"none") == []


def test_broker_describes_itself(harness: BrokerHarness) -> None:
    harness.machine.begin("1.2.3", "pyzmq", harness.now)
    harness.worker(W)
    harness.request(C, 2)
    harness.request(C, 3, b"four")
    harness.pass_time(1.5)
    assert data(harness, b"mmi.broker") == {
        "name": "harness",
        "version": "1.2.3",
        "wire": "pyzmq",
        "rules": RULES,
        "uptime": 1.5,
        "restarts": 0,
        "draining": False,
        "peers": 2,
        "workers": 1,
        "services": 1,
        "open": 3,
        "queued": 1,
        "queued_bytes": 4,
        "subscriptions": 0,
        "sessions": 0,
    }


def test_stats_have_every_counter(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.request(C, 2)
    harness.answer(W, number(1))
    harness.request(C, 3, flags=spec.DURABLE)
    harness.receive(C, b"rubbish")
    assert data(harness, b"mmi.stats") == {
        "accepted": 2,
        "answered": 1,
        "failed": 0,
        "expired": 0,
        "cancelled": 0,
        "dispatched": 1,
        "retried": 0,
        "rejected": 0,
        "parts": 0,
        "unanswered": 0,
        "pushed": 0,
        "published": 0,
        "delivered": 0,
        "undelivered": 0,
        "refused": {"501": 1},
        "dropped": {"unrecognised": 1},
        "contract_conflicts": 0,
        "handshakes_refused": {},
        "account": {
            "held": 2 * 1024 + 1024 + 1024 + 512 + 4,
            "most": 768 << 20,
            "requests": 1024,
            "outboxes": 0,
            "subscriptions": 0,
            "workers": 1024 + 512 + 4,
            "peers": 2 * 1024,
            "stories": 0,
        },
    }


def test_management_name_is_not_registered_as_a_service(harness: BrokerHarness) -> None:
    asked(harness, b"mmi.broker")
    assert harness.machine.registry.services == {}
    assert harness.machine.drained


def test_one_way_query_is_not_answered(harness: BrokerHarness) -> None:
    harness.request(C, 0, service=b"mmi.broker", flags=spec.ONE_WAY)
    assert harness.messages() == []
    assert harness.counts.answered == 1


def test_fail_fast_query_needs_no_worker(harness: BrokerHarness) -> None:
    harness.request(C, 1, service=b"mmi.none", flags=spec.FAIL_FAST)
    assert harness.messages() == [final(C, 1, b"501")]


def test_query_that_names_a_worker_is_404(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.sent()
    harness.request(C, 1, service=b"mmi.broker", address=W)
    text = f"no worker {W.hex()} serves 'mmi.broker'".encode()
    assert harness.messages() == [final(C, 1, text, status=404)]


# pages


def pages(harness: BrokerHarness, name: bytes, argument: bytes = b"") -> list[list[Any]]:
    """The rows of each page."""
    found: list[list[Any]] = []
    cursor: list[bytes] = []
    while True:
        harness.request(C, 1, argument, *cursor, service=name)
        ((_, _, status, body),) = harness.finals()
        assert (status, body[0]) == (200, b"200")
        found.append(json.loads(body[1]))
        if len(body) == 2:
            return found
        cursor = [body[2]]


def test_services_come_in_pages(harness: BrokerHarness) -> None:
    names = sorted(b"service-%d" % n for n in range(1500))
    for n, name in enumerate(names):
        harness.worker(b"worker-%d" % (n // 500), name)
    harness.sent()
    got = pages(harness, b"mmi.services")
    assert [row["service"].encode() for page in got for row in page] == names
    assert len(got) > 1
    assert all(len(json.dumps(page)) < 90_000 for page in got)


def test_workers_come_in_pages_of_all_or_of_one_service(harness: BrokerHarness) -> None:
    ids = [b"worker-%d" % n for n in range(1000)]
    for id in ids:
        harness.worker(id, b"echo")
    harness.worker(ids[0], b"time")
    harness.sent()
    for argument in (b"", b"echo"):
        got = pages(harness, b"mmi.workers", argument)
        assert [bytes.fromhex(row["id"]) for page in got for row in page] == ids
        assert len(got) > 1
    assert len(pages(harness, b"mmi.workers", b"time")) == 1


@pytest.mark.parametrize("cursor", [b"x", b"-1", b"9" * 20])
def test_invalid_cursor_is_answered_with_400(harness: BrokerHarness, cursor: bytes) -> None:
    harness.request(C, 1, b"", cursor, service=b"mmi.workers")
    assert harness.finals() == [(C, 1, 200, [b"400"])]


def test_tenant_s_question_looks_at_a_bounded_number_of_workers(
    harness: BrokerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mmi, "MOST_LOOKED_AT", 3)
    registry = harness.machine.registry
    for n in range(10):
        harness.worker(b"worker-%d" % n, b"acme.echo" if n in (4, 9) else b"echo")
    first = mmi.answer(registry, b"mmi.workers", [], harness.now, b"acme.")
    assert first == [b"200", b"[]", b"3"]
    second = mmi.answer(registry, b"mmi.workers", [b"", b"3"], harness.now, b"acme.")
    assert [row["services"] for row in json.loads(second[1])] == [["echo"]]
    assert second[2] == b"6"

"""`mmi.metrics`: what the broker counts, in sections and pages (docs/spec/mdp-0.3.md, 17.1)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from majordomus.core.broker.durable.records import StoreState
from majordomus.core.broker.snapshot import MOST_PEERS, MOST_SERVICES
from majordomus.core.broker.state.access_rules import CALL, MANAGE, SERVE, AccessRules, Rule
from majordomus.core.broker.state.times import BOXES, Times, times_of
from majordomus.protocol import spec
from tests.core.broker_harness import BrokerHarness, number
from tests.core.durable_harness import DurableHarness

C, D, V, W = b"client-c", b"client-d", b"worker-v", b"worker-w"
SPEC = (Path(__file__).parents[3] / "docs" / "spec" / "mdp-0.3.md").read_text("utf-8")
EXAMPLES = dict(re.findall(r"^```snapshot (\w+)\n(.*?)\n```$", SPEC, re.MULTILINE | re.DOTALL))
NAME = b"mmi.metrics"


def asked(harness: BrokerHarness, *body: bytes, peer: bytes = C) -> list[bytes]:
    """The body of the answer to a question."""
    harness.sent()
    harness.request(peer, 1, *body, service=NAME)
    (word,) = harness.messages()
    assert word[:3] == (peer, "FINAL", {"code": 200, "id": 1})
    return list(word[3])


def section(harness: BrokerHarness, name: bytes) -> Any:
    status, text = asked(harness, name)
    assert status == b"200"
    return json.loads(text)


def rows(harness: BrokerHarness, name: bytes) -> tuple[list[Any], int]:
    """All rows of a section, and the number of its pages."""
    found: list[Any] = []
    pages, cursor = 0, []
    while True:
        status, text, *cursor = asked(harness, name, *cursor)
        assert status == b"200"
        found += json.loads(text)["rows"]
        pages += 1
        if not cursor:
            return found, pages


def scenario(harness: BrokerHarness) -> None:
    """The calls that the examples of the specification are about."""
    harness.worker(W, capacity=1)
    harness.request(C, 2, b"x")
    harness.pass_time(0.25)
    harness.request(C, 3, b"four")
    harness.pass_time(0.25)
    harness.answer(W, number(1))
    harness.pass_time(0.5)
    harness.answer(W, number(2))
    harness.request(C, 4, b"waits", service=b"time")


def test_tenant_gets_its_own_services_and_workers_and_no_other_section(
    harness: BrokerHarness,
) -> None:
    rule = Rule(True, frozenset([MANAGE, CALL, SERVE]))
    harness.machine.set_rights(AccessRules([rule], {"acme": "acme."}), harness.now)
    harness.machine.identify(D, "ann", ("acme",), harness.now)
    harness.machine.identify(V, "bob", ("acme",), harness.now)
    harness.worker(V, b"mine")
    harness.worker(W, b"theirs")
    answers = {name: asked(harness, name, peer=D) for name in (b"services", b"workers")}
    assert [row[0] for row in json.loads(answers[b"services"][1])["rows"]] == ["mine"]
    assert [row[1] for row in json.loads(answers[b"workers"][1])["rows"]] == [["mine"]]
    for name in (b"broker", b"clients", b""):
        assert asked(harness, name, peer=D) == [b"403"]


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_section_is_that_of_the_specification(harness: BrokerHarness, name: str) -> None:
    scenario(harness)
    assert asked(harness, name.encode()) == [b"200", EXAMPLES[name].encode()]


def test_every_list_has_an_example_in_the_specification() -> None:
    assert set(EXAMPLES) == {"services", "workers", "clients"}


def test_broker_section_has_state_counts_and_what_its_process_uses(harness: BrokerHarness) -> None:
    harness.machine.begin(
        "1.2.3", "zmtp", harness.now, 2, lambda: {"unsent": 5}, lambda: {"cpu": 0.5, "pid": 7}
    )
    scenario(harness)
    found = section(harness, b"broker")
    assert {key: found[key] for key in ("v", "name", "version", "wire", "uptime", "restarts")} == {
        "v": 1,
        "name": "harness",
        "version": "1.2.3",
        "wire": "zmtp",
        "uptime": 1.0,
        "restarts": 2,
    }
    assert found["draining"] is False
    assert found["now"] == {
        "peers": 2,
        "workers": 1,
        "services": 2,
        "open": 1,
        "queued": 1,
        "queued_bytes": 5,
        "subscriptions": 0,
        "sessions": 0,
        "contract_conflicts": 0,
    }
    assert (found["counts"]["accepted"], found["counts"]["answered"]) == (3, 2)
    assert found["process"] == {"cpu": 0.5, "pid": 7}
    assert found["account"]["unsent"] == 5
    assert section(harness, b"")["now"] == found["now"]


def test_questions_are_counted_as_asked_and_nowhere_else(harness: BrokerHarness) -> None:
    scenario(harness)
    before = section(harness, b"broker")
    rows(harness, b"services")
    harness.request(C, 1, service=b"mmi.stats")
    after = section(harness, b"broker")
    assert after["counts"].pop("asked") - before["counts"].pop("asked") == 3
    assert after == before


def test_unknown_section_is_404_and_an_invalid_cursor_400(harness: BrokerHarness) -> None:
    assert asked(harness, b"secrets") == [b"404"]
    for cursor in (b"x", b"-1", b"9" * 5000, "٣".encode()):
        assert asked(harness, b"workers", cursor) == [b"400"]


def test_request_that_waits_counts_in_all_three_histograms(harness: BrokerHarness) -> None:
    scenario(harness)
    times = times_of(harness.machine.registry.services[b"echo"])
    assert (times.queue_seconds, times.service_seconds, times.total_seconds) == (0.25, 1.0, 1.25)
    assert [sum(one) for one in (times.queue, times.service, times.total)] == [2, 2, 2]
    assert times.queue[0] == 1, "the first request got its worker at once"


def test_retried_request_counts_from_its_last_dispatch(harness: BrokerHarness) -> None:
    harness.worker(W, capacity=1)
    harness.request(C, 2, b"x")
    harness.pass_time(1.0)
    harness.leave(W)
    harness.worker(b"worker-v", capacity=1)
    harness.pass_time(0.5)
    harness.answer(b"worker-v", number(2))
    times = times_of(harness.machine.registry.services[b"echo"])
    assert (times.queue_seconds, times.service_seconds) == (1.0, 0.5)


def test_requests_that_end_without_an_answer_are_counted_by_their_outcome(
    harness: BrokerHarness,
) -> None:
    harness.worker(W, capacity=1)
    harness.request(C, 2, b"x")
    harness.answer(W, number(1), status=500)
    harness.request(C, 3, b"x")
    harness.request(C, 4, b"x", ttl=1000)
    harness.receive_03(C, spec.CANCEL, id=3)
    harness.pass_time(1.5)
    ((_, *fields),) = section(harness, b"services")["rows"]
    assert fields[4:8] == [0, 1, 1, 1]
    queue, service, _total = fields[8:]
    assert sum(queue[2:]) == 3, "the expired request has waited, too"
    assert sum(service[2:]) == 2


def test_times_of_a_forgotten_service_are_kept_in_sum(harness: BrokerHarness) -> None:
    for name in (b"one", b"two"):
        harness.request(C, 2, b"x", service=name, ttl=1000)
        harness.pass_time(1.5)
        assert name not in harness.machine.registry.services
    answered, failed, expired, cancelled, queue, service, total = section(harness, b"broker")[
        "forgotten"
    ]
    assert (answered, failed, expired, cancelled) == (0, 0, 2, 0)
    assert queue[0] == pytest.approx(2.0, abs=0.1)
    assert sum(queue[2:]) == 2
    assert service == total == [0.0]


def test_service_that_comes_back_counts_from_nothing(harness: BrokerHarness) -> None:
    for expired in (1, 2):
        harness.worker(W, capacity=1)
        harness.request(C, 2, b"x")
        harness.answer(W, number(expired))
        harness.leave(W)
        assert section(harness, b"services")["rows"] == []
        assert section(harness, b"broker")["forgotten"][0] == expired


def test_every_ended_request_is_in_a_service_or_forgotten(harness: BrokerHarness) -> None:
    """The sum over services and the forgotten ones is the sum over all requests."""
    scenario(harness)
    harness.request(C, 5, b"x", service=b"gone", ttl=500)
    harness.pass_time(1.0)
    counts = harness.machine.registry.counts
    merged = Times()
    merged.add(harness.machine.registry.forgotten)
    for service in harness.machine.registry.services.values():
        merged.add(times_of(service))
    ends = (merged.answered, merged.failed, merged.expired, merged.cancelled)
    assert ends == (counts.answered, counts.failed, counts.expired, counts.cancelled)
    assert sum(merged.total) == counts.dispatched
    assert len(merged.total) == BOXES


def test_page_has_few_rows_and_the_last_one_has_no_cursor(harness: BrokerHarness) -> None:
    many = 2 * MOST_SERVICES + 1
    for n in range(many):
        harness.worker(b"worker-%03d" % n, b"service-%03d" % n)
    found, pages = rows(harness, b"services")
    assert [row[0] for row in found] == [f"service-{n:03d}" for n in range(many)]
    assert pages == 3
    more = MOST_PEERS + 1 - many
    for n in range(many, many + more):
        harness.worker(b"worker-%03d" % n, b"service-000")
    found, pages = rows(harness, b"workers")
    assert (len(found), pages) == (MOST_PEERS + 1, 2)


def test_clients_are_the_peers_that_are_no_workers(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.request(C, 2, b"x")
    found, _ = rows(harness, b"clients")
    assert [row[0] for row in found] == [C.hex()]


def test_broker_with_a_store_reports_whether_it_takes_new_rows() -> None:
    harness = DurableHarness()
    assert section(harness, b"broker")["store"]["accepts"] is True
    harness.machine.store_state(StoreState(accepts=False))
    assert section(harness, b"broker")["store"]["accepts"] is False


def test_broker_without_a_store_reports_none(harness: BrokerHarness) -> None:
    assert "store" not in section(harness, b"broker")


def test_broker_that_drains_still_answers(harness: BrokerHarness) -> None:
    harness.machine.drain(harness.now)
    assert section(harness, b"broker")["draining"] is True


def test_late_timers_are_counted(harness: BrokerHarness) -> None:
    harness.request(C, 2, b"x", ttl=1000)
    harness.machine.next_deadline()
    harness.now += 1.5
    harness.machine.tick(harness.now)
    harness.turn()
    late = section(harness, b"broker")["late"]
    assert late[0] == pytest.approx(0.5, abs=0.02)
    assert sum(late[2:]) == 1


def test_user_needs_the_right_to_manage_metrics(harness: BrokerHarness) -> None:
    rule = Rule(True, frozenset([MANAGE]), ("prometheus",), names=("mmi.metrics",))
    harness.machine.set_rights(AccessRules([rule]), harness.now)
    harness.machine.identify(D, "prometheus", (), harness.now)
    harness.machine.identify(C, "ann", (), harness.now)
    harness.request(D, 1, b"broker", service=NAME)
    harness.request(D, 2, service=b"mmi.stats")
    harness.request(C, 3, b"broker", service=NAME)
    assert [word[2]["code"] for word in harness.messages()] == [200, 403, 403]

"""`mmi.explain`: the history of one request, and the list of notable ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from majordomus.core.broker.state.history import MOST_NOTES, RECENT
from majordomus.protocol import metadata, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect
from tests.core.broker_harness import BrokerHarness, number

A, C, U, V, W = b"client-a", b"client-c", b"worker-u", b"worker-v", b"worker-w"
MakeHarness = Callable[..., BrokerHarness]


def explained(harness: BrokerHarness, name: str = "") -> Any:
    """The broker's answer about `name`; the status when it has no data."""
    harness.sent()
    id = 900_000 + harness.counts.accepted
    harness.request(b"manager", id, name.encode(), service=b"mmi.explain")
    ((_, _, _, body),) = harness.finals()
    return json.loads(body[1]) if len(body) > 1 else int(body[0])


def story(harness: BrokerHarness, client: bytes, id: int) -> dict[str, Any]:
    found = explained(harness, f"{client.hex()}-{id}")
    assert isinstance(found, dict)
    return found


def attempt(worker: bytes, at: float, held: float, how: str) -> dict[str, Any]:
    return {"worker": worker.hex(), "at": at, "held": held, "how": how}


def test_story_of_a_request_that_was_answered_at_once(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.request(C, 7, b"x", ttl=5000)
    harness.pass_time(0.25)
    harness.answer(W, number(1))
    harness.pass_time(1.0)
    assert story(harness, C, 7) == {
        "id": f"{C.hex()}-7",
        "service": "echo",
        "state": "answered",
        "status": 200,
        "why": "",
        "took": 0.25,
        "ago": 1.0,
        "client": C.hex(),
        "user": "",
        "ttl": 5.0,
        "waited": 0.0,
        "because": "",
        "now": "",
        "attempts": [attempt(W, 0.0, 0.25, "answered")],
    }


def test_story_of_a_queued_request_says_why_it_waits(harness: BrokerHarness) -> None:
    harness.worker(W, capacity=2)
    for id in range(1, 5):
        harness.request(C, id)
    harness.pass_time(0.5)
    found = story(harness, C, 4)
    assert found["because"] == "every worker was busy, and 1 requests waited already"
    assert found["now"] == "1 workers hold 2 of 2; 2 wait"
    assert (found["state"], found["waited"], found["attempts"]) == ("queued", 0.5, [])


def test_story_says_that_no_worker_served_the_service(harness: BrokerHarness) -> None:
    harness.request(C, 1, ttl=1000)
    assert story(harness, C, 1)["because"] == ""
    harness.pass_time(0.5)
    found = story(harness, C, 1)
    assert (found["because"], found["now"]) == (
        "no worker served its service",
        "no worker serves its service",
    )
    harness.pass_time(1)
    found = story(harness, C, 1)
    assert (found["state"], found["status"]) == ("expired", 503)
    assert found["why"].startswith("no worker for service 'echo' came within 1 s")


def test_story_of_a_request_for_one_worker_says_that_it_was_busy(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.request(A, 1)
    harness.request(C, 1, address=W)
    harness.pass_time(0.5)
    found = story(harness, C, 1)
    assert found["because"] == f"it may go to worker {W.hex()} only, which was busy"
    assert found["now"] == "1 workers hold 1 of 1; 0 wait"


def test_story_lists_every_dispatch_with_its_worker_and_duration(harness: BrokerHarness) -> None:
    harness.worker(U)
    harness.request(A, 1)
    harness.worker(V)
    harness.request(C, 1, b"x")
    harness.pass_time(0.5)
    harness.reject(V, number(2))
    harness.leave(V)
    harness.pass_time(0.5)
    harness.worker(V)
    harness.pass_time(0.5)
    harness.leave(V)
    harness.worker(W)
    harness.pass_time(0.25)
    harness.answer(W, number(4))
    found = story(harness, C, 1)
    assert (found["state"], found["took"]) == ("answered", 1.75)
    assert found["attempts"] == [
        attempt(V, 0.0, 0.5, "declined"),
        attempt(V, 1.0, 0.5, "lost: left"),
        attempt(W, 1.5, 0.25, "answered"),
    ]


def test_story_of_a_dispatched_request_says_what_its_worker_does(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.request(C, 1)
    harness.pass_time(2)
    assert story(harness, C, 1)["attempts"] == [attempt(W, 0.0, 2.0, "works on it")]
    harness.part(W, number(1), b"x")
    assert story(harness, C, 1)["attempts"] == [attempt(W, 0.0, 2.0, "sends parts")]


def test_story_leaves_out_the_error_text_of_a_worker(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.request(C, 1)
    harness.answer(W, number(1), b"a secret", status=500)
    found = story(harness, C, 1)
    assert (found["status"], found["why"]) == (500, "")
    assert found["attempts"] == [attempt(W, 0.0, 0.0, "failed")]


def test_story_of_a_cancelled_request_has_status_499(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.request(C, 1)
    harness.receive_03(C, spec.CANCEL, id=1)
    found = story(harness, C, 1)
    assert (found["status"], found["attempts"]) == (499, [attempt(W, 0.0, 0.0, "cancelled")])


def test_request_is_found_by_its_trace(harness: BrokerHarness) -> None:
    harness.worker(W, capacity=9)
    packed = metadata.pack({"trace": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"})
    harness.request(C, 1, flags=spec.METADATA, metadata=packed)
    harness.request(C, 2)
    harness.answer(W, number(1))
    harness.answer(W, number(2))
    assert explained(harness, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")["id"] == (
        f"{C.hex()}-1"
    )


@pytest.mark.parametrize("name", ["x", "-", "abc-1", f"{C.hex()}-2", "0" * 300, "\0", "é"])
def test_name_of_no_request_is_404(harness: BrokerHarness, name: str) -> None:
    harness.worker(W)
    harness.request(C, 1)
    assert explained(harness, name) == 404


def test_list_has_slow_failed_and_retried_requests_newest_first(
    harness: BrokerHarness,
) -> None:
    harness.worker(W, capacity=9)
    for id in range(1, 6):
        harness.request(C, id, service=b"echo")
    harness.answer(W, number(1))
    harness.answer(W, number(2), b"no", status=400)
    harness.reject(W, number(3))
    harness.pass_time(2)
    harness.answer(W, number(4))
    harness.answer(W, number(5), b"x")
    found = explained(harness)
    assert [(row["id"][-1], row["status"], row["took"]) for row in found] == [
        ("5", 200, 2.0),
        ("4", 200, 2.0),
        ("3", 503, 0.0),
        ("2", 400, 0.0),
    ]
    assert found[2]["why"] == "every worker of 'echo' declined"


def test_broker_keeps_at_most_max_stories_notable_requests(make_harness: MakeHarness) -> None:
    harness = make_harness(max_stories=3, slow=10.0)
    harness.worker(W, capacity=9)
    for id in range(1, 6):
        harness.request(C, id, ttl=1)
        harness.pass_time(0.1)
        harness.answer(W, number(id))
    assert [row["id"][-1] for row in explained(harness)] == ["5", "4", "3"]
    assert story(harness, C, 5)["status"] == 408
    assert explained(harness, f"{C.hex()}-1") == 404


def test_broker_keeps_the_last_fast_requests_by_name_only(harness: BrokerHarness) -> None:
    harness.worker(W)
    for id in range(1, RECENT + 2):
        harness.request(C, id)
        harness.answer(W, number(id))
    assert explained(harness) == []
    assert explained(harness, f"{C.hex()}-1") == 404
    assert story(harness, C, 2)["status"] == 200


def test_history_of_one_request_is_bounded(harness: BrokerHarness) -> None:
    harness.request(C, 1)
    for n in range(MOST_NOTES + 10):
        worker = b"w%03d" % n
        harness.worker(worker)
        harness.reject(worker, number(n + 1))
        harness.worker(b"w%03d-next" % n)
        harness.leave(worker)
        harness.reject(b"w%03d-next" % n, harness.machine.registry.last_number | spec.BROKER_ID_BIT)
        if harness.counts.failed:
            break
    assert len(story(harness, C, 1)["attempts"]) <= MOST_NOTES + 1


def test_request_is_found_by_the_number_of_its_last_dispatch(harness: BrokerHarness) -> None:
    """Open, then in the ring of the last fast requests, then among the notable ones."""
    harness.worker(W)
    harness.request(C, 7)
    assert explained(harness, "d1")["state"] == "dispatched"
    harness.answer(W, number(1))
    assert explained(harness, "d1")["id"] == f"{C.hex()}-7"
    harness.request(C, 8)
    harness.pass_time(2)
    harness.answer(W, number(2))
    assert explained(harness, "d2")["id"] == f"{C.hex()}-8"
    for unknown in ("d0", "d3", "d1025", "d", "dx", "d-1", "d²", f"d{1 << 63}", "d" + "9" * 900):
        assert explained(harness, unknown) == 404


@pytest.mark.parametrize("dialect", list(LEGACY))
def test_requests_of_older_dialects_are_found_by_name(
    make_harness: MakeHarness, dialect: Dialect
) -> None:
    harness = make_harness(default_ttl=1.0)
    harness.receive(C, *LEGACY[dialect].c2b_request(b"echo", [b"x"]))
    harness.pass_time(2)
    (row,) = explained(harness)
    assert row["id"].startswith(f"{C.hex()}-n")
    assert explained(harness, row["id"])["attempts"] == []


def test_management_requests_are_not_in_the_history(harness: BrokerHarness) -> None:
    for _ in range(3):
        assert explained(harness) == []
    assert list(harness.machine.registry.history.recent) == []


def test_services_have_a_histogram_of_response_times(harness: BrokerHarness) -> None:
    harness.worker(W, capacity=9)
    for id, seconds in enumerate((0.0, 0.0001, 0.5, 0.6, 3.0), 1):
        harness.request(C, id)
        harness.pass_time(seconds)
        harness.answer(W, number(id))
    harness.sent()
    harness.request(C, 99, service=b"mmi.services")
    ((_, _, _, body),) = harness.finals()
    (row,) = json.loads(body[1])
    took = {n: count for n, count in enumerate(row["took"]) if count}
    assert took == {0: 1, 1: 1, 14: 2, 16: 1}
    assert sum(row["took"]) == row["answered"]

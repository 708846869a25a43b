"""`majordomus top` and `explain` against a broker and a worker in other processes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from majordomus.cli.inspect.explain import history_lines
from majordomus.cli.inspect.top import Sample, Sampler, TopView, difference, is_later, percentile
from majordomus.core.broker.state.history import TICKS
from majordomus.errors import BadRequest
from majordomus.net.broker.broker import Broker
from majordomus.net.client.client import Client
from majordomus.net.worker.worker import Worker
from tests.cli.shell import Shell, Terminal


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A broker and a worker that all tests of this file share."""
    with Broker(bind="tcp://127.0.0.1:*") as broker:
        worker = Worker(broker.endpoints)

        @worker.service("echo")
        def echo(request):  # type: ignore[no-untyped-def]
            return request.frames

        @worker.service("strict")
        def strict(request):  # type: ignore[no-untyped-def]
            raise BadRequest("no such colour")

        with worker:
            worker.wait_ready()
            yield broker.endpoints[0]


def test_buckets_of_the_broker_are_those_that_are_read_here() -> None:
    from majordomus.cli.inspect import top

    assert top.TICKS == TICKS


@pytest.mark.parametrize(
    ("buckets", "share", "seconds"),
    [
        ([], 0.5, None),
        ([0, 0], 0.5, None),
        ([2], 0.5, 0.5 / TICKS),
        ([0, 0, 10], 0.5, 3 / TICKS),
        ([50, 0, 0, 0, 50], 0.5, 1 / TICKS),
        ([98, 0, 0, 0, 2], 0.99, round(12 / TICKS, 6)),
    ],
)
def test_percentile_is_read_from_the_buckets(
    buckets: list[int], share: float, seconds: float | None
) -> None:
    found = percentile(buckets, share)
    assert found == (None if seconds is None else pytest.approx(seconds, abs=1e-6))


def seen(uptime: float, answered: int, took: list[int]) -> Sample:
    broker = {"name": "b", "uptime": uptime, "draining": False, "open": 0, "queued": 0}
    stats = {"answered": answered, "failed": 0, "expired": 0, "cancelled": 0, "retried": 0}
    row = {"service": "echo", "workers": 1, "queued": 0, "open": 0}
    return Sample(broker, stats, [{**row, "answered": answered, "took": took}], [])


def test_rates_and_latencies_are_of_what_came_between_the_two_looks() -> None:
    found = difference(seen(10.0, 100, [0, 100]), seen(12.0, 150, [0, 100, 0, 50]))
    assert found["per_second"]["answered"] == 25.0
    (service,) = found["services"]
    assert service["per_second"] == 25.0
    assert service["p50"] == pytest.approx(6 / TICKS, abs=1e-6)


def test_service_that_was_not_there_before_counts_from_nothing() -> None:
    before, after = seen(10.0, 0, []), seen(11.0, 7, [7])
    (service,) = difference(before._replace(services=[]), after)["services"]
    assert service["per_second"] == 7.0


def test_lines_that_a_terminal_cannot_show_are_counted_and_can_be_scrolled_to() -> None:
    view = TopView()
    view.lines = [str(number) for number in range(10)]
    assert view.shown(11) == [*view.lines, "q: end"]
    assert view.shown(5) == ["0", "1", "2", "3", "lines 1-4 of 10, q: end"]
    view.scroll("down", 5)
    view.scroll("page-down", 5)
    assert view.shown(5) == ["4", "5", "6", "7", "lines 5-8 of 10, q: end"]
    for _ in range(5):
        view.scroll("page-down", 5)
    assert view.shown(5) == ["6", "7", "8", "9", "lines 7-10 of 10, q: end"]
    view.scroll("page-up", 5)
    view.problem = "no broker"
    assert view.shown(5) == ["3", "4", "5", "6", "no broker, lines 4-7 of 10, q: end"]


def test_samples_of_a_broker_that_was_restarted_are_not_compared() -> None:
    assert is_later(seen(10.0, 5, []), seen(11.0, 5, []))
    assert not is_later(seen(10.0, 5, []), seen(1.0, 5, []))
    assert not is_later(seen(10.0, 5, []), seen(11.0, 4, []))


def test_own_questions_are_not_counted(url: str) -> None:
    with Client(url, timeout=20.0) as client:
        sampler = Sampler(client, 20.0)
        first = sampler.sample()
        for _ in range(3):
            client.call("echo", b"x")
        second, third = sampler.sample(), sampler.sample()
    assert second.stats["answered"] - first.stats["answered"] == 3
    assert third.stats["answered"] == second.stats["answered"]
    assert third.broker["open"] == 0


def test_top_on_a_terminal_survives_the_restart_of_its_broker_and_ends_with_q(
    shell: Shell,
) -> None:
    broker = shell.broker("--name", "first")
    terminal = Terminal(shell, "top", "--interval", "0.1", "--timeout", "1", "--broker", broker.url)
    terminal.until("first")
    assert broker.stop() == 0
    terminal.until("asking again")
    shell.start("broker", "--bind", broker.url, "--name", "second")
    terminal.until("second")
    os.write(terminal.screen, b"q")
    assert terminal.wait() == 0


def test_top_prints_services_and_workers_once(url: str, shell: Shell) -> None:
    with Client(url, timeout=20.0) as client:
        assert client.call("echo", b"x").body == b"x"
    code, out, error = shell.run("top", "--once", "--interval", "0.1", "--broker", url)
    assert (code, error) == (0, "")
    lines = out.decode().splitlines()
    assert lines[1].startswith("per second: ")
    assert lines[3].split() == ["SERVICE", "WORKERS", "QUEUED", "OPEN", "/S", "P50", "P99"]
    assert lines[4].split()[:2] == ["echo", "1"]
    assert lines[7].split() == ["ID", "SERVICES", "STATE", "HELD", "CAPACITY", "LOAD", "SILENT"]
    assert "serving" in lines[8]


def test_top_prints_json_for_scripts(url: str, shell: Shell) -> None:
    code, out, _ = shell.run("top", "--json", "--interval", "0.1", "--broker", url)
    found = json.loads(out)
    assert code == 0
    assert {row["service"] for row in found["services"]} >= {"echo", "strict"}
    assert set(found["per_second"]) == {"answered", "failed", "expired", "cancelled", "retried"}


def test_services_are_listed_without_their_buckets(url: str, shell: Shell) -> None:
    code, out, _ = shell.run("services", "--broker", url)
    assert code == 0
    assert b"TOOK" not in out


def test_explain_lists_what_failed_and_tells_its_story(url: str, shell: Shell) -> None:
    with Client(url, timeout=20.0) as client, pytest.raises(BadRequest):
        client.call("strict", metadata={"trace": "00-abc-def-01"})
    code, out, _ = shell.run("explain", "--json", "--broker", url)
    assert code == 0
    row = next(row for row in json.loads(out) if row["service"] == "strict")
    assert row["status"] == 400
    for name in (row["id"], "00-abc-def-01"):
        code, out, _ = shell.run("explain", name, "--broker", url)
        lines = out.decode().splitlines()
        assert code == 0
        assert lines[0].startswith(f"{row['id']}  strict: failed with 400 after ")
        assert lines[-1].endswith(": failed")


def test_explain_of_an_unknown_request_prints_one_line(url: str, shell: Shell) -> None:
    code, out, error = shell.run("explain", "00ff-1", "--broker", url)
    assert (code, out) == (1, b"")
    assert error == (
        "majordomus explain: 404 the broker has no request 00ff-1; "
        "it remembers only the latest ones\n"
    )


def test_history_of_a_request_is_printed_in_lines() -> None:
    story: dict[str, Any] = {
        "id": "0a-7",
        "service": "echo",
        "state": "failed",
        "status": 502,
        "why": "worker lost (left) at attempt 3",
        "took": 1.75,
        "client": "0a",
        "user": "ann",
        "ttl": 5.0,
        "waited": 0.25,
        "because": "nobody served it",
        "now": "",
        "attempts": [{"worker": "0b", "at": 0.25, "held": 1.5, "how": "lost: left"}],
    }
    assert history_lines(story) == [
        "0a-7  echo: failed with 502 after 1.75 s",
        "  requested by 0a (ann), with 5 s to live",
        "  waited 250 ms for a worker: nobody served it",
        "  250 ms: worker 0b had it for 1.5 s: lost: left",
        "  reply to the client: worker lost (left) at attempt 3",
    ]

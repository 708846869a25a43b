"""`majordomus top` and `explain` against a broker and a worker in other processes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from rich.cells import cell_len

from majordomus.cli.inspect import top
from majordomus.cli.inspect.explain import history_lines
from majordomus.cli.inspect.top import keys_of, sample
from majordomus.cli.inspect.top_view import TopView, difference, is_later
from majordomus.core.broker.state.times import TICKS
from majordomus.errors import BadRequest
from majordomus.net.broker.broker import Broker
from majordomus.net.client.client import Client
from majordomus.net.worker.worker import Worker
from majordomus.observe.snapshot import ServiceRow, Snapshot
from tests.cli.shell import LIMIT, Shell, Terminal
from tests.observe.snapshots import service, snapshot, worker


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


def seen(uptime: float, *services: ServiceRow, pid: int = 1, **changes: Any) -> Snapshot:
    counts = {"answered": sum(row.answered for row in services), "failed": 0}
    return snapshot(*services, uptime=uptime, pid=pid, counts=counts, **changes)


def test_rates_and_latencies_are_of_what_came_between_the_two_snapshots() -> None:
    before = seen(10.0, service("echo", 100, [1.0, 1, 100]))
    after = seen(12.0, service("echo", 150, [2.0, 1, 100, 0, 50]))
    found = difference(before, after)
    assert found["per_second"]["answered"] == 25.0
    (row,) = found["services"]
    assert row["per_second"] == 25.0
    assert row["p50"] == pytest.approx(6 / TICKS, abs=1e-6)
    assert row["wait99"] is None


def test_service_that_was_not_there_before_counts_from_nothing() -> None:
    (row,) = difference(seen(10.0), seen(11.0, service("echo", 7)))["services"]
    assert row["per_second"] == 7.0


def test_service_that_the_broker_had_forgotten_counts_from_nothing() -> None:
    (row,) = difference(seen(10.0, service("echo", 9)), seen(11.0, service("echo", 2)))["services"]
    assert row["per_second"] == 0.0


def shown(view: TopView, width: int = 80, height: int = 24) -> list[str]:
    lines = [line.plain for line in view.lines(width, height)]
    assert len(lines) <= height
    assert max(map(cell_len, lines)) <= width
    return lines


def view_of(count: int) -> TopView:
    rows = [service(f"s{n:02d}", n) for n in range(count)]
    view = TopView()
    view.found = difference(seen(10.0), seen(11.0, *rows, workers=[worker("s00", "s01")]))
    return view


def names(lines: list[str]) -> list[str]:
    return [line.split()[0] for line in lines[5:-1] if line.strip()]


def test_rows_are_sorted_by_the_chosen_column_and_can_be_reversed() -> None:
    view = view_of(3)
    assert names(shown(view)) == ["s02", "s01", "s00"]
    view.press("r", 24)
    assert names(shown(view)) == ["s00", "s01", "s02"]
    assert shown(view)[-1].startswith("services 1-3 of 3 by /S up")
    for _ in range(4):
        view.press("left", 24)
    assert shown(view)[-1].startswith("services 1-3 of 3 by SERVICE up")
    view.press("left", 24)
    assert shown(view)[-1].startswith("services 1-3 of 3 by P99 down")
    view.press("right", 24)
    assert names(shown(view)) == ["s00", "s01", "s02"]


def test_rows_that_a_terminal_cannot_show_are_counted_and_can_be_scrolled_to() -> None:
    view = view_of(30)
    assert len(names(shown(view))) == 18
    assert shown(view)[-1].startswith("services 1-18 of 30")
    view.press("down", 24)
    assert shown(view)[-1].startswith("services 2-19 of 30")
    for _ in range(5):
        view.press("page-down", 24)
    assert shown(view)[-1].startswith("services 13-30 of 30")
    view.press("home", 24)
    view.press("page-up", 24)
    assert shown(view)[-1].startswith("services 1-18 of 30")


def test_views_of_workers_and_clients_are_chosen_by_key() -> None:
    view = view_of(2)
    view.press("w", 24)
    assert shown(view)[4].split()[:3] == ["ID", "SERVICES", "STATE"]
    assert "s00, s01" in shown(view)[5]
    view.press("tab", 24)
    assert shown(view)[4].split()[:3] == ["ID", "USER", "DIALECT"]
    view.press("tab", 24)
    assert shown(view)[4].split()[0] == "SERVICE"


def test_wide_terminal_has_whole_ids_and_no_gap_behind_the_names() -> None:
    view = view_of(2)
    assert shown(view, 200)[5].split()[0] in ("s00", "s01")
    assert len(shown(view, 200)[5]) < 80
    view.press("w", 24)
    assert view.found is not None
    view.found["workers"][0]["id"] = id = "ab" * 16
    assert shown(view, 200)[5].startswith(f"{id} s00, s01")
    assert shown(view, 70)[5].startswith(f"{id[:13]}… s00, s01")
    assert shown(view, 80)[5].startswith(id[:20])


@pytest.mark.parametrize(("term", "draws"), [("dumb", False), ("UNKNOWN", False), ("xterm", True)])
def test_terminal_that_cannot_be_drawn_on_gets_one_report(
    term: str, draws: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert top._can_draw() is draws


@pytest.mark.parametrize("size", [(80, 24), (200, 60), (40, 10), (10, 3), (80, 1)])
def test_lines_fit_every_terminal(size: tuple[int, int]) -> None:
    view = TopView()
    assert shown(view, *size)
    view.found = view_of(40).found
    for key in ("s", "w", "c"):
        view.press(key, size[1])
        assert shown(view, *size)


def test_names_of_peers_reach_the_terminal_escaped_and_cut_to_their_columns() -> None:
    view = TopView()
    bad = service("\x1b[2J" + "\u6f22" * 60, 1)
    view.found = difference(seen(10.0), seen(11.0, bad, name="b\x07"))
    lines = shown(view)
    assert not any(char in "".join(lines) for char in "\x1b\x07")


def test_problem_is_shown_in_place_of_the_last_line() -> None:
    view = view_of(1)
    view.problem = "no broker " * 20
    assert shown(view)[-1].startswith("q: end  asking again: no broker no broker")
    assert names(shown(view)) == ["s00"]


def test_keys_that_come_together_are_all_read() -> None:
    assert list(keys_of(b"s<<\x1b[6~x\x1b[Aq")) == ["s", "left", "left", "page-down", "up", "q"]
    assert list(keys_of(b"\x1b")) == []


def test_snapshots_of_a_broker_that_was_restarted_are_not_compared() -> None:
    assert is_later(seen(10.0), seen(11.0))
    assert not is_later(seen(10.0), seen(1.0))
    assert not is_later(seen(10.0), seen(11.0, pid=2))


def test_own_questions_are_not_counted(url: str) -> None:
    with Client(url, timeout=20.0) as client:
        first = sample(client, 20.0)
        for _ in range(3):
            client.call("echo", b"x")
        second, third = sample(client, 20.0), sample(client, 20.0)
    assert second.broker.counts["answered"] - first.broker.counts["answered"] == 3
    assert third.broker.counts["answered"] == second.broker.counts["answered"]
    assert third.broker.now["open"] == 0


def test_top_on_a_terminal_survives_the_restart_of_its_broker_and_ends_with_q(
    shell: Shell,
) -> None:
    broker = shell.broker("--name", "first")
    terminal = Terminal(shell, "top", "--interval", "0.1", "--timeout", "1", "--broker", broker.url)
    terminal.until("first")
    assert broker.stop() == 0
    terminal.until("asking again")
    shell.start("broker", "--bind", broker.url, "--name", "successor")
    terminal.until("successor")
    os.write(terminal.screen, b"wq")
    assert terminal.wait() == 0


def test_top_whose_terminal_is_gone_ends(shell: Shell) -> None:
    broker = shell.broker("--name", "first")
    terminal = Terminal(shell, "top", "--interval", "0.1", "--broker", broker.url)
    terminal.until("first")
    os.close(terminal.screen)
    try:
        assert terminal.process.wait(LIMIT) in (0, 1)
    finally:
        terminal.process.kill()
        terminal.process.wait()


def test_top_prints_services_and_workers_once(url: str, shell: Shell) -> None:
    with Client(url, timeout=20.0) as client:
        assert client.call("echo", b"x").body == b"x"
    code, out, error = shell.run("top", "--once", "--interval", "0.1", "--broker", url)
    assert (code, error) == (0, "")
    lines = out.decode().splitlines()
    assert lines[1].startswith("per second: ")
    assert lines[4].split() == [
        *("SERVICE", "WORKERS", "QUEUED", "OPEN", "/S", "FAIL/S", "WAIT99", "P50", "P99")
    ]
    assert lines[5].split()[:2] == ["echo", "1"]
    assert lines[8].split() == [
        *("ID", "SERVICES", "STATE", "HELD", "CAPACITY", "LOAD", "SILENT", "USER")
    ]
    assert "serving" in lines[9]


def test_top_prints_json_for_scripts(url: str, shell: Shell) -> None:
    code, out, _ = shell.run("top", "--json", "--interval", "0.1", "--broker", url)
    found = json.loads(out)
    assert code == 0
    assert {row["service"] for row in found["services"]} >= {"echo", "strict"}
    assert [row["state"] for row in found["workers"]] == ["serving"]
    assert set(found["per_second"]) == {"answered", "failed", "expired", "cancelled", "retried"}
    assert 0 < found["account"]["held"] < found["account"]["most"]


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

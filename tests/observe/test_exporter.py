"""The metrics of Prometheus: their names, their labels and their number."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from majordomus.errors import ConfigurationError
from majordomus.observe.ended import EndedRequest
from majordomus.observe.exporter import (
    FIXED_SERIES,
    METRICS,
    MOST_SERIES,
    OWN_SERIES,
    PREFIX,
    SERVICE_SERIES,
    BrokerCollector,
    Polled,
    per_broker,
)
from tests.observe.programs import needs
from tests.observe.snapshots import STORE, service, snapshot, times, worker

URL = "tcp://127.0.0.1:5555"
SNAPSHOTS = int(os.environ.get("SERIES_SNAPSHOTS", "5"))


def exposition(collector: BrokerCollector) -> str:
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry).decode()


def series_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def full() -> BrokerCollector:
    """A collector that has every metric."""
    collector = BrokerCollector([URL])
    process = dict.fromkeys(("cpu", "rss", "started", "descriptors", "most_descriptors"), 1.0)
    found = snapshot(
        service("echo", 3, [0.5, 10, 3]),
        workers=[worker("echo")],
        process=process,
        refused={"503": 2},
        dropped={"invalid": 1},
        handshakes_refused={"timeout": 1},
        late=[0.1, 9, 1],
        store=STORE,
    )
    collector.update(Polled(URL, 0.001, found))
    return collector


def test_every_metric_of_the_list_is_made_and_no_other() -> None:
    text = exposition(full())
    families = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    counters = {name for name, meaning in METRICS.items() if meaning.kind == "counter"}
    assert families == {PREFIX + name + ("_total" if name in counters else "") for name in METRICS}
    assert len(set(re.findall(r"^# HELP (\S+) .+", text, re.MULTILINE))) == len(families)


def test_values_are_those_of_the_snapshot() -> None:
    lines = series_of(exposition(full()))
    broker, of = f'broker="{URL}"', 'service="echo"'
    duration = "request_duration_seconds"
    for line in (
        f"up{{{broker}}} 1.0",
        f'service_requests_total{{{broker},outcome="answered",{of}}} 3.0',
        f"{duration}_sum{{{broker},{of}}} 0.5",
        f'{duration}_bucket{{{broker},le="0.015625",{of}}} 0.0',
        f'{duration}_bucket{{{broker},le="0.0625",{of}}} 3.0',
        f'workers{{{broker},state="serving"}} 1.0',
        f'held_bytes{{{broker},kind="requests"}} 10.0',
        f"store_writable{{{broker}}} 1.0",
    ):
        assert PREFIX + line in lines


def test_broker_that_does_not_answer_has_one_series() -> None:
    collector = BrokerCollector([URL])
    assert series_of(exposition(collector)) == [f'majordomus_up{{broker="{URL}"}} 0.0']


def test_names_without_end_make_no_more_than_2000_series() -> None:
    """Snapshots with 20,000 names each that no other has, and reasons without end. `make series`
    tries a million names."""
    collector = BrokerCollector([URL])
    count = 0
    for turn in range(SNAPSHOTS):
        rows = [service(f"s-{turn}-{n}", 1) for n in range(20_000)]
        many = {f"reason-{turn}-{n}": n for n in range(100)}
        found = snapshot(
            *rows,
            forgotten=times(20_000 * turn),
            refused=many,
            dropped=many,
            handshakes_refused=many,
            workers=[worker(rows[0].name)],
        )
        collector.update(Polled(URL, 0.001, found))
        if turn % 5 == 4:
            count = max(count, len(series_of(exposition(collector))))
    print(f"{20_000 * SNAPSHOTS:,} names of services: {count:,} series, {MOST_SERIES:,} at most")
    assert SERVICE_SERIES * 25 < count <= MOST_SERIES - OWN_SERIES


@pytest.mark.parametrize("brokers", [1, 2, 5, 8])
def test_several_brokers_share_the_series(brokers: int) -> None:
    urls = [f"tcp://127.0.0.1:{n}" for n in range(brokers)]
    collector = BrokerCollector(urls)
    rows = [service(f"s-{n}", n) for n in range(200)]
    many = {str(n): n for n in range(100)}
    for url in urls:
        found = snapshot(*rows, refused=many, dropped=many, handshakes_refused=many)
        collector.update(Polled(url, 0.0, found))
    lines = series_of(exposition(collector))
    assert len(lines) <= MOST_SERIES - OWN_SERIES
    without = [line for line in lines if 'service="' not in line]
    assert len(without) <= FIXED_SERIES * brokers


def test_too_many_brokers_are_refused_with_the_most_that_fit() -> None:
    with pytest.raises(ConfigurationError, match="at most 8; start several"):
        per_broker(9)


def test_name_with_quotes_and_line_breaks_is_one_label() -> None:
    collector = BrokerCollector([URL])
    collector.update(Polled(URL, 0.0, snapshot(service('a"\n\\b{}'))))
    text = exposition(collector)
    assert 'service="a\\"\\n\\\\b{}"' in text


def test_traced_requests_are_exemplars_of_their_buckets_where_the_format_has_them() -> None:
    collector = full()
    trace = f"00-{'ab' * 16}-{'cd' * 8}-01"
    ended = [
        EndedRequest(0.5, "0a-1", "echo", 200, "", 0.05, 0.0, 1, "0b", "", trace),
        EndedRequest(0.0, "0a-2", "echo", 200, "", 9.0, 0.0, 1, "0b", "", "no traceparent"),
        EndedRequest(0.0, "0a-3", "gone", 200, "", 9.0, 0.0, 1, "0b", "", trace),
    ]
    found = snapshot(service("echo", 3, [0.5, 10, 3]), pid=1)
    collector.update(Polled(URL, 0.001, found, ended, 1000.0))
    registry = CollectorRegistry()
    registry.register(collector)
    lines = openmetrics.generate_latest(registry).decode().splitlines()
    (line,) = [line for line in lines if "trace_id" in line]
    assert line.startswith(
        f'majordomus_request_duration_seconds_bucket{{broker="{URL}",le="0.0625"'
    )
    assert line.endswith(f'3.0 # {{trace_id="{"ab" * 16}"}} 0.05 999.5')
    assert "trace_id" not in exposition(collector)
    collector.update(Polled(URL, 0.001, snapshot()))
    assert b"trace_id" not in openmetrics.generate_latest(registry)


def test_promtool_accepts_names_units_and_help() -> None:
    needs("promtool")
    done = subprocess.run(
        [shutil.which("promtool") or "", "check", "metrics"],
        input=exposition(full()),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

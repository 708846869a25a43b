"""Services get a bounded number of series, and what they count is counted once."""

from __future__ import annotations

import random

from majordomus.observe.histogram import Histogram
from majordomus.observe.series import OTHER, STEPS, BrokerSeries, buckets_of
from tests.observe.snapshots import service, snapshot, times, worker


def answered(series: BrokerSeries) -> dict[str, float]:
    return {name: found.count("answered") for name, found in series.services.items()}


def test_busiest_services_get_series_and_the_others_are_added_up() -> None:
    series = BrokerSeries(2)
    series.update(snapshot(service("a", 1), service("b", 5), service("c", 9), service("d", 2)))
    assert answered(series) == {"c": 9, "b": 5, OTHER: 3}


def test_service_keeps_its_series_while_the_broker_knows_it() -> None:
    series = BrokerSeries(1)
    series.update(snapshot(service("a", 1)))
    series.update(snapshot(service("a", 1), service("b", 99)))
    assert answered(series) == {"a": 1, OTHER: 99}


def test_place_of_a_forgotten_service_is_free_again() -> None:
    series = BrokerSeries(1)
    series.update(snapshot(service("a", 7)))
    series.update(snapshot(service("b", 2), forgotten=times(7)))
    assert answered(series) == {"b": 2}


def test_requests_of_a_forgotten_service_are_counted_once() -> None:
    series = BrokerSeries(1)
    series.update(snapshot(service("a", 7)))
    series.update(snapshot(forgotten=times(10)))
    assert answered(series) == {OTHER: 3}, "three more were answered before it was forgotten"


def test_what_is_counted_between_two_snapshots_is_counted_once() -> None:
    """Services come, count and are forgotten at random. What those without series have counted is
    what the sum grows by."""
    random.seed(20)
    series = BrokerSeries(3)
    series.update(snapshot())
    known: dict[str, int] = {}
    gone, other = 0, 0.0
    for _ in range(300):
        more = {name: random.randrange(5) for name in "abcdefgh" if random.random() < 0.2}
        for name, count in more.items():
            known[name] = known.get(name, 0) + count
        if known and random.random() < 0.3:
            gone += known.pop(random.choice(sorted(known)))
        rows = [service(name, count) for name, count in sorted(known.items())]
        series.update(snapshot(*rows, forgotten=times(gone)))
        now = answered(series)
        other += sum(count for name, count in more.items() if name not in now)
        assert now.pop(OTHER, 0.0) == other
        assert now == {name: known[name] for name in now}
        assert len(now) <= 3
    assert other > 100


def test_broker_that_was_restarted_counts_anew_under_the_same_names() -> None:
    series = BrokerSeries(1)
    series.update(snapshot(service("a", 7), service("b", 5)))
    series.update(snapshot(service("a", 1), service("b", 2), pid=2))
    assert answered(series) == {"a": 1, OTHER: 2}


def test_service_that_takes_the_name_of_the_sum_is_part_of_it() -> None:
    series = BrokerSeries(5)
    series.update(snapshot(service(OTHER, 7), service("a", 1)))
    assert answered(series) == {"a": 1, OTHER: 7}


def test_slots_of_a_worker_count_for_each_of_its_services_and_once_for_the_sum() -> None:
    series = BrokerSeries(1)
    rows = (service("a", 9), service("b"), service("c"))
    series.update(snapshot(*rows, workers=[worker("a", "b", "c"), worker("a", held=0)]))
    gauges = {name: found.gauges for name, found in series.services.items()}
    assert (gauges["a"]["slots"], gauges["a"]["slots_in_use"]) == (8, 1)
    assert (gauges[OTHER]["slots"], gauges[OTHER]["workers"]) == (4, 2)


def test_worker_of_a_service_that_came_between_two_pages_is_counted() -> None:
    series = BrokerSeries(1)
    series.update(snapshot(service("a"), workers=[worker("new")]))
    assert series.services[OTHER].gauges["slots"] == 4


def test_every_box_is_in_one_bucket() -> None:
    counts = buckets_of(Histogram(0.0, [1] * 64))
    assert sum(counts) == 64
    assert counts[0] == STEPS[0] + 1

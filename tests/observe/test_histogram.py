"""Histograms of the snapshot: read, added, compared, and asked for percentiles."""

from __future__ import annotations

import pytest

from majordomus.core.broker.state.times import BOXES, TICKS
from majordomus.observe.histogram import Histogram


def test_row_of_the_snapshot_is_read_from_its_first_box_on() -> None:
    found = Histogram.of([1.25, 14, 2, 0, 1])
    assert found.seconds == 1.25
    assert {n: count for n, count in enumerate(found.boxes) if count} == {14: 2, 16: 1}
    assert found.count == 3


def test_empty_row_and_boxes_that_there_are_not_are_read_as_nothing() -> None:
    assert Histogram.of([]).count == Histogram.of([0.0]).count == 0
    assert Histogram.of([1.0, BOXES - 1, 5, 7]).count == 5
    assert Histogram.of([1.0, -1, 5, 7]).boxes[0] == 7


def test_histograms_are_merged_by_addition() -> None:
    one, two = Histogram(1.0, [1, 2]), Histogram(0.5, [0, 3, 4])
    one.add(two)
    assert (one.seconds, one.boxes[:4]) == (1.5, [1, 5, 4, 0])


def test_difference_is_what_has_been_counted_in_between() -> None:
    before, after = Histogram(1.0, [1, 2]), Histogram(3.0, [1, 5])
    assert (after.since(before).seconds, after.since(before).boxes[:2]) == (2.0, [0, 3])


def test_difference_to_a_histogram_that_began_anew_is_all_of_it() -> None:
    assert Histogram(1.0, [1]).since(Histogram(9.0, [5])).boxes[0] == 1


@pytest.mark.parametrize(
    ("boxes", "share", "ticks"),
    [
        ([2], 0.5, 0.5),
        ([0, 0, 10], 0.5, 3),
        ([50, 0, 0, 0, 50], 0.5, 1),
        ([98, 0, 0, 0, 2], 0.99, 12),
    ],
)
def test_quantile_is_exact_within_its_box(boxes: list[int], share: float, ticks: float) -> None:
    assert Histogram(0.0, boxes).quantile(share) == pytest.approx(ticks / TICKS, abs=1e-6)


def test_quantile_of_nothing_is_none() -> None:
    assert Histogram().quantile(0.5) is None

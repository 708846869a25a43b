"""The page about performance says what was measured, and nothing else."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from benchmarks import page

FIGURES = page.figures()


def test_page_agrees_with_the_measured_files() -> None:
    text = page.PAGE.read_text("utf-8")
    assert page.render(text, FIGURES) == text, "run `python -m benchmarks.page`"


def test_page_shows_every_block_once() -> None:
    text = page.PAGE.read_text("utf-8")
    assert sorted(found[2] for found in page.MARKED.finditer(text)) == sorted(page.BLOCKS)


def test_every_section_was_measured() -> None:
    assert set(FIGURES) == set(page.FILES)
    assert page.NOT_MEASURED not in page.PAGE.read_text("utf-8")


def test_page_without_a_single_figure_says_so() -> None:
    for name, block in page.BLOCKS.items():
        text = block({})
        assert not set("123456789").intersection(text) or name == "summary", (name, text)
    assert page.summary({}).count(page.NOT_MEASURED) == len(list(page.targets({})))


def test_figure_is_put_where_its_mark_is(tmp_path: Path) -> None:
    (tmp_path / "presence.json").write_text(json.dumps({"presence": {"core_percent": 3.5}}))
    of = page.figures(tmp_path)
    text = "before\n<!-- measured: summary -->\nold\n<!-- end -->\nbehind\n"
    rendered = page.render(text, of)
    assert rendered.startswith("before\n<!-- measured: summary -->\n| what |")
    assert rendered.endswith("\n<!-- end -->\nbehind\n")
    assert "| ≤ 4 % | 3.5 % | yes |" in rendered


@pytest.mark.parametrize(("percent", "reached"), [(4.9, "yes"), (5.0, "yes"), (5.1, "**no**")])
def test_bound_that_must_not_be_passed_is_judged(percent: float, reached: str) -> None:
    row = page.Target("presence", True, 5, "%", percent).row()
    assert row.endswith(f"| {reached} |")


@pytest.mark.parametrize(("times", "reached"), [(2.1, "yes"), (2.0, "yes"), (1.9, "**no**")])
def test_bound_that_must_be_passed_is_judged(times: float, reached: str) -> None:
    row = page.Target("calls", False, 2, "×", times).row()
    assert row.endswith(f"| {reached} |")


def test_ratio_is_that_of_each_round_and_not_of_the_medians() -> None:
    ours, theirs = {"judged": [1.0, 4.0, 9.0]}, {"judged": [1.0, 2.0, 3.0]}
    found = page.ratio("cost", True, 2.5, ours, theirs)
    assert (found.value, found.spread) == (2.0, " (1.5 to 2.5)")


def test_contestant_that_was_left_out_is_not_judged() -> None:
    of = copy.deepcopy(FIGURES)
    shape = of["routing"]["comparisons"][2]
    shape["contestants"] = [one for one in shape["contestants"] if one["name"] != "nats-server"]
    rows = page.summary(of).splitlines()
    lacking = [row for row in rows if row.endswith(f"| – | {page.NOT_MEASURED} |")]
    assert len(lacking) == 1
    assert "100 × 8 × 20" in lacking[0]

"""The programs on the pages about balancing, gathering and watching print what the pages show."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.docs_runner import run_page

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["balancing", "durable", "many"])
def test_page_runs_as_it_stands(page: str, tmp_path: Path) -> None:
    run_page(DOCS / f"{page}.md", tmp_path)


def test_page_on_watching_finds_its_request(tmp_path: Path) -> None:
    left = run_page(DOCS / "watching.md", tmp_path)
    assert left["status"] == b"200"
    story = json.loads(left["story"])
    assert (story["service"], story["state"], len(story["attempts"])) == ("render", "answered", 1)

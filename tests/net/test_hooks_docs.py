"""The programs of the pages on hooks and middleware run as they stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs_runner import run_page

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["hooks", "middleware"])
def test_programs_of_the_page_run(page: str, tmp_path: Path) -> None:
    run_page(DOCS / f"{page}.md", tmp_path)

"""The runner of the pages' blocks sees what it is to see."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs_runner import run_page

PAGE = """# A page

```python
x = 1 + 1
x  # → 2
```

```text
x = not python
```

```python
y = {"a": [x]}
for _ in range(2):
    y["a"]  # → [2]
```
"""


def test_blocks_of_a_page_run_as_one_program(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    assert run_page(page, tmp_path)["y"] == {"a": [2]}


def test_value_other_than_the_page_shows_is_an_error_at_its_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.replace("# → [2]", "# → [3]"))
    with pytest.raises(AssertionError, match=r"shows \[3\], it is \[2\]") as caught:
        run_page(page, tmp_path)
    assert caught.traceback[-2].lineno == 14


def test_error_of_a_block_and_a_page_without_blocks_are_errors(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nnothing\n```\n")
    with pytest.raises(NameError):
        run_page(page, tmp_path)
    page.write_text("no block\n")
    with pytest.raises(AssertionError, match="no python block"):
        run_page(page, tmp_path)

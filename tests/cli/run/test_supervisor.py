"""The rules of keeping processes alive: growing delays, and which files a reload watches."""

from __future__ import annotations

import os
from pathlib import Path

from majordomus.cli.run.supervisor import MOST_DELAY, python_files, restart_delay


def test_delay_doubles_with_each_death_up_to_a_bound() -> None:
    assert [restart_delay(deaths) for deaths in range(1, 9)] == [
        0.2,
        0.4,
        0.8,
        1.6,
        3.2,
        6.4,
        10,
        10,
    ]
    assert restart_delay(10_000) == MOST_DELAY


def test_reload_watches_python_files_but_not_hidden_or_installed_ones(tmp_path: Path) -> None:
    for name in (
        "a.py",
        "package/b.py",
        "package/notes.txt",
        ".hidden/c.py",
        "node_modules/d.py",
        "package/__pycache__/e.py",
        "venv/pyvenv.cfg",
        "venv/lib/f.py",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert set(python_files(tmp_path)) == {str(tmp_path / "a.py"), str(tmp_path / "package/b.py")}


def test_new_changed_and_removed_file_each_make_a_difference(tmp_path: Path) -> None:
    first = python_files(tmp_path)
    file = tmp_path / "a.py"
    file.touch()
    second = python_files(tmp_path)
    os.utime(file, ns=(1, 1))
    third = python_files(tmp_path)
    file.unlink()
    assert first != second != third != python_files(tmp_path) == first

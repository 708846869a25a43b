"""The short form of `python -m tests.durable.calls`: power cuts below Python's own sqlite3."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD and /proc are Linux's")
@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler logs the system calls")
def test_power_cut_below_pythons_own_sqlite3_loses_nothing_but_in_the_negative_control() -> None:
    command = [sys.executable, "-m", "tests.durable.calls", "--cuts", "100", "--controls", "60"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    full, normal, early = (line.partition(": ")[2] for line in done.stdout.splitlines())
    assert full.startswith("100 cuts, seeds 1 to 1: 100 good")
    assert "lost" in normal
    assert "lost" in early

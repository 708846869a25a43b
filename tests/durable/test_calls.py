"""The short form of `python -m tests.durable.calls`: power cuts below Python's own sqlite3."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD and /proc are Linux's")
@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler logs the system calls")
def test_power_cut_below_pythons_own_sqlite3_loses_nothing_but_in_the_negative_control() -> None:
    done = run("--cuts", "100", "--recoveries", "0", "--controls", "60")
    full, normal, early = done
    assert full.startswith("100 cuts, seeds 1 to 1: 100 good")
    assert "lost" in normal
    assert "lost" in early


@pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD and /proc are Linux's")
@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler logs the system calls")
def test_power_cut_during_a_recovery_of_pythons_own_sqlite3_loses_in_the_controls_alone() -> None:
    done = run("--cuts", "0", "--recoveries", "100", "--controls", "100")
    full, normal, early, unsynced = done
    assert full.startswith("100 cuts, seeds 1 to 1: 100 good")
    assert "lost" in normal
    assert "lost" in early
    assert "corrupt" in unsynced


def run(*arguments: str) -> list[str]:
    """Return what each line of the command says behind its name."""
    command = [sys.executable, "-m", "tests.durable.calls", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return [line.partition(": ")[2] for line in done.stdout.splitlines()]

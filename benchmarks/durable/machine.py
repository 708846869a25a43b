"""Whether the machine is quiet, and what processes and the disk have done so far."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

TICK: Final = os.sysconf("SC_CLK_TCK")
LOOKS: Final = 20
BETWEEN: Final = 0.02
MOST_RUNNING: Final = 0.5
"""Processes that run, beside this one, on average of all looks, at most."""


def running_besides() -> float:
    """How many processes want a processor now, beside this one: the mean of some looks."""
    seen = 0
    for _ in range(LOOKS):
        for line in Path("/proc/stat").read_text().splitlines():
            if line.startswith("procs_running"):
                seen += int(line.split()[1]) - 1
        time.sleep(BETWEEN)
    return seen / LOOKS


def wait_until_quiet(patience: float) -> bool:
    """Wait until nothing else runs; False when that has not come within `patience` seconds."""
    until = time.monotonic() + patience
    while running_besides() > MOST_RUNNING:
        if time.monotonic() > until:
            return False
        time.sleep(0.5)
    return True


def family(pid: int) -> list[int]:
    """The process and all that it has started."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def processor_seconds(pids: list[int]) -> float:
    """The processor time that these processes have used."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICK


def flushes() -> int:
    """How often the disks of this machine were told to flush."""
    found = 0
    for path in Path("/sys/block").glob("*/stat"):
        fields = path.read_text().split()
        if len(fields) > 15:
            found += int(fields[15])
    return found

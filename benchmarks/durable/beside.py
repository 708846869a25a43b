"""Plain calls, alone, beside 10,000 more a second that are plain, and beside as many durable ones.

All of it is C's load. The 10,000 come in groups of 64 from one client, to a worker of their own.
"""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any, Final

from benchmarks import peers
from benchmarks.durable.systems import OURS, Serving, serving
from benchmarks.statistics_of import ratios, spread

RATE: Final = 10_000
SHAPE: Final = ("--clients", "16", "--window", "32", "--workers", "4", "--service", "plain")
OTHER: Final = (
    *("--clients", "1", "--window", "64", "--workers", "1", "--body", "100"),
    *("--rate", str(RATE), "--service", "beside"),
)
LEAST: Final = 0.90
SETTLE: Final = 1.5


def _command(at: Serving, seconds: float) -> list[str]:
    port = at.url.rpartition(":")[2]
    return [str(peers.LOAD), "--port", port, "--seconds", str(seconds)]


def _load(at: Serving, seconds: float) -> float:
    """Plain calls a second."""
    command = [*_command(at, seconds), *SHAPE]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    seen: dict[str, float] = json.loads(done.stdout)
    return seen["per_second"]


def _beside(at: Serving, seconds: float, durable: int) -> tuple[float, float]:
    """Plain calls a second, and how many calls the other client made beside them."""
    command = [*_command(at, seconds + 2 * SETTLE), *OTHER, "--durable", str(durable)]
    other = subprocess.Popen(command, stdout=subprocess.PIPE)
    time.sleep(SETTLE)
    plain = _load(at, seconds)
    output, _ = other.communicate(timeout=60)
    if other.returncode:
        raise RuntimeError("the client beside the plain calls has failed")
    return plain, float(json.loads(output)["per_second"])


def measure(rounds: int, seconds: float) -> dict[str, Any]:
    """All rounds; print and return the figures. Raises: RuntimeError."""
    peers.build()
    alone, plain, durable, made = [], [], [], []
    with serving(OURS) as at:
        for _ in range(rounds):
            alone.append(_load(at, seconds))
            plain.append(_beside(at, seconds, 0)[0])
            calls, rate = _beside(at, seconds, 1)
            durable.append(calls)
            made.append(rate)
    ratio = ratios(durable, alone)
    verdict = "good" if ratio.median >= LEAST else "MISSED"
    lines = (
        ("plain calls/s, alone", spread(alone).text(0)),
        (f"beside {RATE:,} more plain calls/s", spread(plain).text(0)),
        (f"beside {spread(made).median:,.0f} durable calls/s", spread(durable).text(0)),
        ("  the last by the first", f"{ratio.text(3)}  target ≥ {LEAST} {verdict}"),
        ("  the last by the second", ratios(durable, plain).text(3)),
    )
    print()
    for text, value in lines:
        print(f"{text:44} {value}")
    return {
        "alone": alone,
        "beside plain": plain,
        "beside durable": durable,
        "durable per second": made,
        "ratio": ratio._asdict(),
    }

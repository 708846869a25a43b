"""The short form of `make chaos`: a siege of half-open connections while other clients call."""

from __future__ import annotations

from benchmarks import siege

TRIES = 5
"""Any single run may be slow on a loaded machine."""


def test_half_open_connections_of_one_address_do_not_keep_honest_callers_waiting() -> None:
    ratios = []
    for _ in range(TRIES):
        seen = siege.half_open(1000, 1.0, "--set", "max_address_handshakes=256")
        assert seen["cut"] > 0
        ratios.append(seen["p99_ratio"])
        if ratios[-1] <= 2:
            return
    raise AssertionError(f"the 99th percentile grew by {ratios}")

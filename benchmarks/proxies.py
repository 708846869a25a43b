"""What `majordomus proxy` moves, beside libzmq's own zmq_proxy: python -m benchmarks.proxies.

Programs in C are at both ends (proxy_ends.c), over tcp on this machine; they send and read faster
than a proxy does. Both proxies have their turn in every round (A B A B …); the median of the
rounds' ratios counts. The processor time is that of the proxy's process with its I/O threads.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks import peers

PATTERNS: Final = {"pull-push": 600_000, "xsub-xpub": 600_000, "router-dealer": 150_000}
"""Pattern → messages of one measurement."""
BODY: Final = "16"
PATIENCE: Final = 120.0


def libzmq(pattern: str) -> Callable[[int, int], list[str]]:
    return lambda front, back: [str(peers.PROXY), _url(front), _url(back), pattern]


def ours(pattern: str) -> Callable[[int, int], list[str]]:
    return lambda front, back: [
        *(sys.executable, "-m", "majordomus.cli", "proxy", "--pattern", pattern),
        *("--frontend", _url(front), "--backend", _url(back)),
    ]


def _url(port: int) -> str:
    return f"tcp://127.0.0.1:{port}"


PROXIES: Final = {"zmq_proxy": libzmq, "majordomus proxy": ours}


def processor_seconds(pid: int) -> float:
    """The processor time of a process so far, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(name: str, pattern: str) -> tuple[float, float]:
    """Messages a second, and microseconds of the proxy for each."""
    with peers.running(peers.Peer(name, PROXIES[name](pattern), own_worker_port=True)) as proxy:
        before = processor_seconds(proxy.pid)
        ends = [str(peers.PROXY_ENDS), pattern, _url(proxy.port), _url(proxy.worker_port)]
        done = subprocess.run(
            [*ends, str(PATTERNS[pattern]), BODY],
            check=True,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        rate, came = map(float, done.stdout.split())
        return rate, (processor_seconds(proxy.pid) - before) / came * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    peers.build()
    for pattern in PATTERNS:
        taken = [[measure(name, pattern) for name in PROXIES] for _ in range(rounds)]
        ratio = statistics.median(own[0] / other[0] for other, own in taken)
        print(f"{pattern}: {ratio:.2f} of zmq_proxy's messages a second")
        for n, name in enumerate(PROXIES):
            rate, spent = (statistics.median(one[n][of] for one in taken) for of in (0, 1))
            print(f"  {name:16} {rate:10,.0f} messages/s, {spent:.2f} µs of processor time each")


if __name__ == "__main__":
    main()

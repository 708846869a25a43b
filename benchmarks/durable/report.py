"""The ratios of issue 18, and whether each meets its target.

A ratio is taken round by round, so that what disturbs one round disturbs both of its sides; what is
printed is the median of the rounds, with its quartiles.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from benchmarks.durable.systems import NATS_ALWAYS, NATS_DEBIAN, OURS, PLAIN, RABBIT, REDIS
from benchmarks.statistics_of import ratios, spread

Rounds = dict[str, list[dict[str, float]]]


class Target(NamedTuple):
    """`metric` of majordomus, by that of `peer`; `peer` is empty for the figure itself."""

    text: str
    metric: str
    peer: str
    bound: float
    good: Callable[[float, float], bool]


AT_LEAST: Final = operator.ge
AT_MOST: Final = operator.le
TARGETS: Final = (
    Target("requests/s by Redis'", "per_second", REDIS.name, 1.0, AT_LEAST),
    Target("requests/s by RabbitMQ's", "per_second", RABBIT.name, 2.0, AT_LEAST),
    Target("requests/s by JetStream's that syncs", "per_second", NATS_ALWAYS.name, 8.0, AT_LEAST),
    Target("requests/s by JetStream's of Debian", "per_second", NATS_DEBIAN.name, 0.8, AT_LEAST),
    Target("durable by not durable", "per_second", PLAIN.name, 0.4, AT_LEAST),
    Target("CPU per request by Redis'", "cpu_us", REDIS.name, 1.0, AT_MOST),
    Target("CPU per request by RabbitMQ's", "cpu_us", RABBIT.name, 0.25, AT_MOST),
    Target("p50 by Redis'", "p50_us", REDIS.name, 1.0, AT_MOST),
    Target("p99 by Redis'", "p99_us", REDIS.name, 1.0, AT_MOST),
    Target("syncs per request", "syncs", "", 0.06, AT_MOST),
)


def table(rounds: Rounds) -> None:
    """Print what was measured of each system."""
    print(
        f"\n{'system':38} {'requests/s':>26} {'p50 ms':>7} {'p99 ms':>7}"
        f" {'CPU µs':>7} {'flushes':>8} {'syncs':>7}"
    )
    for name, of in rounds.items():
        if not of:
            continue
        middle = {key: spread([one[key] for one in of if key in one]).median for key in of[0]}
        syncs = f"{middle['syncs']:.3f}" if "syncs" in middle else ""
        print(
            f"{name:38} {spread([one['per_second'] for one in of]).text(0):>26}"
            f" {middle['p50_us'] / 1e3:7.2f} {middle['p99_us'] / 1e3:7.2f}"
            f" {middle['cpu_us']:7.1f} {middle['flushes']:8.3f} {syncs:>7}"
        )


def verdicts(rounds: Rounds) -> list[dict[str, Any]]:
    """Print the ratios and whether each is within its target; return them."""
    found: list[dict[str, Any]] = []
    ours = rounds.get(OURS.name, [])
    print()
    for target in TARGETS:
        theirs = rounds.get(target.peer, []) if target.peer else ours
        if not ours or not theirs or target.metric not in ours[0] or target.metric not in theirs[0]:
            print(f"  {target.text:40} not measured")
            continue
        mine = [one[target.metric] for one in ours]
        values = (
            ratios(mine, [one[target.metric] for one in theirs]) if target.peer else spread(mine)
        )
        good = target.good(values.median, target.bound)
        sign = "≥" if target.good is AT_LEAST else "≤"
        verdict = "good" if good else "MISSED"
        print(f"  {target.text:40} {values.text(3):>26}  target {sign} {target.bound:<5} {verdict}")
        found.append({"what": target.text, "target": target.bound, "met": good, **values._asdict()})
    return found

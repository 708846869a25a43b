"""Puts the measured figures into docs/performance.md: python -m benchmarks.page.

Whatever stands there between ``<!-- measured: … -->`` and ``<!-- end -->`` is written here, out of
the JSON files in docs/benchmarks/, so nobody types a figure; a test holds the page up to date.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

from benchmarks.statistics_of import ratios

DOCS: Final = Path(__file__).parent.parent / "docs"
PAGE: Final = DOCS / "performance.md"
MARKED: Final = re.compile(r"(<!-- measured: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
FILES: Final = (
    "routing",
    "legacy",
    "python",
    "large",
    "curve",
    "curve_connections",
    "ipc",
    "before",
    "half_load",
    "presence",
    "scale",
    "bytes",
    "where",
)
OURS, PLAIN = "majordomus", "majordomus, plain Python"
PLAIN_TWIN: Final = "majordomus, plain Python on pyzmq"
SYNC: Final = "majordomus, sync Client"
NOT_MEASURED: Final = "not measured"
MIB: Final = 1 << 20

Figures = dict[str, dict[str, Any]]
Contestant = dict[str, Any]


def figures(folder: Path = DOCS / "benchmarks") -> Figures:
    """What was measured last, by section; a section that never was is missing."""
    paths = {name: folder / f"{name}.json" for name in FILES}
    return {
        name: json.loads(path.read_text("utf-8")) for name, path in paths.items() if path.exists()
    }


def contestant(
    of: Figures,
    section: str,
    name: str,
    protocol: str = "",
    at: int = 0,
    transport: str = "",
) -> Contestant | None:
    """One of a comparison; None when it was left out."""
    comparisons = of.get(section, {}).get("comparisons", [])
    for one in comparisons[at]["contestants"] if at < len(comparisons) else ():
        carried = transport in ("", one.get("transport", ""))
        if one["name"] == name and protocol in ("", one["protocol"]) and carried:
            found: Contestant = one
            return found
    return None


# ── targets ───────────────────────────────────────────────────────────────────────────────────────


class Target(NamedTuple):
    """One line of the summary. `value` is None when it was not measured."""

    what: str
    most: bool
    bound: float
    unit: str
    value: float | None
    spread: str = ""

    def row(self) -> str:
        asked = f"{'≤' if self.most else '≥'} {self.bound:g} {self.unit}".strip()
        if self.value is None:
            return f"| {self.what} | {asked} | – | {NOT_MEASURED} |"
        good = self.value <= self.bound if self.most else self.value >= self.bound
        figure = f"{number(self.value)} {self.unit}".strip() + self.spread
        return f"| {self.what} | {asked} | {figure} | {'yes' if good else '**no**'} |"


def number(value: float) -> str:
    """With as many digits as say something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def ratio(
    what: str, most: bool, bound: float, ours: Contestant | None, theirs: Contestant | None
) -> Target:
    """Ours by theirs, of each round: its median and quartiles."""
    if ours is None or theirs is None:
        return Target(what, most, bound, "×", None)
    found = ratios(ours["judged"], theirs["judged"])
    return Target(
        what, most, bound, "×", found.median, f" ({number(found.low)} to {number(found.high)})"
    )


def targets(of: Figures) -> Iterator[Target]:
    """All of them, in the order of the page."""
    cpu = "CPU per request of the broker"
    for at, (shape, bound) in enumerate(zip(SHAPES, BY_NATS, strict=True)):
        ours, nats = (contestant(of, "routing", name, at=at) for name in (OURS, "nats-server"))
        yield ratio(f"{cpu}, {shape}, by nats-server's", True, bound, ours, nats)
    plain, proxy = (contestant(of, "routing", name, at=1) for name in (PLAIN, "zmq_proxy"))
    ours, nats = (contestant(of, "routing", name, at=1) for name in (OURS, "nats-server"))
    yield ratio(f"{cpu}, 16 × 32 × 4, by zmq_proxy's", True, 2.5, ours, proxy)
    yield ratio(f"{cpu}, 16 × 32 × 4, in plain Python, by nats-server's", True, 3.5, plain, nats)
    majortomo = contestant(of, "legacy", "majortomo")
    for protocol, name in (("mdp02", "MDP/0.2"), ("mdp01", "MDP/0.1")):
        ours = contestant(of, "legacy", OURS, protocol)
        twin = contestant(of, "legacy", PLAIN_TWIN, protocol)
        per = f"Requests per CPU second, {name}, by"
        yield ratio(f"{per} majortomo's", False, 3, ours, majortomo)
        yield ratio(f"{per} those of plain Python on pyzmq", False, 2, ours, twin)
    many = [contestant(of, "python", name) for name in (OURS, "nats-py")]
    yield ratio("Python calls a second, 64 in flight, by nats-py's", False, 4, *many)
    one = {name: contestant(of, "python", name, at=1) for name in (OURS, SYNC, "nats-py")}
    p50 = "One Python call at a time, p50"
    yield ratio(f"{p50}, by nats-py's", True, 0.4, one[OURS], one["nats-py"])
    yield ratio(f"{p50}, sync by async", True, 1.0, one[SYNC], one[OURS])
    large = [contestant(of, "large", name) for name in (OURS, "zmq_proxy")]
    yield ratio("Bodies of 1 MiB, bytes a second, by zmq_proxy's", False, 0.8, *large)
    yield memory(of, large[0])
    yield from encrypted(of)
    yield from unix_sockets(of)
    yield from by_before(of)
    yield from waiting(of)
    yield from sizes(of)


SHAPES: Final = ("1 × 512 × 1", "16 × 32 × 4", "100 × 8 × 20")
BY_NATS: Final = (1.0, 0.8, 0.65)
HALF_LOAD: Final = ("1 client, 1 worker", "16 clients, 4 workers", "100 clients, 20 workers")
CURVE, CURVE_LIBZMQ = "majordomus, CURVE", "majordomus on libzmq, CURVE"
ENCRYPTED_SIZES: Final = (16, 256, 1024, 16 * 1024)
BY_TLS: Final = (
    ("curve", 16, (1.85, 0.8, 0.55)),
    ("curve", 256, (1.45, 0.6, 0.5)),
    ("curve", 1024, (1.15, 0.65, 0.5)),
    ("zmq-curve", 16, (2.5, 1.2, 0.7)),
    ("zmq-curve", 16 * 1024, (0.75, 0.75, 0.75)),
)
"""Transport of the clients, bytes of a body, and the bound of each shape."""
BY_LIBZMQ: Final = (0.65, 0.65, 0.7)


def encrypted(of: Figures) -> Iterator[Target]:
    """CURVE by nats-server with TLS, and by CURVE through libzmq."""
    clients = {"curve": "clients of ours", "zmq-curve": "clients of libzmq"}
    for transport, size, bounds in BY_TLS:
        for place, (shape, bound) in enumerate(zip(SHAPES, bounds, strict=True)):
            at = ENCRYPTED_SIZES.index(size) * len(SHAPES) + place
            ours = contestant(of, "curve", CURVE, at=at, transport=transport)
            tls = contestant(of, "curve", "nats-server, TLS", at=at)
            what = f"CURVE, {clients[transport]}, {size:,} bytes, {shape}, by nats-server with TLS"
            yield ratio(what, True, bound, ours, tls)
    for place, (shape, bound) in enumerate(zip(SHAPES, BY_LIBZMQ, strict=True)):
        found = []
        for at in range(place, len(ENCRYPTED_SIZES) * len(SHAPES), len(SHAPES)):
            for transport in clients:
                pair = [
                    contestant(of, "curve", name, at=at, transport=transport)
                    for name in (CURVE, CURVE_LIBZMQ)
                ]
                found.append(ratio(f"CURVE, {shape}, by that of libzmq", True, bound, *pair))
        yield max(found, key=lambda one: one.value or 0)._replace(
            what=f"CURVE, {shape}, by that of libzmq: the worst size"
        )
    kinds = {one["kind"]: one for one in of.get("curve_connections", {}).get("results", ())}
    ours, theirs = (
        {"judged": kinds[kind]["rounds"]} if "rounds" in kinds.get(kind, {}) else None
        for kind in ("CURVE", "CURVE, through libzmq")
    )
    yield ratio("One new CURVE connection, by that of libzmq", True, 0.4, ours, theirs)


def unix_sockets(of: Figures) -> Iterator[Target]:
    for at, shape in enumerate(SHAPES):
        pair = [
            contestant(of, "ipc", name, at=at, transport="plain")
            for name in ("majordomus, ipc", "majordomus on libzmq, ipc")
        ]
        yield ratio(f"ipc, {shape}, by that of libzmq", True, 0.65, *pair)


def by_before(of: Figures) -> Iterator[Target]:
    """Plain TCP by plain TCP before our own ZMTP had CURVE."""
    older = f"{OURS} of {of.get('before', {}).get('commit', '')}"
    for at, shape in enumerate(SHAPES):
        pair = [contestant(of, "before", name, at=at) for name in (OURS, older)]
        yield ratio(f"Plain TCP, {shape}, by that before CURVE", True, 1.02, *pair)


def waiting(of: Figures) -> Iterator[Target]:
    for at, shape in enumerate(HALF_LOAD):
        ours, nats = (contestant(of, "half_load", name, at=at) for name in (OURS, "nats-server"))
        yield ratio(f"p99.9 at half load, {shape}, by nats-server's", True, 1.0, ours, nats)


def memory(of: Figures, ours: Contestant | None) -> Target:
    """The broker's peak with large bodies, and what may be."""
    what = "Memory of the broker, bodies of 1 MiB"
    if ours is None:
        return Target(what, True, 50, "MiB", None)
    shape = of["large"]["comparisons"][0]["shape"]
    in_flight = shape["clients"] * shape["window"] * shape["body"] / MIB
    return Target(what, True, round(in_flight * 1.2 + 50, 1), "MiB", ours["peak_memory_mib"])


def sizes(of: Figures) -> Iterator[Target]:
    presence, scale = of.get("presence", {}).get("presence", {}), of.get("scale", {})
    crowd = "9,000 workers and 9,000 clients that are idle, of one core"
    yield Target(crowd, True, 4, "%", presence.get("core_percent"))
    idle = scale.get("bytes of an idle client")
    yield Target("Memory of an idle client, of 100,000 in the core", True, 1024, "bytes", idle)
    for by, span in (("workers", "10 to 10,000 workers"), ("services", "1 to 10,000 services")):
        grows = scale.get(f"growth by {by}, percent")
        yield Target(f"One dispatch costs more from {span}", True, 20, "%", grows)


# ── what stands in the page ───────────────────────────────────────────────────────────────────────


def summary(of: Figures) -> str:
    head = "| what | target | figure | reached |\n|---|---|---|---|\n"
    return head + "\n".join(target.row() for target in targets(of))


def conditions(of: Figures) -> str:
    rows = ["| section | taken | rounds | on | with | load before |", "|---|---|---|---|---|---|"]
    for name in FILES:
        about = of.get(name, {}).get("machine")
        if about is None:
            continue
        note = of[name].get("note", "")
        turns = of[name].get("rounds")
        each = f"{turns} of {of[name]['seconds']:g} s" if turns else "one"
        rows.append(
            f"| {name} | {about['date']} | {each} | {about['processor']}, {about['cores']} cores,"
            f" {about['system']} | Python {about['python']}, libzmq {about['libzmq of pyzmq']},"
            f" {about['nats-server'].removeprefix('nats-server: ')} of nats-server,"
            f" rules {about.get('rules', 'python')}"
            f" | {about['load average before']:.1f}{'; ' if note else ''}{note} |"
        )
    return "\n".join(rows)


def comparisons(section: str) -> Callable[[Figures], str]:
    """Tables of one section: everybody's medians with their quartiles, and the ratio."""

    def tables(of: Figures) -> str:
        told = of.get(section, {}).get("comparisons", [])
        return "\n\n".join(_table(one) for one in told) if told else NOT_MEASURED

    return tables


def _table(one: dict[str, Any]) -> str:
    broker = "CPU" in one["metric"] or "broker" in one["metric"] or one["unit"] == "MB/s"
    last = "peak memory" if one["unit"] == "MB/s" else "CPU of the broker per request"
    rows = [
        f"**{one['title']}, {one['shape_text']}**\n",
        f"| | {one['metric']}, {one['unit']} | calls per second | p50, µs | p99, µs |"
        + (f" {last} |" if broker else "")
        + f" {OURS} by this |",
        "|---|---|---|---|---|" + ("---|" if broker else "") + "---|",
    ]
    for each in one["contestants"]:
        protocol = (
            "" if each["protocol"] in ("Python", "proxy", "nats") else f", {each['protocol']}"
        )
        if each.get("transport", "").startswith("zmq"):
            protocol += ", clients of libzmq"
        cells = [
            f"{each['name']}{protocol}",
            _spread(each["metric"]),
            number(each["per_second"]["median"]),
            number(each["p50_us"]["median"]),
            number(each["p99_us"]["median"]),
        ]
        if broker:
            of_memory = one["unit"] == "MB/s"
            own = each["peak_memory_mib"] if of_memory else cpu_of(each)
            cells.append(f"{number(own)} {'MiB' if of_memory else 'µs'}")
        cells.append(_spread(each["first_by_this"]))
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def cpu_of(one: Contestant) -> float:
    """Median microseconds of the broker for a request."""
    return median(turn["broker_cpu"] / turn["requests"] * 1e6 for turn in one["rounds"])


def half_load(of: Figures) -> str:
    """Each shape with its rate: what a request waits for."""
    told = of.get("half_load", {}).get("comparisons", [])
    return "\n\n".join(_waits(one) for one in told) if told else NOT_MEASURED


def _waits(one: dict[str, Any]) -> str:
    columns = (
        "at most, a second",
        "p50, µs",
        "p99, µs",
        "p99.9, µs",
        "the load was late, p99.9, µs",
        "CPU of the broker per request, µs",
        f"p99.9 of {OURS} by this",
    )
    rows = [
        f"**{one['shape_text']}: {number(one['rate'])} requests a second**\n",
        f"| | {' | '.join(columns)} |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for each in one["contestants"]:
        cells = [
            each["name"],
            number(each["most_per_second"]),
            *(_spread(each[name]) for name in ("p50_us", "p99_us", "p999_us")),
            number(each["late_p999_us"]["median"]),
            _spread(each["cpu_us"]),
            _spread(each["first_by_this"]),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _spread(of: dict[str, float]) -> str:
    return f"{number(of['median'])} ({number(of['low'])} to {number(of['high'])})"


def presence(of: Figures) -> str:
    found = of.get("presence", {}).get("presence")
    if found is None:
        return NOT_MEASURED
    each = found["heartbeats_from_broker"] / found["seconds"]
    return (
        f"| workers | clients | share of a core | of the load | heartbeats out, a second |"
        f" memory of one | lost |\n|---|---|---|---|---|---|---|\n"
        f"| {found['workers']:,} | {found['clients']:,} | {found['core_percent']} % |"
        f" {found['load_cpu_percent']} % | {each:,.0f} | {found['kib_per_peer']} KiB |"
        f" {found['workers_at_start'] - found['workers_at_end'] + found['sent_off']} |"
    )


def scale(of: Figures) -> str:
    found = of.get("scale")
    if found is None:
        return NOT_MEASURED
    rows = ["| | 1 | 10 | 100 | 1,000 | 10,000 |", "|---|---|---|---|---|---|"]
    for by in ("workers", "services"):
        costs = found[f"microseconds by {by}"]
        cells = [
            f"{costs[str(n)]:.2f} µs" if str(n) in costs else "" for n in (1, 10, 100, 1000, 10000)
        ]
        rows.append(f"| {by} | {' | '.join(cells)} |")
    return "\n".join(rows)


def where(of: Figures) -> str:
    found = of.get("where")
    if found is None or "instructions" not in found:
        return NOT_MEASURED
    steps = found["instructions"]
    total = sum(steps.values())
    rows = ["| step | instructions a request | share |", "|---|---|---|"]
    rows += [
        f"| {name} | {cost:,.0f} | {100 * cost / total:.0f} % |" for name, cost in steps.items()
    ]
    rows.append(f"| all | {total:,.0f} | |")
    alone = ", ".join(f"{cost:,.0f} {kind}" for kind, cost in found.get("rules alone", {}).items())
    rows.append(f"\nThe rules and the parser alone, without a socket: {alone}.")
    return "\n".join(rows)


def processor(of: Figures) -> str:
    found = of.get("where", {}).get("percent of the time")
    if found is None:
        return NOT_MEASURED
    rows = [f"| {name} | {share} % |" for name, share in found.items()]
    return "\n".join(["| | share of the broker's processor time |", "|---|---|", *rows])


def wire(of: Figures) -> str:
    found = of.get("bytes", {}).get("measured", {})
    rows = [
        f"| {name} | {one['legs']['client']['request'] + one['legs']['client']['reply']:g} |"
        f" {one['total']:g} |"
        for name, one in found.items()
    ]
    return "\n".join(["| | client's side | both sides |", "|---|---|---|", *rows])


def cipher(of: Figures) -> str:
    """The versions behind the section `curve`."""
    found = of.get("curve")
    if found is None:
        return NOT_MEASURED
    tls = {one["cipher"] for each in found["comparisons"] for one in each["contestants"]} - {""}
    about = found["machine"]
    return (
        f"{about['nats-server']}; its connections: {', '.join(sorted(tls)) or NOT_MEASURED}."
        f" The load: libsodium {about['libsodium of the load']},"
        f" libzmq {about['libzmq of the load']}, {about['openssl']}."
    )


BLOCKS: Final[dict[str, Callable[[Figures], str]]] = {
    "summary": summary,
    "cipher": cipher,
    "conditions": conditions,
    **{
        name: comparisons(name)
        for name in ("routing", "legacy", "python", "large", "curve", "ipc", "before")
    },
    "half_load": half_load,
    "presence": presence,
    "scale": scale,
    "where": where,
    "processor": processor,
    "bytes": wire,
}


def render(text: str, of: Figures) -> str:
    """The page with these figures. Raises: KeyError for a mark that nothing is known for."""
    return MARKED.sub(lambda found: f"{found[1]}{BLOCKS[found[2]](of)}\n{found[4]}", text)


def write() -> None:
    PAGE.write_text(render(PAGE.read_text("utf-8"), figures()), "utf-8")


if __name__ == "__main__":
    write()
    print(f"→ {PAGE}")

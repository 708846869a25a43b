"""How long a page of `mmi.metrics` holds up a broker's loop: python -m benchmarks.snapshot.

10,000 workers, 1,000 services with times in all histograms, and 10,000 clients. The time of a page
is the least of several, so that other programs on the machine are not in it.

With --count: the instructions of one scrape, as the exporter asks it (`broker`, `services`,
`workers` and `mmi.ended`), of a broker that has served the traffic of benchmarks/instructions.py,
and what they are of RATE requests, whose instructions instructions.json has. Counted by callgrind.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import time
from typing import Final

from benchmarks import instructions
from benchmarks.instructions import new_machine
from majordomus.core.broker import mmi
from majordomus.core.broker.machine import BrokerMachine
from majordomus.core.broker.state.registry import RULES
from majordomus.protocol import mdp03, spec

WORKERS: Final = 10_000
SERVICES: Final = 1_000
CLIENTS: Final = 10_000
TIMES: Final = 200
ROUNDS: Final = 5
MOST_SHARE: Final = 0.02
MOST: Final = 0.002
"""Seconds that one page may take."""


RATE: Final = 10_000
"""Requests per second of the broker that is scraped."""
EVERY: Final = 15
"""Seconds between two scrapes."""
FEW, MANY = 2, 22
"""Scrapes of the processes that are counted."""
QUESTIONS: Final = (
    *((b"mmi.metrics", [section]) for section in (b"", b"services", b"workers")),
    (b"mmi.ended", [b"", b"0"]),
)


def full_machine() -> BrokerMachine:
    """A broker with all of them."""
    machine = new_machine()
    for n in range(WORKERS):
        name = b"service-number-%04d" % (n % SERVICES)
        ready = mdp03.pack(spec.READY, code=100, service=name)
        machine.receive(b"\1worker-of-te%04d" % n, [ready], 1.0)
    beat = mdp03.pack(spec.HELLO)
    for n in range(CLIENTS):
        machine.receive(b"\1client-of-te%04d" % n, [beat], 1.0)
    machine.take_effects()
    chance = random.Random(20)
    for service in machine.registry.services.values():
        for _ in range(TIMES):
            took = chance.lognormvariate(-4, 2)
            service.note(took)
            service.note_wait(took / 2, took)
    return machine


def measure(machine: BrokerMachine, section: bytes) -> tuple[int, float, float, int]:
    """The pages of a section, the slowest page and all of them in seconds, and their bytes."""
    pages, slowest, seconds, size = 0, 0.0, 0.0, 0
    cursor: list[bytes] = []
    while True:
        body = [section, *cursor]
        took = float("inf")
        for _ in range(ROUNDS):
            began = time.perf_counter()
            answer = mmi.answer(machine.registry, b"mmi.metrics", body, 2.0)
            took = min(took, time.perf_counter() - began)
        pages, slowest, seconds = pages + 1, max(slowest, took), seconds + took
        size += sum(map(len, answer))
        if len(answer) < 3:
            return pages, slowest, seconds, size
        cursor = [answer[2]]


def scrape(times: int) -> None:
    """Serve FEW requests of the traffic, then answer so many scrapes."""
    machine = new_machine()
    for n in range(instructions.WORKERS):
        ready = mdp03.pack(spec.READY, code=1000, service=b"echo")
        machine.receive(b"\1worker-of-test%d" % n, [ready], 1.0)
    for message in instructions.traffic(instructions.FEW):
        machine.receive(*message, 1.0)
    machine.take_effects()
    instructions.settle()
    number = 1 << 40
    for turn in range(times):
        for name, body in QUESTIONS:
            number += 1
            header = mdp03.pack(spec.REQUEST, id=number, ttl=5000, service=name)
            machine.receive(b"\1exporter-of-tes", [header, *body], 2.0 + turn)
            machine.tick(2.0 + turn)
            machine.take_effects()


def count() -> int:
    """Print what a scrape costs."""
    if not shutil.which("valgrind"):
        print("valgrind is not here: nothing was counted")
        return 0
    few, many = (
        instructions.count_process(["benchmarks.snapshot", "--scrape", str(times)])
        for times in (FEW, MANY)
    )
    request = instructions.bound(instructions.REQUEST) or instructions.per_request()
    one = (many - few) / (MANY - FEW)
    share = one / (EVERY * RATE * request)
    print(
        f"{instructions.kind()}: {one:,.0f} instructions for a scrape, {request:,.0f} for a "
        f"request; a scrape every {EVERY} s is {share:.2%} of {RATE:,} requests a second"
    )
    return 0 if share <= MOST_SHARE else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", action="store_true", help="count the instructions of a scrape")
    parser.add_argument("--scrape", type=int, metavar="N", help="be the process that is counted")
    asked = parser.parse_args()
    if asked.scrape is not None:
        scrape(asked.scrape)
        return 0
    return count() if asked.count else times()


def times() -> int:
    """Print how long each section holds up the loop."""
    machine = full_machine()
    good = True
    for section in (b"broker", b"services", b"workers", b"clients"):
        pages, slowest, seconds, size = measure(machine, section)
        good = good and slowest <= MOST
        print(
            f"{RULES} {section.decode()}: {pages} pages, the slowest {slowest * 1000:.2f} ms, "
            f"all {seconds * 1000:.1f} ms, {size:,} bytes"
        )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

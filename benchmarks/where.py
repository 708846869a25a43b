"""Where a request's time goes in the broker: python -m benchmarks.where.

Two looks at one broker under the load of 16 clients × 32 × 4 workers, MDP/0.3, 16-byte bodies.
Callgrind counts the instructions of the broker's process outside the kernel: two runs, and what
more requests cost more; no noise of the machine is in them. The clock of that broker is slow, as
it is itself under valgrind: a turn that takes long would make the next ones small. Perf samples how
the processor's time divides between the broker's thread and others, and what of it is the kernel's.
The instructions of the rules alone, without a socket, are those of benchmarks/instructions.py.
JSON goes to docs/benchmarks/where.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from benchmarks import peers
from benchmarks.presence import ask_broker
from majordomus import Broker

OUTPUT: Final = Path(__file__).parent.parent / "docs" / "benchmarks" / "where.json"
SHAPE: Final = ("--clients", "16", "--window", "32", "--workers", "4", "--body", "16")
FEW, MANY = 5_000, 30_000
SLOWER: Final = 100.0
"""Seconds of the machine for one of the broker that is counted."""
SAMPLED: Final = 4.0
PATIENCE: Final = 60.0
"""Seconds for a broker to start and to end under valgrind."""

FUNCTIONS: Final = {
    "receive": r"_6router_9TcpRouter_\d*receive\b",
    "machine": r"_13BrokerMachine_receive_all\b",
    "parse": r"_5mdp03_6Fields_read_recognised\b",
    "send": r"_6router_9TcpRouter_\d*send\b",
    "wait": r"_6router_9TcpRouter_\d*wait\b",
}
"""The compiled functions whose cost, with all that they call, is taken out of the main thread's."""
OTHER_THREADS: Final = "threads"
ALL: Final = "all"
_COST = re.compile(r"^\s*([\d,]+) ")


# ── instructions ──────────────────────────────────────────────────────────────────────────────────


def annotated(output: Path) -> dict[str, int]:
    """Inclusive instructions of one thread: all of it, and each of FUNCTIONS."""
    command = ["callgrind_annotate", "--inclusive=yes", "--threshold=100", str(output)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    found = dict.fromkeys([ALL, *FUNCTIONS], 0)
    for line in lines:
        cost = _COST.match(line)
        if cost is None:
            continue
        number = int(cost[1].replace(",", ""))
        if "PROGRAM TOTALS" in line:
            found[ALL] = number
        for name, pattern in FUNCTIONS.items():
            if re.search(pattern, line):
                found[name] = max(found[name], number)
    return found


def serve(port: int) -> None:
    """The broker that is counted."""
    began = time.monotonic()
    Broker(
        bind=f"tcp://127.0.0.1:{port}",
        clock=lambda: began + (time.monotonic() - began) / SLOWER,
    ).run()


def run_counted(requests: int, folder: Path) -> tuple[Counter[str], int]:
    """Instructions of a broker that serves about so many requests, and how many they were."""
    output = folder / f"{requests}.callgrind"
    valgrind = [
        *("valgrind", "--tool=callgrind", "--separate-threads=yes"),
        f"--callgrind-out-file={output}",
    ]
    peer = peers.NATIVE._replace(
        command=lambda port, _: [
            *(*valgrind, sys.executable, "-m", "benchmarks.where", "--serve", str(port))
        ],
        environment=(("PYTHONHASHSEED", "0"), ("PYTHONDONTWRITEBYTECODE", "1")),
    )
    with peers.running(peer, PATIENCE) as broker:
        command = [str(peers.LOAD), "--port", str(broker.port), *SHAPE]
        command += ["--count", str(requests), "--seconds", "120", "--warmup", "0"]
        subprocess.run(command, check=True, capture_output=True)
        served = int(ask_broker(broker.port, b"mmi.stats")["accepted"])
    counted: Counter[str] = Counter()
    for thread in sorted(folder.glob(f"{output.name}-*")):
        told = annotated(thread)
        if told["machine"]:
            counted.update(told)
        else:
            counted[OTHER_THREADS] += told[ALL]
    if not all(counted[name] for name in ("machine", "parse", "receive", "send")):
        raise RuntimeError("callgrind did not find the compiled rules: is this the wheel?")
    return counted, served


def per_request() -> dict[str, float]:
    """Instructions of the steps of one request."""
    with tempfile.TemporaryDirectory() as folder:
        few, served_few = run_counted(FEW, Path(folder))
        many, served_many = run_counted(MANY, Path(folder))
    of = {name: (many[name] - few[name]) / (served_many - served_few) for name in many}
    known = of["receive"] + of["machine"] + of["send"] + of["wait"]
    return {
        "wire, receive": of["receive"],
        "parse": of["parse"],
        "rules": of["machine"] - of["parse"],
        "wire, send": of["send"],
        "wait": of["wait"],
        "rest of the loop": of[ALL] - known,
        "other threads": of.get(OTHER_THREADS, 0.0),
    }


def of_the_rules() -> dict[str, float]:
    """What benchmarks.instructions counts, compiled and in plain Python."""
    found: dict[str, float] = {}
    for kind, path in (("compiled", None), ("plain Python", peers.PLAIN_BUILD)):
        if path is not None and not path.is_dir():
            continue
        environment = {**os.environ, **({"PYTHONPATH": str(path)} if path else {})}
        command = [sys.executable, "-m", "benchmarks.instructions"]
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
        counted = re.search(r": ([\d,]+) instructions for a request", done.stdout)
        if counted is None:
            raise RuntimeError(f"nothing was counted: {done.stdout}{done.stderr[-500:]}")
        found[kind] = int(counted[1].replace(",", ""))
    return found


# ── time ──────────────────────────────────────────────────────────────────────────────────────────


def shares() -> dict[str, float]:
    """Percent of the broker's processor time, by thread and by who runs: its code or the kernel."""
    with tempfile.TemporaryDirectory() as folder, peers.running(peers.NATIVE) as broker:
        command = [str(peers.LOAD), "--port", str(broker.port), *SHAPE]
        load = subprocess.Popen(
            [*command, "--seconds", str(SAMPLED + 1)], stdout=subprocess.DEVNULL
        )
        time.sleep(1)
        output = Path(folder) / "perf"
        record = ["perf", "record", "-q", "-e", "cpu-clock", "-F", "2000", "-g"]
        record += ["-o", str(output), "-p", str(broker.pid), "--", "sleep", str(SAMPLED)]
        subprocess.run(record, check=True, capture_output=True)
        load.wait()
        script = ["perf", "script", "-i", str(output), "-F", "comm,ip,sym"]
        text = subprocess.run(script, check=True, capture_output=True, text=True).stdout
    seen: Counter[str] = Counter()
    for sample in text.split("\n\n"):
        lines = sample.strip().splitlines()
        if not lines:
            continue
        thread = "other threads" if "ZMQbg" in lines[0] else "main thread"
        kernel = len(lines) > 1 and lines[1].split()[0].startswith("ffff")
        seen[f"{thread}, {'kernel' if kernel else 'own code'}"] += 1
    return {name: round(100 * count / seen.total(), 1) for name, count in seen.most_common()}


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--serve", type=int, metavar="PORT", help="be the broker that is counted")
    asked = parser.parse_args()
    if asked.serve is not None:
        serve(asked.serve)
        return
    peers.build()
    told: dict[str, Any] = {"shape": "16 clients × 32 × 4 workers, 16 bytes"}
    if shutil.which("valgrind"):
        told["instructions"] = {name: round(cost) for name, cost in per_request().items()}
        told["rules alone"] = of_the_rules()
    else:
        print("valgrind is not here: no instructions are counted")
    if shutil.which("perf"):
        told["percent of the time"] = shares()
    else:
        print("perf is not here: no samples are taken")
    print(json.dumps(told, indent=1, ensure_ascii=False))
    OUTPUT.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

"""kill -9 of a real broker and of its workers under load, with ledgers on both sides.

    python -m tests.durable.kill --rounds 1000 --seed 1

In each round callers submit and call, with keys and without, while workers answer with a token that
is different at every run. At a random moment the broker is killed, now and then a worker too, and
both are started again. Judged, after every round and at the end:

* each id that a caller was given leads to an outcome (nothing acknowledged is lost);
* that outcome is the answer of a run that a worker has written into its ledger, and it is the same
  whenever it is read (one outcome);
* runs are counted: a request with one outcome has at least one, at most `max_attempts` and one more
  for each kill.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from majordomus import BrokerLost, Client, DeadlineExceeded, MajordomusError

WORKER = """
import os, sys, threading, uuid
from majordomus import Worker
url, ledger, capacity = sys.argv[1], open(sys.argv[2], "ab", buffering=0), 16
worker = Worker(url, threads=8)

@worker.service("job", durable=True, max_attempts=9)
def job(request):
    token = uuid.uuid4().hex
    ledger.write(f"{request.text} {token} {request.attempt}\\n".encode())
    return token

worker.run()
"""
CALLERS = 3
PATIENCE = 90.0
"""Seconds in which a request that was acknowledged has to have an outcome, once it is asked for."""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class WrongError(AssertionError):
    """A round has shown a fault."""


class Rounds:
    """One series of rounds on one store.

    acknowledged: id → what was asked. outcomes: what was asked → the token that was read first.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.url = f"tcp://127.0.0.1:{free_port()}"
        self.ledger = folder / "runs"
        self.acknowledged: dict[str, str] = {}
        self.outcomes: dict[str, str] = {}
        self.kills = 0
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._wrong: WrongError | None = None
        self._last = 0
        self.broker = self._start_broker()
        self.workers = [self._start_worker() for _ in range(2)]

    # ── processes ─────────────────────────────────────────────────────────────────────────────────

    def _start_broker(self) -> subprocess.Popen[bytes]:
        """Start the broker. A client that connects to its own port meanwhile may hold that for a
        moment (TCP simultaneous open on the loopback interface): then it is tried again."""
        for _ in range(20):
            process, errors = self._try_broker()
            if process is not None:
                return process
            time.sleep(0.2)
        raise WrongError(f"the broker did not start: {errors}")

    def _try_broker(self) -> tuple[subprocess.Popen[bytes] | None, str]:
        store = f"sqlite:{self.folder / 'store.db'}"
        command = ["-m", "majordomus.cli", "broker", "--bind", self.url, "--store", store]
        extra = ["--set", "retry_delay=0.05", "--set", "drain_timeout=5"]
        process = subprocess.Popen(
            [sys.executable, *command, *extra], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        line = process.stdout.readline() if process.stdout is not None else b""
        if b"listening" not in line:
            _, errors = process.communicate(timeout=10)
            if b"in use" not in errors:
                raise WrongError(f"the broker did not start: {errors.decode()}")
            return None, errors.decode()
        return process, ""

    def _start_worker(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", WORKER, self.url, str(self.ledger)]
        return subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGKILL)
        process.communicate()

    # ── callers ───────────────────────────────────────────────────────────────────────────────────

    def _name(self) -> str:
        with self._lock:
            self._last += 1
            return f"r{self._last}"

    def _caller(self) -> None:
        chance = random.Random(threading.get_ident())
        with Client(self.url, timeout=20.0) as client:
            while not self._stopped.is_set():
                name = self._name()
                key = f"key-{name}" if chance.random() < 0.5 else None
                try:
                    if chance.random() < 0.6:
                        id = client.submit_durable("job", name, key=key)
                        with self._lock:
                            self.acknowledged[id] = name
                        self.counts["submitted"] += 1
                    else:
                        reply = client.call("job", name, durable=True, key=key)
                        self.told(name, reply.text)
                        self.counts["called"] += 1
                except (BrokerLost, DeadlineExceeded):
                    self.counts["unknown"] += 1  # it is stored or not
                except WrongError as error:
                    self._wrong = error
                except MajordomusError as error:
                    self.counts[type(error).__name__] += 1

    def told(self, name: str, token: str) -> None:
        with self._lock:
            if self.outcomes.setdefault(name, token) != token:
                raise WrongError(f"{name}: first {self.outcomes[name]}, now {token}")

    # ── rounds ────────────────────────────────────────────────────────────────────────────────────

    def run(self, rounds: int) -> None:
        """Do the rounds, then check everything. The processes are ended in any case."""
        callers = [threading.Thread(target=self._caller) for _ in range(CALLERS)]
        try:
            for caller in callers:
                caller.start()
            for number in range(rounds):
                self._wait_for_work()
                time.sleep(self.random.uniform(0.01, 0.25))
                if self.random.random() < 0.3:
                    at = self.random.randrange(len(self.workers))
                    self._kill(self.workers[at])
                    self.workers[at] = self._start_worker()
                    self.kills += 1
                self._kill(self.broker)
                self.kills += 1
                self.broker = self._start_broker()
                if number % 10 == 9:
                    self.check(sample=50)
            self._stopped.set()
            for caller in callers:
                caller.join()
            if self._wrong is not None:
                raise self._wrong
            self.check()
            self._judge_ledger()
        finally:
            self._stopped.set()
            for process in (self.broker, *self.workers):
                self._kill(process)
            for caller in callers:
                caller.join()

    def _wait_for_work(self) -> None:
        """Wait until something more has been acknowledged since the last kill."""
        before, until = len(self.acknowledged), time.monotonic() + PATIENCE
        while len(self.acknowledged) < before + 2 and time.monotonic() < until:
            time.sleep(0.01)

    def check(self, sample: int = 0) -> None:
        """Read outcomes, and compare them with what was read before."""
        with self._lock:
            known = list(self.acknowledged.items())
        if sample:
            known = self.random.sample(known, min(sample, len(known)))
        with Client(self.url, timeout=20.0) as client:
            for id, name in known:
                until = time.monotonic() + PATIENCE
                self.told(name, self._result(client, id, name, until))
        self.counts["read"] += len(known)

    def _result(self, client: Client, id: str, name: str, until: float) -> str:
        while time.monotonic() < until:
            try:
                return client.result(id, timeout=5.0).text
            except (BrokerLost, DeadlineExceeded):
                continue
            except MajordomusError as error:
                raise WrongError(f"{name} was acknowledged, and then: {error!r}") from error
        raise WrongError(f"{name} was acknowledged, and has no outcome")

    def _judge_ledger(self) -> None:
        runs: dict[str, set[str]] = {}
        for line in self.ledger.read_text().splitlines():
            name, token, _ = line.split()
            runs.setdefault(name, set()).add(token)
        for name, token in self.outcomes.items():
            if token not in runs.get(name, ()):
                raise WrongError(f"{name}: no worker has answered {token}")
        self.counts["runs"] = sum(map(len, runs.values()))
        self.counts["ran twice or more"] = sum(len(found) > 1 for found in runs.values())
        most = max(map(len, runs.values()), default=0)
        if most > 9 + self.kills:
            raise WrongError(f"a request ran {most} times")


def run(rounds: int, seed: int) -> Rounds:
    """Do a series of rounds in a new folder. Raises: WrongError."""
    with tempfile.TemporaryDirectory() as folder:
        series = Rounds(Path(folder), seed)
        series.run(rounds)
        return series


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=os.getpid())
    options = parser.parse_args()
    series = run(options.rounds, options.seed)
    print(f"{options.rounds} rounds, {series.kills} kills, seed {options.seed}")
    for what, count in sorted(series.counts.items()):
        print(f"{count:>9,} {what}")
    print(f"{len(series.acknowledged):,} acknowledged, 0 lost; one outcome each")


if __name__ == "__main__":
    main()

"""Runs raw workers of one dialect as a process.

    python -m tests.peers.serve DIALECT ENDPOINT SERVICE=HANDLER…

Prints `ready` after sending every READY. Runs until SIGTERM or until its parent process ends.
"""

from __future__ import annotations

import os
import signal
import sys

from tests.peers.loop import HANDLERS, Worker, serve
from tests.peers.table import WORKERS


def main(dialect: str, endpoint: str, *served: str) -> None:
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    parent = os.getppid()
    workers: list[Worker] = []
    for item in served:
        service, _, handler = item.encode().partition(b"=")
        workers.append(WORKERS[dialect](endpoint, service, HANDLERS[handler]))
    print("ready", flush=True)
    serve(workers, lambda: not stopped and os.getppid() == parent)


if __name__ == "__main__":
    main(*sys.argv[1:])

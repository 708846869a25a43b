"""A worker with PyPI's `majortomo` that replies in parts.

    python -m tests.peers.majortomo_worker URL SERVICE

Prints `ready` after it has connected; ends on SIGTERM.
"""

from __future__ import annotations

import signal
import sys

from majortomo import Worker
from majortomo.error import Disconnected


def main(endpoint: str, service: str) -> None:
    worker = Worker(endpoint, service)
    signal.signal(signal.SIGTERM, lambda *_: worker.close())
    worker.connect()
    print("ready", flush=True)
    try:
        while True:
            client, body = worker.wait_for_request()
            for frame in body:
                worker.send_reply_partial(client, [b"part", frame])
            worker.send_reply_final(client, [b"end"])
    except Disconnected:
        pass


if __name__ == "__main__":
    main(*sys.argv[1:])

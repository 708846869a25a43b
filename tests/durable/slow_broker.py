"""The command `majordomus` with a slow disk, for tests that have to meet it while it writes.

python slow_broker.py Append|Complete|none SECONDS ARGUMENT…

Each write with an operation of that kind prints "writing" to stderr and takes so much longer.
"""

from __future__ import annotations

import sys
import time

from majordomus.cli import main
from majordomus.core.broker.durable.records import Answer
from majordomus.durable import runner
from majordomus.durable.store import Numbered, Store

_, KIND, SECONDS, *ARGUMENTS = sys.argv
quick = runner.write


def slow(store: Store, batch: list[Numbered]) -> list[tuple[int, Answer]]:
    """Write the batch, late."""
    if any(type(one).__name__ == KIND for _, one in batch):
        print("writing", file=sys.stderr, flush=True)
        time.sleep(float(SECONDS))
    return quick(store, batch)


if __name__ == "__main__":
    runner.write = slow
    sys.argv = ["majordomus", *ARGUMENTS]
    main()

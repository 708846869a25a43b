"""Open the store of a broker, and let its machine continue from what is stored.

It is imported by a broker with a store alone.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from majordomus.core.broker.contract import Machine
from majordomus.core.broker.durable.records import START_BITS, Opened
from majordomus.durable.opening import open_store
from majordomus.durable.runner import StoreThread
from majordomus.durable.store import StoreError, StoreUnusableError, scan_all


def connect(
    named: str, machine: Machine, wake: Callable[[], None], now: float
) -> tuple[StoreThread, int]:
    """Open the store called `named`, let `machine` continue with everything in it that has no
    outcome, and return its thread, not started yet, and how many that were.

    Raises: StoreUnusableError.
    """
    store = open_store(named)
    try:
        start = secrets.randbits(START_BITS)
        opened = Opened(store.name, store.secret, store.epoch, time.time(), start)
        machine.use_store(opened, now)
        count = 0
        for rows in scan_all(store):
            machine.recover(rows, now)
            count += len(rows)
        machine.store_state(store.state())
    except StoreError as error:
        store.close()
        raise StoreUnusableError(f"--store {named}: {error}") from error
    return StoreThread(store, wake), count

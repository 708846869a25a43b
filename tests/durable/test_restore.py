"""A restored copy of a store gives no number again that the original has given since."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from majordomus import Broker, BrokerSettings, Client, Expired
from majordomus.core.broker.durable.records import COUNTER_BITS
from majordomus.durable import offline
from majordomus.durable.store import START_BITS, first_number

MORE = 30


def backup(path: Path, copy: Path) -> None:
    """The command `majordomus durable backup`; the broker may run."""
    offline.backup(path, copy)


def snapshot(path: Path, copy: Path) -> None:
    """A snapshot of the file system: the file and its log at one moment."""
    shutil.copy(path, copy)
    if (log := Path(f"{path}-wal")).exists():
        shutil.copy(log, f"{copy}-wal")


def restore(copy: Path, path: Path) -> None:
    """Put the copy in the place of the store, as docs/durable.md says."""
    Path(f"{path}-wal").unlink(missing_ok=True)
    for end in ("", "-wal"):
        if Path(f"{copy}{end}").exists():
            shutil.copy(f"{copy}{end}", f"{path}{end}")


@pytest.mark.parametrize("runs", [True, False], ids=["running", "stopped"])
@pytest.mark.parametrize("make", [backup, snapshot])
def test_id_given_after_a_backup_leads_to_no_request_of_the_restored_store(
    tmp_path: Path, make: Callable[[Path, Path], None], runs: bool
) -> None:
    path, copy = tmp_path / "store.db", tmp_path / "copy.db"
    settings = BrokerSettings(store=f"sqlite:{path}")

    def submit(count: int) -> list[str]:
        with Broker(settings, bind="tcp://127.0.0.1:0") as broker, Client(broker.endpoints) as one:
            ids = [one.submit_durable("nothing", str(n)) for n in range(count)]
            if runs and not copy.exists():
                make(path, copy)
                ids += [one.submit_durable("nothing", str(n)) for n in range(count)]
            return ids

    before = submit(MORE)
    if not runs:
        make(path, copy)
    since = [*before[MORE:], *submit(MORE), *submit(MORE)]
    again: list[str] = []
    for _ in range(2):  # the same copy may be restored twice
        restore(copy, path)
        again += [*submit(MORE), *submit(MORE), *submit(MORE)]
    assert len({*before[:MORE], *since, *again}) == MORE + len(since) + len(again)
    with Broker(settings, bind="tcp://127.0.0.1:0") as broker, Client(broker.endpoints) as client:
        for id in since:
            with pytest.raises(Expired):
                client.result(id, timeout=0)
        client.withdraw(before[0])


def test_numbers_of_an_epoch_begin_at_a_random_place_and_stay_in_it() -> None:
    firsts = {first_number(7) for _ in range(1000)}
    assert len(firsts) == 1000
    assert {first >> COUNTER_BITS for first in firsts} == {7}
    assert max(firsts) - (7 << COUNTER_BITS) <= 1 << START_BITS

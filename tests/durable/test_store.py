"""One contract for every store: the one in memory, and SQLite in both libraries."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path

import pytest

from majordomus.core.broker.durable.records import (
    FULL,
    Append,
    Attempted,
    Complete,
    Page,
    Read,
    Remove,
    Sweep,
)
from majordomus.durable.memory import MemoryStore, without_bodies
from majordomus.durable.sqlite import SqliteStore
from majordomus.durable.store import Store, scan_all, write
from tests.durable.samples import end, row

Reopen = Callable[[], Store]
SMALL = 1 << 20


class Opened:
    """A store that a test may close and open again."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.path = folder / "store.db"
        self.store: Store = MemoryStore() if kind == "memory" else self._sqlite()

    def _sqlite(self) -> Store:
        return SqliteStore(self.path, ballast=SMALL)

    def again(self) -> Store:
        """Close the store, and open what it has stored."""
        self.store.close()
        if isinstance(self.store, MemoryStore):
            self.store = MemoryStore(self.store.rows, self.store.epoch + 1)
        else:
            self.store = self._sqlite()
        return self.store


@pytest.fixture(params=["memory", "apsw", "sqlite3"])
def opened(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Opened]:
    if request.param == "sqlite3":
        monkeypatch.setitem(sys.modules, "apsw", None)
    elif request.param == "apsw":
        pytest.importorskip("apsw", reason="apsw is not installed")
    made = Opened(request.param, tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def store(opened: Opened) -> Store:
    return opened.store


def append(store: Store, *numbers: int, **fields: object) -> None:
    assert write(store, [(n, Append(row(n, **fields))) for n in numbers]) == []


def test_row_that_is_appended_is_read_as_it_was(store: Store) -> None:
    append(store, 7)
    assert write(store, [(1, Read(7)), (2, Read(8))]) == [(1, row(7)), (2, None)]


def test_row_without_limit_of_its_life_is_read_as_it_was(store: Store) -> None:
    append(store, 7, expires=inf, owner="", metadata=b"", body=[])
    expected = row(7, expires=inf, owner="", metadata=b"", body=[])
    assert write(store, [(1, Read(7))]) == [(1, expected)]


def test_rows_survive_a_restart_and_the_epoch_grows(opened: Opened) -> None:
    append(opened.store, 1, 2)
    write(opened.store, [(3, end(1))])
    before, secret = opened.store.epoch, opened.store.secret
    again = opened.again()
    assert again.epoch == before + 1
    assert again.secret == secret
    assert [r.number for page in scan_all(again) for r in page] == [2]
    read = row(1, attempts=2, outcome=end(1).outcome)
    assert write(again, [(1, Read(1))]) == [(1, read)]


def test_scan_returns_rows_without_outcome_in_pages_in_order(store: Store) -> None:
    append(store, 5, 1, 3, 9)
    write(store, [(1, end(3))])
    assert [r.number for r in store.scan(0, 2)] == [1, 5]
    assert [r.number for r in store.scan(5, 2)] == [9]
    assert store.scan(9, 2) == []


def test_first_outcome_stays_when_another_one_follows(store: Store) -> None:
    append(store, 1)
    write(store, [(1, end(1))])
    write(store, [(2, end(1, status=500)), (3, Attempted(1, 9, 9, 9.0))])
    [(_, found)] = write(store, [(4, Read(1))])
    assert found == row(1, attempts=2, outcome=end(1).outcome)


def test_outcome_of_a_row_that_is_gone_is_ignored(store: Store) -> None:
    assert write(store, [(1, end(4)), (2, Remove(4)), (3, Read(4))]) == [(3, None)]


def test_attempts_are_recorded_with_the_limit_and_the_time(store: Store) -> None:
    append(store, 1)
    write(store, [(1, Attempted(1, 2, 5, 77.5))])
    assert store.scan(0, 9) == [row(1, attempts=2, most=5, due=77.5)]


def test_second_append_with_a_key_returns_the_first_row(store: Store) -> None:
    append(store, 1, key=b"k", digest=b"d")
    found = write(store, [(1, Append(row(2, key=b"k", digest=b"e"))), (2, Read(2))])
    assert found == [(1, row(1, key=b"k", digest=b"d")), (2, None)]


def test_two_appends_with_a_key_in_one_batch_store_the_first(store: Store) -> None:
    batch = [(n, Append(row(n, key=b"k", digest=b"d"))) for n in (1, 2)]
    assert write(store, batch) == [(2, row(1, key=b"k", digest=b"d"))]


def test_append_finds_the_outcome_that_its_own_batch_stores(store: Store) -> None:
    append(store, 1, key=b"k", digest=b"d")
    [(number, found)] = write(store, [(1, Append(row(2, key=b"k"))), (2, end(1))])
    assert (number, found) == (1, row(1, key=b"k", digest=b"d", attempts=2, outcome=end(1).outcome))


@pytest.mark.parametrize("other", [{"owner": "bob"}, {"service": b"fax"}, {"key": b"K"}])
def test_key_belongs_to_its_owner_and_service(store: Store, other: dict[str, object]) -> None:
    append(store, 1, key=b"k")
    append(store, 2, **{"key": b"k", **other})


def test_key_is_free_again_when_its_row_is_removed(store: Store) -> None:
    append(store, 1, key=b"k")
    write(store, [(1, Remove(1))])
    append(store, 2, key=b"k")


def test_sweep_deletes_outcomes_whose_time_is_over_and_nothing_else(store: Store) -> None:
    append(store, 1, 2, 3, 4)
    write(store, [(1, end(1, until=30)), (2, end(2, until=31)), (3, end(3, until=90))])
    assert write(store, [(1, Sweep(40, 1))]) == [(1, 1)]
    assert write(store, [(1, Sweep(40, 9))]) == [(1, 1)]
    found = write(store, [(n, Read(n)) for n in (1, 2, 3, 4)])
    assert [number for number, one in found if one is not None] == [3, 4]


def test_page_lists_every_row_without_its_bodies(store: Store) -> None:
    append(store, 1, 2, 3)
    write(store, [(1, end(2))])
    second = row(2, attempts=2, outcome=end(2).outcome)
    expected = [without_bodies(row(1)), without_bodies(second)]
    assert write(store, [(1, Page(0, 2))]) == [(1, expected)]
    assert write(store, [(1, Page(2, 2))]) == [(1, [without_bodies(row(3))])]


def test_store_without_space_refuses_new_rows_and_takes_outcomes(store: Store) -> None:
    append(store, 1)
    assert store.make_room()
    batch = [(1, Append(row(2))), (2, end(1)), (3, Read(1)), (4, Read(2))]
    stored = row(1, attempts=2, outcome=end(1).outcome)
    assert write(store, batch) == [(1, FULL), (3, stored), (4, None)]


def test_transaction_that_fails_changes_nothing(store: Store) -> None:
    append(store, 1)
    store.begin()
    store.append([row(2)])
    store.complete([end(1)])
    store.rollback()
    assert write(store, [(1, Read(1)), (2, Read(2))]) == [(1, row(1)), (2, None)]


def test_state_counts_the_rows(store: Store) -> None:
    append(store, 1, 2, 3)
    write(store, [(1, Remove(1)), (2, Remove(8)), (3, end(2))])
    store.maintain(idle=True)
    if isinstance(store, SqliteStore):
        store._look()
    assert store.state().rows == 2
    assert store.state().accepts


def test_complete_keeps_long_bodies(store: Store) -> None:
    body = [bytes(300_000), b"", b"x" * 70_000]
    append(store, 1, body=body)
    outcome = end(1).outcome.replace(frames=body)
    write(store, [(1, Complete(1, 1, outcome))])
    assert write(store, [(1, Read(1))]) == [(1, row(1, body=body, attempts=1, outcome=outcome))]

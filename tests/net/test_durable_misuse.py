"""Durable requests as a careless team uses them: restored files, full stores, wrong names."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from majordomus import Broker, BrokerSettings, Client, Expired, NotFound
from majordomus.durable import offline

Settings = Callable[..., BrokerSettings]
NOWHERE = "tcp://127.0.0.1:0"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def settings(file: Path, **fields: object) -> BrokerSettings:
    return BrokerSettings(store=f"sqlite:{file}", **fields)  # type: ignore[arg-type]


def submit_at_a_new_broker(file: Path, *bodies: str) -> list[str]:
    with Broker(settings(file), bind=NOWHERE) as broker, Client(broker.endpoints) as client:
        return [client.submit_durable("mail", body) for body in bodies]


def test_restored_store_gives_no_id_again(file: Path, tmp_path: Path) -> None:
    submit_at_a_new_broker(file, "old")
    copy = tmp_path / "copy.db"
    offline.backup(file, copy)
    lost = [id for _ in range(6) for id in submit_at_a_new_broker(file, "a", "b")]
    shutil.copy(copy, file)  # as after a lost disk
    again = [id for _ in range(6) for id in submit_at_a_new_broker(file, "a", "b")]
    assert not set(lost) & set(again)
    with Broker(settings(file), bind=NOWHERE) as broker, Client(broker.endpoints) as client:
        for id in lost:
            with pytest.raises((Expired, NotFound)):
                client.result(id, timeout=0)

"""The programs of the pages about contracts and testing run as they stand."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from majordomus.testing import TestBroker
from tests.test_typing import programs

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("page", "tests"), [("testing", 3), ("services", 1)])
def test_page_tests_its_service(page: str, tests: int, tmp_path: Path) -> None:
    for name, text in programs(ROOT / f"docs/{page}.md").items():
        (tmp_path / name).write_text(text, "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "majordomus.testing.plugin", str(tmp_path)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert f"{tests} passed" in done.stdout, done.stdout + done.stderr


def test_page_on_contracts_has_a_service_and_its_client(
    any_broker: TestBroker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, text in programs(ROOT / "docs/contracts.md").items():
        (tmp_path / name).write_text(text, "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("notes", "client"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    notes, client = importlib.import_module("notes"), importlib.import_module("client")
    any_broker.add(notes.worker)
    client.main(any_broker.client())
    assert capsys.readouterr().out == "1 milk\nmilk\n[1]\n{'number': 99}\n"
    for name in ("notes", "client"):
        monkeypatch.delitem(sys.modules, name)

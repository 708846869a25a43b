"""Only `majordomus.protocol` knows where a field of an MDP/0.3 header lies.

The test gives headers four more bytes, in a copy of the sources, and runs tests of every machine of
the core over the copy. A module of the core, or a test of it, that uses an offset or a size of its
own then fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYOUT = '_MAGIC = ">4s"\n'
LONGER = '_MAGIC = ">4s4x"\n'
"""Four bytes behind the magic, so that every field moves."""

TESTS = (
    # The sessions: all commands, refusals, streams, events, logins.
    "tests/core/client",
    "tests/core/worker",
    "tests/core/session/test_events.py",
    "tests/core/session/test_streams.py",
    # The broker: all commands, refused sends, streams, events, envelopes, hooks, prefetching.
    "tests/core/broker/commands",
    "tests/core/broker/test_outbox.py",
    "tests/core/broker/test_streams.py",
    "tests/core/broker/test_machine.py",
    "tests/core/broker/test_hedging.py",
    "tests/core/broker/accel",
    # The three machines joined.
    "tests/core/test_joined.py",
)
"""Tests that send and read every command at each machine. The fuzzers, the oracle and the tests of
tables and settings are left out: they take most of the time and reach no other code."""

CHOSEN = "not runTest and (not in_a_storm or once[1] or once[7])"
"""Without the random steps of test_machine.py, and with two of the sixty seeds of test_joined.py:
the others send no other commands, and take two thirds of the time."""

VECTORS = "tests/core/broker/commands/test_mdp03.py::test_call_of_the_vectors_on_the_wire"
"""Compares the bytes of docs/spec, which are the layout as it is."""


@pytest.mark.slow
def test_core_does_not_depend_on_the_layout_of_a_header(tmp_path: Path) -> None:
    package = tmp_path / "majordomus"
    shutil.copytree(
        ROOT / "src/majordomus", package, ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    octets = package / "protocol/octets.py"
    text = octets.read_text("utf-8")
    assert text.count(LAYOUT) == 1, "protocol/octets.py describes the layout in one place"
    octets.write_text(text.replace(LAYOUT, LONGER), "utf-8")
    pytest_ = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    ran = subprocess.run(
        [*pytest_, "--deselect", VECTORS, "-k", CHOSEN, *TESTS],
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-1000:]

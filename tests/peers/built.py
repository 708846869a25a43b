"""Peers of other languages that are compiled, or run from their source: CZMQ and JeroMQ."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests.peers.process import ROOT

HERE = Path(__file__).parent
JEROMQ = Path("/usr/share/java/jeromq.jar")


@cache
def _compiled() -> tuple[str, str]:
    """Return the program of CZMQ's peer, or "" and what is missing."""
    source, program = HERE / "czmq" / "peer.c", ROOT / "build" / "peers" / "czmq-peer"
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return str(program), ""
    program.parent.mkdir(parents=True, exist_ok=True)
    compiler = shutil.which("cc")
    if compiler is None:
        return "", "no C compiler is installed"
    command = [compiler, "-O1", "-o", str(program), str(source), "-lczmq", "-lzmq"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        return "", f"CZMQ is not installed (libczmq-dev): {done.stderr.strip()[:200]}"
    return str(program), ""


def czmq() -> tuple[str, ...]:
    """The command of CZMQ's peer. Without CZMQ the test is skipped, and in CI it fails."""
    program, missing = _compiled()
    return (program,) if program else _missing(missing)


def jeromq() -> tuple[str, ...]:
    """The command of JeroMQ's peer. Without it the test is skipped, and in CI it fails."""
    java = shutil.which("java")
    if java is None:
        return _missing("Java is not installed (openjdk-17-jdk-headless)")
    if not JEROMQ.exists():
        return _missing("JeroMQ is not installed (libjeromq-java)")
    return (java, "-cp", str(JEROMQ), str(HERE / "jeromq" / "Peer.java"))


def _missing(what: str) -> tuple[str, ...]:
    if os.environ.get("REAL_PARTS") == "required":
        pytest.fail(f"{what}, and CI needs it")
    pytest.skip(what)

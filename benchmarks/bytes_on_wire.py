"""What one call with a 16-byte body costs in bytes, all framing included.

    python -m benchmarks.bytes_on_wire

Every connection goes through a relay that counts what passes, both ways: TCP's payload, so ZMTP's,
HTTP's and HTTP/2's framing is in it, the headers of TCP and IP are not. Each figure is the median
of many calls on connections that are open already; what differed from it (heartbeats, HTTP/2's
window updates and pings) shows in the mean beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import http.server
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final
from urllib.parse import urlsplit

from majordomus import Broker, BrokerSettings, Client, Worker

DOCS: Final = Path(__file__).parent.parent / "docs"
OUTPUT: Final = DOCS / "benchmarks" / "bytes.json"
PAGE: Final = DOCS / "bytes.md"
BODY: Final = b"0123456789abcdef"
SERVICE: Final = "echo"
CALLS: Final = 100
DIALECTS: Final = ("mdp03", "mdp02", "mdp02d", "mdp01", "delphi")
CLIENT, WORKER = "client", "worker"
"""The two legs of a call: to the broker, and on to the worker."""
QUIET: Final = 30.0
"""Seconds between heartbeats, so that hardly one falls into a measurement."""
SETTLE: Final = 0.003

Call = Callable[[], object]


class Relay:
    """Listens, passes everything on to `port`, and counts: [to the target, from it]."""

    def __init__(self, port: int) -> None:
        self.counts = [0, 0]
        self._target = port
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._begun.wait(10)

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            self._server = runner.run(asyncio.start_server(self._accept, "127.0.0.1", 0))
            self._begun.set()
            with contextlib.suppress(RuntimeError):  # stopped
                runner.run(asyncio.Event().wait())
            self._server.close()

    async def _accept(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        far, forth = await asyncio.open_connection("127.0.0.1", self._target)
        for writer in (back, forth):
            plain = writer.get_extra_info("socket")
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await asyncio.gather(self._pass(near, forth, 0), self._pass(far, back, 1))
        for writer in (back, forth):
            writer.close()

    async def _pass(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, way: int
    ) -> None:
        while data := await source.read(65_536):
            self.counts[way] += len(data)
            target.write(data)
        target.close()


@contextlib.contextmanager
def relay(port: int) -> Iterator[Relay]:
    made = Relay(port)
    try:
        yield made
    finally:
        made.close()


def measure(relays: dict[str, Relay], call: Call, calls: int) -> dict[str, Any]:
    """Bytes of one call for each relay, there and back. The first ten open and warm up."""
    seen: dict[str, list[tuple[int, int]]] = {name: [] for name in relays}
    for number in range(calls + 10):
        before = {name: tuple(one.counts) for name, one in relays.items()}
        call()
        time.sleep(SETTLE)
        for name, one in relays.items():
            there, back = one.counts
            if number >= 10:
                seen[name].append((there - before[name][0], back - before[name][1]))
    legs = {}
    for name, both in seen.items():
        there, back = median(one for one, _ in both), median(one for _, one in both)
        legs[name] = {
            "request": back if name == WORKER else there,
            "reply": there if name == WORKER else back,
            "mean": round(fmean(sum(one) for one in both), 1),
        }
    return {"legs": legs, "total": sum(leg["request"] + leg["reply"] for leg in legs.values())}


# ── who is measured ───────────────────────────────────────────────────────────────────────────────


def dialect(name: str, calls: int = CALLS) -> dict[str, Any]:
    """Client and worker of ours, each through a relay to one broker."""
    settings = BrokerSettings(worker_interval=QUIET, client_interval=QUIET)
    with Broker(settings, bind="tcp://127.0.0.1:*") as broker:
        port = urlsplit(broker.endpoints[0]).port or 0
        with relay(port) as near, relay(port) as far:
            worker = Worker(f"tcp://127.0.0.1:{far.port}", dialect=name, interval=QUIET)
            worker.add(SERVICE, lambda request: request.frames)
            client = Client(f"tcp://127.0.0.1:{near.port}", dialect=name)
            with worker, client:
                worker.wait_ready()

                def call() -> None:
                    assert client.call(SERVICE, BODY, timeout=10).body == BODY

                return measure({CLIENT: near, WORKER: far}, call, calls)


class _Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = json.dumps(asked).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None: ...


def http_json(calls: int = CALLS) -> dict[str, Any]:
    """http.client and http.server, one connection kept alive, nobody between."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with relay(server.server_port) as near:
            connection = http.client.HTTPConnection("127.0.0.1", near.port)
            body = json.dumps({"body": BODY.decode()})

            def call() -> None:
                connection.request(
                    "POST", f"/{SERVICE}", body, {"Content-Type": "application/json"}
                )
                assert json.loads(connection.getresponse().read()) == {"body": BODY.decode()}

            told = measure({CLIENT: near}, call, calls)
            connection.close()
            return told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def grpc_unary(calls: int = CALLS) -> dict[str, Any]:
    """grpcio, one unary call of google.protobuf.BytesValue, nobody between."""
    import grpc
    from google.protobuf.wrappers_pb2 import BytesValue

    codec = {
        "request_deserializer": BytesValue.FromString,
        "response_serializer": BytesValue.SerializeToString,
    }
    echo = grpc.unary_unary_rpc_method_handler(lambda asked, _: asked, **codec)
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("bench", {SERVICE: echo}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with relay(port) as near, grpc.insecure_channel(f"127.0.0.1:{near.port}") as channel:
            ask = channel.unary_unary(
                f"/bench/{SERVICE}", BytesValue.SerializeToString, BytesValue.FromString
            )

            def call() -> None:
                assert ask(BytesValue(value=BODY), timeout=10).value == BODY

            return measure({CLIENT: near}, call, calls)
    finally:
        server.stop(None).wait()


# ── what is printed ───────────────────────────────────────────────────────────────────────────────


def everything() -> dict[str, Any]:
    """All of them; gRPC is left out where it is not installed, and that is said."""
    told = {name: dialect(name) for name in DIALECTS}
    told["HTTP/1.1 JSON"] = http_json()
    try:
        told["gRPC"] = grpc_unary()
    except ImportError:
        print("gRPC is left out: grpcio is not here")
    return told


def rows(told: dict[str, Any]) -> Iterator[str]:
    """A line of the table for each."""
    for name, one in told.items():
        legs = one["legs"]
        cells = [f"{legs[leg][way]:g}" for leg in legs for way in ("request", "reply")]
        cells += ["–"] * (4 - len(cells))
        client = legs[CLIENT]["request"] + legs[CLIENT]["reply"]
        mean = " + ".join(f"{leg['mean']:g}" for leg in legs.values())
        yield f"| {name} | {' | '.join(cells)} | {client:g} | {one['total']:g} | {mean} |"


HEAD: Final = """\
| | request of the client | reply to it | request to the worker | its reply | client's side | both \
sides | means |
|---|---|---|---|---|---|---|---|"""


def table(told: dict[str, Any]) -> str:
    """As the page shows it."""
    return "\n".join([HEAD, *rows(told)])


def main() -> None:
    told = everything()
    print(table(told))
    OUTPUT.write_text(
        json.dumps({"body_bytes": len(BODY), "calls": CALLS, "measured": told}, indent=1) + "\n"
    )
    marked = re.compile(r"(?<=<!-- measured: bytes -->\n).*?(?=\n<!-- end -->)", re.DOTALL)
    PAGE.write_text(marked.sub(lambda _: table(told), PAGE.read_text("utf-8")), "utf-8")
    print(f"→ {OUTPUT}, {PAGE}")


if __name__ == "__main__":
    main()

"""Clients behind a bad network: python -m benchmarks.bad_network [seconds].

A proxy of our own between a client and each of two brokers delays, stalls, resets, delivers byte by
byte, and loses bytes in one direction or in both. A worker is connected to the brokers directly.
One client of each kind calls through it: plain calls of one thread, `submit` in the background,
asyncio. Printed are outcomes, executions by call, recovery times, and bytes.

The default is 180 seconds for each client. `tests/net/client/test_bad_network.py` uses the proxy.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import random
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, Self

from majordomus import AsyncClient, Broker, Client, MajordomusError, Worker

BOTH: Final = frozenset(("up", "down"))
"""Directions: "up" is from the client to the broker."""
TIMEOUT: Final = 2.0
"""Seconds of a call."""
CHUNK: Final = 65536


class Path:
    """One connection through the proxy, in both directions."""

    def __init__(self, writers: dict[str, asyncio.StreamWriter]) -> None:
        self.writers = writers
        self.lost: frozenset[str] = frozenset()


class Proxy:
    """A TCP proxy to one port of this machine, in a thread of its own.

    Its fields may be set at any time, from any thread.

    delay: seconds that each byte takes in one direction.
    bytewise: deliver every byte by itself.
    lost: directions in which bytes are read and dropped, on all connections.
    stalled_until: monotonic seconds until which nothing is delivered.
    refuses: reset each new connection.
    bytes: bytes that came, by direction. connections: how many were accepted.
    """

    def __init__(self, target: str) -> None:
        self.delay = 0.0
        self.bytewise = False
        self.lost: frozenset[str] = frozenset()
        self.stalled_until = 0.0
        self.refuses = False
        self.bytes: collections.Counter[str] = collections.Counter()
        self.connections = 0
        self._target = int(target.rsplit(":", 1)[1])
        self._paths: set[Path] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    def stall(self, seconds: float) -> None:
        """Deliver nothing for so long; then everything."""
        self.stalled_until = time.monotonic() + seconds

    def forget(self, directions: frozenset[str] = BOTH) -> None:
        """Drop all bytes of the present connections, as a NAT does that has forgotten them. New
        connections work."""
        for path in list(self._paths):
            path.lost = directions

    def reset(self) -> None:
        """Reset the present connections."""
        self._loop.call_soon_threadsafe(self._reset)

    def heal(self) -> None:
        """End every fault but those of single connections."""
        self.delay, self.bytewise, self.lost, self.stalled_until = 0.0, False, frozenset(), 0.0
        self.refuses = False

    def _run(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.url = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        async with server:
            await self._over.wait()
        self._reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)  # the transports close their sockets

    async def _accepted(
        self, near_reader: asyncio.StreamReader, near: asyncio.StreamWriter
    ) -> None:
        self.connections += 1
        if self.refuses:
            _reset(near)
            return
        try:
            far_reader, far = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            _reset(near)
            return
        path = Path({"up": far, "down": near})
        self._paths.add(path)
        self._writers |= {near, far}
        for direction, reader in (("up", near_reader), ("down", far_reader)):
            task = asyncio.get_running_loop().create_task(self._pass(path, direction, reader))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass(self, path: Path, direction: str, reader: asyncio.StreamReader) -> None:
        """Deliver the bytes of one direction, in order."""
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        deliver = asyncio.get_running_loop().create_task(self._deliver(path, direction, waiting))
        data = b"?"
        try:
            while data:
                data = await reader.read(CHUNK)
                self.bytes[direction] += len(data)
                if data and direction in self.lost | path.lost:
                    continue
                waiting.put_nowait((time.monotonic() + self.delay, data))
            if direction not in self.lost | path.lost:
                await deliver
        except OSError:
            pass
        finally:
            deliver.cancel()
            self._paths.discard(path)
            if direction not in self.lost | path.lost:  # a lost FIN never arrives
                path.writers[direction].close()
                self._writers.discard(path.writers[direction])

    async def _deliver(
        self, path: Path, direction: str, waiting: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        writer = path.writers[direction]
        while True:
            due, data = await waiting.get()
            while (left := max(due, self.stalled_until) - time.monotonic()) > 0:
                await asyncio.sleep(min(left, 0.1))
            if not data:
                return
            pieces = [data[n : n + 1] for n in range(len(data))] if self.bytewise else [data]
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                if self.bytewise:
                    await asyncio.sleep(0)

    def _reset(self) -> None:
        for path in list(self._paths):
            for writer in path.writers.values():
                _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    made = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Ledger:
    """What came of each call: its outcome, and how often it ran."""

    def __init__(self) -> None:
        self.outcomes: dict[bytes, str] = {}
        self.runs: collections.Counter[bytes] = collections.Counter()
        self.answered_at: list[float] = []
        self._lock = threading.Lock()

    def run(self, name: bytes) -> None:
        """Count one execution. By the worker."""
        with self._lock:
            self.runs[name] += 1

    def end(self, name: bytes, outcome: str) -> None:
        """Note the outcome of a call: exactly one."""
        if name in self.outcomes:
            raise AssertionError(f"{name!r} has ended twice: {self.outcomes[name]}, {outcome}")
        self.outcomes[name] = outcome
        if outcome == "ok":
            self.answered_at.append(time.monotonic())

    def recovery(self, since: float) -> float | None:
        """Seconds from `since` to the next answer."""
        return next((at - since for at in self.answered_at if at >= since), None)


@contextlib.contextmanager
def two_brokers(ledger: Ledger) -> Iterator[tuple[Proxy, Proxy]]:
    """Run two brokers with a worker, and a proxy before each."""
    with contextlib.ExitStack() as stack:
        brokers = [stack.enter_context(Broker(bind="tcp://127.0.0.1:0")) for _ in range(2)]
        worker = Worker([one.endpoints[0] for one in brokers])

        def count(request: object) -> bytes:
            body: bytes = request.body  # type: ignore[attr-defined]
            ledger.run(body)
            return body

        worker.add("count", count)
        stack.callback(worker.stop)
        worker.start()
        worker.wait_ready(10)
        proxies = [stack.enter_context(Proxy(one.endpoints[0])) for one in brokers]
        yield proxies[0], proxies[1]


# Each fault, and how long it lasts before the network is whole again.
FAULTS: Final[dict[str, tuple[float, Callable[[Proxy], None]]]] = {
    "delay 0.2-0.6 s": (6.0, lambda proxy: setattr(proxy, "delay", random.uniform(0.1, 0.3))),
    "stall 2-5 s": (6.0, lambda proxy: proxy.stall(random.uniform(2.0, 5.0))),
    "reset": (2.0, lambda proxy: proxy.reset()),
    "byte by byte": (4.0, lambda proxy: setattr(proxy, "bytewise", True)),
    "lost up": (8.0, lambda proxy: setattr(proxy, "lost", frozenset(("up",)))),
    "lost down": (8.0, lambda proxy: setattr(proxy, "lost", frozenset(("down",)))),
    "lost both ways": (8.0, lambda proxy: setattr(proxy, "lost", BOTH)),
    "connection forgotten": (8.0, lambda proxy: proxy.forget()),
}


def disturb(proxies: tuple[Proxy, Proxy], until: float, log: list[tuple[str, float]]) -> None:
    """Apply the faults in turn, each to the path that the client uses, until the time is over."""
    names = list(FAULTS)
    number = 0
    while time.monotonic() < until:
        name = names[number % len(names)]
        number += 1
        seconds, apply = FAULTS[name]
        before = [proxy.bytes["down"] for proxy in proxies]
        time.sleep(1.0)
        used = max(proxies, key=lambda one: one.bytes["down"] - before[proxies.index(one)])
        log.append((name, time.monotonic()))
        apply(used)
        time.sleep(min(seconds, max(0.0, until - time.monotonic())))
        used.heal()
    for proxy in proxies:
        proxy.heal()


def outcome_of(error: BaseException) -> str:
    return type(error).__name__


def plain_calls(urls: list[str], until: float, ledger: Ledger) -> None:
    """One thread that calls, and does nothing else."""
    with Client(urls, timeout=TIMEOUT, spread=False) as client:
        number = 0
        while time.monotonic() < until:
            number += 1
            name = b"%d" % number
            try:
                outcome = (
                    "ok" if client.call("count", name, once=number % 4 == 0).body == name else "?"
                )
            except MajordomusError as error:
                outcome = outcome_of(error)
            ledger.end(name, outcome)
            time.sleep(0.01)


def background_calls(urls: list[str], until: float, ledger: Ledger) -> None:
    """`submit`, ten calls at a time."""
    with Client(urls, timeout=TIMEOUT, spread=False) as client:
        number = 0
        while time.monotonic() < until:
            made = {}
            for _ in range(10):
                number += 1
                name = b"%d" % number
                made[name] = client.submit("count", name, once=number % 4 == 0)
            for name, future in made.items():
                try:
                    outcome = "ok" if future.result(TIMEOUT + 5).body == name else "?"
                except MajordomusError as error:
                    outcome = outcome_of(error)
                ledger.end(name, outcome)
            time.sleep(0.05)


def async_calls(urls: list[str], until: float, ledger: Ledger) -> None:
    """Ten tasks of an event loop."""

    async def task(client: AsyncClient, first: int) -> None:
        number = first
        while time.monotonic() < until:
            number += 10
            name = b"%d" % number
            try:
                reply = await client.call("count", name, once=number % 4 == 0)
                outcome = "ok" if reply.body == name else "?"
            except MajordomusError as error:
                outcome = outcome_of(error)
            ledger.end(name, outcome)
            await asyncio.sleep(0.05)

    async def all_of_them() -> None:
        async with AsyncClient(urls, timeout=TIMEOUT, spread=False) as client:
            await asyncio.gather(*(task(client, first) for first in range(10)))

    asyncio.run(all_of_them())


CLIENTS: Final = {
    "Client, one thread": plain_calls,
    "Client, submit": background_calls,
    "AsyncClient": async_calls,
}


def run(name: str, seconds: float) -> None:
    """Run one client through all faults, and print what came of it."""
    ledger = Ledger()
    log: list[tuple[str, float]] = []
    with two_brokers(ledger) as proxies:
        until = time.monotonic() + seconds
        disturbing = threading.Thread(target=disturb, args=(proxies, until, log))
        disturbing.start()
        CLIENTS[name]([proxy.url for proxy in proxies], until, ledger)
        disturbing.join()
        sent = sum(sum(proxy.bytes.values()) for proxy in proxies)
    outcomes = collections.Counter(ledger.outcomes.values())
    once = [ledger.runs[one] for one in ledger.outcomes if int(one) % 4 == 0]
    runs = collections.Counter(ledger.runs[one] for one in ledger.outcomes)
    print(f"\n## {name}, {seconds:.0f} s\n")
    print(f"- outcomes of {len(ledger.outcomes)} calls: {dict(outcomes.most_common())}")
    print(f"- executions by call: {dict(sorted(runs.items()))}; of `once`: at most {max(once)}")
    print(f"- bytes by call, both directions: {sent / len(ledger.outcomes):.0f}\n")
    print("| fault | times | seconds to the next answer: median | most |")
    print("|---|---|---|---|")
    for fault in FAULTS:
        times = sorted(
            found
            for one, at in log
            if one == fault and (found := ledger.recovery(at + 0.02)) is not None
        )
        if times:
            print(f"| {fault} | {len(times)} | {times[len(times) // 2]:.2f} | {times[-1]:.2f} |")


def idle() -> None:
    """Print the bytes of an idle minute of each client that keeps a connection."""
    print("\n## Idle\n")
    for name, make in (("Client", Client), ("AsyncClient", AsyncClient)):
        with two_brokers(Ledger()) as proxies:
            urls = [proxy.url for proxy in proxies]
            if make is Client:
                with Client(urls, spread=False) as client:
                    client.call("count", b"1")
                    before = sum(proxies[0].bytes.values())
                    time.sleep(60.0)
                    found = sum(proxies[0].bytes.values()) - before
            else:
                found = asyncio.run(_idle_async(urls, proxies[0]))
        print(f"- {name}: {found} bytes in an idle minute, both directions")


async def _idle_async(urls: list[str], proxy: Proxy) -> int:
    async with AsyncClient(urls, spread=False) as client:
        await client.call("count", b"1")
        before = sum(proxy.bytes.values())
        await asyncio.sleep(60.0)
        return sum(proxy.bytes.values()) - before


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 180.0
    for name in CLIENTS:
        run(name, seconds)
    if seconds >= 60:
        idle()


if __name__ == "__main__":
    main()

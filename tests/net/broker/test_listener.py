"""Both kinds of listener in one broker, and links to endpoints with a host name."""

from __future__ import annotations

import json
import os
import signal
import socket as plain
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import zmq

from majordomus import Broker, BrokerSettings, Client, Request, Worker
from majordomus.errors import ConfigurationError, MajordomusError
from majordomus.net.broker import zmtp_listener
from majordomus.net.readiness import Readiness
from majordomus.net.zmq import select as wires
from majordomus.net.zmq.monitor import MonitorEvent
from majordomus.net.zmtp import tcp
from majordomus.protocol import mdp03, spec

pytestmark = pytest.mark.skipif(
    not wires.OWN_ZMTP, reason="our own ZMTP is not built, or another wire was asked for"
)
LIMIT = 20.0
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)


def ready(kind: bytes) -> bytes:
    body = b"\x05READY\x0bSocket-Type" + len(kind).to_bytes(4) + kind
    return bytes([4, len(body)]) + body


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Broker]:
    """A broker with endpoints of our own ZMTP, and one of libzmq."""
    urls = [f"ipc://{tmp_path}/broker", f"inproc://{tmp_path}", "tcp://127.0.0.1:*"]
    with Broker(BrokerSettings(drain_timeout=0.5), bind=urls) as broker:
        yield broker


def wire_of(client: Client) -> str:
    told = json.loads(client.call("mmi.broker").frames[1])
    return str(told["wire"])


def echo(stack: ExitStack, url: str, name: str) -> Worker:
    worker = Worker(url)

    @worker.service(name)
    def answer(request: Request) -> bytes:
        return name.encode() + request.body

    return stack.enter_context(worker)


def test_endpoints_of_both_kinds_are_one_broker(both: Broker) -> None:
    with ExitStack() as stack:
        for n, url in enumerate(both.endpoints):
            echo(stack, url, f"service{n}")
        for url in both.endpoints:
            client = stack.enter_context(Client(url, timeout=LIMIT))
            answers = [client.call(f"service{n}", b"!" * n).body for n in range(3)]
            assert answers == [b"service0", b"service1!", b"service2!!"]
            assert wire_of(client) == "zmtp, pyzmq"


@pytest.mark.parametrize("at", [0, 2], ids=["ipc", "tcp"])
def test_worker_killed_at_either_kind_of_endpoint_is_detected_at_once(
    both: Broker, at: int
) -> None:
    program = f"""
import time
from majordomus import Worker
worker = Worker({both.endpoints[at]!r})
@worker.service("work")
def work(request):
    print("working", flush=True)
    time.sleep(60)
worker.run()
"""
    with ExitStack() as stack:
        first = stack.enter_context(
            subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        )
        client = stack.enter_context(Client(both.endpoints[2 - at], timeout=LIMIT))
        future = client.submit("work")
        assert first.stdout is not None
        assert first.stdout.readline() == "working\n"
        echo(stack, both.endpoints[0], "work")
        began = time.monotonic()
        first.send_signal(signal.SIGKILL)
        assert future.result(LIMIT).body == b"work"
        assert time.monotonic() - began < 2


def test_endpoint_is_free_once_the_broker_has_stopped() -> None:
    broker = Broker(bind="tcp://127.0.0.1:*")
    for _ in range(3):
        broker.start()
        (url,) = broker.endpoints
        with Client(url, timeout=LIMIT) as client:
            client.ping()
        broker.stop()
        broker = Broker(bind=url)


def test_broker_that_stops_does_not_wait_long_for_peers_that_stay() -> None:
    with Broker(bind="tcp://127.0.0.1:*") as broker:
        port = int(broker.endpoints[0].rpartition(":")[2])
        with plain.create_connection(("127.0.0.1", port)):
            time.sleep(0.1)
            began = time.monotonic()
            broker.stop()
            assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("tcp://127.0.0.1:{taken}", "Address already in use"),
        ("tcp://203.0.113.1:5555", "Cannot assign requested address"),
        (
            "tcp://nobody.invalid:5555",
            "No such device: this is no address and no network interface",
        ),
        (f"tcp://{'long' * 16}.invalid:5555", "encoding with 'idna' codec failed"),
    ],
)
def test_endpoint_that_cannot_be_bound_is_an_error_with_the_reason(url: str, why: str) -> None:
    with plain.create_server(("127.0.0.1", 0)) as taken:
        url = url.format(taken=taken.getsockname()[1])
        with pytest.raises(ConfigurationError, match=f"cannot bind {url}: {why}"):
            Broker(bind=url, insecure=True).open()


@pytest.mark.parametrize("host", ["localhost", "lo", "*", "0.0.0.0", "[::1]"])  # noqa: S104
def test_every_way_to_name_an_interface_can_be_bound(host: str) -> None:
    if host == "[::1]" and not Path("/proc/net/if_inet6").read_text():
        pytest.skip("there is no IPv6 here")
    with Broker(bind=f"tcp://{host}:*", insecure=True) as broker:
        url = broker.endpoints[0].replace("0.0.0.0", "127.0.0.1")  # noqa: S104
        with Client(url, timeout=LIMIT) as client:
            client.ping()


def test_broker_out_of_descriptors_serves_open_connections_and_later_waiting_ones() -> None:
    program = """
import sys, resource
from majordomus import Broker
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
broker = Broker(bind="tcp://127.0.0.1:*")
broker.open()
broker.run(lambda: print(broker.endpoints[0], flush=True))
"""
    with ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        )
        stack.callback(process.terminate)
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        port = int(url.rpartition(":")[2])
        client = stack.enter_context(Client(url, timeout=LIMIT))
        client.ping()
        crowd = [plain.create_connection(("127.0.0.1", port)) for _ in range(80)]
        late = stack.enter_context(Client(url, timeout=LIMIT))
        before = os.times()
        spent = Path(f"/proc/{process.pid}/stat")
        ticks = sum(map(int, spent.read_text().split()[13:15]))
        time.sleep(1.0)
        client.ping()
        ticks = sum(map(int, spent.read_text().split()[13:15])) - ticks
        assert ticks / os.sysconf("SC_CLK_TCK") < 0.5, before
        for one in crowd:
            one.close()
        late.ping()


# ── names ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def names_need_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every host need a lookup."""
    monkeypatch.setattr(tcp, "parse_addresses", lambda _url: [])


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker(bind="tcp://127.0.0.1:*") as made:
        yield made


@pytest.mark.usefixtures("names_need_lookup")
def test_name_is_looked_up_and_looked_up_again_after_the_end(broker: Broker) -> None:
    url = broker.endpoints[0].replace("127.0.0.1", "localhost")
    with Client(url, timeout=LIMIT) as client:
        client.ping()
        broker.stop()
        with Broker(bind=broker.endpoints[0]):
            client.ping()


@pytest.mark.usefixtures("names_need_lookup")
def test_async_peers_find_names_as_well(broker: Broker) -> None:
    url = broker.endpoints[0].replace("127.0.0.1", "localhost")
    with ExitStack() as stack:
        echo(stack, url, "named")
        client = stack.enter_context(Client(url, timeout=LIMIT))
        assert client.call("named", b"!").body == b"named!"


def test_name_that_cannot_be_resolved_is_tried_until_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[str] = []

    def nobody(url: str) -> list[tcp.Address]:
        tried.append(url)
        raise OSError("nobody knows")

    monkeypatch.setattr(tcp, "resolve", nobody)
    with Client("tcp://nobody.invalid:5555") as client, pytest.raises(MajordomusError):
        client.call("echo", timeout=0.8)
    assert len(tried) >= 2


def test_client_that_is_closed_while_a_name_is_looked_up_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = open_files()
    with monkeypatch.context() as patched:
        resolve = tcp.resolve
        patched.setattr(tcp, "resolve", lambda url: (time.sleep(0.5), resolve(url))[1])
        with Client("tcp://nobody.invalid:5555") as client, pytest.raises(MajordomusError):
            client.call("echo", timeout=0.1)
        time.sleep(0.6)
    assert open_files() <= before


# ── floods, and what the kernel does not take at once ─────────────────────────────────────────────


def test_messages_beyond_a_batch_are_not_left_in_a_broker_of_both_kinds(both: Broker) -> None:
    """The messages are in our buffers: the kernel reports nothing more to read."""
    port = int(both.endpoints[2].rpartition(":")[2])
    ping = mdp03.pack(spec.REQUEST, id=1, ttl=20_000, service=b"mmi.service")
    with plain.create_connection(("127.0.0.1", port)) as raw:
        raw.settimeout(LIMIT)
        raw.sendall(GREETING + ready(b"DEALER"))
        requests = b""
        for n in range(1, 1001):
            header = ping[:8] + n.to_bytes(8) + ping[16:]
            requests += bytes([1, len(header)]) + header + b"\0\4echo"
        raw.sendall(requests)
        told = b""
        while told.count(b"\0\x03404") < 1000:
            told += raw.recv(1 << 16)


def test_large_message_of_a_sync_client_leaves_though_no_call_follows(
    broker: Broker,
) -> None:
    came = threading.Event()
    worker = Worker(broker.endpoints[0])

    @worker.service("take")
    def take(request: Request) -> bytes:
        came.set()
        return b""

    with worker, Client(broker.endpoints[0], timeout=LIMIT) as client:
        client.ping()
        client.send("take", bytes(15_000_000))
        assert came.wait(LIMIT)


def test_broker_under_a_flood_stops(broker: Broker) -> None:
    port = int(broker.endpoints[0].rpartition(":")[2])
    over = threading.Event()

    def flood() -> None:
        with plain.create_connection(("127.0.0.1", port)) as raw, suppress(OSError):
            raw.settimeout(LIMIT)
            raw.sendall(GREETING + ready(b"DEALER"))
            while not over.is_set():
                raw.sendall(b"\0\1x" * 20_000)

    floods = [threading.Thread(target=flood) for _ in range(2)]
    for one in floods:
        one.start()
    time.sleep(0.3)
    began = time.monotonic()
    broker.stop(drain=False)
    took = time.monotonic() - began
    over.set()
    for one in floods:
        one.join()
    assert took < 5


def test_routing_id_of_one_listener_cannot_be_taken_at_the_other(both: Broker) -> None:
    own_url, inproc_url, _ = both.endpoints
    going, go = threading.Event(), threading.Event()
    worker = Worker(own_url)

    @worker.service("vault")
    def vault(request: Request) -> bytes:
        going.set()
        go.wait(LIMIT)
        return b"secret"

    context = zmq.Context.instance()
    with worker, context.socket(zmq.DEALER) as victim, context.socket(zmq.DEALER) as thief:
        for one, url in ((victim, inproc_url), (thief, own_url)):
            one.setsockopt(zmq.ROUTING_ID, b"whoever")
            one.setsockopt(zmq.LINGER, 0)
            one.connect(url)
        victim.send_multipart([mdp03.pack(spec.REQUEST, id=7, ttl=20_000, service=b"vault")])
        assert going.wait(LIMIT)
        header = mdp03.pack(spec.REQUEST, id=8, ttl=9000, service=b"mmi.service")
        thief.send_multipart([header, b"echo"])
        assert thief.poll(int(LIMIT * 1000))
        assert thief.recv_multipart()[1:] == [b"404"]
        go.set()
        assert victim.poll(int(LIMIT * 1000))
        assert victim.recv_multipart()[1:] == [b"secret"]
        assert not thief.poll(200)


def test_connection_of_the_parent_outlives_a_close_in_a_forked_child(broker: Broker) -> None:
    (place,) = tcp.parse_addresses(broker.endpoints[0])
    from majordomus.net.connection.zmtp_link import (
        ZmtpLink,  # which only loads where our own ZMTP was built
    )

    link = ZmtpLink(broker.endpoints[0], place)
    until = time.monotonic() + LIMIT
    while not any(seen.event is MonitorEvent.CONNECTED for seen in link.news()):
        assert time.monotonic() < until
        link.receive(1)
    child = os.fork()
    if child == 0:
        link.close()
        os._exit(0)
    os.waitpid(child, 0)
    header = mdp03.pack(spec.REQUEST, id=1, ttl=9000, service=b"mmi.service")
    assert link.send([[header, b"echo"]]) == []
    assert Readiness(*link.fds)(int(LIMIT * 1000))
    assert [frames[1] for frames in link.receive(10)] == [b"404"]
    link.close()


def test_peer_that_sends_the_rest_of_a_refused_message_slowly_is_cut_off_in_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(zmtp_listener, "MAX_DROPPING", 0.1)
    settings = BrokerSettings(max_message=1000)
    with Broker(settings, bind="tcp://127.0.0.1:*") as broker:
        port = int(broker.endpoints[0].rpartition(":")[2])
        with plain.create_connection(("127.0.0.1", port), LIMIT) as peer:
            size = 900_000
            peer.sendall(GREETING + ready(b"DEALER") + b"\x02" + size.to_bytes(8) + bytes(200_000))
            with pytest.raises(ConnectionError):
                for _ in range(100):
                    time.sleep(0.05)
                    peer.sendall(bytes(100))

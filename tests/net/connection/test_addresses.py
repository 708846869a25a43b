"""The addresses of a host: their order, and attempts that try one after the other."""

from __future__ import annotations

import contextlib
import socket as plain
import time
from collections.abc import Iterator

import pytest

from majordomus import Broker, Client, Worker
from majordomus.errors import MajordomusError
from majordomus.net.connection import zmq_link
from majordomus.net.zmq import select as wires
from majordomus.net.zmtp import tcp

V4, V6 = plain.AF_INET, plain.AF_INET6
LIMIT = 10.0


def v4(host: str, port: int = 1) -> tcp.Address:
    return V4, (host, port)


def v6(host: str, port: int = 1) -> tcp.Address:
    return V6, (host, port, 0, 0)


@pytest.mark.parametrize(
    ("found", "ordered"),
    [
        ([], []),
        ([v4("1.1.1.1")], [v4("1.1.1.1")]),
        (
            [v6("::1"), v6("::2"), v6("::3"), v4("1.1.1.1"), v4("2.2.2.2")],
            [v6("::1"), v4("1.1.1.1"), v6("::2"), v4("2.2.2.2"), v6("::3")],
        ),
        ([v4("1.1.1.1"), v4("2.2.2.2"), v6("::1")], [v4("1.1.1.1"), v6("::1"), v4("2.2.2.2")]),
        ([v4("1.1.1.1"), v4("1.1.1.1"), v6("::1")], [v4("1.1.1.1"), v6("::1")]),
    ],
)
def test_families_take_turns_in_the_order_that_the_system_has_sorted(
    found: list[tcp.Address], ordered: list[tcp.Address]
) -> None:
    assert tcp.in_order(found) == ordered


def test_localhost_is_the_loopback_address_of_both_families() -> None:
    assert tcp.parse_addresses("tcp://localhost:5555") == [v6("::1", 5555), v4("127.0.0.1", 5555)]


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("tcp://127.0.0.1:5555", v4("127.0.0.1", 5555)),
        ("tcp://[::1]:5555", v6("::1", 5555)),
        ("tcp://[2001:db8::7]:80", v6("2001:db8::7", 80)),
    ],
)
def test_numeric_host_is_one_address_and_back(url: str, address: tcp.Address) -> None:
    assert tcp.parse_addresses(url) == [address]
    assert tcp.to_url(address) == url


def test_scope_of_an_address_is_part_of_its_endpoint() -> None:
    index, name = plain.if_nameindex()[0]
    assert tcp.to_url((V6, ("fe80::1", 5555, 0, index))) == f"tcp://[fe80::1%{name}]:5555"


def test_name_has_no_address_before_it_is_resolved() -> None:
    assert tcp.parse_addresses("tcp://broker.example.org:5555") == []


# attempts


@pytest.fixture(params=[True, False], ids=["zmtp", "libzmq"])
def own_zmtp(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param and not wires.OWN_ZMTP:
        pytest.skip("our own ZMTP is not built, or another wire was asked for")
    monkeypatch.setattr(wires, "OWN_ZMTP", request.param)
    return bool(request.param)


@contextlib.contextmanager
def broker_at(host: str, port: int | str = "*") -> Iterator[int]:
    with Broker(bind=f"tcp://{host}:{port}") as broker:
        yield int(broker.endpoints[0].rpartition(":")[2])


def known_as(
    monkeypatch: pytest.MonkeyPatch, *hosts: str, asked: list[float] | None = None
) -> None:
    """Let the system resolve every name to these hosts, in this order."""
    before = plain.getaddrinfo

    def getaddrinfo(host: str, port: int, *rest: int) -> list[tuple[object, ...]]:
        if host != "two.example":
            return list(before(host, port, *rest))
        if asked is not None:
            asked.append(time.monotonic())
        return [
            (V6 if ":" in one else V4, 1, 6, "", (one, port, 0, 0) if ":" in one else (one, port))
            for one in hosts
        ]

    monkeypatch.setattr(tcp.plain, "getaddrinfo", getaddrinfo)


@pytest.mark.usefixtures("own_zmtp")
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_localhost_reaches_a_broker_of_either_family(host: str) -> None:
    with broker_at(host) as port, Client(f"tcp://localhost:{port}", timeout=LIMIT) as client:
        client.ping()


@pytest.mark.usefixtures("own_zmtp")
@pytest.mark.parametrize(
    "hosts",
    [
        ("127.0.0.9", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.9"),
        ("::1", "127.0.0.1"),
        ("127.0.0.9", "127.0.0.8", "127.0.0.7", "127.0.0.1"),
    ],
)
def test_every_address_of_a_name_is_tried(
    monkeypatch: pytest.MonkeyPatch, hosts: tuple[str, ...]
) -> None:
    asked: list[float] = []
    known_as(monkeypatch, *hosts, asked=asked)
    with broker_at("127.0.0.1") as port, Client(f"tcp://two.example:{port}", timeout=2) as client:
        client.ping()
        assert len(asked) == 1


@pytest.mark.usefixtures("own_zmtp")
def test_name_is_resolved_and_every_address_tried_at_each_reconnect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The broker moves from the second address to the first, and back."""
    asked: list[float] = []
    known_as(monkeypatch, "127.0.0.8", "127.0.0.9", asked=asked)
    with contextlib.ExitStack() as stack:
        with broker_at("127.0.0.9") as port:
            url = f"tcp://two.example:{port}"
            client = stack.enter_context(Client(url, timeout=LIMIT))
            worker = Worker(url)
            worker.service("echo")(lambda request: request.body)
            stack.enter_context(worker)
            assert client.call("echo", b"1").body == b"1"
        for host in ("127.0.0.8", "127.0.0.9"):
            known = len(asked)
            with broker_at(host, port):
                assert client.call("echo", b"2").body == b"2"
            assert len(asked) > known


def test_address_that_does_not_answer_is_left_for_the_next_one(
    monkeypatch: pytest.MonkeyPatch, own_zmtp: bool
) -> None:
    """A full backlog takes no connection and refuses none."""
    if own_zmtp:
        from majordomus.net.connection import zmtp_link

        monkeypatch.setattr(zmtp_link, "NEXT_ADDRESS", 0.3)
    else:
        monkeypatch.setattr(zmq_link, "NEXT_ADDRESS", 300)
    known_as(monkeypatch, "127.0.0.9", "127.0.0.1")
    with broker_at("127.0.0.1") as port, contextlib.ExitStack() as stack:
        silent = stack.enter_context(plain.socket())
        silent.bind(("127.0.0.9", port))
        silent.listen(0)
        for _ in range(4):
            one = stack.enter_context(plain.socket())
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                one.connect(("127.0.0.9", port))
        with Client(f"tcp://two.example:{port}", timeout=3) as client:
            client.ping()


@pytest.mark.usefixtures("own_zmtp")
def test_name_of_no_address_that_answers_is_resolved_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    known_as(monkeypatch, "127.0.0.8", "127.0.0.9", asked=asked)
    with plain.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        with Client(f"tcp://two.example:{port}") as client, pytest.raises(MajordomusError):
            client.call("echo", timeout=2.5)
    assert len(asked) >= 2

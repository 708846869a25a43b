"""Connections beyond the limits are ended, and other clients are served meanwhile."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from math import inf

import pytest
from benchmarks import siege

from majordomus import Broker, BrokerSettings, Client
from majordomus.net.broker.limits.descriptors import MEASURES

LIMIT = 20.0


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def is_ended(peer: socket.socket) -> bool:
    """Whether the broker has ended this connection; its greeting is read first."""
    peer.setblocking(False)
    try:
        while peer.recv(4096):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return True


def dropped(client: Client) -> dict[str, int]:
    counts: dict[str, int] = json.loads(client.call("mmi.stats").frames[1])["dropped"]
    return counts


def open_silent(stack: ExitStack, broker: Broker, times: int) -> list[socket.socket]:
    """Connections that send nothing."""
    port = int(broker.endpoints[0].rpartition(":")[2])
    return [
        stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(times)
    ]


def test_connections_beyond_the_bound_of_an_address_are_ended_and_counted() -> None:
    settings = BrokerSettings(max_address_connections=4)
    with ExitStack() as stack:
        broker = stack.enter_context(Broker(settings, bind="tcp://127.0.0.1:*"))
        client = stack.enter_context(Client(broker.endpoints[0], timeout=LIMIT))
        client.ping()
        peers = open_silent(stack, broker, 6)
        until(lambda: sum(map(is_ended, peers)) == 3)
        assert dropped(client) == {"too-many-connections": 3}


def test_silent_connections_beyond_their_bound_are_ended_and_active_ones_stay() -> None:
    settings = BrokerSettings(max_address_handshakes=2)
    with ExitStack() as stack:
        broker = stack.enter_context(Broker(settings, bind="tcp://127.0.0.1:*"))
        for _ in range(5):
            client = stack.enter_context(Client(broker.endpoints[0], timeout=LIMIT))
            client.ping()
        peers = open_silent(stack, broker, 5)
        until(lambda: sum(map(is_ended, peers)) >= 3)
        assert dropped(client) == {"too-many-handshakes": 3}


def test_connections_that_left_make_room_for_others() -> None:
    settings = BrokerSettings(max_address_connections=2)
    with Broker(settings, bind="tcp://127.0.0.1:*") as broker:
        for _ in range(6):
            with Client(broker.endpoints[0], timeout=LIMIT) as client:
                client.ping()


@pytest.mark.skipif(not MEASURES, reason="only Linux tells what a connection brought")
def test_message_without_an_end_is_cut_off_before_it_costs_64_mib() -> None:
    """A broker in a process of its own; another client is served before and afterwards."""
    seen = siege.endless_message(per_second=100e6, limit=LIMIT)
    assert seen["cut_after_s"] < inf
    assert seen["grown_mib"] < 64

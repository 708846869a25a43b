"""Any client may call any worker: every cell of {0.1, 0.2, delimited 0.2, Delphi, 0.3} squared,
with bodies of no frame, one, several, and one that begins with an empty frame."""

from __future__ import annotations

import pytest

from majordomus.protocol import spec
from majordomus.protocol.spec import Dialect, Frame
from tests.core import dialects
from tests.core.broker_harness import House
from tests.core.dialects import ALL, DELPHI, KNOWS_PARTS, MDP03

C, W = b"client-c", b"worker-w"
BODIES: dict[str, list[Frame]] = {
    "no frame": [],
    "one frame": [b"x"],
    "one empty frame": [b""],
    "several frames": [b"a", b"b" * 300, b"", b"MDPC01"],
    "an empty frame first": [b"", b"y"],
}


def opened(house: House, client: Dialect, worker: Dialect, body: list[Frame]) -> tuple[Frame, int]:
    """The request of C at W; returns the address and the number under which W answers."""
    house.hear(W, *dialects.ready(worker, b"echo"))
    house.said()
    house.hear(C, *dialects.ask(client, b"echo", body))
    number = spec.BROKER_ID_BIT | house.machine.registry.last_number
    address = number.to_bytes(8, "big")
    if worker is DELPHI and client is DELPHI:
        address = house.handles[C]
    expected = dialects.asked(worker, address, body, number, b"echo", house.handles[C])
    assert house.said() == [(W, expected)]
    return address, number


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("worker", ALL)
@pytest.mark.parametrize("client", ALL)
def test_any_client_may_call_any_worker(
    house: House, client: Dialect, worker: Dialect, body: list[Frame]
) -> None:
    address, number = opened(house, client, worker, body)
    house.hear(W, *dialects.end(worker, b"echo", address, body, number))
    heard = dialects.end_heard(client, b"echo", body, W)
    assert house.said() == [(C, heard)]
    assert (house.counts.answered, house.counts.dropped) == (1, {})
    assert house.machine.registry.workers[W].held == {}


@pytest.mark.parametrize("worker", KNOWS_PARTS)
@pytest.mark.parametrize("client", ALL)
def test_parts_arrive_as_each_client_takes_them(
    house: House, client: Dialect, worker: Dialect
) -> None:
    """Clients that know no parts get them joined in order into the one reply."""
    address, number = opened(house, client, worker, [b"x"])
    parts: list[list[Frame]] = [[b"1"], [], [b"2", b"", b"3"]]
    for body in parts:
        house.hear(W, *dialects.part(worker, address, body, number))
    house.hear(W, *dialects.end(worker, b"echo", address, [b"4"], number))
    if client in KNOWS_PARTS:
        heard = [dialects.part_heard(client, b"echo", body) for body in parts]
        last = [b"4"]
    else:
        heard = []
        last = [b"1", b"2", b"", b"3", b"4"]
    heard.append(dialects.end_heard(client, b"echo", last, W))
    assert house.said() == [(C, frames) for frames in heard]
    assert house.counts.parts == 3


@pytest.mark.parametrize("client", ALL)
def test_all_workers_of_a_service_serve_whatever_they_speak(house: House, client: Dialect) -> None:
    """One worker of each dialect at one service; the same client asks five times."""
    workers = {b"worker-%d" % n: dialect for n, dialect in enumerate(ALL)}
    for name, dialect in workers.items():
        house.hear(name, *dialects.ready(dialect, b"echo"))
    house.said()
    for id in range(1, 6):
        house.hear(C, *dialects.ask(client, b"echo", [b"%d" % id], id))
    assert [worker for worker, _ in house.said()] == list(workers)
    for id, (name, dialect) in enumerate(workers.items(), 1):
        (number,) = house.machine.registry.workers[name].held
        address = number.to_bytes(8, "big")
        if dialect is DELPHI and client is DELPHI:
            address = house.handles[C]
        body = [b"for %d" % id]
        house.hear(name, *dialects.end(dialect, b"echo", address, body, number))
        assert house.said() == [(C, dialects.end_heard(client, b"echo", body, name, id))]


@pytest.mark.parametrize("worker", ALL)
@pytest.mark.parametrize("client", ALL)
def test_client_behind_an_envelope_may_call_any_worker(
    house: House, client: Dialect, worker: Dialect
) -> None:
    envelope = [b"\x01\x02\x03\x04"] if client is not MDP03 else [b"\x01\x02\x03\x04", b""]
    house.hear(W, *dialects.ready(worker, b"echo"))
    house.said()
    house.hear(C, *envelope, *dialects.ask(client, b"echo", [b"x"]))
    ((_, given),) = house.said()
    (number,) = house.machine.registry.workers[W].held
    address = number.to_bytes(8, "big")
    if worker is DELPHI and client is DELPHI:
        address = house.handles[C]
    assert given == dialects.asked(worker, address, [b"x"], number, b"echo", house.handles[C])
    house.hear(W, *dialects.end(worker, b"echo", address, [b"y"], number))
    heard = dialects.end_heard(client, b"echo", [b"y"], W)
    assert house.said() == [(C, [*envelope, *heard])]

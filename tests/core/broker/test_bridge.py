"""Any client may call any worker: every cell of {0.1, 0.2, delimited 0.2, Delphi, 0.3} squared,
with bodies of no frame, one, several, and one that begins with an empty frame."""

from __future__ import annotations

import pytest

from majordomus.protocol import spec
from majordomus.protocol.spec import Dialect, Frame
from tests.core import dialects
from tests.core.broker_harness import BrokerHarness
from tests.core.dialects import ALL, DELPHI, KNOWS_PARTS, MDP03

C, W = b"client-c", b"worker-w"
BODIES: dict[str, list[Frame]] = {
    "no frame": [],
    "one frame": [b"x"],
    "one empty frame": [b""],
    "several frames": [b"a", b"b" * 300, b"", b"MDPC01"],
    "an empty frame first": [b"", b"y"],
}


def opened(
    harness: BrokerHarness, client: Dialect, worker: Dialect, body: list[Frame]
) -> tuple[Frame, int]:
    """The request of C at W; returns the address and the number under which W answers."""
    harness.receive(W, *dialects.ready(worker, b"echo"))
    harness.sent()
    harness.receive(C, *dialects.ask(client, b"echo", body))
    number = spec.BROKER_ID_BIT | harness.machine.registry.last_number
    address = number.to_bytes(8, "big")
    if worker is DELPHI and client is DELPHI:
        address = harness.handles[C]
    expected = dialects.asked(worker, address, body, number, b"echo", harness.handles[C])
    assert harness.sent() == [(W, expected)]
    return address, number


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("worker", ALL)
@pytest.mark.parametrize("client", ALL)
def test_any_client_may_call_any_worker(
    harness: BrokerHarness, client: Dialect, worker: Dialect, body: list[Frame]
) -> None:
    address, number = opened(harness, client, worker, body)
    harness.receive(W, *dialects.end(worker, b"echo", address, body, number))
    heard = dialects.end_heard(client, b"echo", body, W)
    assert harness.sent() == [(C, heard)]
    assert (harness.counts.answered, harness.counts.dropped) == (1, {})
    assert harness.machine.registry.workers[W].held == {}


@pytest.mark.parametrize("worker", KNOWS_PARTS)
@pytest.mark.parametrize("client", ALL)
def test_parts_arrive_as_each_client_takes_them(
    harness: BrokerHarness, client: Dialect, worker: Dialect
) -> None:
    """Clients that know no parts get them joined in order into the one reply."""
    address, number = opened(harness, client, worker, [b"x"])
    parts: list[list[Frame]] = [[b"1"], [], [b"2", b"", b"3"]]
    for body in parts:
        harness.receive(W, *dialects.part(worker, address, body, number))
    harness.receive(W, *dialects.end(worker, b"echo", address, [b"4"], number))
    if client in KNOWS_PARTS:
        heard = [dialects.part_heard(client, b"echo", body) for body in parts]
        last = [b"4"]
    else:
        heard = []
        last = [b"1", b"2", b"", b"3", b"4"]
    heard.append(dialects.end_heard(client, b"echo", last, W))
    assert harness.sent() == [(C, frames) for frames in heard]
    assert harness.counts.parts == 3


@pytest.mark.parametrize("client", ALL)
def test_all_workers_of_a_service_serve_whatever_they_speak(
    harness: BrokerHarness, client: Dialect
) -> None:
    """One worker of each dialect at one service; the same client asks five times."""
    workers = {b"worker-%d" % n: dialect for n, dialect in enumerate(ALL)}
    for name, dialect in workers.items():
        harness.receive(name, *dialects.ready(dialect, b"echo"))
    harness.sent()
    for id in range(1, 6):
        harness.receive(C, *dialects.ask(client, b"echo", [b"%d" % id], id))
    assert [worker for worker, _ in harness.sent()] == list(workers)
    for id, (name, dialect) in enumerate(workers.items(), 1):
        (number,) = harness.machine.registry.workers[name].held
        address = number.to_bytes(8, "big")
        if dialect is DELPHI and client is DELPHI:
            address = harness.handles[C]
        body = [b"for %d" % id]
        harness.receive(name, *dialects.end(dialect, b"echo", address, body, number))
        assert harness.sent() == [(C, dialects.end_heard(client, b"echo", body, name, id))]


@pytest.mark.parametrize("worker", ALL)
@pytest.mark.parametrize("client", ALL)
def test_client_behind_an_envelope_may_call_any_worker(
    harness: BrokerHarness, client: Dialect, worker: Dialect
) -> None:
    envelope = [b"\x01\x02\x03\x04"] if client is not MDP03 else [b"\x01\x02\x03\x04", b""]
    harness.receive(W, *dialects.ready(worker, b"echo"))
    harness.sent()
    harness.receive(C, *envelope, *dialects.ask(client, b"echo", [b"x"]))
    ((_, given),) = harness.sent()
    (number,) = harness.machine.registry.workers[W].held
    address = number.to_bytes(8, "big")
    if worker is DELPHI and client is DELPHI:
        address = harness.handles[C]
    assert given == dialects.asked(worker, address, [b"x"], number, b"echo", harness.handles[C])
    harness.receive(W, *dialects.end(worker, b"echo", address, [b"y"], number))
    heard = dialects.end_heard(client, b"echo", [b"y"], W)
    assert harness.sent() == [(C, [*envelope, *heard])]

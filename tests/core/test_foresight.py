"""What looks ahead changes nothing: a batch has the effects that its messages have one by one."""

from __future__ import annotations

import pytest

from majordomus.core import foresight, hints
from majordomus.core.broker import BrokerMachine
from majordomus.core.settings import BrokerSettings
from majordomus.protocol import mdp03, spec
from majordomus.protocol.spec import Frame
from tests.core import house
from tests.core.house import House, number

SERVICES = 600
"""More than the compiled rules' `hints.MANY`."""
ECHO = b"service-007"


@pytest.fixture(autouse=True)
def python_looks_ahead_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hints, "MANY", 500)


def broker(services: int) -> BrokerMachine:
    """A machine that has so many services, of one worker each but the first, which has two."""
    made = BrokerMachine(BrokerSettings(), house.ids(), "house")
    for n in range(services + 1):
        name = b"service-%03d" % (n % services)
        made.receive(b"worker-%03d" % n, [mdp03.pack(spec.READY, code=9, service=name)], 1.0)
    for _ in range(2):
        made.take_effects()
    return made


def request(name: bytes, id: int = 1, **fields: int) -> Frame:
    return mdp03.pack(spec.REQUEST, id=id, ttl=5000, service=name, **fields)


def messages() -> list[tuple[bytes, list[Frame]]]:
    """What peers say, well-formed and not; made anew, for the machine keeps the lists."""
    final = mdp03.pack(spec.FINAL, code=200, id=number(1))
    good = [(b"client", [request(b"service-%03d" % (n * 7), n + 1), b"body"]) for n in range(40)]
    return [
        *good[:20],
        (b"client", []),
        (b"client", [b""]),
        (b"client", [b"MDP\x03"]),
        (b"client", [request(ECHO, 50)[:20]]),
        (b"client", [request(ECHO, 51)[:21]]),
        (b"client", [request(ECHO, 52)[:-3]]),
        (b"client", [request(ECHO, 53) + b"more"]),
        (b"client", [bytearray(request(ECHO, 54)), b"body"]),
        (b"client", [memoryview(request(ECHO, 55)), b"body"]),
        (b"client", [request(b"", 56), b"body"]),
        (b"client", [request(b"nobody's", 57), b"body"]),
        (b"client", [request(b"\xff", 58), b"body"]),
        (b"client", [request(ECHO, 59, flags=spec.FAIL_FAST)]),
        (b"client", [b"envelope", b"", request(ECHO, 60), b"body"]),
        (b"nobody", [final, b"body"]),
        (b"worker-007", [final, b"body"]),
        (b"worker-000", [final, b"body"]),
        (b"legacy", [b"", b"MDPC02", b"\x01", ECHO, b"body"]),
        (b"legacy", [b"MDPC02", b"\x01", ECHO, b"body"]),
        (b"worker-014", [mdp03.pack(spec.DISCONNECT)]),
        (b"client", [request(b"service-014", 61), b"body"]),
        *good[20:],
    ]


@pytest.mark.parametrize(("services", "sends"), [(3, 5), (SERVICES, 40)])
def test_batch_has_the_effects_of_its_messages_one_by_one(services: int, sends: int) -> None:
    together, alone = broker(services), broker(services)
    assert together.receive_all(messages(), 2.0) == []
    for peer, frames in messages():
        alone.receive(peer, frames, 2.0)
    effects = together.take_effects()
    assert effects == alone.take_effects()
    assert len(effects[1]) > sends
    assert together.registry.counts.dropped == alone.registry.counts.dropped
    house.invariants.check(together)


def test_look_ahead_goes_so_far_and_not_beyond_the_batch() -> None:
    registry, batch = broker(SERVICES).registry, messages()
    assert foresight.ahead(registry, batch, 0) == foresight.AT_ONCE
    assert foresight.ahead(registry, batch, len(batch) - 3) == len(batch)


def test_few_services_are_worth_no_look() -> None:
    assert foresight.ahead(broker(3).registry, messages(), 0) == -1


@pytest.mark.parametrize(
    ("frames", "name"),
    [
        ([request(ECHO), b"body"], ECHO),
        ([request(b"")], b""),
        ([], None),
        ([b""], None),
        ([request(ECHO)[:21]], None),
        ([request(ECHO)[:-1]], None),
        ([memoryview(request(ECHO))], None),
        ([b"envelope", b"", request(ECHO)], None),
        ([mdp03.pack(spec.READY, code=1, service=ECHO)], None),
    ],
)
def test_name_is_that_of_a_request_whose_header_has_it(
    frames: list[Frame], name: bytes | None
) -> None:
    assert foresight.called(frames) == name


def test_of_many_workers_each_has_its_turn(house: House) -> None:
    workers = [b"worker-%03d" % n for n in range(SERVICES)]
    for worker in workers:
        house.worker(worker, capacity=2)
    house.said()
    for id in range(2 * SERVICES):
        house.request(b"client-c", id + 1)
    assert [peer for peer, _ in house.dispatched()] == 2 * workers

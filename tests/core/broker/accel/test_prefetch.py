"""Prefetching changes nothing: a batch has the effects that its messages have one by one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from majordomus.core.broker.accel import prefetch
from majordomus.core.broker.accel import prefetch_hints as hints
from majordomus.core.broker.accel.prefetch import Prefetcher
from majordomus.core.broker.balancing.strategy import LeastOutstanding
from majordomus.core.broker.machine import BrokerMachine
from majordomus.core.broker.settings import BrokerSettings
from majordomus.core.broker.state.registry import RULES
from majordomus.core.broker.state.services import Service
from majordomus.protocol import mdp03, spec
from majordomus.protocol.mdp03 import called_name_hash
from majordomus.protocol.spec import Frame
from tests.core import broker_harness as harness
from tests.core.broker_harness import BrokerHarness, number

SERVICES = 600
"""More than the compiled rules' `hints.MANY`."""
ECHO = b"service-007"


@pytest.fixture(autouse=True)
def many_services_and_workers_in_python_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hints, "MANY", 500)
    monkeypatch.setattr(hints, "RING", 32)


def broker(services: int) -> BrokerMachine:
    """A machine that has so many services, of one worker each but the first, which has two."""
    made = BrokerMachine(BrokerSettings(), harness.ids(), "harness")
    for n in range(services + 1):
        name = b"service-%03d" % (n % services)
        made.receive(b"worker-%03d" % n, [mdp03.pack(spec.READY, code=9, service=name)], 1.0)
    for _ in range(2):
        made.take_effects()
    return made


def request(name: bytes, id: int = 1, **fields: int) -> Frame:
    return mdp03.pack(spec.REQUEST, id=id, ttl=5000, service=name, **fields)


def messages() -> list[tuple[bytes, list[Frame]]]:
    """Messages of peers, well-formed and not. Made anew: the machine keeps the lists."""
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
    for _ in range(3):
        assert together.receive_all(messages(), 2.0) == []
        for peer, frames in messages():
            alone.receive(peer, frames, 2.0)
        effects = together.take_effects()
        assert effects == alone.take_effects()
        assert len(effects[1]) > sends
        assert together.registry.counts.dropped == alone.registry.counts.dropped
        harness.invariants.check(together)
        for made in (together, alone):
            made.receive(b"client", [mdp03.pack(spec.DISCONNECT)], 2.0)


def test_each_step_is_taken_one_message_later_and_not_beyond_the_batch() -> None:
    batch = messages()
    prefetcher = broker(SERVICES).prefetcher
    hashes = [called_name_hash(frames) for _, frames in batch]
    places = [-1 if hash < 0 else hash & prefetcher._mask for hash in hashes]
    services = [None if place < 0 else prefetcher._table[place] for place in places]
    places += [-1] * prefetch.AHEAD
    services += [None] * prefetch.AHEAD
    iterator: Any = prefetcher.ahead(batch)
    for n, message in enumerate(iterator):
        assert message is batch[n]
        guesses = [prefetcher._guess, iterator._ordered, iterator._peered, iterator._staffed]
        assert guesses == services[n : n + 4]
        assert [iterator._entry, iterator._hashed] == places[n + 4 : n + 6]
    assert n == len(batch) - 1


def test_batch_is_only_iterated_with_few_services() -> None:
    batch = messages()
    iterator = broker(3).prefetcher.ahead(batch)
    assert type(iterator) is type(iter(batch))
    assert list(iterator) == batch


@pytest.mark.parametrize("services", [3, SERVICES])
def test_entry_of_a_batch_that_is_no_message_stops_no_other(services: int) -> None:
    made = broker(services)
    first, second = calls([b"service-001", b"service-002"])
    batch: list[Any] = [first, None, second]
    faults = made.receive_all(batch, 2.0)
    assert 1 <= len(faults) <= 2
    assert [peer for peer, *_ in made.take_effects()[1]][-1:] == [b"worker-002"]


def known(name: bytes) -> Service:
    service = Service(name, LeastOutstanding())
    service.known = True
    return service


def new_prefetcher() -> Prefetcher:
    """One that knows `SERVICES` services."""
    made = Prefetcher()
    for n in range(SERVICES):
        made.add(known(b"service-%03d" % n))
    return made


def guessed(prefetcher: Prefetcher, names: list[bytes]) -> list[Service | None]:
    """For one request for each name in a batch: the service that is found by a guess; None where
    only the dictionary has it."""
    return [found_without_dictionary(prefetcher) for _ in each_call(prefetcher, names)]


def each_call(prefetcher: Prefetcher, names: list[bytes]) -> Iterator[bytes]:
    """Read one request for each name, in a batch that is looked at."""
    for _, frames in prefetcher.ahead(calls(names)):
        prefetcher.header.read(frames[0])
        yield prefetcher.header.service


def found_without_dictionary(prefetcher: Prefetcher) -> Service | None:
    services, prefetcher.services = prefetcher.services, {}
    found: Service | None = prefetcher.find(prefetcher.header.service)
    prefetcher.services = services
    return found


def calls(names: list[bytes]) -> list[tuple[bytes, list[Frame]]]:
    return [(b"client", [request(name, n + 1)]) for n, name in enumerate(names)]


def test_called_services_are_guessed_in_the_order_of_the_requests() -> None:
    prefetcher = new_prefetcher()
    services = prefetcher.services
    names = list(services)[:20]
    alone = prefetcher.guessable()
    guesses = guessed(prefetcher, names)
    assert guesses == [services[n] if services[n] in alone else None for n in names]
    assert len([guess for guess in guesses if guess]) > 10
    assert prefetcher.find(names[0]) is services[names[0]]


def test_compiled_rules_make_no_object_for_the_name_of_a_guessed_service() -> None:
    prefetcher = new_prefetcher()
    services = prefetcher.services
    names = list(services)[:10]
    for name in names:
        prefetcher.add(services[name])  # takes its entry of the table from any other service
    read = list(each_call(prefetcher, names))
    assert read == names
    same = [one for one in read if one is services[one].name]
    assert same == (names if RULES == "compiled" else [])


def test_guess_is_for_its_message_alone() -> None:
    prefetcher = new_prefetcher()
    services = prefetcher.services
    names = list(services)[:10]
    for name in names:
        prefetcher.add(services[name])
    for n, name in enumerate(each_call(prefetcher, names)):
        assert prefetcher.find(b"another") is None
        assert prefetcher.find(names[n - 1]) is services[names[n - 1]]
        assert prefetcher.find(bytes(bytearray(name))) is services[name]
        assert found_without_dictionary(prefetcher) is services[name]
        prefetcher.header.read(request(names[n - 1]))
        assert found_without_dictionary(prefetcher) is None


def test_message_that_calls_nothing_has_no_guess() -> None:
    prefetcher = new_prefetcher()
    prefetcher.add(prefetcher.services[ECHO])
    final = mdp03.pack(spec.FINAL, code=200, id=number(1))
    batch = [*calls([ECHO]), (b"worker", [final]), *calls([b"nobody's"])]
    found = []
    for _, frames in prefetcher.ahead(batch):
        prefetcher.header.read(frames[0])
        found.append(found_without_dictionary(prefetcher))
    assert found == [prefetcher.services[ECHO], None, None]


def test_table_that_has_grown_has_every_service() -> None:
    prefetcher = new_prefetcher()
    small = len(prefetcher._table)
    for n in range(20 * SERVICES):
        prefetcher.add(known(b"another-%05d" % n))
    assert len(prefetcher._table) > small
    assert len(prefetcher.guessable()) > 0.9 * len(prefetcher.services)
    assert set(prefetcher.guessable()) <= set(prefetcher.services.values())


def test_service_that_is_no_longer_known_is_neither_guessed_nor_kept() -> None:
    prefetcher = new_prefetcher()
    name = b"service-001"
    service = prefetcher.services[name]
    prefetcher.add(service)
    service.known = False
    assert guessed(prefetcher, [name]) == [None]
    service.known = True
    assert guessed(prefetcher, [name]) == [service]
    prefetcher.remove(service)
    assert guessed(prefetcher, [name]) == [None]
    assert prefetcher.find(name) is None


def test_service_that_is_forgotten_after_the_guess_is_not_found() -> None:
    prefetcher = new_prefetcher()
    service = prefetcher.services[ECHO]
    prefetcher.add(service)
    for _ in each_call(prefetcher, [ECHO]):
        service.known = False
        prefetcher.remove(service)
        assert prefetcher.find(prefetcher.header.service) is None


def test_services_that_share_an_entry_are_told_apart() -> None:
    prefetcher = new_prefetcher()
    first: dict[int, bytes] = {}
    n = 0
    while (at := prefetcher._place(b"name-%d" % n)) not in first:
        first[at] = b"name-%d" % n
        n += 1
    one, other = known(first[at]), known(b"name-%d" % n)
    prefetcher.add(one)
    prefetcher.add(other)
    assert guessed(prefetcher, [one.name, other.name]) == [None, other]
    prefetcher.remove(one)
    for name in each_call(prefetcher, [one.name, other.name]):
        assert prefetcher.find(name) is (other if name == other.name else None)


def test_no_guess_is_kept_when_few_services_are_left() -> None:
    prefetcher = new_prefetcher()
    prefetcher.add(prefetcher.services[ECHO])
    assert guessed(prefetcher, [ECHO]) == [prefetcher.services[ECHO]]
    for service in list(prefetcher.services.values())[10:]:
        prefetcher.remove(service)
    assert guessed(prefetcher, [ECHO]) == [None]
    assert prefetcher.find(ECHO) is prefetcher.services[ECHO]


def test_service_that_ended_within_the_batch_is_made_anew() -> None:
    made = broker(SERVICES)
    name = b"nobody's"
    assert made.receive_all([(b"client", [request(name, 1)])], 2.0) == []
    before = made.registry.services[name]
    made.prefetcher.add(before)  # takes its entry of the table from any other service
    cancel = mdp03.pack(spec.CANCEL, id=1)
    again = [(b"client", [cancel]), (b"client", [request(name, 2)])]
    assert made.receive_all(again, 2.0) == []
    assert not before.known
    assert made.registry.services[name] is not before
    harness.invariants.check(made)


class TestPeerThatAnswersIsFoundByTheDispatch:
    def served(self) -> tuple[BrokerMachine, int]:
        made = broker(3)
        made.receive(b"client", [request(b"service-001")], 2.0)
        return made, number(1)

    def test_by_its_number_and_its_routing_id(self) -> None:
        made, dispatch = self.served()
        answerer, peers = made.registry.dispatch_table.answerer, made.registry.peers
        assert answerer(b"worker-001", dispatch) is peers[b"worker-001"]
        assert answerer(b"worker-002", dispatch) is None
        assert answerer(b"client", dispatch) is None

    def test_not_by_a_number_that_only_has_the_same_place(self) -> None:
        made, dispatch = self.served()
        ring = made.registry.dispatch_table
        assert ring.answerer(b"worker-001", dispatch + ring._mask + 1) is None
        assert ring.answerer(b"worker-001", dispatch & ~spec.BROKER_ID_BIT) is None
        assert ring.answerer(b"worker-001", 0) is None

    def test_not_when_it_has_been_forgotten(self) -> None:
        made, dispatch = self.served()
        peer = made.registry.peers[b"worker-001"]
        peer.move("forget")
        assert made.registry.dispatch_table.answerer(b"worker-001", dispatch) is None


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
def test_hash_is_that_of_the_name_in_a_request(frames: list[Frame], name: bytes | None) -> None:
    expected = -1 if name is None else called_name_hash([request(name, 99)])
    assert called_name_hash(frames) == expected
    assert expected != called_name_hash([request(b"another")])


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 15, 16, 17, 255])
def test_every_byte_of_a_name_is_in_its_hash(size: int) -> None:
    name = bytes(range(size))
    names = [name, name + b"x", *(name[:n] + b"?" + name[n + 1 :] for n in range(size) if n != 63)]
    hashes = {called_name_hash([request(each[:255])]) for each in names}
    assert len(hashes) == len({each[:255] for each in names})
    assert min(hashes) >= 0


def test_each_of_many_workers_has_its_turn(harness: BrokerHarness) -> None:
    workers = [b"worker-%03d" % n for n in range(SERVICES)]
    for worker in workers:
        harness.worker(worker, capacity=2)
    harness.sent()
    for id in range(2 * SERVICES):
        harness.request(b"client-c", id + 1)
    assert [peer for peer, _ in harness.dispatched()] == 2 * workers

"""The broker machine as a whole: random conversations of several dialects in random order, with
peers that die, stall and lie. After each step the invariants hold, and nobody heard what must not
be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from majordomus.protocol import mdp03, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Frame
from tests.core.broker_harness import BrokerHarness
from tests.core.oracle import Oracle

NEW_WORKERS = st.sampled_from([b"new-worker-%d" % n for n in range(3)])
OLD_WORKERS = {b"old-worker-" + d.value.encode(): d for d in LEGACY}
CLIENTS = st.sampled_from([b"client-%d" % n for n in range(3)])
OLD_CLIENTS = {b"old-client-" + d.value.encode(): d for d in LEGACY}
PEERS = st.one_of(
    NEW_WORKERS, CLIENTS, st.sampled_from([*OLD_WORKERS]), st.sampled_from([*OLD_CLIENTS])
)
SERVICES = st.sampled_from([b"echo", b"echo", b"echo", b"time", b"mmi.service", b"mmi.stats"])
SERVED = st.sampled_from([b"echo", b"echo", b"echo", b"time", b"time", b"mmi.none"])
BODIES = st.lists(st.sampled_from([b"", b"x", b"MDP\x03", b"y" * 40]), max_size=3)
FLAGS = st.sampled_from(
    [
        0,
        0,
        0,
        spec.ONCE,
        spec.ONE_WAY,
        spec.FAIL_FAST,
        spec.MORE,
        spec.MORE,
        spec.MORE | spec.ONE_WAY,
    ]
)
PICK = st.integers(0, 10)


class Broker(RuleBasedStateMachine):
    """Peers have fixed names; a client never uses an id twice."""

    def __init__(self) -> None:
        super().__init__()
        self.harness = BrokerHarness(
            max_message=64, max_frames=3, max_open=5, max_queue=8, max_service_queue=6,
            max_client_queue=4, max_services=6, max_outbox=2, max_outbox_bytes=300,
            client_idle=40.0, busy_timeout=20.0, default_ttl=10.0, delphi_capacity=2,
        )  # fmt: skip
        self.witness = Oracle()
        self.last_id = 0
        self.witness.ahead = 2
        for worker in OLD_WORKERS:
            self.witness.announces(worker, 2)

    @initialize()
    def open_the_house(self) -> None:
        self.ready(b"new-worker-0", b"echo", 2)
        self.old_ready(b"old-worker-mdp02", b"echo")
        self.old_ready(b"old-worker-delphi", b"echo")

    # workers

    @rule(worker=NEW_WORKERS, service=SERVED, capacity=st.sampled_from([1, 1, 2, 3, 0]))
    def ready(self, worker: bytes, service: bytes, capacity: int) -> None:
        if worker not in self.harness.machine.registry.workers:
            self.witness.left(worker)
        self.witness.announces(worker, capacity)
        self.harness.worker(worker, service, capacity)

    @rule(worker=NEW_WORKERS, capacity=st.integers(0, 3))
    def capacity(self, worker: bytes, capacity: int) -> None:
        self.witness.announces(worker, capacity)
        self.harness.receive_03(worker, spec.CAPACITY, code=capacity)

    @rule(worker=st.sampled_from([*OLD_WORKERS]), service=SERVED)
    def old_ready(self, worker: bytes, service: bytes) -> None:
        self.harness.receive(worker, *LEGACY[OLD_WORKERS[worker]].w2b_ready(service))

    @precondition(lambda self: self._dispatches())
    @rule(which=PICK, body=BODIES, status=st.sampled_from([200, 200, 500, 0]))
    def final(self, which: int, body: list[Frame], status: int) -> None:
        self._reply(spec.FINAL, which, body, status)

    @precondition(lambda self: self._dispatches())
    @rule(which=PICK, body=BODIES)
    def partial(self, which: int, body: list[Frame]) -> None:
        self._reply(spec.PARTIAL, which, body)

    @precondition(lambda self: self._dispatches())
    @rule(which=PICK)
    def reject(self, which: int) -> None:
        self._reply(spec.REJECT, which, [])

    def _dispatches(self) -> list[tuple[bytes, int]]:
        """(worker, number) of what workers have, as far as they have heard of it."""
        known = self.harness.machine.registry.workers
        heard = [(w, n) for w in sorted(self.witness.holds) for n in sorted(self.witness.holds[w])]
        return heard + [(w, n) for w in sorted(OLD_WORKERS) if w in known for n in known[w].held]

    def _reply(self, command: int, which: int, body: list[Frame], status: int = 0) -> None:
        worker, number = self._pick(self._dispatches(), which, (b"", 0))
        if worker not in OLD_WORKERS:
            if command != spec.PARTIAL:
                self.witness.answers(worker, number)
            self.harness.receive_03(worker, command, *body, id=number, code=status)
            return
        handles = self.harness.machine.registry.workers[worker].handles
        address = next(handle for handle, waiting in handles.items() if number in waiting)
        codec = LEGACY[OLD_WORKERS[worker]]
        parts = command == spec.PARTIAL and b"02" in worker
        write = codec.w2b_partial if parts else codec.w2b_final
        self.harness.receive(worker, *write(b"echo", address, body))

    @precondition(lambda self: self._dispatches())
    @rule(which=PICK, times=st.sampled_from([5, 17, 20]))
    def flood(self, which: int, times: int) -> None:
        """More parts than there may be credit for."""
        worker, number = self._pick(self._dispatches(), which, (b"", 0))
        for _ in range(times if worker not in OLD_WORKERS else 0):
            self.harness.receive_03(worker, spec.PARTIAL, id=number)

    @precondition(lambda self: self._dispatches())
    @rule(which=PICK, parts=st.sampled_from([0, 1, 8, 65535]))
    def worker_grants(self, which: int, parts: int) -> None:
        worker, number = self._pick(self._dispatches(), which, (b"", 0))
        if worker not in OLD_WORKERS:
            self.witness.grants(worker, number, parts)
            self.harness.receive_03(worker, spec.CREDIT, id=number, code=parts)

    @rule(
        worker=NEW_WORKERS,
        command=st.sampled_from([spec.FINAL, spec.PARTIAL, spec.REJECT, spec.HEARTBEAT]),
        number=st.sampled_from([0, 1, spec.BROKER_ID_BIT | 1, spec.BROKER_ID_BIT | 999]),
    )
    def lie(self, worker: bytes, command: int, number: int) -> None:
        """A reply that may or may not be asked for."""
        if command in (spec.FINAL, spec.REJECT):
            self.witness.answers(worker, number)
        self.harness.receive_03(worker, command, id=number)

    @rule(worker=st.sampled_from([*OLD_WORKERS]), load=st.sampled_from([None, 0.5, -1.0]))
    def old_heartbeat(self, worker: bytes, load: float | None) -> None:
        self.harness.receive(worker, *LEGACY[OLD_WORKERS[worker]].w2b_heartbeat(b"echo", load))

    @rule(worker=st.sampled_from([*OLD_WORKERS]))
    def old_disconnect(self, worker: bytes) -> None:
        self.harness.receive(worker, *LEGACY[OLD_WORKERS[worker]].w2b_disconnect(b"echo"))

    # clients

    @rule(
        client=CLIENTS,
        service=SERVICES,
        body=BODIES,
        flags=FLAGS,
        ttl=st.sampled_from([0, 0, 1, 200, 3000]),
        to=st.sampled_from([b"", b"", b"", b"new-worker-0", b"new-worker-1"]),
        envelope=st.sampled_from([[], [], [b"e"], [b"e", b""]]),
    )
    def request(
        self, client: bytes, service: bytes, body: list[Frame], flags: int, ttl: int, to: bytes,
        envelope: list[Frame],
    ) -> None:  # fmt: skip
        self.last_id += 1
        header = mdp03.pack(spec.REQUEST, flags, 0, self.last_id, ttl, service, to)
        self.harness.receive(client, *envelope, header, *body)

    @rule(client=st.sampled_from([*OLD_CLIENTS]), service=SERVICES, body=BODIES)
    def old_request(self, client: bytes, service: bytes, body: list[Frame]) -> None:
        self.harness.receive(client, *LEGACY[OLD_CLIENTS[client]].c2b_request(service, body))

    @rule(client=CLIENTS, which=PICK, command=st.sampled_from([spec.CANCEL, spec.CANCEL, 99]))
    def about_an_open_request(self, client: bytes, which: int, command: int) -> None:
        known = self.harness.machine.registry.peers.get(client)
        ids = sorted(key for key in (known.open if known else ()) if isinstance(key, int))
        id = self._pick([id for id in ids if id > 0], which, 0)
        self.harness.receive_03(client, command, id=id)

    @rule(
        client=CLIENTS,
        which=PICK,
        command=st.sampled_from([spec.PARTIAL, spec.PARTIAL, spec.PARTIAL, spec.FINAL]),
        body=BODIES,
        times=st.sampled_from([1, 1, 1, 3, 17]),
    )
    def stream(
        self, client: bytes, which: int, command: int, body: list[Frame], times: int
    ) -> None:
        id, envelope = self._open_id(client, which)
        for _ in range(times if command == spec.PARTIAL else 1):
            self.harness.receive(client, *envelope, mdp03.pack(command, id=id), *body)

    @rule(client=CLIENTS, which=PICK, parts=st.sampled_from([0, 1, 8, 65535]))
    def client_grants(self, client: bytes, which: int, parts: int) -> None:
        id, envelope = self._open_id(client, which)
        self.witness.grants(client, id, parts, envelope)
        self.harness.receive(client, *envelope, mdp03.pack(spec.CREDIT, code=parts, id=id))

    def _open_id(self, client: bytes, which: int) -> tuple[int, tuple[Frame, ...]]:
        known = self.harness.machine.registry.peers.get(client)
        requests = list(known.open.values()) if known else []
        return self._pick([(r.id, r.envelope) for r in requests], which, (0, ()))

    @rule(
        peer=st.one_of(CLIENTS, NEW_WORKERS), command=st.sampled_from([spec.HELLO, spec.HEARTBEAT])
    )
    def presence(self, peer: bytes, command: int) -> None:
        self.harness.receive_03(peer, command)

    @rule(peer=st.one_of(CLIENTS, NEW_WORKERS))
    def leave(self, peer: bytes) -> None:
        self.witness.left(peer)
        self.harness.leave(peer)

    # the ground

    @rule(seconds=st.sampled_from([0.01, 0.01, 0.3, 0.3, 2.5, 2.5, 8.0, 30.0]))
    def time(self, seconds: float) -> None:
        self.harness.pass_time(seconds)

    @rule(seconds=st.sampled_from([2.0, 2.0, 9.0]))
    def pause(self, seconds: float) -> None:
        self.harness.now += seconds
        self.harness.turn()

    @rule(peer=PEERS)
    def full(self, peer: bytes) -> None:
        self.harness.full.add(peer)

    @rule(peer=PEERS)
    def roomy(self, peer: bytes) -> None:
        self.harness.full.discard(peer)

    @rule(peer=PEERS, seen=st.booleans())
    def dies(self, peer: bytes, seen: bool) -> None:
        """With or without the monitor seeing it."""
        self.harness.unreachable.add(peer)
        self.harness.full.discard(peer)
        if seen:
            self.harness.machine.connection_ended(peer, self.harness.now)
        self.harness.turn()

    @precondition(lambda self: self.harness.unreachable)
    @rule(which=PICK)
    def comes_back(self, which: int) -> None:
        """Under its old name, when its end has been noticed."""
        peer = self._pick(sorted(self.harness.unreachable), which, b"")
        self.harness.lose_connection(peer)
        self.harness.unreachable.discard(peer)
        self.witness.left(peer)

    @rule(peer=PEERS, frames=st.lists(st.binary(max_size=30), max_size=5))
    def rubbish(self, peer: bytes, frames: list[Frame]) -> None:
        self.harness.receive(peer, *frames)

    @precondition(lambda self: self.last_id > 20)
    @rule()
    def drain(self) -> None:
        self.harness.machine.drain(self.harness.now)
        self.harness.turn()

    # what must be

    @invariant()
    def books_agree(self) -> None:
        self.harness.check()

    @invariant()
    def nobody_heard_what_must_not_be(self) -> None:
        for peer, frames in self.harness.sent():
            self.witness.hears(peer, frames)

    def teardown(self) -> None:
        """Every request has an outcome when its deadline has passed."""
        self.harness.unreachable.clear()
        self.harness.full.clear()
        self.harness.pass_time(15.0)
        self.books_agree()
        self.nobody_heard_what_must_not_be()
        assert self.harness.machine.drained

    def _pick(self, things: Sequence[Any], which: int, otherwise: Any) -> Any:
        return things[which % len(things)] if things else otherwise


TestBroker = Broker.TestCase
TestBroker.settings = settings(
    max_examples=100,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)

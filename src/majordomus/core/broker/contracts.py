"""Contracts of services: the broker asks one worker for each contract that it does not know, and
reports workers that serve one name by incompatible contracts.

READY states the hash of a contract, CONTRACT carries its bytes (docs/spec/mdp-0.3.md). The bytes of
a contract are charged to the worker that sent them. When that worker is lost, they are charged to
another one that states it. A broker never refuses a worker for its contract.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from majordomus.contracts import compare, model
from majordomus.core.broker import encoding
from majordomus.core.broker.state.account import FRAME
from majordomus.core.broker.state.contract_table import StatedContract
from majordomus.errors import RemoteProtocolError
from majordomus.protocol import spec

if TYPE_CHECKING:
    from majordomus.core.broker.outgoing import Outgoing
    from majordomus.core.broker.state.registry import Registry
    from majordomus.core.broker.state.workers import RegisteredWorker
    from majordomus.protocol.spec import Frame

MOST_OF_A_SERVICE: Final = 8
"""Contracts of one service that are kept and compared at a time."""


def stated(
    registry: Registry,
    outgoing: Outgoing,
    worker: RegisteredWorker,
    name: bytes,
    hash: str,
    now: float,
) -> None:
    """Note the contract that `worker` states for the service with this full name; "" is none."""
    table = registry.contracts
    before = table.workers.get(worker, {}).get(name, "")
    if hash == before:
        return
    if before:
        _withdraw(registry, outgoing, worker, name, before, now)
    if not hash:
        return
    hashes = table.services.get(name, {})
    if hash not in hashes and len(hashes) >= MOST_OF_A_SERVICE:
        registry.count_dropped("too-many-contracts", worker.id)
        return
    entry = table.by_hash.get(hash)
    if entry is None:
        entry = table.by_hash[hash] = StatedContract(hash)
    table.services.setdefault(name, {})[entry.hash] = hashes.get(hash, 0) + 1
    table.workers.setdefault(worker, {})[name] = entry.hash
    entry.workers[worker] = entry.workers.get(worker, 0) + 1
    if not entry.data and entry.asked is None:
        _ask(registry, outgoing, entry, now)
    elif entry.data and not hashes.get(hash):
        _check(registry, name, entry)


def received(
    registry: Registry,
    outgoing: Outgoing,
    worker: RegisteredWorker,
    hash: object,
    body: list[Frame],
    now: float,
) -> None:
    """Take the answer of a worker that was asked for a contract."""
    table = registry.contracts
    entry = table.by_hash.get(hash) if isinstance(hash, str) else None
    if entry is None or entry.asked is not worker:
        registry.count_dropped("unasked-contract", worker.id)
        return
    entry.asked = None
    data = bytes(body[0]) if len(body) == 1 else b""
    cost = len(data) + FRAME
    account = registry.account
    reason = ""
    try:
        model.parse(data)
        if model.hash_of(data) != hash:
            reason = "bad-contract"
        elif account.exceeds_reserve(cost) or account.exceeds_share(worker.peer, cost):
            reason = "too-much-held"
    except RemoteProtocolError as error:
        reason = error.reason
    if reason:
        registry.count_dropped(reason, worker.id)
        for name in [n for n, one in table.workers[worker].items() if one == hash]:
            _withdraw(registry, outgoing, worker, name, entry.hash, now)
        return
    entry.data, entry.owner = data, worker
    account.register(worker, cost)
    for name, hashes in table.services.items():
        if entry.hash in hashes:
            _check(registry, name, entry)


def worker_lost(
    registry: Registry, outgoing: Outgoing, worker: RegisteredWorker, now: float
) -> None:
    """Forget what a lost worker stated."""
    for name, hash in list(registry.contracts.workers.get(worker, {}).items()):
        _withdraw(registry, outgoing, worker, name, hash, now)


def _ask(registry: Registry, outgoing: Outgoing, entry: StatedContract, now: float) -> None:
    """Ask the first worker that states a contract for its bytes."""
    worker = entry.asked = next(iter(entry.workers))
    names = registry.contracts.workers[worker]
    name = next(name for name, hash in names.items() if hash == entry.hash)
    message = encoding.contract(name.removeprefix(worker.peer.prefix), entry.hash)
    outgoing.send(worker.peer, message, spec.CONTRACT, None, now)


def _withdraw(
    registry: Registry,
    outgoing: Outgoing,
    worker: RegisteredWorker,
    name: bytes,
    hash: str,
    now: float,
) -> None:
    """`worker` no longer states the contract `hash` for a service."""
    table = registry.contracts
    names = table.workers[worker]
    del names[name]
    if not names:
        del table.workers[worker]
    hashes = table.services[name]
    hashes[hash] -= 1
    if not hashes[hash]:
        del hashes[hash]
        conflicts = table.conflicts.pop(name, {})
        left = {pair: text for pair, text in conflicts.items() if hash not in pair}
        if left:
            table.conflicts[name] = left
    if not hashes:
        del table.services[name]
    entry = table.by_hash[hash]
    entry.workers[worker] -= 1
    if entry.workers[worker]:
        return
    del entry.workers[worker]
    if entry.owner is worker:
        cost = len(entry.data) + FRAME
        registry.account.register(worker, -cost)
        entry.owner = next(iter(entry.workers), None)
        if entry.owner is not None:
            registry.account.register(entry.owner, cost)
    if not entry.workers:
        del table.by_hash[hash]
    elif entry.asked is worker or (entry.asked is None and not entry.data):
        _ask(registry, outgoing, entry, now)


def _check(registry: Registry, name: bytes, entry: StatedContract) -> None:
    """Compare a contract with the others of a service. An incompatible one is a fact."""
    table = registry.contracts
    contract = model.parse(entry.data)
    for hash in table.services[name]:
        other = table.by_hash[hash]
        if other is entry or not other.data:
            continue
        older = model.parse(other.data)
        if compare.compatible(older, contract):
            continue
        reason = str(next(one for one in compare.changes(older, contract) if one.breaking))
        table.conflicts.setdefault(name, {})[other.hash, entry.hash] = reason
        registry.emit(
            "contracts-differ", service=name, one=other.hash[:12], other=entry.hash[:12], why=reason
        )

"""The contracts that registered workers state, by hash. The rules are in ../contracts.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from majordomus.core.broker.state.workers import RegisteredWorker


class StatedContract:
    """One contract, which any number of workers state.

    hash: its hash.
    workers: those workers, the first one first, with the number of their services that state it.
    data: its canonical bytes; empty until a worker has sent them.
    owner: the worker whose account is charged for the bytes; None without them.
    asked: the worker that was asked for them and has not answered; None for none.
    """

    __slots__ = ("asked", "data", "hash", "owner", "workers")

    def __init__(self, hash: str) -> None:
        self.hash = hash
        self.workers: dict[RegisteredWorker, int] = {}
        self.data = b""
        self.owner: RegisteredWorker | None = None
        self.asked: RegisteredWorker | None = None


class ContractTable:
    """All stated contracts of one broker.

    by_hash: each of them by its hash.
    services: of each service that has any: the hashes, with the number of workers that state each.
    workers: of each worker that states any: the hash of each of its services.
    conflicts: of each service with contracts that are incompatible: for each pair of hashes, the
        first reason.
    """

    __slots__ = ("by_hash", "conflicts", "services", "workers")

    def __init__(self) -> None:
        self.by_hash: dict[str, StatedContract] = {}
        self.services: dict[bytes, dict[str, int]] = {}
        self.workers: dict[RegisteredWorker, dict[bytes, str]] = {}
        self.conflicts: dict[bytes, dict[tuple[str, str], str]] = {}

    def conflict(self, service: bytes) -> str:
        """Why contracts of a service are incompatible; empty when they are not."""
        return next(iter(self.conflicts.get(service, {}).values()), "")

"""The contract between the broker's machine and the program around it.

The program (`majordomus.net.broker`) uses the members of `Machine` and nothing behind them:
tests/test_machine_contract.py fails for any other attribute. Every `now` is monotonic seconds and
never goes back. Where nothing else is stated, a method belongs to the thread that owns the machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from majordomus.core.broker.durable.records import (
        Answer,
        Opened,
        StoredRequest,
        StoreState,
    )
    from majordomus.core.broker.hooks.actions import Action
    from majordomus.core.broker.hooks.interface import Hooks
    from majordomus.core.broker.internal_calls import Done
    from majordomus.core.broker.settings import BrokerSettings
    from majordomus.core.broker.state.access_rules import AccessRules
    from majordomus.core.broker.state.registry import Fact, Send, Write
    from majordomus.protocol.spec import Frame


class WorkerInfo(NamedTuple):
    """A snapshot of one worker.

    ``id``: its routing id. ``services``: names of its services. ``dialect``: its protocol.
    ``capacity``: requests that it accepts at a time. ``held``: requests that it holds.
    ``load``: the load that it reported, None before the first report. ``user``: the user that its
    connection proved, "" without one.
    """

    id: bytes
    services: tuple[str, ...]
    dialect: str = ""
    capacity: int = 0
    held: int = 0
    load: float | None = None
    user: str = ""


class Machine(Protocol):
    """A broker's machine, as the program around it uses it."""

    # ── messages, time, effects ───────────────────────────────────────────────────────────────────

    def receive_all(
        self, batch: list[tuple[bytes, list[Frame]]], now: float
    ) -> list[tuple[bytes, Exception]]:
        """Handle the messages of a batch in order; the machine owns the frame lists afterwards.

        Returns (routing id, exception) of each message that a fault of the machine has cost.
        """

    def socket_empty(self, now: float) -> None:
        """Report that every message that had arrived has been received."""

    def tick(self, now: float) -> None:
        """Do what is due. Call it at `next_deadline`, and after each batch."""

    def next_deadline(self) -> float:
        """Return when `tick` is next needed, in monotonic seconds; infinity when nothing is due.

        0 means: receive without waiting, a refused send still has consequences.
        """

    def take_effects(self) -> tuple[list[Write], list[Send], list[Fact]]:
        """Return writes, sends and facts since the last call. The lists are reused two calls
        later."""

    def refused(self, send: Send, gone: bool, now: float) -> None:
        """Report a send that the socket refused (rule 9): its peer is `gone`, or its queue is full.

        Report the refusals of one batch in the order of their sends.
        """

    # ── the store ─────────────────────────────────────────────────────────────────────────────────

    def use_store(self, opened: Opened, now: float) -> None:
        """Serve durable requests from now on. Before the first message, and once."""

    def recover(self, rows: Iterable[StoredRequest], now: float) -> None:
        """Continue with stored requests that have no outcome, in the order of their numbers. May be
        called for each page of them, before the first message."""

    def stored(self, number: int, answers: Sequence[tuple[int, Answer]], now: float) -> None:
        """Report that every write up to `number` is stored, in the order in which `take_effects`
        returned them. `answers`: number and answer of those that have one. A write that failed is
        never reported: its outcome is unknown, and the program ends the broker."""

    def store_state(self, state: StoreState) -> None:
        """Report the state of the store. It refuses new durable requests when the store does."""

    @property
    def unstored(self) -> int:
        """The number of writes that are not stored yet."""

    # ── connections ───────────────────────────────────────────────────────────────────────────────

    def connection_ended(self, peer_id: bytes, now: float) -> None:
        """Report the end of a connection; messages of it may still follow. May be repeated."""

    def connection_over(self, peer_id: bytes, now: float) -> None:
        """Report the end of a connection of which no message can follow. May be repeated."""

    def identify(
        self, peer_id: bytes, user: str, groups: tuple[str, ...], now: float, key: str = ""
    ) -> bool:
        """Set the identity that a connection has proved: before its first message, and again when
        it changes.

        Returns False when the routing id was another user's a moment ago: drop its messages.
        """

    def unix_peer(self, peer_id: bytes, uid: int, pid: int) -> None:
        """Log the Unix user and process of an ipc connection."""

    def revoke(self, peer_id: bytes, now: float) -> None:
        """Forget a peer that may no longer be connected. The caller ends its connection."""

    def restore_identity(self, peer_id: bytes, now: float) -> None:
        """Reduce a peer to the identity that its connection proved: a token of it is no longer
        valid. Nothing happens for an unknown peer."""

    def handshake_failed(self, reason: str, **data: object) -> None:
        """Count and log a connection that failed before its first message. `reason` is a short
        key."""

    def cut_off(self, reason: str, address: str) -> None:
        """Count and log a connection that was ended for a broken limit. `reason` is a short key."""

    def count_dropped(self, reason: str, peer_id: bytes) -> None:
        """Count and log a message that was dropped before it reached the machine."""

    # ── access rules and settings ─────────────────────────────────────────────────────────────────

    @property
    def settings(self) -> BrokerSettings:
        """The settings in force; `reconfigure` replaces them."""

    def reconfigure(self, settings: BrokerSettings, now: float) -> tuple[str, ...]:
        """Apply settings to what comes from now on; open requests keep their deadlines.

        Returns the names of changed settings that cannot change while a broker runs.
        """

    def set_rights(self, rights: AccessRules | None, now: float) -> None:
        """Apply access rules. Workers that may no longer serve are disconnected."""

    def set_default_rights(self, rights: AccessRules, now: float) -> None:
        """Apply access rules unless some are in force."""

    # ── hooks ─────────────────────────────────────────────────────────────────────────────────────

    def use(self, hooks: Hooks | None) -> None:
        """Pass later requests to `hooks`. Decisions that are pending may still be made."""

    def resume(self, id: int, action: Action, now: float) -> bool:
        """Make the pending decision `id`. Returns False when it is no longer pending."""

    def is_pending(self, id: int) -> bool:
        """Return whether the decision `id` is still pending."""

    def worker_info(self, id: bytes) -> WorkerInfo | None:
        """Return a snapshot of the worker with this routing id; None for an unknown one.

        Any thread may call it.
        """

    def find_worker(self, service: bytes, key: bytes = b"") -> WorkerInfo | None:
        """Return the worker that the strategy of a service chooses now; None when none is free.

        `key`: what `sticky` chooses by.
        """

    # ── the broker as a client ────────────────────────────────────────────────────────────────────

    def call(
        self,
        service: bytes,
        body: list[Frame],
        ttl: float,
        now: float,
        done: Done | None = None,
        flags: int = 0,
    ) -> int:
        """Call a service in the broker's own name, past hooks and access rules.

        A later `take_effects` calls `done(status, frames)` once. Without `done` the request is
        one-way. Returns the number that `withdraw_call` takes.
        """

    def withdraw_call(self, id: int, now: float) -> None:
        """Cancel the call `id`. May be repeated."""

    def end_calls(self, status: int, body: list[Frame]) -> None:
        """End every open call of the broker itself with this status and body, at once."""

    def push(self, handle: bytes, body: list[Frame], now: float) -> bool:
        """Send an EVENT to the client of a handle, at most once.

        Returns False when the handle is unknown or its client has no presence.
        """

    def publish(self, topic: bytes, body: list[Frame], now: float) -> int:
        """Send an EVENT to every subscriber of a topic; returns their number.

        Raises: LocalProtocolError for an invalid topic.
        """

    # ── begin and end ─────────────────────────────────────────────────────────────────────────────

    def begin(
        self,
        version: str,
        wire: str,
        now: float,
        restarts: int = 0,
        buffers: Callable[[], dict[str, int]] = dict,
        process: Callable[[], dict[str, float]] = dict,
    ) -> None:
        """Set what MMI reports: the package's version, the wire, the start, how often a supervisor
        has restarted this broker, what returns the bytes in the buffers of connections, and what
        returns the process's use of the computer."""

    def drain(self, now: float) -> None:
        """Refuse new requests (503) and send DRAIN to peers whose dialect has it."""

    @property
    def drained(self) -> bool:
        """Whether no accepted request is open, and no answer waits in an outbox."""

    @property
    def unfinished(self) -> tuple[int, int]:
        """The number of open requests, and of answers that wait in outboxes."""

    def close(self, now: float) -> None:
        """Send DISCONNECT to every worker and every client with presence. Nothing may follow but
        `take_effects` and `refused`."""

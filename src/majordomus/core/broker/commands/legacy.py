"""The commands of MDP/0.1, MDP/0.2 (both framings) and Delphi, under the same rules as MDP/0.3.

docs/spec has a page for each dialect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from majordomus.core.broker.admission import RefusalError
from majordomus.core.broker.balancing.registry import report_load
from majordomus.core.broker.commands.dependencies import Commands
from majordomus.core.broker.outgoing import LEGACY as TAG
from majordomus.core.broker.registration import UnknownPeerError
from majordomus.core.broker.state.access_rules import full_name
from majordomus.core.broker.state.account import ANSWERED
from majordomus.protocol import spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect

if TYPE_CHECKING:
    from majordomus.core.broker.state.peers import Peer
    from majordomus.core.broker.state.workers import RegisteredWorker
    from majordomus.protocol.command import Command
    from majordomus.protocol.spec import Frame

DELPHI = Dialect.DELPHI


class LegacyCommands(Commands):
    """Handlers of the legacy commands."""

    def handle(
        self,
        peer: Peer,
        dialect: Dialect,
        envelope: tuple[Frame, ...],
        command: Command,
        now: float,
    ) -> None:
        """Handle one message.

        Raises:
            UnknownPeerError: the peer must be disconnected.
        """
        if not command.from_worker:
            self._request(peer, dialect, envelope, command, now)
        elif envelope:
            claim = command.service if command.number == spec.READY else None
            raise UnknownPeerError("worker-behind-envelope", claim=claim)
        else:
            self._from_worker(peer, dialect, command, now)

    def _request(
        self,
        peer: Peer,
        dialect: Dialect,
        envelope: tuple[Frame, ...],
        command: Command,
        now: float,
    ) -> None:
        try:
            self.admission.admit(
                peer,
                dialect,
                envelope,
                0,
                0,
                0.0,
                command.service,
                b"",
                b"",
                [b"", *command.body],
                now,
            )
        except RefusalError as error:
            self.registry.counts.refused[error.status] += 1
            if self.settings.legacy_errors == "reply":
                body = [str(error.status).encode(), error.text.encode()]
                own = LEGACY[dialect].b2c_final(command.service, body)
                self.outgoing.send(peer, [*envelope, *own], TAG, None, now)
            else:
                self.registry.counts.unanswered += 1
                self.registry.refuse(
                    "request-refused",
                    (command.service, error.status),
                    now,
                    peer=peer.id,
                    dialect=dialect.value,
                    service=command.service,
                    status=error.status,
                    why=error.text,
                )

    def _from_worker(self, peer: Peer, dialect: Dialect, command: Command, now: float) -> None:
        number, worker = command.number, peer.worker
        if number == spec.DISCONNECT:
            self.presence.forget(peer, "left", now)
        elif number == spec.READY:
            self._ready(peer, dialect, command.service, now)
        elif worker is None or worker.dialect is not dialect:
            raise UnknownPeerError("unknown-worker")
        elif number == spec.HEARTBEAT:
            self._heartbeat(worker, command, now)
        else:
            self._reply(worker, command, now)

    def _ready(self, peer: Peer, dialect: Dialect, name: bytes, now: float) -> None:
        """Register a worker.

        A second READY is an error (RFC 7). A Delphi worker may repeat it, also with another
        service, to move there (docs/spec/delphi.md).
        """
        worker, moved = peer.worker, None
        if worker is not None:
            if dialect is not DELPHI or worker.dialect is not DELPHI:
                raise UnknownPeerError("second-ready", claim=name)
            if full_name(peer.prefix, name) not in worker.services:
                self.registration.check_claim(peer, None, name)
                self.presence.lose(worker, "moved to another service", now)
                moved, worker = worker, None
        if worker is None:
            name = self.registration.check_claim(peer, None, name)
            capacity = self.settings.delphi_capacity if dialect is DELPHI else 1
            worker = self.registration.new_worker(peer, dialect, capacity, now)
            if moved is not None:
                worker.answered = moved.answered
                self.registry.account.register(worker, ANSWERED * len(moved.answered or ()))
            if dialect is DELPHI:
                self.outgoing.send(peer, LEGACY[dialect].b2w_ready(peer.id), TAG, None, now)
            self.registration.register(worker, name, now)
        elif dialect is DELPHI:
            self.outgoing.send(peer, LEGACY[dialect].b2w_ready(peer.id), TAG, None, now)

    def _heartbeat(self, worker: RegisteredWorker, command: Command, now: float) -> None:
        if command.load is None:  # the load has not changed
            return
        was_excluded = worker.load == spec.LOAD_UNREADABLE
        worker.load = command.load
        if was_excluded != (worker.load == spec.LOAD_UNREADABLE):
            self.queueing.reweigh(worker, now)
        report_load(worker)

    def _reply(self, worker: RegisteredWorker, command: Command, now: float) -> None:
        """Handle a PARTIAL or FINAL of a worker.

        The handle names the dispatch. A Delphi worker knows only the client's handle: then it is
        the oldest dispatch for that client without an answer.
        """
        waiting = worker.handles.get(command.address)
        if not waiting:
            self._reply_again(worker, command, now)
            return
        dispatch_id = waiting[0]
        if command.number == spec.PARTIAL:
            request = self.dispatcher.held_as(worker, dispatch_id)
            if request is None:
                return
            if self.admission.too_large(command.body):
                self.completion.fail_if_open(
                    request, spec.TOO_LARGE, "a part is larger than allowed", now
                )
            else:
                self.completion.pass_part(request, command.body, 0, b"", now)
            return
        answered = self.dispatcher.release(worker, dispatch_id)
        if answered is not None and self.admission.too_large(command.body):
            self.completion.fail_if_open(
                answered, spec.TOO_LARGE, "the reply is larger than allowed", now
            )
        elif answered is not None:
            self.completion.pass_final(answered, spec.OK, [b"", *command.body], 0, b"", now)
        if answered is not None and worker.dialect is DELPHI:
            self.events.remember_answered(worker, command.address, answered.peer)
        self.queueing.feed(worker, now)

    def _reply_again(self, worker: RegisteredWorker, command: Command, now: float) -> None:
        """Handle a reply to a handle that expects none.

        A Delphi worker may send it to a client that it has answered before: it becomes an event.
        """
        if worker.answered is None:
            self.registry.count_dropped("unasked-reply", worker.id)
        elif self.admission.too_large(command.body):
            self.registry.count_dropped("event-too-large", worker.id)
        else:
            self.events.push_late(worker, command.address, command.body, now)

"""A worker's session that logs in before it registers, and renews its token by itself.

It sends the login's REQUEST and HELLO, which carries the token, as a client does: "one connection
may be a client and a worker at once" (docs/spec/mdp-0.3.md).
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from majordomus.core.session.connection import OPEN, Change
from majordomus.core.session.login import PATIENCE, Credentials, Login
from majordomus.core.worker.session import IdSource, WorkerSession
from majordomus.errors import LocalProtocolError
from majordomus.protocol import mdp03, metadata, spec
from majordomus.protocol.mdp03 import Fields
from majordomus.protocol.spec import Frame

if TYPE_CHECKING:
    from majordomus.core.session.backoff import Rng
    from majordomus.core.session.settings import WorkerSettings


class LoginWorkerSession(WorkerSession):
    """A `WorkerSession` with credentials.

    ``login``: the state of the login. ``_hello_id``: the id of the last HELLO, 0 = none.
    """

    def __init__(
        self, settings: WorkerSettings, credentials: Credentials, ids: IdSource, rng: Rng
    ) -> None:
        """Raises: LocalProtocolError in the older dialects."""
        super().__init__(settings, ids, rng)
        if self._codec is not None:
            raise LocalProtocolError("not-in-dialect", "a worker that logs in")
        self.login = Login(credentials, rng)
        self._hello_id = 0

    def _stream_message(self, header: Fields, frames: list[Frame], now: float) -> None:
        id = header.id
        if header.command == spec.FINAL and id and id in (self.login.wire, self._hello_id):
            self._answered(id, header.code, frames, now)
        elif (
            header.command == spec.FINAL
            and header.code == spec.UNAUTHENTICATED
            and self.events.subscribes_again(id, now)
        ):
            self._token_refused(now)
        else:
            super()._stream_message(header, frames, now)

    def tick(self, now: float) -> None:
        """Do what is due at `now`; to be called when `next_deadline` has come."""
        if now >= self.login.due and self._connection.open and self.login.tick(now):
            self._ask(now)
        super().tick(now)

    def next_deadline(self) -> float:
        """When `tick` is next needed, in monotonic seconds; inf when time changes nothing."""
        due = self.login.due if self._connection.open else inf
        return min(super().next_deadline(), due)

    def _apply(self, change: Change, now: float, *, notify: bool = False) -> None:
        if change is Change.ENDED:
            self.login.lost()
            self._hello_id = 0
        elif change is Change.OPENED and self.login.connected(now):
            self._ask(now)
        super()._apply(change, now, notify=notify)

    def _register_all(self, now: float) -> None:
        """Send HELLO with the token first: the broker accepts READY from an authenticated peer."""
        if self.login.has_token:
            self._send_hello()
            super()._register_all(now)

    def _register(self, service: bytes, now: float) -> None:
        if self.login.has_token:
            super()._register(service, now)

    def _send_hello(self) -> None:
        self._hello_id = next(self._event_ids)
        field = metadata.pack({"token": self.login.token})
        hello = mdp03.pack(spec.HELLO, spec.METADATA, id=self._hello_id, metadata=field)
        self._outbox.put([hello], spec.HELLO)

    def _ask(self, now: float) -> None:
        wire = next(self._event_ids)
        body = self.login.ask(wire, now)
        header = mdp03.pack(
            spec.REQUEST,
            spec.FAIL_FAST,
            id=wire,
            ttl=int(PATIENCE * 1000),
            service=self.login.credentials.service,
        )
        self._outbox.put([header, *body], spec.REQUEST)

    def _answered(self, id: int, status: int, frames: list[Frame], now: float) -> None:
        login = self.login
        if id == login.wire:
            renewed = login.has_token
            if not login.answered(status, frames, now):
                return
            if renewed:
                self._send_hello()
            else:
                self._register_all(now)
        elif status == spec.UNAUTHENTICATED:
            self._token_refused(now)

    def _token_refused(self, now: float) -> None:
        """HELLO was refused: the broker accepts nothing more on this connection."""
        if self._connection.state is OPEN:
            self.login.discard_token(now)
            self._apply(self._connection.step("renew", now), now, notify=True)

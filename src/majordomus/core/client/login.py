"""A client's session that logs in before anything else, and renews its token by itself.

Beyond the contract of `ClientSession`: no call leaves before there is a token, and a call that the
broker answers with 401 is sent once more, with a new token. HELLO carries the token; without
presence, each REQUEST does; in the older dialects, it is the first frame of each body.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from majordomus.core.client.calls import Call
from majordomus.core.client.calls import Final as Outcome
from majordomus.core.client.encoding import ClientEncoder, whole_ttl
from majordomus.core.client.session import ClientSession, IdSource
from majordomus.core.session.connection import OPEN, Change
from majordomus.core.session.login import (
    MOST_TOKEN,
    PATIENCE,
    TOKEN_REFUSALS,
    Credentials,
    Login,
)
from majordomus.core.session.transitions import CallState
from majordomus.errors import LocalProtocolError, RemoteProtocolError
from majordomus.protocol import mdp03, metadata, octets, spec
from majordomus.protocol.spec import Dialect, Frame

if TYPE_CHECKING:
    from majordomus.core.session.backoff import Rng
    from majordomus.core.session.settings import ClientSettings
    from majordomus.protocol.command import Codec

MOST_METADATA: Final = spec.MAX_METADATA - MOST_TOKEN - 16
"""Bytes that a call's own metadata may have beside the token."""
_REQUEST: Final = spec.REQUEST


class TokenEncoder(ClientEncoder):
    """The messages of one dialect, with a token in every request. ``token``: empty = none."""

    def __init__(self, dialect: Dialect) -> None:
        super().__init__(dialect)
        self.token = ""
        self._tailed: dict[bytes, bytes] = {}

    def carry(self, token: str) -> None:
        """Put `token` into every request from now on; none when it is empty."""
        self.token = token
        self._tailed.clear()

    def request(self, call: Call, wire: int, left: float) -> list[Frame]:
        """REQUEST, as it would be, and the token."""
        if not self.token or call.command != _REQUEST:
            return super().request(call, wire, left)
        if self.codec is not None:
            return self.codec.c2b_request(call.tail, [self.token.encode(), *call.body])
        head = octets.start(_REQUEST, call.flags | spec.METADATA, 0, wire, whole_ttl(left))
        return [head + self._with_token(call.tail), *call.body]

    def _with_token(self, tail: bytes) -> bytes:
        known = self._tailed.get(tail)
        if known is None:
            names, field = mdp03.split_tail(tail)
            values = metadata.unpack(field) if field else {}
            known = names + metadata.pack({**values, "token": self.token})
            if len(self._tailed) >= 1024:
                self._tailed.clear()
            self._tailed[tail] = known
        return known


class LoginSession(ClientSession):
    """A `ClientSession` with credentials.

    ``login``: the state of the login. ``_hello_id``: the id of the last HELLO, 0 = none.
    ``_again``: calls that were sent once more after a 401.
    """

    def __init__(
        self, settings: ClientSettings, credentials: Credentials, ids: IdSource, rng: Rng
    ) -> None:
        self.login = Login(credentials, rng)
        super().__init__(settings, ids, rng)
        self._token_encoder = self._encoder = TokenEncoder(settings.dialect)
        self._tails = self._token_encoder.tails
        self._hello_id = 0
        self._again: set[int] = set()

    def ask(
        self,
        service: bytes,
        body: list[Frame],
        now: float,
        ttl: float,
        flags: int,
        to: bytes,
        metadata: bytes,
        restart: bool,
    ) -> int:
        """As `ClientSession.ask`. Raises: LocalProtocolError also for metadata that leave no room
        for the token."""
        if len(metadata) > MOST_METADATA:
            raise LocalProtocolError("long-metadata", f"{len(metadata)} bytes beside a token")
        return super().ask(service, body, now, ttl, flags, to, metadata, restart)

    def publish(
        self, topic: bytes, body: list[Frame], now: float, *, ttl: float, metadata: bytes = b""
    ) -> int:
        """As `ClientSession.publish`; with presence, because an event cannot carry a token."""
        self._check_events()
        self.set_presence(now)
        return super().publish(topic, body, now, ttl=ttl, metadata=metadata)

    def subscribe(self, pattern: bytes, now: float) -> None:
        """As `ClientSession.subscribe`; it is sent when the broker has accepted the token."""
        self._check_events()
        self.events.subscribe(pattern, self._hello_id != 0)
        self.set_presence(now)

    def unsubscribe(self, pattern: bytes, now: float) -> None:
        """Remove the subscription to `pattern`. May be repeated."""
        self.events.unsubscribe(pattern, self._hello_id != 0)

    def tick(self, now: float) -> None:
        """Do what is due at `now`; to be called when `next_deadline` has come."""
        if now >= self.login.due and self._connection.open and self._may_ask():
            unanswered = self.login.wire
            if self.login.tick(now):
                self._ask(now)
            elif unanswered and self._codec is not None:  # a late answer would be another call's
                self._apply(self._connection.step("renew", now), now)
            self._update_state()
        super().tick(now)

    def next_deadline(self) -> float:
        """When `tick` is next needed, in monotonic seconds; inf when time changes nothing."""
        due = self.login.due if self._connection.open and self._may_ask() else inf
        return min(super().next_deadline(), due)

    def receive(self, frames: list[Frame], now: float) -> None:
        """Process one message of the socket. The session takes over the list."""
        if self._codec is None or not self.login.wire or not self._take_legacy(frames, now):
            super().receive(frames, now)

    def _stray_final(self, id: int, status: int, frames: list[Frame], now: float) -> None:
        if id and id == self.login.wire:
            self._answered(status, frames, now)
        elif id and id == self._hello_id:
            self._hello_refused(status, now)
        elif status == spec.UNAUTHENTICATED and self.events.subscribes_again(id, now):
            # Of a SUBSCRIBE behind a HELLO whose token is refused, or of a token that has expired.
            if self._connection.open:
                self._hello_refused(status, now)
        else:
            super()._stray_final(id, status, frames, now)

    def _decide_final(self, call: Call, flags: int, final: Outcome, now: float) -> None:
        if final.status != spec.UNAUTHENTICATED or not self._begin_again(call, now):
            super()._decide_final(call, flags, final, now)

    def _receive_legacy(self, codec: Codec, frames: list[Frame], now: float) -> None:
        """A broker with `legacy_errors=reply` says in two frames that it refuses the token."""
        call = self._calls.current
        refusal = None if call is None else _refused_token(codec, frames, call)
        if call is None or refusal is None:
            super()._receive_legacy(codec, frames, now)
        elif call.flags & spec.ONCE or not self._begin_again(call, now):
            self._end(call, "answer", Outcome(call.number, spec.UNAUTHENTICATED, refusal, b""))
            self._send_waiting(now)

    def _expire(self, call: Call, now: float) -> None:
        """A broker of an older dialect may be silent because it refuses the token: the next call
        gets a new one."""
        if self._codec is not None and call.wire and self.login.has_token:
            self.login.discard_token(now)
            self._token_encoder.carry("")
        super()._expire(call, now)

    def _send_waiting(self, now: float) -> None:
        """Nothing leaves with a token that has expired, while nobody drove this session."""
        if self.login.expired(now):
            self._token_encoder.carry("")
            self.login.discard_token(now)
            if self._connection.open and self._may_ask() and self.login.tick(now):
                self._ask(now)
        super()._send_waiting(now)

    # ── the login ─────────────────────────────────────────────────────────────────────────────────

    def _may_ask(self) -> bool:
        """Without correlation no other call may be in flight."""
        return self._codec is None or self.login.wire != 0 or self._calls.current is None

    def _ask(self, now: float) -> None:
        wire = self._next_id()
        body = self.login.ask(wire, now)
        service = self.login.credentials.service
        if self._codec is not None:
            self._put(self._codec.c2b_request(service, body), _REQUEST, now)
            return
        ttl = int(PATIENCE * 1000)
        header = mdp03.pack(spec.REQUEST, spec.FAIL_FAST, id=wire, ttl=ttl, service=service)
        self._put([header, *body], _REQUEST, now)

    def _take_legacy(self, frames: list[Frame], now: float) -> bool:
        """Take the answer to the login, in a dialect without correlation. False for another."""
        if self._codec is None:
            return False
        try:
            command = self._codec.read_client(frames)
        except RemoteProtocolError:
            return False
        if command.number == spec.PARTIAL:
            return False
        if command.service and command.service != self.login.credentials.service:
            return False
        self._connection.received_at = now
        # A failure has no status of its own there: two frames, the first of which is a number.
        said = bytes(command.body[0]) if command.body else b""
        status = int(said) if len(said) == 3 and said.isdigit() else spec.OK
        self._answered(status, command.body[1:] if status != spec.OK else command.body, now)
        return True

    def _answered(self, status: int, frames: list[Frame], now: float) -> None:
        if self.login.answered(status, frames, now):
            self._take_token(now)
        elif not self.login.has_token:
            self._token_encoder.carry("")
            self._emit_refusal()
        self._send_waiting(now)

    def _take_token(self, now: float) -> None:
        """Put a new token into what is sent next: HELLO, or every request."""
        self._token_encoder.carry("" if self._presence else self.login.token)
        if self._presence and self._connection.open:
            self._send_hello(now)

    def _emit_refusal(self) -> None:
        """End the waiting calls after a refusal; another failure becomes their last answer."""
        refusal = self.login.refusal
        if refusal is None:
            return
        status, frames = refusal
        final = status in (spec.BAD_REQUEST, spec.UNAUTHENTICATED, spec.FORBIDDEN)
        for call in [call for call in self._open.values() if not call.wire]:
            outcome = Outcome(call.number, status, frames, b"")
            if final:
                self._end(call, "cancel", outcome)
            else:
                call.last = outcome

    def _accept(self, call: Call, now: float) -> None:
        refusal = self.login.refusal
        if refusal is not None and now < self.login.due and not self.login.has_token:
            status, frames = refusal
            if status in (spec.BAD_REQUEST, spec.UNAUTHENTICATED, spec.FORBIDDEN):
                self._emit(call, Outcome(call.number, status, frames, b""))
                return
        super()._accept(call, now)

    def _begin_again(self, call: Call, now: float) -> bool:
        """A 401 proves that nothing ran: the call waits for a new token, once."""
        if call.state is not CallState.SENT or call.stream is not None:
            return False
        if call.number in self._again:
            return False
        self._again = {number for number in self._again if number in self._open}
        self._again.add(call.number)
        self._calls.restart([call])
        self._discard_token(now)
        return True

    def _hello_refused(self, status: int, now: float) -> None:
        """HELLO was refused: the broker accepts nothing more on this connection."""
        self._hello_id = 0
        if status != spec.UNAUTHENTICATED:
            return
        self.login.discard_token(now)
        self._token_encoder.carry("")
        if self._connection.state is OPEN:
            self._apply(self._connection.step("renew", now), now, notify=True)

    def _discard_token(self, now: float) -> None:
        self.login.discard_token(now)
        self._token_encoder.carry("")
        if self.login.tick(now):
            self._ask(now)
        self._update_state()

    # ── changes of the base ───────────────────────────────────────────────────────────────────────

    def _apply(self, change: Change, now: float, *, notify: bool = False) -> None:
        if change is Change.ENDED:
            self.login.lost()
            self._hello_id = 0
        elif change is Change.OPENED and self.login.connected(now):
            self._ask(now)
        super()._apply(change, now, notify=notify)

    def _send_hello(self, now: float) -> None:
        """Send HELLO with the token, and with an id, so that its refusal is recognised."""
        if not self.login.has_token:
            return
        self._token_encoder.carry("")
        self._hello_id = self._next_id()
        field = metadata.pack({"session": self._id, "token": self.login.token})
        self._hello = [mdp03.pack(spec.HELLO, spec.METADATA, id=self._hello_id, metadata=field)]
        super()._send_hello(now)

    def _may_send(self) -> bool:
        if not self.login.has_token or (self._codec is not None and self.login.wire):
            return False
        return super()._may_send()

    def _update_state(self) -> None:
        super()._update_state()
        if not self.login.has_token or not self._presence:
            self._direct = False


def _refused_token(codec: Codec, frames: list[Frame], call: Call) -> list[Frame] | None:
    """Return the text of an answer that is no reply but the broker's refusal of the token: 401 and
    one of its own sentences. None for any other answer: a service may reply with 401 itself, and
    then the call has run (rule 1)."""
    try:
        command = codec.read_client(frames)
    except RemoteProtocolError:
        return None
    body = command.body
    if command.number == spec.PARTIAL or command.service not in (b"", call.tail):
        return None
    if len(body) != 2 or bytes(body[0]) != b"401" or bytes(body[1]) not in TOKEN_REFUSALS:
        return None
    return body[1:]

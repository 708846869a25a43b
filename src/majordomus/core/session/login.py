"""A session's login: when a token is requested and renewed, and when a failed request is repeated.

Both sessions have one. It depends neither on connections nor on messages. The request is a call of
the login's service with the credentials, or with the token that is to be renewed; the answer is a
token and the seconds for which it is valid.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from math import inf, isfinite
from typing import Final

from majordomus.core.session.backoff import Rng, delay
from majordomus.core.session.transitions import TransitionRow
from majordomus.protocol import spec
from majordomus.protocol.spec import Frame

PATIENCE: Final = 3.0
"""Seconds until a request without an answer is repeated."""
RENEW_AT: Final = 2 / 3
"""The part of a token's life after which it is renewed."""
FIRST_REST: Final = 0.1
AFTER_REFUSAL: Final = 1.0
LONGEST_REST: Final = 30.0
MOST_TOKEN: Final = 3072
MOST_SECONDS: Final = 86400.0
VERDICTS: Final = frozenset((spec.BAD_REQUEST, spec.UNAUTHENTICATED, spec.FORBIDDEN))
"""Statuses that another try with the same credentials does not change soon."""

TOKEN_REFUSALS: Final = frozenset(
    (
        b"the token cannot be read",
        b"the token was signed with a key that this broker does not accept",
        b"the signature of the token is wrong",
        b"tokens are signed with Ed25519",
        b"the token has expired",
        b"the token was issued in the future: check the clocks",
        b"the token was revoked",
        b"the token is not for this broker",
        b"the token is valid for longer than this broker allows",
        b"the token is valid only on a connection with another key",
        b"a user or group of the token has an invalid name",
    )
)
"""The sentences with which a broker refuses a token (security/tokens.py). In the older dialects a
refusal looks like a reply, and by nothing else can it be told from a reply that a service made."""


class LoginState(IntEnum):
    """OUT: no token. IN: a token. ASKING, RENEWING: the same, while a request is open."""

    OUT = 0
    ASKING = 1
    IN = 2
    RENEWING = 3


_OUT, _ASKING, _IN, _RENEWING = LoginState

LOGIN: Final[dict[str, dict[LoginState, LoginState]]] = {
    "ask": {_OUT: _ASKING, _IN: _RENEWING},
    "approve": {_ASKING: _IN, _RENEWING: _IN},
    "refuse": {_ASKING: _OUT, _RENEWING: _OUT},
    # No decision: the service was not reached, or its answer cannot be read.
    "put off": {_ASKING: _OUT, _RENEWING: _IN},
    "lose": {_OUT: _OUT, _ASKING: _OUT, _IN: _IN, _RENEWING: _IN},
    # The broker does not accept the token any more, or it has expired.
    "expel": {_OUT: _OUT, _ASKING: _ASKING, _IN: _OUT, _RENEWING: _ASKING},
}
_TRANSITIONS: Final = {event: TransitionRow(LOGIN, event) for event in LOGIN}


class Credentials:
    """The credentials of a peer.

    ``body``: frames of the request that proves its identity. ``service``: the login service.
    """

    __slots__ = ("body", "service")

    def __init__(self, body: Sequence[bytes], service: bytes = b"login") -> None:
        self.body = tuple(body)
        self.service = service

    def __repr__(self) -> str:
        """Without the secret: representations end up in logs."""
        return f"<Credentials for {self.service!r}>"


class Login:
    """The state of a login. Times are monotonic seconds.

    ``credentials``: see there. ``state``: see `LoginState`.
    ``wire``: the id of the open request, 0 = none.
    ``token``: empty while there is none.
    ``due``: when `tick` is next needed.
    ``refusal``: status and body of the last refusal, which holds until ``due``.
    ``_good_until``: when the token expires. ``_renew_at``: when it is to be renewed.
    ``_failures``: failed requests in a row.
    """

    def __init__(self, credentials: Credentials, rng: Rng) -> None:
        self.credentials = credentials
        self.state = _OUT
        self.wire = 0
        self.token = ""
        self.due = inf
        self.refusal: tuple[int, list[Frame]] | None = None
        self._good_until = inf
        self._renew_at = inf
        self._failures = 0
        self._rng = rng

    @property
    def has_token(self) -> bool:
        """Whether there is a token."""
        return self.state is _IN or self.state is _RENEWING

    @property
    def asking(self) -> bool:
        """Whether a request is open."""
        return self.state is _ASKING or self.state is _RENEWING

    def expired(self, now: float) -> bool:
        """Whether there is a token whose time is over: nothing may be sent with it."""
        return self.has_token and now >= self._good_until

    def ask(self, wire: int, now: float) -> list[Frame]:
        """Return the body of a request that is sent now under the id `wire`."""
        renews = self.has_token
        self._move("ask")
        self.wire = wire
        self.due = min(now + PATIENCE, self._good_until) if renews else now + PATIENCE
        return [self.token.encode()] if renews else list(self.credentials.body)

    def answered(self, status: int, frames: list[Frame], now: float) -> bool:
        """Take the answer to the request. True when there is a new token."""
        self.wire = 0
        given = _given(frames) if status == spec.OK else None
        if given is not None:
            self._move("approve")
            self.token, seconds = given
            self._good_until, self._renew_at = now + seconds, now + seconds * RENEW_AT
            self.due = self._renew_at
            self._failures, self.refusal = 0, None
            return True
        renewal = self.state is _RENEWING
        if status not in VERDICTS:
            self._put_off(status, frames, now)
            return False
        self._move("refuse")
        self.token = ""
        if renewal:  # the credentials may still be good
            self.due = now
        else:
            self.refusal = (status, frames)
            self.due = now + delay(AFTER_REFUSAL, LONGEST_REST, self._failures, self._rng)
            self._failures += 1
        return False

    def tick(self, now: float) -> bool:
        """Do what is due at `now`. True when a request has to be sent."""
        if now < self.due:
            return False
        if self.has_token and now >= self._good_until:
            self.discard_token(now)
        if self.asking:
            self.wire = 0
            self._put_off(spec.DEADLINE_EXCEEDED, [b"the login was not answered"], now)
            return False
        self.refusal = None
        return True

    def lost(self) -> None:
        """The connection has ended; a token stays valid on the next one."""
        self._move("lose")
        self.wire = 0
        self.due = inf

    def connected(self, now: float) -> bool:
        """The connection is open. True when a request has to be sent."""
        if self.has_token and now < self._good_until:
            self.due = max(now, self._renew_at)
            return False
        if self.has_token:
            self.discard_token(now)
        self.due = now
        return self.tick(now)

    def discard_token(self, now: float) -> None:
        """Drop the token, which the broker does not accept any more."""
        self._move("expel")
        self.token = ""
        self._good_until = inf
        self._failures = 0
        if not self.asking:
            self.due = now

    def _put_off(self, status: int, frames: list[Frame], now: float) -> None:
        self._move("put off")
        self.refusal = None if self.has_token else (status, frames)
        rest = now + delay(FIRST_REST, LONGEST_REST, self._failures, self._rng)
        self.due = min(rest, max(now, self._good_until)) if self.has_token else rest
        self._failures += 1

    def _move(self, event: str) -> None:
        self.state = _TRANSITIONS[event][self.state]


def _given(frames: list[Frame]) -> tuple[str, float] | None:
    """Return the token and its validity in seconds; None when the answer cannot be read."""
    try:
        token, seconds = bytes(frames[0]).decode("ascii"), float(bytes(frames[1]))
    except (ValueError, IndexError):
        return None
    if not 0 < len(token) <= MOST_TOKEN or not isfinite(seconds) or seconds <= 0:
        return None
    return token, min(seconds, MOST_SECONDS)

"""Tokens at the broker: a login goes to an auth service, whose word makes a token, and from then on
nothing passes without one.

    Broker(middleware=[TokenAuth(auth_service="auth", key="signing.jwk_secret")])

A call of `login` is handed to the auth service as it is, unless its body is one frame: that is a
token, which is renewed. The auth service approves with the body `200`, user, groups…; then the
client gets a token and the seconds that it is good for. A call of `logout` with a token revokes it.
Nothing is stored: any broker with the public key accepts the token.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from majordomus.core.broker.hooks.actions import Action, Redirect, Reject, Replace, ReplyAction
from majordomus.core.broker.state.access_rules import (
    CALL,
    MANAGE,
    PUBLISH,
    SERVE,
    SUBSCRIBE,
    AccessRules,
    Rule,
)
from majordomus.errors import ConfigurationError
from majordomus.net.broker.hooks import Middleware
from majordomus.protocol import spec
from majordomus.protocol.spec import Dialect
from majordomus.security import tokens
from majordomus.security.tokens import Checker, Claims, PublicKey, SigningKey, TokenError

if TYPE_CHECKING:
    from majordomus.core.broker.contract import Machine
    from majordomus.core.broker.hooks.views import ClientInfo, HookReply, HookRequest
    from majordomus.net.broker.program import Programmable

APPROVED: Final = b"200"
NO_TOKEN: Final = "log in first: there is no token, and nobody knows who you are"  # noqa: S105
NOT_HERE: Final = "this broker makes no tokens: it has no secret key"
SESSION_OVER: Final = "the session is over: log in again"
BAD_APPROVAL: Final = "the auth service did not approve"


KNOWN_HEAR: Final = AccessRules(
    (
        Rule(True, frozenset((CALL, SERVE)), source="TokenAuth"),
        Rule(True, frozenset((PUBLISH, SUBSCRIBE, MANAGE)), users=("*",), source="TokenAuth"),
    )
)
"""What holds where there are no access rules: requests ask for their token themselves."""


class _Shown(NamedTuple):
    """What a HELLO brought. ``key``: of its connection."""

    token: str
    key: str
    claims: Claims


def _guard_events(machine: Machine, now: float) -> None:
    machine.set_default_rights(KNOWN_HEAR, now)


class TokenAuth(Middleware):
    """Makes tokens and checks them.

    `key`: the secret key, or its file; without it this broker makes no tokens and only checks them.
    `public_keys`: further keys whose tokens are accepted, or their files, or a folder of them that
    is looked at while the broker runs. `lifetime`: seconds of a token; `session`: how long after
    the login it may be renewed. `legacy`: requests of the older dialects carry their token as the
    first frame of the body. `open_services` need none, and with `anonymous` nothing does: requests
    without one go on as nobody's, and the access rules decide.
    """

    def __init__(
        self,
        *,
        auth_service: str = "auth",
        key: SigningKey | Path | str | None = None,
        public_keys: Iterable[PublicKey | Path | str] | Path | str = (),
        login: str = "login",
        logout: str = "logout",
        lifetime: float = tokens.LIFETIME,
        session: float = tokens.SESSION,
        legacy: bool = False,
        anonymous: bool = False,
        open_services: Iterable[str] = (),
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises: ConfigurationError for a key that cannot be used, or none at all."""
        if not 1 <= lifetime <= session:
            raise ConfigurationError(f"a token lives 1 to {session:g} s, not {lifetime:g}")
        self._key = tokens.read_secret(Path(key)) if isinstance(key, str | Path) else key
        self._checker = _checker(public_keys)
        if self._key is not None:
            self._checker.add(self._key.public)
        elif not self._checker.kids and isinstance(public_keys, tuple | list):
            raise ConfigurationError("TokenAuth needs a key that makes tokens, or public_keys")
        self._auth, self._login, self._logout = auth_service, login, logout
        self._lifetime, self._session = lifetime, session
        self._legacy, self._anonymous = legacy, anonymous
        self._open = frozenset(open_services)
        self._clock, self._monotonic = clock, monotonic
        self._present: dict[bytes, _Shown] = {}
        """Who said HELLO with a token, by routing id."""
        self._version = self._checker.version

    def attach(self, broker: Programmable) -> None:
        """Told once. Where no access rules say otherwise, events are for who is known, too."""
        super().attach(broker)
        if not self._anonymous:
            broker._program().post(_guard_events)

    # ── for the program ───────────────────────────────────────────────────────────────────────────

    def revoke(self, id: str) -> None:
        """Refuse the token of that id, or all tokens of that session, from now on; who is connected
        with one is nobody any more. From any thread; known to this broker alone."""
        now = self._clock()
        self._checker.revoke(id, now, now + self._lifetime + tokens.LEEWAY)
        for peer_id, shown in list(self._present.items()):
            if id in (shown.claims.id, shown.claims.session):
                self._expel(peer_id)

    def rotate(self, key: SigningKey | Path | str) -> None:
        """Sign with this key from now on. What the last one has signed is accepted until
        `retire`."""
        made = tokens.read_secret(Path(key)) if isinstance(key, str | Path) else key
        self._checker.add(made.public)
        self._key = made

    def retire(self, kid: str) -> None:
        """Accept nothing any more that the key of that name has signed; who is connected with it is
        nobody any more. From any thread."""
        self._checker.remove(kid)
        self._review()

    # ── hooks ─────────────────────────────────────────────────────────────────────────────────────

    def on_request(self, request: HookRequest) -> Action | None:
        """A login goes to the auth service; anything else passes with a token that is good."""
        if request.service == self._login:
            return self._log_in(request)
        token = request.token
        if self._legacy and request.dialect != Dialect.MDP03:
            token = _text(request.frames.pop(0)) if len(request.frames) else ""
        if request.service == self._logout:
            return self._log_out(request, token)
        if not token:
            known = request.user or self._anonymous or request.service in self._open
            return None if known else Reject(spec.UNAUTHENTICATED, NO_TOKEN)
        try:
            claims = self._check(token, request.key)
        except TokenError as error:
            return Reject(spec.UNAUTHENTICATED, str(error))
        request.user, request.groups = claims.user, claims.groups
        return None

    def on_reply(self, reply: HookReply) -> Action | None:
        """When the auth service has approved a login, its client gets a token instead."""
        if reply.service != self._login or reply.status != spec.OK:
            return None
        frames = reply.frames
        if len(frames) < 2 or frames[0] != APPROVED:
            text = _text(frames[1]) if len(frames) > 1 else ""
            return Reject(spec.UNAUTHENTICATED, text or BAD_APPROVAL)
        if self._key is None:
            return Reject(spec.NOT_IMPLEMENTED, NOT_HERE)
        now = self._clock()
        try:
            user, *groups = (frame.decode() for frame in frames[1:])
            token, claims = self._key.sign(
                user, groups, now, lifetime=self._lifetime, curve=reply.key
            )
        except (UnicodeDecodeError, TokenError):
            return Reject(spec.HANDLER_FAILED, "the auth service approved what cannot be a user")
        return Replace(self._answer(token, claims, now))

    def on_client_seen(self, client: ClientInfo) -> Action | None:
        """HELLO with a token says who the connection is, for as long as the token is good."""
        if not client.present or not client.token:
            return None
        now = self._clock()
        try:
            claims = self._check(client.token, client.key)
        except TokenError as error:
            return Reject(spec.UNAUTHENTICATED, str(error))
        client.user, client.groups = claims.user, claims.groups
        client.until = self._monotonic() + claims.expires - now
        self._present[client.id] = _Shown(client.token, client.key, claims)
        return None

    def on_client_lost(self, client: ClientInfo) -> None:
        self._present.pop(client.id, None)

    # ── inside ────────────────────────────────────────────────────────────────────────────────────

    def _log_in(self, request: HookRequest) -> Action:
        if self._key is None:
            return Reject(spec.NOT_IMPLEMENTED, NOT_HERE)
        if len(request.frames) != 1:
            return Redirect(self._auth)
        now = self._clock()
        try:
            old = self._check(_text(request.frames[0]), request.key)
        except TokenError as error:
            return Reject(spec.UNAUTHENTICATED, str(error))
        left = old.since + self._session - now
        if left < 1:
            return Reject(spec.UNAUTHENTICATED, SESSION_OVER)
        token, claims = self._key.sign(
            old.user,
            old.groups,
            now,
            lifetime=min(self._lifetime, left),
            curve=old.curve or request.key,
            session=old.session,
            since=old.since,
        )
        return ReplyAction(self._answer(token, claims, now))

    def _log_out(self, request: HookRequest, token: str) -> Action:
        given = token or (_text(request.frames[0]) if len(request.frames) else "")
        try:
            claims = self._check(given, request.key)
        except TokenError as error:
            return Reject(spec.UNAUTHENTICATED, str(error))
        self.revoke(claims.session)
        return ReplyAction([APPROVED])

    def _answer(self, token: str, claims: Claims, now: float) -> list[bytes]:
        return [token.encode(), str(max(1, int(claims.expires - now))).encode()]

    def _check(self, token: str, key: str) -> Claims:
        try:
            return self._checker.check(token, self._clock(), key)
        finally:
            if self._checker.version != self._version:
                self._version = self._checker.version
                self._review()

    def _review(self) -> None:
        """Keys were taken away: who is connected with a token of theirs is nobody any more."""
        now = self._clock()
        for peer_id, shown in list(self._present.items()):
            try:
                self._checker.check(shown.token, now, shown.key)
            except TokenError:
                self._expel(peer_id)

    def _expel(self, peer_id: bytes) -> None:
        self._present.pop(peer_id, None)

        def job(machine: Machine, now: float) -> None:
            machine.restore_identity(peer_id, now)

        self.broker._program().post(job)


def _text(frame: bytes) -> str:
    """A frame that is to be text; what is none becomes text that is no token."""
    return frame[: tokens.MOST_BYTES + 1].decode("utf-8", "replace")


def _checker(public_keys: Iterable[PublicKey | Path | str] | Path | str) -> Checker:
    if isinstance(public_keys, str | Path):
        path = Path(public_keys)
        if path.is_dir():
            return Checker(folder=path)
        public_keys = [path]
    return Checker(
        tokens.read_public(Path(one)) if isinstance(one, str | Path) else one for one in public_keys
    )

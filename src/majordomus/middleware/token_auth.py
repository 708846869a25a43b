"""Token authentication at the broker: a login at an auth service yields a token, which every later
request must carry.

    Broker(middleware=[TokenAuth(auth_service="auth", key="signing.jwk_secret")])

A call of `login` goes to the auth service unchanged. When its body is one frame, this is a token,
and the broker renews it. The auth service approves with the body `200`, user, groups…; then the
client gets a token and its lifetime in seconds. A call of `logout` with a token ends its session.
Any broker with the public key accepts the token; revocations alone are stored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

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
from majordomus.net.broker.security.curve import state_folder
from majordomus.protocol import spec
from majordomus.protocol.spec import Dialect
from majordomus.security import tokens
from majordomus.security.revocations import Revocations
from majordomus.security.tokens import Checker, Claims, PublicKey, SigningKey, TokenError

if TYPE_CHECKING:
    from majordomus.core.broker.contract import Machine
    from majordomus.core.broker.hooks.views import ClientInfo, HookReply, HookRequest
    from majordomus.net.broker.program import Programmable

APPROVED: Final = b"200"
NO_TOKEN: Final = "log in first: the request has no token"  # noqa: S105
NOT_HERE: Final = "this broker issues no tokens: it has no secret key"
NOT_STORED: Final = "the session has ended at this broker, but that could not be stored"
DEFAULT_FILE: Final = "revoked-tokens"
SESSION_OVER: Final = "the session has ended: log in again"
AUTH_FAILED: Final = "the auth service could not check this login; its log has the reason"
BAD_APPROVAL: Final = "the auth service did not approve"


EVENTS_FOR_USERS: Final = AccessRules(
    (
        Rule(True, frozenset((CALL, SERVE)), source="TokenAuth"),
        Rule(True, frozenset((PUBLISH, SUBSCRIBE, MANAGE)), users=("*",), source="TokenAuth"),
    )
)
"""The access rules for a broker without any: anonymous peers may only call and serve, and the
middleware checks the token of each call."""


class _Presented(NamedTuple):
    """A token that a client has sent with HELLO.

    token: the token itself.
    key: the CURVE public key of its connection; empty without CURVE.
    claims: the verified claims of the token.
    """

    token: str
    key: str
    claims: Claims


def _restrict_events(machine: Machine, now: float) -> None:
    machine.set_default_rights(EVENTS_FOR_USERS, now)


class TokenAuth(Middleware):
    """Issues tokens and checks them.

    auth_service: the service that checks logins.
    key: the secret key, or its file. Without it this broker issues no tokens and only checks them.
    public_keys: more keys whose tokens are accepted, or their files, or a folder of such files. A
        folder is read again when it changes.
    login, logout: the service names that clients call to log in and out.
    lifetime: seconds until a token expires.
    session: seconds after a login during which its tokens may be renewed.
    legacy: requests of the older dialects carry their token as the first frame of the body.
    anonymous: requests without a token pass as anonymous, and the access rules decide.
    open_services: services that need no token.
    revocations: the file of revoked tokens; `revoked-tokens` in the state folder by default, None
        for none: then a revocation ends with this object. It is read again when it changes.
    audience: the name of this broker, or of several, in tokens: they are made for it, and all
        others are refused. Without it, tokens for any audience are refused.
    longest: seconds that a token may still be valid.
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
        revocations: Path | str | None = DEFAULT_FILE,
        audience: str = "",
        longest: float = inf,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises: ConfigurationError for a key that cannot be used, or without any key."""
        if not 1 <= lifetime <= session:
            raise ConfigurationError(
                f"the lifetime of a token must be 1 to {session:g} s, not {lifetime:g}"
            )
        self._key = tokens.read_secret(Path(key)) if isinstance(key, str | Path) else key
        if revocations == DEFAULT_FILE:
            revocations = state_folder() / DEFAULT_FILE
        stored = None if revocations is None else Revocations(Path(revocations))
        self._checker = _checker(
            public_keys, revocations=stored, audience=audience, longest=longest
        )
        self._audience, self._longest = audience, longest
        if self._key is not None:
            self._checker.add(self._key.public)
        elif not self._checker.kids and isinstance(public_keys, tuple | list):
            raise ConfigurationError("TokenAuth needs a key, or public_keys")
        self._auth, self._login, self._logout = auth_service, login, logout
        self._lifetime, self._session = lifetime, session
        self._legacy, self._anonymous = legacy, anonymous
        self._open = frozenset(open_services)
        self._clock, self._monotonic = clock, monotonic
        self._present: dict[bytes, _Presented] = {}
        """Clients that have sent HELLO with a valid token, by routing id."""
        self._version = self._checker.version

    def attach(self, broker: Programmable) -> None:
        """As `Middleware.attach`. Without access rules, only authenticated peers get events."""
        super().attach(broker)
        if not self._anonymous:
            broker._program().post(_restrict_events)

    # ── called by the program ─────────────────────────────────────────────────────────────────────

    def revoke(self, id: str) -> None:
        """Revoke the token with the id `id`, or all tokens of the session `id`.

        Connected clients that have presented one become anonymous. Any thread may call this. Other
        brokers learn of it if they have the same file of revocations.

        Raises: ConfigurationError when the revocation holds here, but cannot be stored.
        """
        now = self._clock()
        bound = self._longest if self._longest < inf else self._lifetime
        try:
            self._checker.revoke(id, now, now + bound + tokens.LEEWAY)
        finally:
            self._expel_all(id)

    def _expel_all(self, id: str) -> None:
        for peer_id, presented in list(self._present.items()):
            if id in (presented.claims.id, presented.claims.session):
                self._expel(peer_id)

    def rotate(self, key: SigningKey | Path | str) -> None:
        """Sign with `key` from now on. Tokens of the previous key are accepted until `retire`.

        Raises: ConfigurationError for a key that cannot be used.
        """
        signing = tokens.read_secret(Path(key)) if isinstance(key, str | Path) else key
        self._checker.add(signing.public)
        self._key = signing

    def retire(self, kid: str) -> None:
        """Refuse all tokens that the key `kid` has signed.

        Connected clients that have presented one become anonymous. Any thread may call this.
        """
        self._checker.remove(kid)
        self._review()

    # ── hooks ─────────────────────────────────────────────────────────────────────────────────────

    def on_request(self, request: HookRequest) -> Action | None:
        """Redirect a login to the auth service; check the token of any other request."""
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
        """Replace the approval of a login by a token."""
        if reply.service != self._login:
            return None
        if reply.status == spec.HANDLER_FAILED:
            return Reject(spec.UNAUTHENTICATED, AUTH_FAILED)
        if reply.status != spec.OK:
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
                user, groups, now, lifetime=self._lifetime, curve=reply.key, audience=self._audience
            )
        except (UnicodeDecodeError, TokenError):
            return Reject(
                spec.HANDLER_FAILED,
                "the auth service approved a user or group with an invalid name",
            )
        return Replace(self._answer(token, claims, now))

    def on_client_seen(self, client: ClientInfo) -> Action | None:
        """Set the identity of a client that sent HELLO with a token, until the token expires."""
        if not client.present or not client.token:
            return None
        now = self._clock()
        try:
            claims = self._check(client.token, client.key)
        except TokenError as error:
            return Reject(spec.UNAUTHENTICATED, str(error))
        client.user, client.groups = claims.user, claims.groups
        client.until = self._monotonic() + claims.expires - now
        self._present[client.id] = _Presented(client.token, client.key, claims)
        return None

    def on_client_lost(self, client: ClientInfo) -> None:
        self._present.pop(client.id, None)

    # ── internal ──────────────────────────────────────────────────────────────────────────────────

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
            audience=self._audience,
        )
        return ReplyAction(self._answer(token, claims, now))

    def _log_out(self, request: HookRequest, token: str) -> Action:
        given = token or (_text(request.frames[0]) if len(request.frames) else "")
        try:
            claims = self._check(given, request.key)
        except TokenError as error:
            return Reject(spec.UNAUTHENTICATED, str(error))
        try:
            self.revoke(claims.session)
        except ConfigurationError:
            return Reject(spec.HANDLER_FAILED, NOT_STORED)
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
        """Make clients anonymous whose token is refused now, because a key was removed."""
        now = self._clock()
        for peer_id, presented in list(self._present.items()):
            try:
                self._checker.check(presented.token, now, presented.key)
            except TokenError:
                self._expel(peer_id)

    def _expel(self, peer_id: bytes) -> None:
        self._present.pop(peer_id, None)

        def expel(machine: Machine, now: float) -> None:
            machine.restore_identity(peer_id, now)

        self.broker._program().post(expel)


def _text(frame: bytes) -> str:
    """A frame as text. Bytes that are not UTF-8 become characters that no token has."""
    return frame[: tokens.MOST_BYTES + 1].decode("utf-8", "replace")


def _checker(public_keys: Iterable[PublicKey | Path | str] | Path | str, **named: Any) -> Checker:
    if isinstance(public_keys, str | Path):
        path = Path(public_keys)
        if path.is_dir():
            return Checker(folder=path, **named)
        public_keys = [path]
    keys = (
        tokens.read_public(Path(one)) if isinstance(one, str | Path) else one for one in public_keys
    )
    return Checker(keys, **named)

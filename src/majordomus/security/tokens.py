"""Tokens: signed statements of a user, its groups and an expiry time.

Any broker that has the public key can verify a token.

A token is a JWT (RFC 7519) signed with Ed25519 (RFC 8037, RFC 9864). Its claims:

    sub, groups          the user and its groups
    iat, exp             issued at and expires at, in whole seconds since 1970
    jti, sid             the id of the token, and that of its session: one login and its renewals
    auth_time            when that login was
    aud                  the brokers that it is for; without it, any
    cnf                  {"curve": KEY}: valid only on connections with this CURVE key (RFC 7800)

The header's `kid` is the thumbprint (RFC 7638) of the key. Only Ed25519 is accepted. The signatures
are those of joserfc (the extra `tokens`), which is imported when the first key is used.
"""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
from collections.abc import Iterable, Mapping
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from majordomus.core.broker.state.identity import UNIX_USER
from majordomus.errors import ConfigurationError, MajordomusError
from majordomus.security import files

if TYPE_CHECKING:
    from joserfc.jwk import OKPKey

    from majordomus.security.revocations import Revocations

ALGORITHM: Final = "Ed25519"
LIFETIME: Final = 900.0
"""Seconds until a token expires."""
SESSION: Final = 43_200.0
"""Seconds after a login until which its tokens may be renewed."""
LEEWAY: Final = 5.0
"""Seconds by which the clocks of two brokers may differ. Tokens of a later time are refused."""

MOST_BYTES: Final = 3072
"""Most bytes of a token: it must fit into metadata, beside other entries."""
MOST_GROUPS: Final = 64
LONGEST_NAME: Final = 255
MOST_KNOWN: Final = 20_000
"""Most tokens in the cache of verified signatures."""
MOST_REVOKED: Final = 100_000
"""Most revoked ids; each is kept until its last token has expired."""

PUBLIC_SUFFIX: Final = ".jwk"
OTHER_HALF: Final = "_secret"
PARTS: Final = ("kty", "crv", "x", "d")
LOOK_EVERY: Final = 1.0
"""Seconds between two checks of a folder of keys."""


class TokenError(MajordomusError):
    """A token is refused. `reason` is a short, stable key; the text is for people."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


MALFORMED: Final = ("malformed", "the token cannot be read")
UNKNOWN_KEY: Final = (
    "unknown-key",
    "the token was signed with a key that this broker does not accept",
)
BAD_NAME: Final = ("bad-name", "a user or group of the token has an invalid name")
FORGED: Final = ("bad-signature", "the signature of the token is wrong")
OTHER_ALGORITHM: Final = ("other-algorithm", f"tokens are signed with {ALGORITHM}")
EXPIRED: Final = ("expired", "the token has expired")
TOO_EARLY: Final = ("too-early", "the token was issued in the future: check the clocks")
REVOKED: Final = ("revoked", "the token was revoked")
OTHER_AUDIENCE: Final = ("other-audience", "the token is not for this broker")
TOO_LONG: Final = ("too-long-lived", "the token is valid for longer than this broker allows")
OTHER_CONNECTION: Final = ("other-key", "the token is valid only on a connection with another key")


class Claims(NamedTuple):
    """The claims of a token. Times are in seconds since 1970.

    user: the user.
    groups: the groups of the user.
    issued: when the token was made.
    expires: when it ends.
    id: the id of this token.
    session: the id of the login that it comes from, directly or by renewals.
    since: when that login was.
    curve: the CURVE key of the only connections on which it is valid; empty for all.
    audience: the brokers that it is for; empty for all.
    """

    user: str
    groups: tuple[str, ...]
    issued: int
    expires: int
    id: str
    session: str
    since: int
    curve: str = ""
    audience: tuple[str, ...] = ()


class _Payload(msgspec.Struct, forbid_unknown_fields=True):
    sub: str
    groups: list[str]
    iat: int
    exp: int
    jti: str
    sid: str
    auth_time: int
    cnf: dict[str, str] = {}
    aud: str | list[str] = []


class _Header(msgspec.Struct):
    alg: str = ""
    kid: str = ""


# ── keys ──────────────────────────────────────────────────────────────────────────────────────────


class SigningKey:
    """A secret key, which signs tokens. `kid` is its id in every token."""

    def __init__(self, key: OKPKey) -> None:
        self._key = key
        self.kid = key.thumbprint()

    def __repr__(self) -> str:
        return f"<SigningKey {self.kid}>"

    @property
    def public(self) -> PublicKey:
        """The public key, which other brokers need."""
        from joserfc.jwk import OKPKey

        return PublicKey(OKPKey.import_key(self._key.as_dict(private=False)))

    def sign(
        self,
        user: str,
        groups: Iterable[str],
        now: float,
        *,
        lifetime: float = LIFETIME,
        curve: str = "",
        session: str = "",
        since: float | None = None,
        audience: str = "",
    ) -> tuple[str, Claims]:
        """Sign a token for `user` that is valid for `lifetime` seconds from `now` (since 1970).

        A renewal passes the `session` and `since` of its login; without them a session begins.

        Raises: TokenError when a claim is out of its bounds.
        """
        from joserfc import jwt

        names = tuple(groups)
        claims = Claims(
            user,
            names,
            int(now),
            int(now + lifetime),
            secrets.token_hex(12),
            session or secrets.token_hex(12),
            int(now if since is None else since),
            curve,
            (audience,) if audience else (),
        )
        _check(claims)
        payload: dict[str, Any] = {
            "sub": user,
            "groups": list(names),
            "iat": claims.issued,
            "exp": claims.expires,
            "jti": claims.id,
            "sid": claims.session,
            "auth_time": claims.since,
        }
        if curve:
            payload["cnf"] = {"curve": curve}
        if audience:
            payload["aud"] = audience
        header = {"alg": ALGORITHM, "kid": self.kid}
        token = jwt.encode(header, payload, self._key, algorithms=[ALGORITHM])
        if len(token) > MOST_BYTES:
            raise TokenError("too-long", f"a token must have at most {MOST_BYTES} bytes")
        return token, claims

    def save(self, path: Path) -> tuple[Path, Path]:
        """Write both keys to new files, `path`.jwk and `path`.jwk_secret.

        Raises: ConfigurationError, also when a file exists.
        """
        public = path.with_name(path.name + PUBLIC_SUFFIX)
        secret = public.with_name(public.name + OTHER_HALF)
        for there in (public, secret):
            if there.exists() or there.is_symlink():
                raise ConfigurationError(f"{there} exists already; it is not overwritten")
        named = {"kid": self.kid, "use": "sig", "alg": ALGORITHM}
        text = json.dumps({**self._key.as_dict(private=True), **named}, indent=2)
        files.create(secret, text + "\n", files.SECRET)
        self.public.save(public)
        return public, secret


class PublicKey:
    """A public key, which verifies signatures. `kid` is its id."""

    def __init__(self, key: OKPKey) -> None:
        self._key = key
        self.kid = key.thumbprint()

    def __repr__(self) -> str:
        return f"<PublicKey {self.kid}>"

    def payload_of(self, token: str) -> bytes:
        """The signed payload. Raises: TokenError unless this key has signed it."""
        from joserfc import jws
        from joserfc.errors import JoseError

        try:
            return bytes(jws.deserialize_compact(token, self._key, [ALGORITHM]).payload)
        except (JoseError, ValueError, TypeError):
            raise TokenError(*FORGED) from None

    def save(self, path: Path) -> None:
        named = {"kid": self.kid, "use": "sig", "alg": ALGORITHM}
        text = json.dumps({**self._key.as_dict(private=False), **named}, indent=2)
        files.create(path, text + "\n", files.PUBLIC)


def new_key() -> SigningKey:
    """Generate a key pair. Raises: ConfigurationError when joserfc is not installed."""
    return SigningKey(_okp().generate_key("Ed25519"))


def read_secret(path: Path) -> SigningKey:
    """Read a secret key. Raises: ConfigurationError, also when other users can read the file."""
    key = _read(path, files.read_secret(path))
    if not key.is_private:
        raise ConfigurationError(f"{path} is a public key; the secret key is needed")
    return SigningKey(key)


def read_public(path: Path) -> PublicKey:
    """Read a public key. Raises: ConfigurationError."""
    key = _read(path, files.read(path))
    if key.is_private:
        raise ConfigurationError(f"{path} is a secret key; give other brokers the public one")
    return PublicKey(key)


def _read(path: Path, text: str) -> OKPKey:
    kind = _okp()
    try:
        found = json.loads(text)
        key = kind.import_key({name: found[name] for name in PARTS if name in found})
        fits = (found["kty"], found["crv"]) == ("OKP", "Ed25519") and found.get(
            "kid", key.thumbprint()
        ) == key.thumbprint()
    except Exception:  # of json, joserfc or cryptography; not chained, as it may show the secret
        fits = False
    if not fits:
        raise ConfigurationError(f"{path} is not an {ALGORITHM} key (a JWK of RFC 8037)")
    return key


def _okp() -> type[OKPKey]:
    try:
        from joserfc.jwk import OKPKey
    except ImportError as error:
        text = "tokens need joserfc: pip install 'majordomus[tokens]'"
        raise ConfigurationError(text) from error
    return OKPKey


# ── checking ──────────────────────────────────────────────────────────────────────────────────────


class Checker:
    """Verifies tokens with several public keys: while keys are rotated, there are two.

    With an `audience` only tokens for it are accepted, without one only tokens for all brokers.
    `longest` bounds the seconds that a token may still be valid. `revocations` is a file of revoked
    tokens, which is read again when it changes.

    Keys may also come from the files `*.jwk` of a folder, which is read again when it changes.

    version: grows when a key is removed, or when the folder or the revocations have changed.
    """

    def __init__(
        self,
        keys: Iterable[PublicKey] = (),
        folder: Path | None = None,
        *,
        revocations: Revocations | None = None,
        audience: str = "",
        longest: float = inf,
    ) -> None:
        """Raises: ConfigurationError when the folder cannot be read."""
        self._revocations = revocations
        self._audience, self._longest = audience, longest
        self._keys = {key.kid: key for key in keys}
        self._folder = folder
        self._from_folder: Mapping[str, PublicKey] = {}
        self._looked = -inf
        self._seen: object = None
        if folder is not None:
            self._seen = _stamps(folder)
            self._from_folder = _read_folder(folder)
        self._known: dict[str, Claims] = {}
        self._revoked = revocations.ids if revocations is not None else {}
        self.version = 0

    @property
    def kids(self) -> frozenset[str]:
        """The ids of the keys whose tokens are accepted now."""
        return frozenset((*self._keys, *self._from_folder))

    def add(self, key: PublicKey) -> None:
        """Accept tokens that `key` has signed, too."""
        self._keys[key.kid] = key

    def remove(self, kid: str) -> None:
        """Refuse tokens that this key has signed."""
        self._keys.pop(kid, None)
        self._known.clear()
        self.version += 1

    def check(self, token: str, now: float, curve: str = "") -> Claims:
        """Verify `token` at the time `now` (since 1970) on a connection with the key `curve`.

        Raises: TokenError.
        """
        if now >= self._looked + LOOK_EVERY:
            self._look(now)
        claims = self._known.get(token)
        if claims is None:
            claims = self._read(token)
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[token] = claims
        if now >= claims.expires:
            raise TokenError(*EXPIRED)
        if now < claims.issued - LEEWAY:
            raise TokenError(*TOO_EARLY)
        if claims.expires > now + self._longest + LEEWAY:
            raise TokenError(*TOO_LONG)
        if (claims.audience or self._audience) and self._audience not in claims.audience:
            raise TokenError(*OTHER_AUDIENCE)
        if claims.curve and claims.curve != curve:
            raise TokenError(*OTHER_CONNECTION)
        if self._revoked and (claims.id in self._revoked or claims.session in self._revoked):
            raise TokenError(*REVOKED)
        return claims

    def revoke(self, id: str, now: float, until: float) -> None:
        """Refuse the token or session `id` until the time `until`, or until the last of its tokens
        that were seen here has expired.

        Raises: ConfigurationError when the revocation holds here, but cannot be stored.
        """
        seen = (c.expires for c in self._known.values() if id in (c.id, c.session))
        until = max(until, max(seen, default=0) + LEEWAY)
        if self._revocations is not None:
            try:
                self._revocations.add(id, now, until)
            finally:
                self._revoked = self._revocations.ids
            return
        if len(self._revoked) >= MOST_REVOKED:
            self._revoked = {one: end for one, end in self._revoked.items() if end > now}
        if len(self._revoked) >= MOST_REVOKED:
            self._revoked.pop(min(self._revoked, key=self._revoked.__getitem__))
        self._revoked[id] = until

    def _read(self, token: str) -> Claims:
        if len(token) > MOST_BYTES or not token.isascii() or token.count(".") != 2:
            raise TokenError(*MALFORMED)
        try:
            header = msgspec.json.decode(_base64_decoded(token.partition(".")[0]), type=_Header)
        except (ValueError, msgspec.MsgspecError):
            raise TokenError(*MALFORMED) from None
        if header.alg != ALGORITHM:
            raise TokenError(*OTHER_ALGORITHM)
        payload = self._key(header.kid).payload_of(token)
        try:
            payload_fields = msgspec.json.decode(payload, type=_Payload)
        except msgspec.MsgspecError:
            raise TokenError(*MALFORMED) from None
        claims = Claims(
            payload_fields.sub,
            tuple(payload_fields.groups),
            payload_fields.iat,
            payload_fields.exp,
            payload_fields.jti,
            payload_fields.sid,
            payload_fields.auth_time,
            payload_fields.cnf.get("curve", ""),
            _audience(payload_fields.aud),
        )
        if payload_fields.cnf and not claims.curve:
            raise TokenError(*OTHER_CONNECTION)  # bound to something that we cannot check
        _check(claims)
        return claims

    def _key(self, kid: str) -> PublicKey:
        key = self._keys.get(kid) or self._from_folder.get(kid)
        if key is None:
            raise TokenError(*UNKNOWN_KEY)
        return key

    def _look(self, now: float) -> None:
        """Read the folder and the revocations again if they have changed. What cannot be read
        changes nothing."""
        self._looked = now
        if self._revocations is not None:
            with contextlib.suppress(ConfigurationError):
                if self._revocations.look():
                    self.version += 1
        folder = self._folder
        if folder is None:
            return
        with contextlib.suppress(ConfigurationError, OSError):
            seen = _signature(folder)
            if seen != self._seen:
                self._from_folder, self._seen = _read_folder(folder), seen
                self._known.clear()
                self.version += 1


def _stamps(folder: Path) -> object:
    """As `_signature`; None where the folder cannot be read, which `_read_folder` reports."""
    try:
        return _signature(folder)
    except OSError:
        return None


def _check(claims: Claims) -> None:
    """Check the names of a token. Raises: TokenError."""
    names = (claims.user, *claims.groups)
    good = all(
        0 < len(name) <= LONGEST_NAME and name.isprintable() and not name.startswith(UNIX_USER)
        for name in names
    )
    if not good or len(claims.groups) > MOST_GROUPS:
        raise TokenError(*BAD_NAME)


def _audience(claim: str | list[str]) -> tuple[str, ...]:
    """RFC 7519: "aud" is an array of strings, or one string."""
    return (claim,) if isinstance(claim, str) else tuple(claim)


def _base64_decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _signature(folder: Path) -> object:
    """The stamps of the key files in `folder`. Raises: OSError."""
    return [(path.name, files.stamp(path)) for path in sorted(folder.glob(f"*{PUBLIC_SUFFIX}"))]


def _read_folder(folder: Path) -> Mapping[str, PublicKey]:
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is not a folder of public keys")
    files.check_folder(folder)
    keys = [read_public(path) for path in sorted(folder.glob(f"*{PUBLIC_SUFFIX}"))]
    return {key.kid: key for key in keys}

"""Tokens: signed sentences "this is USER, in GROUPS, until then", which any broker can check that
has the public key.

A token is a JWT (RFC 7519) signed with Ed25519 (RFC 8037, RFC 9864). Its claims:

    sub, groups          the user and its groups
    iat, exp             made, and good until; whole seconds since 1970
    jti, sid             its id, and that of the login that it and its renewals come from
    auth_time            when that login was
    cnf                  {"curve": KEY}: only over the connection with this CURVE key (RFC 7800)

The header's `kid` is the thumbprint (RFC 7638) of the key. Nothing but Ed25519 is ever accepted.
joserfc (the extra `tokens`) does the arithmetic; it is imported when the first key is used.
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

from majordomus.errors import ConfigurationError, MajordomusError
from majordomus.security import files

if TYPE_CHECKING:
    from joserfc.jwk import OKPKey

ALGORITHM: Final = "Ed25519"
LIFETIME: Final = 900.0
"""Seconds that a token is good for."""
SESSION: Final = 43_200.0
"""Seconds after a login until which its tokens may be renewed."""
LEEWAY: Final = 5.0
"""Seconds by which the clocks of two brokers may differ: a token of the future is refused."""

MOST_BYTES: Final = 3072
"""Of a token: it has to fit into metadata beside other things."""
MOST_GROUPS: Final = 64
LONGEST_NAME: Final = 255
MOST_KNOWN: Final = 20_000
"""Tokens of which it is remembered that their signature is right."""
MOST_REVOKED: Final = 100_000
"""Ids that are revoked, each until the last token of that id would have ended."""

PUBLIC_SUFFIX: Final = ".jwk"
OTHER_HALF: Final = "_secret"
PARTS: Final = ("kty", "crv", "x", "d")
LOOK_EVERY: Final = 1.0
"""Seconds between two looks at a folder of keys."""


class TokenError(MajordomusError):
    """A token is refused. ``reason`` is a short, stable key; the text says it to people."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


MALFORMED: Final = ("malformed", "the token cannot be read")
UNKNOWN_KEY: Final = ("unknown-key", "the token was signed with a key that is not known here")
FORGED: Final = ("bad-signature", "the signature of the token is wrong")
OTHER_ALGORITHM: Final = ("other-algorithm", f"tokens are signed with {ALGORITHM}")
EXPIRED: Final = ("expired", "the token has expired")
TOO_EARLY: Final = ("too-early", "the token is of the future: a clock is wrong")
REVOKED: Final = ("revoked", "the token was revoked")
OTHER_CONNECTION: Final = ("other-key", "the token belongs to a connection with another key")


class Claims(NamedTuple):
    """What a token says. Times are seconds since 1970; ``curve`` is the key of the connection that
    it is good for, empty for any."""

    user: str
    groups: tuple[str, ...]
    issued: int
    expires: int
    id: str
    session: str
    since: int
    curve: str = ""


class _Payload(msgspec.Struct, forbid_unknown_fields=True):
    sub: str
    groups: list[str]
    iat: int
    exp: int
    jti: str
    sid: str
    auth_time: int
    cnf: dict[str, str] = {}


class _Header(msgspec.Struct):
    alg: str = ""
    kid: str = ""


# ── keys ──────────────────────────────────────────────────────────────────────────────────────────


class SigningKey:
    """The secret half: makes tokens. ``kid`` names it in every token."""

    def __init__(self, key: OKPKey) -> None:
        self._key = key
        self.kid = key.thumbprint()

    def __repr__(self) -> str:
        return f"<SigningKey {self.kid}>"

    @property
    def public(self) -> PublicKey:
        """The half that other brokers need."""
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
    ) -> tuple[str, Claims]:
        """A token for `user`, good for `lifetime` seconds from `now` (since 1970). `session` and
        `since` are those of the login that it renews; without them it is a login of its own.

        Raises: TokenError when the claims are beyond their bounds.
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
        header = {"alg": ALGORITHM, "kid": self.kid}
        token = jwt.encode(header, payload, self._key, algorithms=[ALGORITHM])
        if len(token) > MOST_BYTES:
            raise TokenError("too-long", f"a token has at most {MOST_BYTES} bytes")
        return token, claims

    def save(self, path: Path) -> tuple[Path, Path]:
        """Writes both halves beside each other, as `path`.jwk and `path`.jwk_secret; neither takes
        the place of another file. Raises: ConfigurationError."""
        public = path.with_name(path.name + PUBLIC_SUFFIX)
        secret = public.with_name(public.name + OTHER_HALF)
        for there in (public, secret):
            if there.exists() or there.is_symlink():
                raise ConfigurationError(f"{there} is there already; it is not overwritten")
        named = {"kid": self.kid, "use": "sig", "alg": ALGORITHM}
        text = json.dumps({**self._key.as_dict(private=True), **named}, indent=2)
        files.create(secret, text + "\n", files.SECRET)
        self.public.save(public)
        return public, secret


class PublicKey:
    """The public half: checks signatures."""

    def __init__(self, key: OKPKey) -> None:
        self._key = key
        self.kid = key.thumbprint()

    def __repr__(self) -> str:
        return f"<PublicKey {self.kid}>"

    def payload_of(self, token: str) -> bytes:
        """What was signed. Raises: TokenError for whatever this key has not signed."""
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
    """A pair that nobody else has. Raises: ConfigurationError when joserfc is not installed."""
    return SigningKey(_okp().generate_key("Ed25519"))


def read_secret(path: Path) -> SigningKey:
    """The secret half in `path`. Raises: ConfigurationError, also when others can read the file."""
    key = _read(path, files.read_secret(path))
    if not key.is_private:
        raise ConfigurationError(f"{path} is a public key; the secret one is wanted")
    return SigningKey(key)


def read_public(path: Path) -> PublicKey:
    """The public half in `path`. Raises: ConfigurationError."""
    key = _read(path, files.read(path))
    if key.is_private:
        raise ConfigurationError(f"{path} is a secret key; give other brokers the public one")
    return PublicKey(key)


def _read(path: Path, text: str) -> OKPKey:
    kind = _okp()
    try:
        found = json.loads(text)
        key = kind.import_key({name: found[name] for name in PARTS if name in found})
        fits = found["crv"] == "Ed25519" and found.get("kid", key.thumbprint()) == key.thumbprint()
    except Exception:  # of json, of joserfc, of cryptography; none is told: the text is a secret
        fits = False
    if not fits:
        raise ConfigurationError(f"{path} is no {ALGORITHM} key (a JWK of RFC 8037)")
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
    """Checks tokens against several public keys: while keys are changed there are two of them.

    A folder may be among them: each of its files `*.jwk` counts, also one that comes later.
    """

    def __init__(self, keys: Iterable[PublicKey] = (), folder: Path | None = None) -> None:
        """Raises: ConfigurationError for a folder that cannot be read."""
        self._keys = {key.kid: key for key in keys}
        self._folder = folder
        self._from_folder: Mapping[str, PublicKey] = {}
        self._looked = -inf
        self._seen: object = None
        if folder is not None:
            self._from_folder, self._seen = _read_folder(folder), _signature(folder)
        self._known: dict[str, Claims] = {}
        self._revoked: dict[str, float] = {}
        self.version = 0
        """Rises when a key was taken away, or when the folder has changed."""

    @property
    def kids(self) -> frozenset[str]:
        """The keys whose tokens are accepted now."""
        return frozenset((*self._keys, *self._from_folder))

    def add(self, key: PublicKey) -> None:
        """Accept what `key` has signed, too."""
        self._keys[key.kid] = key

    def remove(self, kid: str) -> None:
        """Accept nothing any more that this key has signed."""
        self._keys.pop(kid, None)
        self._known.clear()
        self.version += 1

    def check(self, token: str, now: float, curve: str = "") -> Claims:
        """What `token` says at `now` (since 1970), over a connection with the key `curve`.

        Raises: TokenError.
        """
        if self._folder is not None and now >= self._looked + LOOK_EVERY:
            self._look(self._folder, now)
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
        if claims.curve and claims.curve != curve:
            raise TokenError(*OTHER_CONNECTION)
        if self._revoked and (claims.id in self._revoked or claims.session in self._revoked):
            raise TokenError(*REVOKED)
        return claims

    def revoke(self, id: str, now: float, until: float) -> None:
        """Refuse the token of that id, or all of that session, `until` none is good any more."""
        if len(self._revoked) >= MOST_REVOKED:
            self._revoked = {one: end for one, end in self._revoked.items() if end > now}
        if len(self._revoked) >= MOST_REVOKED:
            self._revoked.pop(min(self._revoked, key=self._revoked.__getitem__))
        self._revoked[id] = until

    def _read(self, token: str) -> Claims:
        if len(token) > MOST_BYTES or not token.isascii() or token.count(".") != 2:
            raise TokenError(*MALFORMED)
        try:
            header = msgspec.json.decode(_unarmoured(token.partition(".")[0]), type=_Header)
        except (ValueError, msgspec.MsgspecError):
            raise TokenError(*MALFORMED) from None
        if header.alg != ALGORITHM:
            raise TokenError(*OTHER_ALGORITHM)
        payload = self._key(header.kid).payload_of(token)
        try:
            said = msgspec.json.decode(payload, type=_Payload)
        except msgspec.MsgspecError:
            raise TokenError(*MALFORMED) from None
        claims = Claims(
            said.sub,
            tuple(said.groups),
            said.iat,
            said.exp,
            said.jti,
            said.sid,
            said.auth_time,
            said.cnf.get("curve", ""),
        )
        if said.cnf and not claims.curve:
            raise TokenError(*OTHER_CONNECTION)  # bound to something that is not known here
        _check(claims)
        return claims

    def _key(self, kid: str) -> PublicKey:
        key = self._keys.get(kid) or self._from_folder.get(kid)
        if key is None:
            raise TokenError(*UNKNOWN_KEY)
        return key

    def _look(self, folder: Path, now: float) -> None:
        """Whether keys have come to the folder, or left it. One that cannot be read changes
        nothing."""
        self._looked = now
        with contextlib.suppress(ConfigurationError, OSError):
            seen = _signature(folder)
            if seen != self._seen:
                self._from_folder, self._seen = _read_folder(folder), seen
                self._known.clear()
                self.version += 1


def _check(claims: Claims) -> None:
    """Raises: TokenError for names beyond their bounds."""
    names = (claims.user, *claims.groups)
    good = all(0 < len(name) <= LONGEST_NAME and name.isprintable() for name in names)
    if not good or len(claims.groups) > MOST_GROUPS:
        raise TokenError("bad-name", "a user or group of the token has no proper name")


def _unarmoured(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _signature(folder: Path) -> object:
    """What changes when the keys in `folder` do. Raises: OSError."""
    return [(path.name, files.stamp(path)) for path in sorted(folder.glob(f"*{PUBLIC_SUFFIX}"))]


def _read_folder(folder: Path) -> Mapping[str, PublicKey]:
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is no folder of public keys")
    keys = [read_public(path) for path in sorted(folder.glob(f"*{PUBLIC_SUFFIX}"))]
    return {key.kid: key for key in keys}

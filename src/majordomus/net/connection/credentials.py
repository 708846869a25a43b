"""The credentials of a client or worker: the brokers' public keys, its own key pair, or a password;
and the explanation of a failed handshake.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import zmq

from majordomus.core.session.login import Credentials
from majordomus.errors import ConfigurationError
from majordomus.net import endpoints
from majordomus.net.zmq import key_pairs
from majordomus.net.zmq.monitor import MonitorEvent, MonitorRecord
from majordomus.security import certificates
from majordomus.security.certificates import Certificate

MISMATCH: Final = int(zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH)
CLOSED: Final = (errno.EPIPE, errno.ECONNRESET)
GIVE_KEY: Final = (
    "give its public key (server_key=…, --server-key KEY, majordomus://host:port?key=…)"
)
WANTS_PASSWORD: Final = -1
"""The value of a PROTOCOL_FAILED of our own ZMTP: the other end has the mechanism PLAIN."""
NO_ANSWER: Final = "no answer"
NO_HANDSHAKE: Final = "it accepts connections, and does not answer"
TEMPORARY: Final = 300
"""The status of ZAP (RFC 27) for a temporary failure of the handler: the key may be valid."""
_ERRNOS: Final = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ECONNRESET)
BROKER: Final = "MAJORDOMUS_BROKER"
SERVER_KEY: Final = "MAJORDOMUS_SERVER_KEY"
KEY: Final = "MAJORDOMUS_KEY"
"""Variables that are read where no endpoint is given."""
REQUIRE_ENCRYPTION: Final = "MAJORDOMUS_REQUIRE_ENCRYPTION"
"""A variable that sets `require_encryption` of every client and worker."""
OFF: Final = ("", "0", "false", "no")
"""Values of a variable that is not set."""
MOST_PASSWORD: Final = 255
"""Bytes of a user or password: RFC 24 sends each as a short string."""
MOST_CREDENTIALS: Final = 16
"""Frames of a login, at most; one frame alone would be a token to be renewed."""


logger = logging.getLogger("majordomus.credentials")

_warned: set[tuple[str, ...]] = set()
"""Endpoints for which the log says that a certificate is not used."""


class Refusal(NamedTuple):
    """Why an endpoint refused the handshake.

    text: the reason and the remedy, in one line.
    at: when it was refused, in monotonic seconds.
    final: False if the text is a guess and the next attempt may succeed. A proxy without a broker
        behind it closes the connection just as a broker with another key does.
    """

    text: str
    at: float
    final: bool


class Access:
    """The endpoints of the brokers, and the credentials for each.

    urls: the endpoints, without keys.

    `broker` None: the variable MAJORDOMUS_BROKER has the endpoints, else there is the default one;
    MAJORDOMUS_SERVER_KEY and MAJORDOMUS_KEY have the keys that are not given. `server_key` is the
    brokers' public key, for URLs without a key. `certificate` is a key pair, or its file. Without
    it a new pair is made, which encrypts but proves no identity. `plain` is the name and password
    of a user, for brokers on this machine that ask for them. `require_encryption`: a TCP endpoint
    without a key is an error; without it, a certificate that no endpoint uses is logged.
    Raises: ConfigurationError.
    """

    def __init__(
        self,
        broker: str | Sequence[str] | None,
        server_key: str = "",
        certificate: Certificate | str | Path | None = None,
        plain: tuple[str, str] | None = None,
        require_encryption: bool = False,
    ) -> None:
        origin = "a server key"
        if broker is None:
            broker = endpoints.listed(os.environ.get(BROKER, ""), BROKER) or endpoints.DEFAULT
            if plain is None:  # a password given in the program is for a broker without keys
                origin = origin if server_key else SERVER_KEY
                server_key = server_key or os.environ.get(SERVER_KEY, "")
                certificate = certificate or os.environ.get(KEY) or None
        if server_key:
            certificates.check_key(server_key, origin)
        self._keys: dict[str, str] = {}
        self._before: tuple[list[str], dict[str, str], tuple[str, str] | None] | None = None
        self.urls: list[str] = []
        for url in endpoints.several(broker):
            (there,) = endpoints.to_connect(endpoints.without_key(url))
            self.urls.append(there)
            key = endpoints.key_of(url) or server_key
            if key:
                self._keys[there] = certificates.check_key(key, f"{there}: the key")
        self._given = certificate is not None
        if require_encryption or os.environ.get(REQUIRE_ENCRYPTION, "").lower() not in OFF:
            _check_encrypted(self.urls, self._keys)
        if self._given and not self._keys:
            _warn_unused(self.urls)
        if plain is not None and self._keys:
            raise ConfigurationError("give either a server key or a password, not both")
        self._pair: Certificate | None = None
        if self._keys:
            self._pair = key_pairs.make() if certificate is None else key_pairs.pair(certificate)
        if plain is not None and any(len(one.encode()) > MOST_PASSWORD for one in plain):
            raise ConfigurationError(f"a user or password has at most {MOST_PASSWORD} bytes")
        self._plain = plain

    @property
    def password(self) -> tuple[str, str] | None:
        """The name and password of a user; None without."""
        return self._plain

    def keys(self, url: str) -> tuple[str, str, str] | None:
        """Return the broker's public key, and our public and secret key, for a connection to
        `url`; None when it is not encrypted."""
        key = self._keys.get(url)
        if key is None or self._pair is None:
            return None
        return key, self._pair.public, self._pair.secret

    def redirect(self, url: str) -> None:
        """Replace every endpoint by `url`, without keys and password: for `majordomus.testing`."""
        if self._before is None:
            self._before = (list(self.urls), dict(self._keys), self._plain)
        self.urls[:] = [url] * len(self.urls)
        self._keys.clear()
        self._plain = None

    def restore(self) -> None:
        """Undo `redirect`."""
        if self._before is not None:
            urls, keys, self._plain = self._before
            self.urls[:] = urls
            self._keys.update(keys)
            self._before = None

    def secure(self, socket: zmq.Socket[bytes], url: str) -> None:
        """Set the keys or the password of `socket`. To be called before it connects to `url`."""
        keys = self.keys(url)
        if keys is not None:
            server, public, secret = keys
            socket.setsockopt(zmq.CURVE_SERVERKEY, server.encode())
            socket.setsockopt(zmq.CURVE_PUBLICKEY, public.encode())
            socket.setsockopt(zmq.CURVE_SECRETKEY, secret.encode())
        elif self._plain is not None:
            user, password = self._plain
            socket.setsockopt(zmq.PLAIN_USERNAME, user.encode())
            socket.setsockopt(zmq.PLAIN_PASSWORD, password.encode())

    def refusal(self, url: str, seen: MonitorRecord, now: float) -> Refusal | None:
        """Explain a failed handshake; None when it has nothing to do with keys."""
        encrypted = url in self._keys
        final = True
        if seen.event is MonitorEvent.AUTH_FAILED and seen.value == TEMPORARY:
            text = f"{url} cannot check keys at this moment"
            final = False
        elif seen.event is MonitorEvent.AUTH_FAILED:
            text = self._rejected(url, encrypted)
        elif encrypted and (
            seen.event is MonitorEvent.PROTOCOL_FAILED and seen.value in (WANTS_PASSWORD, MISMATCH)
        ):
            # Another party on the path can cause this: do not advise to go on without the key.
            text = (
                f"{url} is not encrypted, and a server key was given: encrypt the broker "
                "(--curve); without the key everything is sent in plain text"
            )
        elif seen.event is MonitorEvent.PROTOCOL_FAILED and seen.value == WANTS_PASSWORD:
            text = f"{url} wants a user and password (plain=(user, password), --plain FILE)"
        elif seen.event is MonitorEvent.PROTOCOL_FAILED and seen.value == MISMATCH:
            if self._plain is not None:
                text = f"{url} does not ask for a password: it is encrypted, or asks for nothing"
            else:
                text = f"{url} is encrypted: {GIVE_KEY}"
        elif encrypted:
            text = (
                f"{url} broke off the handshake: it probably has another key than {self._keys[url]}"
            )
            final = False
        elif seen.value in CLOSED:
            text = (
                f"{url} broke off the handshake: no broker is there, or it is encrypted: {GIVE_KEY}"
            )
            final = False
        else:
            return None
        return Refusal(text, now, final)

    def _rejected(self, url: str, encrypted: bool) -> str:
        if not encrypted or self._pair is None:
            return f"{url} refuses this user or password"
        if self._given:
            return (
                f"{url} refuses the key {self._pair.public}: "
                "it is unknown there, or was removed; the broker's operator can add it"
            )
        return (
            f"{url} accepts only the keys in its list, and none was given: "
            "make one with majordomus keygen, have it added there, and use it "
            "(certificate=…, --key FILE)"
        )


def _check_encrypted(urls: Sequence[str], keys: Mapping[str, str]) -> None:
    """Raises: ConfigurationError for a TCP endpoint without a key."""
    for url in urls:
        if url.startswith("tcp://") and url not in keys:
            raise ConfigurationError(f"{url} is not encrypted, and must be: {GIVE_KEY}")


def _warn_unused(urls: Sequence[str]) -> None:
    """Log, once for these endpoints, that a certificate was given and no connection uses it."""
    if tuple(urls) in _warned:
        return
    _warned.add(tuple(urls))
    logger.warning(
        "the connection to %s is not encrypted, and the certificate is not used: give the broker's "
        "public key (server_key=…, --server-key KEY) or leave the certificate out",
        ", ".join(urls),
    )


def failure(seen: MonitorRecord) -> str:
    """Describe how an attempt to connect has failed, in a few words."""
    if seen.event is MonitorEvent.FAILED:
        # libzmq reports the milliseconds until its next attempt where our own ZMTP has an errno.
        if seen.value == errno.ETIMEDOUT:
            return NO_ANSWER
        return os.strerror(seen.value).lower() if seen.value in _ERRNOS else "not reachable"
    if seen.event is MonitorEvent.BROKEN_OFF and seen.value == errno.ETIMEDOUT:
        return NO_HANDSHAKE
    if seen.event is MonitorEvent.PROTOCOL_FAILED and seen.value not in (MISMATCH, WANTS_PASSWORD):
        return "what answers there is no broker"
    return "it broke off the handshake"


def credentials(login: Sequence[str | bytes]) -> Credentials:
    """Check and encode a login for the broker's auth service.

    Raises: ConfigurationError, whose text contains nothing of `login`.
    """
    if isinstance(login, str | bytes) or not 2 <= len(login) <= MOST_CREDENTIALS:
        raise ConfigurationError("login is a tuple such as (user, secret)")
    if not all(isinstance(one, str | bytes) for one in login):
        raise ConfigurationError("login is a tuple of text or bytes")
    return Credentials([one.encode() if isinstance(one, str) else one for one in login])

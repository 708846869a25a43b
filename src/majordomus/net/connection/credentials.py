"""What a client or worker brings to its brokers: their public keys, its own pair, or a password;
and what it means when one of them breaks off the handshake.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import zmq

from majordomus.core.session.login import Credentials
from majordomus.errors import ConfigurationError
from majordomus.net import endpoints
from majordomus.net.broker.security import curve
from majordomus.net.zmq.monitor import MonitorEvent, MonitorRecord
from majordomus.security import certificates
from majordomus.security.certificates import Certificate

MISMATCH: Final = int(zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH)
CLOSED: Final = (errno.EPIPE, errno.ECONNRESET)
GIVE_KEY: Final = (
    "give its public key (server_key=…, --server-key KEY, majordomus://host:port?key=…)"
)
TEMPORARY: Final = 300
"""ZAP's status of a failure that is the handler's, not the key's."""


MOST_CREDENTIALS: Final = 16
"""Frames of a login; one alone would be a token that is to be renewed."""


class Refusal(NamedTuple):
    """Why an endpoint let us not in, and what to do, in one line. ``at``: monotonic seconds.
    Unless it is ``final``, it is a guess, and the next try may well be let in: a proxy in front of
    a broker that is not there breaks off as one does that has another key.
    """

    text: str
    at: float
    final: bool


class Access:
    """The endpoints, plain, and how to get in there.

    `server_key` is the brokers' public key, where a URL brings none. `certificate` is a pair, or a
    file of one; without it a new pair is made, which proves nothing but keeps secrets. `plain` is a
    user's name and password, for brokers on this machine that ask for them.
    Raises: ConfigurationError.
    """

    def __init__(
        self,
        broker: str | Sequence[str],
        server_key: str = "",
        certificate: Certificate | str | Path | None = None,
        plain: tuple[str, str] | None = None,
    ) -> None:
        if server_key:
            certificates.check_key(server_key, "a server key")
        self._keys: dict[str, str] = {}
        self.urls: list[str] = []
        for url in endpoints.several(broker):
            (there,) = endpoints.to_connect(endpoints.without_key(url))
            self.urls.append(there)
            key = endpoints.key_of(url) or server_key
            if key:
                self._keys[there] = certificates.check_key(key, f"{there}: the key")
        self._given = certificate is not None
        if self._given and not self._keys:
            raise ConfigurationError(
                "a certificate of one's own is of use with the broker's public key: "
                "server_key=…, --server-key, or majordomus://host:port?key=…"
            )
        if plain is not None and self._keys:
            raise ConfigurationError("there is either a server key or a password, not both")
        self._pair: Certificate | None = None
        if self._keys:
            self._pair = curve.make() if certificate is None else curve.pair(certificate)
        self._plain = plain

    def asked(self, url: str) -> bool:
        """Whether `url` is to be shown a key or a password."""
        return url in self._keys or self._plain is not None

    def secure(self, socket: zmq.Socket[bytes], url: str) -> None:
        """What the socket needs before it connects to `url`."""
        key = self._keys.get(url)
        if key is not None and self._pair is not None:
            socket.setsockopt(zmq.CURVE_SERVERKEY, key.encode())
            socket.setsockopt(zmq.CURVE_PUBLICKEY, self._pair.public.encode())
            socket.setsockopt(zmq.CURVE_SECRETKEY, self._pair.secret.encode())
        elif self._plain is not None:
            user, password = self._plain
            socket.setsockopt(zmq.PLAIN_USERNAME, user.encode())
            socket.setsockopt(zmq.PLAIN_PASSWORD, password.encode())

    def refusal(self, url: str, seen: MonitorRecord, now: float) -> Refusal | None:
        """What a failed handshake means; None when it says nothing about keys."""
        encrypted = url in self._keys
        final = True
        if seen.event is MonitorEvent.AUTH_FAILED and seen.value == TEMPORARY:
            text = f"{url} cannot judge keys at this moment"
            final = False
        elif seen.event is MonitorEvent.AUTH_FAILED:
            text = self._unknown(url, encrypted)
        elif seen.event is MonitorEvent.PROTOCOL_FAILED and seen.value == MISMATCH:
            if encrypted:
                text = f"{url} is not encrypted, and a server key was given: leave it out"
            elif self._plain is not None:
                text = f"{url} does not ask for a password: it is encrypted, or asks for nothing"
            else:
                text = f"{url} is encrypted: {GIVE_KEY}"
        elif encrypted:
            text = (
                f"{url} broke off the handshake: it has probably another key than {self._keys[url]}"
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

    def _unknown(self, url: str, encrypted: bool) -> str:
        if not encrypted or self._pair is None:
            return f"{url} refuses this user or password"
        if self._given:
            return (
                f"{url} does not let in the key {self._pair.public}: "
                "it is unknown there, or was removed; whoever runs the broker can add it"
            )
        return (
            f"{url} lets in only keys that it knows, and none was given: "
            "make one with majordomus keygen, have it added, and bring it "
            "(certificate=…, --key FILE)"
        )


def credentials(login: Sequence[str | bytes]) -> Credentials:
    """What the broker's auth service is told.

    Raises: ConfigurationError; nothing of `login` is in the text.
    """
    if isinstance(login, str | bytes) or not 2 <= len(login) <= MOST_CREDENTIALS:
        raise ConfigurationError("login is a tuple such as (user, secret)")
    if not all(isinstance(one, str | bytes) for one in login):
        raise ConfigurationError("login is a tuple of text or bytes")
    return Credentials([one.encode() if isinstance(one, str) else one for one in login])

"""What a broker is told about encryption and identity, judged as a whole before anything is bound.

What others can reach is encrypted and says who may come in, or somebody has said aloud that it
shall not.
"""

from __future__ import annotations

import socket as plain
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from majordomus.core.broker.settings import BrokerSettings
from majordomus.errors import ConfigurationError
from majordomus.net import endpoints
from majordomus.net.broker.security import authenticator as doors
from majordomus.net.broker.security import curve as keys
from majordomus.net.broker.security.authentication import Authentication
from majordomus.net.broker.security.authenticator import Authenticator
from majordomus.security import keys as keys_of
from majordomus.security import passwords as passwords_of
from majordomus.security.certificates import Certificate

ANY: Final = "any"
LOCAL: Final = "local"
EVERYWHERE: Final = ("*", "0.0.0.0", "[::]")  # noqa: S104 - to tell them apart


class SecurityPolicy:
    """The settings, and what `Broker` was given in their place. Raises: ConfigurationError."""

    def __init__(
        self,
        settings: BrokerSettings,
        bind: Sequence[str],
        curve: bool | Certificate | str | Path | None = None,
        clients: str | Path | None = None,
        passwords: str | Path | None = None,
        insecure: bool | None = None,
    ) -> None:
        self.certificate: Certificate | None = None
        self.file: Path | None = None
        """Where the secret half is kept; None when the pair was given."""
        self.is_new = False
        self.encrypted = settings.curve if curve is None else bool(curve)
        self._given = curve if isinstance(curve, Certificate | str | Path) else settings.certificate
        self.clients = str(clients or settings.clients)
        self._passwords = str(passwords or settings.passwords)
        self._insecure = settings.insecure if insecure is None else insecure
        self._bind = list(bind)
        self._check_sense(settings)
        self._check_reach()

    def prepare(self) -> None:
        """Reads the files, and makes the broker's pair where there is none. May be repeated.

        Raises: ConfigurationError.
        """
        if not self.encrypted or self.certificate is not None:
            return
        if isinstance(self._given, Certificate):
            self.certificate = keys.pair(self._given)
        else:
            path = Path(self._given) if self._given else None
            self.certificate, self.file, self.is_new = keys.kept(path)

    def check_files(self) -> None:
        """Reads what will be needed. Raises: ConfigurationError for what cannot be used."""
        self.prepare()
        if self.encrypted and self.clients not in ("", ANY):
            keys_of.load(Path(self.clients), [])
        if self._passwords:
            passwords_of.load(Path(self._passwords))

    def make_gate(self) -> Authentication | None:
        """For one run of the broker; None where nobody is asked. Raises: ConfigurationError."""
        self.prepare()
        if self.encrypted:
            anybody = self.clients in ("", ANY)
            door = Authenticator(doors.CURVE) if anybody else doors.by_keys(Path(self.clients))
            return Authentication(door, self.certificate)
        if self._passwords:
            return Authentication(doors.by_passwords(Path(self._passwords)), None)
        return Authentication(Authenticator(doors.NULL), None) if self.clients == LOCAL else None

    def for_clients(self, bound: Sequence[str]) -> list[str]:
        """The endpoints as clients are to be given them, with the key where there is one."""
        urls = [_reachable(url) for url in bound]
        if self.certificate is None:
            return urls
        key = self.certificate.public
        return [endpoints.with_key(url, key) if url.startswith("tcp://") else url for url in urls]

    def _check_sense(self, settings: BrokerSettings) -> None:
        if settings.certificate and not self.encrypted:
            raise ConfigurationError("a certificate is of use with curve (--curve) alone")
        if self.encrypted and self._passwords:
            raise ConfigurationError("there is either curve or passwords, not both")
        if self.encrypted and self.clients == LOCAL:
            raise ConfigurationError(f"clients = {LOCAL!r} is for a broker without curve")
        if not self.encrypted and self.clients not in ("", LOCAL):
            raise ConfigurationError(
                "clients are known by their keys: that needs curve (--curve, curve=True)"
            )
        if self._passwords and self.clients:
            raise ConfigurationError("there are either clients or passwords, not both")

    def _check_reach(self) -> None:
        outside = next((url for url in self._bind if not endpoints.is_local(url)), None)
        if outside is None:
            return
        if self._passwords:
            raise ConfigurationError(
                f"{outside} can be reached by others, who would hear the passwords: "
                "they are for this machine alone; use curve (--curve) there"
            )
        if self._insecure:
            return
        if not self.encrypted:
            raise ConfigurationError(
                f"{outside} can be reached by others: encrypt it (--curve, curve=True), "
                "or say --insecure (insecure=True)"
            )
        if not self.clients:
            raise ConfigurationError(
                f"{outside} can be reached by others: say who may connect "
                "(--clients FILE or FOLDER of their keys), or --clients any"
            )


class SecuredBroker:
    """What a broker tells of its fence."""

    fence: SecurityPolicy
    endpoints: list[str]

    @property
    def public_key(self) -> str:
        """What clients have to know of an encrypted broker; "" when it is not. Makes the pair where
        there is none. Raises: ConfigurationError.
        """
        self.fence.prepare()
        return self.fence.certificate.public if self.fence.certificate is not None else ""

    @property
    def client_endpoints(self) -> list[str]:
        """The bound endpoints as clients want them: with the public key, where there is one."""
        return self.fence.for_clients(self.endpoints)


def _reachable(url: str) -> str:
    """A host that others can look up, in the place of one that means every interface."""
    host, _, port = url.removeprefix("tcp://").rpartition(":")
    if not url.startswith("tcp://") or host not in EVERYWHERE:
        return url
    return f"tcp://{plain.gethostname()}:{port}"

"""The security settings of a broker, checked together before anything is bound.

An endpoint that other machines can reach must be encrypted and name the clients that may connect,
or be marked `insecure`.
"""

from __future__ import annotations

import socket as plain
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from majordomus.core.broker.settings import BrokerSettings
from majordomus.errors import ConfigurationError
from majordomus.net import endpoints
from majordomus.net.broker.security import curve
from majordomus.net.broker.security.authenticator import (
    CURVE,
    NULL,
    AuthenticationPlan,
    Authenticator,
    by_keys,
    by_passwords,
)
from majordomus.security import keys as keys_of
from majordomus.security import passwords as passwords_of
from majordomus.security.certificates import Certificate

ANY: Final = "any"
LOCAL: Final = "local"
EVERYWHERE: Final = ("*", "0.0.0.0", "[::]")  # noqa: S104 - to tell them apart


class SecurityPolicy:
    """The security settings of one broker; arguments of `Broker` override them.

    Raises: ConfigurationError for settings that contradict each other or are not secure.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        bind: Sequence[str],
        encryption: bool | Certificate | str | Path | None = None,
        clients: str | Path | None = None,
        passwords: str | Path | None = None,
        insecure: bool | None = None,
    ) -> None:
        self.certificate: Certificate | None = None
        self.file: Path | None = None
        """The file of the secret key; None when a key pair was given."""
        self.is_new = False
        self.encrypted = settings.curve if encryption is None else bool(encryption)
        self._given = (
            encryption if isinstance(encryption, Certificate | str | Path) else settings.certificate
        )
        self.clients = str(clients or settings.clients)
        self._passwords = str(passwords or settings.passwords)
        self._insecure = settings.insecure if insecure is None else insecure
        self._bind = list(bind)
        self._check_consistency(settings)
        self._check_exposure()

    def prepare(self) -> None:
        """Load the broker's certificate, or make it. May be repeated.

        Raises: ConfigurationError.
        """
        if not self.encrypted or self.certificate is not None:
            return
        if isinstance(self._given, Certificate):
            self.certificate = curve.pair(self._given)
        else:
            path = Path(self._given) if self._given else None
            self.certificate, self.file, self.is_new = curve.kept(path)

    def check_files(self, *, make: bool = True) -> bool:
        """Read every file that will be needed. Raises: ConfigurationError for an invalid one.

        Returns whether there is a certificate; without `make` a missing one is not made.
        """
        if make or self._has_certificate():
            self.prepare()
        if self.encrypted and self.clients not in ("", ANY):
            keys_of.load(Path(self.clients), [])
        if self._passwords:
            passwords_of.load(Path(self._passwords))
        return self.certificate is not None

    def _has_certificate(self) -> bool:
        if isinstance(self._given, Certificate):
            return True
        return curve.found(Path(self._given) if self._given else None) is not None

    def make_authentication(self) -> AuthenticationPlan | None:
        """Return the authentication of one run of the broker; None when it has none.

        Raises: ConfigurationError.
        """
        self.prepare()
        if self.encrypted:
            if self.clients in ("", ANY):
                return AuthenticationPlan(Authenticator(CURVE), self.certificate)
            return AuthenticationPlan(by_keys(Path(self.clients)), self.certificate)
        if self._passwords:
            return AuthenticationPlan(by_passwords(Path(self._passwords)))
        return AuthenticationPlan(Authenticator(NULL)) if self.clients == LOCAL else None

    def for_clients(self, bound: Sequence[str]) -> list[str]:
        """Return the endpoints that clients connect to, with the broker's key if encrypted."""
        urls = [_reachable(url) for url in bound]
        if self.certificate is None:
            return urls
        key = self.certificate.public
        return [endpoints.with_key(url, key) if url.startswith("tcp://") else url for url in urls]

    def _check_consistency(self, settings: BrokerSettings) -> None:
        if settings.certificate and not self.encrypted:
            raise ConfigurationError(
                "a certificate can only be used with encryption (--curve, curve=True)"
            )
        if self.encrypted and self._passwords:
            raise ConfigurationError(
                "use either --curve or --passwords (curve, passwords), not both"
            )
        if self.encrypted and self.clients == LOCAL:
            raise ConfigurationError(
                f"clients {LOCAL!r} (--clients) can only be used without --curve (curve)"
            )
        if not self.encrypted and self.clients not in ("", LOCAL):
            raise ConfigurationError(
                "a list of client keys (--clients) needs curve (--curve, curve=True)"
            )
        if self._passwords and self.clients:
            raise ConfigurationError(
                "use either --clients or --passwords (clients, passwords), not both"
            )

    def _check_exposure(self) -> None:
        outside = next((url for url in self._bind if not endpoints.is_local(url)), None)
        if outside is None:
            return
        if self._passwords:
            raise ConfigurationError(
                f"{outside} can be reached by others: passwords would cross the network in plain "
                "text; encrypt it (--curve, curve=True)"
            )
        if self._insecure:
            return
        if not self.encrypted:
            raise ConfigurationError(
                f"{outside} can be reached by others: encrypt it (--curve, curve=True), "
                "or allow it with --insecure (insecure=True)"
            )
        if not self.clients:
            raise ConfigurationError(
                f"{outside} can be reached by others: name the keys that may connect "
                "(--clients FILE or FOLDER), or use --clients any"
            )


class SecuredBroker:
    """The part of `Broker` that publishes its security: public key and endpoints for clients."""

    security_policy: SecurityPolicy
    endpoints: list[str]

    @property
    def public_key(self) -> str:
        """The public key that clients need; "" for a broker without encryption.

        Makes the broker's certificate where there is none. Raises: ConfigurationError.
        """
        self.security_policy.prepare()
        certificate = self.security_policy.certificate
        return certificate.public if certificate is not None else ""

    @property
    def client_endpoints(self) -> list[str]:
        """The bound endpoints with the public key, if the broker is encrypted."""
        return self.security_policy.for_clients(self.endpoints)


def _reachable(url: str) -> str:
    """Replace a host that means every interface by the name of this machine."""
    host, _, port = url.removeprefix("tcp://").rpartition(":")
    if not url.startswith("tcp://") or host not in EVERYWHERE:
        return url
    return f"tcp://{plain.gethostname()}:{port}"

"""CURVE key pairs: make one, derive the public key, check a given pair.

Only libzmq makes keys here, so clients, workers and brokers all depend on this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import zmq

from majordomus.errors import ConfigurationError
from majordomus.security import certificates
from majordomus.security.certificates import Certificate


def make(metadata: Mapping[str, str] | None = None) -> Certificate:
    """Make a new pair. Raises: ConfigurationError if libzmq was built without CURVE."""
    _check_curve()
    public, secret = zmq.curve_keypair()
    return Certificate(public.decode(), secret.decode(), dict(metadata or {}))


def public_of(secret: str) -> str:
    """Derive the public key of a secret key."""
    return zmq.curve_public(certificates.check_key(secret, "a secret key").encode()).decode()


def pair(given: Certificate | str | Path) -> Certificate:
    """Check a pair, or read it from a file first.

    Raises: ConfigurationError when the secret key is missing, belongs to another public key, or is
    in a file that other users can read.
    """
    _check_curve()
    found = given if isinstance(given, Certificate) else certificates.read_pair(Path(given))
    certificates.check_key(found.public, "a public key")
    if not found.secret:
        raise ConfigurationError(f"of the key {found.public} the secret half is needed")
    if public_of(found.secret) != found.public:
        raise ConfigurationError(f"the secret key does not belong to the public key {found.public}")
    return found


def _check_curve() -> None:
    if not zmq.has("curve"):
        raise ConfigurationError("this libzmq was built without CURVE: install pyzmq's own wheel")

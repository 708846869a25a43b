"""CURVE for libzmq sockets: key pairs, the broker's own certificate, and the socket options."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import zmq

from majordomus.net.zmq.key_pairs import make, pair, public_of
from majordomus.security import certificates, files
from majordomus.security.certificates import Certificate

__all__ = ["enforce", "kept", "make", "pair", "public_of", "serve", "state_folder"]

ENFORCE_DOMAIN: Final = 93
"""ZMQ_ZAP_ENFORCE_DOMAIN, which pyzmq does not name: without a ZAP handler libzmq refuses every
connection."""
BROKER_NAME: Final = "broker"


def state_folder(environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """Return the folder of a broker's state: `$STATE_DIRECTORY` (set by systemd), else the user's
    state folder by XDG or on macOS."""
    service = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if service:
        return Path(service)
    if platform == "darwin":
        return Path.home() / "Library/Application Support/majordomus"
    xdg = environ.get("XDG_STATE_HOME", "")
    base = Path(xdg) if Path(xdg).is_absolute() else Path.home() / ".local/state"
    return base / "majordomus"


def found(path: Path | None = None) -> Path | None:
    """Return the secret file that `kept` would load; None when it would make one."""
    path = path or state_folder() / BROKER_NAME
    return certificates.secret_file(path) or (path if path.exists() else None)


def kept(path: Path | None = None) -> tuple[Certificate, Path, bool]:
    """Load the broker's certificate from `path`, or make it there.

    Returns it, its secret file, and whether it is new. Raises: ConfigurationError.
    """
    path = path or state_folder() / BROKER_NAME
    there = found(path)
    if there is not None:
        return pair(there), there, False
    name = path.name.removesuffix(certificates.OTHER_HALF).removesuffix(".key")
    files.make_folder(path.parent)
    made = make({"name": name})
    return made, certificates.write(path.with_name(name), made)[1], True


def serve(socket: zmq.Socket[bytes], certificate: Certificate, domain: str) -> None:
    """Make a socket that is not bound yet accept CURVE only, with the keys of its ZAP domain."""
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, certificate.secret.encode())
    enforce(socket, domain)


def enforce(socket: zmq.Socket[bytes], domain: str) -> None:
    """Let the ZAP handler decide about each connection; without a handler all are refused."""
    socket.setsockopt(zmq.ZAP_DOMAIN, domain.encode())
    socket.setsockopt(ENFORCE_DOMAIN, 1)

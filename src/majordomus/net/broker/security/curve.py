"""CURVE on sockets: pairs are made, the broker's own is kept, options are set.

Which key a client brings and which broker's key it expects is fixed here, once, for every socket.
"""

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
"""ZMQ_ZAP_ENFORCE_DOMAIN, which pyzmq has no name for: without a handler nobody gets in."""
BROKER_NAME: Final = "broker"


def state_folder(environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """Where a broker keeps what it has to find again: `$STATE_DIRECTORY` (systemd's), the user's
    folder for such things by XDG or on macOS.
    """
    service = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if service:
        return Path(service)
    if platform == "darwin":
        return Path.home() / "Library/Application Support/majordomus"
    xdg = environ.get("XDG_STATE_HOME", "")
    base = Path(xdg) if Path(xdg).is_absolute() else Path.home() / ".local/state"
    return base / "majordomus"


def kept(path: Path | None = None) -> tuple[Certificate, Path, bool]:
    """The certificate that a broker keeps at `path`, made when there is none.

    Returns it, its secret file, and whether it is new. Raises: ConfigurationError.
    """
    path = path or state_folder() / BROKER_NAME
    there = certificates.secret_file(path) or (path if path.exists() else None)
    if there is not None:
        return pair(there), there, False
    name = path.name.removesuffix(certificates.OTHER_HALF).removesuffix(".key")
    files.make_folder(path.parent)
    made = make({"name": name})
    return made, certificates.write(path.with_name(name), made)[1], True


def serve(socket: zmq.Socket[bytes], certificate: Certificate, domain: str) -> None:
    """The socket, to be bound, speaks nothing but CURVE, and lets in whom its ZAP domain knows."""
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, certificate.secret.encode())
    enforce(socket, domain)


def enforce(socket: zmq.Socket[bytes], domain: str) -> None:
    """Whoever connects is judged by the ZAP handler; while there is none, nobody gets in."""
    socket.setsockopt(zmq.ZAP_DOMAIN, domain.encode())
    socket.setsockopt(ENFORCE_DOMAIN, 1)

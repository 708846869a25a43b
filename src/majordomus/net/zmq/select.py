"""Which transport serves TCP and ipc, decided once at import.

It is our own ZMTP (`net.zmtp`) where the extension was built; for encryption it needs libsodium as
well. Everything else is served by libzmq, through pyzmq (`net.zmq.wire`).
MAJORDOMUS_WIRE=zmtp or =pyzmq forces one of them; with pyzmq libzmq serves TCP and ipc too.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from typing import Final

from majordomus.errors import ConfigurationError

VARIABLE: Final = "MAJORDOMUS_WIRE"
PYZMQ: Final = "pyzmq"
OWN: Final = "zmtp"

logger = logging.getLogger("majordomus")


def _missing(wanted: str) -> str:
    """Return why our own ZMTP does not serve TCP and ipc; "" where it does."""
    if wanted == PYZMQ:
        return f"{VARIABLE} asks for it"
    if wanted not in ("", OWN):
        return f"{VARIABLE}={wanted} is unknown; use {OWN} or {PYZMQ}"
    if sys.platform != "linux":
        return "our own ZMTP needs Linux"
    try:
        importlib.import_module("majordomus.net.zmtp.router")
        importlib.import_module("majordomus.net.zmtp.dealer")
    except ModuleNotFoundError:
        return "our own ZMTP was not built at installation"
    except ImportError as error:
        return f"our own ZMTP does not load: {error}"
    return ""


def _curve_problem() -> str:
    if MISSING:
        return "our own ZMTP is not used"
    sodium = importlib.import_module("majordomus.net.zmtp.sodium")
    return str(sodium.problem)


_wanted: Final = os.environ.get(VARIABLE, "")
_warned: list[str] = []

MISSING: Final = _missing(_wanted)
"""Why libzmq serves TCP and ipc; "" where our own ZMTP does."""
OWN_ZMTP: Final = not MISSING
"""Whether our own ZMTP serves TCP and ipc; it needs epoll, so it is built on Linux only."""
CURVE_PROBLEM: Final = _curve_problem()
"""Why libzmq serves encrypted endpoints; "" where our own ZMTP does."""


def curve_problem() -> str:
    """Return why libzmq serves encrypted TCP; "" where our own ZMTP does. Logged once."""
    if CURVE_PROBLEM and OWN_ZMTP and CURVE_PROBLEM not in _warned:
        _warned.append(CURVE_PROBLEM)
        logger.warning("libzmq serves encrypted endpoints, with more CPU time: %s", CURVE_PROBLEM)
    return CURVE_PROBLEM


def problem() -> str:
    """Return why the transport that MAJORDOMUS_WIRE names is not available; "" when it is."""
    if _wanted not in ("", OWN, PYZMQ):
        return MISSING
    if _wanted == OWN and MISSING:
        return f"{VARIABLE}={OWN} is not available: {MISSING}"
    return ""


def check() -> None:
    """Warn once when libzmq serves TCP and ipc on Linux without being forced.

    Raises: ConfigurationError when the forced transport is unknown or not available.
    """
    if reason := problem():
        raise ConfigurationError(reason)
    if MISSING and _wanted != PYZMQ and sys.platform == "linux" and MISSING not in _warned:
        _warned.append(MISSING)
        logger.warning("libzmq serves all connections, several times slower: %s", MISSING)

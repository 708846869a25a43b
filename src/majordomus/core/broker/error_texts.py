"""Error texts for requests that no worker can take.

Only the wording is decided here, and which service names a caller may read.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from majordomus.core.broker.state.identity import Caller
    from majordomus.core.broker.state.peers import Peer
    from majordomus.core.broker.state.registry import Registry

TARGET_GONE = "the requested worker is gone; call again without naming a worker"
"""The text of a 404."""
TARGET_DRAINS = "the requested worker takes no new requests"
"""The text of a 503."""
MOST_NAMES = 10
"""Most service names in a text."""
MOST_CHECKED = 200
"""Most services that are checked for the right to call them."""


def serving_now(registry: Registry, caller: Peer | Caller) -> str:
    """Name services that have a worker.

    "A broker with access rules names only what the client may call" (docs/spec/mdp-0.3.md).
    """
    served, rights = registry.served, registry.rights
    if rights is None:
        names = [service.name for service in islice(served, MOST_NAMES)]
        left_out = len(served) - len(names)
    else:
        known = (service.name for service in islice(served, MOST_CHECKED))
        names, left_out = rights.callable_by(caller, known)[:MOST_NAMES], 0
    if not names:
        return "no service is served now"
    listed = ", ".join(sorted(name.decode() for name in names))
    more = f" and {left_out} more" if left_out else ""
    return f"serving now: {listed}{more}"


def no_worker_serves(registry: Registry, called: bytes, caller: Peer | Caller) -> str:
    """The text of a 503 for a request that does not wait for a worker."""
    return f"no worker serves '{called.decode()}'; {serving_now(registry, caller)}"

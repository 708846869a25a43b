"""What the sentences of a 503 say of the services that there are, and of a worker that is not. Only
wording, and who may read it."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from majordomus.core.broker.state.identity import Caller
    from majordomus.core.broker.state.peers import Peer
    from majordomus.core.broker.state.registry import Registry

TARGET_GONE = "the worker that was asked for is gone"
NAMES_TOLD = 10
"""Services that a sentence names at most."""
NAMES_LOOKED_AT = 200
"""Services among which it looks for those that the client may call."""


def serving_now(registry: Registry, caller: Peer | Caller) -> str:
    """ "A broker with access rules names only what the client may call"
    (docs/spec/mdp-0.3.md)."""
    served, rights = registry.served, registry.rights
    if rights is None:
        names = [service.name for service in islice(served, NAMES_TOLD)]
        left_out = len(served) - len(names)
    else:
        known = (service.name for service in islice(served, NAMES_LOOKED_AT))
        names, left_out = rights.callable_by(caller, known)[:NAMES_TOLD], 0
    if not names:
        return "no service is served now"
    told = ", ".join(sorted(name.decode() for name in names))
    more = f" and {left_out} more" if left_out else ""
    return f"serving now: {told}{more}"


def nobody_serves(registry: Registry, called: bytes, caller: Peer | Caller) -> str:
    """The sentence of a 503 that does not wait for a worker."""
    return f"no worker serves '{called.decode()}'; {serving_now(registry, caller)}"

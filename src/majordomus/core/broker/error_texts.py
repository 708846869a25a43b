"""Error texts for requests that no worker can take.

Only the wording is decided here, and which service names a caller may read.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from majordomus.core.broker.state.access_rules import full_name

if TYPE_CHECKING:
    from majordomus.core.broker.state.identity import Caller
    from majordomus.core.broker.state.peers import Peer
    from majordomus.core.broker.state.registry import Registry
    from majordomus.core.broker.state.services import Service

TARGET_GONE = "the requested worker is gone; call again without naming a worker"
"""The text of a 404."""
TARGET_DRAINS = "the requested worker takes no new requests"
"""The text of a 503."""
MOST_NAMES = 10
"""Most service names in a text."""
MOST_CHECKED = 200
"""Most services that are checked for the right to call them."""
MOST_COUNTED = 40
"""Most services that are checked for a worker that takes new requests; the others are counted."""


def serving_now(registry: Registry, caller: Peer | Caller) -> str:
    """Name services that have a worker which takes new requests.

    "A broker with access rules names only what the client may call" (docs/spec/mdp-0.3.md).
    """
    served, rights = registry.served, registry.rights
    most = MOST_COUNTED if rights is None else MOST_CHECKED
    known = [service.name for service in islice(served, most) if service.served_now]
    if rights is None:
        names = known[:MOST_NAMES]
        left_out = len(known) + max(0, len(served) - most) - len(names)
    else:
        names, left_out = rights.callable_by(caller, known)[:MOST_NAMES], 0
    if not names:
        return "no service is served now"
    listed = ", ".join(sorted(name.decode() for name in names))
    more = f" and {left_out} more" if left_out else ""
    return f"serving now: {listed}{more}"


def no_worker_serves(
    registry: Registry, service: Service, called: bytes, caller: Peer | Caller
) -> str:
    """The text of a 503 for a request that does not wait for a worker."""
    name = called.decode()
    if is_redirected(service, called, caller):
        text = f"a hook of the broker redirected '{name}', and no worker serves the target"
    elif service.workers:
        text = f"every worker of '{name}' drains"
    else:
        text = f"no worker serves '{name}'"
    return f"{text}; {serving_now(registry, caller)}"


def no_worker_came(
    registry: Registry, service: Service, called: bytes, caller: Peer | Caller, waited: str
) -> str:
    """The text of a 503 for a request that has waited for a worker."""
    name = called.decode()
    text = f"no worker for service '{name}' came within {waited}"
    if is_redirected(service, called, caller):
        text = (
            f"a hook of the broker redirected '{name}', "
            f"and no worker for the target came within {waited}"
        )
    return f"{text}; {serving_now(registry, caller)}"


def is_redirected(service: Service, called: bytes, caller: Peer | Caller) -> bool:
    """Whether a request of `caller` for `called` is at another service than the one of that name.
    The target's name is not told: the client may not know it."""
    return service.name != full_name(caller.prefix, called)

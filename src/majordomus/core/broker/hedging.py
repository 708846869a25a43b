"""A second request for the same answer, which a client sends when the first one takes long: it goes
to another worker at once, or nowhere (docs/spec/mdp-0.3.md, metadata `hedge`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from majordomus.core.broker.state.peers import conversation
from majordomus.core.broker.state.transitions import AT_WORKER
from majordomus.protocol import metadata

if TYPE_CHECKING:
    from majordomus.core.broker.state.requests import AcceptedRequest

MARK: Final = b"\xa5hedge"
"""The key as MessagePack writes it: where these bytes are not, no map has to be read."""
NO_OTHER: Final = "no other worker is free for a second try"
NOT_THERE: Final = "what this is a second try of is at no worker"


def avoid(request: AcceptedRequest) -> bool:
    """Keep `request`, if it is a second try, from the worker that has the first one. False when
    there is no such first one, and it makes no sense."""
    id = metadata.unpack(request.metadata).get("hedge")
    if not isinstance(id, int):
        return True
    first = request.peer.open.get(conversation(id, request.envelope))
    if first is None or first.service is not request.service or first.state not in AT_WORKER:
        return False
    if first.worker is not None:
        request.rejected = {first.worker}
    return True

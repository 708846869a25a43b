"""The bounds of the queues (rule 4): what waits, and what hooks hold, counts toward them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from majordomus.core.broker.state.registry import Registry
    from majordomus.core.broker.state.requests import AcceptedRequest


def broken(registry: Registry, request: AcceptedRequest, more: int = 0) -> str:
    """Which bound of the queues `request` would break (rule 4), with `more` bytes than it has;
    empty when none."""
    settings, size = registry.settings, request.size + more
    queue, peer, service = (
        request.target.reserved if request.target else request.service.queue,
        request.peer,
        request.service,
    )
    name = request.called.decode()
    count, waiting = queue.count + service.held, queue.size + service.held_bytes
    if count >= settings.max_service_queue:
        return f"{count} requests wait for service '{name}' already"
    if waiting + size > settings.max_service_queue_bytes:
        return f"{waiting} bytes wait for service '{name}' already"
    if peer.queued >= settings.max_client_queue:
        return f"{peer.queued} requests of this client wait already"
    if peer.queued_bytes + size > settings.max_client_queue_bytes:
        return f"{peer.queued_bytes} bytes of this client wait already"
    if registry.queued >= settings.max_queue:
        return f"{registry.queued} requests wait at this broker already"
    if registry.queued_bytes + size > settings.max_queue_bytes:
        return f"{registry.queued_bytes} bytes wait at this broker already"
    return ""

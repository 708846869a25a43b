"""Contracts for the commands: of a running broker, of a worker's module, or of a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from majordomus.cli.remote import answer, keys
from majordomus.cli.target import import_here
from majordomus.errors import ConfigurationError, NotFound

if TYPE_CHECKING:
    from majordomus.contracts.model import Contract
    from majordomus.net.client.client import Client


def of_broker(brokers: tuple[str, ...], timeout: float, service: str = "") -> dict[str, Contract]:
    """Return the contracts of the services of a broker, or of one service.

    Raises: NotFound when no worker serves it; StatusError when the broker refuses.
    """
    from majordomus.net.client.client import Client

    with Client(list(brokers), spread=False, **keys()) as client:
        if service:
            return {service: of_service(client, timeout, service)}
        names = [one["service"] for one in answer(client, timeout, "mmi.services")]
        found = {}
        for name in sorted(names):
            try:
                found[name] = of_service(client, timeout, name)
            except NotFound:  # its last worker has left meanwhile
                continue
        return found


def of_service(client: Client, timeout: float, service: str) -> Contract:
    """Return the contract that most workers of a service state; one of any body, if none does.

    Raises: NotFound when no worker serves it.
    """
    import msgspec

    from majordomus.contracts import model
    from majordomus.contracts.model import Contract

    try:
        told: Any = answer(client, timeout, "mmi.contract", service)
    except NotFound:
        raise NotFound(f"no worker serves '{service}'") from None
    known = [one for one in told["contracts"] if one["contract"] is not None]
    if not known:
        return Contract()
    most = max(known, key=lambda one: one["workers"])
    return model.parse(msgspec.json.encode(most["contract"], order="sorted"))


def of_source(source: str) -> dict[str, Contract]:
    """Return the contracts of a file that `describe --json` wrote, or of MODULE:WORKER.

    Raises: ConfigurationError.
    """
    from majordomus.contracts import catalog

    module, colon, name = source.partition(":")
    if not colon:
        try:
            data = Path(source).read_bytes()
        except OSError as error:
            raise ConfigurationError(f"{source}: {error.strerror}") from None
        return catalog.read(data, source)
    worker = getattr(import_here(module), name, None)
    handlers = getattr(worker, "handlers", None)
    if not isinstance(handlers, dict):
        raise ConfigurationError(f"{source} is no Worker and no AsyncWorker")
    return catalog.of_handlers(handlers)

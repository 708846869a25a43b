"""A catalog: the contracts of several services in one JSON document, by name.

`majordomus describe --json` prints one, `majordomus diff` compares two. Keys are sorted, so that a
catalog that is kept in version control changes only where a contract does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from majordomus.contracts import compare, model
from majordomus.contracts.compare import ContractChange
from majordomus.contracts.model import Contract
from majordomus.errors import ConfigurationError, RemoteProtocolError

Catalog = Mapping[str, Contract]
_KEY: Final = "services"


def to_json(catalog: Catalog) -> str:
    """Return the document of a catalog."""
    services = {
        name: msgspec.json.decode(model.to_bytes(contract)) for name, contract in catalog.items()
    }
    data = msgspec.json.encode({"majordomus": model.FORMAT, _KEY: services}, order="sorted")
    return msgspec.json.format(data, indent=2).decode() + "\n"


def read(text: str | bytes, where: str = "catalog") -> dict[str, Contract]:
    """Return the contracts of a document. Raises: ConfigurationError, which names `where`."""
    try:
        value: Any = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ConfigurationError(f"{where} is no catalog: {error}") from None
    services = value.get(_KEY) if isinstance(value, dict) else None
    if not isinstance(services, dict):
        raise ConfigurationError(
            f"{where} is no catalog: it has no services (majordomus describe --json makes one)"
        )
    found = {}
    for name, data in services.items():
        try:
            found[name] = model.parse(msgspec.json.encode(data, order="sorted"))
        except RemoteProtocolError as error:
            raise ConfigurationError(f"{where}: {name}: {error.detail}") from None
    return found


def of_handlers(handlers: Mapping[str, Any]) -> dict[str, Contract]:
    """Return the contracts of a worker's handlers; those that are not typed take any body."""
    return {
        name: model.parse(handler.contract) if handler.contract else Contract()
        for name, handler in sorted(handlers.items())
    }


def changes(old: Catalog, new: Catalog) -> list[tuple[str, ContractChange]]:
    """Return the changes of each service, those that break callers first."""
    found = [
        (name, ContractChange("", "the service was removed", True))
        for name in sorted(old.keys() - new.keys())
    ]
    found += [
        (name, ContractChange("", "the service is new", False))
        for name in sorted(new.keys() - old.keys())
    ]
    for name in sorted(old.keys() & new.keys()):
        found += [(name, change) for change in compare.changes(old[name], new[name])]
    return sorted(found, key=lambda one: not one[1].breaking)

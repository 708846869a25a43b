"""The messages of a worker, in the dialect of its broker. The session decides when to send them."""

from __future__ import annotations

from math import inf
from typing import Final

from majordomus.errors import LocalProtocolError
from majordomus.protocol import mdp03, metadata, spec
from majordomus.protocol.spec import Frame

DISCONNECT: Final = mdp03.pack(spec.DISCONNECT)


def ready(
    service: bytes,
    capacity: int,
    weight: float = 1.0,
    attempts: int | None = None,
    contract: str = "",
) -> list[Frame]:
    """READY; without metadata where the weight is 1, the service is not durable and there is no
    contract. `attempts`: the limit of a durable service, 0 for the broker's; None for a service
    that is not durable."""
    values: dict[str, object] = {} if weight == 1.0 else {"weight": weight}
    if attempts is not None:
        values["durable"] = True
        if attempts:
            values["max_attempts"] = attempts
    if contract:
        values["contract"] = contract
    if not values:
        return [mdp03.pack(spec.READY, code=capacity, service=service)]
    field = metadata.pack(values)
    return [mdp03.pack(spec.READY, spec.METADATA, capacity, service=service, metadata=field)]


def heartbeat(load: float | None) -> list[Frame]:
    """HEARTBEAT; "`code` = load × 100 (0xFFFF = unknown)" (docs/spec/mdp-0.3.md)."""
    known = load is not None and 0 <= load < inf
    code = min(round(load * 100), spec.LOAD_UNKNOWN - 1) if load and known else 0
    return [mdp03.pack(spec.HEARTBEAT, code=code if known else spec.LOAD_UNKNOWN)]


def capacity(number: int) -> list[Frame]:
    """CAPACITY; 0 = drain."""
    return [mdp03.pack(spec.CAPACITY, code=number)]


def contract(service: bytes, hash: str, body: list[Frame]) -> list[Frame]:
    """CONTRACT; without a body for a hash that is not the service's."""
    field = metadata.pack({"contract": hash})
    return [mdp03.pack(spec.CONTRACT, spec.METADATA, service=service, metadata=field), *body]


def reject(id: int) -> list[Frame]:
    """REJECT."""
    return [mdp03.pack(spec.REJECT, id=id)]


def final_head(id: int, status: int, field: bytes) -> Frame:
    """The header of a FINAL with metadata. Raises: LocalProtocolError for a field out of range."""
    if not 0 < status <= 0xFFFF:
        raise LocalProtocolError("bad-status", str(status))
    return mdp03.pack(spec.FINAL, spec.METADATA, status, id, metadata=field)


def final(id: int, status: int, text: bytes) -> list[Frame]:
    """A FINAL whose body is a sentence."""
    return [mdp03.pack(spec.FINAL, code=status, id=id), text]


def legacy_body(status: int, frames: list[Frame], parts: list[Frame]) -> list[Frame]:
    """The body of a reply in a dialect without status: the parts so far and the rest; of what is
    not 200, the status as text and the sentence."""
    if status == spec.OK:
        return parts + frames if parts else frames
    return [str(status).encode(), frames[0] if frames else b""]

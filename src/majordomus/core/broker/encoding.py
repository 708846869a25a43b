"""What the broker says to a peer, in the peer's own dialect. Only wording: when it is said is
decided elsewhere."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from majordomus.core.broker.accel import arithmetic
from majordomus.core.broker.state.access_rules import shown_name
from majordomus.protocol import mdp03, metadata, octets, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect, Frame

if TYPE_CHECKING:
    from majordomus.core.broker.state.requests import AcceptedRequest
    from majordomus.core.broker.state.workers import RegisteredWorker
    from majordomus.core.broker.streams import StreamPart

MDP03, DELPHI = Dialect.MDP03, Dialect.DELPHI
WITHOUT_PARTS = (Dialect.MDP01, Dialect.DELPHI)

HEARTBEAT_03 = mdp03.pack(spec.HEARTBEAT)
DISCONNECT_03 = mdp03.pack(spec.DISCONNECT)
DRAIN_03 = mdp03.pack(spec.CAPACITY)
WRONG_VERSION_03 = mdp03.pack(
    spec.DISCONNECT,
    flags=spec.BROKER_METADATA,
    metadata=metadata.pack({"versions": [spec.MDP03_VERSION]}),
)

ROUNDING = 0.001
"""Milliseconds that a sum of floats may lack: 5 s are told as 5000 ms, not as 4999."""
PASSED_TO_WORKER = spec.METADATA | spec.ONCE | spec.ONE_WAY | spec.MORE
PASSED_TO_CLIENT = spec.METADATA
WITH_METADATA = spec.METADATA | spec.BROKER_METADATA


def welcome(peer_id: bytes, interval: float, facts: bytes) -> list[Frame]:
    """WELCOME; `facts` is the packed map that tells of the broker."""
    ttl = ceil(interval * 1000)
    return [
        mdp03.pack(spec.WELCOME, spec.BROKER_METADATA, ttl=ttl, address=peer_id, metadata=facts)
    ]


def heartbeat(dialect: Dialect) -> list[Frame]:
    """HEARTBEAT to a worker or, in MDP/0.3, to a client."""
    if dialect is MDP03:
        return [HEARTBEAT_03]
    return LEGACY[dialect].b2w_heartbeat()


def disconnect(dialect: Dialect, status: int = 0, text: str = "", service: str = "") -> list[Frame]:
    """DISCONNECT to a worker or, in MDP/0.3, to a client; there, with the reason if there is
    one, and the service that is refused."""
    if dialect is MDP03:
        if not status:
            return [DISCONNECT_03]
        told: dict[str, object] = {"status": status, "reason": text}
        if service:
            told["service"] = service
        reason = metadata.pack(told)
        return [mdp03.pack(spec.DISCONNECT, spec.BROKER_METADATA, metadata=reason)]
    return LEGACY[dialect].b2w_disconnect()


def handle_of(worker: RegisteredWorker, request: AcceptedRequest, number: int) -> bytes:
    """The address under which a legacy `worker` knows dispatch `number` of `request`.

    A Delphi client cannot correlate: to a Delphi worker its handle stands for the client
    (docs/spec/delphi.md).
    """
    if worker.dialect is DELPHI and request.dialect is DELPHI:
        return request.peer.own_handle
    return octets.eight(number)


def request_to(
    worker: RegisteredWorker,
    request: AcceptedRequest,
    now: float,
    joined: list[Frame] | None = None,
) -> list[Frame]:
    """REQUEST to `worker`, for the dispatch that `request` now has; `joined`: the whole of a
    stream, for a worker of an older dialect."""
    if worker.dialect is not MDP03:
        return LEGACY[worker.dialect].b2w_request(
            handle_of(worker, request, request.dispatch_id),
            request.body if joined is None else joined,
        )
    flags = request.flags & PASSED_TO_WORKER
    field = request.metadata
    peer, caller = request.peer, request.caller
    user = peer.user if caller is peer else caller.user
    if request.attempt > 1 or user:
        flags |= spec.BROKER_METADATA
        field = metadata.pack(_broker_metadata(request)) + field
    name, prefix = request.service.name, worker.peer.prefix
    left = arithmetic.whole((request.deadline - now) * 1000 + ROUNDING)
    header = octets.header(
        spec.REQUEST,
        flags,
        0,
        request.dispatch_id,
        left if left > 0 else 1,
        name if not prefix else shown_name(prefix, name),
        peer.handle,
    )
    if flags & WITH_METADATA:
        header += field
    body = request.body
    return [header, body[0]] if len(body) == 1 else [header, *body]


def _broker_metadata(request: AcceptedRequest) -> dict[str, object]:
    facts: dict[str, object] = {"attempt": request.attempt}
    if request.caller.user:
        facts["user"] = request.caller.user
    return facts


def cancel(request: AcceptedRequest) -> list[Frame]:
    """CANCEL to an MDP/0.3 worker, for the dispatch that `request` now has."""
    return [mdp03.pack(spec.CANCEL, id=request.dispatch_id)]


def credit(id: int, parts: int) -> list[Frame]:
    """CREDIT to either end."""
    return [mdp03.pack(spec.CREDIT, code=parts, id=id)]


def part_to(request: AcceptedRequest, part: StreamPart) -> list[Frame]:
    """PARTIAL of the client to the MDP/0.3 worker that has `request`."""
    flags = part.flags & spec.METADATA
    header = mdp03.pack(spec.PARTIAL, flags, id=request.dispatch_id, metadata=part.metadata)
    return [header, *part.body]


def final_to(request: AcceptedRequest, part: StreamPart) -> list[Frame]:
    """FINAL of the client to the MDP/0.3 worker that has `request`."""
    flags = part.flags & spec.METADATA
    header = mdp03.pack(spec.FINAL, flags, spec.OK, request.dispatch_id, metadata=part.metadata)
    return [header, *part.body]


def part(
    request: AcceptedRequest, frames: list[Frame], flags: int, metadata_field: bytes
) -> list[Frame]:
    """PARTIAL to the client of `request`."""
    if request.dialect is MDP03:
        header = mdp03.pack(
            spec.PARTIAL, flags & PASSED_TO_CLIENT, id=request.id, metadata=metadata_field
        )
        return [*request.envelope, header, *frames]
    own = LEGACY[request.dialect].b2c_partial(request.called, frames)
    return [*request.envelope, *own]


def final(
    request: AcceptedRequest,
    status: int,
    frames: list[Frame],
    worker_id: bytes = b"",
    flags: int = 0,
    metadata_field: bytes = b"",
) -> list[Frame]:
    """FINAL to an MDP/0.3 client of `request`. `frames` is only read."""
    header = _final_header(request, status, worker_id, flags, metadata_field)
    return [*request.envelope, header, *frames]


def final_from(
    request: AcceptedRequest,
    status: int,
    frames: list[Frame],
    worker_id: bytes,
    flags: int,
    metadata_field: bytes,
) -> list[Frame]:
    """FINAL to an MDP/0.3 client of `request`. The list `frames` is used up: it becomes the
    message."""
    header = _final_header(request, status, worker_id, flags, metadata_field)
    if request.envelope:
        return [*request.envelope, header, *frames]
    frames.insert(0, header)
    return frames


def _final_header(
    request: AcceptedRequest, status: int, worker_id: bytes, flags: int, metadata_field: bytes
) -> bytes:
    flags &= PASSED_TO_CLIENT
    header = octets.header(spec.FINAL, flags, status, request.id, 0, b"", worker_id)
    return header + metadata_field if flags else header


def legacy_final(request: AcceptedRequest, frames: list[Frame]) -> list[Frame]:
    """The one answer to a legacy client of `request`."""
    return [*request.envelope, *LEGACY[request.dialect].b2c_final(request.called, frames)]


def refusal(envelope: tuple[Frame, ...], id: int, status: int, text: str) -> list[Frame]:
    """FINAL to an MDP/0.3 peer for an id that never became a request."""
    return [*envelope, mdp03.pack(spec.FINAL, code=status, id=id), text.encode()]


def takes_parts(request: AcceptedRequest) -> bool:
    """Whether the client's dialect knows PARTIAL; if not, parts are joined into the one reply."""
    return request.dialect not in WITHOUT_PARTS

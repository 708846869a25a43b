"""Encodes every message of the broker, in the dialect of its peer.

Nothing is decided here but the layout: which message is sent, and when, is up to the caller.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from majordomus.core.broker.accel import arithmetic
from majordomus.core.broker.state.access_rules import shown_name
from majordomus.protocol import mdp03, metadata, octets, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect, Frame

if TYPE_CHECKING:
    from majordomus.core.broker.state.request_stream import StreamPart
    from majordomus.core.broker.state.requests import AcceptedRequest
    from majordomus.core.broker.state.workers import RegisteredWorker

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
"""Milliseconds that are added before a sum of floats is truncated: 5 s become 5000 ms, not 4999."""
PASSED_TO_WORKER = spec.METADATA | spec.ONCE | spec.ONE_WAY | spec.MORE
PASSED_TO_CLIENT = spec.METADATA
WITH_METADATA = spec.METADATA | spec.BROKER_METADATA


def welcome(peer_id: bytes, interval: float, facts: bytes) -> list[Frame]:
    """WELCOME. `facts` is the packed map that describes the broker; `interval` is in seconds."""
    ttl = ceil(interval * 1000)
    return [
        mdp03.pack(spec.WELCOME, spec.BROKER_METADATA, ttl=ttl, address=peer_id, metadata=facts)
    ]


def heartbeat(dialect: Dialect) -> list[Frame]:
    """HEARTBEAT to a worker or, in MDP/0.3, to a client."""
    if dialect is MDP03:
        return [HEARTBEAT_03]
    return LEGACY[dialect].b2w_heartbeat()


def contract(service: bytes, hash: str) -> list[Frame]:
    """CONTRACT: the question for the contract with this hash."""
    field = metadata.pack({"contract": hash})
    return [mdp03.pack(spec.CONTRACT, spec.METADATA, service=service, metadata=field)]


def disconnect(dialect: Dialect, status: int = 0, text: str = "", service: str = "") -> list[Frame]:
    """DISCONNECT to a worker or, in MDP/0.3, to a client.

    Status, text and the refused service are sent in MDP/0.3 alone, where there are any.
    """
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
    """The address by which a legacy `worker` answers dispatch `number` of `request`.

    It is printable: a worker may keep it as a C string or as text (docs/spec/mdp-0.1.md). For a
    Delphi client at a Delphi worker it is the client's handle: such a client cannot correlate
    replies, so all of its requests have one address (docs/spec/delphi.md).
    """
    if worker.dialect is DELPHI and request.dialect is DELPHI:
        return request.peer.own_handle
    return octets.digits(number)


def request_to(
    worker: RegisteredWorker,
    request: AcceptedRequest,
    now: float,
    joined: list[Frame] | None = None,
) -> list[Frame]:
    """REQUEST to `worker`, for the current dispatch of `request`.

    `joined`: the body and all parts of a stream, for a worker whose dialect has no parts.
    """
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
    header = octets.header(
        spec.REQUEST,
        flags,
        0,
        request.dispatch_id,
        _time_left(request, now),
        name if not prefix else shown_name(prefix, name),
        peer.handle,
    )
    if flags & WITH_METADATA:
        header += field
    message = request.message
    if message is None:
        return [header, *request.body]
    request.message = None
    request.kept = message[1] if len(message) == 2 else message[1:]
    message[0] = header
    return message


def request_again(
    request: AcceptedRequest, frames: list[Frame], dialect: Dialect, now: float
) -> list[Frame]:
    """The REQUEST `frames`, which has not left yet, with the time that is left now (rule 5)."""
    if dialect is not MDP03:
        return frames
    return [mdp03.with_ttl(frames[0], _time_left(request, now)), *frames[1:]]


def _time_left(request: AcceptedRequest, now: float) -> int:
    """Milliseconds until the deadline, at least 1."""
    left = arithmetic.whole((request.deadline - now) * 1000 + ROUNDING)
    return left if left > 0 else 1


def _broker_metadata(request: AcceptedRequest) -> dict[str, object]:
    """The broker's metadata of a REQUEST: the attempt, and the user if there is one."""
    facts: dict[str, object] = {"attempt": request.attempt}
    if request.caller.user:
        facts["user"] = request.caller.user
    return facts


def cancel(request: AcceptedRequest) -> list[Frame]:
    """CANCEL to an MDP/0.3 worker, for the current dispatch of `request`."""
    return [mdp03.pack(spec.CANCEL, id=request.dispatch_id)]


def credit(id: int, parts: int) -> list[Frame]:
    """CREDIT to a client or to a worker, for this many parts."""
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
    return final_from(request, status, [b"", *frames], worker_id, flags, metadata_field)


def final_from(
    request: AcceptedRequest,
    status: int,
    message: list[Frame],
    worker_id: bytes,
    flags: int,
    metadata_field: bytes,
) -> list[Frame]:
    """FINAL to an MDP/0.3 client of `request`. The list `message` becomes the message: its caller
    must not use it afterwards. The header takes the place of its first frame."""
    flags &= PASSED_TO_CLIENT
    header = octets.header(spec.FINAL, flags, status, request.id, 0, b"", worker_id)
    if flags:
        header += metadata_field
    message[0] = header
    return [*request.envelope, *message] if request.envelope else message


def legacy_final(request: AcceptedRequest, frames: list[Frame]) -> list[Frame]:
    """The reply to a legacy client of `request`."""
    return [*request.envelope, *LEGACY[request.dialect].b2c_final(request.called, frames)]


def refusal(envelope: tuple[Frame, ...], id: int, status: int, text: str) -> list[Frame]:
    """FINAL to an MDP/0.3 peer, for a message that is not accepted as a request."""
    return [*envelope, mdp03.pack(spec.FINAL, code=status, id=id), text.encode()]


def conversation_of(frames: list[Frame], command: int) -> int | None:
    """The id of the conversation of a REQUEST or a FINAL, by its header; None of other messages,
    and of those of other dialects."""
    if command not in (spec.REQUEST, spec.FINAL) or not octets.is_mdp03(frames[0]):
        return None
    return octets.fields(frames[0])[3] or None


def takes_parts(request: AcceptedRequest) -> bool:
    """Whether the client's dialect has PARTIAL; if not, parts are joined into the one reply."""
    return request.dialect not in WITHOUT_PARTS

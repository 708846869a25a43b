"""Encodings of typed calls: a client asks the broker once for the contract of a service, and uses
an encoding that both sides have.

    the client has             the service accepts        the body is sent as
    a Struct (MessagePack)     MessagePack or JSON        MessagePack, the client's default
    a Struct                   protocol buffers or JSON   JSON
    a record (protobuf)        MessagePack or JSON        JSON
    a Struct                   text                       not at all: BadRequest names both

A worker answers in the encoding of the request if its reply has it, else in the reply's default.
So the client also knows how to read the reply. A service without a contract, and a contract that
the broker does not have yet, leave every default as it is.

A contract is asked for again after a BadRequest: workers may have another one by now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from majordomus.errors import BadRequest, ConfigurationError, DeadlineExceeded
from majordomus.messages.bodies import (
    JSON,
    MSGPACK,
    PROTOBUF,
    encode_body,
    is_typed,
    plain_json,
    typed_body,
    types_of,
)
from majordomus.net.bodies import Reply

CONTRACT: Final = "mmi.contract"
"""The service of the broker that answers with the contracts of a service."""
MOST: Final = 1024
"""Services and plans that a client keeps."""
VALUES: Final = (bool, int, float, dict)
"""Classes of values that are a body where the reply is a value too; see `Value`."""
Value: TypeAlias = bool | int | float | Mapping[str, Any]
"""What the body of a call with `returns=` may be beside a `Body`."""
FRAMES: Final = "frames"
"""Stands for the default encoding of a reply that is a list[str]."""
_INTERNAL: Final = ("mmi.", "$")


class ServiceTypes(NamedTuple):
    """The encodings that a service accepts and returns, the default first; () is any."""

    takes: tuple[str, ...] = ()
    returns: tuple[str, ...] = ()


class CallPlan(NamedTuple):
    """How the calls of one service with one type of body and one type of reply are encoded.

    type: the encoding of the body; "" is the default of its type.
    plain: the body is a record, sent as the JSON that a Struct has: its integers are numbers.
    reply: the encoding of the reply; "" is the default of its type. That of list[str] is a frame
        for each text; a service may also return an array of text in one frame.
    lax: the reply is the JSON of protocol buffers, where 64-bit integers are text.
    """

    type: str = ""
    plain: bool = False
    reply: str = ""
    lax: bool = False

    def request(
        self, body: Any, metadata: Mapping[str, Any] | None
    ) -> tuple[Any, Mapping[str, Any] | None]:
        """Return the body and the metadata of a call. Raises: as `typed_body`."""
        if body.__class__ in VALUES:
            encoded = encode_body(body, self.type)
            return encoded.frames, {"type": encoded.type, **(metadata or {})}
        if not self.type:
            return body, metadata
        if self.plain:
            body = [plain_json(body)]
        elif body is not None:
            typed = typed_body(body, self.type)
            body = body if typed is None else typed.frames
        return body, {"type": self.type, **(metadata or {})}


DEFAULT: Final = CallPlan()
ANY_TYPES: Final = ServiceTypes()


def plan_of(
    service: str,
    known: ServiceTypes,
    sent: tuple[str, ...] | None,
    wanted: tuple[str, ...],
) -> CallPlan:
    """Choose the encodings of a call.

    `sent`, `wanted`: the encodings that the types of the body and of the reply have, the default
    first; () is raw bytes. `sent` is None for a call without a body.
    Raises: BadRequest when the client and the service have none in common.
    """
    takes, returns = known
    if sent is None:  # the encoding that a request without a body states is that of its reply
        offered = ["", *(one for one in returns if one in wanted)]
    elif not sent:
        reply = returns[0] if len(returns) == 1 and returns[0] in wanted else ""
        return CallPlan(reply=reply) if reply else DEFAULT
    else:
        offered = _in_common(sent, takes)
        if not offered:
            raise BadRequest(f"{service} takes {_listed(takes)}; this body can be {_listed(sent)}")
    for type_ in offered:
        reply = (type_ if type_ in returns else returns[0]) if returns else ""
        if not reply or not wanted or reply in wanted:
            return _made(known, type_, sent, reply, wanted)
    raise BadRequest(f"{service} returns {_listed(returns)}; the caller reads {_listed(wanted)}")


def _in_common(sent: tuple[str, ...], takes: tuple[str, ...]) -> list[str]:
    """The encodings that both sides have: the client's default first, then as the service does."""
    if not takes:
        return list(sent)
    common = [one for one in takes if one in sent]
    return sorted(common, key=lambda one: one != sent[0])


def _made(
    known: ServiceTypes,
    type_: str,
    sent: tuple[str, ...] | None,
    reply: str,
    wanted: tuple[str, ...],
) -> CallPlan:
    default = sent[0] if sent else ""
    changed = "" if type_ == default else type_
    plain = default == PROTOBUF and changed == JSON and MSGPACK in known.takes
    lax = reply == JSON and known.returns[:1] == (PROTOBUF,) and wanted[:1] == (MSGPACK,)
    if reply == (wanted or ("",))[0]:
        reply = ""
    made = CallPlan(changed, plain, reply, lax)
    return DEFAULT if made == DEFAULT else made


def _listed(types: tuple[str, ...]) -> str:
    return " or ".join(types)


class _Body(msgspec.Struct):
    types: tuple[str, ...] = ()


class _Contract(msgspec.Struct):
    request: _Body | None = None
    reply: _Body | None = None


class _StatedRow(msgspec.Struct):
    workers: int
    contract: _Contract | None = None


class _Answer(msgspec.Struct):
    contracts: list[_StatedRow]


_DECODER: Final = msgspec.json.Decoder(_Answer)


def read_types(frames: list[bytes]) -> ServiceTypes | None:
    """Return the encodings that all workers of a service have, from an answer of `mmi.contract`.

    None where the broker does not have the contracts of all workers yet, or no worker is there.
    """
    if len(frames) != 2 or frames[0] != b"200":
        return None
    try:
        rows = _DECODER.decode(frames[1]).contracts
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    found = [one.contract for one in sorted(rows, key=_workers) if one.contract is not None]
    if len(found) < len(rows):
        return None
    return ServiceTypes(
        _common([one.request for one in found]), _common([one.reply for one in found])
    )


def _workers(row: _StatedRow) -> int:
    return -row.workers


def _common(bodies: list[_Body | None]) -> tuple[str, ...]:
    """The encodings that all contracts have; those of the first one where there is none."""
    types = [one.types for one in bodies if one is not None and one.types]
    if not types:
        return ()
    return tuple(one for one in types[0] if all(one in other for other in types)) or types[0]


class Encodings:
    """What a client knows of the encodings of services.

    plans: by service, type of the body and type of the reply.
    asked: the questions of an asyncio client that are open, by service.
    """

    def __init__(self) -> None:
        self.plans: dict[Any, CallPlan] = {}
        self.asked: dict[str, asyncio.Future[ServiceTypes | DeadlineExceeded | None]] = {}
        self._known: dict[str, ServiceTypes] = {}

    def known(self, service: str) -> ServiceTypes | None:
        """Return the encodings of a service; None if the broker has to be asked."""
        return ANY_TYPES if service.startswith(_INTERNAL) else self._known.get(service)

    def note(self, service: str, frames: list[bytes]) -> ServiceTypes | None:
        """Keep an answer of `mmi.contract`."""
        found = read_types(frames)
        if found is not None:
            if len(self._known) >= MOST:
                self._known.clear()
            self._known[service] = found
        return found

    def forget(self, service: str) -> None:
        """Ask for the contract of a service again."""
        self._known.pop(service, None)
        self.plans.clear()

    def plan(
        self, service: str, known: ServiceTypes | None, takes: Any, returns: Any, key: Any
    ) -> CallPlan:
        """Choose the encodings for the annotations of a body and of a reply; `takes` is None for a
        call without a body. Keep the choice by `key` if the contract is known.

        Raises: BadRequest when the client and the service have none in common.
        """
        if known is None:
            return DEFAULT
        sent = None if takes in (None, type(None)) else _types(takes)
        wanted = _types(returns)
        if returns == list[str]:
            wanted = (FRAMES, *wanted) if known.returns else ()
        try:
            made = plan_of(service, known, sent, wanted)
        except BadRequest:
            self.forget(service)
            raise
        if len(self.plans) >= MOST:
            self.plans.clear()
        self.plans[key] = made
        return made


def _types(annotation: Any) -> tuple[str, ...]:
    if annotation in (None, type(None), Reply):
        return ()
    try:
        return types_of(annotation)
    except (ConfigurationError, TypeError):  # a value that is a body as it is
        return ()


def body_class(body: object) -> Any:
    """Return the annotation of a body by its value: bytes for one that is sent as it is."""
    if body is None:
        return None
    class_ = body.__class__
    return class_ if class_ in VALUES or is_typed(class_) else bytes


def name_of(service: str | bytes) -> str:
    """The name of a service as text."""
    return service if isinstance(service, str) else bytes(service).decode("utf-8", "replace")

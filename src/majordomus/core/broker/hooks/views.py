"""The views of requests, replies and clients that hooks read and change.

A view copies nothing before a hook reads it. The broker takes over only what a hook has changed.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableSequence
from math import inf
from typing import TYPE_CHECKING, Any, overload

from majordomus.core.broker.explain import name_of
from majordomus.core.broker.state.history import trace_of
from majordomus.errors import LocalProtocolError, class_name
from majordomus.protocol import metadata as packing
from majordomus.protocol import spec

if TYPE_CHECKING:
    from majordomus.core.broker.state.peers import Peer
    from majordomus.core.broker.state.requests import AcceptedRequest
    from majordomus.protocol.spec import Frame


class Frames(MutableSequence[bytes]):
    """The frames of a body, as a list of bytes that may be changed.

    items: the frames; not read and not copied unless a hook does so.
    changed: whether a hook has changed them.
    """

    __slots__ = ("changed", "items")

    def __init__(self, frames: Iterable[Frame]) -> None:
        self.items = list(frames)
        self.changed = False

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> bytes: ...

    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...

    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [bytes(frame) for frame in self.items[index]]
        return bytes(self.items[index])

    def __setitem__(self, index: Any, value: Any) -> None:
        self.items[index] = (
            [_frame(one) for one in value] if isinstance(index, slice) else _frame(value)
        )
        self.changed = True

    def __delitem__(self, index: int | slice) -> None:
        del self.items[index]
        self.changed = True

    def insert(self, index: int, value: bytes | str) -> None:
        self.items.insert(index, _frame(value))
        self.changed = True

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Iterable) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # mutable, as a list is

    def __repr__(self) -> str:
        return f"Frames({list(self)!r})"


def _frame(value: object) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise TypeError(f"a frame is bytes or str, not {type(value).__name__}")


def check_status(status: object) -> None:
    """Check a status that a hook has set. Raises: ValueError unless it is 1 to 65535."""
    if type(status) is not int or not 0 < status <= 0xFFFF:
        raise ValueError(f"a status is an int from 1 to 65535, not {status!r}")


def check_identity(user: object, groups: object) -> None:
    """Check a user and groups that a hook has set.

    Raises: TypeError for other types; ValueError for a user that is not valid Unicode.
    """
    if not isinstance(user, str):
        raise TypeError(f"a user is a str, not {user!r}")
    user.encode()  # a lone surrogate cannot be sent
    if not isinstance(groups, tuple | list) or not all(isinstance(one, str) for one in groups):
        raise TypeError(f"groups are a tuple of str, not {groups!r}")


class View:
    """A body and metadata that a hook may change."""

    __slots__ = ("_body", "_field", "_frames", "_metadata")

    def __init__(self, body: list[Frame], field: bytes) -> None:
        self._body, self._field = body, field
        self._frames: Frames | None = None
        self._metadata: dict[str, Any] | None = None

    @property
    def frames(self) -> Frames:
        """The body's frames. The broker sends on what a hook changes here."""
        if self._frames is None:
            self._frames = Frames(self._body)
        return self._frames

    @frames.setter
    def frames(self, frames: Iterable[bytes | str]) -> None:
        self._frames = Frames(_frame(one) for one in frames)
        self._frames.changed = True

    @property
    def body(self) -> bytes:
        """All frames joined, as a copy."""
        return b"".join(self._body if self._frames is None else self._frames.items)

    @property
    def text(self) -> str:
        """The body as UTF-8. Raises: UnicodeDecodeError."""
        return self.body.decode()

    @property
    def size(self) -> int:
        """The size of the body in bytes; reads and copies nothing."""
        return sum(map(len, self._body if self._frames is None else self._frames.items))

    @property
    def metadata(self) -> dict[str, Any]:
        """The sender's metadata. The broker sends on what a hook changes here."""
        if self._metadata is None:
            self._metadata = packing.unpack(self._field) if self._field else {}
        return self._metadata

    def final_body(self) -> list[Frame]:
        """The body's frames after the hook: the original list when the hook changed none."""
        frames = self._frames
        return self._body if frames is None or not frames.changed else frames.items

    def changed_metadata(self) -> bytes | None:
        """The packed metadata after the hook, without the token; None when it changed nothing.

        Raises: LocalProtocolError when they cannot be packed, whatever a method of a value raises.
        """
        changed = self._metadata
        if changed is None:
            return None
        try:
            if changed == (packing.unpack(self._field) if self._field else {}):
                return None
            kept = {key: value for key, value in changed.items() if key != "token"}
            return packing.pack(kept) if kept else b""
        except LocalProtocolError:
            raise
        except BaseException as error:
            text = f"a value raised {class_name(error)}"
            raise LocalProtocolError("bad-metadata", text) from None


class HookRequest(View):
    """A request, before it is queued or dispatched.

    service: the name that the client calls.
    client: the handle of the client, as `push` takes it.
    user, groups: the identity of the caller. A hook may set them.
    key: the CURVE public key of the client's connection; empty without CURVE.
    dialect: the value of a `Dialect`, such as ``mdp03``.
    deadline: when the request expires, in monotonic seconds.
    flags: the flags of the request's header.
    """

    __slots__ = (
        "_token",
        "client",
        "deadline",
        "dialect",
        "flags",
        "groups",
        "key",
        "service",
        "user",
    )

    def __init__(self, request: AcceptedRequest, field: bytes, token: str) -> None:
        super().__init__(request.body, field)
        self.key: str = request.peer.identity.key
        self.service = request.called.decode()
        self.client = request.peer.handle
        self.user: str = request.caller.user
        self.groups: tuple[str, ...] = request.caller.groups
        self.dialect = request.dialect.value
        self.deadline = request.deadline
        self.flags = request.flags
        self._token = token

    @property
    def token(self) -> str:
        """The token of the request, else of its client's HELLO. It has not been verified."""
        own = self.metadata.get("token", "") if self._field else ""
        return str(own) or self._token

    def check(self) -> None:
        """Check what a hook has set. Raises: TypeError, ValueError."""
        check_identity(self.user, self.groups)

    @property
    def once(self) -> bool:
        """Whether the request must never be executed twice (the flag ONCE)."""
        return bool(self.flags & spec.ONCE)

    @property
    def one_way(self) -> bool:
        """Whether the client expects no answer (the flag ONE_WAY)."""
        return bool(self.flags & spec.ONE_WAY)

    def __repr__(self) -> str:
        return f"HookRequest(service={self.service!r}, frames={len(self._body)})"


class HookReply(View):
    """A worker's answer, or one part of it, before it is sent to the client.

    service: the name that the client called.
    status: the status of the answer, 0 of a part. A hook may set it.
    worker: the routing id of the worker; empty when it is gone.
    client: the handle of the client.
    user, groups: the identity of the caller.
    key: the CURVE public key of the client's connection; empty without CURVE.
    seconds: the time since the request was accepted.
    """

    __slots__ = (
        "_original_status",
        "client",
        "groups",
        "key",
        "seconds",
        "service",
        "status",
        "user",
        "worker",
    )

    def __init__(
        self, request: AcceptedRequest, status: int, frames: list[Frame], field: bytes, now: float
    ) -> None:
        super().__init__(frames, field)
        self.service = request.called.decode()
        self.status = self._original_status = status
        self.worker = request.worker.id if request.worker else b""
        self.client = request.peer.handle
        self.user = request.caller.user
        self.groups = request.caller.groups
        self.key = request.peer.identity.key
        self.seconds = now - request.accepted

    def check(self) -> None:
        """Check what a hook has set. Raises: ValueError."""
        if self.status is not self._original_status:
            check_status(self.status)

    def __repr__(self) -> str:
        return f"HookReply(service={self.service!r}, status={self.status})"


class ClientInfo:
    """A client that has sent its first request, or a HELLO.

    id: the routing id of its connection.
    client: its handle, as `push` takes it.
    dialect: the value of a `Dialect`, such as ``mdp03``.
    present: whether it has sent HELLO.
    metadata: the metadata of that message.
    token: the token among the metadata; empty when there is none. It has not been verified.
    user, groups: its identity. A hook may set them.
    until: when an identity that a hook sets ends, in monotonic seconds; `inf` for never.
    key: the CURVE public key of its connection; empty without CURVE.
    """

    __slots__ = (
        "client",
        "dialect",
        "groups",
        "id",
        "key",
        "metadata",
        "present",
        "token",
        "until",
        "user",
    )

    def __init__(self, peer: Peer, values: dict[str, Any], present: bool) -> None:
        self.id = peer.id
        self.client = peer.handle
        self.dialect = peer.dialect.value
        self.present = present
        self.metadata = values
        self.token = str(values.get("token", ""))
        self.user = peer.user
        self.groups: tuple[str, ...] = peer.groups
        self.key = peer.identity.key
        self.until = inf

    def check(self) -> None:
        """Check what a hook has set. Raises: TypeError, ValueError."""
        check_identity(self.user, self.groups)
        if not isinstance(self.until, int | float):
            raise TypeError(f"until is a number of seconds, not {self.until!r}")

    def __repr__(self) -> str:
        return f"ClientInfo(client={self.client.hex()}, user={self.user!r})"


class Outcome:
    """How a request has ended.

    service: the name that the client called.
    served_as: the full name of the service that it was queued for.
    client: the handle of the client.
    user, groups: the identity of the caller.
    outcome: ``answered``, ``failed``, ``expired`` or ``cancelled``.
    status: the status that the client received; 0 when it received none.
    attempts: how many times the request was dispatched to a worker.
    worker: the routing id of the last worker; empty when there was none.
    accepted: when the broker accepted it, in monotonic seconds.
    id: what `majordomus explain` takes.
    trace: the `trace` of its metadata; empty without one.
    """

    __slots__ = (
        "_request",
        "accepted",
        "attempts",
        "client",
        "groups",
        "outcome",
        "served_as",
        "service",
        "status",
        "user",
        "worker",
    )

    def __init__(self, request: AcceptedRequest, status: int) -> None:
        self.service = request.called.decode()
        self.served_as = request.service.name.decode()
        self.client = request.peer.handle
        self.user = request.caller.user
        self.groups = request.caller.groups
        self.outcome = request.state.name.lower()
        self.status = status
        self.attempts = request.attempt
        self.worker = request.worker.id if request.worker else b""
        self.accepted = request.accepted
        self._request = request

    @property
    def id(self) -> str:
        return name_of(self._request)

    @property
    def trace(self) -> str:
        return trace_of(self._request) or ""

    def __repr__(self) -> str:
        return f"Outcome({self.service!r}, {self.outcome}, {self.status})"

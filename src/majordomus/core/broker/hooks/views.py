"""What hooks see of requests, replies and clients, and may change in them.

A view copies nothing until it is touched, and the rules take from it only what was changed.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableSequence
from math import inf
from typing import TYPE_CHECKING, Any, overload

from majordomus.protocol import metadata as packing
from majordomus.protocol import spec

if TYPE_CHECKING:
    from majordomus.core.broker.state.peers import Peer
    from majordomus.core.broker.state.requests import AcceptedRequest
    from majordomus.protocol.spec import Frame


class Frames(MutableSequence[bytes]):
    """The frames of a body. One that is only passed on is never read, and never copied."""

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

    __hash__ = None  # type: ignore[assignment]  # frames may be changed

    def __repr__(self) -> str:
        return f"Frames({list(self)!r})"


def _frame(value: object) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise TypeError(f"a frame is bytes or text, not {type(value).__name__}")


def check_status(status: object) -> None:
    """Raises: ValueError for what is no status."""
    if type(status) is not int or not 0 < status <= 0xFFFF:
        raise ValueError(f"a status is a number from 1 to 65535, not {status!r}")


def check_identity(user: object, groups: object) -> None:
    """Raises: TypeError, ValueError for what cannot stand for somebody."""
    if not isinstance(user, str):
        raise TypeError(f"a user is text, not {user!r}")
    user.encode()
    if not isinstance(groups, tuple | list) or not all(isinstance(one, str) for one in groups):
        raise TypeError(f"groups are a tuple of names, not {groups!r}")


class View:
    """A body and metadata that a hook may change."""

    __slots__ = ("_body", "_field", "_frames", "_metadata")

    def __init__(self, body: list[Frame], field: bytes) -> None:
        self._body, self._field = body, field
        self._frames: Frames | None = None
        self._metadata: dict[str, Any] | None = None

    @property
    def frames(self) -> Frames:
        """The body's frames; what is changed here, or set, is what goes on."""
        if self._frames is None:
            self._frames = Frames(self._body)
        return self._frames

    @frames.setter
    def frames(self, frames: Iterable[bytes | str]) -> None:
        self._frames = Frames(_frame(one) for one in frames)
        self._frames.changed = True

    @property
    def body(self) -> bytes:
        """All frames joined."""
        return b"".join(self._body if self._frames is None else self._frames.items)

    @property
    def text(self) -> str:
        """The body as UTF-8. Raises: UnicodeDecodeError."""
        return self.body.decode()

    @property
    def size(self) -> int:
        """Bytes of the body; nothing is read for that."""
        return sum(map(len, self._body if self._frames is None else self._frames.items))

    @property
    def metadata(self) -> dict[str, Any]:
        """What the sender said beside the body; what is changed here is what goes on."""
        if self._metadata is None:
            self._metadata = packing.unpack(self._field) if self._field else {}
        return self._metadata

    def body_to_go_on(self) -> list[Frame]:
        """The body's frames, as the hook has left them: the same list when it changed none."""
        frames = self._frames
        return self._body if frames is None or not frames.changed else frames.items

    def metadata_to_go_on(self) -> bytes | None:
        """The metadata packed anew; None when the hook changed nothing.

        Raises: LocalProtocolError for what cannot be packed.
        """
        changed = self._metadata
        if changed is None or changed == (packing.unpack(self._field) if self._field else {}):
            return None
        kept = {key: value for key, value in changed.items() if key != "token"}
        return packing.pack(kept) if kept else b""


class HookRequest(View):
    """A request, before any rule of queue and dispatch has seen it.

    ``service``: the name that the client calls. ``client``: the handle that `push` takes.
    ``dialect``: ``mdp03``, for instance. ``deadline``: monotonic seconds. ``user``, ``groups``: who
    asks; they may be set. ``key``: the CURVE key of its connection, empty when there is none.
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
        """What came with the request, else with the connection; nobody has looked at it yet."""
        own = self.metadata.get("token", "") if self._field else ""
        return str(own) or self._token

    def check(self) -> None:
        """Raises: TypeError, ValueError for what a hook has set and nobody can use."""
        check_identity(self.user, self.groups)

    @property
    def once(self) -> bool:
        """Whether it may never be executed twice."""
        return bool(self.flags & spec.ONCE)

    @property
    def one_way(self) -> bool:
        """Whether nobody waits for an answer."""
        return bool(self.flags & spec.ONE_WAY)

    def __repr__(self) -> str:
        return f"HookRequest(service={self.service!r}, frames={len(self._body)})"


class HookReply(View):
    """A worker's answer, or one part of it, before its client hears of it.

    ``service``: the name that the client called. ``worker``: the id of the worker. ``client``: the
    handle of the client, ``user``, ``groups`` and ``key`` its. ``seconds``: since the request was
    accepted.
    """

    __slots__ = (
        "_given",
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
        self.status = self._given = status
        self.worker = request.worker.id if request.worker else b""
        self.client = request.peer.handle
        self.user = request.caller.user
        self.groups = request.caller.groups
        self.key = request.peer.identity.key
        self.seconds = now - request.accepted

    def check(self) -> None:
        """As `HookRequest.check`."""
        if self.status is not self._given:
            check_status(self.status)

    def __repr__(self) -> str:
        return f"HookReply(service={self.service!r}, status={self.status})"


class ClientInfo:
    """A client that was heard for the first time, or that says HELLO.

    ``client``: the handle that `push` takes. ``present``: whether it said HELLO. ``metadata``: what
    it said with it. ``user``, ``groups``: who it is; they may be set, and hold ``until`` then, in
    monotonic seconds. ``key``: the CURVE key of its connection, empty when there is none.
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
        """As `HookRequest.check`."""
        check_identity(self.user, self.groups)
        if not isinstance(self.until, int | float):
            raise TypeError(f"until is a number of seconds, not {self.until!r}")

    def __repr__(self) -> str:
        return f"ClientInfo(client={self.client.hex()}, user={self.user!r})"


class Outcome:
    """What became of a request, told when it has ended, however that was.

    ``outcome``: answered, failed, expired or cancelled. ``status``: what its client was told, 0
    when it was told nothing. ``attempts``: how often a worker had it. ``service``: what the client
    called, ``served_as``: the name that it was queued for.
    """

    __slots__ = (
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
        """Monotonic seconds."""

    def __repr__(self) -> str:
        return f"Outcome({self.service!r}, {self.outcome}, {self.status})"

"""Bodies: what callers and handlers may send, and the `Reply` that a caller receives.

`to_frames` is the only conversion of a body to frames. A `Cut` stands for frames that a wire
dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self, TypeAlias, runtime_checkable

import msgspec

from majordomus.core.broker.hooks.actions import ReplyAction
from majordomus.core.broker.hooks.views import Frames
from majordomus.errors import LocalProtocolError
from majordomus.messages.bodies import typed_body
from majordomus.messages.message import Message
from majordomus.protocol import metadata as packing


@runtime_checkable
class HasFrames(Protocol):
    """An object with frames: a `Message`, a `Reply` or a `Request`."""

    @property
    def frames(self) -> Sequence[bytes]: ...


class HasBytes(Protocol):
    """A record (majordomus.messages)."""

    def to_bytes(self) -> bytes: ...


class HasSerialized(Protocol):
    """A protobuf message."""

    def SerializeToString(self) -> bytes: ...  # noqa: N802 - protobuf's name


class IsDataclass(Protocol):
    """A dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


class HasModel(Protocol):
    """A pydantic model."""

    def model_dump_json(self) -> str: ...


Part: TypeAlias = bytes | bytearray | memoryview | str
Typed: TypeAlias = HasBytes | HasSerialized | msgspec.Struct | IsDataclass | HasModel
Body: TypeAlias = Part | Sequence[Part] | Frames | HasFrames | Typed | None
"""None has no frames. Bytes, text (as UTF-8) and typed values are one frame. A list has one frame
for each of its parts.
"""


def to_frames(body: object) -> list[bytes]:
    """Return the frames of a `Body`.

    Every frame is plain bytes: of a subclass, a copy. Nothing further down checks it again.
    Raises: LocalProtocolError for a value of any other type, also within a list or a `Reply`, and
    for text that is not valid Unicode; what the body's own methods raise.
    """
    if body is None:
        return []
    if type(body) is bytes:
        return [body]
    if isinstance(body, str | bytes | bytearray | memoryview):
        return [_frame(body)]
    if isinstance(body, list | tuple):
        return checked(body)
    if isinstance(body, Message | Reply):
        return checked(body.frames)
    if isinstance(body, Frames):
        return [bytes(frame) for frame in body.items]
    typed = typed_body(body)
    if typed is not None:
        return checked(typed.frames)
    if isinstance(body, HasFrames):
        return checked(body.frames)
    raise _no_body(body)


def checked(parts: object) -> list[bytes]:
    """Return the frames of an object that holds them: its caller may have put anything there.

    Raises: as `to_frames`.
    """
    if isinstance(parts, str | bytes | bytearray | memoryview) or not isinstance(parts, Iterable):
        raise _no_body(parts)
    return [part if type(part) is bytes else _frame(part) for part in parts]


def _frame(part: object) -> bytes:
    if isinstance(part, str):
        try:
            return str.encode(part)
        except UnicodeEncodeError as error:
            raise LocalProtocolError("bad-body", f"text is not valid Unicode: {error}") from None
    if isinstance(part, bytes):
        return bytes.join(b"", (part,))  # a copy without what a subclass overrides
    if isinstance(part, bytearray | memoryview):
        return bytes(part)
    raise _no_body(part)


def _no_body(found: object) -> LocalProtocolError:
    wanted = "bytes, text, a list of them, a record, a Struct, a dataclass, a Message or None"
    return LocalProtocolError("bad-body", f"a body is {wanted}, not {type(found).__name__}")


class Reply(ReplyAction):
    """The reply to a call, or one part of a streamed reply.

    A handler may return one. A hook of the broker returns one to answer the request itself.

    frames: the frames of the body; the constructor takes a list of frames or any `Body`.
    status: the status code; 200 is success.
    worker: the id of the worker that answered, as `to=` takes it; empty when it is not known.
    """

    __slots__ = ("worker",)

    frames: list[bytes]

    def __init__(
        self,
        frames: Body = (),
        status: int = 200,
        worker: bytes = b"",
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Raises: LocalProtocolError for a body or metadata that cannot be sent."""
        self.frames = to_frames(frames)
        self.status = status
        self.worker = worker
        self._packed = packing.pack(metadata) if metadata else b""

    @property
    def metadata(self) -> dict[str, Any]:
        """A copy of what the handler sent beside the body, for example the content type.

        Raises: RemoteProtocolError when it is malformed.
        """
        packed = packing.packed_metadata(self)
        return packing.unpack(packed) if packed else {}

    @property
    def body(self) -> bytes:
        """The frames, joined."""
        frames = self.frames
        return frames[0] if len(frames) == 1 else b"".join(frames)

    @property
    def text(self) -> str:
        """The body as UTF-8. Raises: UnicodeDecodeError."""
        return self.body.decode()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Reply):
            return NotImplemented
        mine = (self.frames, self.status, self.worker, self.metadata)
        return mine == (other.frames, other.status, other.worker, other.metadata)

    __hash__ = None  # type: ignore[assignment]  # frames may be changed

    def __reduce__(self) -> tuple[object, ...]:
        """Compiled, a class is copied and pickled only by what it says here."""
        fields = self.frames, self.status, self.worker, packing.packed_metadata(self)
        return _restored, (type(self), *fields), getattr(self, "__dict__", None)

    def __repr__(self) -> str:
        shown = self.body if len(self.body) <= 40 else self.body[:40] + b"..."
        return f"Reply(status={self.status}, frames={len(self.frames)}, body={shown!r})"


def _restored(
    kind: type[Reply], frames: list[bytes], status: int, worker: bytes, packed: bytes
) -> Reply:
    """Make a reply that was copied or pickled."""
    reply = kind.__new__(kind)
    reply.frames, reply.status, reply.worker = frames, status, worker
    reply._packed = packed
    return reply


def reply_with(frames: list[bytes], packed: bytes, status: int = 200, worker: bytes = b"") -> Reply:
    """Return a reply with metadata that are packed already. `frames` are not checked."""
    reply = Reply(frames, status, worker)
    reply._packed = packed
    return reply


class Cut(bytes):
    """The last frame of a message from which a wire dropped frames that broke its bounds.

    It has no content. Its `len()` is the number of dropped bytes. So the rule that refuses any
    message that is too large refuses this one as well: it counts frames and adds up their lengths.
    """

    dropped: int

    def __new__(cls, dropped: int) -> Self:
        made = super().__new__(cls)
        made.dropped = dropped
        return made

    def __len__(self) -> int:
        return self.dropped

    def __repr__(self) -> str:
        return f"Cut({self.dropped})"

"""Message: a stack of frames. `push`, `pop` and `peek` work on the front frame.

A message owns its list of frames. Sending a message does not remove its frames. A pop that fails
changes nothing. A message is not thread-safe.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast, overload

from majordomus.errors import FrameError
from majordomus.messages import frame as frame_codec
from majordomus.messages.frame import NUMBERS, Frame

if TYPE_CHECKING:
    import zmq

__all__ = ["Message"]

E = TypeVar("E", bound=enum.Enum)
T = TypeVar("T")
Buffer = bytes | bytearray | memoryview

_MAX_LINES = 100  # how many frames `str` shows


def _to_bytes(value: Any) -> bytes:
    if type(value) is bytes:
        return value
    if isinstance(value, str | int):  # bytes(5) would be five zero bytes
        raise TypeError(
            f"a frame is bytes, not {type(value).__name__}: use push_{_push_suffix(value)}"
        )
    return bytes(memoryview(value))


def _push_suffix(value: object) -> str:
    return "str" if isinstance(value, str) else "int"


def _pusher(kind: str) -> Callable[[Message, float], None]:
    pack = NUMBERS[kind].pack

    def push(self: Message, value: float) -> None:
        try:
            self._frames.insert(0, pack(value))
        except (struct.error, OverflowError):
            frame_codec.from_number(kind, value)  # raises, with the reason
        self._taken = 0

    push.__name__ = push.__qualname__ = f"push_{kind}"
    push.__doc__ = f"Push a number to the front as one {NUMBERS[kind].size}-byte frame."
    return push


def _popper(kind: str) -> Callable[[Message], Any]:
    unpack = NUMBERS[kind].unpack

    def pop(self: Message) -> Any:
        try:
            (value,) = unpack(self._frames[0])
        except (struct.error, IndexError):
            raise self._unexpected(kind) from None
        del self._frames[0]
        self._taken += 1
        return value

    pop.__name__ = pop.__qualname__ = f"pop_{kind}"
    pop.__doc__ = f"Pop the front frame, of {NUMBERS[kind].size} bytes, as {kind}."
    return pop


def _peeker(kind: str) -> Callable[[Message], Any]:
    unpack = NUMBERS[kind].unpack

    def peek(self: Message) -> Any:
        try:
            return unpack(self._frames[0])[0]
        except (struct.error, IndexError):
            raise self._unexpected(kind) from None

    peek.__name__ = peek.__qualname__ = f"peek_{kind}"
    peek.__doc__ = f"Return the front frame, of {NUMBERS[kind].size} bytes, as {kind}."
    return peek


class Message:
    """A stack of frames, made from a list with the front frame first: `Message([b"a", b"b"])`.

    `pop_…` and `peek_…` raise FrameError for an empty message, a frame of the wrong size or invalid
    UTF-8. The error has the position of the frame, its size and the expected type.

    `_frames`: the frames, front first.
    `_taken`: how many frames were popped since the last push. Errors report it as the position.
    """

    __slots__ = ("_frames", "_taken")

    def __init__(self, frames: Iterable[Buffer] = ()) -> None:
        if type(frames) is not list and isinstance(frames, bytes | bytearray | memoryview | str):
            raise TypeError("a Message is made from a list of frames: Message([data])")
        self._frames: list[bytes] = [f if type(f) is bytes else _to_bytes(f) for f in frames]
        self._taken = 0

    @property
    def frames(self) -> list[bytes]:
        """The frames, front first. This is the message's own list, not a copy."""
        return self._frames

    @property
    def size(self) -> int:
        """The total size of all frames, in bytes."""
        return sum(map(len, self._frames))

    # -- frames as bytes

    def push(self, frame: Buffer) -> None:
        """Add a frame at the front."""
        self._frames.insert(0, frame if type(frame) is bytes else _to_bytes(frame))
        self._taken = 0

    def pop(self) -> bytes:
        """Remove and return the front frame. Raises FrameError when there is none."""
        if not self._frames:
            raise self._unexpected("a frame")
        self._taken += 1
        return self._frames.pop(0)

    def peek(self) -> bytes:
        """Return the front frame. Raises FrameError when there is none."""
        if not self._frames:
            raise self._unexpected("a frame")
        return self._frames[0]

    def append(self, frame: Buffer) -> None:
        """Add a frame at the end."""
        self._frames.append(frame if type(frame) is bytes else _to_bytes(frame))

    def append_str(self, text: str) -> None:
        """Add a frame of UTF-8 at the end."""
        self._frames.append(text.encode())

    def remove(self, index: int) -> bytes:
        """Remove and return the frame at `index`. Raises IndexError."""
        return self._frames.pop(index)

    def frame(self, index: int = 0) -> Frame:
        """Return the frame at `index` as a Frame. Raises IndexError."""
        return Frame(self._frames[index])

    def push_empty(self) -> None:
        """Push an empty frame, the delimiter of an envelope."""
        self.push(b"")

    def wrap(self, frame: Buffer) -> None:
        """Push an envelope: `frame` in front, followed by an empty frame."""
        self.push(b"")
        self.push(frame)

    def unwrap(self) -> bytes:
        """Pop and return the front frame; also pop the next frame if it is empty."""
        first = self.pop()
        if self._frames and not self._frames[0]:
            self.pop()
        return first

    # -- frames as values

    push_bytes, pop_bytes, peek_bytes = push, pop, peek

    def push_str(self, text: str) -> None:
        """Push a frame of UTF-8. Raises: TypeError for bytes; use `push`."""
        if not isinstance(text, str):
            raise TypeError(f"push_str takes text, not {type(text).__name__}; use push for bytes")
        self._frames.insert(0, text.encode())
        self._taken = 0

    def pop_str(self) -> str:
        """Pop the front frame as UTF-8."""
        text = self.peek_str()
        del self._frames[0]
        self._taken += 1
        return text

    def peek_str(self) -> str:
        """Return the front frame as UTF-8."""
        try:
            return self._frames[0].decode()
        except (UnicodeDecodeError, IndexError):
            raise self._unexpected("UTF-8") from None

    push_int8, pop_int8, peek_int8 = _pusher("int8"), _popper("int8"), _peeker("int8")
    push_int16, pop_int16, peek_int16 = _pusher("int16"), _popper("int16"), _peeker("int16")
    push_int32, pop_int32, peek_int32 = _pusher("int32"), _popper("int32"), _peeker("int32")
    push_int64, pop_int64, peek_int64 = _pusher("int64"), _popper("int64"), _peeker("int64")
    push_uint8, pop_uint8, peek_uint8 = _pusher("uint8"), _popper("uint8"), _peeker("uint8")
    push_uint16, pop_uint16, peek_uint16 = _pusher("uint16"), _popper("uint16"), _peeker("uint16")
    push_uint32, pop_uint32, peek_uint32 = _pusher("uint32"), _popper("uint32"), _peeker("uint32")
    push_uint64, pop_uint64, peek_uint64 = _pusher("uint64"), _popper("uint64"), _peeker("uint64")
    push_single, pop_single, peek_single = _pusher("single"), _popper("single"), _peeker("single")
    push_double, pop_double, peek_double = _pusher("double"), _popper("double"), _peeker("double")
    push_int, pop_int, peek_int = push_int32, pop_int32, peek_int32

    def push_enum(self, value: enum.Enum | int, size: int | None = None) -> None:
        """Push an ordinal in `size` bytes, by default the size of its enumeration: 1, 2 or 4."""
        self.push(frame_codec.from_enum(value, size))

    @overload
    def pop_enum(self, type_: type[E], size: int | None = None) -> E: ...
    @overload
    def pop_enum(self, type_: None = None, size: int | None = None) -> int: ...
    def pop_enum(self, type_: type[E] | None = None, size: int | None = None) -> E | int:
        """Pop the front frame as a member of `type_`, or as an unsigned integer of `size` bytes."""
        value = self._read(lambda data: frame_codec.to_enum(data, type_, size))
        self.pop()
        return value

    @overload
    def peek_enum(self, type_: type[E], size: int | None = None) -> E: ...
    @overload
    def peek_enum(self, type_: None = None, size: int | None = None) -> int: ...
    def peek_enum(self, type_: type[E] | None = None, size: int | None = None) -> E | int:
        """Return the front frame as `pop_enum` does."""
        return self._read(lambda data: frame_codec.to_enum(data, type_, size))

    def push_record(self, value: Any) -> None:
        """Push a record or a protobuf message in its binary form."""
        self.push(frame_codec.from_record(value))

    def pop_record(self, type_: type[T]) -> T:
        """Pop the front frame as `type_`, the class of a record or of a protobuf message."""
        value = self.peek_record(type_)
        self.pop()
        return value

    def peek_record(self, type_: type[T]) -> T:
        """Return the front frame as `type_`, the class of a record or of a protobuf message."""
        return self._read(lambda data: frame_codec.to_record(data, type_))

    # -- sockets

    def send(self, socket: zmq.Socket[Any], flags: int = 0, *, checksum: bool = False) -> Any:
        """Send all frames as one multipart message over `socket`. The message keeps its frames.

        `checksum` adds the closing hash that PascalZMQ's sockets expect. Await the result when
        `socket` is a zmq.asyncio socket.
        Raises: FrameError when there are no frames; zmq.ZMQError as pyzmq does.
        """
        if not self._frames:
            raise FrameError("a message without frames cannot be sent", expected="at least 1 frame")
        frames = self._frames
        if checksum:
            from majordomus.messages import checksum as hashing

            frames = hashing.add_hash(frames, routed=_routed(socket))
        return socket.send_multipart(frames, flags)

    @classmethod
    def receive(cls, socket: zmq.Socket[Any], flags: int = 0, *, checksum: bool = False) -> Self:
        """Receive the next message from `socket`; block until it arrives unless `flags` say not to.

        `checksum` verifies and removes the closing hash. When the hash is wrong, the message is
        dropped and FrameError is raised (PascalZMQ returns nil).
        """
        return cls._received(socket.recv_multipart(flags), socket, checksum)

    @classmethod
    async def receive_async(
        cls, socket: zmq.Socket[Any], flags: int = 0, *, checksum: bool = False
    ) -> Self:
        """Receive the next message from a zmq.asyncio socket, as `receive` does."""
        frames = await cast("Awaitable[list[bytes]]", socket.recv_multipart(flags))
        return cls._received(frames, socket, checksum)

    @classmethod
    def _received(cls, frames: list[bytes], socket: zmq.Socket[Any], checksum: bool) -> Self:
        if not checksum:
            return cls(frames)
        from majordomus.messages import checksum as hashing

        return cls(hashing.remove_hash(frames, routed=_routed(socket)))

    # -- a sequence of frames

    def clone(self) -> Self:
        """Return a message with its own list of the same frames. The immutable bytes are shared."""
        return type(self)(self._frames)

    __copy__ = clone

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._frames)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Message: ...
    def __getitem__(self, index: int | slice) -> bytes | Message:
        if isinstance(index, slice):
            return type(self)(self._frames[index])
        return self._frames[index]

    def __setitem__(self, index: int, frame: Buffer) -> None:
        self._frames[index] = _to_bytes(frame)

    def __delitem__(self, index: int) -> None:
        del self._frames[index]

    def __contains__(self, frame: object) -> bool:
        return frame in self._frames

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        return self._frames == other._frames

    __hash__ = None  # type: ignore[assignment]  # a message is mutable

    # -- display

    def hex(self) -> str:
        """Return all frames in hex, separated by spaces; an empty frame is `-`."""
        return " ".join(data.hex() or "-" for data in self._frames)

    def __repr__(self) -> str:
        shown = ", ".join(frame_codec.quote(data) or "∅" for data in self._frames[:8])
        more = ", …" if len(self._frames) > 8 else ""
        return f"<Message of {len(self._frames)} frames, {self.size} bytes: [{shown}{more}]>"

    def __str__(self) -> str:
        """One line per frame, in the format of CZMQ's `zmsg_print`: the size, then text or hex."""
        lines = [
            f"[{len(data):03d}] {frame_codec.quote(data, 70)}" for data in self._frames[:_MAX_LINES]
        ]
        if len(self._frames) > _MAX_LINES:
            lines.append(f"… and {len(self._frames) - _MAX_LINES} more frames")
        return "\n".join(["-" * 38, *(line.rstrip() for line in lines)])

    # -- errors

    def _read(self, read: Callable[[bytes], T]) -> T:
        """Call `read` with the front frame; add the position to a FrameError that it raises."""
        data = self.peek()
        try:
            return read(data)
        except FrameError as error:
            raise FrameError(
                f"frame {self._position}: {error}",
                position=self._position,
                size=error.size,
                expected=error.expected,
            ) from error

    def _unexpected(self, expected: str) -> FrameError:
        """The error for a front frame that is not `expected`: a key of NUMBERS or free text."""
        position = self._position
        if expected in NUMBERS:
            expected = f"{NUMBERS[expected].size} ({expected})"
        if not self._frames:
            text = f"frame {position}: the message has no more frames, expected {expected}"
            return FrameError(text, position=position, expected=expected)
        size = len(self._frames[0])
        text = f"frame {position}: {size} bytes, expected {expected}"
        return FrameError(text, position=position, size=size, expected=expected)

    @property
    def _position(self) -> int:
        return max(self._taken, 0)


def _routed(socket: zmq.Socket[Any]) -> bool:
    """Whether messages of `socket` begin with a routing id."""
    import zmq

    return socket.getsockopt(zmq.TYPE) == zmq.ROUTER

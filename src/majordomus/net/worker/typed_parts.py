"""The parts of a client's stream as values: what a handler gets whose argument is annotated with
`Iterator[User]`, or `AsyncIterator[User]` on the event loop.

The body of the request is the first of them, if it has any frame; so a plain call is a stream of
one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from majordomus.messages.bodies import Decoder
    from majordomus.net.bodies import Reply
    from majordomus.net.worker.request import Request


class TypedParts:
    """Iterates, with `for` or `async for`, over values. Raises BadRequest for a part that is
    none."""

    def __init__(self, request: Request, decode: Decoder, type: str) -> None:
        self._decode, self._type = decode, type
        self._first: Sequence[bytes] | None = request.frames or None
        self._parts = request.parts

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        first, self._first = self._first, None
        return self._value(next(self._parts).frames if first is None else first)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        first, self._first = self._first, None
        if first is not None:
            return self._value(first)
        part: Reply = await anext(self._parts)
        return self._value(part.frames)

    def _value(self, frames: Sequence[bytes]) -> Any:
        return self._decode(frames, self._type)

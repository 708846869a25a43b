"""Answers that are given later than the handler returns, from any thread.

The slot stays held until then. Handler and engine share a box: what is said before the handler has
returned waits in it, and what is said after goes to the engine at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from majordomus.errors import Cancelled, LocalProtocolError, TooManyRequests
from majordomus.net.bodies import Body, Reply, to_frames
from majordomus.protocol import spec

if TYPE_CHECKING:
    from majordomus.net.worker.request import Request

Said: TypeAlias = tuple[int, list[bytes]] | list[bytes]
"""The answer, status and frames, or a part of it."""

AHEAD: Final = 16
"""Parts that wait for a client's credit before `part` waits as well."""
DROPPED: Final = b"the handler promised an answer and dropped it"


class Box:
    """What was said and has not been collected. From any thread."""

    __slots__ = ("_lock", "_said", "_to", "ahead", "over")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: list[Said] = []
        self._to: Callable[[Said], None] | None = None
        self.over = False
        self.ahead = threading.Semaphore(AHEAD)

    def say(self, said: Said) -> bool:
        """False when the answer was given before."""
        with self._lock:
            if self.over:
                return False
            self.over = isinstance(said, tuple)
            to = self._to
            if to is None:
                self._said.append(said)
            elif self.over:
                self._to = None
        if to is not None:
            to(said)
        return True

    def open(self, to: Callable[[Said], None]) -> None:
        """The handler has returned: everything goes to the engine from now on."""
        with self._lock:
            said, self._said = self._said, []
            self._to = None if self.over else to
            for one in said:
                to(one)

    def void(self) -> None:
        """The handler failed: that is the answer."""
        with self._lock:
            self.over = True
            self._said.clear()


class DeferredReply:
    """The answer to one request, to be given with `reply` or `fail`, once, from any thread.

    One that is dropped without an answer is answered 500.
    """

    def __init__(self, request: Request, box: Box, loop_thread: int) -> None:
        self.request = request
        self._box = box
        self._loop_thread = loop_thread

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the answer any more. It is due all the same: it gives the slot
        back."""
        return self.request.cancelled

    def reply(self, body: Body = None) -> None:
        """The answer. Raises: LocalProtocolError for what is no body, and for a second one."""
        frames = to_frames(body)
        self._end(body.status if isinstance(body, Reply) else spec.OK, frames)

    def fail(self, status: int, text: str) -> None:
        """The answer, with a status that is not 200 and a sentence. Raises: as `reply`."""
        if status == spec.OK or not 0 < status <= 0xFFFF:
            raise LocalProtocolError("bad-status", f"a failure is not {status}")
        self._end(status, [text.encode()])

    def part(self, body: Body) -> None:
        """A part of the answer. In a thread it waits for a slow client.

        Raises: Cancelled when nobody waits for the answer any more; TooManyRequests on the event
        loop, where nothing may wait, when the client is too slow; LocalProtocolError as `reply`.
        """
        frames = to_frames(body)
        on_loop = threading.get_ident() == self._loop_thread
        if not self._box.ahead.acquire(blocking=not on_loop):
            raise TooManyRequests("the client reads more slowly than parts are sent")
        if self.request.cancelled:
            self._box.ahead.release()  # for the next one that looks
            raise Cancelled("nobody waits for the answer any more")
        self._say(frames)

    def _end(self, status: int, frames: list[bytes]) -> None:
        self._say((status, frames))

    def _say(self, said: Said) -> None:
        if not self._box.say(said):
            raise LocalProtocolError("answered", "this request was answered before")

    def __del__(self) -> None:
        box = getattr(self, "_box", None)
        if box is not None and not box.over:
            box.say((spec.HANDLER_FAILED, [DROPPED]))

"""Replies that are given after the handler has returned, from any thread.

The slot stays held until then. The handler and the engine share a `ReplyBox`: what is put in before
the handler has returned waits there, and what is put in afterwards goes to the engine at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from majordomus.errors import Cancelled, LocalProtocolError, TooManyRequests
from majordomus.net.bodies import Body, Reply, to_frames
from majordomus.protocol import spec

if TYPE_CHECKING:
    from majordomus.net.worker.outcomes import Outcome
    from majordomus.net.worker.request import Request

Output: TypeAlias = "Outcome | list[bytes]"
"""What an invocation sends: a part of its reply (frames), or its outcome (status and frames)."""

PARTS_AHEAD: Final = 16
"""Parts that wait for the client's credit before `DeferredReply.part` waits as well."""
DROPPED: Final = b"the handler called reply_later and dropped the reply unanswered"


class ReplyBox:
    """Outputs of one deferred reply, on their way to the engine. For any thread.

    answered: whether the outcome was put in; it is the last output
    parts_ahead: counts the parts that may still be put in before the sender has to wait
    """

    __slots__ = ("_deliver", "_lock", "_waiting", "answered", "parts_ahead")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Output] = []
        self._deliver: Callable[[Output], None] | None = None
        self.answered = False
        self.parts_ahead = threading.Semaphore(PARTS_AHEAD)

    def put(self, output: Output) -> bool:
        """Add an output. Return False, and drop it, when the outcome was put in before."""
        with self._lock:
            if self.answered:
                return False
            self.answered = isinstance(output, tuple)
            deliver = self._deliver
            if deliver is None:
                self._waiting.append(output)
            elif self.answered:
                self._deliver = None
        if deliver is not None:
            deliver(output)
        return True

    def connect(self, deliver: Callable[[Output], None]) -> None:
        """Deliver the outputs that wait and all later ones: the handler has returned."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
            self._deliver = None if self.answered else deliver
            for output in waiting:
                deliver(output)

    def discard(self) -> None:
        """Drop all outputs: the handler has failed, and its failure is the outcome."""
        with self._lock:
            self.answered = True
            self._waiting.clear()


class DeferredReply:
    """The reply to one request, to be given once with `reply` or `fail`, from any thread.

    A deferred reply that is dropped without an answer is answered with 500.

    request: the request to which this replies
    """

    def __init__(self, request: Request, box: ReplyBox, loop_thread: int) -> None:
        self.request = request
        self._box = box
        self._loop_thread = loop_thread

    @property
    def cancelled(self) -> bool:
        """Whether the caller no longer waits. A reply is due all the same: it frees the slot."""
        return self.request.cancelled

    def reply(self, body: Body = None) -> None:
        """Send the reply. Raises: LocalProtocolError for a value that is no body, and for a second
        reply."""
        frames = to_frames(body)
        self._put((body.status if isinstance(body, Reply) else spec.OK, frames))

    def fail(self, status: int, text: str) -> None:
        """Reply with a status other than 200 and a text. Raises: as `reply`."""
        if status == spec.OK or not 0 < status <= 0xFFFF:
            raise LocalProtocolError("bad-status", f"a failure is not {status}")
        self._put((status, [text.encode()]))

    def part(self, body: Body) -> None:
        """Send a part of the reply. In a thread, wait while the client is slow.

        Raises: Cancelled when the caller no longer waits; LocalProtocolError as `reply`;
        TooManyRequests on the event loop, which may not wait, when the client is too slow.
        """
        frames = to_frames(body)
        on_loop = threading.get_ident() == self._loop_thread
        if not self._box.parts_ahead.acquire(blocking=not on_loop):
            raise TooManyRequests("the client reads more slowly than parts are sent")
        if self.request.cancelled:
            self._box.parts_ahead.release()  # another thread may wait here: it has to end as well
            raise Cancelled("the caller no longer waits for the reply")
        self._put(frames)

    def _put(self, output: Output) -> None:
        if not self._box.put(output):
            raise LocalProtocolError("answered", "this request was answered before")

    def __del__(self) -> None:
        box = getattr(self, "_box", None)
        if box is not None and not box.answered:
            box.put((spec.HANDLER_FAILED, [DROPPED]))

"""Replies that are given after the handler has returned, from any thread.

The slot stays held until then. The handler and the engine share a `ReplyBox`: what is put in waits
there until the handler has returned; from then on the engine takes it out, on the event loop.

A dropped `DeferredReply` puts in its outcome from a finalizer, which may run wherever memory is
allocated, also within a method of the same box. So a box has no lock: it uses operations of lists
and deques that no other thread can interrupt.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

from majordomus.errors import Cancelled, LocalProtocolError, TooManyRequests
from majordomus.net.bodies import Body
from majordomus.net.connection.inline import step_until
from majordomus.net.worker import outcomes
from majordomus.protocol import spec

if TYPE_CHECKING:
    from majordomus.net.worker.request import Request

Output: TypeAlias = outcomes.Outcome | list[bytes]
"""What an invocation sends: a part of its reply (frames), or its outcome (status and frames)."""

PARTS_AHEAD: Final = 16
"""Parts that wait for the client's credit before `DeferredReply.part` waits as well."""
DROPPED: Final = b"the handler called reply_later and dropped the reply unanswered"


class ReplyBox:
    """Outputs of one deferred reply, on their way to the engine. For any thread and finalizer.

    parts_ahead: counts the parts that may still be put in before the sender has to wait
    on_outcome: called on the event loop with the outcome, when it is taken out; None for nothing
    """

    __slots__ = ("_notify", "_outputs", "_right_to_answer", "on_outcome", "parts_ahead")

    def __init__(self) -> None:
        self._outputs: deque[Output] = deque()
        self._notify: Callable[[], None] | None = None
        self.on_outcome: Callable[[outcomes.Outcome], object] | None = None
        self._right_to_answer = [True]  # taken once, with the outcome
        self.parts_ahead = threading.Semaphore(PARTS_AHEAD)

    @property
    def answered(self) -> bool:
        """Whether the outcome was put in; it is the last output."""
        return not self._right_to_answer

    def put(self, output: Output) -> bool:
        """Add an output. Return False, and drop it, when the outcome was put in before."""
        if isinstance(output, tuple):
            try:
                self._right_to_answer.pop()
            except IndexError:
                return False
        elif not self._right_to_answer:
            return False
        self._outputs.append(output)
        # Read after the append: `connect` sets it first and then has the outputs taken.
        notify = self._notify
        if notify is not None:
            notify()
        return True

    def connect(self, notify: Callable[[], None]) -> None:
        """Call `notify` now and after each later `put`: the handler has returned."""
        self._notify = notify
        notify()

    def take(self) -> Output | None:
        """Return the next output, None if there is none. On the event loop alone, so that the
        outputs keep their order."""
        try:
            output = self._outputs.popleft()
        except IndexError:
            return None
        if self.on_outcome is not None and isinstance(output, tuple):
            self.on_outcome(output)
        return output

    def discard(self) -> None:
        """Drop all outputs: the handler has failed, and its failure is the outcome."""
        self._right_to_answer.clear()
        self._outputs.clear()


def _on_a_loop() -> bool:
    """Whether an event loop runs in this thread, which may not wait then."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class DeferredReply:
    """The reply to one request, to be given once with `reply` or `fail`, from any thread.

    A deferred reply that is dropped without an answer is answered with 500.

    request: the request to which this replies
    """

    def __init__(self, request: Request, box: ReplyBox) -> None:
        self.request = request
        self._box = box

    @property
    def cancelled(self) -> bool:
        """Whether the caller no longer waits. A reply is due all the same: it frees the slot."""
        return self.request.cancelled

    def reply(self, body: Body = None) -> None:
        """Send the reply. Raises: LocalProtocolError for a value that is no body or has an invalid
        status, and for a second reply."""
        self._put(outcomes.checked_outcome(body))

    def fail(self, status: int, text: str) -> None:
        """Reply with a status other than 200 and a text. Raises: as `reply`."""
        self._put((outcomes.checked_failure(status), [outcomes.to_text(text)]))

    def part(self, body: Body) -> None:
        """Send a part of the reply. In a thread, wait while the client is slow.

        Raises: Cancelled when the caller no longer waits; LocalProtocolError as `reply`;
        TooManyRequests on the event loop, which may not wait, when the client is too slow.
        """
        frames = outcomes.part_of(body)
        on_loop = _on_a_loop()
        acquire = self._box.parts_ahead.acquire
        if not acquire(blocking=not on_loop) and not step_until(partial(acquire, blocking=False)):
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

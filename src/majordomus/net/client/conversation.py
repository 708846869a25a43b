"""Conversations: parts go both ways on one call.

`send` waits until the other side takes the part. So a slow reader slows down the sender, and what
waits in between is bounded. One thread (or task) may read while another one sends.
"""

from __future__ import annotations

from majordomus.errors import LocalProtocolError
from majordomus.net.bodies import Body, Reply, reply_with, to_frames
from majordomus.net.client.async_call_runner import AsyncCallRunner
from majordomus.net.client.call_runner import CallRunner
from majordomus.net.client.calls import ConversationCall, final
from majordomus.net.client.streams import AsyncStream, Stream
from majordomus.protocol import metadata as packing


class SendingSide:
    """The client's side of a conversation: what may be sent, and when. It does not wait.

    call: the call of the conversation.
    finished: whether `finish` was called: this side sends no more parts.
    """

    def __init__(self, call: ConversationCall) -> None:
        self.call = call
        self.finished = False

    def put(self, body: Body) -> None:
        """Queue a part.

        Raises: what the call has ended with; LocalProtocolError after its end or `finish`.
        """
        frames = to_frames(body)
        if self.call.ended():
            self._raise_end()
        if self.finished:
            raise LocalProtocolError("finished", "this side of the conversation is finished")
        self.call.sends.append(frames)

    def check_sent(self) -> None:
        """Check after the wait that the part was sent. Raises: what the call has ended with."""
        if self.call.ended() and self.call.sends:
            self.call.sends.clear()
            self._raise_end()

    def finish(self, body: Body) -> bool:
        """Queue the FINAL. Return False where there is nothing to send: it may be repeated."""
        if self.finished or self.call.ended():
            self.finished = True
            return False
        self.finished = True
        self.call.last = to_frames(body)
        return True

    def _raise_end(self) -> None:
        final(self.call)
        raise LocalProtocolError("ended", "the other side has ended this conversation")


def _joined(parts: list[Reply]) -> Reply:
    last = parts[-1] if parts else Reply()
    frames = [frame for part in parts for frame in part.frames]
    return reply_with(frames, packing.packed_metadata(last), last.status, last.worker)


class Conversation(Stream):
    """Send with `send`, read by iterating. `finish` ends this side; leaving the context ends both
    sides."""

    def __init__(self, runner: CallRunner, call: ConversationCall) -> None:
        self._side = SendingSide(call)
        super().__init__(runner, call)
        runner.flush_parts(call)

    def send(self, body: Body) -> None:
        """Send one part. Waits until the other side takes it.

        Raises: what the conversation has ended with; LocalProtocolError after its end or `finish`.
        """
        side = self._side
        side.put(body)
        self._runner.send_part(side.call)
        side.check_sent()

    def finish(self, body: Body = None) -> None:
        """End this side; `body`, if there is one, is its last part. The other side may go on.

        May be repeated.
        """
        if self._side.finish(body):
            self._runner.send_last(self._side.call)

    def result(self, body: Body = None) -> Reply:
        """Finish, wait for the end of the answer, and return its unread parts, joined."""
        self.finish(body)
        return _joined(list(self))


class AsyncConversation(AsyncStream):
    """Send with `send`, read with `async for`. `finish` ends this side; leaving the context ends
    both sides."""

    def __init__(self, runner: AsyncCallRunner, call: ConversationCall) -> None:
        self._side = SendingSide(call)
        super().__init__(runner, call)

    async def send(self, body: Body) -> None:
        """Send one part. Waits until the other side takes it.

        Raises: what the conversation has ended with; LocalProtocolError after its end or `finish`.
        """
        side = self._side
        side.put(body)
        await self._runner.send_part(side.call)
        side.check_sent()

    async def finish(self, body: Body = None) -> None:
        """End this side; `body`, if there is one, is its last part. The other side may go on.

        May be repeated.
        """
        if self._side.finish(body):
            self._runner.push(self._side.call)

    async def result(self, body: Body = None) -> Reply:
        """Finish, wait for the end of the answer, and return its unread parts, joined."""
        await self.finish(body)
        return _joined([part async for part in self])

"""Conversations as a client has them: parts go both ways on one call.

Sending waits for the other side to take parts, so a slow reader slows down who writes, and what
waits in between is bounded. One thread (or task) may read while another one sends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from majordomus.errors import LocalProtocolError
from majordomus.net.bodies import Body, Reply, to_frames
from majordomus.net.client.async_client import AsyncStream
from majordomus.net.client.calls import ConversationCall, final
from majordomus.net.client.client import Stream

if TYPE_CHECKING:
    from majordomus.net.client.async_client import AsyncClient
    from majordomus.net.client.client import Client


def _say(call: ConversationCall, frames: list[bytes], finished: bool) -> None:
    """Puts a part where the session takes it from. Raises: what the call has ended with."""
    if call.ended():
        final(call)
        raise LocalProtocolError("ended", "the other side has ended this conversation")
    if finished:
        raise LocalProtocolError("finished", "this side of the conversation is finished")
    call.sends.append(frames)


def _check_said(call: ConversationCall) -> None:
    """After a wait. Raises: what the call has ended with, if a part was not taken before."""
    if call.ended() and call.sends:
        call.sends.clear()
        final(call)
        raise LocalProtocolError("ended", "the other side has ended this conversation")


def _joined(parts: list[Reply]) -> Reply:
    last = parts[-1] if parts else Reply()
    frames = [frame for part in parts for frame in part.frames]
    return Reply(frames, last.status, last.worker)


class Conversation(Stream):
    """Send with `send`, read by iterating; `finish` ends this side, leaving the context both."""

    def __init__(self, client: Client, call: ConversationCall) -> None:
        self._talk = call
        self._finished = False
        super().__init__(client, call)
        self._let_go()

    def send(self, body: Body) -> None:
        """One part. Waits until the other side takes it.

        Raises: what the conversation has ended with; LocalProtocolError after its end or `finish`.
        """
        call, client = self._talk, self._client
        _say(call, to_frames(body), self._finished)
        client._wait(
            call,
            lambda: not call.sends or call.ended(),
            lambda now: client._calls.push(call),
        )
        self._let_go()
        _check_said(call)

    def finish(self, body: Body = None) -> None:
        """No more parts come from here; `body` is the last one, if there is one. The other side may
        go on. May be repeated."""
        call, client = self._talk, self._client
        if self._finished or call.ended():
            self._finished = True
            return
        self._finished = True
        call.last = to_frames(body)
        client._soon(lambda now: client._calls.push(call))
        self._let_go()

    def result(self, body: Body = None) -> Reply:
        """Finishes, and waits for the end of the answer: what was not read of it, joined."""
        self.finish(body)
        return _joined(list(self))

    def _let_go(self) -> None:
        """What was said leaves now, and does not wait here for the next word; if there is no
        connection yet, it is waited for."""
        call, streams = self._talk, self._client._session.streams
        if not call.ended() and streams.pending(call.id):
            self._client._soon(
                lambda now: None, lambda: call.ended() or not streams.pending(call.id)
            )


class AsyncConversation(AsyncStream):
    """Send with `send`, read with `async for`; `finish` ends this side, leaving the context
    both."""

    def __init__(self, client: AsyncClient, call: ConversationCall) -> None:
        super().__init__(client, call)
        self._talk = call
        self._finished = False

    async def send(self, body: Body) -> None:
        """One part. Waits until the other side takes it.

        Raises: what the conversation has ended with; LocalProtocolError after its end or `finish`.
        """
        call, client = self._talk, self._client
        _say(call, to_frames(body), self._finished)
        client._push(call)
        while call.sends and not call.ended():
            await client._news(call)
        _check_said(call)

    async def finish(self, body: Body = None) -> None:
        """No more parts come from here; `body` is the last one, if there is one. The other side may
        go on. May be repeated."""
        call = self._talk
        if self._finished or call.ended():
            self._finished = True
            return
        self._finished = True
        call.last = to_frames(body)
        self._client._push(call)

    async def result(self, body: Body = None) -> Reply:
        """Finishes, and waits for the end of the answer: what was not read of it, joined."""
        await self.finish(body)
        return _joined([part async for part in self])

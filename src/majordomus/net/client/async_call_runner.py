"""Runs the calls of an asyncio client on its event loop.

Everything that waits for a call in a task is here. All methods but `cancel_unreferenced` must be
called in the thread of the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from asyncio import _get_running_loop

from majordomus.core.client.session import ClientSession
from majordomus.errors import LocalProtocolError
from majordomus.net import forks
from majordomus.net.bodies import Reply
from majordomus.net.client.calls import (
    CallOptions,
    ConversationCall,
    PendingCall,
    PendingCalls,
    result,
)
from majordomus.net.client.driver import Command
from majordomus.net.client.waiter import Waiter, Wakeups
from majordomus.net.connection.async_link import AsyncSessionConnection
from majordomus.net.connection.credentials import Access, Refusal


class AsyncCallRunner:
    """Runs calls for tasks of one event loop. The first use opens the connection.

    session: the client's state machine.
    calls: its open calls.
    _wakeups: those of its loop, from the first use on.
    """

    _wakeups: Wakeups

    def __init__(self, session: ClientSession, access: Access) -> None:
        self.session = session
        self.calls = PendingCalls(session, access.urls, self._is_up, self._refusal, self._tried)
        self._access = access
        self._connection: AsyncSessionConnection | None = None
        self._usable: AsyncSessionConnection | None = None
        """The same connection, until the end: one check for both on the hot path."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._generation = forks.generation

    @property
    def ended(self) -> bool:
        """Whether the client is closed, or was never used."""
        return self._closed or self._connection is None

    @property
    def used(self) -> bool:
        """Whether the connection was opened."""
        return self._connection is not None

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop of the client; None before the first use."""
        return self._loop

    def connection(self) -> AsyncSessionConnection:
        """Return the connection; the first use opens it.

        Raises: LocalProtocolError after the end, and in another loop or process.
        """
        connection = self._usable
        if connection is not None and connection.loop is _get_running_loop():
            return connection  # in a child no loop runs, or another one
        return self._open()

    def start(self, call: PendingCall) -> Waiter | None:
        """Begin `call`. Return what to await, or None if the call has ended. Raises: as
        `connection`."""
        calls = self.calls
        return calls.launch(call, self.connection(), self._wakeups)

    async def call(self, options: CallOptions) -> Reply:
        """Make a call and return its reply. Raises: as `calls.result`."""
        call = PendingCall(options)
        waiter = self.start(call)
        if waiter is not None:
            try:
                await waiter
            except asyncio.CancelledError:
                self.abandon(call)
                raise
        return result(call)

    async def run(self, call: PendingCall) -> None:
        """Begin `call` and wait for its end."""
        self.begin(call)
        while call.outcome is None:
            await self.wait(call)

    async def wait(self, call: PendingCall) -> None:
        """Wait for the next change of `call`. A cancelled wait cancels the call."""
        waiter = self.connection().loop.create_future()
        call.wait_on(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            self.abandon(call)
            raise

    def begin(self, call: PendingCall) -> None:
        """Begin `call`. It is sent at the end of this turn of the loop."""
        connection = self.connection()
        self.calls.begin(call, call.began)
        connection.touch()

    def launch(self, call: PendingCall, begin: Command | None = None) -> None:
        """Begin `call`, by `begin` if it is given. `call.notify` reports each change."""
        connection = self.connection()
        if begin is None:
            self.calls.begin(call, time.monotonic())
        else:
            begin(time.monotonic())
        connection.touch()

    def post(self, command: Command) -> None:
        """Run `command` on the session. What it causes is sent at the end of this turn."""
        connection = self._connection or self.connection()
        command(time.monotonic())
        connection.touch()

    def receive_events(self) -> None:
        """Open the connection: from then on events are received at any time."""
        self.connection()

    def report_read(self, call: PendingCall, parts: int) -> None:
        """Report read parts: the session sends credit for others."""
        self.calls.was_read(call, parts)
        self.connection().touch()

    def push(self, call: ConversationCall) -> None:
        """Send the parts that wait in `call`, as far as there is credit."""
        connection = self.connection()
        self.calls.push(call)
        connection.touch()

    async def send_part(self, call: ConversationCall) -> None:
        """Send the parts that wait in `call`. Waits until they have credit, or the call ends."""
        self.push(call)
        while call.sends and not call.ended():
            await self.wait(call)

    def abandon(self, call: PendingCall) -> None:
        """Cancel `call` after the task that waited for it was cancelled."""
        call.wait_on(None)
        self.cancel(call)

    def cancel(self, call: PendingCall) -> None:
        """Cancel `call` at the broker. Has no effect after the end of the call or the client."""
        if self._connection is not None and not self._closed:
            self.calls.cancel(call, time.monotonic())
            self._connection.touch()

    def cancel_unreferenced(self, call: PendingCall) -> None:
        """Cancel `call` from a finalizer, which may run in any thread, and in the middle of the
        session's work. So the loop cancels it, later."""
        if self._connection is None or self._loop is None or self._closed:
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self.cancel, call)

    def close(self) -> bool:
        """End the session and close the connection.

        Returns whether there was a connection of this process to close. May be repeated.
        """
        if self._closed:
            return False
        self._closed = True
        self._usable = None
        if self._connection is None or forks.generation != self._generation:
            return False
        self.calls.close(time.monotonic())
        self._connection.flush()
        self._connection.close()
        return True

    def _is_up(self) -> bool:
        return self._connection is not None and self._connection.up

    def _refusal(self) -> Refusal | None:
        return self._connection.refusal if self._connection is not None else None

    def _tried(self) -> dict[str, str]:
        return self._connection.tried() if self._connection is not None else {}

    def _open(self) -> AsyncSessionConnection:
        """Open the connection. Raises: as `connection`."""
        if self._closed:
            raise LocalProtocolError("closed", "this client is closed")
        if self._connection is not None and forks.generation != self._generation:
            text = "this client belongs to the parent process; make a new one after a fork"
            raise LocalProtocolError("forked", text)
        if self._connection is not None:
            raise LocalProtocolError("other-loop", "this client belongs to another event loop")
        session, urls = self.session, self._access.urls
        if forks.generation != self._generation:
            session.renew_id()
        self._generation, self._loop = forks.generation, asyncio.get_running_loop()
        self._wakeups = Wakeups(self._loop)
        self._connection = AsyncSessionConnection(
            session,
            lambda: urls[session.endpoint],
            take=self.calls.take,
            broken=self._fail,
            loop=self._loop,
            access=self._access,
        )
        self._connection.open()
        self._usable = None if self._closed else self._connection
        return self._connection

    def _fail(self, error: Exception) -> None:
        self._closed = True
        self._usable = None
        self.calls.fail(error)


def start_call(runner: AsyncCallRunner, call: PendingCall) -> Waiter | None:
    """Do what `AsyncCallRunner.start` does: compiled, a function is called without a look-up."""
    return runner.start(call)

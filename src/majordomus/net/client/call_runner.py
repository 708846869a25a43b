"""Runs the calls of a sync client: in the calling thread while it holds the I/O, else by the
background thread.

Everything that waits for a call in a thread is here. Every method may be called from any thread.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import warnings
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from majordomus.core.client.session import ClientSession
from majordomus.errors import LocalProtocolError
from majordomus.net.bodies import Reply
from majordomus.net.client.calls import (
    CallOptions,
    ConversationCall,
    PendingCall,
    PendingCalls,
    make_start,
    result,
)
from majordomus.net.client.driver import Command, Driver
from majordomus.net.connection.credentials import Access
from majordomus.net.gate import Gate
from majordomus.protocol import spec
from majordomus.protocol.spec import Dialect

SENT_ONCE: Final = spec.ONCE | spec.ONE_WAY
"""Flags of requests that are not sent again when their connection ends."""


class CallLauncher(Protocol):
    """Starts and cancels the calls of one client without waiting for them.

    CallRunner and AsyncCallRunner are launchers; code that both clients share depends on this.
    """

    @property
    def calls(self) -> PendingCalls:
        """The calls of the client."""

    @property
    def ended(self) -> bool:
        """Whether the client is closed, or was never used."""

    def launch(self, call: PendingCall, begin: Command | None = None) -> None:
        """Begin `call`, by `begin` if it is given. `call.notify` reports each change."""

    def cancel(self, call: PendingCall) -> None:
        """Cancel `call` at the broker. Has no effect after its end."""

    def post(self, command: Command) -> None:
        """Run `command` on the session and send what it causes, without waiting."""

    def receive_events(self) -> None:
        """Make sure that events are received while no call waits."""


class CallRunner:
    """Runs calls for threads.

    session: the client's state machine.
    calls: its open calls.
    driver: drives the connection.
    """

    def __init__(self, session: ClientSession, access: Access) -> None:
        has_presence = session.settings.dialect is Dialect.MDP03

        def announce(now: float) -> None:
            """Announce presence to the broker: only a client with presence receives events."""
            if has_presence:
                session.set_presence(now)

        # The background thread keeps the driver alive. Nothing that the driver refers to may refer
        # to the runner, so that a client that was dropped is finalized.
        self.session = session
        self.calls = PendingCalls(
            session,
            access.urls,
            lambda: driver.up,
            lambda: driver.refusal,
            lambda: driver.tried(),  # noqa: PLW0108 - the driver is made below
        )
        self.driver = driver = Driver(
            session,
            lambda: access.urls[session.endpoint],
            take=self.calls.take,
            broken=self.calls.fail,
            finish=self.calls.close,
            announce=announce,
            forked=session.renew_id,
            repair=session.repair,
            access=access,
        )

    @property
    def ended(self) -> bool:
        """Whether the client is closed."""
        return self.driver.ended

    def call(self, options: CallOptions) -> Reply:
        """Make a call and return its reply. Raises: as `calls.result`."""
        call = PendingCall(options)
        self.run(call)
        return result(call)

    def run(self, call: PendingCall) -> None:
        """Begin `call` and wait for its end."""
        self.wait(call, call.ended, make_start(self.calls, call))

    def launch(self, call: PendingCall, begin: Command | None = None) -> None:
        """Begin `call` in the background thread, by `begin` if it is given.

        `call.notify` reports each change, in that thread.
        """
        self.receive_events()
        self.driver.post(begin or partial(self.calls.begin, call))

    def post(self, command: Command) -> None:
        """Leave `command` for the driver of the session. Raises: as `Driver.post`."""
        self.driver.post(command)

    def receive_events(self) -> None:
        """Start the background thread: from then on events are received at any time."""
        self.driver.start_background()

    def wait(
        self, call: PendingCall, done: Callable[[], bool], command: Command | None = None
    ) -> None:
        """Run `command` and wait until `done`, which only a change of `call` may make true.

        An interrupted wait cancels the call.
        """
        driver = self.driver
        try:
            if driver.drive(done, command, check=call.options.flags & SENT_ONCE != 0):
                if done():
                    return
                changed = _watch(call)
                with contextlib.suppress(LocalProtocolError):  # closed: that has ended the call
                    driver.start_background()  # the thread to which the I/O was handed off
            else:
                changed = _watch(call)
                if command is not None:
                    driver.post(command)
            while not done():
                changed.wait()
        except BaseException:
            call.unwatch(threading.get_ident())
            self.cancel(call)
            raise
        call.unwatch(threading.get_ident())

    def flush(self, command: Command, done: Callable[[], bool] = lambda: True) -> None:
        """Run `command` and send what it causes.

        `done`: what this thread waits for beside that, if it drives the session itself.
        """
        if not self.driver.drive(done, command, check=True):
            self.driver.post(command)

    def begin_stream(self, call: PendingCall) -> None:
        """Begin `call` and wait until it is sent, or has ended, if this thread drives."""
        self.flush(
            partial(self.calls.begin, call),
            lambda: call.ended() or self.session.has_left(call.id),
        )

    def report_read(self, call: PendingCall, parts: int) -> None:
        """Report read parts: the session sends credit for others."""
        self.flush(lambda _now: self.calls.was_read(call, parts))

    def send_part(self, call: ConversationCall) -> None:
        """Send the parts that wait in `call`. Waits until they have credit, or the call ends."""
        self.wait(call, lambda: not call.sends or call.ended(), lambda _now: self.calls.push(call))
        self.flush_parts(call)

    def send_last(self, call: ConversationCall) -> None:
        """Send the FINAL of this side of `call`, as soon as there is credit for its parts."""
        self.flush(lambda _now: self.calls.push(call))
        self.flush_parts(call)

    def flush_parts(self, call: ConversationCall) -> None:
        """Wait until the parts that have credit are sent. They must not wait for the next part,
        because nothing drives the session until then."""
        streams = self.session.streams
        if not call.ended() and streams.pending(call.id):
            self.flush(lambda _now: None, lambda: call.ended() or not streams.pending(call.id))

    def cancel(self, call: PendingCall) -> None:
        """Post the cancellation of `call`. It is sent with the next command at the latest."""
        if not call.ended() and not self.driver.ended:
            with contextlib.suppress(LocalProtocolError):  # closed meanwhile: that cancels as well
                self.driver.post(partial(self.calls.cancel, call))

    def cancel_and_flush(self, call: PendingCall) -> None:
        """Cancel `call` and send the cancellation, if this thread may drive the session."""
        if not call.ended() and not self.driver.ended:
            self.flush(partial(self.calls.cancel, call))

    def cancel_unreferenced(self, call: PendingCall) -> None:
        """Cancel `call` from a finalizer, which may run in the middle of a step of the session:
        then the owner of the I/O sends the cancellation. Where no thread owns it, it leaves now."""
        self.cancel(call)
        if not call.ended():
            self.driver.try_drive()

    def close(self) -> None:
        """Cancel every call and close the connection. May be repeated."""
        self.driver.end()

    def __del__(self) -> None:
        driver = getattr(self, "driver", None)  # unset where the constructor failed
        if driver is None or driver.ended or sys.is_finalizing():
            return
        driver.abandon()
        if driver.used:
            text = "a Client was dropped without close(): use it in `with`, or close it"
            warnings.warn(text, ResourceWarning, source=self, stacklevel=2)


def _watch(call: PendingCall) -> Gate:
    """Return a gate that every later change of `call` opens. Earlier changes do not."""
    gate = Gate()
    call.watch(gate.open, threading.get_ident())
    return gate


def run_call(runner: CallRunner, call: PendingCall) -> None:
    """Do what `CallRunner.run` does: compiled, a function is called without a look-up."""
    runner.run(call)

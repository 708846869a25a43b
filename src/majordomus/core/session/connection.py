"""One session's connection to a broker: how it opens and ends, and whether the broker is alive.

Both sessions have one. It depends neither on calls nor on dispatches. Rule 8 for clients and
workers lives here: a session whose process was paused waits one more interval before it declares
the broker silent.

An endpoint of several is tried for `connect_timeout` since its last byte. That time doubles with
each round in which no endpoint answered, so a path with a long round trip is found in the end.

A connection is suspect when a call's deadline has passed in silence. It is probed, and it has ended
when nothing has come `PROBE` seconds later.
"""

from __future__ import annotations

from enum import IntEnum
from math import inf
from typing import Any, Final

from majordomus.core.session.backoff import Rng, delay
from majordomus.core.session.home import Home
from majordomus.core.session.limits import AROUND, announced
from majordomus.core.session.transitions import CONNECTION, ConnectionState, TransitionRow
from majordomus.errors import RemoteProtocolError
from majordomus.protocol import metadata
from majordomus.protocol.mdp03 import Fields

SHORTEST_INTERVAL: Final = 0.01
"""The shortest interval of heartbeats in seconds, whatever a broker asks for."""
MOST_LIVENESS: Final = 1000
PAUSE: Final = 1.0
"""Seconds that a `tick` has to be late before the process counts as paused."""
LONGEST_TRY: Final = 10.0
"""Seconds for which one endpoint of several is tried at most, unless `connect_timeout` is more."""
PROBE: Final = 2.5
"""Seconds in which a broker has to answer a probe."""
QUIET: Final = 0.1
"""Seconds without a message after which a connection may be suspected."""

CONNECTING: Final = ConnectionState.CONNECTING
OPEN: Final = ConnectionState.OPEN
DRAINING: Final = ConnectionState.DRAINING
RESTING: Final = ConnectionState.RESTING
RENEWING: Final = ConnectionState.RENEWING
CLOSED: Final = ConnectionState.CLOSED

_TRANSITIONS: Final = {event: TransitionRow(CONNECTION, event) for event in CONNECTION}


class Change(IntEnum):
    """What happened to a connection. ENDED: the broker answers nothing that was in flight on it."""

    NOTHING = 0
    OPENED = 1
    ENDED = 2
    HEARTBEAT = 3
    """A HEARTBEAT is due, and the session has to send it."""


class Probe(IntEnum):
    """How a connection can be probed. PING: by the shell, with a PING of ZMTP. REQUEST: by the
    session, with a request that the broker itself answers."""

    NONE = 0
    PING = 1
    REQUEST = 2


class Connection:
    """The state of one session's connection, and its timers.

    Times are monotonic seconds.

    ``state``: see `ConnectionState`.
    ``endpoint``: index of the endpoint to connect to.
    ``order``: the endpoints in the order in which they are tried.
    ``home``: when the session returns to the first of them; None when it does not. Set by the
    session.
    ``interval``, ``liveness``: of heartbeats; the broker is lost after ``liveness`` silent
    intervals.
    ``received_at``, ``sent_at``: when the last message came and went; set by the session.
    ``due``: when `tick` is next needed.
    ``present``: heartbeats are exchanged, and silence of the broker ends the connection.
    ``max_message``, ``max_part``: bytes that the broker takes; 0 = unknown.
    ``max_received``: bytes of one message that this side takes; 0 = no bound.
    ``_max_received``: the same before a WELCOME.
    ``probe``: how the current connection can be probed; set by the shell before "connected".
    ``probe_wanted``: the shell has to send a PING now, and to reset this.
    ``_endpoints``: number of endpoints. ``_place``: the place of `endpoint` in `order`.
    ``_connect_timeout``: seconds for which one endpoint is tried at first. ``_within``: and now.
    ``_unanswered``, ``_unreached``: tries in a row that timed out, and that failed.
    ``_free``: connections that may end early before the next one has to wait.
    ``_first``, ``_most``: bounds of that wait, in seconds.
    ``_always``: a heartbeat is sent in every interval, also when another message was sent.
    ``_tried_since``: when the current try began. ``_opened_at``: when the connection opened.
    ``_failures``: connections in a row that ended early.
    ``_heartbeat_at``: when the next heartbeat is due.
    ``_silent_from``: before this time the broker is not declared silent.
    ``_probed_at``: when the last probe was sent. ``_probe_until``: when its answer is overdue.
    """

    def __init__(
        self,
        *,
        endpoints: int,
        connect_timeout: float,
        first: float,
        most: float,
        free: int,
        interval: float,
        liveness: int,
        always: bool,
        rng: Rng,
        max_received: int = 0,
    ) -> None:
        self.state = CONNECTING
        self.endpoint = 0
        self.order = list(range(endpoints))
        self.home: Home | None = None
        self.interval = interval
        self.liveness = liveness
        self.received_at = 0.0
        self.sent_at = 0.0
        self.due = 0.0 if connect_timeout < inf else inf
        self.present = False
        self.probe = Probe.NONE
        self.probe_wanted = False
        self.max_message = 0
        self.max_part = 0
        self.max_received = self._max_received = max_received
        self._endpoints = endpoints
        self._place = 0
        self._connect_timeout = self._within = connect_timeout
        self._unanswered = 0
        self._unreached = 0
        self._first = first
        self._most = most
        self._free = free
        self._always = always
        self._rng = rng
        self._tried_since = inf
        self._opened_at = 0.0
        self._failures = 0
        self._heartbeat_at = inf
        self._silent_from = 0.0
        self._probed_at = 0.0
        self._probe_until = inf

    @property
    def open(self) -> bool:
        """Whether something may be sent."""
        return self.state is OPEN or self.state is DRAINING

    @property
    def renew(self) -> bool:
        """Whether the shell is to close its socket and to open a new one to `endpoint`."""
        return self.state is RENEWING

    @property
    def waits_for_bytes(self) -> bool:
        """Whether the shell is to report bytes that came, by `progressed`, before each `tick`."""
        return self._probe_until < inf or (self.state is CONNECTING and self.due < inf)

    def step(self, event: str, now: float) -> Change:
        """Apply `event` to the state, and return what happened to the connection."""
        was_open = self.open
        before, self.state = self.state, _TRANSITIONS[event][self.state]
        if self.state is before:
            return Change.NOTHING
        if self.state is OPEN:
            self._open(now)
            return Change.OPENED
        if self.state is RESTING:
            self._rest(now)
        elif self.state is RENEWING:
            self._begin(now, elsewhere=event == "unanswered")
        elif self.state is not DRAINING:
            self.due = inf
        return Change.ENDED if was_open and not self.open else Change.NOTHING

    def repair(self, now: float) -> None:
        """Make a step that an exception has broken off come to its end: a rest is over at once."""
        if self.state is RESTING:
            self.due = now

    def arrange(self, order: list[int]) -> None:
        """Try the endpoints in this order. To be called before the first connection."""
        self.order = order
        self._place = 0
        self.endpoint = order[0]

    def go_home(self, now: float) -> Change:
        """End the connection, and open one to the first endpoint."""
        self._place = 0
        self.endpoint = self.order[0]
        return self.step("renew", now)

    def renewed(self) -> None:
        """Note that the shell was told of `renew`: its later reports are about the new socket."""
        self.state = _TRANSITIONS["renewed"][self.state]
        self.due = self._tried_since + self._within

    def begin_try(self, now: float) -> None:
        """Count the time of a try from now on: the shell has begun it."""
        if self.state is CONNECTING and self._tried_since < inf:
            self._tried_since = now
            self.due = now + self._within

    def unreached(self, now: float) -> bool:
        """Go to the next endpoint, because a try has failed: nothing listens there, or it refused
        the handshake.

        Returns whether the shell is to try that at once. After a failure of every endpoint in a row
        it waits.
        """
        if self.state is not CONNECTING or self._endpoints == 1:
            return False
        self._take_next()
        self.begin_try(now)
        self._unreached += 1
        return self._unreached % self._endpoints != 0

    def progressed(self, now: float) -> None:
        """Note that bytes came, even if they are no message yet."""
        self.received_at = now
        self.begin_try(now)

    def suspect(self, now: float) -> bool:
        """Probe the connection, because a call's deadline passed without an answer.

        Returns whether a probe has to be sent now: not after a message that came lately, and not
        while another probe is out.
        """
        if self.probe is Probe.NONE or not self.open or self._probe_until < inf:
            return False
        if now < self.received_at + QUIET:
            return False
        self._probed_at = now
        self._probe_until = now + PROBE
        self.probe_wanted = self.probe is Probe.PING
        self._plan()
        return True

    def begin_presence(self, now: float) -> None:
        """Exchange heartbeats from now on, and end the connection when the broker is silent."""
        self.present = True
        self.received_at = now
        self._heartbeat_at = now + self.interval
        self._plan()

    def end_presence(self) -> None:
        """End heartbeats; messages that were sent before may still have to leave."""
        self.present = False
        self.due = inf

    def announce(self, interval: float, liveness: int, now: float) -> None:
        """Take over the interval (seconds) and the liveness that the broker announced."""
        self.interval = interval
        self.liveness = liveness
        if self.present:
            self._heartbeat_at = min(self._heartbeat_at, now + interval)
            self._plan()

    def restart_silence(self, now: float) -> None:
        """Count the broker's silence from now on."""
        self.received_at = now
        self._plan()

    def tick(self, now: float) -> Change:
        """Do what is due at `now`. May be called again until nothing is due."""
        if now < self.due:
            return Change.NOTHING
        paused = now - self.due > PAUSE
        if self.state is CONNECTING:
            return self._still_connecting(paused, now)
        if self.state is RESTING:
            return self.step("rested", now)
        if now >= self._probe_until:
            self._probe_until = inf
            if self.received_at <= self._probed_at:
                return self.step("silent", now)
            self._plan()
        if not self.present:
            return Change.NOTHING
        if paused:
            self._silent_from = now + self.interval
        if now >= self._limit():
            return self.step("silent", now)
        if now < self._heartbeat_at:
            self._plan()
            return Change.NOTHING
        return self._heartbeat(now)

    def _still_connecting(self, paused: bool, now: float) -> Change:
        if paused or self._tried_since == inf:
            self._tried_since = now
        if now < self._tried_since + self._within:
            self.due = self._tried_since + self._within
            return Change.NOTHING
        self._unanswered += 1
        if self._endpoints > 1 and self._unanswered % self._endpoints == 0:
            self._within = self._bounded(2 * self._within)
        return self.step("unanswered", now)

    def _bounded(self, seconds: float) -> float:
        """Return `seconds` as a time for which an endpoint may be tried."""
        longest = max(self._connect_timeout, LONGEST_TRY)
        return max(self._connect_timeout, min(seconds, longest))

    def _heartbeat(self, now: float) -> Change:
        if not self._always and now < self.sent_at + self.interval:
            self._heartbeat_at = self.sent_at + self.interval
            self._plan()
            return Change.NOTHING
        self._heartbeat_at += self.interval
        if self._heartbeat_at <= now:
            self._heartbeat_at = now + self.interval
        self._plan()
        return Change.HEARTBEAT

    def _limit(self) -> float:
        return max(self.received_at + self.interval * self.liveness, self._silent_from)

    def _plan(self) -> None:
        if self.open:
            due = min(self._heartbeat_at, self._limit()) if self.present else inf
            self.due = min(due, self._probe_until)

    def _open(self, now: float) -> None:
        """Begin a connection. What it took to get it is what the next one may take."""
        self._within = self._bounded(2 * (now - self._tried_since))
        self._unanswered = self._unreached = 0
        self._opened_at = self.received_at = self.sent_at = now
        self.max_message = self.max_part = 0
        self.max_received = self._max_received
        self.present = False
        self.due = inf
        if self.home is not None:
            self.home.connected(now, here=self._place == 0)

    def _take_next(self) -> None:
        self._place = (self._place + 1) % self._endpoints
        self.endpoint = self.order[self._place]

    def _rest(self, now: float) -> None:
        """Choose the next endpoint after an end, and try it at once if this connection lasted."""
        self._take_next()
        self.present = False
        self._end_probe()
        if now - self._opened_at >= self._most:
            self._failures = 0
        wait = 0.0
        if self._failures >= self._free:
            wait = delay(self._first, self._most, self._failures - self._free, self._rng)
        self._failures += 1
        self.due = now + wait
        if not wait:
            self.step("rested", now)

    def _begin(self, now: float, *, elsewhere: bool) -> None:
        if elsewhere:
            self._take_next()
        self.present = False
        self._end_probe()
        self._tried_since = now
        self.due = inf

    def _end_probe(self) -> None:
        self.probe = Probe.NONE
        self.probe_wanted = False
        self._probe_until = inf


def take_welcome(connection: Connection, header: Fields, now: float) -> dict[str, Any]:
    """Return the metadata of a WELCOME, and give its interval and liveness to `connection`.

    Values that are missing or out of range change nothing.
    Raises: RemoteProtocolError for a WELCOME without presence, or metadata that cannot be read.
    """
    if not connection.present:
        raise RemoteProtocolError("wrong-direction", "a WELCOME without presence")
    ours, theirs = metadata.split(header.metadata, header.flags)
    values = {**theirs, **ours}
    named = values.get("liveness")
    liveness = connection.liveness
    if type(named) is int and 0 < named <= MOST_LIVENESS:
        liveness = named
    interval = max(header.ttl / 1000, SHORTEST_INTERVAL) if header.ttl else connection.interval
    connection.announce(interval, liveness, now)
    connection.max_message = announced(values, "max_message")
    connection.max_part = announced(values, "max_part")
    if connection.max_message:
        connection.max_received = min(connection.max_received, connection.max_message + AROUND)
    return values


def read_disconnect(header: Fields) -> tuple[int, str, str] | None:
    """Return the status and the text of a DISCONNECT, and the service that is refused, "" when it
    names none; None when it carries no reason."""
    try:
        ours, _ = metadata.split(header.metadata, header.flags)
    except RemoteProtocolError:
        return None
    status, text = ours.get("status"), ours.get("reason")
    if type(status) is not int or not isinstance(text, str):
        return None
    service = ours.get("service", "")
    return status, text, service if isinstance(service, str) else ""

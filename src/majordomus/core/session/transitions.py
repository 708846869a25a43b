"""The states of the two sessions, as tables: event → {state: next state}.

Both sessions have a connection, the client's has calls, the worker's has dispatches. A pair that is
not listed raises LocalProtocolError. Events that bytes of a peer or a monitor can cause are listed
for every state.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final, TypeVar

from majordomus.errors import LocalProtocolError

S = TypeVar("S", bound=IntEnum)


class ConnectionState(IntEnum):
    """State of a connection. RESTING: the connection is lost, and the next try has to wait.
    RENEWING: the shell has to replace its socket."""

    CONNECTING = 0
    OPEN = 1
    DRAINING = 2
    RESTING = 3
    RENEWING = 4
    CLOSED = 5


class CallState(IntEnum):
    """State of a call. WAITING: to be sent as soon as possible. RESTING: to be sent again after a
    random delay."""

    WAITING = 0
    SENT = 1
    STREAMING = 2
    RESTING = 3
    ENDED = 4


class DispatchState(IntEnum):
    """State of a dispatch. CANCELLED: the answer is not needed, but the slot is held until it is
    given."""

    HELD = 0
    STREAMING = 1
    CANCELLED = 2
    ENDED = 3


_CONNECTING, _OPEN, _DRAINING, _RESTING, _RENEWING, _CLOSED = ConnectionState

CONNECTION: Final[dict[str, dict[ConnectionState, ConnectionState]]] = {
    # From the socket's monitor. A second "connected" means that an end in between was not seen.
    "connected": {
        _CONNECTING: _OPEN,
        _OPEN: _RESTING,
        _DRAINING: _RESTING,
        _RESTING: _RESTING,
        _RENEWING: _RENEWING,
        _CLOSED: _CLOSED,
    },
    "lost": {
        _CONNECTING: _CONNECTING,
        _OPEN: _RESTING,
        _DRAINING: _RESTING,
        _RESTING: _RESTING,
        _RENEWING: _RENEWING,
        _CLOSED: _CLOSED,
    },
    # From the broker: DISCONNECT, CAPACITY 0.
    "disconnect": {
        _CONNECTING: _CONNECTING,
        _OPEN: _RESTING,
        _DRAINING: _RESTING,
        _RESTING: _RESTING,
        _RENEWING: _RENEWING,
        _CLOSED: _CLOSED,
    },
    "drain": {
        _CONNECTING: _CONNECTING,
        _OPEN: _DRAINING,
        _DRAINING: _DRAINING,
        _RESTING: _RESTING,
        _RENEWING: _RENEWING,
        _CLOSED: _CLOSED,
    },
    # From time.
    "silent": {_OPEN: _RESTING, _DRAINING: _RESTING},
    "unanswered": {_CONNECTING: _RENEWING},
    "rested": {_RESTING: _RENEWING},
    # From the session: to another endpoint, to the same one again, the socket is replaced, the end.
    "move": {_DRAINING: _RESTING},
    "renew": {_OPEN: _RENEWING},
    "renewed": {_RENEWING: _CONNECTING},
    "close": {
        _CONNECTING: _CLOSED,
        _OPEN: _CLOSED,
        _DRAINING: _CLOSED,
        _RESTING: _CLOSED,
        _RENEWING: _CLOSED,
        _CLOSED: _CLOSED,
    },
}

_WAITING, _SENT, _STREAMING, _PAUSING, _ENDED = CallState

CALL: Final[dict[str, dict[CallState, CallState]]] = {
    "send": {_WAITING: _SENT},
    "send one-way": {_WAITING: _ENDED},
    "refuse": {_SENT: _WAITING},
    "part": {_SENT: _STREAMING, _STREAMING: _STREAMING},
    "answer": {_SENT: _ENDED, _STREAMING: _ENDED},
    "put off": {_SENT: _PAUSING},
    "wake": {_PAUSING: _WAITING},
    "restart": {_SENT: _WAITING},
    "lose": {_SENT: _ENDED, _STREAMING: _ENDED},
    "expire": {_WAITING: _ENDED, _SENT: _ENDED, _STREAMING: _ENDED, _PAUSING: _ENDED},
    "cancel": {_WAITING: _ENDED, _SENT: _ENDED, _STREAMING: _ENDED, _PAUSING: _ENDED},
}

_HELD, _FLOWING, _CANCELLED, _DONE = DispatchState

DISPATCH: Final[dict[str, dict[DispatchState, DispatchState]]] = {
    "part": {_HELD: _FLOWING, _FLOWING: _FLOWING, _CANCELLED: _CANCELLED},
    "cancel": {_HELD: _CANCELLED, _FLOWING: _CANCELLED, _CANCELLED: _CANCELLED},
    "final": {_HELD: _DONE, _FLOWING: _DONE, _CANCELLED: _DONE},
    # "A REJECT proves that nothing ran": not after a part.
    "reject": {_HELD: _DONE, _CANCELLED: _DONE},
    "lose": {_HELD: _DONE, _FLOWING: _DONE, _CANCELLED: _DONE},
}


class TransitionRow(dict[S, S]):
    """One row of a table: the next state by state, for one event.

    Raises: LocalProtocolError for a state that is not listed.
    """

    __slots__ = ("_event",)

    def __init__(self, table: Mapping[str, Mapping[S, S]], event: str) -> None:
        super().__init__(table[event])
        self._event = event

    def __missing__(self, state: S) -> S:
        raise LocalProtocolError("unlisted-transition", f"{self._event} in {state.name}")

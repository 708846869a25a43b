"""The states of a request, a durable request, a worker and a peer, as tables:
event → {state: next state}.

Every transition lives here, and a pair that is not listed is an error.
The diagrams in docs/states.md are generated from these tables.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, TypeAlias

from majordomus.errors import LocalProtocolError


class RequestState(IntEnum):
    """HELD: accepted, and at the hooks. REPLIED: answered by its worker, and at the hooks again.
    STORED: it waits for the store, or for the outcome of a durable request."""

    HELD = 0
    QUEUED = 1
    DISPATCHED = 2
    STREAMING = 3
    ANSWERED = 4
    FAILED = 5
    EXPIRED = 6
    CANCELLED = 7
    REPLIED = 8
    STORED = 9

    __hash__ = int.__hash__  # the hash of Enum is a Python function: slow as a key


class DurableState(IntEnum):
    """STORING: its row is on its way to the store. ENDING: its outcome is."""

    STORING = 0
    WAITING = 1
    RUNNING = 2
    ENDING = 3
    ENDED = 4
    REFUSED = 5

    __hash__ = int.__hash__  # the hash of Enum is a Python function: slow as a key


class WorkerState(IntEnum):
    """SUSPECT: its connection has ended, but replies that it sent before may not have been
    received yet."""

    SERVING = 0
    DRAINING = 1
    SUSPECT = 2
    LOST = 3

    __hash__ = int.__hash__  # the hash of Enum is a Python function: slow as a key


class PeerState(IntEnum):
    """SEEN: it has sent a message. PRESENT: a client with presence, which has sent HELLO."""

    SEEN = 0
    PRESENT = 1
    FORGOTTEN = 2

    __hash__ = int.__hash__  # the hash of Enum is a Python function: slow as a key


HELD, QUEUED, DISPATCHED, STREAMING = (
    RequestState.HELD,
    RequestState.QUEUED,
    RequestState.DISPATCHED,
    RequestState.STREAMING,
)
ANSWERED, FAILED, EXPIRED, CANCELLED = (
    RequestState.ANSWERED,
    RequestState.FAILED,
    RequestState.EXPIRED,
    RequestState.CANCELLED,
)
REPLIED: Final = RequestState.REPLIED
STORED: Final = RequestState.STORED
OPEN: Final = frozenset((HELD, QUEUED, DISPATCHED, STREAMING, REPLIED, STORED))
AT_WORKER: Final = frozenset((DISPATCHED, STREAMING))

REQUEST: Final[dict[str, dict[RequestState, RequestState]]] = {
    "queue": {HELD: QUEUED, DISPATCHED: QUEUED},
    "dispatch": {HELD: DISPATCHED, QUEUED: DISPATCHED},
    "part": {DISPATCHED: STREAMING, STREAMING: STREAMING},
    "reply": {DISPATCHED: REPLIED, STREAMING: REPLIED},
    "store": {HELD: STORED, QUEUED: STORED},
    "answer": dict.fromkeys((HELD, DISPATCHED, STREAMING, REPLIED, STORED), ANSWERED),
    "fail": dict.fromkeys((HELD, QUEUED, DISPATCHED, STREAMING, REPLIED, STORED), FAILED),
    "expire": dict.fromkeys((HELD, QUEUED, DISPATCHED, STREAMING, REPLIED, STORED), EXPIRED),
    "cancel": dict.fromkeys((HELD, QUEUED, DISPATCHED, STREAMING, REPLIED, STORED), CANCELLED),
}

RequestSteps: TypeAlias = "tuple[RequestState | None, ...]"


def _steps(pairs: dict[RequestState, RequestState]) -> RequestSteps:
    return tuple(map(pairs.get, RequestState))


STEPS: Final[dict[str, RequestSteps]] = {event: _steps(pairs) for event, pairs in REQUEST.items()}
"""`REQUEST` by number: for each event, the next state of every state, or None."""


def event_of(steps: RequestSteps) -> str:
    """Return the event that has these steps."""
    return next(event for event, known in STEPS.items() if known is steps)


STORING, WAITING, RUNNING, ENDING = (
    DurableState.STORING,
    DurableState.WAITING,
    DurableState.RUNNING,
    DurableState.ENDING,
)
ENDED, REFUSED = DurableState.ENDED, DurableState.REFUSED

DURABLE: Final[dict[str, dict[DurableState, DurableState]]] = {
    "store": {STORING: WAITING},
    "refuse": {STORING: REFUSED},
    "run": {WAITING: RUNNING},
    "retry": {RUNNING: WAITING},
    "end": {WAITING: ENDING, RUNNING: ENDING},
    "stored": {ENDING: ENDED},
}

SERVING, DRAINING, SUSPECT, LOST = (
    WorkerState.SERVING,
    WorkerState.DRAINING,
    WorkerState.SUSPECT,
    WorkerState.LOST,
)

WORKER: Final[dict[str, dict[WorkerState, WorkerState]]] = {
    "capacity": {SERVING: SERVING, DRAINING: SERVING, SUSPECT: SUSPECT},
    "drain": {SERVING: DRAINING, DRAINING: DRAINING, SUSPECT: SUSPECT},
    "gone": {SERVING: SUSPECT, DRAINING: SUSPECT, SUSPECT: SUSPECT},
    "lose": {SERVING: LOST, DRAINING: LOST, SUSPECT: LOST},
}

SEEN, PRESENT, FORGOTTEN = PeerState.SEEN, PeerState.PRESENT, PeerState.FORGOTTEN

PEER: Final[dict[str, dict[PeerState, PeerState]]] = {
    "hello": {SEEN: PRESENT, PRESENT: PRESENT},
    "forget": {SEEN: FORGOTTEN, PRESENT: FORGOTTEN},
}


def unlisted(table: str, event: str, state: IntEnum) -> LocalProtocolError:
    """Return the error for a pair that its table does not list."""
    return LocalProtocolError("unlisted-transition", f"{table}: {event} in {state.name}")

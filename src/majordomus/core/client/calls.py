"""The open calls of a client, where each of them waits, and the events that report on them.

A call is in flight, or in exactly one of three places: refused by the socket (sent first), waiting,
or resting after a 429 or 503. The session decides which.
"""

from __future__ import annotations

from collections import OrderedDict
from math import inf
from typing import Final as Constant
from typing import NamedTuple

from majordomus.core.client.streams import ClientStream
from majordomus.core.session.timers import TimedItem, TimerQueue
from majordomus.core.session.transitions import CALL, CallState, TransitionRow
from majordomus.protocol import spec
from majordomus.protocol.spec import Frame

_REQUEST: Constant = spec.REQUEST
_WAITING: Constant = CallState.WAITING
TRANSITIONS: Constant = {event: TransitionRow(CALL, event) for event in CALL}


class Part(NamedTuple):
    """One PARTIAL of an open call. ``call``: its number. ``frames``: the body. ``metadata``: the
    packed map of the worker, checked; empty for none."""

    call: int
    frames: list[Frame]
    metadata: bytes = b""


class Final:
    """The end of a call.

    ``call``: its number. ``status``: of the FINAL, or of the session itself.
    ``frames``: the body; frame 0 is a sentence where the status is not 200.
    ``worker``: the routing id of the worker that answered, empty where none did.
    """

    __slots__ = ("call", "frames", "status", "worker")

    def __init__(self, call: int, status: int, frames: list[Frame], worker: bytes) -> None:
        self.call = call
        self.status = status
        self.frames = frames
        self.worker = worker

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Final):
            return NotImplemented
        mine = (self.call, self.status, self.frames, self.worker)
        return mine == (other.call, other.status, other.frames, other.worker)

    __hash__ = None  # type: ignore[assignment]  # frames may be changed

    def __repr__(self) -> str:
        return f"Final({self.call}, {self.status}, {self.frames}, {self.worker!r})"


class FinalWithMetadata(Final):
    """The end of a call whose FINAL carries metadata. ``metadata``: the packed map of the worker,
    checked."""

    __slots__ = ("metadata",)

    def __init__(
        self, call: int, status: int, frames: list[Frame], worker: bytes, metadata: bytes
    ) -> None:
        super().__init__(call, status, frames, worker)
        self.metadata = metadata

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, FinalWithMetadata) and self.metadata == other.metadata
        return same and Final.__eq__(self, other)

    __hash__ = None  # frames may be changed


def make_final(call: int, status: int, frames: list[Frame], worker: bytes) -> Final:
    """Make a `Final`. A compiled call by position builds no argument tuple; a class does."""
    made = Final.__new__(Final)
    made.call = call
    made.status = status
    made.frames = frames
    made.worker = worker
    return made


class Lost(NamedTuple):
    """The end of a call that was lost with its broker and may not be sent again."""

    call: int


class Call(TimedItem):
    """A call that is open, or a one-way message that has not left.

    ``number``: of the call in its session.
    ``tail``: in MDP/0.3 the header behind its fixed part, else the service's name.
    ``body``: frames, kept until the call ends.
    ``deadline``: monotonic seconds. ``timer_at``: when the session has to handle its timer.
    ``timer_place``: see `TimerQueue`.
    ``flags``: of the REQUEST. ``command``: REQUEST, or EVENT for a published event.
    ``restart``: it may be sent again. ``state``: see `CallState`.
    ``wire``: the id under which it is in flight, 0 = it is not.
    ``sends``: how often it was sent. ``tries``: how often a 429 or 503 put it off.
    ``last``: the last of these answers. ``wake``: until when it rests.
    ``stream``: its streams, None where it has none.
    """

    __slots__ = (
        "body",
        "command",
        "deadline",
        "flags",
        "last",
        "restart",
        "sends",
        "state",
        "stream",
        "tail",
        "tries",
        "wake",
        "wire",
    )

    def __init__(
        self,
        number: int,
        tail: bytes,
        body: list[Frame],
        deadline: float,
        flags: int,
        restart: bool,
        command: int = spec.REQUEST,
    ) -> None:
        self.fill(number, tail, body, deadline, flags, restart)
        self.command = command

    def fill(
        self,
        number: int,
        tail: bytes,
        body: list[Frame],
        deadline: float,
        flags: int,
        restart: bool,
    ) -> None:
        """Set the fields of a new call."""
        self.number = number
        self.tail = tail
        self.body = body
        self.deadline = deadline
        self.flags = flags
        self.restart = restart
        self.command = _REQUEST
        self.timer_at = self.wake = inf
        self.timer_place = -1
        self.state = _WAITING
        self.wire = self.sends = self.tries = 0
        self.last: Final | None = None
        self.stream: ClientStream | None = None


def make_call(
    number: int, tail: bytes, body: list[Frame], deadline: float, flags: int, restart: bool
) -> Call:
    """Make a `Call`, as `make_final` does, for the same reason."""
    made = Call.__new__(Call)
    made.fill(number, tail, body, deadline, flags, restart)
    return made


class Calls:
    """All open calls, and the places of those that are not in flight.

    ``open``: by number. ``timers``: their timers.
    ``aliases``: by the id of a second or later sending.
    ``refused``, ``waiting``, ``resting``: calls that are not in flight, by number.
    ``current``: the call in flight, in a dialect without correlation.
    """

    def __init__(self) -> None:
        self.open: dict[int, Call] = {}
        self.timers = TimerQueue(self.open)
        self.aliases: dict[int, Call] = {}
        self.refused: dict[int, Call] = {}
        self.waiting: OrderedDict[int, Call] = OrderedDict()
        self.resting: dict[int, Call] = {}
        self.current: Call | None = None

    @property
    def in_flight(self) -> int:
        """Number of calls that were sent and not answered."""
        return len(self.open) - len(self.refused) - len(self.waiting) - len(self.resting)

    @property
    def idle(self) -> bool:
        """Whether nothing is to be sent."""
        return not self.waiting and not self.refused

    def by_wire(self, id: int) -> Call | None:
        """The call that is in flight under `id`."""
        call = self.open.get(id)
        if call is None or call.wire != id:
            return self.aliases.get(id)
        return call

    def enter(self, call: Call) -> None:
        """Add a new call, which waits to be sent."""
        self.open[call.number] = self.waiting[call.number] = call
        self.timers.schedule(call, call.deadline)

    def reopen(self, call: Call) -> None:
        """The socket refused a one-way message, which had ended by being sent: it waits again,
        behind those that were refused before."""
        call.state = _WAITING
        call.sends = 0
        self.open[call.number] = self.refused[call.number] = call
        self.timers.schedule(call, call.deadline)

    def next(self) -> Call:
        """Take out the call that is to be sent next; there must be one."""
        if self.refused:
            self.waiting.update(self.refused)
            for number in reversed(self.refused):
                self.waiting.move_to_end(number, last=False)
            self.refused.clear()
        return self.waiting.popitem(last=False)[1]

    def mark_sent(self, call: Call, wire: int) -> None:
        """Note that a call taken out by `next` was sent under the id `wire`."""
        call.state = TRANSITIONS["send"][call.state]
        call.sends += 1
        call.wire = wire
        if wire != call.number:
            self.aliases[wire] = call

    def put_off(self, call: Call, last: Final, wake: float) -> None:
        """Let a call rest until `wake`, because its answer was `last`."""
        self._leave_flight(call, "put off")
        call.tries += 1
        call.last = last
        call.wake = wake
        self.resting[call.number] = call
        self.timers.schedule(call, wake)

    def wake(self, call: Call) -> None:
        """Let a call that has rested wait to be sent."""
        call.state = TRANSITIONS["wake"][call.state]
        call.wake = inf
        del self.resting[call.number]
        self.waiting[call.number] = call
        self.timers.schedule(call, call.deadline)

    def refuse(self, call: Call) -> None:
        """Let a call that the socket refused wait, behind those that were refused before."""
        self._leave_flight(call, "refuse")
        call.sends -= 1
        self.refused[call.number] = call
        self.timers.schedule(call, call.deadline)

    def restart(self, calls: list[Call]) -> None:
        """Let these calls be sent again, before all others."""
        for call in calls:
            self._leave_flight(call, "restart")
            self.timers.schedule(call, call.deadline)
        self.refused = {call.number: call for call in calls} | self.refused

    def repair(self) -> None:
        """Make the tables agree after an exception out of a signal handler has broken a step off.

        It may have been raised between any two lines. An ended call leaves all tables. A call that
        was taken out of its table waits to be sent again; one that was sent is in flight.
        """
        for number, call in list(self.open.items()):
            if call.state == CallState.ENDED:
                del self.open[number]
            elif self._is_parked(call):
                call.wire = 0
            elif call.state in (CallState.WAITING, CallState.RESTING):
                call.state = CallState.WAITING
                call.wire, call.wake = 0, inf
                self.refused[number] = call
            elif not call.wire:
                call.wire = number
        for table in (self.refused, self.waiting, self.resting):
            for number in [number for number in table if number not in self.open]:
                del table[number]
        for number in [number for number in self.resting if number in self.refused]:
            del self.resting[number]
        for wire, call in list(self.aliases.items()):
            if call.wire != wire or call.number not in self.open:
                del self.aliases[wire]
        if self.current is not None and self.current.number not in self.open:
            self.current = None
        self.timers.clear()
        for call in self.open.values():
            call.timer_at, call.timer_place = inf, -1
            self.timers.schedule(call, min(call.deadline, call.wake))

    def _is_parked(self, call: Call) -> bool:
        if call.number in self.resting:
            return call.state == CallState.RESTING
        return call.number in self.refused or call.number in self.waiting

    def end(self, call: Call, event: str) -> None:
        """Remove a call, wherever it waits."""
        parked = not call.wire
        self._leave_flight(call, event)
        number = call.number
        del self.open[number]
        self.timers.remove(call)
        if parked:
            self.refused.pop(number, None)
            self.waiting.pop(number, None)
            self.resting.pop(number, None)

    def _leave_flight(self, call: Call, event: str) -> None:
        call.state = TRANSITIONS[event][call.state]
        if call.wire != call.number:
            self.aliases.pop(call.wire, None)
        call.wire = 0
        if call is self.current:
            self.current = None

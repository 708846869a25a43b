"""A client's own order of its brokers, and its return to the first of them.

Clients that are given the same list would all use its first broker. So each has an order of its
own, by a hash of its id and of each broker's name: a broker that is added to the list or removed
from it changes the order of the others for no client.

The first broker of that order is the client's home. A client that is connected to another one has
its home probed in the background. Two probes, `settle` seconds apart, have to be answered: until
then the workers of a broker that has come back are connected again. The client then returns in a
moment without a call in flight. If none comes, new calls are held for a short time, so that those
in flight can end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import IntEnum
from math import inf
from typing import Final

from majordomus.core.session.backoff import Rng, delay
from majordomus.core.session.transitions import TransitionRow

FIRST_PROBE: Final = 1.0
LAST_PROBE: Final = 30.0
"""Bounds of the delay before a probe, in seconds; it grows with probes that were not answered, and
with returns that did not last."""
UNREPORTED: Final = 30.0
"""Seconds after which a probe without a report counts as not answered."""
LASTED: Final = 60.0
"""Seconds after which a return counts as a success."""
IDLE: Final = 0.1
"""Seconds without a message after which a client without calls in flight returns."""
FIRST_HOLD: Final = 5.0
LAST_HOLD: Final = 60.0
"""Seconds before calls are held, and the longest pause between two holds; the pauses double."""
HOLD: Final = 0.25
"""Seconds for which calls are held."""


class HomeState(IntEnum):
    """HERE: connected to the home, or to nothing yet. AWAY: the next probe has to wait. ASKING: the
    first probe is under way. SEEN: it was answered. CONFIRMING: the second one is under way. BACK:
    it was answered too, and the client returns. HOLDING: the same, and new calls are held."""

    HERE = 0
    AWAY = 1
    ASKING = 2
    SEEN = 3
    CONFIRMING = 4
    BACK = 5
    HOLDING = 6


_HERE, _AWAY, _ASKING, _SEEN, _CONFIRMING, _BACK, _HOLDING = HomeState

HOME: Final[dict[str, dict[HomeState, HomeState]]] = {
    "leave": {
        _HERE: _AWAY,
        _AWAY: _AWAY,
        _ASKING: _ASKING,
        _SEEN: _SEEN,
        _CONFIRMING: _CONFIRMING,
        _BACK: _BACK,
        _HOLDING: _BACK,
    },
    "arrive": dict.fromkeys(HomeState, _HERE),
    "probe": {_AWAY: _ASKING, _SEEN: _CONFIRMING},
    # A report may be late: of a probe before the client arrived, or before it was given up.
    "answer": {
        _HERE: _HERE,
        _AWAY: _AWAY,
        _ASKING: _SEEN,
        _SEEN: _SEEN,
        _CONFIRMING: _BACK,
        _BACK: _BACK,
        _HOLDING: _HOLDING,
    },
    "no answer": {
        _HERE: _HERE,
        _AWAY: _AWAY,
        _ASKING: _AWAY,
        _SEEN: _SEEN,
        _CONFIRMING: _AWAY,
        _BACK: _BACK,
        _HOLDING: _HOLDING,
    },
    "hold": {_BACK: _HOLDING},
    "go on": {_HOLDING: _BACK},
}
_TRANSITIONS: Final = {event: TransitionRow(HOME, event) for event in HOME}


class Home:
    """When a client returns to the first broker of its order. Times are monotonic seconds.

    ``state``: see `HomeState`. ``due``: when `tick` is next needed.
    ``wanted``: the shell has to probe the home now, to reset this, and to report by `answered`.
    ``_settle``: seconds between the two probes, at least.
    ``_failures``: probes in a row without an answer. ``_relapses``: returns in a row that did not
    last. ``_arrived_at``: when the client connected to its home. ``_pause``: before the next hold.
    """

    def __init__(self, settle: float, rng: Rng) -> None:
        self.state = _HERE
        self.due = inf
        self.wanted = False
        self._settle = settle
        self._rng = rng
        self._failures = 0
        self._relapses = 0
        self._arrived_at = -inf
        self._pause = FIRST_HOLD

    @property
    def away(self) -> bool:
        """Whether the client is connected to another broker."""
        return self.state is not _HERE

    @property
    def back(self) -> bool:
        """Whether the client is to return."""
        return self.state is _BACK or self.state is _HOLDING

    @property
    def holding(self) -> bool:
        """Whether new calls are held."""
        return self.state is _HOLDING

    def connected(self, now: float, *, here: bool) -> None:
        """Note a new connection: to the home, or (not `here`) to another broker."""
        before = self.state
        self._move("arrive" if here else "leave")
        if here:
            self._arrived_at = now
            self.due = inf
            self.wanted = False
        elif before is _HERE:
            lasted = now - self._arrived_at >= LASTED
            self._relapses = 0 if lasted else self._relapses + 1
            self._failures = 0
            self._plan_probe(now)
        elif before is _HOLDING:
            self._plan_hold(now)

    def answered(self, answer: bool, now: float) -> None:
        """Take the report of a probe."""
        before = self.state
        self._move("answer" if answer else "no answer")
        if self.state is before:
            return
        if self.state is _SEEN:
            self.due = now + self._settle * (1 + self._rng())  # not all clients at one time
        elif self.state is _BACK:
            self._failures = 0
            self._pause = FIRST_HOLD
            self._plan_hold(now)
        else:
            self._failures += 1
            self._plan_probe(now)

    def tick(self, now: float) -> None:
        """Do what is due at `now`."""
        if now < self.due:
            return
        if self.state is _AWAY or self.state is _SEEN:
            self._move("probe")
            self.wanted = True
            self.due = now + UNREPORTED
        elif self.state is _BACK:
            self._move("hold")
            self.due = now + HOLD
        elif self.state is _HOLDING:
            self._move("go on")
            self._pause = min(2 * self._pause, LAST_HOLD)
            self._plan_hold(now)
        else:
            self.wanted = False
            self.answered(False, now)

    def postpone(self, now: float) -> None:
        """Nothing is probed while there is no connection at all."""
        self.due = now + FIRST_PROBE

    def _plan_probe(self, now: float) -> None:
        self.due = now + delay(FIRST_PROBE, LAST_PROBE, self._failures + self._relapses, self._rng)

    def _plan_hold(self, now: float) -> None:
        self.due = now + self._pause

    def _move(self, event: str) -> None:
        self.state = _TRANSITIONS[event][self.state]


def order(id: bytes, names: Sequence[bytes]) -> list[int]:
    """Return the places of the brokers `names` in the order of the client `id`."""
    return sorted(range(len(names)), key=lambda n: (_hash(id, names[n]), n))


def _hash(id: bytes, name: bytes) -> bytes:
    return hashlib.blake2b(name, key=id, digest_size=8).digest()

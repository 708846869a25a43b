"""Lets majordomus read the virtual clock in the thread of a TestBroker.

The modules of majordomus read `time.monotonic`. While a TestBroker is open, these names refer to a
function that returns the virtual time in its thread, and the real time in every other one.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

_real: Final = time.monotonic
_clocks: dict[int, Callable[[], float]] = {}
_replaced: list[tuple[ModuleType, str, object]] = []


class _Time:
    """The module `time`, with another `monotonic`."""

    def __getattr__(self, name: str) -> Any:
        return _monotonic if name == "monotonic" else getattr(time, name)


def _monotonic() -> float:
    clock = _clocks.get(threading.get_ident())
    return _real() if clock is None else clock()


def use(clock: Callable[[], float]) -> None:
    """Let majordomus read `clock` in this thread from now on."""
    _clocks[threading.get_ident()] = clock
    proxy = _Time()
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] != "majordomus" or name == __name__:
            continue
        for attribute, replacement in (("monotonic", _monotonic), ("time", proxy)):
            found = getattr(module, "__dict__", {}).get(attribute)
            if found is _real or found is time:
                _replaced.append((module, attribute, found))
                setattr(module, attribute, replacement)


def use_here(clock: Callable[[], float]) -> None:
    """Let this thread read `clock`, too."""
    _clocks[threading.get_ident()] = clock


def leave_here() -> None:
    """Let this thread read the real clock again."""
    _clocks.pop(threading.get_ident(), None)


def stop() -> None:
    """Let this thread read the real clock again."""
    _clocks.pop(threading.get_ident(), None)
    if _clocks:
        return
    while _replaced:
        module, attribute, found = _replaced.pop()
        setattr(module, attribute, found)


def in_use() -> bool:
    """Whether this thread reads a virtual clock."""
    return threading.get_ident() in _clocks

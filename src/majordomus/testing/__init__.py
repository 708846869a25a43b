"""Tests of services without a network: a broker, workers and clients in one thread, on a virtual
clock.

    def test_a_note_is_put(test_broker):     # the fixture needs no configuration
        test_broker.add(notes.worker)
        reply = test_broker.client().call("notes.put", Note("milk"))
        test_broker.time.advance(30)

The rules, sessions and handlers are the real ones. Only the connections (net/connection/
memory_link.py) and the clock are replaced: see docs/testing.md.

broker: TestBroker, which joins them
memory: TestBroker with the virtual clock
real: TestBroker over a real broker
virtual_loop: the event loop with a virtual clock
clock: lets the shells of this thread read the virtual clock
listener: the broker's end of memory links, with its faults
recorder: the calls that a test can assert on
skipping: the error of a test that needs the virtual clock
plugin: the fixtures for pytest
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from majordomus.testing.broker import TestBroker
    from majordomus.testing.recorder import RecordedCall
    from majordomus.testing.skipping import NeedsVirtualClock

__all__ = ["NeedsVirtualClock", "RecordedCall", "TestBroker"]


def __getattr__(name: str) -> Any:
    """Import a public name at its first use: pytest loads the plugin in every run."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from majordomus.testing import broker, skipping

    return getattr(skipping if name == "NeedsVirtualClock" else broker, name)

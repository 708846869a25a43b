"""What a test with a real broker cannot do: it skips, and states why."""

from __future__ import annotations

import sys

from majordomus.errors import LocalProtocolError


class NeedsVirtualClock(LocalProtocolError):
    """The test uses what only the virtual clock has, and `real=True`."""

    def __init__(self, what: str) -> None:
        super().__init__("real", f"{what} needs the virtual clock: it is not there with real=True")


def needs_virtual_clock(what: str) -> NeedsVirtualClock:
    """Skip the test in pytest, and return the error for other programs."""
    pytest = sys.modules.get("pytest")
    error = NeedsVirtualClock(what)
    if pytest is not None:
        pytest.skip(error.detail)
    return error

"""A signal handler that raises in the middle of a step of the client's session: the sync client
runs its session in the caller's thread, where Python runs signal handlers between any two lines."""

from __future__ import annotations

import sys
from itertools import count
from types import FrameType
from typing import Any

import pytest

from majordomus.core.broker.state.registry import RULES
from majordomus.core.client.calls import Final
from majordomus.protocol import spec
from tests.core.session_harness import ClientScript

MOST_LINES = 5000


class Alarm(BaseException):
    pass


def at_line(wanted: int) -> Any:
    """Return a trace function that raises Alarm at the `wanted`-th line of the session's code."""
    seen = count(1)

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        if "majordomus/core/" not in frame.f_code.co_filename:
            return None
        if event == "line" and next(seen) == wanted:
            raise Alarm
        return trace

    return trace


def script_of(kind: str, script: ClientScript) -> None:
    """Calls that end in many ways."""
    if kind == "answered":
        first = script.call(b"x")
        script.final(first, b"answer")
    elif kind == "cancelled":
        script.cancel(script.call(b"x", flags=spec.ONCE))
    elif kind == "expired":
        script.call(b"x", ttl=0.5)
        script.pass_time(2.0)
    elif kind == "put off":
        script.final(script.call(b"x"), b"full", status=429)
        script.pass_time(1.0)
    else:
        script.call(b"x")
        script.full = True
        script.call(b"y")
        script.full = False
        script.cut()
        script.connect()


@pytest.mark.skipif(RULES == "compiled", reason="compiled rules have no lines to stop at")
@pytest.mark.parametrize("kind", ["answered", "cancelled", "expired", "put off", "restarted"])
def test_session_that_an_exception_has_broken_off_at_any_line_serves_the_next_call(
    kind: str,
) -> None:
    for line in range(1, MOST_LINES):
        script, complete, before = ClientScript(), False, sys.gettrace()
        script.connect()
        sys.settrace(at_line(line))
        try:
            script_of(kind, script)
            complete = True
        except Alarm:
            pass
        finally:
            sys.settrace(before)
        script.full = False
        script.session.repair(script.now)
        script.cut()
        script.pass_time(2.0)  # the delay before the next attempt
        script.connect()
        script.out()
        number = script.call(b"next")
        for name, fields, *_ in script.said():
            if name == "REQUEST":
                script.final(fields["id"], b"served")
        ends = [event for event in script.events() if isinstance(event, Final)]
        assert [end.frames for end in ends if end.call == number] == [[b"served"]], line
        script.close()
        assert script.session.open_calls == 0
        if complete:
            break
    assert 100 < line < MOST_LINES - 1

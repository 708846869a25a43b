"""Hooks that are not overridden cost nothing, to the instruction."""

from __future__ import annotations

import pytest

from majordomus.core.broker.state.registry import RULES
from majordomus.net.broker.hooks import HookPoints
from tests.core.hooks_cost import Forwarding, instructions


@pytest.mark.skipif(RULES == "compiled", reason="counts instructions of Python")
def test_hooks_that_are_not_overridden_cost_no_instruction() -> None:
    without = instructions()
    assert instructions(HookPoints(), HookPoints()) == without
    assert instructions(Forwarding()) > without + 100

"""What hooks cost a request, in bytecode instructions: counted, so the same in every run.

python -m tests.core.hooks_cost
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

from majordomus.net.broker.hook_thread import HookThread
from majordomus.net.broker.hooks import Faults, HookChain, HookPoints
from majordomus.protocol import mdp03, spec
from tests.core.broker_harness import BrokerHarness

REQUESTS = 100


class Forwarding(HookPoints):
    """The least that a hook can do."""

    def on_request(self, request: Any) -> None: ...

    def on_reply(self, reply: Any) -> None: ...


def instructions(*hooks: object) -> float:
    """Of the machine and its hooks, for one request and its answer: the mean of a hundred. The one
    before them is not counted: of code that is traced for the first time CPython 3.12 and 3.13 do
    not tell everything."""
    harness = BrokerHarness()
    chain = HookChain(hooks, lambda job: None, HookThread(), Faults())
    harness.machine.use(None if chain.empty else chain)
    harness.worker(b"w", capacity=10)
    harness.request(b"c", 1)
    ((_, n),) = harness.dispatched()
    harness.answer(b"w", n)
    counted = 0

    def count(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal counted
        if "/majordomus/" not in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes = True
        counted += event == "opcode"
        return count

    for id in range(2, 3 + REQUESTS):
        if id == 3:
            counted = 0
        request = mdp03.pack(spec.REQUEST, id=id, service=b"echo")
        sys.settrace(count)
        try:
            harness.machine.receive(b"c", [request, b"x"], harness.now)
            (number,) = harness.machine.registry.workers[b"w"].held
        finally:
            sys.settrace(None)
        answer = mdp03.pack(spec.FINAL, id=number, code=200)
        sys.settrace(count)
        try:
            harness.machine.receive(b"w", [answer, b"x"], harness.now)
        finally:
            sys.settrace(None)
        harness.turn()
        harness.sent()
    return counted / REQUESTS


def main() -> None:
    print(f"{instructions():>8.1f}  without hooks")
    print(f"{instructions(HookPoints()):>8.1f}  hooks that are not overridden")
    print(f"{instructions(Forwarding()):>8.1f}  on_request and on_reply that forward")


if __name__ == "__main__":
    main()

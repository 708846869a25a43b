"""The native pump. What its methods mean stands in pump.py."""

import zmq

from majordomus.net.zmq.pump import Moved

class Pump:
    def __init__(self, source: zmq.Socket[bytes], target: zmq.Socket[bytes]) -> None: ...
    def move(self, most: int) -> Moved: ...

class Mover:
    def __init__(
        self, waker: int, control: zmq.Socket[bytes] | None, forth: Pump, back: Pump | None
    ) -> None: ...
    def run(self, paused: bool) -> tuple[bool, bool]: ...

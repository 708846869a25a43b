"""The receivers of events: nothing that a finalizer does within the table can block it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from majordomus.core.session.events import EventReceived
from majordomus.net.events import Event, Hub


class Reentrant:
    """A receiver whose pattern is read by `Hub`, and which uses the hub at that moment, as the
    finalizer of a dropped stream may."""

    def __init__(self, action: Callable[[], object]) -> None:
        self.action: Callable[[], object] | None = action
        self.got: list[str] = []

    @property
    def pattern(self) -> bytes:
        action, self.action = self.action, None
        if action is not None:
            action()
        return b""

    def put(self, event: Event) -> None:
        self.got.append(event.text)

    def end(self, error: Exception | None) -> None: ...


def test_event_that_comes_while_the_hub_is_used_by_the_same_thread_is_distributed() -> None:
    hub = Hub()
    event = EventReceived(b"topic", [b"x"], b"")
    receivers = [Reentrant(lambda: hub.put(event)) for _ in range(3)]

    def scene() -> None:
        for receiver in receivers:
            hub.add(receiver)
        hub.put(event)
        hub.of(b"")
        hub.remove(receivers[0])
        hub.close()

    thread = threading.Thread(target=scene, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert all("x" in receiver.got for receiver in receivers)

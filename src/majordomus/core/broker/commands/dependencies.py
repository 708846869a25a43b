"""The dependencies of the command handlers: the parts of one broker machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from majordomus.core.broker.admission import Admission
    from majordomus.core.broker.dispatch import Dispatcher
    from majordomus.core.broker.outgoing import Outgoing
    from majordomus.core.broker.presence import Presence
    from majordomus.core.broker.pubsub import PubSub
    from majordomus.core.broker.registration import Registration
    from majordomus.core.broker.state.registry import Registry


class Dependencies(NamedTuple):
    """The parts of a machine that command handlers call.

    registry: peers, services, workers, settings and counters.
    outgoing: sends to peers.
    dispatcher: queues, dispatches and ends requests.
    presence: WELCOME, silence and the loss of peers.
    admission: checks and accepts new requests.
    registration: registers workers for services.
    events: pushes, topics and sessions.
    """

    registry: Registry
    outgoing: Outgoing
    dispatcher: Dispatcher
    presence: Presence
    admission: Admission
    registration: Registration
    events: PubSub


class Commands:
    """The base of the command handlers. They have no state of their own.

    Fields: those of `Dependencies`, and `settings`, which the machine replaces when it is
    reconfigured.
    """

    def __init__(self, dependencies: Dependencies) -> None:
        self.registry = dependencies.registry
        self.settings = dependencies.registry.settings
        self.outgoing = dependencies.outgoing
        self.dispatcher = dependencies.dispatcher
        self.presence = dependencies.presence
        self.admission = dependencies.admission
        self.registration = dependencies.registration
        self.events = dependencies.events

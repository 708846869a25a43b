"""The dependencies of the command handlers: the parts of one broker machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from majordomus.core.broker.admission import Admission
    from majordomus.core.broker.authorization import Authorization
    from majordomus.core.broker.completion import Completion
    from majordomus.core.broker.dispatch import Dispatcher
    from majordomus.core.broker.hooks.installed import InstalledHooks
    from majordomus.core.broker.outgoing import Outgoing
    from majordomus.core.broker.presence import Presence
    from majordomus.core.broker.pubsub import PubSub
    from majordomus.core.broker.queueing import Queueing
    from majordomus.core.broker.registration import Registration
    from majordomus.core.broker.state.registry import Registry


class Dependencies(NamedTuple):
    """The parts of a machine that command handlers call.

    registry: peers, services, workers, settings and counters.
    outgoing: sends to peers.
    dispatcher: takes slots of workers and gives them back.
    queueing: queues requests and feeds workers.
    completion: accepts requests and ends them.
    presence: WELCOME, silence and the loss of peers.
    admission: checks new requests.
    authorization: checks what a peer may do.
    registration: registers workers for services.
    events: pushes, topics and sessions.
    hooks: the hooks of the machine, if it has any.
    """

    registry: Registry
    outgoing: Outgoing
    dispatcher: Dispatcher
    queueing: Queueing
    completion: Completion
    presence: Presence
    admission: Admission
    authorization: Authorization
    registration: Registration
    events: PubSub
    hooks: InstalledHooks


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
        self.queueing = dependencies.queueing
        self.completion = dependencies.completion
        self.presence = dependencies.presence
        self.admission = dependencies.admission
        self.authorization = dependencies.authorization
        self.registration = dependencies.registration
        self.events = dependencies.events
        self.hooks = dependencies.hooks

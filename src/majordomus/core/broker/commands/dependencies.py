"""The rooms of the broker machine in one hand, for those that read commands."""

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
    """What one machine is made of."""

    registry: Registry
    outgoing: Outgoing
    dispatcher: Dispatcher
    queueing: Queueing
    completion: Completion
    presence: Presence
    admission: Admission
    authorization: Authorization
    enrolment: Registration
    events: PubSub
    hooks: InstalledHooks


class Commands:
    """What the readers of commands have in common: they hold no state, and reach every room."""

    def __init__(self, rooms: Dependencies) -> None:
        self.registry = rooms.registry
        self.settings = rooms.registry.settings
        self.outgoing = rooms.outgoing
        self.dispatcher = rooms.dispatcher
        self.queueing = rooms.queueing
        self.completion = rooms.completion
        self.presence = rooms.presence
        self.admission = rooms.admission
        self.authorization = rooms.authorization
        self.enrolment = rooms.enrolment
        self.events = rooms.events
        self.hooks = rooms.hooks

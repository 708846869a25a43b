"""The rooms of the broker machine in one hand, for those that read commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from majordomus.core.broker.admission import Admission
    from majordomus.core.broker.dispatch import Dispatcher
    from majordomus.core.broker.outgoing import Outgoing
    from majordomus.core.broker.presence import Presence
    from majordomus.core.broker.pubsub import Events
    from majordomus.core.broker.registration import Enrolment
    from majordomus.core.broker.state.registry import Registry


class Rooms(NamedTuple):
    """What one machine is made of."""

    registry: Registry
    outgoing: Outgoing
    dispatcher: Dispatcher
    presence: Presence
    admission: Admission
    enrolment: Enrolment
    events: Events


class Commands:
    """What the readers of commands have in common: they hold no state, and reach every room."""

    def __init__(self, rooms: Rooms) -> None:
        self.registry = rooms.registry
        self.settings = rooms.registry.settings
        self.outgoing = rooms.outgoing
        self.dispatcher = rooms.dispatcher
        self.presence = rooms.presence
        self.admission = rooms.admission
        self.enrolment = rooms.enrolment
        self.events = rooms.events

"""Who is who, and may it: the questions that the rooms ask of the rules, and what follows when the
rules change.

A right that is taken away ends what stands on it: the next message is refused, and a worker whose
service is no longer its own is sent off.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from majordomus.core.broker.state.access_rules import (
    CALL,
    MANAGE,
    RESERVED,
    SERVE,
    SUBSCRIBE,
    full_name,
    shown_name,
)
from majordomus.core.broker.state.callers import Caller
from majordomus.core.broker.state.timer_wheel import Deadlines
from majordomus.core.broker.state.topics import full_topic, shown_topic, topic_prefix
from majordomus.core.broker.state.transitions import FORGOTTEN, HELD, STREAMING
from majordomus.protocol import spec

if TYPE_CHECKING:
    from majordomus.core.broker.completion import Completion
    from majordomus.core.broker.presence import Presence
    from majordomus.core.broker.pubsub import PubSub
    from majordomus.core.broker.state.access_rules import AccessRules
    from majordomus.core.broker.state.peers import Peer
    from majordomus.core.broker.state.registry import Registry
    from majordomus.core.broker.state.requests import AcceptedRequest
    from majordomus.protocol.spec import Frame

Refusal = tuple[int, str]
"""Status and sentence."""
OF_A_SERVICE = frozenset((b"mmi.service", b"mmi.workers"))
"""Questions that are open to whoever may call the service that they are about."""


class Authorization:
    """Asks `registry.rights`; while that is None, everything is allowed and nothing is asked."""

    def __init__(
        self, registry: Registry, presence: Presence, completion: Completion, events: PubSub
    ) -> None:
        self.leases: dict[Peer, dict[Peer, None]] = {}
        """Whose identity ends, and where that stands in `ends`."""
        self.ends = Deadlines()
        self.registry = registry
        self.presence = presence
        self.completion = completion
        self.events = events

    # ── questions ─────────────────────────────────────────────────────────────────────────────────

    def refuses(
        self, caller: Peer | Caller, peer: Peer, action: str, called: bytes
    ) -> Refusal | None:
        """Why `caller`, which is or stands behind `peer`, may not do `action` with what it calls
        `called`; None when it may. 401 where it would help to say who one is."""
        rights = self.registry.rights
        if rights is None:
            return None
        user, groups = caller.user, caller.groups
        verdict = rights.allows(user, groups, action, full_name(caller.prefix, called))
        if verdict.allowed:
            return None
        self.registry.tell(
            "not-allowed", peer=peer.id, user=user, action=action, name=called, why=verdict.why
        )
        shown = called.decode("utf-8", "replace")
        if not user:
            text = f"who you are is not known, and not everybody may {action} '{shown}'"
            return spec.UNAUTHENTICATED, text
        return spec.FORBIDDEN, f"'{user}' may not {action} '{shown}'"

    def refuses_call(
        self, caller: Peer | Caller, peer: Peer, called: bytes, body: list[Frame]
    ) -> Refusal | None:
        """The same of a request: for a service, or for the management interface."""
        if not called.startswith(spec.MMI_PREFIX):
            return self.refuses(caller, peer, CALL, called)
        if called in OF_A_SERVICE and body and len(body[0]):
            named = bytes(body[0][: spec.MAX_NAME + 1])
            if named.startswith(RESERVED):
                return None
            return self.refuses(caller, peer, CALL, named)
        return self.refuses(caller, peer, MANAGE, called)

    def with_prefix(self, request: AcceptedRequest) -> Peer | Caller:
        """The caller of `request`, whom a hook may have named, with the prefix of its groups."""
        rights, caller = self.registry.rights, request.caller
        prefix = b"" if rights is None else rights.prefix(caller.groups)
        if prefix != caller.prefix:
            caller = request.caller = Caller(caller.user, caller.groups, prefix)
        return caller

    def refuses_topic(self, peer: Peer, action: str, called: bytes) -> Refusal | None:
        """The same of publishing to a topic, and of subscribing to a pattern."""
        if self.registry.rights is None:
            return None
        caller = Caller(peer.user, peer.groups, topic_prefix(peer.prefix))
        return self.refuses(caller, peer, action, called)

    # ── what changes ──────────────────────────────────────────────────────────────────────────────

    def set_rights(self, rights: AccessRules | None, now: float) -> None:
        """From now on these rules hold. Workers that they no longer let serve are sent off, and
        streams that are allowed no more end."""
        self.registry.rights = rights
        for peer in list(self.registry.peers.values()):
            self.reconsider(peer, now)
            for request in list(peer.open.values()):
                if request.stream is not None or request.state is STREAMING:
                    self._review_stream(request, peer, now)

    def identify(
        self, peer: Peer, user: str, groups: tuple[str, ...], now: float, until: float = inf
    ) -> None:
        """Who `peer` is, as something outside of the rules has found out, and `until` when."""
        peer.user, peer.groups = user, groups
        if peer in self.leases:
            self.leases.pop(peer).pop(peer, None)
        if until < inf:
            self.leases[peer] = self.ends.add(peer, until)
        self.reconsider(peer, now)

    def expel(self, peer: Peer, now: float) -> None:
        """Nothing but what the connection itself has proved is known of `peer` any more."""
        self.identify(peer, peer.identity.user, peer.identity.groups, now)

    def next_deadline(self) -> float:
        """When the next identity ends."""
        return self.ends.next()

    def tick(self, now: float) -> None:
        """Who somebody is may have been said for a time only."""
        for peer in self.ends.due(now):
            self.leases.pop(peer, None)
            if peer.state is not FORGOTTEN:
                self.expel(peer, now)

    def forgotten(self, peer: Peer) -> None:
        """`peer` is no more."""
        if self.leases and peer in self.leases:
            self.leases.pop(peer).pop(peer, None)

    def reconsider(self, peer: Peer, now: float) -> None:
        """Who `peer` is, or what the rules say, has changed. May be repeated."""
        rights = self.registry.rights
        before = peer.prefix
        peer.prefix = b"" if rights is None else rights.prefix(peer.groups)
        if peer.listener is not None and peer.listener.patterns:
            self._review_subscriptions(peer, before)
        worker = peer.worker
        if worker is None:
            return
        for service in worker.order:
            called = shown_name(before, service.name)
            refusal = self.refuses(peer, peer, SERVE, called)
            if refusal is None and full_name(peer.prefix, called) != service.name:
                refusal = (spec.FORBIDDEN, "register anew: your names have another prefix now")
            if refusal is not None:
                self.presence.forget(peer, "not allowed", now, tell=True, reason=refusal)
                return

    def _review_stream(self, request: AcceptedRequest, peer: Peer, now: float) -> None:
        """A single answer is let through: it was asked for when that was allowed. A stream would go
        on. What a hook holds is judged when that has decided."""
        if request.state is HELD or request.service.own:
            return
        refusal = self.refuses(request.caller, peer, CALL, request.called)
        if refusal is not None:
            self.completion.fail(request, *refusal, now)

    def _review_subscriptions(self, peer: Peer, before: bytes) -> None:
        """What `peer` may not hear any more, it is unsubscribed from; `before` was its prefix."""
        for pattern in list(peer.listener.patterns if peer.listener else ()):
            called = shown_topic(before, pattern)
            kept = full_topic(peer.prefix, called) == pattern
            if not kept or self.refuses_topic(peer, SUBSCRIBE, called) is not None:
                self.events.unsubscribe(peer, pattern)

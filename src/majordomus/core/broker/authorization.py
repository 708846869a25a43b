"""Checks of the access rules, and the consequences when rules or identities change.

When a peer loses a right, its next message that needs it is refused. Subscriptions, streams and
registrations need no further message, so those that are no longer allowed end at once.
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
from majordomus.core.broker.state.identity import Caller
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
"""Status and text."""
ABOUT_A_SERVICE = frozenset((b"mmi.service", b"mmi.workers", b"mmi.contract"))
"""Queries that each caller of a service may send about that service."""


class Authorization:
    """Checks `registry.rights`. While that is None, everything is allowed.

    leases: peers whose identity ends, each with the bucket of `ends` that holds it.
    ends: when these identities end.
    """

    def __init__(
        self, registry: Registry, presence: Presence, completion: Completion, events: PubSub
    ) -> None:
        self.leases: dict[Peer, dict[Peer, None]] = {}
        self.ends = Deadlines()
        self.registry = registry
        self.presence = presence
        self.completion = completion
        self.events = events

    # ── checks ────────────────────────────────────────────────────────────────────────────────────

    def refuses(
        self, caller: Peer | Caller, peer: Peer, action: str, called: bytes
    ) -> Refusal | None:
        """Why `caller` may not do `action` with the name `called`; None when it may.

        `caller` is `peer`, or the user for whom a hook accepted the request of `peer`. The status
        is 401 for an anonymous caller, whom authentication may help, and 403 for a user.
        """
        rights = self.registry.rights
        if rights is None:
            return None
        user, groups = caller.user, caller.groups
        verdict = rights.allows(user, groups, action, full_name(caller.prefix, called))
        if verdict.allowed:
            return None
        self.registry.emit(
            "not-allowed", peer=peer.id, user=user, action=action, name=called, why=verdict.why
        )
        shown = called.decode("utf-8", "replace")
        if not user:
            text = f"authenticate first: anonymous peers may not {action} '{shown}'"
            return spec.UNAUTHENTICATED, text
        return spec.FORBIDDEN, f"'{user}' may not {action} '{shown}'"

    def refuses_call(
        self, caller: Peer | Caller, peer: Peer, called: bytes, body: list[Frame]
    ) -> Refusal | None:
        """As `refuses`, for a request to a service or to the management interface."""
        if not called.startswith(spec.MMI_PREFIX):
            return self.refuses(caller, peer, CALL, called)
        if called in ABOUT_A_SERVICE and body and len(body[0]):
            named = bytes(body[0][: spec.MAX_NAME + 1])
            if named.startswith(RESERVED):  # there is no such service, which is no secret
                return None
            return self.refuses(caller, peer, CALL, named)
        return self.refuses(caller, peer, MANAGE, called)

    def with_prefix(self, request: AcceptedRequest) -> Peer | Caller:
        """The caller of `request`, with the prefix of its groups: a hook may have set them."""
        rights, caller = self.registry.rights, request.caller
        prefix = b"" if rights is None else rights.prefix(caller.groups)
        if prefix != caller.prefix:
            caller = request.caller = Caller(caller.user, caller.groups, prefix)
        return caller

    def refuses_topic(self, peer: Peer, action: str, called: bytes) -> Refusal | None:
        """As `refuses`, for publishing to a topic and subscribing to a pattern."""
        if self.registry.rights is None:
            return None
        caller = Caller(peer.user, peer.groups, topic_prefix(peer.prefix))
        return self.refuses(caller, peer, action, called)

    # ── changes ───────────────────────────────────────────────────────────────────────────────────

    def set_rights(self, rights: AccessRules | None, now: float) -> None:
        """Replace the rules. Disconnects workers, and ends streams and subscriptions, that they do
        not allow."""
        self.registry.rights = rights
        for peer in list(self.registry.peers.values()):
            self.recheck(peer, now)
            for request in list(peer.open.values()):
                if request.stream is not None or request.state is STREAMING:
                    self._review_stream(request, peer, now)

    def identify(
        self, peer: Peer, user: str, groups: tuple[str, ...], now: float, until: float = inf
    ) -> None:
        """Set the identity of `peer`, until the time `until` in monotonic seconds."""
        peer.user, peer.groups = user, groups
        self.registry.account.move(peer)
        if peer in self.leases:
            self.leases.pop(peer).pop(peer, None)
        if until < inf:
            self.leases[peer] = self.ends.add(peer, until)
        self.recheck(peer, now)

    def restore_identity(self, peer: Peer, now: float) -> None:
        """Reset the identity of `peer` to the one that its connection has proved."""
        self.identify(peer, peer.identity.user, peer.identity.groups, now)

    def next_deadline(self) -> float:
        """When the next identity ends."""
        return self.ends.next()

    def tick(self, now: float) -> None:
        """Reset identities whose time is over."""
        for peer in self.ends.due(now):
            self.leases.pop(peer, None)
            if peer.state is not FORGOTTEN:
                self.restore_identity(peer, now)

    def forgotten(self, peer: Peer) -> None:
        """Drop what is kept about `peer`."""
        if self.leases and peer in self.leases:
            self.leases.pop(peer).pop(peer, None)

    def recheck(self, peer: Peer, now: float) -> None:
        """Apply a change of the rules or of the identity of `peer`. May be repeated."""
        rights = self.registry.rights
        before = peer.prefix
        peer.prefix = b"" if rights is None else rights.prefix(peer.groups)
        if peer.subscriber is not None and peer.subscriber.patterns:
            self._review_subscriptions(peer, before)
        worker = peer.worker
        if worker is None:
            return
        for service in worker.order:
            called = shown_name(before, service.name)
            refusal = self.refuses(peer, peer, SERVE, called)
            if refusal is None and full_name(peer.prefix, called) != service.name:
                refusal = (spec.FORBIDDEN, "register again: the prefix of your names has changed")
            if refusal is not None:
                self.presence.forget(peer, "not allowed", now, notify=True, reason=refusal)
                return

    def _review_stream(self, request: AcceptedRequest, peer: Peer, now: float) -> None:
        """End the stream of `request` if its caller may no longer call the service.

        A request with a single answer is not checked again: it was allowed when it was accepted.
        A request that a hook holds is checked when the hook has decided.
        """
        if request.state is HELD or request.service.own:
            return
        refusal = self.refuses(request.caller, peer, CALL, request.called)
        if refusal is not None:
            self.completion.fail(request, *refusal, now)

    def _review_subscriptions(self, peer: Peer, before: bytes) -> None:
        """End the subscriptions that `peer` may no longer have. `before` was its prefix."""
        for pattern in list(peer.subscriber.patterns if peer.subscriber else ()):
            called = shown_topic(before, pattern)
            kept = full_topic(peer.prefix, called) == pattern
            if not kept or self.refuses_topic(peer, SUBSCRIBE, called) is not None:
                self.events.unsubscribe(peer, pattern)

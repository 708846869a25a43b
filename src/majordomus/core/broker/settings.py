"""Every setting of the broker, with its unit, its default and its bounds.

Files and flags are read elsewhere (net/broker, cli).
"""

from __future__ import annotations

from typing import Final

import msgspec

from majordomus.errors import ConfigurationError
from majordomus.protocol import spec

KIB = 1024
MIB = 1024 * KIB


class BrokerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of a broker. Durations are seconds, sizes bytes, counts whole numbers."""

    name: str = ""
    """The broker's name in WELCOME and MMI; empty: made from its host name and process id."""

    worker_interval: float = spec.WORKER_INTERVAL
    """Heartbeat interval of workers, announced by WELCOME."""
    client_interval: float = spec.CLIENT_INTERVAL
    """Heartbeat interval of clients with presence, announced by WELCOME."""
    liveness: int = spec.LIVENESS
    """Silent intervals after which a peer is lost."""
    busy_timeout: float = 900.0
    """How long a 0.1 or 0.2 worker may be silent while it holds a request."""
    busy_timeouts: dict[str, float] = {}
    """`busy_timeout` of single services, by name."""
    client_idle: float = 600.0
    """How long after its last message a client without presence is forgotten."""
    pause: float = 1.0
    """When the broker's loop stands still for longer than this, no peer is lost in the next
    `worker_interval`: messages that have arrived meanwhile are read first."""

    drain_timeout: float = 10.0
    """How long a broker that drains waits until its open requests have ended and their answers have
    left."""
    send_hwm: int = 1000
    """Messages that the socket holds for one peer; in bytes at most this times `max_message`."""

    session_ttl: float = 60.0
    """How long the broker keeps the handle and the subscriptions of a session whose client is
    gone."""

    default_ttl: float = 60.0
    """Time to live of a request that states none."""
    max_ttl: float = 3600.0
    """Longest time to live of any request."""
    max_attempts: int = 3
    """Dispatches of one request before its client gets 502."""
    store: str = ""
    """Where durable requests are stored: `sqlite:FILE`; empty: the broker has no store."""
    durable_keep: float = 604_800.0
    """How long the outcome of a durable request is kept that states no `keep`."""
    retry_delay: float = 1.0
    """How long a durable request waits after its first failed attempt. Each further delay is twice
    as long; at random up to half of it is left out."""
    max_retry_delay: float = 600.0
    """Longest delay between two attempts of a durable request."""
    max_durable_attempts: int = 100
    """Most attempts that a service may declare for its durable requests."""
    max_durable: int = 1_000_000
    """Durable requests without an outcome; further ones are refused."""
    hook_timeout: float = 5.0
    """How long an async hook may take; after that its request gets 500."""
    balancing: str = "least-outstanding"
    """How a worker is chosen: `least-outstanding`, `least-load`, `round-robin`,
    `least-recently-used`, `random-two`, `sticky`, or the name of a custom strategy."""
    balancings: dict[str, str] = {}
    """`balancing` of single services, by name."""
    delphi_capacity: int = spec.MAX_CAPACITY
    """Requests that a Delphi worker may hold at a time."""
    legacy_errors: str = "silence"
    """What a 0.1, 0.2 or Delphi client gets for a failed request: `silence`: nothing, the failure
    is counted; `reply`: a reply with status and text."""
    delphi_unverified: bool = False
    """Accept Delphi messages whose closing hash is 0."""

    acl: str = ""
    """A TOML file of access rules (docs/rights.md), read again when it changes; empty: everything
    is allowed."""

    curve: bool = False
    """Encrypt every connection (docs/certificates.md)."""
    certificate: str = ""
    """The broker's own key pair, made at the first start and kept; empty: `broker.key` in the
    user's state folder."""
    clients: str = ""
    """The clients that may connect: a TOML file of keys, or a folder of public certificates, read
    again when it changes; `any`: all, encrypted and without an identity; `local`, without `curve`:
    those of this machine."""
    passwords: str = ""
    """A file of users and passwords (`majordomus passwd`), for connections without `curve` from
    this machine; read again when it changes."""
    insecure: bool = False
    """Bind addresses that other machines can reach, without encryption and identity."""

    audit: str = ""
    """A file for the audit log: refused connections, denied rights, revocations and changes as JSON
    lines (docs/observe.md); empty: none."""

    slow: float = 1.0
    """A request that takes longer is kept for `majordomus explain`, as is one that was retried or
    not answered with 200."""
    max_stories: int = 1000
    """Requests that are kept for `majordomus explain`."""

    max_frames: int = 1024
    """Body frames of a message."""
    max_message: int = 16 * MIB
    """Bytes of a message's body."""
    max_peers: int = 250_000
    """Peers known at a time."""
    max_services: int = 20_000
    """Services known at a time."""
    max_worker_services: int = 1024
    """Services of one worker."""
    max_open: int = 10_000
    """Open conversations of one client."""
    max_queue: int = 100_000
    """Queued requests in all."""
    max_queue_bytes: int = 512 * MIB
    """Bytes of all queued requests."""
    max_service_queue: int = 50_000
    """Queued requests of one service."""
    max_service_queue_bytes: int = 256 * MIB
    """Bytes of the queued requests of one service."""
    max_client_queue: int = 10_000
    """Queued requests of one client."""
    max_client_queue_bytes: int = 128 * MIB
    """Bytes of the queued requests of one client."""
    max_topic: int = spec.MAX_NAME
    """Bytes of a topic or a pattern."""
    max_topic_tokens: int = 16
    """Tokens of a topic or a pattern."""
    max_topic_wildcards: int = 3
    """Tokens `*` of a pattern."""
    max_client_topics: int = 1000
    """Subscriptions of one client."""
    max_user_topics: int = 100_000
    """Subscriptions of one user, over all its connections and sessions."""
    max_topics: int = 1_000_000
    """Subscriptions in all."""
    max_sessions: int = 250_000
    """Sessions known at a time."""
    max_answered: int = 10_000
    """Answered handles of one Delphi worker that may still carry events."""
    max_outbox: int = 1000
    """Messages held for a peer whose socket is full. Answers may use twice as much."""
    max_outbox_bytes: int = 64 * MIB
    """Bytes held for a peer whose socket is full. Answers may use twice as much."""
    max_outboxes_bytes: int = 256 * MIB
    """Bytes held for all such peers together. Answers may use twice as much."""
    max_held_bytes: int = 768 * MIB
    """Bytes that the broker holds in all: open requests wherever they are, outboxes, subscriptions,
    sessions, workers, peers and stories (docs/limits.md). Answers and registrations of workers may
    use a quarter more."""
    max_user_bytes: int = 512 * MIB
    """Bytes that it holds for one user, over all its connections and sessions."""
    max_peer_bytes: int = 256 * MIB
    """Bytes that it holds for one connection."""
    max_unsent_bytes: int = 128 * MIB
    """Bytes in the send buffers of all connections together; small messages may use as much again.
    Further messages wait in outboxes. Not on endpoints that libzmq serves."""
    max_unfinished_bytes: int = 256 * MIB
    """Bytes of incompletely received messages, of all connections together. Beyond that, the
    connection that holds most of them is ended. Not on endpoints that libzmq serves."""
    max_address_connections: int = 20_000
    """Connections of one address; further ones are ended."""
    address_share: float = 0.5
    """The share of the process's descriptors (`ulimit -n`) that the connections of one address may
    take. Loopback is exempt."""
    exempt_addresses: str = ""
    """Addresses and networks without that share, such as gateways and NAT; separated by spaces."""
    max_address_handshakes: int = 1024
    """Connections of one address that have sent no message yet, in the time of a handshake."""

    def __post_init__(self) -> None:
        """Check every setting against its bounds.

        Raises:
            ConfigurationError: names the setting, its value and the values that it may have.
        """
        for name, kind in NUMBERS.items():
            _check_number(name, getattr(self, name), kind)
        for name in DURATIONS:
            _check(name, getattr(self, name), 0.001, LONGEST)
        for name in COUNTS:
            _check(name, getattr(self, name), 1, MOST)
        for name in BOUNDS:
            _check(name, getattr(self, name), 0, MOST)
        _check("max_ttl", self.max_ttl, 0.001, LONGEST_TTL)
        _check("max_topic", self.max_topic, 1, spec.MAX_NAME)
        _check("address_share", self.address_share, 0.001, 1)
        for service, seconds in self.busy_timeouts.items():
            _check(f"busy_timeouts.{service}", seconds, 0.001, LONGEST)
        if self.legacy_errors not in LEGACY_ERRORS:
            known = ", ".join(LEGACY_ERRORS)
            raise ConfigurationError(
                f"legacy_errors = {self.legacy_errors!r} is not one of: {known}"
            )


LONGEST = 100 * 365 * 86400.0
"""A century: no duration is longer, and none is endless."""
LONGEST_TTL = 4_294_967.295
"""49 days: the most milliseconds that the header of MDP/0.3 can hold."""
MOST = 2**31 - 1
LEGACY_ERRORS = ("silence", "reply")
DURATIONS = (
    "slow",
    "worker_interval",
    "client_interval",
    "busy_timeout",
    "client_idle",
    "pause",
    "session_ttl",
    "default_ttl",
    "max_ttl",
    "hook_timeout",
    "durable_keep",
    "retry_delay",
    "max_retry_delay",
)
COUNTS = (
    "liveness",
    "max_attempts",
    "max_durable_attempts",
    "max_durable",
    "delphi_capacity",
    "send_hwm",
    "max_topic_tokens",
    "max_held_bytes",
    "max_user_bytes",
    "max_peer_bytes",
    "max_unsent_bytes",
    "max_address_connections",
    "max_address_handshakes",
)
BOUNDS = (
    "max_topic_wildcards",
    "max_client_topics",
    "max_user_topics",
    "max_topics",
    "max_sessions",
    "max_answered",
)
"""Settings that may be 0."""


NUMBERS: Final[dict[str, type]] = {
    field.name: field.type
    for field in msgspec.structs.fields(BrokerSettings)
    if field.type in (int, float)
}
"""The settings that are numbers, with their types."""


def _check_number(name: str, value: object, kind: type) -> None:
    """Python does not check what a setting is given."""
    numbers = (int, float) if kind is float else (int,)
    if isinstance(value, bool) or not isinstance(value, numbers):
        what = "a number" if kind is float else "a whole number"
        raise ConfigurationError(f"{name} = {value!r:.60} must be {what}")


def _check(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise ConfigurationError(f"{name} = {value:.10g} must be from {least:g} to {most:.10g}")


FIXED = (
    "name",
    "store",
    "worker_interval",
    "client_interval",
    "liveness",
    "send_hwm",
    "balancing",
    "balancings",
    "delphi_unverified",
    "acl",
    "audit",
    "curve",
    "certificate",
    "clients",
    "passwords",
    "insecure",
    "max_frames",
    "max_message",
    "slow",
    "max_stories",
    "max_unsent_bytes",
    "max_unfinished_bytes",
    "max_address_connections",
    "address_share",
    "exempt_addresses",
    "max_address_handshakes",
)
"""Settings that peers have been sent, or that sockets were made with. A running broker keeps
them."""


def merged(running: BrokerSettings, new: BrokerSettings) -> tuple[BrokerSettings, tuple[str, ...]]:
    """Return `new` with the fixed settings of `running`, and the names of those that differ: they
    need a restart."""
    kept = {name: getattr(running, name) for name in FIXED}
    left = tuple(name for name, value in kept.items() if getattr(new, name) != value)
    return msgspec.structs.replace(new, **kept), left

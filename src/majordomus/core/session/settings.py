"""Every setting of a client's and a worker's session lives here, with its unit and default, and the
constants that both sessions use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

from majordomus.protocol import spec
from majordomus.protocol.spec import Dialect

IdSource: TypeAlias = Callable[[int], bytes]
"""`ids(n)` returns n unpredictable bytes."""

CREDIT_STEP: Final = spec.FIRST_CREDIT // 2
"""Parts that are read before credit is granted for them: "when half of what it granted is used"
(docs/spec/mdp-0.3.md, section 14)."""

MAX_RECEIVED: Final = 64 * 1024 * 1024
LEAST_RECEIVED: Final = 64 * 1024
"""Bounds of what is taken from a broker: enough for a header, its metadata and a sentence."""


class ClientSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a client session. Durations are seconds."""

    dialect: Dialect = Dialect.MDP03
    endpoints: int = 1
    """Number of brokers that the session may connect to."""
    spread: tuple[bytes, ...] = ()
    """The names of these brokers. A hash of the client's id and of each name makes the order in
    which they are tried; without names that is the order in which they were given."""
    home_after: float = 5.0
    """How long the first broker of that order has to be back before a client that had to leave it
    returns. Its workers connect again meanwhile, after 5 s at the latest. inf: never return."""
    presence: bool = False
    """Send HELLO and heartbeats, and notice a silent broker. MDP/0.3 only."""
    interval: float = spec.CLIENT_INTERVAL
    """Heartbeat interval until WELCOME announces another."""
    liveness: int = spec.LIVENESS
    """Silent intervals after which a broker is lost, until WELCOME announces another number."""
    connect_timeout: float = 1.0
    """How long one endpoint of several is tried before the next, since its last byte. It doubles
    with each round in which none answered, up to 10 s."""
    grace: float = 0.1
    """Time after a call's deadline in which the broker's own FINAL may still end it."""
    retry_first: float = 0.05
    """First delay before a call or a connection is tried again."""
    retry_most: float = 2.0
    """Longest of these delays."""
    max_calls: int = 65536
    """Calls that may be open at a time; one more ends at once with 429."""
    max_unread: int = 4096
    """Unread parts of one answer; one more ends the call with 429. Only workers of older dialects
    can send so many."""
    max_received: int = MAX_RECEIVED
    """Bytes of one message that are taken from a broker, also where its WELCOME allows more. A call
    with a larger answer ends with 413."""


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a worker session. Durations are seconds."""

    dialect: Dialect = Dialect.MDP03
    services: tuple[bytes, ...] = ()
    """Names of the services; exactly one in every dialect but MDP/0.3."""
    capacity: int = 1
    """Slots: requests that it takes at a time, 1..65535. Announced in MDP/0.3 only."""
    contracts: dict[bytes, bytes] = {}
    """The canonical bytes of the contracts, by service. MDP/0.3 only."""
    weight: float = 1.0
    """Its share of the services' requests; READY carries it where it is not 1. MDP/0.3 only."""
    durable: dict[bytes, int] = msgspec.field(default_factory=dict)
    """Services whose every request is durable, with their limit of attempts; 0: the broker's."""
    interval: float = spec.WORKER_INTERVAL
    """Heartbeat interval; in MDP/0.3 until WELCOME announces another."""
    liveness: int = spec.LIVENESS
    """Silent intervals after which the broker is lost; in MDP/0.3 until WELCOME announces
    another number."""
    reconnect_first: float = 0.1
    """First delay between the end of a connection and the next try."""
    reconnect_most: float = 5.0
    """Longest of these delays."""
    connect_timeout: float = 10.0
    """How long one socket tries to connect before it is replaced."""
    settle: float = 0.1
    """Time after CAPACITY 0 in which requests may still arrive."""
    max_received: int = MAX_RECEIVED
    """Bytes of one message that are taken from a broker, also where its WELCOME allows more. A
    larger request is answered with 413."""

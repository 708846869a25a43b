"""Every setting of the client's and the worker's session, with its unit and default, lives here."""

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


class ClientSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a client session may be told. Durations are seconds."""

    dialect: Dialect = Dialect.MDP03
    endpoints: int = 1
    """How many brokers there are to choose from."""
    presence: bool = False
    """Say HELLO, heartbeat, and notice a silent broker. MDP/0.3 only."""
    interval: float = spec.CLIENT_INTERVAL
    """Heartbeat interval until WELCOME says otherwise."""
    liveness: int = spec.LIVENESS
    """Silent intervals after which a broker is lost, until WELCOME says otherwise."""
    connect_timeout: float = 1.0
    """How long one endpoint of several is tried before the next."""
    grace: float = 0.1
    """How long after a call's deadline the broker's own answer to it is waited for."""
    retry_first: float = 0.05
    """First delay before a call or a connection is tried again."""
    retry_most: float = 2.0
    """Longest of these delays."""
    max_calls: int = 65536
    """Calls open at a time; one more ends at once with 429."""
    max_unread: int = 4096
    """Parts of one answer that are not read yet; one more, which only an older worker can send,
    ends the call with 429."""


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker session may be told. Durations are seconds."""

    dialect: Dialect = Dialect.MDP03
    services: tuple[bytes, ...] = ()
    """What is served; exactly one in every dialect but MDP/0.3."""
    capacity: int = 1
    """Requests in flight that it takes, 1..65535. Announced in MDP/0.3 only."""
    weight: float = 1.0
    """Its share of the services' requests; told by READY where it is not 1. MDP/0.3 only."""
    interval: float = spec.WORKER_INTERVAL
    """Heartbeat interval; in MDP/0.3 until WELCOME says otherwise."""
    liveness: int = spec.LIVENESS
    """Silent intervals after which the broker is lost; in MDP/0.3 until WELCOME says otherwise."""
    reconnect_first: float = 0.1
    """First delay between the end of a connection and the next try."""
    reconnect_most: float = 5.0
    """Longest of these delays."""
    connect_timeout: float = 10.0
    """How long one socket tries to connect before a new one does."""
    settle: float = 0.1
    """How long requests may still come after the broker was told that we drain."""

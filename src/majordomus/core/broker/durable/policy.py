"""The policy of attempts: which outcomes are tried again, when, and how often."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from majordomus.protocol import spec

if TYPE_CHECKING:
    from majordomus.core.broker.balancing.rng import RandomSource
    from majordomus.core.broker.settings import BrokerSettings

TRIED_AGAIN: Final = frozenset((spec.DEADLINE_EXCEEDED, spec.TOO_MANY, spec.CANCELLED))
"""Statuses below 500 after which another attempt may succeed: a service that the handler called was
too slow or too busy, or the worker was stopped."""
FAILED_FOR_GOOD: Final = frozenset((spec.NOT_IMPLEMENTED,))
PARTS: Final = 1 << 20
MOST_DOUBLINGS: Final = 40


def may_try_again(status: int) -> bool:
    """Whether an attempt that ended with `status` may be followed by another one."""
    if status in TRIED_AGAIN:
        return True
    return status >= spec.HANDLER_FAILED and status not in FAILED_FOR_GOOD


def delay(settings: BrokerSettings, failures: int, random: RandomSource) -> float:
    """Seconds until the next attempt after so many failures: twice as long each time, and between
    half of that and all of it, so that requests that failed together do not return together."""
    doubled = settings.retry_delay * float(2 ** min(failures - 1, MOST_DOUBLINGS))
    share = 0.5 + random(PARTS) / (2 * PARTS)
    return min(doubled, settings.max_retry_delay) * share


def most_attempts(settings: BrokerSettings, declared: int) -> int:
    """The limit of attempts: `declared` by the service's workers, or the default; at most the
    broker's limit."""
    return min(declared or settings.max_attempts, settings.max_durable_attempts)

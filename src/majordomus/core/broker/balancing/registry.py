"""The strategies by name, and the strategy and weights of each service."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from majordomus.core.broker.balancing.guarded import Guarded
from majordomus.core.broker.balancing.random_two import RandomTwo
from majordomus.core.broker.balancing.ranked import LeastLoad, LeastRecentlyUsed, RoundRobin
from majordomus.core.broker.balancing.rng import RandomSource
from majordomus.core.broker.balancing.sticky import Sticky
from majordomus.core.broker.balancing.strategy import LeastOutstanding, Strategy
from majordomus.errors import ConfigurationError, RemoteProtocolError
from majordomus.protocol import metadata
from majordomus.protocol.spec import LEAST_WEIGHT, MOST_WEIGHT

if TYPE_CHECKING:
    from majordomus.core.broker.settings import BrokerSettings
    from majordomus.core.broker.state.services import Service
    from majordomus.core.broker.state.workers import RegisteredWorker

Factory: TypeAlias = Callable[[RandomSource], Strategy]
Failed: TypeAlias = Callable[[bytes, BaseException], None]
"""Called with the name of a service whose strategy has raised, and the exception."""

STRATEGIES: Final[dict[str, Factory]] = {
    "least-outstanding": LeastOutstanding,
    "least-load": LeastLoad,
    "round-robin": RoundRobin,
    "least-recently-used": LeastRecentlyUsed,
    "random-two": RandomTwo,
    "sticky": Sticky,
}


class Strategies:
    """Makes the strategy of each service. `own` holds custom strategies by name.

    Raises: ConfigurationError for a setting that names an unknown strategy.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        dice: RandomSource,
        own: Mapping[str, Factory],
        failed: Failed,
    ) -> None:
        self._known = {**STRATEGIES, **own}
        self._own = own
        self._dice = dice
        self._failed = failed
        self._default = self._named("balancing", settings.balancing)
        self._names = {
            service.encode(): self._named(f"balancings.{service}", name)
            for service, name in settings.balancings.items()
        }

    def _named(self, setting: str, name: str) -> str:
        if name not in self._known:
            known = ", ".join(sorted(self._known))
            raise ConfigurationError(f"{setting} = {name!r} is unknown; there is: {known}")
        return name

    def name(self, service: bytes) -> str:
        """Return the name of the strategy of `service`."""
        return self._names.get(service, self._default)

    def make(self, service: bytes) -> Strategy:
        """Return a new strategy for `service`."""
        name = self.name(service)
        if name not in self._own:
            return self._known[name](self._dice)
        try:
            own = self._own[name](self._dice)
            return Guarded(own, lambda error: self._failed(service, error))
        except BaseException as error:
            self._failed(service, error)
            return LeastOutstanding()


def weight_of(field: bytes) -> float:
    """Return the `weight` in the metadata of a READY, within bounds; 1 without a valid one."""
    if not field:
        return 1.0
    try:
        weight: Any = metadata.unpack(field).get("weight")
    except RemoteProtocolError:
        return 1.0
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not isfinite(weight):
        return 1.0
    return min(max(float(weight), LEAST_WEIGHT), MOST_WEIGHT)


def set_weight(worker: RegisteredWorker, service: Service) -> None:
    """Pass the weight of `worker`'s registration to the strategy of `service`."""
    service.strategy.enter(worker, weight_of(worker.metadata.get(service.name, b"")))


def report_load(worker: RegisteredWorker) -> None:
    """Notify the strategies that choose by load of a new ``worker.load``."""
    for service in worker.order:
        if service.strategy.by_load:
            service.strategy.heard(worker)

"""The cloud logger: a logging.Handler that never makes a program wait, a collector, live watches.

    logging.getLogger().addHandler(CloudLogHandler("tcp://127.0.0.1:5555"))
    majordomus worker majordomus.contrib.cloudlog:collector
    majordomus logs --follow

Nothing is loaded before it is asked for: a program that logs needs no collector.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from majordomus.contrib.cloudlog.handler import CloudLogHandler, watch
    from majordomus.contrib.cloudlog.record import LogEntry, Query
    from majordomus.contrib.cloudlog.service import Collector, make_collector
    from majordomus.contrib.cloudlog.tail import follow
    from majordomus.net.worker.worker import Worker

    collector: Worker

__all__ = [
    "CloudLogHandler",
    "Collector",
    "LogEntry",
    "Query",
    "collector",
    "follow",
    "make_collector",
    "watch",
]

_HOMES: Final = {
    "CloudLogHandler": "handler",
    "watch": "handler",
    "LogEntry": "record",
    "Query": "record",
    "Collector": "service",
    "make_collector": "service",
    "follow": "tail",
}


def __getattr__(name: str) -> Any:
    """`collector` is made when it is first asked for: a worker with the defaults of Collector."""
    if name == "collector":
        from majordomus.contrib.cloudlog.service import make_collector

        found: Any = make_collector()
    elif name in _HOMES:
        found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found

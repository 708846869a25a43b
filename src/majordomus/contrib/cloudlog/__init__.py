"""The cloud logger: a logging.Handler that never blocks, a collector, and live watches.

    logging.getLogger().addHandler(CloudLogHandler("tcp://127.0.0.1:5555"))
    majordomus worker majordomus.contrib.cloudlog:collector
    majordomus logs --follow

Modules are imported on first use: a program that logs does not load the collector.

encode: encodes queued records as one Batch.
handler: the logging.Handler, and watches of a program.
journal: the file to which a collector appends entries.
record: the records on the wire, their time, levels and data.
ring: the last entries of a collector, in memory.
sender: the queue of a handler, and the thread that sends it.
service: the collector.
sieve: filters of entries, by level, application and regular expression.
tail: the viewer's side of a stream.
tally: counts entries that did not arrive.
watchboard: the live watches of all processes.
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

_MODULES: Final = {
    "CloudLogHandler": "handler",
    "watch": "handler",
    "LogEntry": "record",
    "Query": "record",
    "Collector": "service",
    "make_collector": "service",
    "follow": "tail",
}


def __getattr__(name: str) -> Any:
    """Import `name` on first use. `collector` is a worker with the defaults of Collector."""
    if name == "collector":
        from majordomus.contrib.cloudlog.service import make_collector

        found: Any = make_collector()
    elif name in _MODULES:
        found = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found

"""`majordomus worker` supervises processes, each of which runs the worker object MODULE:NAME."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from majordomus import system
from majordomus.cli.options import otlp_options, verbose_option
from majordomus.cli.output import log_options, log_to_stderr, printable
from majordomus.cli.processes import exit_on_sigterm
from majordomus.cli.remote import brokers_option, key_flags, key_options, keys
from majordomus.cli.run.http_address import address_of, check_extra, check_otlp
from majordomus.cli.target import import_here
from majordomus.errors import ConfigurationError

if TYPE_CHECKING:
    from majordomus.cli.run.worker_metrics import WorkerMetrics
    from majordomus.net.worker.async_worker import AsyncWorker
    from majordomus.net.worker.worker import Worker

logger = logging.getLogger("majordomus.worker")

NO_SUPERVISOR: Final = -1
LOOK: Final = 0.02
"""Seconds between two looks whether a broker has registered the worker."""


class Observed(NamedTuple):
    """Where the metrics of a worker process go.

    bind: HOST:PORT where they are served; None for nowhere. replicas: how many processes of the
    worker there are, each at a port of its own.
    otlp: the collector to which they are sent every `interval` seconds; None for none.
    """

    bind: str | None
    replicas: int
    otlp: str | None
    interval: float


@click.command(short_help="Run a worker's processes and keep them alive.")
@click.argument("target", metavar="MODULE:NAME")
@brokers_option("The broker; repeat it to register at several. [default: the worker's own]")
@key_options
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Number of processes; one that dies is restarted.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="Threads for `def` handlers in each process. [default: the worker's own]",
)
@click.option(
    "--handler-processes",
    type=click.IntRange(min=1),
    metavar="N",
    help='Processes for handlers with run="process", for each process. '
    "[default: the worker's own]",
)
@click.option(
    "--reload",
    is_flag=True,
    help="Replace the processes when a .py file below this folder changes.",
)
@click.option(
    "--metrics",
    metavar="HOST:PORT",
    help="Serve metrics; each process takes the first free port from PORT on. [default: none]",
)
@otlp_options("metrics")
@click.option(
    "--log-ids",
    is_flag=True,
    help="Log the ids of the request in lines that its handler logs.",
)
@verbose_option("Log connections and registrations.")
@log_options
@click.option("--child", "loaded_fd", type=int, hidden=True)
def command(
    target: str,
    brokers: tuple[str, ...],
    processes: int,
    threads: int | None,
    handler_processes: int | None,
    reload: bool,
    metrics: str | None,
    otlp: str | None,
    otlp_interval: float,
    log_ids: bool,
    verbose: bool,
    log_format: str,
    log_levels: tuple[str, ...],
    log_otlp: str | None,
    loaded_fd: int | None,
) -> int:
    """Run the Worker or AsyncWorker NAME of MODULE until SIGTERM or SIGINT, then drain and exit.

    MODULE is imported from this folder first. Prints what is served when a broker has registered
    all processes. A process that dies is restarted, after a delay that grows with each death in a
    row. SIGHUP replaces the processes one at a time, without a gap. A second SIGTERM or SIGINT
    kills all processes.
    """
    if loaded_fd is not None:
        log_to_stderr(
            *(verbose, log_format, log_levels),
            ids=log_ids,
            otlp=log_otlp,
            service="majordomus-worker",
        )
        observed = Observed(metrics, processes, otlp, otlp_interval)
        _serve(target, brokers, threads, handler_processes, observed, loaded_fd, log_ids)
        return 0
    from majordomus.cli.run.supervisor import Supervisor

    flags = [flag for url in brokers for flag in ("--broker", url)]
    flags += ["--threads", str(threads)] if threads else []
    flags += ["--handler-processes", str(handler_processes)] if handler_processes else []
    if metrics is not None:
        address_of("--metrics", metrics)
        check_extra()
        flags += ["--metrics", metrics, "--processes", str(processes)]
    if otlp is not None:
        check_extra()
        check_otlp(otlp)
        flags += ["--otlp", otlp, "--otlp-interval", str(otlp_interval)]
    flags += ["--log-ids"] if log_ids else []
    flags += ["--log-otlp", log_otlp] if log_otlp is not None else []
    flags += ["--verbose"] if verbose else []
    flags += ["--log-format", log_format, *(f"--log-level={level}" for level in log_levels)]
    flags += key_flags()

    def arguments(loaded: int) -> list[str]:
        return ["worker", *flags, "--child", str(loaded), "--", target]

    return Supervisor(arguments, processes, Path.cwd() if reload else None).run()


def _serve(
    target: str,
    brokers: tuple[str, ...],
    threads: int | None,
    processes: int | None,
    observed: Observed,
    loaded_fd: int,
    log_ids: bool,
) -> None:
    """Run in a worker process: load, notify the supervisor, serve until a signal."""
    from majordomus.cli.run.supervisor import LOADED
    from majordomus.net.worker.async_worker import AsyncWorker

    exit_on_sigterm()
    # The supervisor reloads; SIG_IGN would be inherited by what handlers start.
    for number in system.HANGUP:
        signal.signal(number, lambda *_: None)
    worker = load(target)
    worker.configure(broker=brokers or None, threads=threads, processes=processes, **keys())
    if not worker.handlers:
        raise ConfigurationError(
            f"{target!r} has no service: decorate a function with @worker.service(name)"
        )
    if log_ids:
        from majordomus.middleware.log_ids import LogIds

        worker.use(LogIds())
    _observe(worker, observed)
    if loaded_fd != NO_SUPERVISOR:
        os.write(loaded_fd, f"{LOADED}\n".encode())
        threading.Thread(target=_tell_registered, args=(worker, loaded_fd), daemon=True).start()
    if isinstance(worker, AsyncWorker):
        system.run(worker.run())
    else:
        worker.run()


def _observe(worker: Worker | AsyncWorker, observed: Observed) -> None:
    """Measure the worker where its metrics are wanted, and serve or send them from threads."""
    if observed.bind is None and observed.otlp is None:
        return
    from majordomus.cli.run import worker_metrics

    metrics = worker_metrics.WorkerMetrics(worker)
    if observed.bind is not None:
        _serve_metrics(metrics, observed.bind, observed.replicas)
    if observed.otlp is not None:
        worker_metrics.send(metrics, observed.otlp, observed.interval)


def _serve_metrics(metrics: WorkerMetrics, address: str, replicas: int) -> None:
    """Serve the metrics of this process in a thread.

    A port is free for each of `replicas` processes and for their successors at a reload. Without a
    free one the worker serves without metrics, and logs that.
    """
    from majordomus.cli.run import worker_metrics

    host, port = address_of("--metrics", address)
    try:
        listening = worker_metrics.listen(host, port, 2 * replicas)
    except OSError as error:
        logger.warning("no metrics are served at %s: %s", address, error)
        return
    worker_metrics.serve(metrics, listening)
    logger.info("metrics are served at %s:%d", host, listening.getsockname()[1])


def _tell_registered(worker: Worker | AsyncWorker, fd: int) -> None:
    """Tell the supervisor what is served, when a broker has registered the worker."""
    while not worker.ready:
        time.sleep(LOOK)
    services = ", ".join(sorted(worker.handlers))
    text = printable(f"serving {services} at {', '.join(worker.endpoints)}")
    with contextlib.suppress(OSError):  # the supervisor has ended, and so will this process
        os.write(fd, f"{text}\n".encode())
    os.close(fd)


def load(target: str) -> Worker | AsyncWorker:
    """Import the worker object `target`, MODULE:NAME, from the current folder first.

    Raises: ConfigurationError when there is no such module or object, when the import fails, or
    when the object is not a worker.
    """
    from majordomus.net.worker.async_worker import AsyncWorker
    from majordomus.net.worker.worker import Worker

    module_name, colon, name = target.partition(":")
    if not (colon and module_name and name):
        raise ConfigurationError(f"{target!r}: expected MODULE:NAME, as in worker:worker")
    module = import_here(module_name)
    found = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise ConfigurationError(
                f"{target!r}: {module_name} has no {name}{_workers_in(module)}"
            )
        found = getattr(found, part)
    if not isinstance(found, Worker | AsyncWorker):
        raise ConfigurationError(
            f"{target!r}: {name} is of type {type(found).__name__}, not a Worker or AsyncWorker"
            f"{_workers_in(module)}"
        )
    return found


def _workers_in(module: object) -> str:
    from majordomus.net.worker.async_worker import AsyncWorker
    from majordomus.net.worker.worker import Worker

    names = [name for name, one in vars(module).items() if isinstance(one, Worker | AsyncWorker)]
    return f" (it has {', '.join(names)})" if names else ""

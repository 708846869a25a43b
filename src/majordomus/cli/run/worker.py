"""`majordomus worker`: the parent supervises processes, each runs the worker object MODULE:NAME."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from majordomus.cli.output import log_to_stderr, printable
from majordomus.cli.processes import exit_on_sigterm
from majordomus.cli.remote import key_flags, key_options, keys
from majordomus.cli.target import import_here
from majordomus.errors import ConfigurationError

if TYPE_CHECKING:
    from majordomus.net.worker.async_worker import AsyncWorker
    from majordomus.net.worker.worker import Worker

NOBODY: Final = -1
PATIENCE: Final = 3.0
"""Seconds without a broker before the user is told."""

logger = logging.getLogger("majordomus.worker")


@click.command(short_help="Run a worker's processes and keep them alive.")
@click.argument("target", metavar="MODULE:NAME")
@click.option(
    "--broker",
    "brokers",
    multiple=True,
    metavar="URL",
    envvar="MAJORDOMUS_BROKER",
    help="The broker; several times to register at several. [default: what the worker itself says]",
)
@key_options
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Processes; one that dies is started again.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="Plain functions that run at a time in a process. [default: what the worker itself says]",
)
@click.option(
    "--handler-processes",
    type=click.IntRange(min=1),
    metavar="N",
    help='Handlers with run="process" that run at a time in a process. '
    "[default: what the worker itself says]",
)
@click.option(
    "--reload", is_flag=True, help="Start again when a .py file below this folder changes."
)
@click.option("-v", "--verbose", is_flag=True, help="Log what happens.")
@click.option("--child", "loaded_fd", type=int, hidden=True)
def command(
    target: str,
    brokers: tuple[str, ...],
    processes: int,
    threads: int | None,
    handler_processes: int | None,
    reload: bool,
    verbose: bool,
    loaded_fd: int | None,
) -> int:
    """Run the Worker or AsyncWorker NAME of MODULE until SIGTERM or SIGINT, then drain and leave.

    MODULE is looked for in this folder first. A process that dies is started again, after a delay
    that grows as long as it keeps dying. A second signal ends at once.
    """
    if loaded_fd is not None:
        _serve(target, brokers, threads, handler_processes, verbose, loaded_fd)
        return 0
    from majordomus.cli.run.supervisor import Supervisor

    flags = [flag for url in brokers for flag in ("--broker", url)]
    flags += ["--threads", str(threads)] if threads else []
    flags += ["--handler-processes", str(handler_processes)] if handler_processes else []
    flags += ["--verbose"] if verbose else []
    flags += key_flags()

    def arguments(loaded: int) -> list[str]:
        return ["worker", *flags, "--child", str(loaded), "--", target]

    return Supervisor(arguments, processes, Path.cwd() if reload else None).run()


def _serve(
    target: str,
    brokers: tuple[str, ...],
    threads: int | None,
    processes: int | None,
    verbose: bool,
    loaded_fd: int,
) -> None:
    """One process's part: load, tell the supervisor, serve until a signal."""
    from majordomus.net.worker.async_worker import AsyncWorker

    exit_on_sigterm()
    log_to_stderr(verbose)
    worker = load(target)
    worker.configure(broker=brokers or None, threads=threads, processes=processes, **keys())
    if not worker.handlers:
        raise ConfigurationError(
            f"{target!r} has no service: decorate a function with @worker.service(name)"
        )
    if loaded_fd != NOBODY:
        services = ", ".join(sorted(worker.handlers))
        os.write(
            loaded_fd, printable(f"serving {services} at {', '.join(worker.endpoints)}").encode()
        )
        os.close(loaded_fd)
    threading.Thread(target=_warn_when_alone, args=(worker,), daemon=True).start()
    if isinstance(worker, AsyncWorker):
        asyncio.run(worker.run())
    else:
        worker.run()


def _warn_when_alone(worker: Worker | AsyncWorker) -> None:
    """A worker waits for its broker for ever; who has mistyped the URL should hear of it."""
    until = time.monotonic() + PATIENCE
    while not worker.ready:
        if time.monotonic() > until:
            tried = ", ".join(worker.endpoints)
            logger.warning("no broker has registered this worker yet, it goes on trying: %s", tried)
            return
        time.sleep(0.05)


def load(target: str) -> Worker | AsyncWorker:
    """The worker object that `target`, MODULE:NAME, names; the current folder comes first.

    Raises: ConfigurationError when there is no such module or object, when the module cannot be
    imported, or when the object is no worker.
    """
    from majordomus.net.worker.async_worker import AsyncWorker
    from majordomus.net.worker.worker import Worker

    module_name, colon, name = target.partition(":")
    if not (colon and module_name and name):
        raise ConfigurationError(f"{target!r}: MODULE:NAME is wanted, as in worker:worker")
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
            f"{target!r}: {name} is no Worker or AsyncWorker but {type(found).__name__}"
            f"{_workers_in(module)}"
        )
    return found


def _workers_in(module: object) -> str:
    from majordomus.net.worker.async_worker import AsyncWorker
    from majordomus.net.worker.worker import Worker

    names = [name for name, one in vars(module).items() if isinstance(one, Worker | AsyncWorker)]
    return f" (there is {', '.join(names)})" if names else ""

"""The program of a broker, MODULE:NAME: found, and taken anew while it runs.

What is new is loaded beside the running broker, on a thread of its own. Only when all of it is
there does the broker change over; what is broken changes nothing, and the log says so.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final, NamedTuple

from majordomus.cli.config import BrokerConfig
from majordomus.cli.run.supervisor import UNWATCHED, python_files
from majordomus.cli.target import import_here
from majordomus.errors import ConfigurationError, LocalProtocolError

if TYPE_CHECKING:
    from majordomus.net.broker.broker import Broker

LOOK: Final = 0.25
"""Seconds between two looks whether something is to be read anew."""

logger = logging.getLogger("majordomus.broker")


def make_broker(target: str, config: BrokerConfig) -> Broker:
    """The broker of `target`, MODULE:NAME: a class or a function, which gets the settings and
    `bind=`, or a broker, or a function without arguments that makes one.

    Raises: ConfigurationError when there is none, when it is no broker, or when it is one that is
    made already and something else was to tell it its settings.
    """
    from majordomus.net.broker.broker import Broker

    found = _find(target)
    if isinstance(found, Broker):
        _nothing_given(target, config)
        return found
    if not callable(found):
        raise ConfigurationError(
            f"{target!r} is no Broker, and makes none: it is {type(found).__name__}"
        )
    try:
        if inspect.signature(found).parameters:
            made = found(config.settings, bind=config.bind)
        else:
            _nothing_given(target, config)
            made = found()
    except ConfigurationError:
        raise
    except Exception as error:
        raise ConfigurationError(f"{target!r} fails: {type(error).__name__}: {error}") from error
    if not isinstance(made, Broker):
        raise ConfigurationError(f"{target!r} made no Broker but {type(made).__name__}")
    return made


def _nothing_given(target: str, config: BrokerConfig) -> None:
    if config.given:
        raise ConfigurationError(
            f"{target!r} makes its own settings, so {', '.join(config.given)} cannot be given: "
            "name a class, or a function that takes (settings, bind=)"
        )


def _find(target: str) -> object:
    module_name, colon, name = target.partition(":")
    if not (colon and module_name and name):
        raise ConfigurationError(f"{target!r}: MODULE:NAME is wanted, as in app:MyBroker")
    found: object = import_here(module_name)
    for part in name.split("."):
        if not hasattr(found, part):
            raise ConfigurationError(f"{target!r}: {module_name} has no {name}")
        found = getattr(found, part)
    return found


@contextlib.contextmanager
def fresh_modules(root: Path) -> Iterator[None]:
    """Modules below `root` are imported anew inside; after an error the old ones are back."""
    old = {name: module for name, module in list(sys.modules.items()) if _is_below(module, root)}
    for name in old:
        del sys.modules[name]
    importlib.invalidate_caches()
    try:
        yield
    except BaseException:
        new = [name for name, module in list(sys.modules.items()) if _is_below(module, root)]
        for name in new:
            del sys.modules[name]
        sys.modules.update(old)
        raise


def _is_below(module: ModuleType | None, root: Path) -> bool:
    """A file of the user's own: not what runs us, nor what is installed there."""
    file = getattr(module, "__file__", None)
    name = getattr(module, "__name__", "")
    if not file or name == "__main__" or name.partition(".")[0] == "majordomus":
        return False
    path = Path(file).resolve()
    return path.is_relative_to(root) and not UNWATCHED & set(path.relative_to(root).parts)


class App(NamedTuple):
    """How the broker is made, now and again. ``target`` is "" for a broker without a program of its
    own. ``middleware`` is asked before the program's, and is the same for as long as we run.
    ``watch``: the folder whose files are looked at."""

    target: str
    configure: Callable[[], BrokerConfig]
    middleware: list[object]
    watch: Path | None

    def make(self, config: BrokerConfig) -> Broker:
        """A broker, not opened. Raises: ConfigurationError."""
        from majordomus.net.broker.broker import Broker

        if self.target:
            broker = make_broker(self.target, config)
        else:
            broker = Broker(config.settings, bind=config.bind)
        broker.hooks[:0] = self.middleware
        return broker


class Reloader:
    """Reads the configuration and the program of a running broker anew: on SIGHUP, and when a file
    has changed that is watched."""

    def __init__(self, broker: Broker, app: App, bind: list[str]) -> None:
        self._broker, self._app, self._bind = broker, app, bind
        self._files = python_files(app.watch) if app.watch else {}
        self._asked = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="majordomus-reload", daemon=True)

    def __enter__(self) -> None:
        signal.signal(signal.SIGHUP, self._hear)
        if self._app.watch:
            sys.dont_write_bytecode = True  # two changes within a second would look like one
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _hear(self, _number: int, _frame: object) -> None:
        self._asked = True

    def _run(self) -> None:
        while not self._stopped.wait(LOOK):
            if self._asked or self._changed():
                self._asked = False
                self._reload()

    def _changed(self) -> bool:
        if self._app.watch is None:
            return False
        before, self._files = self._files, python_files(self._app.watch)
        return before != self._files

    def _reload(self) -> None:
        try:
            config = self._app.configure()
            with fresh_modules(Path.cwd().resolve()):
                new = self._app.make(config)
            self._broker.adopt(new, lambda left: self._told(config, left))
        except LocalProtocolError:
            logger.info("not reloaded: the broker ends")
        except ConfigurationError as error:
            logger.warning("not reloaded, all stays as it was: %s", error)
        except (Exception, SystemExit):
            logger.exception("not reloaded, all stays as it was")

    def _told(self, config: BrokerConfig, left: tuple[str, ...]) -> None:
        """In the broker's thread, once all has changed over."""
        names = [*left, *(["bind"] if config.bind != self._bind else [])]
        if names:
            logger.warning("%s cannot change while the broker runs", ", ".join(names))
        logger.info("reloaded: %s", "settings and hooks" if self._app.target else "settings")

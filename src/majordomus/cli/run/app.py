"""The program of a broker, MODULE:NAME, is loaded here, and loaded again while the broker runs.

A reload imports the new program on a thread of its own. The broker adopts the new program when all
of it has been loaded. If it has an error, nothing changes and the error is logged.
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

from majordomus import system
from majordomus.cli.config import BrokerConfig
from majordomus.cli.run.supervisor import UNWATCHED, python_files
from majordomus.cli.target import import_here
from majordomus.errors import ConfigurationError, LocalProtocolError

if TYPE_CHECKING:
    from majordomus.net.broker.broker import Broker

LOOK: Final = 0.25
"""Seconds between two checks for a reload."""

logger = logging.getLogger("majordomus.broker")


def make_broker(target: str, config: BrokerConfig) -> Broker:
    """Make the broker of `target`, MODULE:NAME.

    NAME is a Broker, a function without arguments that returns one, or a class or function that is
    called with the settings and `bind=`.

    Raises: ConfigurationError when NAME is none of these, or when settings are given although the
    program makes its own.
    """
    from majordomus.net.broker.broker import Broker

    found = _find(target)
    if isinstance(found, Broker):
        _nothing_given(target, config)
        return found
    if not callable(found):
        raise ConfigurationError(
            f"{target!r} is of type {type(found).__name__}, "
            "not a Broker or a function that returns one"
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
        raise ConfigurationError(
            f"{target!r} returned an object of type {type(made).__name__}, not a Broker"
        )
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
        raise ConfigurationError(f"{target!r}: expected MODULE:NAME, as in app:MyBroker")
    found: object = import_here(module_name)
    for part in name.split("."):
        if not hasattr(found, part):
            raise ConfigurationError(f"{target!r}: {module_name} has no {name}")
        found = getattr(found, part)
    return found


@contextlib.contextmanager
def fresh_modules(root: Path) -> Iterator[None]:
    """Modules below `root` are imported again inside. After an error the old ones are restored."""
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
    """Return whether `module` is a file of the user's program: not installed, not majordomus."""
    file = getattr(module, "__file__", None)
    name = getattr(module, "__name__", "")
    if not file or name == "__main__" or name.partition(".")[0] == "majordomus":
        return False
    path = Path(file).resolve()
    return path.is_relative_to(root) and not UNWATCHED & set(path.relative_to(root).parts)


class App(NamedTuple):
    """How the broker is made, at the start and at each reload.

    ``target``: MODULE:NAME, "" for a broker without a program. ``configure``: reads the settings.
    ``middleware``: called before the program's; a reload does not change it. ``watch``: the folder
    whose files are checked, None for none.
    """

    target: str
    configure: Callable[[], BrokerConfig]
    middleware: list[object]
    watch: Path | None

    def make(self, config: BrokerConfig) -> Broker:
        """Make a broker without opening it. Raises: ConfigurationError."""
        from majordomus.net.broker.broker import Broker

        if self.target:
            broker = make_broker(self.target, config)
        else:
            broker = Broker(config.settings, bind=config.bind)
        broker.hooks[:0] = self.middleware
        return broker


class Reloader:
    """Reloads settings and program of a broker, on SIGHUP and when a watched file changes."""

    def __init__(self, broker: Broker, app: App, bind: list[str]) -> None:
        self._broker, self._app, self._bind = broker, app, bind
        self._files = python_files(app.watch) if app.watch else {}
        self._asked = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="majordomus-reload", daemon=True)

    def __enter__(self) -> None:
        for number in system.HANGUP:
            signal.signal(number, self._request_reload)
        if self._app.watch:
            sys.dont_write_bytecode = True  # a .pyc hides a second change within one second
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _request_reload(self, _number: int, _frame: object) -> None:
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
            self._broker.adopt(new, lambda left: self._log_reloaded(config, left))
        except LocalProtocolError:
            logger.info("not reloaded: the broker is ending")
        except ConfigurationError as error:
            logger.warning("not reloaded, nothing changed: %s", error)
        except (Exception, SystemExit):
            logger.exception("not reloaded, nothing changed")

    def _log_reloaded(self, config: BrokerConfig, left: tuple[str, ...]) -> None:
        """Log the result. Called in the broker's thread when it has adopted the new program."""
        names = [*left, *(["bind"] if config.bind != self._bind else [])]
        if names:
            logger.warning("%s cannot change while the broker runs", ", ".join(names))
        logger.info("reloaded: %s", "settings and hooks" if self._app.target else "settings")

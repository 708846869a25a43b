"""Reload the access rules of a running broker: the file is checked twice a second.

An invalid file changes nothing and is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from majordomus.core.broker.state.access_rules import AccessRules
from majordomus.errors import ConfigurationError
from majordomus.security.acl import AclFile

EVERY: Final = 0.5
"""Seconds between two checks: a right that is removed from the file ends within one second."""


class AccessRulesWatch:
    """Watches one file. `take` is called with its rules, and the first time by the constructor."""

    def __init__(
        self,
        path: str,
        take: Callable[[AccessRules, float], None],
        logger: logging.Logger,
        now: float,
    ) -> None:
        """Raises: ConfigurationError when the file cannot be used."""
        self._file = AclFile(Path(path))
        self._take, self._logger = take, logger
        self.due = now + EVERY
        take(self._file.rights, now)

    def look(self, now: float) -> None:
        """Check the file. Call it when `due` has come; `now` is monotonic seconds."""
        self.due = now + EVERY
        try:
            if not self._file.changed():
                return
        except ConfigurationError as error:
            self._logger.warning("the access rules stay as they were: %s", error)
            return
        self._take(self._file.rights, now)
        self._logger.info("the access rules of %s hold from now on", self._file.path)

"""What Client and AsyncClient share beside their calls: the session, the deadline, the options.

Nothing here waits.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any, Final

from majordomus.core.client.login import LoginSession
from majordomus.core.client.session import ClientSession, ClientSettings
from majordomus.net import endpoints
from majordomus.net.bodies import Body
from majordomus.net.client.calls import CallOptions, make_options
from majordomus.net.connection.credentials import Access, credentials
from majordomus.net.deadline import HANDLING, within
from majordomus.protocol.spec import Dialect

DEFAULT_TIMEOUT: Final = 30.0
"""Seconds of a call, unless the client or the call has another timeout."""
BROKER_PROBE: Final = "mmi.service"
"""The service of the broker itself that `ping` and `serves` call."""


def make_session(
    urls: Sequence[str],
    dialect: str,
    settings: ClientSettings | None,
    *,
    presence: bool,
    login: Sequence[str | bytes] | None = None,
) -> ClientSession:
    """Make the session of a client.

    `presence`: whether the session announces itself; only MDP/0.3 can.
    Raises: ConfigurationError for an unknown dialect.
    """
    known = endpoints.dialect(dialect)
    base = settings or ClientSettings()
    present = presence and known is Dialect.MDP03
    kept = {name: getattr(base, name) for name in ClientSettings.__struct_fields__}
    made = ClientSettings(**{**kept, "dialect": known, "endpoints": len(urls), "presence": present})
    if login is not None:
        return LoginSession(made, credentials(login), os.urandom, random.random)
    return ClientSession(made, os.urandom, random.random)


class ClientBase:
    """The arguments of a client, and of its calls.

    endpoints: the URLs of the brokers, in the order in which they are tried.
    timeout: seconds that a call gets if it has no timeout of its own.
    """

    def __init__(self, access: Access, session: ClientSession, timeout: float) -> None:
        self.endpoints = access.urls
        self.timeout = timeout
        self._session = session

    def _seconds(self, timeout: float | None) -> float:
        """Return the timeout of a call: at most what is left to the request that is handled now."""
        asked = self.timeout if timeout is None else timeout
        return asked if HANDLING.get() == inf else within(asked)

    def _options(
        self,
        service: str | bytes,
        body: Body,
        timeout: float | None,
        fail_fast: bool,
        once: bool,
        to: bytes,
        metadata: Mapping[str, Any] | None,
        *,
        more: bool = False,
    ) -> CallOptions:
        """Pack the options of a call. Raises: as `make_options`."""
        return make_options(
            service,
            body,
            self._seconds(timeout),
            fail_fast=fail_fast,
            once=once,
            more=more,
            to=to,
            metadata=metadata,
        )

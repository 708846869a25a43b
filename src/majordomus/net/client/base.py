"""What Client and AsyncClient share beside their calls: the session, the deadline, the options.

Nothing here waits.
"""

from __future__ import annotations

import os
import random
import weakref
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any, Final

from majordomus.core.client.login import LoginSession
from majordomus.core.client.session import ClientSession, ClientSettings
from majordomus.core.session.settings import LEAST_RECEIVED
from majordomus.errors import ConfigurationError, LocalProtocolError
from majordomus.net import endpoints
from majordomus.net.bodies import Body
from majordomus.net.client.calls import CallOptions, make_options
from majordomus.net.client.negotiation import Encodings, name_of
from majordomus.net.connection.credentials import Access, credentials
from majordomus.net.deadline import HANDLING, inherited, within
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
    spread: bool,
    login: Sequence[str | bytes] | None = None,
) -> ClientSession:
    """Make the session of a client.

    `presence`: whether the session announces itself; only MDP/0.3 can. `spread`: whether the
    brokers are tried in an order of the client's own; else in that of `urls`.
    Raises: ConfigurationError for an unknown dialect, and for settings out of their bounds.
    """
    known = endpoints.dialect(dialect)
    base = settings or ClientSettings()
    present = presence and known is Dialect.MDP03
    kept = {name: getattr(base, name) for name in ClientSettings.__struct_fields__}
    own: dict[str, Any] = {"dialect": known, "endpoints": len(urls), "presence": present}
    if spread and len(urls) > 1:
        own["spread"] = tuple(url.encode() for url in urls)
    if any(map(endpoints.is_inproc, urls)):
        own["home_after"] = inf  # libzmq accepts inproc connections before there is a broker
    if base.max_received < LEAST_RECEIVED:
        raise ConfigurationError(
            f"max_received is at least {LEAST_RECEIVED} bytes, not {base.max_received}"
        )
    made = ClientSettings(**{**kept, **own})
    if login is not None:
        return LoginSession(made, credentials(login), os.urandom, random.random)
    return ClientSession(made, os.urandom, random.random)


class ClientBase:
    """The arguments of a client, and of its calls.

    endpoints: the URLs of the brokers, in the order in which they are tried.
    timeout: seconds that a call gets if it has no timeout of its own.
    """

    _session: ClientSession
    _encodings: Encodings

    def __init__(
        self, access: Access, timeout: float, make: Callable[[], tuple[ClientSession, Any, Any]]
    ) -> None:
        """`make` makes the session, and the `_runner` and `_handlers` of this kind of client."""
        self.endpoints = access.urls
        self._access = access
        self.timeout = timeout
        self._make = make
        self._family: weakref.WeakSet[ClientBase] = weakref.WeakSet([self])
        """This client, and those that share its connection."""
        self._begin()

    def _begin(self) -> None:
        session, runner, handlers = self._make()
        encodings = Encodings()
        for client in self._family:
            client._session, client._encodings = session, encodings
            client.__dict__.update(_runner=runner, _handlers=handlers)

    def restore(self) -> None:
        """Undo `redirect`, for `majordomus.testing`: the client is as before its first use. It must
        be closed."""
        self._access.restore()
        self._begin()

    def redirect(self, url: str) -> None:
        """Call the broker at `url`, without keys: for `majordomus.testing`.

        Raises: LocalProtocolError for a client that was used.
        """
        if self._used:
            raise LocalProtocolError("used", "a client can be attached before its first use alone")
        self._access.redirect(url)
        self._redirected()

    @property
    def _used(self) -> bool:
        """Whether the client has a connection, or had one."""
        raise NotImplementedError

    def _redirected(self) -> None:
        """The URLs have changed."""

    def _seconds(self, timeout: float | None) -> float:
        """Return the timeout of a call: at most what is left to the request that is handled now."""
        asked = self.timeout if timeout is None else timeout
        return asked if HANDLING.get() == inf else within(asked)

    def _inherited(self, metadata: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """Return the metadata of a call that a handler makes: it belongs to the same trace."""
        if self._session.settings.dialect is not Dialect.MDP03:
            return metadata
        return inherited(metadata)

    @property
    def _asks_contracts(self) -> bool:
        """Whether the broker may know contracts."""
        return self._session.settings.dialect is Dialect.MDP03

    def _forget(self, service: str | bytes) -> None:
        """Ask for the contract of a service again: a call has failed with BadRequest."""
        self._encodings.forget(name_of(service))

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
        if HANDLING.get() != inf:
            metadata = self._inherited(metadata)
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

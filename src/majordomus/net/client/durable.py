"""Durable calls: the options that become metadata, and the methods that take an id.

Both clients have the same four methods. What they send, and what an answer means, is here once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Protocol

from majordomus.core.client.session import ClientSession
from majordomus.errors import ConfigurationError, RemoteProtocolError, error_for
from majordomus.net.bodies import Body, Reply, reply_with
from majordomus.net.client.async_call_runner import AsyncCallRunner
from majordomus.net.client.call_runner import CallRunner
from majordomus.net.client.calls import CallOptions, pack_options
from majordomus.protocol import spec
from majordomus.protocol.metadata import packed_metadata

RESULT: Final = "$durable.result"
WITHDRAW: Final = "$durable.withdraw"
FORGET: Final = "$durable.forget"
AT_ONCE: Final = b"0"
ID_OF: Final = re.compile(r"[0-9a-f]{32}")
LEAST: Final = 5.0
"""Seconds that a question whose answer must not wait may take."""

Id = str | bytes


class _Client(Protocol):
    """What these methods need of a client."""

    _session: ClientSession

    def _seconds(self, timeout: float | None) -> float: ...


def durable_metadata(
    metadata: Mapping[str, Any] | None,
    key: str | bytes | None,
    expires: float | None = None,
    keep: float | None = None,
    *,
    detach: bool = False,
) -> dict[str, Any] | None:
    """Return `metadata` with the options of a durable request; None for none."""
    found = dict(metadata or {})
    for name, value in (("key", key), ("expires", expires), ("keep", keep)):
        if value is not None:
            found[name] = value
    if detach:
        found["detach"] = True
    return found or None


def check_durable(*, once: bool, to: bytes, hedge_after: float | None) -> None:
    """Raises: ConfigurationError for options that do not go with `durable`."""
    for name, given in (("once", once), ("to", bool(to)), ("hedge_after", hedge_after is not None)):
        if given:
            raise ConfigurationError(f"{name} does not go with durable=True")


def call_options(
    service: str | bytes,
    body: Body,
    seconds: float,
    metadata: Mapping[str, Any] | None,
    *,
    fail_fast: bool = False,
) -> CallOptions:
    """Pack the options of a call with the flag DURABLE. Raises: as `make_options`."""
    flags = spec.DURABLE | (spec.FAIL_FAST if fail_fast else 0)
    return pack_options(service, body, seconds, flags, b"", metadata)


def _submit(
    client: _Client,
    service: str | bytes,
    body: Body,
    timeout: float | None,
    metadata: Mapping[str, Any] | None,
) -> CallOptions:
    return call_options(service, body, client._seconds(timeout), metadata)


def _question(client: _Client, service: str, id: Id, timeout: float | None) -> CallOptions:
    if not isinstance(id, str | bytes):
        raise ConfigurationError(
            f"the id of a durable request is text or bytes, not {type(id).__name__}"
        )
    name = id.encode("utf-8", "replace") if isinstance(id, str) else id
    body = [name, AT_ONCE] if timeout == 0 else [name]
    seconds = LEAST if timeout == 0 else client._seconds(timeout)
    return pack_options(service, body, seconds, 0, b"", None)


def _id(reply: Reply) -> str:
    """Return the id of a stored request. Raises: RemoteProtocolError when a hook of the broker has
    answered in place of the store."""
    if len(reply.frames) != 1 or not ID_OF.fullmatch(reply.text):
        raise RemoteProtocolError(
            "not-stored",
            "the broker answered without an id: a hook may have, and nothing is stored",
        )
    return reply.text


def _outcome(reply: Reply) -> Reply:
    """Return the outcome in the answer of `$durable.result`. Raises: a StatusError."""
    status = int(reply.frames[0]) if reply.frames and reply.frames[0].isdigit() else 0
    if status != spec.OK:
        raise error_for(status or spec.HANDLER_FAILED, reply.frames[1:])
    return reply_with(reply.frames[1:], packed_metadata(reply), status)


class DurableMethods:
    """The durable methods of `Client`."""

    _runner: CallRunner
    _session: ClientSession

    def _seconds(self, timeout: float | None) -> float:
        raise NotImplementedError

    def submit_durable(
        self,
        service: str | bytes,
        body: Body = None,
        *,
        key: str | bytes | None = None,
        expires: float | None = None,
        keep: float | None = None,
        timeout: float | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> str:
        """Store a request at the broker, and return its id when it is stored.

        It runs at least once, and has one outcome, whatever happens to client, worker and broker.
        `key`: the same key, service and body are the same request, and its id is returned; with
        another body Conflict is raised. `expires`: seconds after which it ends without an outcome.
        `keep`: seconds that the outcome is kept. Without a key BrokerLost leaves open whether it is
        stored.

        Raises: as `call`; RemoteProtocolError when a hook of the broker has answered, so that
        nothing is stored.
        """
        packed = durable_metadata(metadata, key, expires, keep, detach=True)
        return _id(self._runner.call(_submit(self, service, body, timeout, packed)))

    def result(self, id: Id, *, timeout: float | None = None) -> Reply:
        """Wait for the outcome of a durable request, for `timeout` seconds; 0 does not wait.

        Raises: DeadlineExceeded while there is none; NotFound for an id that is unknown here, or
        another user's; Expired when the outcome is no longer kept; as `call` for an outcome that is
        a failure.
        """
        return _outcome(self._runner.call(_question(self, RESULT, id, timeout)))

    def withdraw(self, id: Id, *, timeout: float | None = None) -> None:
        """End a durable request with status 499; a worker that has it is told to stop.

        Raises: Conflict when it has an outcome already; NotFound, Expired as `result`.
        """
        self._runner.call(_question(self, WITHDRAW, id, timeout))

    def forget(self, id: Id, *, timeout: float | None = None) -> None:
        """Delete the outcome of a durable request.

        Raises: Conflict when there is none yet; NotFound, Expired as `result`.
        """
        self._runner.call(_question(self, FORGET, id, timeout))


class AsyncDurableMethods:
    """The durable methods of `AsyncClient`. Arguments and errors are those of `Client`."""

    _runner: AsyncCallRunner
    _session: ClientSession

    def _seconds(self, timeout: float | None) -> float:
        raise NotImplementedError

    async def submit_durable(
        self,
        service: str | bytes,
        body: Body = None,
        *,
        key: str | bytes | None = None,
        expires: float | None = None,
        keep: float | None = None,
        timeout: float | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> str:
        """Store a request at the broker, and return its id when it is stored. See `Client`."""
        packed = durable_metadata(metadata, key, expires, keep, detach=True)
        return _id(await self._runner.call(_submit(self, service, body, timeout, packed)))

    async def result(self, id: Id, *, timeout: float | None = None) -> Reply:
        """Wait for the outcome of a durable request. See `Client`."""
        return _outcome(await self._runner.call(_question(self, RESULT, id, timeout)))

    async def withdraw(self, id: Id, *, timeout: float | None = None) -> None:
        """End a durable request with status 499. See `Client`."""
        await self._runner.call(_question(self, WITHDRAW, id, timeout))

    async def forget(self, id: Id, *, timeout: float | None = None) -> None:
        """Delete the outcome of a durable request. See `Client`."""
        await self._runner.call(_question(self, FORGET, id, timeout))

"""A message of a legacy dialect as data, and the interface of the legacy codecs.

A reader is total: for any frames it returns a `Command` or raises `RemoteProtocolError`. A writer
returns all frames of the dialect, delimiter and hash included, but no routing id and no envelope.
It raises `LocalProtocolError` when the dialect has no such message.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, cast

from majordomus.protocol.spec import Dialect, Frame

_NO_BODY = cast("list[Frame]", ())
"""The default of `body`. A tuple, so that nothing can be appended to it by mistake."""


class Command(NamedTuple):
    """One legacy message, in the terms of MDP/0.3."""

    number: int
    """The command: READY, REQUEST, PARTIAL, FINAL, HEARTBEAT or DISCONNECT of `spec`."""
    from_worker: bool = False
    """Whether a worker sent it to a broker. False in messages that clients and workers read."""
    service: bytes = b""
    """The name of the service; empty in messages without one."""
    address: bytes = b""
    """The handle of the dispatch; in a Delphi broker's READY, the worker's id as text."""
    body: list[Frame] = _NO_BODY
    """The frames of the body. Readers always build a new list."""
    load: float | None = None
    """The load in a Delphi HEARTBEAT: -1.0 when unreadable, None when it is unchanged."""


of_all_fields = tuple.__new__
"""`of_all_fields(Command, (…))` makes a Command without the Python call of `Command(…)`.

Readers make one for each message, so that the call would cost."""


class Codec(Protocol):
    """Reader and writer of a legacy dialect. Stateless: all peers and threads may share one.

    Readers raise RemoteProtocolError; writers raise LocalProtocolError.
    """

    @property
    def dialect(self) -> Dialect: ...

    def read_broker(self, frames: list[Frame]) -> Command:
        """Read what a client or worker has sent to a broker; see `from_worker`."""
        ...

    def read_client(self, frames: list[Frame]) -> Command:
        """Read what a broker has sent to a client: PARTIAL or FINAL."""
        ...

    def read_worker(self, frames: list[Frame]) -> Command:
        """Read what a broker has sent to a worker: REQUEST, HEARTBEAT, DISCONNECT, Delphi READY."""
        ...

    def c2b_request(self, service: bytes, body: list[Frame]) -> list[Frame]: ...

    def b2c_partial(self, service: bytes, body: list[Frame]) -> list[Frame]: ...

    def b2c_final(self, service: bytes, body: list[Frame]) -> list[Frame]: ...

    def w2b_ready(self, service: bytes) -> list[Frame]: ...

    def w2b_partial(self, service: bytes, address: bytes, body: list[Frame]) -> list[Frame]: ...

    def w2b_final(self, service: bytes, address: bytes, body: list[Frame]) -> list[Frame]: ...

    def w2b_heartbeat(self, service: bytes, load: float | None) -> list[Frame]: ...

    def w2b_disconnect(self, service: bytes) -> list[Frame]: ...

    def b2w_ready(self, worker_id: bytes) -> list[Frame]:
        """Write READY (Delphi only). `worker_id` is the raw routing id, sent in upper-case hex."""
        ...

    def b2w_request(self, address: bytes, body: list[Frame]) -> list[Frame]: ...

    def b2w_heartbeat(self) -> list[Frame]: ...

    def b2w_disconnect(self) -> list[Frame]: ...

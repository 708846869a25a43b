"""What a message of a legacy dialect means, and what every legacy codec offers, live here.

A reader is total: whatever the frames hold, it returns a `Command` or raises `RemoteProtocolError`.
A writer returns every frame of the dialect itself (delimiter and hash included, routing id and
envelope not), or raises `LocalProtocolError` for what the dialect cannot say.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, cast

from majordomus.protocol.spec import Dialect, Frame

_NO_BODY = cast("list[Frame]", ())
"""Default of a command made by hand: nothing can be appended to it by mistake."""


class Command(NamedTuple):
    """One legacy message, in the terms of MDP/0.3. Readers always build `body` as a new list."""

    number: int
    """READY, REQUEST, PARTIAL, FINAL, HEARTBEAT or DISCONNECT of `spec`."""
    from_worker: bool = False
    """At a broker: a worker sent it. False in what clients and workers read."""
    service: bytes = b""
    address: bytes = b""
    """The dispatch handle; in a Delphi broker's READY the worker id as text."""
    body: list[Frame] = _NO_BODY
    load: float | None = None
    """Delphi HEARTBEAT only: a load, -1.0 when unreadable, None to leave the last one as it was."""


of_all_fields = tuple.__new__
"""`of_all_fields(Command, (…))` is `Command(…)` without the call of Python's that makes a named
tuple: readers make one for each message."""


class Codec(Protocol):
    """A legacy dialect. Stateless: one instance may serve any number of peers and threads."""

    @property
    def dialect(self) -> Dialect: ...

    def read_broker(self, frames: list[Frame]) -> Command:
        """What a broker reads from a client or a worker; `from_worker` says which."""
        ...

    def read_client(self, frames: list[Frame]) -> Command:
        """What a client reads: a PARTIAL or a FINAL."""
        ...

    def read_worker(self, frames: list[Frame]) -> Command:
        """What a worker reads: a REQUEST, HEARTBEAT or DISCONNECT (Delphi: READY as well)."""
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
        """Delphi only; `worker_id` is the raw routing id, written in upper-case hex."""
        ...

    def b2w_request(self, address: bytes, body: list[Frame]) -> list[Frame]: ...

    def b2w_heartbeat(self) -> list[Frame]: ...

    def b2w_disconnect(self) -> list[Frame]: ...

"""The reader and the writer of each legacy message: one table for vectors and properties."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from majordomus.protocol import spec
from majordomus.protocol.command import Codec, Command
from majordomus.protocol.spec import Dialect, Frame


class Content(NamedTuple):
    """The content of a message. Each writer uses the fields that its message has."""

    service: bytes = b"echo"
    address: bytes = b"\xc0\xff\xee"
    body: list[Frame] = [b"hello"]  # noqa: RUF012 - never changed
    load: float | None = None
    worker_id: bytes = b"\x00\x6b\x8b"


Writer = Callable[[Codec, Content], list[Frame]]

WRITERS: dict[tuple[int, str], Writer] = {
    (spec.REQUEST, "c>b"): lambda codec, s: codec.c2b_request(s.service, s.body),
    (spec.PARTIAL, "b>c"): lambda codec, s: codec.b2c_partial(s.service, s.body),
    (spec.FINAL, "b>c"): lambda codec, s: codec.b2c_final(s.service, s.body),
    (spec.READY, "w>b"): lambda codec, s: codec.w2b_ready(s.service),
    (spec.PARTIAL, "w>b"): lambda codec, s: codec.w2b_partial(s.service, s.address, s.body),
    (spec.FINAL, "w>b"): lambda codec, s: codec.w2b_final(s.service, s.address, s.body),
    (spec.HEARTBEAT, "w>b"): lambda codec, s: codec.w2b_heartbeat(s.service, s.load),
    (spec.DISCONNECT, "w>b"): lambda codec, s: codec.w2b_disconnect(s.service),
    (spec.READY, "b>w"): lambda codec, s: codec.b2w_ready(s.worker_id),
    (spec.REQUEST, "b>w"): lambda codec, s: codec.b2w_request(s.address, s.body),
    (spec.HEARTBEAT, "b>w"): lambda codec, s: codec.b2w_heartbeat(),
    (spec.DISCONNECT, "b>w"): lambda codec, s: codec.b2w_disconnect(),
}

MISSING = {
    Dialect.MDP01: {(spec.PARTIAL, "b>c"), (spec.PARTIAL, "w>b"), (spec.READY, "b>w")},
    Dialect.MDP02: {(spec.READY, "b>w")},
    Dialect.MDP02D: {(spec.READY, "b>w")},
    Dialect.DELPHI: {(spec.PARTIAL, "b>c"), (spec.PARTIAL, "w>b")},
}
"""The messages that a dialect does not have."""

COMMANDS = {
    dialect: [key for key in WRITERS if key not in lacking] for dialect, lacking in MISSING.items()
}
"""The messages that a dialect has."""


def read(codec: Codec, direction: str, frames: list[Frame]) -> Command:
    """Read `frames` as the receiver of `direction` does."""
    if direction in ("c>b", "w>b"):
        return codec.read_broker(frames)
    return codec.read_client(frames) if direction == "b>c" else codec.read_worker(frames)


def expected(dialect: Dialect, number: int, direction: str, content: Content) -> Command:
    """The Command that the receiver must read: the fields that the dialect transports."""
    delphi = dialect is Dialect.DELPHI
    from_worker = direction == "w>b"
    names_service = (
        (number, direction) in ((spec.REQUEST, "c>b"), (spec.READY, "w>b"))
        or (direction == "b>c" and dialect is not Dialect.MDP02D)
        or (delphi and from_worker)
    )
    addressed = number in (spec.REQUEST, spec.PARTIAL, spec.FINAL) and "w" in direction
    address = content.address if addressed else b""
    if (number, direction) == (spec.READY, "b>w"):
        address = content.worker_id.hex().upper().encode()
    has_body = number in (spec.REQUEST, spec.PARTIAL, spec.FINAL)
    has_load = delphi and number == spec.HEARTBEAT and from_worker
    return Command(
        number,
        from_worker,
        content.service if names_service else b"",
        address,
        (content.body or [b""]) if has_body else [],
        content.load if has_load else None,
    )

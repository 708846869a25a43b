"""The messages between a worker and its handler processes: each is one struct, and one message of a
pipe. Also whether this process is one that imports its worker's modules."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TypeAlias

import msgspec


class Target(msgspec.Struct, frozen=True, array_like=True):
    """Where a handler process finds a handler's function.

    module: the name under which the module is imported
    name: the qualified name of the function in it
    file: the module's file, for a module that cannot be imported by its name
    """

    module: str
    name: str
    file: str


class LoadMessage(msgspec.Struct, tag="load", array_like=True):
    """The first message to a new process: how it finds modules, and what it loads now.

    path: the worker's `sys.path`
    python_path: the worker's PYTHONPATH; None if it has none
    main_module, main_file: the worker's main program, if handlers are in it; else empty
    targets: the functions to load
    """

    path: list[str]
    python_path: str | None
    main_module: str
    main_file: str
    targets: list[Target]


class RequestMessage(msgspec.Struct, tag="work", array_like=True):
    """One request.

    number: chosen by the pool, unique in it; a CancelMessage names it
    target: the handler
    remaining: seconds until the deadline; None for no deadline
    packed, broker_packed: the client's and the broker's metadata, as they came
    service, frames, client, once: as those of `Request`
    dispatch: the number of the dispatch at its broker
    trace: the traceparent of what the handler does
    """

    number: int
    target: Target
    service: str
    frames: list[bytes]
    client: bytes
    remaining: float | None
    packed: bytes
    broker_packed: bytes
    once: bool
    dispatch: int = 0
    trace: str = ""


class CancelMessage(msgspec.Struct, tag="stop", array_like=True):
    """The request with this number is cancelled: its caller no longer waits."""

    number: int


class LoadedMessage(msgspec.Struct, tag="loaded", array_like=True):
    """The process has loaded its functions, or could not.

    problem: in one line, why it could not; else empty
    """

    problem: str


class StartedMessage(msgspec.Struct, tag="begun", array_like=True):
    """The handler is called now: a request whose process dies from here on has cost an attempt."""


class PartMessage(msgspec.Struct, tag="part", array_like=True):
    """A part that a generator has yielded. ``metadata``: its packed map, or empty."""

    frames: list[bytes]
    metadata: bytes = b""


class FinalMessage(msgspec.Struct, tag="final", array_like=True):
    """The outcome.

    status, frames: of the FINAL
    traceback: of an exception that the handler did not raise on purpose; else empty
    metadata: of the FINAL, packed; else empty
    """

    status: int
    frames: list[bytes]
    traceback: str
    metadata: bytes = b""


ToProcess: TypeAlias = LoadMessage | RequestMessage | CancelMessage
FromProcess: TypeAlias = LoadedMessage | StartedMessage | PartMessage | FinalMessage

encode = msgspec.msgpack.Encoder().encode
decode_to_process = msgspec.msgpack.Decoder(ToProcess).decode
decode_from_process = msgspec.msgpack.Decoder(FromProcess).decode

_loading = False


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Mark that a handler process imports the modules of its worker."""
    global _loading  # noqa: PLW0603 - one to a process
    _loading = True
    try:
        yield
    finally:
        _loading = False


def is_loading() -> bool:
    """Whether a handler process imports the modules of its worker. No worker may start then."""
    return _loading

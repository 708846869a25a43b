"""What a worker and its handler processes say to each other: one struct, one message of a pipe."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TypeAlias

import msgspec


class Target(msgspec.Struct, frozen=True, array_like=True):
    """Where a handler's function is found again: by import, or, if the module cannot be imported
    by its name, in its file.
    """

    module: str
    name: str
    file: str


class Load(msgspec.Struct, tag="load", array_like=True):
    """To a new process: how to find modules as its parent does, and the functions to load now."""

    path: list[str]
    python_path: str | None
    main_module: str
    main_file: str
    targets: list[Target]


class Work(msgspec.Struct, tag="work", array_like=True):
    """One request. `remaining`: seconds until its deadline, None for ever."""

    number: int
    target: Target
    service: str
    frames: list[bytes]
    client: bytes
    remaining: float | None
    packed: bytes
    broker_packed: bytes
    once: bool


class Stop(msgspec.Struct, tag="stop", array_like=True):
    """Nobody waits for the answer to work `number` any more."""

    number: int


class Loaded(msgspec.Struct, tag="loaded", array_like=True):
    """The process has loaded its functions; `problem` says in one line why it could not."""

    problem: str


class Begun(msgspec.Struct, tag="begun", array_like=True):
    """From here on the handler runs."""


class PartMessage(msgspec.Struct, tag="part", array_like=True):
    """What a generator has yielded."""

    frames: list[bytes]


class FinalMessage(msgspec.Struct, tag="final", array_like=True):
    """The end. `story`: the traceback of what was raised and not meant to be."""

    status: int
    frames: list[bytes]
    story: str


ToProcess: TypeAlias = Load | Work | Stop
FromProcess: TypeAlias = Loaded | Begun | PartMessage | FinalMessage

encode = msgspec.msgpack.Encoder().encode
decode_to_process = msgspec.msgpack.Decoder(ToProcess).decode
decode_from_process = msgspec.msgpack.Decoder(FromProcess).decode

_loading = False


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Inside, a handler process imports the modules of its worker."""
    global _loading  # noqa: PLW0603 - one to a process
    _loading = True
    try:
        yield
    finally:
        _loading = False


def is_loading() -> bool:
    """Whether nothing may be started, since this is only the import for a handler process."""
    return _loading

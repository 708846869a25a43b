"""Handlers for the tests of the process pool: handler processes import them from here."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from majordomus.errors import BadRequest, DeadlineExceeded, NotFound
from majordomus.messages import Record
from majordomus.net.bodies import Reply
from majordomus.net.client.client import Client
from majordomus.net.worker.request import Request

if TYPE_CHECKING:
    from majordomus.net.worker.base import WorkerBase


def pid(request: Request) -> str:
    return str(os.getpid())


def echo(request: Request) -> list[bytes]:
    return request.frames


def facts(request: Request) -> list[str]:
    left = f"{request.remaining:.0f}"
    return [
        request.service,
        str(len(request.client)),
        left,
        str(request.metadata),
        str(request.once),
    ]


def held(request: Request) -> str:
    """Write this process's id to the file, and return when the file is gone."""
    file = Path(request.text)
    with file.open("a") as out:
        out.write(f"{os.getpid()}\n")
    with contextlib.suppress(FileNotFoundError):
        while len(file.read_text().split()) == 1:
            time.sleep(0.005)
    return str(os.getpid())


def parts(request: Request) -> Iterator[str]:
    """Yield a part, and another one when the file exists."""
    yield "first"
    while not Path(request.text).exists():
        time.sleep(0.005)
    yield "second"


def part_and_death(request: Request) -> Iterator[str]:
    yield "first"
    os.kill(os.getpid(), 9)


def endless(request: Request) -> Iterator[str]:
    """Yield parts for ever; write "ended" to the file when the generator is closed."""
    try:
        while True:
            yield str(os.getpid())
            time.sleep(0.002)
    finally:
        Path(request.text).write_text("ended")


def eager(request: Request) -> Iterator[bytes]:
    """Yield a thousand large parts; the file has the number of those that were taken."""
    for number in range(1000):
        Path(request.text).write_text(str(number))
        yield b"x" * 10_000


def obeys_cancel(request: Request) -> None:
    file = Path(request.text)
    file.write_text(str(os.getpid()))
    while not request.cancelled:
        time.sleep(0.002)
    file.write_text(f"cancelled {os.getpid()}")


def ignores_cancel(request: Request) -> None:
    Path(request.text).write_text(str(os.getpid()))
    while True:
        pass


def hold_the_lock(request: Request) -> None:
    """Sleep without releasing the interpreter's lock: no other thread runs."""
    Path(request.text).write_text(str(os.getpid()))
    ctypes.PyDLL(None).sleep(60)


def with_a_child(request: Request) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    Path(request.text).write_text(f"{os.getpid()} {child.pid}")
    time.sleep(60)


def segfault(request: Request) -> None:
    with Path(request.text).open("a") as out:
        out.write(f"{os.getpid()}\n")
    ctypes.string_at(0)


def boom(request: Request) -> None:
    raise ValueError(request.text)


def absent(request: Request) -> None:
    raise NotFound(f"no {request.text} here")


def descriptors(request: Request) -> str:
    """The kinds of the open descriptors, except for the one that lists them."""
    found = []
    for number in Path("/proc/self/fd").iterdir():
        if int(number.name) > 2 and number.is_symlink():
            with contextlib.suppress(FileNotFoundError):
                found.append(str(number.readlink()).partition(":")[0])
    return " ".join(found)


def threads(request: Request) -> str:
    names = [task / "comm" for task in Path("/proc/self/task").iterdir()]
    return " ".join(sorted(name.read_text().strip() for name in names))


class Point(Record):
    x: Annotated[int, 1]
    y: Annotated[int, 2] = 0


def mirror(point: Point) -> Point:
    return Point(point.y, point.x)


async def coroutine(request: Request) -> None: ...


def made() -> Callable[[Request], str]:
    def inner(request: Request) -> str:
        return "never"

    return inner


def asks(request: Request) -> str:
    """Call a handler that returns only when it is cancelled, with a deadline that is far away."""
    with Client(request.text) as client:
        try:
            client.call("obeys_cancel", "/dev/null", timeout=60.0)
        except DeadlineExceeded:
            return f"{request.remaining:.0f} s are left"
    return "answered"


def shadowed(request: Request) -> str:
    return "never"


original = shadowed


def shadowed(request: Request) -> str:  # type: ignore[no-redef]
    return "another"


class Holder:
    def method(self, request: Request) -> str:
        return "never"

    @staticmethod
    def static(request: Request) -> str:
        return "static"


class MuteError(Exception):
    def __str__(self) -> str:
        raise SystemExit("no text")


def hurt(request: Request) -> Reply:
    """Raise or return what is hard to send, and only that."""
    kind = request.text
    if kind == "surrogate":
        raise ValueError("\udc80")
    if kind == "mute":
        raise MuteError
    if kind == "text":
        raise BadRequest(ValueError("no such user"))  # type: ignore[arg-type]
    reply = Reply(b"", 200.0 if kind == "status" else 200)  # type: ignore[arg-type]
    if kind == "frames":
        reply.frames = [1]  # type: ignore[list-item]
    return reply


def die(request: Request) -> None:
    os._exit(3)


SERVED = (
    *(pid, echo, facts, held, parts, part_and_death, endless, eager, obeys_cancel, ignores_cancel),
    *(hold_the_lock, with_a_child, segfault, boom, hurt, die, asks, absent, descriptors, threads),
    mirror,
)


def serve(worker: WorkerBase) -> None:
    """Add all of them."""
    for handler in SERVED:
        worker.add(handler.__name__, handler, run="process")

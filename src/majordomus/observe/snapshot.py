"""The sections of a broker's snapshot as structs, and the questions that fetch them.

`reading` does no I/O: it yields the body of each question and gets the frames of its answer. A
client with threads and one of asyncio drive the same generator.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any, Final, TypeVar

import msgspec

from majordomus.errors import MajordomusError, NotSupported, error_for

QUESTION: Final = "mmi.metrics"
VERSION: Final = 1
"""The version of the snapshot that is read here."""
MOST_PAGES: Final = 5000
"""Pages of one section. A broker that answers with more is not asked further."""


class TimesRow(msgspec.Struct, array_like=True):
    """Ends of requests by outcome, and histograms of their times (`Histogram.of`)."""

    answered: int
    failed: int
    expired: int
    cancelled: int
    queue: list[float]
    service: list[float]
    total: list[float]


class StoreRow(msgspec.Struct):
    """The store of a broker with durable requests, and these requests.

    store: the kind of the store. rows, bytes: its size. free: bytes that its disk has left; -1
    where that is not known. accepts: False while its disk is almost full. open, running: durable
    requests. unstored: writes that are not stored yet. oldest: seconds since the oldest request.
    """

    store: str
    rows: int
    open: int
    running: int
    unstored: int
    bytes: int
    free: int
    accepts: bool
    oldest: float


class BrokerRow(msgspec.Struct):
    """The section `broker`; its parts are those of docs/spec/mdp-0.3.md, section 17.3."""

    name: str
    version: str
    wire: str
    rules: str
    uptime: float
    restarts: int
    draining: bool
    now: dict[str, int]
    counts: dict[str, int]
    refused: dict[str, int]
    dropped: dict[str, int]
    handshakes_refused: dict[str, int]
    account: dict[str, int]
    process: dict[str, float]
    late: list[float]
    forgotten: TimesRow
    v: int = 0
    store: StoreRow | None = None


class ServiceRow(msgspec.Struct, array_like=True):
    """One service. `queue`, `service` and `total` are histograms (`Histogram.of`)."""

    name: str
    workers: int
    queued: int
    queued_bytes: int
    open: int
    answered: int
    failed: int
    expired: int
    cancelled: int
    queue: list[float]
    service: list[float]
    total: list[float]

    @property
    def ended(self) -> int:
        """How many requests have ended."""
        return self.answered + self.failed + self.expired + self.cancelled


class WorkerRow(msgspec.Struct, array_like=True):
    """One worker. `silent` is in seconds, `load` is None before the first report."""

    id: str
    services: list[str]
    state: str
    capacity: int
    held: int
    load: float | None
    silent: float
    dialect: str
    user: str


class ClientRow(msgspec.Struct, array_like=True):
    """One peer that is no worker. `held` is what it makes the broker hold, in bytes."""

    id: str
    user: str
    dialect: str
    open: int
    queued: int
    held: int
    silent: float


class Snapshot(msgspec.Struct):
    """The sections that were asked for; the others are empty."""

    broker: BrokerRow
    services: list[ServiceRow] = []
    workers: list[WorkerRow] = []
    clients: list[ClientRow] = []

    @property
    def run(self) -> tuple[str, float, float]:
        """The identity of this run of the broker."""
        process = self.broker.process
        return self.broker.name, process.get("pid", 0), process.get("started", 0)


class _Page(msgspec.Struct):
    v: int
    rows: list[Any]


class _Services(_Page):
    rows: list[ServiceRow]


class _Workers(_Page):
    rows: list[WorkerRow]


class _Clients(_Page):
    rows: list[ClientRow]


_PAGES: Final[dict[str, type[_Page]]] = {
    "services": _Services,
    "workers": _Workers,
    "clients": _Clients,
}
SECTIONS: Final = tuple(_PAGES)
"""The sections beside `broker`."""

Frames = list[bytes]
Found = TypeVar("Found", bound=msgspec.Struct)


def reading(
    sections: Sequence[str] = (), most: int = 1_000_000
) -> Generator[Frames, Frames, Snapshot]:
    """Yield the body of each question to QUESTION; to be sent the frames of its answer.

    Returns the snapshot, with at most some `most` rows of each section.

    Raises: StatusError for the status of an answer, MajordomusError for one that is no snapshot.
    """
    answer = yield [b"broker"]
    snapshot = Snapshot(_decode(answer, BrokerRow))
    _check_version(snapshot.broker.v)
    for section in sections:
        rows: list[object] = []
        body = [section.encode()]
        for _ in range(MOST_PAGES):
            answer = yield body
            page = _decode(answer, _PAGES[section])
            _check_version(page.v)
            rows += page.rows
            if len(answer) < 3 or len(rows) >= most:
                break
            body = [section.encode(), bytes(answer[2])]
        setattr(snapshot, section, rows)
    return snapshot


def read(
    ask: Callable[[Frames], Frames], sections: Sequence[str] = (), most: int = 1_000_000
) -> Snapshot:
    """Read a snapshot with `ask`, which calls QUESTION and returns the frames of the answer."""
    questions = reading(sections, most)
    try:
        body = next(questions)
        while True:
            body = questions.send(ask(body))
    except StopIteration as end:
        found: Snapshot = end.value
        return found


async def read_async(
    ask: Callable[[Frames], Awaitable[Frames]], sections: Sequence[str] = (), most: int = 1_000_000
) -> Snapshot:
    """Do the same with an `ask` that is awaited."""
    questions = reading(sections, most)
    try:
        body = next(questions)
        while True:
            body = questions.send(await ask(body))
    except StopIteration as end:
        found: Snapshot = end.value
        return found


def _check_version(version: int) -> None:
    if version != VERSION:
        raise NotSupported(
            f"the broker's snapshot has version {version}, and this program reads {VERSION}"
        )


def _decode(answer: Frames, kind: type[Found]) -> Found:
    status = bytes(answer[0]) if answer else b""
    if status == b"501":
        raise NotSupported(f"this broker does not answer {QUESTION}")
    if status != b"200":
        number = int(status) if status.isdigit() and len(status) < 4 else 500
        raise error_for(number, [b"the broker refuses " + QUESTION.encode()])
    try:
        return msgspec.json.decode(bytes(answer[1]), type=kind)
    except (IndexError, msgspec.DecodeError, msgspec.ValidationError) as error:
        raise MajordomusError(f"the broker's reply to {QUESTION} is no snapshot") from error

"""Requests as they end, read from `mmi.ended`."""

from __future__ import annotations

from typing import Final

import msgspec

from majordomus.errors import MajordomusError, NotSupported, error_for

QUESTION: Final = "mmi.ended"
VERSION: Final = 1


class EndedRequest(msgspec.Struct, array_like=True):
    """One ended request. Durations are in seconds.

    ago: since its end. id: what `majordomus explain` takes. why: the text of a failure. took: from
    acceptance to the end. waited: before its last dispatch. worker: its routing id in hex.
    """

    ago: float
    id: str
    service: str
    status: int
    why: str
    took: float
    waited: float
    attempts: int
    worker: str
    user: str
    trace: str


class Answer(msgspec.Struct):
    """One answer. `missed` is how many requests it lacks, `more` whether more of them wait."""

    v: int
    missed: int | None
    more: bool
    rows: list[EndedRequest]


class EndedReader:
    """Reads ended requests from one broker, answer by answer."""

    def __init__(self) -> None:
        self._cursor = b""

    def begin_anew(self) -> None:
        """Forget the cursor: the broker has been lost, or is another one."""
        self._cursor = b""

    def question(self) -> list[bytes]:
        """The body of the next question."""
        return [b"", self._cursor] if self._cursor else [b""]

    def read(self, answer: list[bytes]) -> Answer:
        """Read an answer.

        Raises: StatusError for the status of the answer, MajordomusError for one that is invalid.
        """
        found = _decode(answer)
        self._cursor = bytes(answer[2])
        return found


def _decode(answer: list[bytes]) -> Answer:
    status = bytes(answer[0]) if answer else b""
    if status == b"501":
        raise NotSupported(f"this broker does not answer {QUESTION}")
    if status != b"200":
        number = int(status) if status.isdigit() and len(status) < 4 else 500
        raise error_for(number, [b"the broker refuses " + QUESTION.encode()])
    try:
        found = msgspec.json.decode(bytes(answer[1]), type=Answer)
        bytes(answer[2])
    except (IndexError, msgspec.DecodeError, msgspec.ValidationError) as error:
        raise MajordomusError(f"the broker's reply to {QUESTION} is invalid") from error
    if found.v != VERSION:
        raise NotSupported(f"the broker's {QUESTION} has version {found.v}, not {VERSION}")
    return found

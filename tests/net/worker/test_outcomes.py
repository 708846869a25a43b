"""What a handler returns or raises becomes the status and the frames of a FINAL."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import IntEnum

import pytest

from majordomus.errors import BadRequest, NotFound, StatusError
from majordomus.messages import Message
from majordomus.net.bodies import Reply
from majordomus.net.worker.outcomes import (
    MAX_TEXT,
    logged_outcome_of_error,
    outcome_of_error,
    outcome_of_result,
    outcome_without_caller,
)
from majordomus.net.worker.request import Request
from majordomus.protocol import metadata, spec


@pytest.mark.parametrize(
    ("result", "status", "frames"),
    [
        (None, 200, []),
        (b"x", 200, [b"x"]),
        (b"", 200, [b""]),
        ("é", 200, ["é".encode()]),
        (bytearray(b"x"), 200, [b"x"]),
        (memoryview(b"x"), 200, [b"x"]),
        ([], 200, []),
        ([b"a", "b", memoryview(b"c")], 200, [b"a", b"b", b"c"]),
        ((b"a",), 200, [b"a"]),
        (Message([b"a", b"b"]), 200, [b"a", b"b"]),
        (Reply([b"a"], status=404), 404, [b"a"]),
    ],
)
def test_result_of_a_handler_becomes_status_and_frames(
    result: object, status: int, frames: list[bytes]
) -> None:
    assert outcome_of_result(result) == (status, frames)


@pytest.mark.parametrize("result", [3, 1.5, object(), {"a": 1}, [b"a", 3]])
def test_result_that_is_no_body_is_a_failure_of_the_handler(result: object) -> None:
    status, (text,) = outcome_of_result(result)
    assert status == 500
    assert text.startswith(
        b"LocalProtocolError: bad-body: a body is bytes, text, a list of them, a record, a Struct,"
    )


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (ValueError("no good"), 500, b"ValueError: no good"),
        (KeyError("k"), 500, b"KeyError: 'k'"),
        (SystemExit(3), 500, b"SystemExit: 3"),
        (NotFound("no such user"), 404, b"no such user"),
        (StatusError("teapot", status=418), 418, b"teapot"),
        (asyncio.CancelledError(), 499, b"cancelled"),
        (ValueError("\udc80"), 500, b"ValueError: \\udc80"),
        (ValueError("x" * 10_000), 500, (b"ValueError: " + b"x" * 10_000)[:MAX_TEXT]),
    ],
)
def test_exception_becomes_status_and_text(error: BaseException, status: int, text: bytes) -> None:
    assert outcome_of_error(error) == (status, [text])


class MuteError(Exception):
    """An exception of which no text can be made."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


NO_REPLY = b"StatusError, of which no reply can be made: LocalProtocolError: bad-status: "


class Teapot(IntEnum):
    SHORT = 418


class EvilBytes(bytes):
    def __len__(self) -> int:
        return 10**9

    def __bytes__(self) -> bytes:
        raise SystemExit(3)


class EvilText(str):
    __slots__ = ()

    def encode(self, *_: object) -> bytes:  # type: ignore[override]
        raise KeyboardInterrupt

    def __getitem__(self, _: object) -> str:
        raise KeyboardInterrupt


class HasFrames:
    def __init__(self, frames: object) -> None:
        self._frames = frames

    @property
    def frames(self) -> object:
        if isinstance(self._frames, BaseException):
            raise self._frames
        return self._frames


def changed(reply: Reply, **attributes: object) -> Reply:
    for name, value in attributes.items():
        setattr(reply, name, value)
    return reply


@pytest.mark.parametrize(
    ("result", "status", "frames"),
    [
        (lambda: Reply(["text", b"x"]), 200, [b"text", b"x"]),
        (lambda: changed(Reply(), frames=["text"]), 200, [b"text"]),
        (lambda: Reply(b"", Teapot.SHORT), 418, [b""]),
        (lambda: EvilBytes(b"ab"), 200, [b"ab"]),
        (lambda: [EvilText("ab")], 200, [b"ab"]),
        (lambda: HasFrames([b"a", "b"]), 200, [b"a", b"b"]),
    ],
)
def test_result_becomes_plain_frames_and_a_plain_status(
    result: Callable[[], object], status: int, frames: list[bytes]
) -> None:
    found = outcome_of_result(result())
    assert found == (status, frames)
    assert [type(one) for one in (found[0], *found[1])] == [int, *[bytes] * len(frames)]


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (lambda: changed(Reply(), frames=[1]), b"LocalProtocolError: bad-body: a body is bytes"),
        (lambda: changed(Reply(), frames=7), b"LocalProtocolError: bad-body: a body is bytes"),
        (lambda: Reply(b"", 200.0), b"LocalProtocolError: bad-status: a status is an int"),
        (lambda: Reply(b"", True), b"LocalProtocolError: bad-status: a status is an int"),
        (lambda: Reply(b"", 0), b"LocalProtocolError: bad-status: a status is an int"),
        (lambda: "\udc80", b"LocalProtocolError: bad-body: text is not valid Unicode"),
        (lambda: HasFrames("text"), b"LocalProtocolError: bad-body: a body is bytes"),
        (lambda: HasFrames(SystemExit(2)), b"SystemExit: 2"),
        (lambda: HasFrames(MuteError()), b"MuteError: its text cannot be read (RuntimeError)"),
    ],
)
def test_result_that_cannot_be_sent_is_a_failure_whatever_its_methods_raise(
    result: Callable[[], object], text: bytes
) -> None:
    status, frames = outcome_of_result(result())
    assert status == 500
    assert frames[0].startswith(text)


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (BadRequest(ValueError("no such user")), 400, b"no such user"),  # type: ignore[arg-type]
        (MuteError(), 500, b"MuteError: its text cannot be read (RuntimeError)"),
        (StatusError("x", status=Teapot.SHORT), 418, b"x"),
        (NotFound(EvilText("no such user")), 404, b"no such user"),
        (
            StatusError("x", status=404.5),  # type: ignore[arg-type]
            500,
            NO_REPLY + b"a status is an int from 1 to 65535, not 404.5",
        ),
        (
            StatusError("x", status=200),
            500,
            NO_REPLY + b"a failure is not 200",
        ),
    ],
)
def test_exception_that_is_malformed_becomes_a_status_and_a_text(
    error: BaseException, status: int, text: bytes
) -> None:
    assert logged_outcome_of_error(Request("s", []), error) == (status, [text])


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"trace": "00-ab%s-cd-01"}, "the handler of s failed (trace 00-ab%s-cd-01)"),
        ({"trace": 7}, "the handler of s failed"),
        ({}, "the handler of s failed"),
        ({"trace": "t"}, "the handler of s failed (request d7, trace t)"),
    ],
)
def test_log_of_a_failed_handler_has_the_id_and_the_trace_of_its_request(
    values: dict[str, object], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    number = spec.BROKER_ID_BIT | 7 if "request" in text else 5
    request = Request("s", [], packed=metadata.pack(values), number=number)
    logged_outcome_of_error(request, ValueError("x"))
    (record,) = caplog.records
    assert record.getMessage() == text
    name, fields = record.fact  # type: ignore[attr-defined]
    assert (name, fields["service"]) == ("handler-failed", "s")
    assert fields.get("trace", "") == (values.get("trace") if "(" in text else "")


def test_metadata_that_are_malformed_cost_no_outcome() -> None:
    request = Request("s", [], packed=b"\xc1")
    assert logged_outcome_of_error(request, ValueError("x"))[0] == 500


@pytest.mark.parametrize("begun", [False, True])
def test_request_past_its_deadline_ends_with_408_unless_it_was_cancelled(
    begun: bool,
) -> None:
    request = Request("echo", [b"x"], deadline=5.0, clock=lambda: 6.0)
    assert request.cancelled
    assert outcome_without_caller(request, begun=begun)[0] == 408
    request._cancel()
    assert outcome_without_caller(request, begun=begun)[0] == 499

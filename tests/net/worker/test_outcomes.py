"""What a handler returns or raises becomes the status and the frames of a FINAL."""

from __future__ import annotations

import asyncio

import pytest

from majordomus.errors import NotFound, StatusError
from majordomus.messages import Message
from majordomus.net.bodies import Reply
from majordomus.net.worker.outcomes import MAX_TEXT, outcome_of_error, outcome_of_result


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
        b"LocalProtocolError: bad-body: a body is bytes, text, a list of them, a Message or None"
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

"""Bodies, replies and requests: their frames, their deadline and their metadata."""

from __future__ import annotations

import copy
import pickle
from math import inf
from typing import Any

import pytest

from majordomus.errors import LocalProtocolError, RemoteProtocolError
from majordomus.net.bodies import Reply, to_frames
from majordomus.net.worker.request import Request
from majordomus.protocol import metadata


def test_body_of_a_reply_is_all_its_frames_joined() -> None:
    assert Reply([b"a", b"b"]).body == b"ab"
    assert Reply([]).body == b""
    assert Reply([b"x"]).text == "x"


def test_reply_can_be_sent_on_as_a_body() -> None:
    assert to_frames(Reply([b"a", b"b"])) == [b"a", b"b"]


class Framed:
    def __init__(self, frames: object) -> None:
        self.frames = frames


def replied(frames: object) -> Reply:
    made = Reply()
    made.frames = frames  # type: ignore[assignment]
    return made


@pytest.mark.parametrize("hold", [replied, Framed])
@pytest.mark.parametrize("frames", [[1], ["\ud800"], [b"x", None], 7, None, b"bytes", "text"])
def test_object_whose_frames_are_of_a_wrong_kind_is_no_body(hold: Any, frames: object) -> None:
    with pytest.raises(LocalProtocolError, match="bad-body"):
        to_frames(hold(frames))


@pytest.mark.parametrize("hold", [replied, Framed])
def test_frames_of_an_object_may_be_text(hold: Any) -> None:
    assert to_frames(hold(["text", bytearray(b"x")])) == [b"text", b"x"]


def test_replies_are_equal_by_what_they_hold() -> None:
    assert Reply([b"a"], 200, b"w") == Reply([b"a"], 200, b"w")
    assert Reply([b"a"]) != Reply([b"b"])
    assert Reply([b"a"]) != b"a"


def test_reply_shows_the_beginning_of_its_body() -> None:
    assert repr(Reply([b"x" * 100])) == f"Reply(status=200, frames=1, body={b'x' * 40 + b'...'!r})"


class TestRequest:
    now = 100.0

    def request(self, deadline: float = inf, packed: bytes = b"") -> Request:
        return Request(
            "echo", [b"a", b"b"], deadline=deadline, packed=packed, clock=lambda: self.now
        )

    def test_remaining_counts_down_to_zero(self) -> None:
        request = self.request(deadline=101.5)
        assert request.remaining == 1.5
        self.now = 102.0
        assert request.remaining == 0.0

    def test_it_is_cancelled_when_it_is_withdrawn(self) -> None:
        request = self.request()
        assert request.remaining == inf
        assert not request.cancelled
        request._cancel()
        assert request.cancelled

    def test_it_is_cancelled_when_its_deadline_has_passed(self) -> None:
        request = self.request(deadline=100.5)
        assert not request.cancelled
        self.now = 100.5
        assert request.cancelled

    def test_metadata_is_read_when_it_is_asked_for(self) -> None:
        assert self.request().metadata == {}
        assert self.request(packed=metadata.pack({"type": "text/plain"})).metadata == {
            "type": "text/plain"
        }
        malformed = self.request(packed=b"\xc1")
        with pytest.raises(RemoteProtocolError):
            _ = malformed.metadata

    def test_body_is_all_its_frames_joined(self) -> None:
        assert self.request().body == b"ab"
        assert self.request().text == "ab"


def pickled(reply: Reply) -> Reply:
    """Return what a pickle of the reply is loaded to."""
    made: Reply = pickle.loads(pickle.dumps(reply))  # noqa: S301 - it was made here
    return made


@pytest.mark.parametrize("again", [copy.copy, pickled])
def test_reply_can_be_copied_and_pickled_with_all_its_fields(again: Any) -> None:
    reply = Reply([b"a", b"b"], 201, b"worker", {"type": "text/plain"})
    assert again(reply) == reply

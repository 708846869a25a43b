"""The Delphi dialect: the hash setting and the load text, beyond the vectors."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from majordomus.errors import RemoteProtocolError
from majordomus.protocol import delphi, spec
from majordomus.protocol.command import Command
from majordomus.protocol.delphi import read_load, write_load
from tests.protocol.fuzzing import few

READY = Command(spec.READY, True, b"MyService", b"", [])


def _ready(closing: bytes) -> list[bytes]:
    return [b"", b"\x01", b"MyService", closing]


def test_unverified_codec_takes_a_hash_of_zero_and_a_right_one_and_no_other() -> None:
    right = bytes.fromhex("d39224de")
    assert delphi.UNVERIFIED.read_broker(_ready(bytes(4))) == READY
    assert delphi.UNVERIFIED.read_broker(_ready(right)) == READY
    for wrong in (b"\x01\x00\x00\x00", bytes(3), bytes(5), b""):
        with pytest.raises(RemoteProtocolError, match="wrong-hash"):
            delphi.UNVERIFIED.read_broker(_ready(wrong))


def test_unverified_codec_writes_the_real_hash() -> None:
    assert delphi.UNVERIFIED.w2b_ready(b"MyService") == delphi.CODEC.w2b_ready(b"MyService")


@pytest.mark.parametrize(
    ("text", "load"),
    [
        (b"", None),
        (b"0", 0.0),
        (b"-0", -1.0),
        (b"0.42 0.31 0.20 1/345 6789\n", 0.42),
        (b"0,42", 0.42),
        (b"12,5 x", 12.5),
        (b"5.", 5.0),
        (b".5", 0.5),
        (b"+.5e1", 5.0),
        (b"1e3", 1000.0),
        (b"0.42\x00\x00\xff\xfe", 0.42),
        (b"0.42\n", 0.42),
        (b"0.42\r\n", 0.42),
        (b"0.42\tx", 0.42),
        (b"0.42x", -1.0),
        (b" 0.42", -1.0),
        (b"\n", -1.0),
        (b"\x00" * 1024, -1.0),
        (b"0,42,", -1.0),
        (b"1.000,5", -1.0),
        (b"-1", -1.0),
        (b"-2.5", -1.0),
        (b"NaN", -1.0),
        (b"inf", -1.0),
        (b"1e400", -1.0),
        (b"1_0", -1.0),
        ("٣".encode(), -1.0),
        (b".", -1.0),
        (b",", -1.0),
        (b"e5", -1.0),
        (b"1" * 4096, -1.0),
        (b"0.5 " + b"\xff" * 4092, 0.5),
    ],
)
def test_load_is_the_first_token_of_its_text(text: bytes, load: float | None) -> None:
    assert read_load(text) == load


def test_load_text_of_more_than_4_kib_is_malformed() -> None:
    with pytest.raises(RemoteProtocolError, match="long-load"):
        read_load(b"0.5 " + b" " * 4093)


@pytest.mark.parametrize("no_load", [-0.1, -1.0, math.nan, math.inf, -math.inf])
def test_invalid_load_is_written_as_minus_one(no_load: float) -> None:
    assert write_load(no_load) == b"-1"
    assert read_load(write_load(no_load)) == spec.LOAD_UNREADABLE


@few
@given(st.floats(min_value=0, allow_infinity=False))
def test_load_is_read_as_it_was_written(load: float) -> None:
    assert read_load(write_load(load)) == load


def test_empty_frame_behind_the_client_is_the_delimiter_once() -> None:
    frames = [b"", b"\x04", b"MyService", b"\x01", b"", b"", b"x"]
    command = delphi.CODEC.read_broker([*frames, delphi.digest(frames)])
    assert command == Command(spec.FINAL, True, b"MyService", b"\x01", [b"", b"x"])

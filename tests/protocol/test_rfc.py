"""MDP/0.1, MDP/0.2 and delimited 0.2, beyond the vectors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from majordomus.errors import LocalProtocolError
from majordomus.protocol import mdp01, mdp02, mdp02d
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.command import Codec
from majordomus.protocol.spec import Dialect, Frame
from tests.protocol import sides
from tests.protocol.fuzzing import few

services = st.text(min_size=1, max_size=60).map(str.encode)
bodies = st.lists(st.binary(max_size=20), max_size=5)
said = st.builds(
    sides.Content,
    service=services,
    address=st.binary(min_size=1, max_size=20),
    body=bodies,
    load=st.none() | st.just(-1.0) | st.floats(min_value=0, allow_infinity=False),
    worker_id=st.binary(min_size=1, max_size=255),
)

EVERY = [(dialect, *key) for dialect, keys in sides.COMMANDS.items() for key in keys]
MISSING = [(dialect, *key) for dialect, keys in sides.MISSING.items() for key in keys]


@pytest.mark.parametrize(("dialect", "number", "direction"), EVERY)
@few
@given(said=said)
def test_reader_returns_the_content_that_the_writer_got(
    dialect: Dialect, number: int, direction: str, said: sides.Content
) -> None:
    codec = LEGACY[dialect]
    frames = sides.WRITERS[number, direction](codec, said)
    expected = sides.expected(dialect, number, direction, said)
    assert sides.read(codec, direction, frames) == expected


@pytest.mark.parametrize(("dialect", "number", "direction"), MISSING)
def test_writer_refuses_a_message_that_its_dialect_does_not_have(
    dialect: Dialect, number: int, direction: str
) -> None:
    with pytest.raises(LocalProtocolError):
        sides.WRITERS[number, direction](LEGACY[dialect], sides.Content())


@pytest.mark.parametrize("codec", LEGACY.values(), ids=lambda codec: codec.dialect)
@pytest.mark.parametrize(
    ("service", "reason"),
    [(b"", "empty-service"), (b"\xff", "bad-utf8"), (b"a" * 256, "long-service")],
)
def test_writer_refuses_a_service_name_that_readers_refuse(
    codec: Codec, service: bytes, reason: str
) -> None:
    for write in (codec.w2b_ready, lambda name: codec.c2b_request(name, [b"x"])):
        with pytest.raises(LocalProtocolError) as caught:
            write(service)
        assert caught.value.reason == reason


@pytest.mark.parametrize("codec", LEGACY.values(), ids=lambda codec: codec.dialect)
def test_writer_refuses_an_empty_address(codec: Codec) -> None:
    with pytest.raises(LocalProtocolError, match="empty-address"):
        codec.b2w_request(b"", [b"x"])
    with pytest.raises(LocalProtocolError, match="empty-address"):
        codec.w2b_final(b"echo", b"", [b"x"])


@pytest.mark.parametrize("codec", LEGACY.values(), ids=lambda codec: codec.dialect)
def test_service_of_255_bytes_is_the_longest(codec: Codec) -> None:
    longest = "ü".encode() * 127 + b"a"
    assert codec.read_broker(codec.w2b_ready(longest)).service == longest


@pytest.mark.parametrize("codec", LEGACY.values(), ids=lambda codec: codec.dialect)
def test_writer_never_keeps_or_changes_the_body_it_was_given(codec: Codec) -> None:
    body: list[Frame] = []
    frames = codec.c2b_request(b"echo", body)
    frames.append(b"more")
    assert body == []
    body = [b"a"]
    frames = codec.b2w_request(b"\x01", body)
    frames.clear()
    assert body == [b"a"]


@pytest.mark.parametrize("codec", LEGACY.values(), ids=lambda codec: codec.dialect)
def test_reader_never_keeps_or_changes_the_frames_it_was_given(codec: Codec) -> None:
    frames = codec.c2b_request(b"echo", [b"a", b"b"])
    before = list(frames)
    codec.read_broker(frames).body.append(b"more")
    assert frames == before


@pytest.mark.parametrize("codec", [mdp01.CODEC, mdp02.CODEC, mdp02d.CODEC], ids=lambda c: c.dialect)
def test_heartbeat_carries_neither_service_nor_load(codec: Codec) -> None:
    assert codec.w2b_heartbeat(b"echo", 0.5) == codec.b2w_heartbeat()


def test_table_of_legacy_codecs_has_every_dialect_but_mdp03() -> None:
    assert {d: codec.dialect for d, codec in LEGACY.items()} == {
        dialect: dialect for dialect in Dialect if dialect is not Dialect.MDP03
    }

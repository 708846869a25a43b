"""Recognition: the rules of the vectors, for every dialect."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from majordomus.errors import RemoteProtocolError
from majordomus.protocol import mdp03, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.recognise import UnsupportedVersion, client_or_worker, recognise
from majordomus.protocol.spec import Dialect, Frame
from tests.protocol.fuzzing import few

REQUESTS: dict[Dialect, list[Frame]] = {
    **{dialect: codec.c2b_request(b"echo", [b"x"]) for dialect, codec in LEGACY.items()},
    Dialect.MDP03: [mdp03.pack(spec.REQUEST, id=1, service=b"echo"), b"x"],
}
KNOWN = (b"MDPC02", b"MDPW02")
envelopes = st.lists(
    st.binary(min_size=1, max_size=255).filter(
        lambda frame: frame not in KNOWN and frame[:4] != spec.MDP03_MAGIC
    ),
    min_size=1,
    max_size=8,
)


@pytest.mark.parametrize("dialect", Dialect)
@few
@given(envelope=envelopes)
def test_request_behind_any_envelope_is_recognised_where_it_begins(
    dialect: Dialect, envelope: list[Frame]
) -> None:
    frames = [*envelope, *REQUESTS[dialect]]
    assert recognise(frames) == (dialect, len(envelope))
    assert client_or_worker(frames, dialect, len(envelope)) is False


@few
@given(envelope=envelopes)
def test_delimiter_before_an_mdp03_header_belongs_to_the_envelope(envelope: list[Frame]) -> None:
    frames = [*envelope, b"", *REQUESTS[Dialect.MDP03]]
    assert recognise(frames) == (Dialect.MDP03, len(envelope) + 1)


@few
@given(envelope=envelopes)
def test_delimiter_before_plain_02_makes_it_delimited(envelope: list[Frame]) -> None:
    frames = [*envelope, b"", *REQUESTS[Dialect.MDP02]]
    assert recognise(frames) == (Dialect.MDP02D, len(envelope))


@pytest.mark.parametrize("dialect", Dialect)
def test_envelope_of_nine_frames_or_of_a_long_one_is_not_recognised(dialect: Dialect) -> None:
    for envelope in ([b"x"] * 9, [b"x" * 256], [b"x", b"x" * 256]):
        with pytest.raises(RemoteProtocolError, match="unrecognised"):
            recognise([*envelope, *REQUESTS[dialect]])


def test_envelope_frame_of_255_bytes_is_the_longest() -> None:
    assert recognise([b"x" * 255, *REQUESTS[Dialect.MDP02]]) == (Dialect.MDP02, 1)


@pytest.mark.parametrize("version", [v for v in range(256) if v not in (3, ord("C"), ord("W"))])
def test_error_for_another_version_has_its_number(version: int) -> None:
    with pytest.raises(UnsupportedVersion) as caught:
        recognise([b"MDP" + bytes([version]) + bytes(18), b"body"])
    assert caught.value.version == version
    assert caught.value.reason == "unsupported-version"


def test_error_for_a_large_first_frame_of_another_version_has_its_number() -> None:
    with pytest.raises(UnsupportedVersion):
        recognise([b"MDP\x04" + bytes(1000)])


@pytest.mark.parametrize("command", range(256))
def test_half_of_an_mdp03_message_is_known_only_for_commands_of_one_side(command: int) -> None:
    frames = [mdp03.pack(command)]
    worker = {spec.READY: True, spec.REJECT: True, spec.CAPACITY: True}
    client = {spec.HELLO: False, spec.REQUEST: False, spec.CANCEL: False}
    expected = {**worker, **client}.get(command)
    assert client_or_worker(frames, Dialect.MDP03, 0) is expected

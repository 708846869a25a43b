"""The MDP/0.3 header: limits of its fields, and round trips."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from majordomus.errors import LocalProtocolError, RemoteProtocolError
from majordomus.protocol import mdp03, spec
from tests import headers
from tests.protocol.fuzzing import few

PLAIN_FLAGS = 0xFF & ~(spec.METADATA | spec.BROKER_METADATA)
fields = st.tuples(
    st.integers(0, 0xFF),
    st.integers(0, 0xFF).map(lambda flags: flags & PLAIN_FLAGS),
    st.integers(0, 0xFFFF),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=255),
    st.binary(max_size=255),
)
announced = st.sampled_from([spec.METADATA, spec.BROKER_METADATA, 0x41])


@few
@given(fields)
def test_header_without_metadata_is_parsed_as_it_was_packed(packed: tuple[Any, ...]) -> None:
    assert headers.parse(mdp03.pack(*packed)) == (*packed, b"")


@few
@given(fields, announced, st.binary(min_size=1, max_size=4096))
def test_header_with_metadata_is_parsed_as_it_was_packed(
    packed: tuple[Any, ...], flag: int, metadata: bytes
) -> None:
    command, flags, *rest = packed
    header = mdp03.pack(command, flags | flag, *rest, metadata)
    assert headers.parse(header) == (command, flags | flag, *rest, metadata)


@few
@given(fields, st.data())
def test_header_that_is_cut_anywhere_is_truncated(packed: tuple[Any, ...], data: Any) -> None:
    header = mdp03.pack(*packed)
    cut = header[: data.draw(st.integers(0, len(header) - 1))]
    with pytest.raises(RemoteProtocolError) as caught:
        headers.parse(cut)
    assert caught.value.reason == "truncated-header"


def test_header_with_metadata_that_is_cut_is_refused_for_its_first_missing_part() -> None:
    header = mdp03.pack(spec.READY, spec.METADATA, 1, 0, 0, b"echo", b"\x01", b"\x80")
    reasons = []
    for cut in range(len(header)):
        with pytest.raises(RemoteProtocolError) as caught:
            headers.parse(header[:cut])
        reasons.append(caught.value.reason)
    assert reasons == ["truncated-header"] * (len(header) - 1) + ["no-metadata"]


def test_fixed_part_is_twenty_bytes_that_other_code_may_patch() -> None:
    header = mdp03.pack(spec.FINAL, 1, 200, 7, 9, b"", b"", b"\x80")
    assert mdp03.HEAD.size == 20
    assert mdp03.HEAD.unpack_from(header) == (spec.MDP03_MAGIC, spec.FINAL, 1, 200, 7, 9)


@pytest.mark.parametrize(
    "wrong",
    [
        {"command": -1},
        {"command": 256},
        {"flags": 256},
        {"code": 65536},
        {"code": -1},
        {"id": 2**64},
        {"id": -1},
        {"ttl": 2**32},
        {"ttl": 1.5},
        {"service": b"a" * 256},
        {"address": b"a" * 256},
    ],
    ids=str,
)
def test_field_out_of_range_raises_a_local_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        mdp03.pack(**{"command": spec.READY, **wrong})
    assert caught.value.reason == "out-of-range"


@pytest.mark.parametrize(
    ("flags", "size", "reason"),
    [
        (0, 1, "trailing-bytes"),
        (spec.ONCE, 1, "trailing-bytes"),
        (spec.METADATA, 0, "no-metadata"),
        (spec.BROKER_METADATA, 0, "no-metadata"),
        (spec.METADATA, 4097, "long-metadata"),
        (spec.BROKER_METADATA, 4097, "long-metadata"),
        (0x41, 8193, "long-metadata"),
    ],
)
def test_metadata_and_their_flags_go_together_both_ways(flags: int, size: int, reason: str) -> None:
    metadata = b"\x80" * size
    with pytest.raises(LocalProtocolError) as ours:
        mdp03.pack(spec.REQUEST, flags, metadata=metadata)
    assert ours.value.reason == reason
    header = bytearray(mdp03.pack(spec.REQUEST))
    header[5] = flags
    with pytest.raises(RemoteProtocolError) as theirs:
        headers.parse(bytes(header) + metadata)
    assert theirs.value.reason == reason


def test_both_maps_may_fill_eight_kib_together() -> None:
    metadata = bytes(8192)
    assert headers.parse(mdp03.pack(spec.REQUEST, 0x41, metadata=metadata))[7] == metadata


def test_service_that_is_not_utf8_is_parsed_unchecked() -> None:
    assert headers.parse(mdp03.pack(spec.REQUEST, service=b"\xff"))[5] == b"\xff"


@pytest.mark.parametrize("expected", [b"echo", b"ech0", b"ech", b"echoes", b"", b"\0echo"])
def test_expected_name_changes_no_field(expected: bytes) -> None:
    header = mdp03.pack(spec.REQUEST, id=7, ttl=5000, service=b"echo", address=b"a")
    fields = mdp03.Fields()
    for _ in range(2):
        fields.expect(expected)
        fields.read(header)
        assert (fields.command, fields.id, fields.service, fields.address) == (
            spec.REQUEST,
            7,
            b"echo",
            b"a",
        )
    fields.read(mdp03.pack(spec.REQUEST, id=8))
    assert fields.service == b""

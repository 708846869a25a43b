"""Every vector of docs/spec, both ways and byte for byte; no page and no command is without one."""

from __future__ import annotations

import pytest

from majordomus.errors import RemoteProtocolError
from majordomus.protocol import mdp03, metadata, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.command import Command
from majordomus.protocol.murmur import murmur2a
from majordomus.protocol.recognise import client_or_worker, recognise
from majordomus.protocol.spec import Dialect
from tests import headers
from tests.protocol import sides, vectors
from tests.protocol.vectors import PAGES, Vector

DIALECT_OF = {page: dialect for dialect, page in PAGES.items()}
LEGACY_PAGES = [PAGES[dialect] for dialect in LEGACY]
MDP03_PAGE = PAGES[Dialect.MDP03]
NOT_MESSAGES = ("HASH", "METADATA")

MDP03_COMMANDS = {
    spec.READY: ("w>b",),
    spec.REQUEST: ("c>b", "b>w"),
    spec.PARTIAL: ("w>b", "b>c", "c>b", "b>w"),
    spec.FINAL: ("w>b", "b>c", "c>b", "b>w"),
    spec.HEARTBEAT: ("w>b", "b>w", "c>b", "b>c"),
    spec.DISCONNECT: ("w>b", "b>w", "c>b", "b>c"),
    spec.WELCOME: ("b>w", "b>c"),
    spec.HELLO: ("c>b",),
    spec.CANCEL: ("c>b", "b>w"),
    spec.CAPACITY: ("w>b", "b>w", "b>c"),
    spec.EVENT: ("c>b", "w>b", "b>c", "b>w"),
    spec.SUBSCRIBE: ("c>b", "w>b"),
    spec.UNSUBSCRIBE: ("c>b", "w>b"),
    spec.REJECT: ("w>b",),
    spec.CREDIT: ("c>b", "b>w", "w>b", "b>c"),
    spec.CONTRACT: ("b>w", "w>b"),
}


def _valid(*pages: str, named: tuple[str, ...] = ()) -> list[Vector]:
    every = [vector for page in pages for vector in vectors.valid(page)]
    if named:
        return [vector for vector in every if vector.name in named]
    return [vector for vector in every if vector.name not in NOT_MESSAGES]


def _malformed(*pages: str, named: tuple[str, ...] = ()) -> list[Vector]:
    every = [vector for page in pages for vector in vectors.malformed(page)]
    return [vector for vector in every if (vector.name in named) == bool(named)]


def _said(vector: Vector) -> sides.Content:
    worker_id = bytes.fromhex(vector.fields.get("worker-id", ""))
    return sides.Content(vector.service, vector.address, vector.body, vector.load, worker_id)


# Nothing is without a vector


@pytest.mark.parametrize("page", [*PAGES.values(), "recognition.md"])
def test_page_has_valid_and_malformed_vectors(page: str) -> None:
    assert vectors.valid(page)
    assert vectors.malformed(page)


@pytest.mark.parametrize("dialect", LEGACY)
def test_each_legacy_command_has_a_vector_that_we_write(dialect: Dialect) -> None:
    written = {(v.command, v.direction) for v in _valid(PAGES[dialect]) if not v.read_only}
    assert written == set(sides.COMMANDS[dialect])


def test_each_mdp03_command_has_a_vector_in_each_direction() -> None:
    assert set(MDP03_COMMANDS) == set(spec.COMMAND_NAMES)
    shown = {(v.command, v.direction) for v in _valid(MDP03_PAGE) if v.name in vectors.NUMBERS}
    assert shown == {(n, way) for n, ways in MDP03_COMMANDS.items() for way in ways}


def test_each_dialect_has_a_vector_of_recognition_plain_and_behind_an_envelope() -> None:
    shown = {
        (vector.fields["dialect"], vector.number("envelope") > 0)
        for vector in vectors.valid("recognition.md")
    }
    assert shown == {(dialect.value, behind) for dialect in Dialect for behind in (False, True)}


@pytest.mark.parametrize(
    "line",
    [
        "READY | w>b | 00",
        "READY | b>b | 00 | service=echo",
        "READY | w>b | 0 | service=echo",
        "READY | w>b | 00 | sevrice=echo",
    ],
)
def test_line_that_breaks_the_format_is_an_error(line: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        vectors.vectors("page.md", f"```vectors\n{line}\n```\n")


# Legacy dialects


@pytest.mark.parametrize("vector", _valid(*LEGACY_PAGES), ids=str)
def test_legacy_vector_is_read_as_its_fields_say(vector: Vector) -> None:
    codec = LEGACY[DIALECT_OF[vector.page]]
    assert sides.read(codec, vector.direction, vector.frames) == Command(
        vector.command,
        vector.direction == "w>b",
        vector.service,
        vector.address,
        vector.body,
        vector.load,
    )


@pytest.mark.parametrize("vector", [v for v in _valid(*LEGACY_PAGES) if not v.read_only], ids=str)
def test_legacy_fields_are_written_as_their_vector_says(vector: Vector) -> None:
    codec = LEGACY[DIALECT_OF[vector.page]]
    write = sides.WRITERS[vector.command, vector.direction]
    assert write(codec, _said(vector)) == vector.frames


@pytest.mark.parametrize("vector", _malformed(*LEGACY_PAGES), ids=str)
def test_malformed_legacy_vector_is_refused_for_its_reason(vector: Vector) -> None:
    codec = LEGACY[DIALECT_OF[vector.page]]
    with pytest.raises(RemoteProtocolError) as caught:
        sides.read(codec, vector.direction, vector.frames)
    assert caught.value.reason == vector.error


@pytest.mark.parametrize(
    "vector",
    [v for page in LEGACY_PAGES for v in _valid(page) if v.direction in ("c>b", "w>b")],
    ids=str,
)
def test_legacy_vector_is_recognised_as_its_own_dialect(vector: Vector) -> None:
    assert recognise(vector.frames) == (DIALECT_OF[vector.page], 0)
    half = client_or_worker(vector.frames, DIALECT_OF[vector.page], 0)
    assert half is (vector.direction == "w>b")


@pytest.mark.parametrize("vector", _valid(PAGES[Dialect.DELPHI], named=("HASH",)), ids=str)
def test_hash_vector_is_the_hash_of_its_frames(vector: Vector) -> None:
    assert murmur2a(vector.frames).to_bytes(4, "little").hex() == vector.fields["hash"]


# MDP/0.3


@pytest.mark.parametrize("vector", _valid(MDP03_PAGE), ids=str)
def test_mdp03_vector_is_parsed_as_its_fields_say(vector: Vector) -> None:
    header, *body = vector.frames
    assert headers.parse(header) == _header(vector)
    assert body == vector.body
    flags = vector.number("flags")
    assert metadata.split(vector.metadata, flags) == (vector.map("broker"), vector.map("sender"))


@pytest.mark.parametrize("vector", _valid(MDP03_PAGE), ids=str)
def test_mdp03_fields_are_packed_as_their_vector_says(vector: Vector) -> None:
    assert [mdp03.pack(*_header(vector)), *vector.body] == vector.frames


@pytest.mark.parametrize("vector", _malformed(MDP03_PAGE), ids=str)
def test_malformed_mdp03_vector_is_refused_for_its_reason(vector: Vector) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        if vector.name == "METADATA":
            metadata.split(vector.frames[0], vector.number("flags"))
        else:
            headers.parse(vector.frames[0])
    assert caught.value.reason == vector.error


@pytest.mark.parametrize("vector", _valid(MDP03_PAGE, named=("METADATA",)), ids=str)
def test_metadata_vector_is_both_ways_its_maps(vector: Vector) -> None:
    assert [vector.metadata] == vector.frames
    both = metadata.split(vector.frames[0], vector.number("flags"))
    assert both == (vector.map("broker"), vector.map("sender"))


def _header(vector: Vector) -> headers.Header:
    return (
        vector.command,
        vector.number("flags"),
        vector.number("code"),
        vector.number("id"),
        vector.number("ttl"),
        vector.service,
        vector.address,
        vector.metadata,
    )


# Recognition


@pytest.mark.parametrize("vector", _valid("recognition.md"), ids=str)
def test_recognition_vector_gives_dialect_envelope_and_half(vector: Vector) -> None:
    dialect, at = recognise(vector.frames)
    half = {True: "worker", False: "client", None: "unknown"}
    assert {
        "dialect": dialect.value,
        "envelope": str(at),
        "half": half[client_or_worker(vector.frames, dialect, at)],
    } == vector.fields


@pytest.mark.parametrize("vector", _malformed("recognition.md"), ids=str)
def test_unrecognised_vector_is_refused_for_its_reason(vector: Vector) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        recognise(vector.frames)
    assert caught.value.reason == vector.error

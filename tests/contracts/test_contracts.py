"""Contracts: what is derived from annotations, the canonical bytes, and the parser."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import enum
import os
import random
import re
import subprocess
import sys
from collections import abc
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import msgspec
import pytest

from majordomus import BadRequest, ConfigurationError, NotFound, Request, Worker
from majordomus.contracts import model, openapi, protos, stubs
from majordomus.contracts.model import BodyContract, Contract
from majordomus.errors import RemoteProtocolError
from majordomus.messages import Record, record

MUTATIONS = 10_000 if os.environ.get("CONTRACTS") == "full" else 1000
"""`make contracts` is the long form."""


class Kind(enum.Enum):
    NOTE = "note"
    TASK = "task"


class Inner(msgspec.Struct):
    x: int
    y: float | None = None


class Draft(msgspec.Struct):
    title: str
    kind: Kind = Kind.NOTE
    inner: Inner | None = None
    many: list[Inner] = []
    counts: dict[str, int] = {}


@dataclasses.dataclass
class Note:
    number: int
    draft: Draft


class Query(TypedDict):
    text: str
    limit: int


class Point(Record):
    x: Annotated[int, 1]
    y: Annotated[int, 5] = 0


@record
class Path2:
    points: Annotated[list[Point], 2] = dataclasses.field(default_factory=list)


def contract_of(function: Any, **facts: Any) -> Contract:
    worker = Worker()
    worker.add("s", function, **facts)
    return model.parse(worker.handlers["s"].contract)


def put(draft: Draft) -> Note:
    """Keep a note.

    It is kept for ever.
    """
    raise NotImplementedError


def test_contract_has_schemas_docs_and_facts() -> None:
    found = contract_of(
        put,
        version="1.2",
        examples=[Draft("milk")],
        errors=[NotFound, (BadRequest, Inner)],
        publishes={"notes.new": Note, "notes.gone": str},
        idempotent=True,
        once=True,
    )
    assert [topic.topic for topic in found.publishes] == ["notes.gone", "notes.new"]
    assert found.publishes[1].schema["title"] == "Note"
    assert found.request is not None and found.reply is not None
    assert found.request.types == ("application/msgpack", "application/json")
    assert found.request.schema["required"] == ["title"]
    assert found.request.schema["properties"]["inner"]["x-number"] == 3
    assert found.reply.schema["title"] == "Note"
    assert found.summary == "Keep a note."
    assert [(error.status, error.name) for error in found.errors] == [
        (400, "BadRequest"),
        (404, "NotFound"),
    ]
    assert found.errors[0].detail is not None
    assert (found.version, found.idempotent, found.once) == ("1.2", True, True)
    assert found.examples[0]["title"] == "milk"


def takes_record(point: Point) -> Path2:
    raise NotImplementedError


def takes_bytes(body: bytes, request: Request) -> str:
    raise NotImplementedError


def takes_query(query: Query) -> Iterator[Note]:
    yield from ()


def takes_stream(notes: Iterator[Note]) -> int:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("function", "request_types", "reply_types", "streams"),
    [
        (takes_record, "application/protobuf", "application/protobuf", (False, False)),
        (takes_bytes, "", "text/plain", (False, False)),
        (takes_query, "application/msgpack", "application/msgpack", (False, True)),
        (takes_stream, "application/msgpack", "application/msgpack", (True, False)),
    ],
)
def test_encodings_and_directions_follow_the_annotations(
    function: Any, request_types: str, reply_types: str, streams: tuple[bool, bool]
) -> None:
    found = contract_of(function)
    assert found.request is not None and found.reply is not None
    assert next(iter(found.request.types), "") == request_types
    assert next(iter(found.reply.types), "") == reply_types
    assert (found.request.stream, found.reply.stream) == streams


def test_numbers_of_a_record_are_those_of_its_annotations() -> None:
    found = contract_of(takes_record)
    assert found.request is not None
    assert {k: v["x-number"] for k, v in found.request.schema["properties"].items()} == {
        "x": 1,
        "y": 5,
    }
    text = protos.proto_text(found.descriptor)
    assert "optional sint64 y = 5;" in text
    assert "message Path2" in text


def test_handler_of_requests_has_no_contract_but_by_its_facts() -> None:
    def plain(request: Request) -> bytes:
        return b""

    worker = Worker()
    worker.add("plain", plain)
    assert worker.handlers["plain"].contract == b""
    assert contract_of(plain, version="2").version == "2"


def test_equal_handlers_have_equal_contracts() -> None:
    assert model.to_bytes(contract_of(put)) == model.to_bytes(contract_of(put))
    assert contract_of(put) != contract_of(put, version="2")


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"version": 2}, "a version is text"),
        ({"errors": [ValueError]}, "errors: expected a class such as NotFound"),
        ({"examples": [object()]}, "examples: <object"),
        ({"examples": ["x" * 70_000]}, "the contract has 7"),
    ],
)
def test_facts_that_do_not_fit_are_refused_at_add(facts: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        Worker().add("s", put, **facts)


# -- the parser


def test_canonical_bytes_are_read_back() -> None:
    found = contract_of(put, version="1", examples=[{"a": [1, 2.5, None]}])
    data = model.to_bytes(found)
    assert model.to_bytes(model.parse(data)) == data
    assert model.is_hash(model.hash_of(data))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "truncated"),
        (b"[]", "Expected `object`"),
        (b'{ "contract":1}', "canonical"),
        (b'{"contract":2}', "version 2"),
        (b'{"contract":1,"request":{"schema":{"type":5}}}', r"request.type: expected a name"),
        (b'{"contract":1,"request":{"schema":{"properties":[]}}}', "expected an object"),
        (b'{"contract":1,"reply":{"schema":{"items":5}}}', "an object or a boolean"),
        (b'{"contract":1,"reply":{"schema":{"anyOf":{}}}}', "expected a list"),
        (b'{"contract":1,"reply":{"schema":{"required":[1]}}}', "expected names"),
        (b'{"contract":1,"reply":{"schema":{"required":null}}}', "expected names"),
        (b'{"contract":1,"reply":{"schema":{"type":null}}}', "reply.type: expected a name"),
        (b'{"contract":1,"errors":[{"detail":{"$ref":1},"status":404}]}', "expected text"),
        (b'"' + b"x" * 70_000 + b'"', "at most"),
        (b'{"contract":1,"x":' + b"[" * 3000 + b"]" * 3000 + b"}", "."),
    ],
)
def test_other_bytes_are_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason):
        model.parse(data)


def test_descriptor_with_text_that_is_not_utf_8_is_refused() -> None:
    descriptor = contract_of(takes_record).descriptor
    bad = descriptor.replace(b"test_contracts.Point", b"\xb4est_contracts.Point")
    assert bad != descriptor
    with pytest.raises(RemoteProtocolError, match="not UTF-8"):
        protos.proto_text(bad)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"examples": None}, "examples is a list, not NoneType"),
        ({"errors": NotFound}, "errors is a list, not type"),
        ({"publishes": ["notes.new"]}, "publishes is {topic: type of its events}, not list"),
        ({"version": "\ud800"}, "text that is no Unicode"),
    ],
)
def test_facts_that_cannot_be_stated_are_one_line(facts: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(reason)) as caught:
        Worker().add("s", put, **facts)
    assert "\n" not in str(caught.value)


def test_docstring_of_any_text_is_no_failure() -> None:
    def handler(draft: Draft) -> Draft:
        return draft

    for doc in ("\ud800", "\x00", "x" * 100_000, 5):
        handler.__doc__ = doc  # type: ignore[assignment]
        assert isinstance(contract_of(handler).doc, str)


@pytest.mark.parametrize("annotation", [Iterator, abc.Iterator, abc.AsyncIterator])
def test_stream_without_a_type_is_refused(annotation: Any) -> None:
    def handler(draft):  # type: ignore[no-untyped-def]
        return draft

    handler.__annotations__ = {"draft": annotation}
    with pytest.raises(ConfigurationError, match="write the type of the values"):
        Worker().add("s", handler)


def test_flags_are_no_body() -> None:
    class Flags(enum.Flag):
        A = 1

    def handler(flags):  # type: ignore[no-untyped-def]
        return flags

    handler.__annotations__ = {"flags": Flags}
    with pytest.raises(ConfigurationError, match="Flags cannot be a body"):
        Worker().add("s", handler)


def test_schema_states_what_messagepack_has_a_type_for() -> None:
    class Times(msgspec.Struct):
        when: datetime.datetime
        at: datetime.time | None
        many: dict[int, datetime.datetime]

    def handler(times):  # type: ignore[no-untyped-def]
        return times

    handler.__annotations__ = {"times": Times}
    found = contract_of(handler).request
    assert found is not None
    properties = found.schema["properties"]
    assert properties["when"]["x-type"] == "date-time"
    assert properties["at"]["anyOf"][0]["x-type"] == "time"
    assert properties["many"]["x-keys"] == "integer"
    assert properties["many"]["additionalProperties"]["x-type"] == "date-time"


def mutated(rng: random.Random, data: bytes) -> bytes:
    """Bytes that are a little different, some of them still canonical JSON."""
    if rng.random() < 0.4:
        made = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(made))
            made[place : place + rng.randint(0, 2)] = rng.randbytes(rng.randint(0, 2))
        return bytes(made)
    value = msgspec.json.decode(data)
    for _ in range(rng.randint(1, 3)):
        _change(rng, value)
    return msgspec.json.encode(value, order="sorted")


def _change(rng: random.Random, value: Any) -> None:
    """Replace something inside of a JSON value."""
    odd: list[Any] = [None, True, 7, -1.5, "text", [], {}, ["a", 1], {"$ref": "#/$defs/No"}, "null"]
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = rng.choice(keys)
        inner = value[key]
        if isinstance(inner, dict | list) and inner and rng.random() < 0.7:
            value = inner
            continue
        value[key] = rng.choice(odd)
        return


def run_mutations(count: int, seed: int) -> dict[str, int]:
    """Parse and compare `count` mutated contracts, and make documents and stubs of them.

    Return how many were accepted and refused.
    """
    from majordomus.contracts import compare

    rng = random.Random(seed)
    originals = [model.to_bytes(contract_of(one)) for one in (put, takes_record, takes_query)]
    counts = {"accepted": 0, "refused": 0}
    for number in range(count):
        original = originals[number % len(originals)]
        try:
            found = model.parse(mutated(rng, original))
        except RemoteProtocolError:
            counts["refused"] += 1
            continue
        counts["accepted"] += 1
        compare.changes(model.parse(original), found)
        compare.changes(found, model.parse(original))
        with contextlib.suppress(RemoteProtocolError):
            protos.proto_text(found.descriptor)
        openapi.openapi({"g.s": found})
        openapi.asyncapi({"g.s": found})
        for text in stubs.modules({"g.s": found}).values():
            compile(text, "stub.py", "exec")
    return counts


def test_mutated_contracts_raise_nothing_but_the_parser_s_error() -> None:
    counts = run_mutations(MUTATIONS, 1)
    assert counts["accepted"] > MUTATIONS // 50
    assert counts["refused"] > MUTATIONS // 4
    print(f"{MUTATIONS} mutated contracts: {counts}")


# -- protobuf


def test_proto_text_compiles_and_its_messages_are_equal_byte_for_byte(tmp_path: Path) -> None:
    found = contract_of(takes_record)
    (tmp_path / "shape.proto").write_text(protos.proto_text(found.descriptor), "utf-8")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"-I{tmp_path}",
            f"--python_out={tmp_path}",
            str(tmp_path / "shape.proto"),
        ],
        check=True,
    )
    sys.path.insert(0, str(tmp_path))
    try:
        import shape_pb2  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(tmp_path))
    compiled = shape_pb2.Path2(points=[shape_pb2.Point(x=1, y=-7), shape_pb2.Point(x=0, y=0)])
    ours = Path2([Point(1, -7), Point(0, 0)])
    assert compiled.SerializeToString() == ours.to_bytes()  # type: ignore[attr-defined]


def test_descriptor_of_structs_has_a_message_for_each_type() -> None:
    found = contract_of(put)
    assert found.request is not None and found.reply is not None
    pool = protos.pool_of(found.descriptor)
    note = pool.FindMessageTypeByName(found.reply.message)
    assert [field.name for field in note.fields] == ["number", "draft"]
    assert found.request.message.endswith(".Draft")


def test_type_that_protobuf_cannot_express_has_no_message() -> None:
    class Odd(msgspec.Struct):
        value: int | str

    def odd(value: Odd) -> Draft:
        raise NotImplementedError

    odd.__annotations__ = {"value": Odd, "return": Draft}
    found = contract_of(odd)
    assert found.request is not None and found.reply is not None
    assert (found.request.message, found.reply.message[-6:]) == ("", ".Draft")


def test_malformed_descriptor_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="descriptor"):
        protos.read(b"\xff")
    assert BodyContract() == BodyContract({}, ())


def test_type_with_a_large_schema_is_described_in_short() -> None:
    big = msgspec.defstruct("Big", [(f"field_with_a_long_name_{n}", int) for n in range(2000)])

    def takes(value: Any) -> None:
        return None

    takes.__annotations__["value"] = big
    found = contract_of(takes)
    assert found.request == BodyContract({}, ("application/msgpack", "application/json"))
    assert found.descriptor == b""

"""Bodies: the decoders and encoders of annotations, and the 400 that names the field."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import subprocess
import sys
import tracemalloc
from dataclasses import field
from typing import Annotated, Any

import msgspec
import pytest
from google.protobuf import struct_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from majordomus.errors import BadRequest, ConfigurationError, RecordError
from majordomus.messages import Body, Message, decoder_for, encode_body, encoder_for, record, wire
from majordomus.messages.bodies import JSON, MSGPACK, PROTOBUF, TEXT, typed_body
from majordomus.messages.elements import MOST
from tests.messages.samples import Person, PhoneNumber, PhoneType

ERIK = Person("Erik", 42, "", [PhoneNumber("5", PhoneType.WORK)])


class User(msgspec.Struct):
    id: int
    name: str = ""


@dataclasses.dataclass
class Point:
    x: int
    y: int


# -- encoding and decoding


@pytest.mark.parametrize(
    ("annotation", "value", "type"),
    [
        (Person, ERIK, PROTOBUF),
        (Timestamp, Timestamp(seconds=5), PROTOBUF),
        (User, User(5, "x"), MSGPACK),
        (Point, Point(1, 2), MSGPACK),
        (int, 5, MSGPACK),
        (list[int], [1, 2], MSGPACK),
        (dict[str, float], {"a": 1.5}, MSGPACK),
        (User | None, None, MSGPACK),
        (str, "ü", TEXT),
        (bytes, b"\x00", ""),
        (list[bytes], [b"a", b"", b"c"], ""),
        (Message, Message([b"a", b"b"]), ""),
    ],
)
def test_value_is_decoded_from_its_encoded_body(annotation: Any, value: Any, type: str) -> None:
    encode, decode = encoder_for(annotation), decoder_for(annotation)
    assert encode.type == decode.type == type
    body = encode(value)
    assert body.type == type
    assert decode(body.frames, body.type) == value
    assert decode(body.frames) == value


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Person, ERIK),
        (Timestamp, Timestamp(seconds=5)),
        (User, User(5, "x")),
        (list[User], [User(1)]),
    ],
)
def test_value_is_decoded_from_its_body_in_json(annotation: Any, value: Any) -> None:
    encode, decode = encoder_for(annotation), decoder_for(annotation)
    body = encode(value, JSON)
    assert body.type == JSON
    assert decode(body.frames, f"{JSON}; charset=utf-8") == value
    if body.frames[0][:1] in b"{[":
        assert decode(body.frames) == value
        assert decode.like(body.frames) == JSON


def test_json_of_a_record_has_the_names_of_its_fields() -> None:
    (written,) = encoder_for(Person)(ERIK, JSON).frames
    assert json.loads(written) == {
        "name": "Erik",
        "id": 42,
        "email": "",
        "phone": [{"number": "5", "type": "PHONE_TYPE_WORK"}],
    }


def test_msgpack_number_equal_to_a_bracket_is_not_decoded_as_json() -> None:
    for number in (0x5B, 0x7B):
        assert decoder_for(int)([bytes([number])]) == number


def test_decoder_accepts_aliases_and_parameters_of_a_content_type() -> None:
    decode = decoder_for(Person)
    for name in ("application/x-protobuf", "Application/Protobuf; proto=Person"):
        assert decode([ERIK.to_bytes()], name) == ERIK
    assert decoder_for(User)([msgspec.msgpack.encode(User(5))], "application/x-msgpack") == User(5)


def test_body_without_frames_is_decoded_as_an_empty_frame() -> None:
    assert decoder_for(Person)([]) == Person("", 0, "")
    assert decoder_for(str)([]) == ""
    assert decoder_for(bytes)([]) == b""
    assert decoder_for(bytes)([b"a", b"b"]) == b"ab"


def test_reply_has_the_encoding_of_the_request() -> None:
    assert decoder_for(Person).like([b"{}"]) == JSON
    assert decoder_for(Person).like([b""]) == PROTOBUF
    assert decoder_for(bytes).like([b"{}"], JSON) == ""
    assert encoder_for(str)("x", JSON) == Body([b"x"], TEXT)
    assert encoder_for(bytes)(bytearray(b"x"), JSON) == Body([b"x"], "")


# -- 400


@pytest.mark.parametrize(
    ("annotation", "frames", "type", "expected"),
    [
        (Person, [b"\x0a\x05ab"], "", "Person.name: 5 bytes announced"),
        (Person, [b"\x22\x03\x0a\x01\xff"], "", "Person.phone.number: not UTF-8"),
        (Person, [b"\x08\x05"], "", "Person.name: varint on the wire, expected length-delimited"),
        (Person, [b"\x22\x02\x08\x05"], "", "Person.phone.number: varint on the wire"),
        (Person, [b'{"id": "x"}'], "", "id"),
        (Person, [b'{"id":'], "", "Person: "),
        (Person, [b"\xff\xff"], JSON, "Person: "),
        (Person, [b"", b""], "", "expected one body frame, got 2"),
        (Person, [b""], "text/csv", "the body is text/csv; this service accepts application/pro"),
        (Timestamp, [b"\x08"], "", "Timestamp.seconds: the bytes end within a varint"),
        (Timestamp, [b'"x"'], JSON, "Timestamp"),
        (struct_pb2.Value, [b"\x1a\x01\xff"], "", "Value.string_value: not UTF-8"),
        (User, [b'{"id": "x"}'], "", "Expected `int`, got `str` - at `$.id`"),
        (User, [b'{"id": 1}x'], "", "trailing characters"),
        (User, [msgspec.msgpack.encode({"id": "x"})], "", "got `str` - at `$.id`"),
        (User, [msgspec.msgpack.encode({})], "", "missing required field `id`"),
        (User, [b"\xc1"], "", ""),
        (User, [], "", "truncated"),
        (int, [b"\xa1x"], "", "Expected `int`, got `str`"),
        (str, [b"a\xff"], "", "the body is not UTF-8: invalid start byte at byte 1"),
        (str, [b"a"], JSON, "the body is application/json; this service accepts text/plain"),
    ],
)
def test_bad_body_gets_400_that_names_the_field(
    annotation: Any, frames: list[bytes], type: str, expected: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        decoder_for(annotation)(frames, type)
    assert caught.value.status == 400
    assert expected in caught.value.text


def test_error_raised_by_the_record_itself_is_400() -> None:
    @record
    class Even:
        number: Annotated[int, 1]

        def __post_init__(self) -> None:
            if self.number % 2:
                raise ValueError("odd")

    @record
    class When:
        at: Annotated[dt.datetime, 1]

    with pytest.raises(BadRequest, match="Even: odd"):
        decoder_for(Even)([b"\x08\x06"])
    with pytest.raises(BadRequest, match="Even: odd"):
        decoder_for(Even)([b'{"number": "3"}'])
    far = Timestamp(seconds=1 << 62).SerializeToString()
    with pytest.raises(BadRequest, match=r"When\.at: out of range"):
        decoder_for(When)([b"\x0a" + bytes([len(far)]) + far])


def test_body_with_unknown_fields_is_accepted() -> None:
    data = ERIK.to_bytes() + b"\xa0\x06\x05"
    value = decoder_for(Person)([data])
    assert value == ERIK
    assert value.to_bytes() == data


# -- errors of the service


class Plain:
    pass


@pytest.mark.parametrize("annotation", [Plain, "Person"])
def test_annotation_that_cannot_be_a_body_is_rejected(annotation: Any) -> None:
    with pytest.raises(ConfigurationError, match="cannot be a body"):
        decoder_for(annotation)
    with pytest.raises(ConfigurationError):
        encode_body(Plain())


@pytest.mark.parametrize("annotation", [Person, Timestamp, User])
def test_encoder_raises_type_error_for_a_value_of_another_class(annotation: Any) -> None:
    with pytest.raises(TypeError, match=f"expected {annotation.__name__}, got dict"):
        encoder_for(annotation)({})


def test_encoder_names_the_field_whose_value_does_not_fit() -> None:
    with pytest.raises(RecordError, match=r"Person\.id"):
        encoder_for(Person)(Person("", "x", ""))  # type: ignore[arg-type]


# -- by the value's class


@pytest.mark.parametrize(
    ("value", "body"),
    [
        (None, Body([], "")),
        (b"x", Body([b"x"], "")),
        ("x", Body([b"x"], TEXT)),
        ([b"a", b"b"], Body([b"a", b"b"], "")),
        (Message([b"a", b"b"]), Body([b"a", b"b"], "")),
        (ERIK, Body([ERIK.to_bytes()], PROTOBUF)),
        (Timestamp(seconds=5), Body([b"\x08\x05"], PROTOBUF)),
        (User(5), Body([msgspec.msgpack.encode(User(5))], MSGPACK)),
        ({"a": 1}, Body([b"\x81\xa1a\x01"], MSGPACK)),
        (5, Body([b"\x05"], MSGPACK)),
    ],
)
def test_value_is_encoded_by_its_class(value: Any, body: Body) -> None:
    assert encode_body(value) == body


def test_struct_can_be_encoded_as_json() -> None:
    assert encode_body(User(5), JSON) == Body([b'{"id":5,"name":""}'], JSON)


def test_bodies_do_not_import_protobuf_before_it_is_needed() -> None:
    script = (
        "import sys, majordomus.messages.bodies as bodies\n"
        "bodies.decoder_for(str), bodies.decoder_for(int), bodies.encode_body({})\n"
        "assert 'google.protobuf' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


@pytest.mark.parametrize("annotation", [Any, dict[str, Any], Person, struct_pb2.Value])
def test_json_that_is_nested_too_deeply_is_a_bad_request(annotation: Any) -> None:
    opening = b'{"phones":' if annotation is Person else b'{"a":'
    deep = (b"[" if annotation is struct_pb2.Value else opening) * 100_000
    with pytest.raises(BadRequest):
        decoder_for(annotation)([deep], JSON)


@record
class Drop:
    """The smallest record: two bytes in a list."""

    n: Annotated[int, 1] = 0


@record
class Rain:
    drops: Annotated[list[Drop], 1] = field(default_factory=list)
    by_name: Annotated[dict[str, Drop], 2] = field(default_factory=dict)
    when: Annotated[list[dt.datetime], 3] = field(default_factory=list)
    numbers: Annotated[list[int], 4] = field(default_factory=list)
    showers: Annotated[list[Rain], 5] = field(default_factory=list)


def entry(n: int) -> bytes:
    return b"\x12\x06\x0a\x04" + n.to_bytes(3, "big").hex()[:4].encode()


MANY = {
    "records": b"\x0a\x00" * (MOST + 1),
    "dates": b"\x1a\x00" * (MOST + 1),
    "entries": b"".join(map(entry, range(MOST + 1))),
    "nested records": b"\x2a\x14".join([b"", *[b"\x0a\x00" * 10] * (MOST // 10)]),
}


@pytest.mark.parametrize("body", MANY.values(), ids=MANY)
def test_body_of_too_many_records_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(BadRequest, match=r"Rain: the body has more than 262144 records; send them"):
        decoder_for(Rain)([body])


def test_body_of_too_many_records_is_refused_without_making_them() -> None:
    body = b"\x0a\x00" * (8 * 1024 * 1024)
    tracemalloc.start()
    try:
        with pytest.raises(BadRequest, match="more than 262144 records"):
            decoder_for(Rain)([body])
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_large_body_of_few_records_or_of_numbers_is_decoded() -> None:
    decode = decoder_for(Rain)
    large = Rain(numbers=list(range(300_000)), drops=[Drop(1)] * 1000)
    assert decode([large.to_bytes()]) == large
    assert len(decode([b"\x0a\x00" * 1000]).drops) == 1000


def test_json_of_too_many_values_is_a_bad_request() -> None:
    body = b'{"drops":[' + b"{}," * MOST + b"{}]}"
    with pytest.raises(BadRequest, match="Rain: the body has more than 262144 values"):
        decoder_for(Rain)([body], JSON)


def test_json_with_a_long_text_full_of_commas_is_decoded() -> None:
    text = '\\"{,[' * (MOST // 2)
    body = json.dumps({"name": text}).encode()
    assert decoder_for(Person)([body], JSON).name == text


@pytest.mark.parametrize(
    "body",
    [
        b"\x0a\x00" * (2 * 1024 * 1024) + b"\xff",
        b"\x0a\x02\x08\x01" * (1024 * 1024) + b"\x0f",
        b"\x33" * (4 * 1024 * 1024),
        b"\x33" + b"\x08\x01" * (2 * 1024 * 1024),
    ],
    ids=["records", "fields", "groups", "fields of a group"],
)
def test_explanation_of_a_large_wrong_body_takes_a_bounded_number_of_steps(
    body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0
    real = wire._Steps.take

    def take(self: wire._Steps) -> None:
        nonlocal steps
        steps += 1
        real(self)

    monkeypatch.setattr(wire._Steps, "take", take)
    with pytest.raises(BadRequest):
        decoder_for(Rain)([body])
    assert 0 < steps <= 16 * 1024 + 1


def test_explanation_of_deep_records_copies_no_bytes() -> None:
    body = b"\x0a\xff\xff\xff\xff\x0f"
    for _ in range(60):
        body = b"\x2a" + varint(len(body) + 100_000) + body + bytes(100_000)
    tracemalloc.start()
    try:
        with pytest.raises(BadRequest):
            decoder_for(Rain)([body])
        assert tracemalloc.get_traced_memory()[1] < 8 * len(body)
    finally:
        tracemalloc.stop()


def varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*made, value])


def test_pydantic_model_is_a_body_in_both_encodings() -> None:
    pydantic = pytest.importorskip("pydantic")
    user = pydantic.create_model("User", id=(int, ...), names=(list[str], []))
    decode, encode = decoder_for(user), encoder_for(user)
    value = user(id=1, names=["ann"])
    for type_ in (MSGPACK, JSON):
        body = encode(value, type_)
        assert body.type == type_
        assert decode(body.frames, type_) == value
    assert encode(value).type == MSGPACK
    assert typed_body(value) == encode(value)
    with pytest.raises(BadRequest, match=r"valid integer.* at `\$\.id`"):
        decode([b'{"id": "x"}'], JSON)
    with pytest.raises(BadRequest):
        decode([b"\xc1"])
    many = decoder_for(list[user])
    assert many([b'[{"id": 2}]'], JSON) == [user(id=2)]

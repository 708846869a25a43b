"""Bodies: the decoders and encoders of annotations, and the 400 that names the field."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import subprocess
import sys
from typing import Annotated, Any

import msgspec
import pytest
from google.protobuf import struct_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from majordomus.errors import BadRequest, ConfigurationError, RecordError
from majordomus.messages import Body, Message, decoder_for, encode_body, encoder_for, record
from majordomus.messages.bodies import JSON, MSGPACK, PROTOBUF, TEXT
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

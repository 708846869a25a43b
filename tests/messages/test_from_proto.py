"""Records from .proto text, from descriptors and from compiled classes."""

from __future__ import annotations

import contextlib
import datetime as dt
import pickle
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, struct_pb2, timestamp_pb2, wrappers_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from majordomus.errors import ConfigurationError
from majordomus.messages import record_from_proto, records_from_proto, which_oneof
from majordomus.messages.protofile import parse, resolve
from majordomus.messages.prototokens import END, Tokens
from tests.messages.compiled import bare, compile_classes, compile_text
from tests.messages.samples import Everything, Person, everythings

PROTO3 = r"""
// A file with most of what there is.
syntax = "proto3";
package shop.v1; /* of
two lines */
import "google/protobuf/timestamp.proto";
import public "google/protobuf/duration.proto";
option java_package = "com.example";
option (my.option).nested = { a: 1, b { c: "}" } };

enum Kind {
  option deprecated = false;
  reserved 7, 9 to 11;
  KIND_NONE = 0;
  KIND_BOOK = 0x1 [deprecated = true];
  KIND_CD = -2;
}

message Order {
  option (some.option) = true;
  reserved 100 to max;
  reserved "old", "older";
  message Item {
    string name = 1;
    uint32 count = 2 [json_name = "n", (x.y) = "z"];
    enum State { NEW = 0; SENT = 1; }
    State state = 3;
  }
  repeated Item items = 1;
  Kind kind = 2;
  optional int32 discount = 3;
  map<string, Item> by_name = 4;
  map<int32, Kind> kinds = 5;
  oneof payment {
    option (a.b) = 1;
    string card = 6;
    bytes cash = 7;
    Order.Item barter = 8;
  }
  google.protobuf.Timestamp placed = 9;
  .shop.v1.Order parent = 10;
  repeated sint64 numbers = 11 [packed = false];
  repeated fixed32 more = 12 [packed=true];
  double from = 13;
  Item.State last = 14;;
  google.protobuf.Duration took = 15;
}
message Link { Order order = 1; Chain next = 2; }
message Chain { repeated Link links = 1; }
service Shop { rpc Buy(Order) returns (Order) { option idempotency_level = NO_SIDE_EFFECTS; } }
"""

PROTO2 = r"""
syntax = "proto2";
package old;
enum Level { option allow_alias = true; LOW = 1; BASE = 1; HIGH = 2; }
message Old {
  required string name = 1;
  optional int32 size = 2 [default = -5];
  optional string text = 3 [default = "a\"\n\x41\101ü"];
  optional bytes raw = 4 [default = "\001\xff\\a"];
  optional double ratio = 5 [default = 1.5e3];
  optional bool yes = 6 [default = true];
  optional Level level = 7 [default = HIGH];
  repeated int32 loose = 8;
  repeated int32 tight = 9 [packed = true];
  optional uint64 plain = 10;
  optional Old inner = 11;
  extensions 100 to 199;
  required Level must = 12;
}
extend Old { optional int32 extra = 100; }
"""


@pytest.mark.parametrize(
    "text", [PROTO3.replace("option (my", "//"), PROTO2, Everything.to_proto()]
)
def test_text_is_parsed_as_protoc_parses_it(text: str) -> None:
    """protoc rejects undeclared custom options, so they are removed from its input."""
    plain = _without_custom_options(text)
    compiled = compile_text(plain).file
    ours = parse(text, "test.proto")
    resolve(ours, compiled[:-1])
    assert bare(ours) == bare(compiled[-1])


def _without_custom_options(text: str) -> str:
    lines = [line for line in text.splitlines() if "option (" not in line]
    return "\n".join(lines).replace(', (x.y) = "z"', "").replace("//).nested", "//")


def test_classes_made_from_text_read_and_write_the_bytes_of_compiled_classes() -> None:
    ours = records_from_proto(PROTO3)
    assert set(ours) == {"Order", "Order_Item", "Link", "Chain"}
    order, item = ours["Order"], ours["Order_Item"]
    value = order(
        items=[item("x", 2, 1), item()],
        discount=0,
        by_name={"a": item("a")},
        kinds={-1: -2},
        barter=item("goat"),
        placed=dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
        parent=order(),
        numbers=[1, -1],
        more=[5],
        from_=2.5,
        took=dt.timedelta(seconds=-1.5),
    )
    theirs = compile_classes(_without_custom_options(PROTO3))["Order"]
    data = theirs.FromString(value.to_bytes()).SerializeToString(deterministic=True)
    assert data == value.to_bytes()
    assert order.from_bytes(data) == value
    assert which_oneof(value, "payment") == "barter"
    assert repr(order.from_bytes(data).kinds[-1]) == "<Kind.CD: -2>"


def test_zero_of_a_plain_proto3_number_is_not_written() -> None:
    item = records_from_proto(PROTO3)["Order_Item"]
    assert item().to_bytes() == b""
    assert item(count=0, name="").to_bytes() == b""


def test_classes_made_from_proto2_keep_its_defaults_and_presence() -> None:
    old = record_from_proto(PROTO2)
    assert old.from_bytes(b"") == old()
    assert (old().size, old().text, old().raw, old().ratio) == (-5, 'a"\nAAü', b"\x01\xff\\a", 1500)
    assert (old().yes, old().level.name, old().plain, old().inner) == (True, "HIGH", None, None)
    value = old(name="", size=0, text="", loose=[1, 2], tight=[3, 4], plain=0, inner=old())
    theirs = compile_classes(PROTO2)["Old"]
    assert theirs.FromString(value.to_bytes()).SerializeToString() == value.to_bytes()
    assert old.from_bytes(value.to_bytes()) == value
    extended = theirs()
    extended.ParseFromString(value.to_bytes() + bytes.fromhex("a00605"))
    assert old.from_bytes(extended.SerializeToString()).to_bytes().endswith(b"\xa0\x06\x05")


@given(everythings())
@settings(max_examples=100, deadline=None)
def test_class_made_from_printed_text_reads_the_same_values(value: Everything) -> None:
    twin = TWIN.from_bytes(value.to_bytes())
    assert twin.to_bytes() == value.to_bytes()
    for name in ("a_double", "a_uint64", "a_str", "a_moment", "a_span", "maybe_str", "counts"):
        assert getattr(twin, name) == getattr(value, name)
    assert twin.a_color.name == value.a_color.name
    assert [phone.number for phone in twin.phones] == [phone.number for phone in value.phones]
    assert which_oneof(twin, "choice") == which_oneof(value, "choice")


TWIN: Any = record_from_proto(Everything.to_proto(), "Everything")


def test_record_made_from_a_compiled_class_or_descriptor_encodes_that_message() -> None:
    options = record_from_proto(descriptor_pb2.FieldOptions)
    theirs = descriptor_pb2.FieldOptions(packed=True, targets=[1, 2])
    assert options.from_bytes(theirs.SerializeToString()).packed is True
    compiled = compile_classes(Person.to_proto())["Person"]
    for source in (compiled, compiled.DESCRIPTOR):
        made = record_from_proto(source)
        value = made("Erik", 42, "e", [])
        assert compiled.FromString(value.to_bytes()).name == "Erik"
    file = compile_text(Person.to_proto()).file[-1]
    assert record_from_proto(file, "Person").from_bytes(value.to_bytes()).id == 42


def test_googles_messages_that_contain_each_other_become_records() -> None:
    struct = record_from_proto(struct_pb2.Struct)
    message = struct_pb2.Struct()
    message.update({"a": [1, "x", {"b": None}]})
    value = struct.from_bytes(message.SerializeToString())
    assert value.fields["a"].list_value.values[1].string_value == "x"
    assert struct_pb2.Struct.FromString(value.to_bytes()) == message
    assert record_from_proto(wrappers_pb2.Int64Value)(value=5).to_bytes() == b"\x08\x05"


def test_text_may_import_other_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.proto").write_text(
        'syntax="proto3"; package b; message Inner { int32 x = 1; enum E { Z = 0; Y = 1; } }'
    )
    main = tmp_path / "a.proto"
    main.write_text(
        'syntax="proto3"; package a; import "sub/b.proto"; import "google/protobuf/any.proto";'
        "message Outer { b.Inner inner = 1; b.Inner.E e = 2; google.protobuf.Any any = 3; }"
    )
    found = records_from_proto(main)
    outer, inner = found["Outer"], found["Inner"]
    value = outer(inner=inner(5), e=1)
    assert outer.from_bytes(value.to_bytes()) == value
    assert value.to_bytes() == bytes.fromhex("0a0208051001")
    with pytest.raises(ConfigurationError, match="cannot find the import"):
        record_from_proto(main.read_text())
    assert record_from_proto(main.read_text(), "Outer", paths=[tmp_path]).__name__ == "Outer"


def test_class_made_from_text_can_be_pickled_when_its_module_has_its_name() -> None:
    value = TWIN(a_str="x")
    type(value).__qualname__ = "TWIN"
    assert pickle.loads(pickle.dumps(value)) == value  # noqa: S301


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('edition = "2023";', ":1: proto2 or proto3 (for editions"),
        ('syntax = "proto4";', "proto2 or proto3 expected"),
        (
            "message A {\n int32 x = 1;\n}",
            ":2: optional, required or repeated expected, found int32",
        ),
        ('syntax="proto3";\nmessage A { required int32 x = 1; }', ":2: optional or repeated"),
        ('syntax="proto3"; message A { int32 x = y; }', "an integer expected, found y"),
        ('syntax="proto3"; message A { int32 x = 1 }', "';' expected, found }"),
        ('syntax="proto3"; message A { int32 x = 1;', "found the end of the file"),
        ('syntax="proto3"; message A { Nope x = 1; }', "A.x has the unknown type Nope"),
        ('syntax="proto3"; message A { .Nope x = 1; }', "unknown type .Nope"),
        ('syntax="proto3"; message A { int32 x = 1; int32 y = 1; }', "x"),
        ('syntax="proto3"; message A { int32 x = 0; }', ""),
        ('syntax="proto3"; message A { map<float, int32> x = 1; }', ""),
        ("message A { optional group G = 1 { } }", "groups are not supported"),
        ('syntax="proto3"; nonsense A {}', "message, enum, package"),
        ('syntax="proto3"; message A { int32 x = 1; } $', "unexpected '$'"),
        ('syntax="proto3"; import "no.proto";', "cannot find the import 'no.proto'"),
        ('syntax="proto3"; import "google/protobuf/no.proto";', "cannot find the import"),
        ('syntax="proto3"; message A { int32 to_bytes = 1; }', "'to_bytes' is reserved"),
        (
            'syntax="proto3"; message A {int32 a=1;} message B {int32 b=1;}',
            "give the name of the message",
        ),
        ('syntax="proto2"; message A { required A a=1; }', "required message: make it optional"),
        ('syntax="proto3"; option (x) = { a', "'}' expected"),
        ('syntax="proto3"; option x', "';' expected"),
        ('syntax="proto3"; message A { int32 x = 1 [(a', "'=' expected"),
        ('syntax="proto3"; package "x";', "a name expected"),
        ("syntax = proto3;", "a string expected"),
    ],
)
def test_invalid_text_is_an_error_that_names_the_line(text: str, expected: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        record_from_proto(text)
    assert expected in str(caught.value)


def test_unknown_names_and_unsupported_sources_are_rejected() -> None:
    with pytest.raises(
        ConfigurationError, match=r"unknown message 'Nope'; the known ones are Order"
    ):
        record_from_proto(PROTO3, "Nope")
    with pytest.raises(ConfigurationError, match="cannot make records from int"):
        record_from_proto(5)
    assert timestamp_pb2.Timestamp.DESCRIPTOR.full_name == "google.protobuf.Timestamp"


def words_of(text: str) -> list[str]:
    tokens = Tokens(text, "test")
    found = []
    while tokens.next.kind != END:
        found.append(tokens.take().value)
    return found


WORDS = sorted({*words_of(PROTO3), *words_of(PROTO2), "-", '"', "1e5", "\\xff", "group", "'\\377'"})


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_damaged_text_makes_records_or_a_configuration_error(data: st.DataObject) -> None:
    words = words_of(data.draw(st.sampled_from([PROTO3, PROTO2])))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(words) - 1))
        words[at : at + data.draw(st.integers(0, 2))] = data.draw(
            st.lists(st.sampled_from(WORDS), max_size=2)
        )
    with contextlib.suppress(ConfigurationError):
        records_from_proto(" ".join(words))

"""Records and the classes that protoc makes from their printed .proto decode each other's bytes."""

from __future__ import annotations

import datetime as dt
import enum
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from majordomus.messages import (
    OneOf,
    fixed64,
    implicit,
    int32,
    record,
    sfixed32,
    single,
    uint64,
    unpacked,
)
from tests.messages.compiled import bare, compile_classes, compile_text
from tests.messages.samples import Color, Everything, Person, PhoneNumber, everythings


@pytest.fixture(scope="module")
def compiled() -> dict[str, Any]:
    return compile_classes(Everything.to_proto())


def test_printed_text_compiles_to_the_descriptor_that_upb_uses() -> None:
    for cls in (Everything, Person):
        theirs = compile_text(cls.to_proto()).file[-1]
        assert bare(theirs) == bare(cls.__record__.file)


@given(value=everythings())
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_compiled_class_and_record_read_each_other(
    value: Everything, compiled: dict[str, Any]
) -> None:
    ours = value.to_bytes()
    theirs = compiled["Everything"].FromString(ours)
    assert theirs.SerializeToString(deterministic=True) == ours
    assert Everything.from_bytes(theirs.SerializeToString()) == value


@given(value=everythings(depth=0))
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_compiled_class_decodes_the_values_of_the_record(
    value: Everything, compiled: dict[str, Any]
) -> None:
    theirs = compiled["Everything"].FromString(value.to_bytes())
    for name in ("a_double", "an_int32", "a_uint64", "a_sint64", "a_str", "some_bytes", "plain"):
        assert getattr(theirs, name) == getattr(value, name)
    assert theirs.a_color == value.a_color.value
    assert theirs.a_moment.ToDatetime(tzinfo=dt.UTC) == value.a_moment
    assert theirs.a_span.ToTimedelta() == value.a_span
    assert list(theirs.ints) == list(value.ints)
    assert [one.number for one in theirs.phones] == [one.number for one in value.phones]
    assert dict(theirs.counts) == value.counts
    assert theirs.HasField("maybe_str") == (value.maybe_str is not None)
    assert (theirs.WhichOneof("choice") or "") == next(
        (name for name in ("one_int", "one_text", "one_phone") if getattr(value, name) is not None),
        "",
    )


def test_record_decodes_bytes_from_which_a_compiled_class_omits_fields(
    compiled: dict[str, Any],
) -> None:
    theirs = compiled["Everything"](a_str="x", phones=[compiled["PhoneNumber"](number="5")])
    back = Everything.from_bytes(theirs.SerializeToString())
    assert back == Everything(a_str="x", phones=(PhoneNumber("5"),))


@pytest.mark.slow
def test_python_module_that_protoc_writes_reads_and_writes_records(tmp_path: Path) -> None:
    """The steps of a user of another program: print the text, run protoc, import the module."""
    (tmp_path / "person.proto").write_text(Person.to_proto(), "utf-8")
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{tmp_path}"]
    command += [f"-I{files('grpc_tools') / '_proto'}", f"--python_out={tmp_path}", "person.proto"]
    subprocess.run(command, check=True, timeout=60)
    script = (
        "import sys, person_pb2\n"
        "person = person_pb2.Person.FromString(bytes.fromhex(sys.argv[1]))\n"
        "person.name += '!'\n"
        "print(person.SerializeToString().hex())\n"
    )
    person = Person("Erik", 0, "", [PhoneNumber("5")])
    done = subprocess.run(
        [sys.executable, "-c", script, person.to_bytes().hex()],
        cwd=tmp_path,
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert Person.from_bytes(bytes.fromhex(done.stdout.decode())) == Person(
        "Erik!", 0, "", [PhoneNumber("5")]
    )


# -- random declarations


class Small(enum.IntEnum):
    A = 0
    B = 5


SINGLE_TYPES: list[tuple[Any, Any]] = [
    (int, 5),
    (int32, -5),
    (uint64, 1 << 63),
    (fixed64, 7),
    (sfixed32, -7),
    (float, 1.5),
    (single, 0.25),
    (bool, True),
    (str, "ü"),
    (bytes, b"\x00"),
    (Small, Small.B),
    (Color, Color.INFRA),
    (dt.datetime, dt.datetime(2024, 5, 6, 7, 8, 9, 10, tzinfo=dt.UTC)),
    (dt.timedelta, dt.timedelta(days=-1, microseconds=5)),
    (PhoneNumber, PhoneNumber("5")),
]
KEYS: list[tuple[Any, Any]] = [(str, "k"), (int, -1), (bool, True), (int32, 3)]
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}x", fullmatch=True)


@st.composite
def declarations(draw: st.DrawFn) -> dict[str, tuple[Any, Any]]:
    """Draw the annotation and the value of each field of a record."""
    names = draw(
        st.lists(NAMES, min_size=1, max_size=6, unique_by=lambda name: name.replace("_", ""))
    )
    tags = draw(
        st.lists(
            st.integers(1, 536_870_911).filter(lambda tag: tag not in range(19_000, 20_000)),
            min_size=len(names),
            max_size=len(names),
            unique=True,
        )
    )
    fields = {}
    for name, tag in zip(names, tags, strict=True):
        type_, value = draw(st.sampled_from(SINGLE_TYPES))
        number = type_ not in (str, bytes, dt.datetime, dt.timedelta, PhoneNumber)
        form = draw(st.sampled_from(["one", "optional", "list", "loose", "dict", "oneof", "plain"]))
        if form == "one":
            fields[name] = (Annotated[type_, tag], value)
        elif form == "plain" and number and type_ not in (Color,):
            fields[name] = (Annotated[type_, tag, implicit], value)
        elif form == "list":
            fields[name] = (Annotated[list[type_], tag], [value] * draw(st.integers(0, 3)))  # type: ignore[valid-type]
        elif form == "loose" and number:
            fields[name] = (Annotated[list[type_], tag, unpacked], [value, value])  # type: ignore[valid-type]
        elif form == "dict":
            key, one = draw(st.sampled_from(KEYS))
            fields[name] = (Annotated[dict[key, type_], tag], {one: value})  # type: ignore[valid-type]
        elif form == "oneof":
            fields[name] = (Annotated[type_ | None, tag, OneOf("group")], None)
        else:
            fields[name] = (Annotated[type_ | None, tag], draw(st.sampled_from([value, None])))
    return fields


@given(declarations())
@settings(max_examples=60, deadline=None)
def test_any_declaration_is_compiled_by_protoc_to_the_same_descriptor(
    fields: dict[str, tuple[Any, Any]],
) -> None:
    annotations = {name: annotation for name, (annotation, _) in fields.items()}
    defaults = {name: None for name, (one, _) in fields.items() if "OneOf" in repr(one)}
    made: Any = record(kw_only=True)(
        type("Made", (), {"__annotations__": annotations, "__module__": "some.where"} | defaults)
    )
    theirs = compile_text(made.to_proto()).file[-1]
    assert bare(theirs) == bare(made.__record__.file)
    value = made(**{name: value for name, (_, value) in fields.items() if name not in defaults})
    message = compile_classes(made.to_proto())["Made"].FromString(value.to_bytes())
    assert message.SerializeToString(deterministic=True) == value.to_bytes()
    assert made.from_bytes(value.to_bytes()) == value

"""Signatures of handlers, made by hypothesis: an annotation of each supported kind with a value,
and some annotations that cannot be a body."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import itertools
import uuid
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import msgspec
import pydantic
from google.protobuf import timestamp_pb2
from hypothesis import strategies as st

from majordomus.messages import record, sint32, uint32

_numbers = itertools.count(1)
INT = st.integers(-(2**31), 2**31 - 1)
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=8)


class Kind(NamedTuple):
    """An annotation, the name of its kind, and the strategy of its values."""

    annotation: Any
    name: str
    values: st.SearchStrategy[Any]


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Plain:
    """A class that is no body."""


def _kind(name: str, annotation: Any, values: st.SearchStrategy[Any]) -> Kind:
    return Kind(annotation, name, values)


SIMPLE = [
    _kind("int", int, INT),
    _kind("float", float, st.floats(allow_nan=False, allow_infinity=False)),
    _kind("bool", bool, st.booleans()),
    _kind("str", str, TEXT),
    _kind("enum", Color, st.sampled_from(Color)),
    _kind("literal", Literal["a", "b", 3], st.sampled_from(["a", "b", 3])),
    _kind("uuid", uuid.UUID, st.uuids()),
    _kind("date", dt.date, st.dates()),
    _kind("time", dt.time, st.times()),
    _kind("datetime", dt.datetime, st.datetimes(timezones=st.none() | st.just(dt.UTC))),
    _kind("timedelta", dt.timedelta, st.timedeltas(max_value=dt.timedelta(days=9))),
    _kind("decimal", decimal.Decimal, st.decimals(allow_nan=False, allow_infinity=False, places=2)),
    _kind("bytes field", bytes, st.binary(max_size=8)),
]
ODD = [
    _kind("complex", complex, st.just(1j)),
    _kind("a plain class", Plain, st.builds(Plain)),
    _kind("a list of plain classes", list[Plain], st.just([])),
    _kind("a type", type[int], st.just(int)),
    _kind("a set of lists", dict[Plain, int], st.just({})),
]


HASHABLE = (int, str, bool, Color, uuid.UUID, dt.date, bytes)


def fields() -> st.SearchStrategy[list[Kind]]:
    """The fields of a class."""
    return st.lists(inner(), min_size=1, max_size=4)


def inner() -> st.SearchStrategy[Kind]:
    """Anything that may be a field."""
    return st.recursive(st.sampled_from(SIMPLE), _wider, max_leaves=4)


def _wider(kinds: st.SearchStrategy[Kind]) -> st.SearchStrategy[Kind]:
    return st.one_of(
        kinds.map(lambda k: Kind(list[k.annotation], "list", st.lists(k.values, max_size=3))),
        kinds.map(
            lambda k: Kind(
                dict[str, k.annotation], "dict", st.dictionaries(TEXT, k.values, max_size=2)
            )
        ),
        kinds.map(_optional),
        kinds.map(
            lambda k: Kind(
                dict[int, k.annotation], "dict of int", st.dictionaries(INT, k.values, max_size=2)
            )
        ),
        kinds.filter(lambda k: k.annotation in HASHABLE).map(
            lambda k: Kind(frozenset[k.annotation], "set", st.frozensets(k.values, max_size=3))
        ),
        st.tuples(kinds, kinds).map(
            lambda two: Kind(
                tuple[two[0].annotation, two[1].annotation],
                "tuple",
                st.tuples(two[0].values, two[1].values),
            )
        ),
        st.lists(kinds, min_size=1, max_size=3).map(struct),
        st.lists(kinds, min_size=1, max_size=3).map(data_class),
        st.lists(kinds, min_size=1, max_size=3).map(typed_dict),
    )


def _optional(kind: Kind) -> Kind:
    from typing import Optional

    return Kind(Optional[kind.annotation], "optional", st.none() | kind.values)  # noqa: UP045


def struct(kinds: list[Kind]) -> Kind:
    names = [f"f{n}" for n in range(len(kinds))]
    shape = [(name, kind.annotation) for name, kind in zip(names, kinds, strict=True)]
    made = msgspec.defstruct(f"Struct{next(_numbers)}", shape)
    return Kind(made, "Struct", st.builds(made, *[kind.values for kind in kinds]))


def data_class(kinds: list[Kind]) -> Kind:
    shape = [(f"f{n}", kind.annotation) for n, kind in enumerate(kinds)]
    made = dataclasses.make_dataclass(f"Data{next(_numbers)}", shape)
    return Kind(made, "dataclass", st.builds(made, *[kind.values for kind in kinds]))


def typed_dict(kinds: list[Kind]) -> Kind:
    shape = {f"f{n}": kind.annotation for n, kind in enumerate(kinds)}
    made: Any = TypedDict(f"Dict{next(_numbers)}", shape)  # type: ignore[operator]
    values = st.fixed_dictionaries({f"f{n}": kind.values for n, kind in enumerate(kinds)})
    return Kind(made, "TypedDict", values)


def model(kinds: list[Kind]) -> Kind:
    shape: dict[str, Any] = {f"f{n}": (kind.annotation, ...) for n, kind in enumerate(kinds)}
    made = pydantic.create_model(f"Model{next(_numbers)}", **shape)
    values = st.fixed_dictionaries({f"f{n}": kind.values for n, kind in enumerate(kinds)})
    return Kind(made, "pydantic", values.map(made.model_validate))


WIRE = [
    (int, INT),
    (uint32, st.integers(0, 2**32 - 1)),
    (sint32, INT),
    (str, TEXT),
    (bytes, st.binary(max_size=8)),
    (bool, st.booleans()),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (list[int], st.lists(INT, max_size=3)),
    (list[str], st.lists(TEXT, max_size=3)),
    (dict[str, int], st.dictionaries(TEXT, INT, max_size=2)),
]


def message(chosen: list[tuple[Any, st.SearchStrategy[Any]]]) -> Kind:
    names = {f"f{n}": Annotated[kind, n] for n, (kind, _) in enumerate(chosen, 1)}
    made: Any = record(type(f"Record{next(_numbers)}", (), {"__annotations__": names}))
    return Kind(made, "record", st.builds(made, *[values for _, values in chosen]))


PROTO = Kind(
    timestamp_pb2.Timestamp,
    "protobuf class",
    st.builds(timestamp_pb2.Timestamp, seconds=st.integers(0, 2**31), nanos=st.integers(0, 999)),
)


def bodies() -> st.SearchStrategy[Kind]:
    """Anything that may be the body of a request."""
    return st.one_of(
        inner(),
        fields().map(struct),
        fields().map(data_class),
        fields().map(typed_dict),
        st.just(Kind(tuple[bytes, bytes], "tuple of bytes", st.tuples(st.binary(), st.binary()))),
        st.lists(st.sampled_from(SIMPLE[:4]), min_size=1, max_size=4).map(model),
        st.lists(st.sampled_from(WIRE), min_size=1, max_size=5).map(message),
        st.just(PROTO),
        st.just(Kind(bytes, "bytes", st.binary(max_size=20))),
        st.sampled_from(ODD),
    )


class Signature(NamedTuple):
    """A handler's signature. shape: how the reply is made; request: where the Request stands."""

    kind: Kind
    shape: str
    request: str


def signatures() -> st.SearchStrategy[Signature]:
    """The signatures of handlers."""
    return st.builds(
        Signature,
        bodies(),
        st.sampled_from(["function", "coroutine", "generator", "async generator"]),
        st.sampled_from(["no", "first", "last"]),
    )

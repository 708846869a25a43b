"""Records for the tests: DelphiZeroMQ's sample types, and one with every kind of field."""

from __future__ import annotations

import datetime as dt
import enum
from typing import Annotated

from hypothesis import strategies as st

from majordomus.messages import (
    OneOf,
    fixed32,
    fixed64,
    implicit,
    int32,
    int64,
    record,
    sfixed32,
    sfixed64,
    single,
    sint32,
    uint32,
    uint64,
    unpacked,
)


class PhoneType(enum.IntEnum):
    MOBILE = 0
    HOME = 1
    WORK = 2


class Color(enum.Enum):
    """No IntEnum, no zero, one negative member."""

    RED = 1
    GREEN = 2
    INFRA = -5


class Groups(enum.Flag):
    FAMILY = 1
    FRIENDS = 2
    WORK = 4


@record
class PhoneNumber:
    number: Annotated[str, 1]
    type: Annotated[PhoneType, 2] = PhoneType.HOME


@record
class Person:
    """As DelphiZeroMQ's unit tests declare it."""

    name: Annotated[str, 1]
    id: Annotated[uint32, 2]
    email: Annotated[str, 3]
    phone: Annotated[list[PhoneNumber], 4] = ()


@record
class Everything:
    a_double: Annotated[float, 1] = 0.0
    a_single: Annotated[single, 2] = 0.0
    an_int32: Annotated[int32, 3] = 0
    an_int64: Annotated[int64, 4] = 0
    a_uint32: Annotated[uint32, 5] = 0
    a_uint64: Annotated[uint64, 6] = 0
    a_sint32: Annotated[sint32, 7] = 0
    a_sint64: Annotated[int, 8] = 0
    a_fixed32: Annotated[fixed32, 9] = 0
    a_fixed64: Annotated[fixed64, 10] = 0
    an_sfixed32: Annotated[sfixed32, 11] = 0
    an_sfixed64: Annotated[sfixed64, 12] = 0
    a_bool: Annotated[bool, 13] = False
    a_str: Annotated[str, 14] = ""
    some_bytes: Annotated[bytes, 15] = b""
    a_phone: Annotated[PhoneType, 16] = PhoneType.MOBILE
    a_color: Annotated[Color, 17] = Color.RED
    a_flag: Annotated[Groups, 18] = Groups(0)
    a_moment: Annotated[dt.datetime, 19] = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    a_span: Annotated[dt.timedelta, 20] = dt.timedelta()
    with_default: Annotated[int, 21] = 7
    text_with_default: Annotated[str, 22] = "x"
    plain: Annotated[int, 23, implicit] = 0
    maybe_int: Annotated[int | None, 24] = None
    maybe_str: Annotated[str | None, 25] = None
    maybe_bool: Annotated[bool | None, 26] = None
    maybe_color: Annotated[Color | None, 27] = None
    maybe_moment: Annotated[dt.datetime | None, 28] = None
    maybe_phone: Annotated[PhoneNumber | None, 29] = None
    ints: Annotated[list[int], 30] = ()
    floats: Annotated[list[float], 31] = ()
    bools: Annotated[tuple[bool, ...], 32] = ()
    texts: Annotated[list[str], 33] = ()
    blobs: Annotated[list[bytes], 34] = ()
    colors: Annotated[list[Color], 35] = ()
    phones: Annotated[tuple[PhoneNumber, ...], 36] = ()
    moments: Annotated[list[dt.datetime], 37] = ()
    loose: Annotated[list[fixed32], 38, unpacked] = ()
    counts: Annotated[dict[str, int], 39] = ()
    by_id: Annotated[dict[uint32, PhoneNumber], 40] = ()
    by_flag: Annotated[dict[bool, Color], 41] = ()
    one_int: Annotated[int | None, 42, OneOf("choice")] = None
    one_text: Annotated[str | None, 43, OneOf("choice")] = None
    one_phone: Annotated[PhoneNumber | None, 44, OneOf("choice")] = None
    inner: Annotated[Everything | None, 45] = None
    far: Annotated[int | None, 536_870_911] = None
    from_: Annotated[int | None, 46] = None


def whole(bits: int, *, signed: bool) -> st.SearchStrategy[int]:
    low = -(1 << (bits - 1)) if signed else 0
    return st.integers(low, low + (1 << bits) - 1)


I32, I64 = whole(32, signed=True), whole(64, signed=True)
U32, U64 = whole(32, signed=False), whole(64, signed=False)
DOUBLES = st.floats(allow_nan=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
MOMENTS = st.datetimes(dt.datetime(1, 1, 2), timezones=st.just(dt.UTC))
SPANS = st.timedeltas(dt.timedelta(days=-3_000_000), dt.timedelta(days=3_000_000))
PHONES = st.builds(PhoneNumber, TEXTS, st.sampled_from(PhoneType))
PERSONS = st.builds(Person, TEXTS, U32, TEXTS, st.lists(PHONES, max_size=3))


def maybe(values: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.none() | values


@st.composite
def everythings(draw: st.DrawFn, depth: int = 1) -> Everything:
    """A record of which a random part of the fields is set, also to zeros and empty values."""
    values: dict[str, st.SearchStrategy[object]] = {
        "a_double": DOUBLES,
        "a_single": st.floats(width=32, allow_nan=False),
        "an_int32": I32,
        "an_int64": I64,
        "a_uint32": U32,
        "a_uint64": U64,
        "a_sint32": I32,
        "a_sint64": I64,
        "a_fixed32": U32,
        "a_fixed64": U64,
        "an_sfixed32": I32,
        "an_sfixed64": I64,
        "a_bool": st.booleans(),
        "a_str": TEXTS,
        "some_bytes": st.binary(max_size=20),
        "a_phone": st.sampled_from(PhoneType),
        "a_color": st.sampled_from(Color),
        "a_flag": st.sampled_from([Groups(0), Groups.FAMILY, Groups.FAMILY | Groups.WORK]),
        "a_moment": MOMENTS,
        "a_span": SPANS,
        "with_default": I64,
        "text_with_default": TEXTS,
        "plain": I64,
        "maybe_int": maybe(I64),
        "maybe_str": maybe(TEXTS),
        "maybe_bool": maybe(st.booleans()),
        "maybe_color": maybe(st.sampled_from(Color)),
        "maybe_moment": maybe(MOMENTS),
        "maybe_phone": maybe(PHONES),
        "ints": st.lists(I64, max_size=5),
        "floats": st.lists(DOUBLES, max_size=5),
        "bools": st.lists(st.booleans(), max_size=5).map(tuple),
        "texts": st.lists(TEXTS, max_size=5),
        "blobs": st.lists(st.binary(max_size=5), max_size=5),
        "colors": st.lists(st.sampled_from(Color), max_size=5),
        "phones": st.lists(PHONES, max_size=3).map(tuple),
        "moments": st.lists(MOMENTS, max_size=3),
        "loose": st.lists(U32, max_size=5),
        "counts": st.dictionaries(TEXTS, I64, max_size=4),
        "by_id": st.dictionaries(U32, PHONES, max_size=4),
        "by_flag": st.dictionaries(st.booleans(), st.sampled_from(Color)),
        "far": maybe(I64),
        "from_": maybe(I64),
    }
    if depth:
        values["inner"] = maybe(everythings(depth - 1))
    chosen = draw(st.sets(st.sampled_from(sorted(values)), max_size=12))
    given = {name: draw(values[name]) for name in sorted(chosen)}
    one = draw(st.sampled_from(["one_int", "one_text", "one_phone", ""]))
    if one:
        given[one] = draw({"one_int": I64, "one_text": TEXTS, "one_phone": PHONES}[one])
    return Everything(**given)  # type: ignore[arg-type]

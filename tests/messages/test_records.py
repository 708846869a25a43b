"""Records: declarations, encoding and decoding, and the behaviour of a dataclass."""

from __future__ import annotations

import copy
import dataclasses
import datetime as dt
import enum
import pickle
import threading
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import pytest
from hypothesis import given, settings

from majordomus.errors import ConfigurationError, MajordomusError, RecordError
from majordomus.messages import (
    OneOf,
    Record,
    implicit,
    is_record,
    record,
    single,
    uint32,
    unpacked,
    which_oneof,
)
from tests.messages.samples import (
    Color,
    Everything,
    Groups,
    Person,
    PhoneNumber,
    PhoneType,
    everythings,
)

ERIK = Person("Erik", 42, "erik@example.com", [PhoneNumber("1"), PhoneNumber("2", PhoneType.WORK)])


# -- encoding and decoding


@given(everythings())
@settings(max_examples=300, deadline=None)
def test_decoded_record_equals_the_encoded_one(value: Everything) -> None:
    data = value.to_bytes()
    assert Everything.from_bytes(data) == value
    assert Everything.from_bytes(data).to_bytes() == data


def test_person_with_two_phones_is_decoded_from_its_bytes() -> None:
    assert Person.from_bytes(ERIK.to_bytes()) == ERIK
    assert Person.from_bytes(bytearray(ERIK.to_bytes())) == ERIK
    assert Person.from_bytes(memoryview(ERIK.to_bytes())) == ERIK


def test_absent_fields_get_their_defaults() -> None:
    assert Everything.from_bytes(b"") == Everything()
    assert PhoneNumber.from_bytes(b"") == PhoneNumber("", PhoneType.HOME)
    assert Person.from_bytes(b"") == Person("", 0, "", [])


def test_absent_nested_record_that_is_not_optional_has_zero_fields() -> None:
    @record
    class Outer:
        phone: Annotated[PhoneNumber, 1]
        colors: Annotated[Color, 2]

    assert Outer.from_bytes(b"") == Outer(PhoneNumber("", PhoneType.HOME), Color.RED)


def test_absent_nested_record_with_a_default_is_the_default() -> None:
    @record
    class Outer:
        phone: Annotated[PhoneNumber, 1] = dataclasses.field(
            default_factory=lambda: PhoneNumber("7")
        )

    assert Outer.from_bytes(b"") == Outer(PhoneNumber("7"))
    assert Outer.from_bytes(bytes.fromhex("0a00")) == Outer(PhoneNumber(""))


def test_empty_text_is_written_when_the_default_is_not_empty() -> None:
    value = Everything(text_with_default="", with_default=0)
    assert Everything.from_bytes(value.to_bytes()) == value


def test_none_and_zero_of_an_optional_field_are_encoded_differently() -> None:
    for value in (None, 0, 5):
        assert Everything.from_bytes(Everything(maybe_int=value).to_bytes()).maybe_int == value
    for text in (None, "", "a"):
        assert Everything.from_bytes(Everything(maybe_str=text).to_bytes()).maybe_str == text


def test_datetime_of_another_time_zone_is_decoded_as_the_same_time_in_utc() -> None:
    there = dt.timezone(dt.timedelta(hours=5, minutes=30))
    value = Everything(a_moment=dt.datetime(2024, 2, 29, 1, 2, 3, 4, tzinfo=there))
    back = Everything.from_bytes(value.to_bytes())
    assert back.a_moment == value.a_moment
    assert back.a_moment.tzinfo is dt.UTC


def test_enum_value_without_a_member_is_decoded_as_an_int() -> None:
    back = Everything.from_bytes(bytes.fromhex("800163 880107 9001ff01".replace(" ", "")))
    assert (back.a_phone, back.a_color, back.a_flag) == (99, 7, 255)
    assert Everything.from_bytes(back.to_bytes()) == back


def test_list_given_as_a_tuple_is_encoded_the_same() -> None:
    assert Everything(ints=(1, 2)).to_bytes() == Everything(ints=[1, 2]).to_bytes()  # type: ignore[arg-type]


def test_maps_are_written_in_the_order_of_their_keys() -> None:
    one = Everything(counts={"b": 1, "a": 2, "c": 3})
    other = Everything(counts={"c": 3, "a": 2, "b": 1})
    assert one.to_bytes() == other.to_bytes()


def test_every_empty_default_becomes_an_empty_value_of_the_fields_type() -> None:
    @record
    class Empty:
        one: Annotated[list[int], 1] = []  # noqa: RUF012
        two: Annotated[dict[str, int], 2] = {}  # noqa: RUF012
        three: Annotated[dict[str, int], 3] = ()
        four: Annotated[tuple[int, ...], 4] = ()
        five: Annotated[Sequence[int], 5] = ()

    value = Empty()
    assert (value.one, value.two, value.three, value.four, value.five) == ([], {}, {}, (), [])  # type: ignore[comparison-overlap]
    assert Empty.from_bytes(b"") == value  # type: ignore[attr-defined]


def test_each_record_has_its_own_default_empty_list() -> None:
    one, other = Person("a", 1, ""), Person("b", 2, "")
    one.phone.append(PhoneNumber("5"))
    assert other.phone == []


# -- unknown fields


@record
class OldPerson:
    name: Annotated[str, 1]


@record
class OldPhoneNumber:
    number: Annotated[str, 1]


@record
class OldHolder:
    phones: Annotated[list[OldPhoneNumber], 4] = ()


def test_unknown_fields_are_kept_and_written_again() -> None:
    old = OldPerson.from_bytes(ERIK.to_bytes())
    assert old == OldPerson("Erik")
    assert Person.from_bytes(old.to_bytes()) == ERIK


def test_unknown_fields_of_nested_records_are_kept() -> None:
    old = OldHolder.from_bytes(ERIK.to_bytes())
    assert old.phones == [OldPhoneNumber("1"), OldPhoneNumber("2")]
    assert Person.from_bytes(old.to_bytes()) == ERIK


def test_unknown_fields_are_kept_when_every_field_is_set_before_one_is_read() -> None:
    old = OldPerson.from_bytes(ERIK.to_bytes())
    old.name = "Eric"
    assert Person.from_bytes(old.to_bytes()) == dataclasses.replace(ERIK, name="Eric")


def test_record_without_fields_keeps_unknown_fields() -> None:
    @record
    class Nothing:
        pass

    @record
    class Holder:
        nothing: Annotated[Nothing, 1]

    assert Nothing().to_bytes() == b""
    assert Nothing.from_bytes(b"") == Nothing()
    assert Nothing.from_bytes(b"\x08\x05").to_bytes() == b"\x08\x05"
    assert Holder(Nothing()).to_bytes() == b"\x0a\x00"
    assert Holder.from_bytes(b"\x0a\x02\x08\x05").to_bytes() == b"\x0a\x02\x08\x05"


def test_copies_keep_unknown_fields() -> None:
    old = OldHolder.from_bytes(ERIK.to_bytes())
    for twin in (copy.copy(old), copy.deepcopy(old), pickle.loads(pickle.dumps(old))):  # noqa: S301
        assert Person.from_bytes(twin.to_bytes()) == ERIK


# -- a record is a dataclass


def test_record_is_a_dataclass_with_arguments_in_declared_order() -> None:
    assert dataclasses.is_dataclass(Person)
    assert [field.name for field in dataclasses.fields(Person)] == ["name", "id", "email", "phone"]
    assert repr(PhoneNumber("5")) == ("PhoneNumber(number='5', type=<PhoneType.HOME: 1>)")
    assert dataclasses.replace(ERIK, id=3) == Person("Erik", 3, ERIK.email, ERIK.phone)
    assert is_record(Person)
    assert not is_record(PhoneType)


def test_decoded_record_behaves_as_its_class_before_its_fields_are_read() -> None:
    data = ERIK.to_bytes()
    assert type(Person.from_bytes(data)) is Person
    assert repr(Person.from_bytes(data)) == repr(ERIK)
    assert ERIK == Person.from_bytes(data)  # noqa: SIM300 - the other order, on purpose
    assert dataclasses.asdict(Person.from_bytes(data)) == dataclasses.asdict(ERIK)
    assert pickle.loads(pickle.dumps(Person.from_bytes(data))) == ERIK  # noqa: S301
    assert copy.copy(Person.from_bytes(data)) == ERIK
    with pytest.raises(AttributeError):
        Person.from_bytes(data).nothing  # type: ignore[attr-defined]  # noqa: B018


def test_attribute_set_before_the_record_is_unpacked_is_kept() -> None:
    decoded = Person.from_bytes(ERIK.to_bytes())
    decoded.name = "Eric"
    assert decoded == dataclasses.replace(ERIK, name="Eric")
    assert Person.from_bytes(decoded.to_bytes()).name == "Eric"


def test_record_with_a_deleted_attribute_cannot_be_encoded() -> None:
    decoded = Person.from_bytes(ERIK.to_bytes())
    assert decoded.name == "Erik"
    del decoded.name
    with pytest.raises(AttributeError):
        decoded.name  # noqa: B018
    with pytest.raises(RecordError, match=r"Person\.name: is missing"):
        decoded.to_bytes()


def test_threads_that_read_a_nested_list_at_once_get_the_same_list() -> None:
    for _ in range(50):
        decoded = Person.from_bytes(ERIK.to_bytes())
        seen: list[Any] = []
        barrier = threading.Barrier(4)

        def read(decoded: Person = decoded, seen: list[Any] = seen, wait: Any = barrier) -> None:
            wait.wait()
            seen.append(decoded.phone)

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(one is seen[0] for one in seen)


def test_frozen_and_keyword_only_records_are_decoded() -> None:
    @record(frozen=True, order=True)
    class Point:
        x: Annotated[int, 1]
        y: Annotated[int, 2] = 0

    @record(kw_only=True)
    class Named:
        name: Annotated[str, 1] = ""
        id: Annotated[int, 2]

    point = Point.from_bytes(Point(3, -4).to_bytes())  # type: ignore[attr-defined]
    assert hash(point) == hash(Point(3, -4))
    assert point < Point(4)
    with pytest.raises(dataclasses.FrozenInstanceError):
        point.x = 5
    assert Named.from_bytes(Named(id=5).to_bytes()) == Named(id=5)  # type: ignore[attr-defined]


def test_post_init_runs_in_decoding_and_its_error_becomes_a_record_error() -> None:
    @record
    class Even:
        number: Annotated[int, 1]
        half: ClassVar[int] = 0

        def __post_init__(self) -> None:
            if self.number % 2:
                raise ValueError("odd")

    @record
    class Holder:
        even: Annotated[Even, 1]

    assert Even.from_bytes(Even(4).to_bytes()) == Even(4)  # type: ignore[attr-defined]
    with pytest.raises(RecordError, match="Even: odd"):
        Even.from_bytes(bytes.fromhex("0806"))  # type: ignore[attr-defined]
    with pytest.raises(RecordError, match="odd"):
        Holder.from_bytes(bytes.fromhex("0a020806"))  # type: ignore[attr-defined]


def test_record_with_its_own_init_is_decoded_without_calling_it() -> None:
    @record
    class Pair:
        left: Annotated[int, 1]
        right: Annotated[int, 2]

        def __init__(self, both: int) -> None:
            self.left = self.right = both

    pair = Pair.from_bytes(Pair(3).to_bytes())  # type: ignore[attr-defined]
    assert (pair.left, pair.right) == (3, 3)


def test_subclass_of_record_is_a_record() -> None:
    class Point(Record, frozen=True, package="geo", name="Dot"):
        x: Annotated[int, 1] = 0

    assert Point.from_bytes(Point(5).to_bytes()) == Point(5)
    assert "package geo;" in Point.to_proto()
    assert "message Dot {" in Point.to_proto()


def test_record_inherits_the_fields_of_a_record() -> None:
    @record
    class Base:
        a: Annotated[int, 1] = 1

    @record
    class Child(Base):
        b: Annotated[int, 2] = 2

    assert Child.from_bytes(Child(5, 6).to_bytes()) == Child(5, 6)  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError, match="Clash: a and b have the same tag 1"):

        @record
        class Clash(Base):
            b: Annotated[int, 1] = 2


# -- records that contain each other


@record
class Tree:
    left: Annotated[Tree | None, 1] = None
    value: Annotated[int, 2] = 0
    others: Annotated[list[Forest], 3] = ()


@record
class Forest:
    trees: Annotated[list[Tree], 1] = ()


def test_records_that_contain_each_other_are_decoded() -> None:
    tree = Tree(Tree(value=1), 2, [Forest([Tree(value=3)])])
    assert Tree.from_bytes(tree.to_bytes()) == tree
    forest = Forest([tree])
    assert Forest.from_bytes(forest.to_bytes()) == forest
    assert Tree.to_proto().count("message ") == 2


def test_use_of_a_record_with_an_undefined_annotation_is_an_error_that_names_it() -> None:
    @record
    class Waiting:
        other: Annotated[NeverDefined, 1]  # type: ignore[name-defined]  # noqa: F821

    for use in (lambda: Waiting(1).to_bytes(), lambda: Waiting.from_bytes(b""), Waiting.to_proto):  # type: ignore[attr-defined, arg-type]
        with pytest.raises(ConfigurationError, match="Waiting: NeverDefined is not defined"):
            use()


# -- wrong declarations


class Words(enum.Enum):
    A = "a"


class Other:
    pass


def error_of(annotation: Any, default: Any = dataclasses.MISSING) -> str:
    """The error text for a record with a field of this annotation."""
    members: dict[str, Any] = {"__annotations__": {"field": annotation}}
    if default is not dataclasses.MISSING:
        members["field"] = default
    with pytest.raises(ConfigurationError) as caught:
        record(type("Wrong", (), members))
    return str(caught.value)


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (int, "Wrong.field has no tag"),
        (Annotated[int, 0], "0 is not a tag"),
        (Annotated[int, -1], "-1 is not a tag"),
        (Annotated[int, True], "True is not a tag"),
        (Annotated[int, 536_870_912], "536870912 is not a tag"),
        (Annotated[int, 19_500], "reserved"),
        (Annotated[int, 1, 2], "2 tags"),
        (Annotated[complex, 1], "complex has no protobuf type"),
        (Annotated[Other, 1], "Other has no protobuf type"),
        (Annotated[int | str, 1], "a union other than X | None"),
        (Annotated[list[int] | None, 1], "cannot be None"),
        (Annotated[dict[str, int] | None, 1], "cannot be None"),
        (Annotated[list[int | None], 1], "no protobuf type"),
        (Annotated[list[list[int]], 1], "no protobuf type"),
        (Annotated[dict[float, int], 1], "keys of a dict"),
        (Annotated[tuple[int, int], 1], "of any length"),
        (Annotated[Words, 1], "Words.A is not a 32-bit integer"),
        (Annotated[uint32, 1, single.__metadata__[0]], "two protobuf types"),
        (Annotated[int, 1, OneOf("x")], "a field of a OneOf"),
        (Annotated[int | None, 1, implicit], "implicit applies only"),
        (Annotated[list[str], 1, unpacked], "unpacked applies only"),
    ],
)
def test_wrong_declaration_is_rejected_when_the_class_is_made(
    annotation: Any, expected: str
) -> None:
    assert expected in error_of(annotation)


def test_wrong_default_is_rejected_when_the_class_is_made() -> None:
    assert "the default of an optional field must be None" in error_of(Annotated[int | None, 1], 5)
    assert "other than zero" in error_of(Annotated[int, 1, implicit], 5)


def test_error_for_a_duplicate_tag_names_both_fields() -> None:
    with pytest.raises(ConfigurationError, match="Twice: one and two have the same tag 3"):

        @record
        class Twice:
            one: Annotated[int, 3]
            two: Annotated[str, 3]


def test_fields_with_the_same_name_in_json_are_rejected() -> None:
    with pytest.raises(ConfigurationError, match="fooBar and foo_bar have the same name in JSON"):

        @record
        class Twice:
            fooBar: Annotated[int, 1]  # noqa: N815
            foo_bar: Annotated[int, 2]


@pytest.mark.parametrize(
    "name", ["to_bytes", "SerializeToString", "DESCRIPTOR", "_hidden", "größe"]
)
def test_reserved_or_invalid_field_name_is_rejected(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        record(type("Wrong", (), {"__annotations__": {name: Annotated[int, 1]}}))


def test_record_with_slots_is_rejected() -> None:
    with pytest.raises(ConfigurationError, match="cannot have slots"):
        record(slots=True)(type("Wrong", (), {"__annotations__": {"a": Annotated[int, 1]}}))


def test_two_records_with_the_same_name_cannot_be_in_one_file() -> None:
    def make(tag: int) -> Any:
        return record(type("Same", (), {"__annotations__": {"a": Annotated[int, tag]}}))

    one, other = make(1), make(2)
    with pytest.raises(ConfigurationError, match="are both Same in"):
        record(
            type(
                "Holder",
                (),
                {"__annotations__": {"a": Annotated[one, 1], "b": Annotated[other, 2]}},
            )
        )


def test_class_name_can_be_used_again_after_a_wrong_declaration() -> None:
    with pytest.raises(ConfigurationError):
        record(type("Later", (), {"__annotations__": {"a": int}}))
    made = record(type("Later", (), {"__annotations__": {"a": Annotated[int, 1]}}))
    assert made.from_bytes(b"").a == 0  # type: ignore[attr-defined]


# -- values that do not fit


NAIVE = dt.datetime(2024, 1, 1)


@pytest.mark.parametrize(
    ("values", "field", "expected"),
    [
        ({"a_sint64": "x"}, "a_sint64", "expected sint64, got 'x'"),
        ({"a_sint64": None}, "a_sint64", "expected sint64, got None"),
        ({"a_sint64": 1 << 63}, "a_sint64", "out of range"),
        ({"a_uint32": -1}, "a_uint32", "expected uint32"),
        ({"a_str": 5}, "a_str", "expected string, got 5"),
        ({"a_str": "\ud800"}, "a_str", "surrogates"),
        ({"a_bool": "x"}, "a_bool", "expected bool"),
        ({"a_moment": NAIVE}, "a_moment", "without a time zone"),
        ({"a_moment": 5}, "a_moment", "expected google.protobuf.Timestamp"),
        ({"maybe_phone": 5}, "maybe_phone", "expected PhoneNumber, got 5"),
        ({"maybe_phone": PhoneNumber(5)}, "maybe_phone.number", "expected string, got 5"),  # type: ignore[arg-type]
        ({"phones": (PhoneNumber("1"), PhoneNumber("", "x"))}, "phones[1].type", "PhoneType"),  # type: ignore[arg-type]
        ({"phones": 5}, "phones", "expected tuple of PhoneNumber, got 5"),
        ({"ints": [1, "2"]}, "ints", "expected list of sint64"),
        ({"by_id": {7: PhoneNumber(1)}}, "by_id[7].number", "expected string"),  # type: ignore[arg-type]
        ({"counts": {5: 5}}, "counts", "expected dict of sint64"),
        ({"inner": Everything(a_str=5)}, "inner.a_str", "expected string"),  # type: ignore[arg-type]
        ({"one_int": 1, "one_text": "a"}, "one_text", "one_int and one_text are both set"),
        ({"inner": Everything(one_int=1, one_text="a")}, "inner.one_text", "both set"),
    ],
)
def test_value_that_does_not_fit_raises_with_the_path_of_its_field(
    values: dict[str, Any], field: str, expected: str
) -> None:
    with pytest.raises(RecordError) as caught:
        Everything(**values).to_bytes()
    assert (caught.value.record, caught.value.field) == ("Everything", field)
    assert expected.lower() in str(caught.value).lower()
    assert isinstance(caught.value, MajordomusError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("data", "field", "expected"),
    [
        ("0a056162", "name", "5 bytes announced, only 2 left"),
        ("0a01ff", "name", "not UTF-8"),
        ("22030a01ff", "phone.number", "not UTF-8"),
        ("10", "id", "end within a varint"),
        ("10ffffffffffffffffffffff", "id", "more than 10 bytes"),
        ("0000", "", "0 is not a valid tag"),
        ("ff", "", "end within a varint"),
        ("0f", "name", "wire type 7"),
    ],
)
def test_invalid_bytes_raise_an_error_that_names_the_field(
    data: str, field: str, expected: str
) -> None:
    with pytest.raises(RecordError) as caught:
        Person.from_bytes(bytes.fromhex(data))
    assert (caught.value.record, caught.value.field) == ("Person", field)
    assert expected in str(caught.value)


def test_group_is_decoded_as_an_unknown_field() -> None:
    assert Person.from_bytes(bytes.fromhex("3b3c")) == Person("", 0, "")


def test_timestamp_out_of_pythons_range_raises_when_decoding() -> None:
    seconds = bytes.fromhex("08ffffffffffffff7f")
    with pytest.raises(RecordError, match=r"Everything\.a_moment: out of range"):
        Everything.from_bytes(bytes.fromhex("9a01") + bytes([len(seconds)]) + seconds)


def test_records_nested_deeper_than_upbs_limit_are_rejected() -> None:
    data = b""
    for _ in range(200):
        size = len(data)
        head = bytes([size & 0x7F | 0x80, size >> 7]) if size > 127 else bytes([size])
        data = b"\x0a" + head + data
    with pytest.raises(RecordError, match="Tree"):
        Tree.from_bytes(data)


# -- oneofs, flags and enums


def test_which_oneof_names_the_field_that_is_set() -> None:
    assert which_oneof(Everything(one_text=""), "choice") == "one_text"
    assert which_oneof(Everything(), "choice") is None
    with pytest.raises(ConfigurationError, match="no OneOf 'other'"):
        which_oneof(Everything(), "other")


def test_flags_and_enums_are_decoded_as_members() -> None:
    value = Everything(a_flag=Groups.FAMILY | Groups.WORK, colors=[Color.INFRA, Color.GREEN])
    back = Everything.from_bytes(value.to_bytes())
    assert back.a_flag is Groups.FAMILY | Groups.WORK
    assert back.colors == [Color.INFRA, Color.GREEN]

"""The changes between two contracts, and which of them break callers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import pytest

from majordomus import Worker
from majordomus.contracts import compare, model
from majordomus.contracts.model import BodyContract, Contract, ErrorContract, TopicContract
from majordomus.messages import record


def body_of(annotation: Any) -> BodyContract:
    def handler(value: Any) -> None:
        return None

    handler.__annotations__ = {"value": annotation, "return": None}
    worker = Worker()
    worker.add("s", handler)
    body = model.parse(worker.handlers["s"].contract).request
    assert body is not None
    return body


def struct(**fields: Any) -> Any:
    shape = [(name, *(kind if type(kind) is tuple else (kind,))) for name, kind in fields.items()]
    return msgspec.defstruct("Shape", shape)


OLD = struct(name=str, size=(int, 0))
TABLE: list[tuple[str, Any, Any, str, str]] = [
    # what changes, old, new, breaks as a request, breaks as a reply
    ("nothing", OLD, OLD, "", ""),
    ("an optional field is added", OLD, struct(name=str, size=(int, 0), more=(int, 1)), "", ""),
    (
        "a required field is added",
        OLD,
        struct(name=str, more=int),
        "value.more: is new and required",
        "",
    ),
    (
        "a field is removed",
        OLD,
        struct(size=(int, 0)),
        "",
        "value.name: was required and is removed",
    ),
    ("a field becomes required", OLD, struct(name=str, size=int), "value.size: is required", ""),
    ("int becomes float", struct(x=int), struct(x=float), "", "value.x: integer became number"),
    ("float becomes str", struct(x=float), struct(x=str), *["value.x: number became string"] * 2),
    (
        "a field may be left out",
        struct(x=int),
        struct(x=(int, 0)),
        "",
        "value.x: is not required any more",
    ),
    (
        "a bound becomes wider",
        struct(x=Annotated[int, msgspec.Meta(ge=0)]),
        struct(x=Annotated[int, msgspec.Meta(ge=-1)]),
        "",
        "value.x: minimum was 0 and is -1 now",
    ),
    (
        "str becomes int",
        struct(x=str),
        struct(x=int),
        "value.x: string became integer",
        "value.x: string became integer",
    ),
    ("a value becomes optional", struct(x=int), struct(x=int | None), "", "value.x"),
    (
        "a choice is added",
        struct(x=Literal["a"]),
        struct(x=Literal["a", "b"]),
        "",
        "value.x: 'b' is possible now",
    ),
    ("a list of other values", struct(x=list[int]), struct(x=list[str]), "value.x[]", "value.x[]"),
    (
        "a map of other values",
        struct(x=dict[str, int]),
        struct(x=dict[str, str]),
        "value.x[...]",
        "value.x[...]",
    ),
    (
        "a bound becomes tighter",
        struct(x=int),
        struct(x=Annotated[int, msgspec.Meta(ge=0)]),
        "value.x: minimum is 0 now",
        "",
    ),
    (
        "a tuple grows",
        struct(x=tuple[int, str]),
        struct(x=tuple[int, str, str]),
        "value.x",
        "value.x",
    ),
    ("fields change their order", struct(a=int, b=str), struct(b=str, a=int), "", ""),
]


def breaking(where: str, old: BodyContract, new: BodyContract) -> str:
    pair = [Contract(**{where: one}) for one in (old, new)]
    found = [str(one) for one in compare.changes(*pair) if one.breaking]
    return found[0].replace(f"{where}", "value", 1) if found else ""


@pytest.mark.parametrize(
    ("old", "new", "request_", "reply"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_change_breaks_requests_or_replies(old: Any, new: Any, request_: str, reply: str) -> None:
    one, other = body_of(old), body_of(new)
    for where, expected in (("request", request_), ("reply", reply)):
        found = breaking(where, one, other)
        assert bool(found) == bool(expected)
        assert found.startswith(expected)


def test_another_order_is_reported_and_breaks_protobuf_alone() -> None:
    one, other = body_of(struct(a=int, b=str)), body_of(struct(b=str, a=int))
    [change] = compare.changes(Contract(request=one), Contract(request=other))
    assert str(change) == "request: the fields are in another order: a, b"
    assert not change.breaking


def test_number_of_a_record_that_changes_breaks_callers() -> None:
    @record(name="P")
    class One:
        x: Annotated[int, 1]

    @record(name="P")
    class Other:
        x: Annotated[int, 2]

    found = compare.changes(Contract(request=body_of(One)), Contract(request=body_of(Other)))
    assert "request.x: its number 1 became 2" in [str(one) for one in found if one.breaking]


def test_wire_type_of_a_record_that_changes_breaks_callers() -> None:
    from majordomus.messages import uint32

    @record(name="P")
    class One:
        x: Annotated[int, 1]

    @record(name="P")
    class Other:
        x: Annotated[uint32, 1]

    assert breaking("request", body_of(One), body_of(Other)).startswith("value.x")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            Contract(idempotent=True),
            Contract(),
            ["idempotent: the service is no longer idempotent"],
        ),
        (Contract(), Contract(once=True), ["once: callers have to send ONCE now"]),
        (Contract(version="1"), Contract(version="2"), []),
        (
            Contract(),
            Contract(request=BodyContract({"type": "string"})),
            ["request: the body has a type now"],
        ),
        (
            Contract(reply=BodyContract({"type": "string"})),
            Contract(),
            ["reply: any body is possible now"],
        ),
        (
            Contract(reply=BodyContract()),
            Contract(reply=BodyContract(stream=True)),
            ["reply: is a stream now"],
        ),
        (
            Contract(request=BodyContract({}, ("a", "b"))),
            Contract(request=BodyContract({}, ("a",))),
            ["request: b is not accepted any more"],
        ),
        (
            Contract(errors=(ErrorContract(404, detail={"type": "string"}),)),
            Contract(errors=(ErrorContract(404),)),
            ["errors.404: its detail was removed"],
        ),
        (Contract(), Contract(errors=(ErrorContract(409),)), []),
        (
            Contract(publishes=(TopicContract("a.b"),)),
            Contract(publishes=(TopicContract("a.c"),)),
            ["publishes.a.b: its events are not published any more"],
        ),
        (
            Contract(publishes=(TopicContract("a", {"type": "string"}),)),
            Contract(publishes=(TopicContract("a", {"type": "integer"}),)),
            ["publishes.a: string became integer"],
        ),
    ],
)
def test_change_beside_the_schemas(old: Contract, new: Contract, expected: list[str]) -> None:
    assert [str(one) for one in compare.changes(old, new) if one.breaking] == expected
    assert compare.changes(old, new)


def test_contracts_are_compatible_when_one_can_replace_the_other() -> None:
    narrow, wide = body_of(struct(x=int)), body_of(struct(x=int, y=(int, 0)))
    other = body_of(struct(x=str))
    assert compare.compatible(Contract(reply=narrow), Contract(reply=wide))
    assert compare.compatible(Contract(reply=wide), Contract(reply=narrow))
    assert not compare.compatible(Contract(reply=narrow), Contract(reply=other))


def test_recursive_types_are_compared_to_an_end() -> None:
    tree = {
        "$ref": "#/$defs/T",
        "$defs": {"T": {"type": "object", "properties": {"next": {"$ref": "#/$defs/T"}}}},
    }
    deeper = {
        "$ref": "#/$defs/T",
        "$defs": {
            "T": {
                "type": "object",
                "properties": {"next": {"$ref": "#/$defs/T"}, "x": {"type": "string"}},
            }
        },
    }
    old, new = Contract(request=BodyContract(tree)), Contract(request=BodyContract(deeper))
    assert not compare.breaks(old, new)


def test_schemas_that_take_too_long_to_compare_are_a_problem() -> None:
    def nested(leaf: str) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": leaf}
        for _ in range(9):
            schema = {"anyOf": [{"type": "array", "items": schema}] * 2}
        return schema

    old = Contract(request=BodyContract(nested("string")))
    new = Contract(request=BodyContract(nested("integer")))
    assert any("too complex" in str(one) for one in compare.changes(new, old))

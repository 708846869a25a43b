"""Stubs of contracts that a hostile or a foreign worker states: they are modules, and no more."""

from __future__ import annotations

import sys
import types
import typing
from typing import Any

import pytest

from majordomus.contracts import stubs
from majordomus.contracts.model import BodyContract, Contract
from majordomus.messages.bodies import JSON, PROTOBUF, decoder_for

TEXTS = [
    'x"""\nRAN = 1\n"""',
    "x\rRAN = 1",
    "x\u2028RAN = 1",
    'a" + str(RAN) + "',
    "a' + RAN + '",
    "\\",
    "\\'",
    "{RAN}",
    "class",
    "Client",
    "1x",
    "é",
    "",
]


def imported(text: str) -> types.ModuleType:
    module = types.ModuleType("stub_of_a_test")
    sys.modules[module.__name__] = module
    exec(compile(text, "stub.py", "exec", dont_inherit=True), module.__dict__)  # noqa: S102
    return module


def schema_with(text: str) -> dict[str, Any]:
    """A schema with a text wherever a contract may have any."""
    properties = {
        text: {"type": "string", "default": text, "x-number": 1},
        "number": {"type": "integer", "x-number": text, "x-proto": text},
        "map": {
            "type": "object",
            "x-number": 2,
            "x-proto": f"map<{text}>",
            "additionalProperties": {"type": "integer", "x-proto": text},
        },
        "enum": {"enum": [text, 1], "x-number": 3},
        "const": {"const": text, "x-number": 4},
        "format": {"type": "string", "format": text, "x-type": text, "x-number": 5},
        "items": {"type": "array", "items": 5, "x-number": 6},
        "huge": {"type": "number", "default": 1e308 * 10, "x-number": 7},
        "a-b": {"type": "integer", "x-number": 8},
        "a_b": {"type": "integer", "x-number": 9},
    }
    return {"type": "object", "title": text, "properties": properties, "required": [text]}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("type_", [JSON, PROTOBUF])
def test_text_of_a_contract_is_never_code(text: str, type_: str) -> None:
    schema = schema_with(text)
    body = BodyContract(schema, (type_,), text)
    contract = Contract(request=body, reply=body, doc=text, version=text)
    stream = Contract(request=BodyContract(schema, (text,), "", True))
    for name in (f"{text}.put", f"group.{text}", text or "service"):
        for module, made in stubs.modules({name: contract, "group.stream": stream}).items():
            assert module.isidentifier()
            assert module.isascii()
            found = imported(made)
            assert getattr(found, "RAN", None) != 1
            assert callable(found.connect)
            assert found.Client.__module__ == "majordomus.net.client.client"


def test_fields_with_one_identifier_are_kept_apart() -> None:
    schema = schema_with("plain")
    contract = Contract(request=BodyContract(schema, (JSON,)))
    [text] = stubs.modules({"g.put": contract}).values()
    module = imported(text)
    assert [f.encode_name for f in module_fields(module.Plain)][-2:] == ["a-b", "a_b"]


@pytest.mark.parametrize("type_", [JSON, PROTOBUF])
def test_fields_may_have_the_names_of_types(type_: str) -> None:
    kinds: dict[str, Any] = {
        name: {"type": "string", "default": "x", "x-number": number}
        for number, name in enumerate(("str", "bytes", "datetime", "Any", "msgspec"), 1)
    }
    kinds["list"] = {"type": "array", "items": {"type": "integer"}, "default": [], "x-number": 6}
    kinds["Inner"] = {"$ref": "#/$defs/Inner", "x-number": 7}
    inner = {"type": "object", "title": "Inner", "properties": {"str": kinds["str"]}}
    schema = {"type": "object", "title": "All", "properties": kinds, "$defs": {"Inner": inner}}
    body = BodyContract(schema, (type_,))
    [text] = stubs.modules({"g.put": Contract(request=body)}).values()
    found = imported(text)
    assert found.All(str_="a", list_=[1], Inner_=found.Inner(str_="b")).str_ == "a"
    assert decoder_for(found.All)([b'{"list": [4]}'], JSON).list_ == [4]


def test_methods_may_have_the_names_of_types() -> None:
    body = BodyContract({"type": "array", "items": {"enum": ["list", "a 'list'"]}}, (JSON,))
    every = {f"notes.{name}": Contract(request=body, reply=body) for name in ("list", "str", "put")}
    [text] = stubs.modules(every).values()
    found = imported(text)
    for method in (found.Notes.list, found.Notes.put, found.AsyncNotes.str):
        hints = typing.get_type_hints(method)
        assert hints["return"] == list[typing.Literal["list", "a 'list'"]]
    assert "-> builtins.list[Literal[" in text.replace("\n", "")


def module_fields(cls: Any) -> Any:
    import msgspec

    return msgspec.structs.fields(cls)


def test_groups_with_one_identifier_are_two_modules() -> None:
    made = stubs.modules({"a-b.put": Contract(), "a_b.put": Contract(), "A_B.put": Contract()})
    assert sorted(made) == ["a_b", "a_b_", "a_b__"]
    assert sorted(text.partition("prefix=")[2][:6] for text in made.values()) == [
        '"A_B."',
        '"a-b."',
        '"a_b."',
    ]

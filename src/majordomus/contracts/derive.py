"""Makes the contract of a service: from the annotations of its body and its result, a docstring,
and the arguments of a decorator.

The signature itself is read in net/worker/typed.py, once for the contract and for the calls.
"""

from __future__ import annotations

import inspect
from typing import Any, Final

import msgspec

from majordomus.contracts import model
from majordomus.contracts.facts import ANY, BodyType, Facts
from majordomus.contracts.model import BodyContract, Contract, ErrorContract, TopicContract
from majordomus.contracts.protos import describe
from majordomus.contracts.schemas import schema_of
from majordomus.errors import ConfigurationError, RecordError, StatusError, class_name
from majordomus.messages.bodies import JSON, encode_body, types_of

MAX_DOC: Final = 4096
"""Characters of a docstring that are part of a contract."""


def derive(takes: BodyType, returns: BodyType, doc: str | None, facts: Facts) -> Contract:
    """Return the contract of a service.

    Raises: ConfigurationError for facts that do not fit, and for a contract that is too large.
    """
    if not isinstance(facts.version, str):
        raise ConfigurationError(f"a version is text, not {class_name(facts.version)}")
    known = [one.annotation for one in (takes, returns) if one.annotation is not ANY]
    described = describe(known)
    names = dict(zip(map(id, known), described.names, strict=True))
    contract = Contract(
        request=_body(takes, names.get(id(takes.annotation), "")),
        reply=_reply(returns, names.get(id(returns.annotation), "")),
        version=facts.version,
        doc=_text(inspect.cleandoc(doc)) if isinstance(doc, str) else "",
        errors=tuple(sorted(map(_error, facts.errors), key=lambda error: error.status)),
        publishes=tuple(_topic(topic, of) for topic, of in sorted(facts.publishes)),
        idempotent=bool(facts.idempotent),
        once=bool(facts.once),
        examples=tuple(_example(value) for value in facts.examples),
        descriptor=described.files,
    )
    try:
        size = len(model.to_bytes(contract))
    except UnicodeEncodeError as error:
        raise ConfigurationError(f"the contract has text that is no Unicode: {error}") from None
    if size > model.MAX_CONTRACT:
        contract = _shortened(contract)
        size = len(model.to_bytes(contract))
    if size > model.MAX_CONTRACT:
        raise ConfigurationError(
            f"the contract has {size} bytes, of {model.MAX_CONTRACT} at most: "
            "shorten its docstring and examples"
        )
    return contract


def _text(doc: str) -> str:
    """The docstring as far as it is part of a contract."""
    return doc[:MAX_DOC].encode("utf-8", "replace").decode()


def _shortened(contract: Contract) -> Contract:
    """Leave out the descriptor, and the schemas too if that is not enough: a type from a large
    library must not keep a handler from being added."""
    bodies = {
        name: None if body is None else msgspec.structs.replace(body, message="")
        for name, body in (("request", contract.request), ("reply", contract.reply))
    }
    shorter = msgspec.structs.replace(contract, descriptor=b"", **bodies)
    if len(model.to_bytes(shorter)) <= model.MAX_CONTRACT:
        return shorter
    bodies = {
        name: None if body is None else msgspec.structs.replace(body, schema={})
        for name, body in bodies.items()
    }
    return msgspec.structs.replace(shorter, **bodies)


def _reply(body: BodyType, message: str) -> BodyContract | None:
    """A reply of several texts or bytes has a frame for each of them."""
    if body.annotation == list[str]:
        return BodyContract({"items": {"type": "string"}, "type": "array"}, (), "", body.stream)
    return _body(body, message)


def _body(body: BodyType, message: str) -> BodyContract | None:
    if body.annotation is ANY:
        return BodyContract(stream=True) if body.stream else None
    if body.annotation in (None, type(None)):
        return BodyContract({"type": "null"}, (), "", body.stream)
    types = types_of(body.annotation)
    return BodyContract(schema_of(body.annotation), types, message, body.stream)


def _error(given: Any) -> ErrorContract:
    cls, detail = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
    if not (isinstance(cls, type) and issubclass(cls, StatusError)):
        raise ConfigurationError(
            f"errors: expected a class such as NotFound, or (NotFound, type of its detail), "
            f"not {given!r:.60}"
        )
    doc = _text(inspect.cleandoc(str(cls.__doc__ or "")).partition("\n")[0])
    schema = None if detail is None else schema_of(detail)
    return ErrorContract(cls.status, cls.__name__, doc, schema)


def _topic(topic: Any, annotation: Any) -> TopicContract:
    if not isinstance(topic, str):
        raise ConfigurationError(f"publishes: a topic is text, not {class_name(topic)}")
    return TopicContract(topic, schema_of(annotation), types_of(annotation))


def _example(value: Any) -> Any:
    """Return an example as JSON values."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    try:
        if isinstance(value, bytes):
            return value.decode("utf-8", "backslashreplace")
        if isinstance(value, list | tuple | dict):
            return msgspec.to_builtins(value, str_keys=True)
        return msgspec.json.decode(encode_body(value, JSON).frames[0])
    except (ConfigurationError, RecordError, TypeError, msgspec.MsgspecError) as error:
        raise ConfigurationError(f"examples: {value!r:.60} cannot be shown: {error}") from None

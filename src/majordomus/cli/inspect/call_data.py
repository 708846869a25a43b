"""`majordomus call --data`: a body as JSON, encoded and decoded by the contract of the service."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from majordomus.cli.contracts import of_service
from majordomus.cli.output import printable
from majordomus.cli.remote import check_broker, keys, read_stdin
from majordomus.errors import BadRequest, ConfigurationError
from majordomus.messages.bodies import JSON, MSGPACK, PROTOBUF, TEXT

if TYPE_CHECKING:
    from majordomus.contracts.model import BodyContract, Contract
    from majordomus.net.bodies import Reply


def call_with_data(
    service: str,
    data: str,
    brokers: tuple[str, ...],
    timeout: float,
    *,
    wait: bool,
    stream: bool,
) -> None:
    """Call a service with a JSON body, and print its reply as JSON.

    Raises: ConfigurationError for text that is no JSON; BadRequest for a body that does not fit; as
    `Client.call`.
    """
    from majordomus.net.client.client import Client

    value = _value(data)
    with Client(list(brokers), spread=False, **keys()) as client:
        if not wait:
            check_broker(client, timeout)
        contract = of_service(client, timeout, service)
        frames, type_ = _encoded(value, contract)
        options: dict[str, Any] = {"timeout": timeout, "fail_fast": not wait}
        if type_:
            options["metadata"] = {"type": type_}
        if contract.once:
            options["once"] = True
        streams = contract.reply is not None and contract.reply.stream
        if stream or streams:
            for part in client.stream(service, frames, **options):
                _print(part, contract, type_)
        else:
            _print(client.call(service, frames, **options), contract, type_)


def _value(data: str) -> Any:
    if data == "-" or data == "@-":
        text = read_stdin()
    elif data.startswith("@"):
        try:
            text = Path(data[1:]).read_bytes()
        except OSError as error:
            raise ConfigurationError(f"--data {data}: {error.strerror}") from None
    else:
        text = data.encode()
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ConfigurationError(f"--data is no JSON: {error}") from None


def _encoded(value: Any, contract: Contract) -> tuple[list[bytes], str]:
    """Encode a value in the first encoding of the contract that has one here."""
    body = contract.request
    if body is None or not body.types:
        raw = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        return [raw.encode()], ""
    if body.types[0] == TEXT:
        if value is None and {"type": "null"} in body.schema.get("anyOf", []):
            return [], TEXT
        if not isinstance(value, str):
            raise BadRequest("the body is text: give a JSON string")
        return [value.encode()], TEXT
    if body.types[0] == PROTOBUF and body.message:
        return [_to_protobuf(value, body, contract)], PROTOBUF
    if JSON in body.types:
        return [msgspec.json.encode(value)], JSON
    return [msgspec.msgpack.encode(value)], MSGPACK


def _to_protobuf(value: Any, body: BodyContract, contract: Contract) -> bytes:
    from google.protobuf import json_format

    message = _message(body, contract)
    try:
        json_format.ParseDict(value, message)
    except json_format.ParseError as error:
        raise BadRequest(f"{body.message}: {error}") from None
    made: bytes = message.SerializeToString(deterministic=True)
    return made


def _message(body: BodyContract, contract: Contract) -> Any:
    from google.protobuf import message_factory

    from majordomus.contracts import protos

    descriptor = protos.pool_of(contract.descriptor).FindMessageTypeByName(body.message)
    return message_factory.GetMessageClass(descriptor)()


def _print(reply: Reply, contract: Contract, type_: str) -> None:
    click.echo(printable(_decoded(reply, contract, type_)))


def _decoded(reply: Reply, contract: Contract, type_: str) -> str:
    """Return a reply as one line of JSON. A reply to JSON is JSON."""
    body, data = contract.reply, reply.body
    if body is not None and body.types[:1] == (PROTOBUF,) and body.message and type_ != JSON:
        from google.protobuf import json_format

        message = _message(body, contract)
        message.ParseFromString(data)
        return json_format.MessageToJson(message, indent=None, preserving_proto_field_name=True)
    if not data:
        return "null"
    value: Any = None
    if body is not None and MSGPACK in body.types:
        decoders: list[Callable[[bytes], Any]] = [msgspec.msgpack.decode, msgspec.json.decode]
        for decode in reversed(decoders) if type_ == JSON else decoders:
            try:
                value = decode(data)
                return msgspec.json.encode(value).decode()
            except (msgspec.MsgspecError, UnicodeError, RecursionError):
                continue
    return msgspec.json.encode(data.decode("utf-8", "backslashreplace")).decode()

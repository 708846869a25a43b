"""The OpenAPI 3.1 and AsyncAPI 3.0 documents of a catalog.

A service is the path `/services/NAME` with POST in OpenAPI, and a channel with a request and a
reply in AsyncAPI. The schemas of a service are components whose names begin with the service's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from majordomus.contracts.catalog import Catalog
from majordomus.contracts.model import BodyContract, Contract, TopicContract

JSON: Final = "application/json"
LINES: Final = "application/x-ndjson"
"""The content type of a stream: one JSON value on each line."""
BYTES: Final = "application/octet-stream"
Json = dict[str, Any]


def openapi(catalog: Catalog, title: str = "majordomus", version: str = "1") -> Json:
    """Return the OpenAPI document."""
    components: Json = {}
    paths = {
        f"/services/{name}": {"post": _operation(name, contract, components)}
        for name, contract in sorted(catalog.items())
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(name: str, contract: Contract, components: Json) -> Json:
    made: Json = {
        "operationId": name,
        "tags": [name.rpartition(".")[0] or name],
        "responses": {
            "200": {
                "description": "The reply.",
                "content": _content(name, "Reply", contract.reply, components),
            }
        },
    }
    if contract.summary:
        made["summary"] = contract.summary
        made["description"] = contract.doc
    content = _content(name, "Request", contract.request, components)
    if contract.examples:
        examples = {str(n): {"value": value} for n, value in enumerate(contract.examples, 1)}
        next(iter(content.values()))["examples"] = examples
    made["requestBody"] = {"content": content}
    for error in contract.errors:
        response: Json = {"description": error.doc or error.name or "A failure."}
        if error.detail is not None:
            schema = _hoisted(f"{name}.{error.status}", error.detail, components)
            response["content"] = {JSON: {"schema": schema}}
        made["responses"][str(error.status)] = response
    return made


def _content(name: str, side: str, body: BodyContract | None, components: Json) -> Json:
    if body is None:
        return {BYTES: {}}
    if not body.types:
        return {BYTES: {}}
    if body.types == ("text/plain",):
        return {"text/plain": {"schema": {"type": "string"}}}
    schema = _hoisted(f"{name}.{side}", body.schema, components)
    return {LINES if body.stream else JSON: {"schema": schema}}


def asyncapi(catalog: Catalog, title: str = "majordomus", version: str = "1") -> Json:
    """Return the AsyncAPI document."""
    components: Json = {}
    channels: Json = {}
    operations: Json = {}
    for name, contract in sorted(catalog.items()):
        key = _key(name)
        channels[key] = {
            "address": name,
            "messages": {
                "request": _message(name, "Request", contract.request, components),
                "reply": _message(name, "Reply", contract.reply, components),
            },
        }
        if contract.summary:
            channels[key]["description"] = contract.doc
        reference = f"#/channels/{key}"
        operations[key] = {
            "action": "receive",
            "channel": {"$ref": reference},
            "messages": [{"$ref": f"{reference}/messages/request"}],
            "reply": {
                "channel": {"$ref": reference},
                "messages": [{"$ref": f"{reference}/messages/reply"}],
            },
        }
        if contract.summary:
            operations[key]["summary"] = contract.summary
        for topic in contract.publishes:
            _publish(name, topic, channels, operations, components)
    return {
        "asyncapi": "3.0.0",
        "info": {"title": title, "version": version},
        "channels": channels,
        "operations": operations,
        "components": {"schemas": components},
    }


def _publish(
    name: str, topic: TopicContract, channels: Json, operations: Json, components: Json
) -> None:
    """Add the channel of a topic, if it is new, and the operation that sends to it."""
    key = _key(f"topic.{topic.topic}")
    body = BodyContract(topic.schema, topic.types)
    event = _message(f"{name}.{topic.topic}", "Event", body, components)
    channels.setdefault(key, {"address": topic.topic, "messages": {}})
    messages = channels[key]["messages"]
    messages[_key(name)] = event
    operations[_key(f"{name}.publishes.{topic.topic}")] = {
        "action": "send",
        "channel": {"$ref": f"#/channels/{key}"},
        "messages": [{"$ref": f"#/channels/{key}/messages/{_key(name)}"}],
    }


def _message(name: str, side: str, body: BodyContract | None, components: Json) -> Json:
    made: Json = {"name": f"{name}.{side.lower()}"}
    if body is None or not body.types:
        made["contentType"] = BYTES
        return made
    made["contentType"] = body.types[0]
    made["payload"] = _hoisted(f"{name}.{side}", body.schema, components)
    if body.stream:
        made["description"] = "One part of a stream."
    return made


# -- schemas


def _key(name: str) -> str:
    """The name of a component: letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)


def _hoisted(name: str, schema: Json, components: Json) -> Json:
    """Make a schema and its definitions components; return the reference to it."""
    own = _key(name)
    definitions = schema.get("$defs", {})
    keys = {inner: _key(f"{name}.{inner}") for inner in definitions}
    root = {key: value for key, value in schema.items() if key != "$defs"}
    components[own] = _moved(root, keys)
    for inner, definition in definitions.items():
        components[keys[inner]] = _moved(definition, keys)
    return {"$ref": f"#/components/schemas/{own}"}


def _moved(value: Any, keys: dict[str, str]) -> Any:
    """Return a schema whose references are to components."""
    if isinstance(value, dict):
        return dict(_moved_items(value, keys))
    if isinstance(value, list):
        return [_moved(one, keys) for one in value]
    return value


def _moved_items(value: Json, keys: dict[str, str]) -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if key == "$ref" and isinstance(inner, str):
            name = inner.removeprefix("#/$defs/")
            yield key, f"#/components/schemas/{keys.get(name, _key(name))}"
        elif key in ("default", "enum", "const", "examples"):
            yield key, inner
        else:
            yield key, _moved(inner, keys)

"""`majordomus describe` prints the contracts of services, for people and in four formats."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from majordomus.cli.completing import SERVICE
from majordomus.cli.contracts import of_broker, of_source
from majordomus.cli.output import emit_json, printable
from majordomus.cli.remote import broker_option, timeout_option
from majordomus.errors import ConfigurationError, NotFound

if TYPE_CHECKING:
    from majordomus.contracts.model import BodyContract, Contract


@click.command(short_help="Show what services take and return.")
@click.argument("service", default="", shell_complete=SERVICE)
@broker_option
@timeout_option(5.0)
@click.option("--from", "source", metavar="SOURCE", help="A file, or MODULE:WORKER, not a broker.")
@click.option("--json", "form", flag_value="json", help="Print JSON, for `diff` and `stubs`.")
@click.option("--proto", "form", flag_value="proto", help="Print .proto text of one service.")
@click.option("--openapi", "form", flag_value="openapi", help="Print an OpenAPI 3.1 document.")
@click.option("--asyncapi", "form", flag_value="asyncapi", help="Print an AsyncAPI 3.0 document.")
def command(
    service: str, brokers: tuple[str, ...], timeout: float, source: str | None, form: str | None
) -> None:
    """Show the contract of SERVICE, or of every service: its request, reply, failures and docs.

    A contract is that of the handler's annotations; a service whose handler has none takes any
    body.
    """
    from majordomus.contracts import catalog, openapi, protos

    if source is None:
        found = of_broker(brokers, timeout, service)
    else:
        found = of_source(source)
        if service and service not in found:
            raise NotFound(f"{source} has no service '{service}'")
        found = {name: one for name, one in found.items() if service in ("", name)}
    if form == "json":
        click.echo(catalog.to_json(found), nl=False)
    elif form == "openapi":
        emit_json(openapi.openapi(found))
    elif form == "asyncapi":
        emit_json(openapi.asyncapi(found))
    elif form == "proto":
        if not service:
            raise ConfigurationError("--proto prints one service: name it")
        text = protos.proto_text(found[service].descriptor)
        if not text:
            raise NotFound(f"the bodies of '{service}' have no protobuf message")
        click.echo(text, nl=False)
    else:
        click.echo("\n\n".join(_shown(name, one) for name, one in sorted(found.items())))


def _shown(name: str, contract: Contract) -> str:
    version = f" (version {contract.version})" if contract.version else ""
    lines = [printable(name + version)]
    lines += [f"  {printable(line)}" for line in contract.doc.splitlines()]
    lines += _body("request", contract.request)
    lines += _body("reply", contract.reply)
    for error in contract.errors:
        lines.append(printable(f"  {error.status}: {error.name}"))
    for topic in contract.publishes:
        kind = kind_of(topic.schema, topic.schema)
        lines.append(printable(f"  publishes {topic.topic}: {kind}"))
    flags = [flag for flag in ("idempotent", "once") if getattr(contract, flag)]
    if flags:
        lines.append(f"  {', '.join(flags)}")
    return "\n".join(lines)


def _body(side: str, body: BodyContract | None) -> list[str]:
    if body is None:
        return [f"  {side}: any body"]
    stream = "a stream of " if body.stream else ""
    types = f" ({', '.join(body.types)})" if body.types else ""
    lines = [printable(f"  {side}: {stream}{kind_of(body.schema, body.schema)}{types}")]
    root = body.schema
    if "$ref" in root:
        root = root.get("$defs", {}).get(root["$ref"].removeprefix("#/$defs/"), {})
    properties = root.get("properties", {}) if isinstance(root, dict) else {}
    needed = root.get("required", []) if isinstance(root, dict) else []
    for field, inner in properties.items():
        optional = "" if field in needed else ", optional"
        lines.append(printable(f"    {field}: {kind_of(inner, body.schema)}{optional}"))
    return lines


def kind_of(schema: object, root: object) -> str:
    """Return the type of a schema in a few words."""
    if not isinstance(schema, dict):
        return "any value"
    if "$ref" in schema:
        name: str = str(schema["$ref"]).rpartition("/")[2]
        return name.rpartition(".")[2]
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        return " or ".join(dict.fromkeys(kind_of(one, root) for one in choices))
    if "enum" in schema:
        return " or ".join(repr(value) for value in schema["enum"][:8])
    kind = schema.get("type", "any value")
    if kind == "array":
        return f"list of {kind_of(schema.get('items', {}), root)}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"map of {kind_of(schema['additionalProperties'], root)}"
    if schema.get("contentEncoding"):
        return "bytes"
    if kind == "object":
        return str(schema.get("title", "object"))
    return str(schema.get("format") or (kind[0] if isinstance(kind, list) and kind else kind))

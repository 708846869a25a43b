"""Typed Python clients of a catalog: one module for each group of services.

The group of a service is its name before the last dot. A module has the types of the group's
bodies, a Protocol for a Client and one for an AsyncClient, and a function that connects each. The
same catalog makes the same text.

A body in protocol buffers is a `Record` with the fields of the descriptor. Every other body is a
`msgspec.Struct`, or a built-in type. What has no better type is `Any`.
"""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Iterable
from typing import Any, Final

from majordomus.contracts.catalog import Catalog
from majordomus.contracts.compare import KEYS, NUMBER, TYPE, WIRE
from majordomus.contracts.model import BodyContract, Contract

WIDTH: Final = 88
"""Columns of a line, as far as names allow: what ruff and black use by default."""
PROTOBUF: Final = "application/protobuf"
Schema = dict[str, Any]
_MAP: Final = re.compile(r"map<([a-z0-9]+)>", re.ASCII)
_NO_FIELD: Final = re.compile(r'[\x00-\x1f"\\]|^$')
"""What msgspec takes in no name of a field."""
_WIRE_KINDS: Final = re.compile(r"double|float|bool|string|bytes|[su]?int(32|64)|s?fixed(32|64)")
_RESERVED: Final = re.compile(
    r"Annotated|Any|(Async)?(Client|Iterable|Iterator|ServiceConversation)|Literal|None|True|False"
    r"|Protocol|Record"
)
"""Names of a module that no class may have."""
_IN_ANNOTATIONS: Final = re.compile(
    r"Annotated|Any|Literal|bool|bytes|datetime|decimal|dict|float|int|list|msgspec|single|str"
    r"|tuple|uuid|[su]?int(32|64)|s?fixed(32|64)|double"
)
"""Names of types and modules that no field may have."""
_BUILTINS: Final = frozenset(("bool", "bytes", "dict", "float", "int", "list", "str", "tuple"))
_WORD: Final = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|\w+')
"""A quoted text, or a word outside of one."""
_FORMATS: Final = {
    "date-time": "datetime.datetime",
    "date": "datetime.date",
    "time": "datetime.time",
    "duration": "datetime.timedelta",
    "uuid": "uuid.UUID",
    "decimal": "decimal.Decimal",
}
_KINDS: Final = {
    "double": "float",
    "float": "single",
    "bool": "bool",
    "string": "str",
    "bytes": "bytes",
    "sint64": "int",
}


def modules(catalog: Catalog) -> dict[str, str]:
    """Return the text of each module, by the module's name."""
    groups: dict[str, dict[str, Contract]] = {}
    for name, contract in sorted(catalog.items()):
        groups.setdefault(name.rpartition(".")[0], {})[name] = contract
    made = {}
    for group, services in sorted(groups.items()):
        module = _module(group)
        while module in made:
            module += "_"
        made[module] = _Module(group, services).text()
    return made


def _module(group: str) -> str:
    """The name of a group's module."""
    return _identifier(group.lower() or "services")


def _identifier(name: str) -> str:
    made = re.sub(r"\W", "_", name, flags=re.ASCII) or "_"
    made = f"_{made}" if made[0].isdigit() else made
    return f"{made}_" if keyword.iskeyword(made) else made


def _class(name: str) -> str:
    parts = re.split(r"[^A-Za-z0-9]+", name)
    made = "".join(part[:1].upper() + part[1:] for part in parts if part)
    return _identifier(made or "Value")


def _title(group: str) -> str:
    """The name of a group's Protocol."""
    made = _class(group or "services")
    return f"{made}Services" if _RESERVED.fullmatch(made) else made


class _Module:
    """The text of one module."""

    def __init__(self, group: str, services: dict[str, Contract]) -> None:
        self._group, self._services = group, services
        self._classes: dict[str, str] = {}  # the text of each class, in the order of its use
        self._names: dict[str, str] = {}  # the class of each schema, by its text
        self._imports: set[str] = set()
        self._public = {"AsyncClient", "Client"}  # names of majordomus
        methods = {name.rpartition(".")[2] for name in services}
        self._hidden = methods & _BUILTINS

    def text(self) -> str:
        title = _title(self._group)
        methods = [self._methods(name, one) for name, one in self._services.items()]
        sync = [line for sync, _ in methods for line in sync] or ["    pass"]
        waits = [line for _, waits in methods for line in waits] or ["    pass"]
        prefix = f"{self._group}." if self._group else ""
        body = [
            *self._classes.values(),
            f"class {title}(Protocol):\n" + "\n".join(sync),
            f"class Async{title}(Protocol):\n" + "\n".join(waits),
            _connect("connect", "Client", title, prefix),
            _connect("connect_async", "AsyncClient", f"Async{title}", prefix),
        ]
        return self._head() + "\n\n\n" + "\n\n\n".join(body) + "\n"

    def _head(self) -> str:
        used = self._imports
        what = self._group or "without a group"
        lines = [f'"""Made by `majordomus stubs`: the services {_safe(what)}."""']
        lines += ["", "from __future__ import annotations", ""]
        standard = [one for one in ("builtins", "datetime", "decimal", "uuid") if one in used]
        lines += [f"import {one}" for one in standard]
        known = ("AsyncIterable", "AsyncIterator", "Iterable", "Iterator")
        abstract = [one for one in known if one in used]
        if abstract:
            lines.append(f"from collections.abc import {', '.join(abstract)}")
        typing = [one for one in ("Annotated", "Any", "Literal") if one in used] + ["Protocol"]
        lines.append(f"from typing import {', '.join(typing)}")
        if "msgspec" in used:
            lines += ["", "import msgspec"]
        lines += ["", *_import("majordomus", sorted(self._public))]
        kinds = sorted(one.removeprefix("kind ") for one in used if one.startswith("kind "))
        if "Record" in used:
            lines += _import("majordomus.messages", ["Record", *kinds])
        return "\n".join(lines)

    def _methods(self, name: str, contract: Contract) -> tuple[list[str], list[str]]:
        """The lines of a service in both Protocols."""
        last = name.rpartition(".")[2]
        method = last if last.isidentifier() and not keyword.iskeyword(last) else ""
        if not method or last.startswith("_"):
            return [], []
        argument = item = ""
        if contract.request is None:
            argument = 'body: bytes = b""'
        elif contract.request.stream:
            item = self._body(contract.request, f"{last}.request")
        elif contract.request.schema.get("type") != "null":
            argument = f"body: {self._body(contract.request, f'{last}.request')}"
        returns = "bytes"
        if contract.reply is not None:
            returns = self._body(contract.reply, f"{last}.reply")
        comment = [f"    # {_safe(contract.summary)[:80]}"] if contract.summary else []
        argument, item, returns = map(self._seen, (argument, item, returns))
        if item and contract.reply is not None and contract.reply.stream:
            self._public |= {"ServiceConversation", "AsyncServiceConversation"}
            kind = f"ServiceConversation[{item}, {returns}]"
            sync = _method("def", method, "", kind)
            waits = _method("def", method, "", f"Async{kind}")
        elif item:
            self._imports |= {"Iterable", "AsyncIterable"}
            sync = _method("def", method, f"body: Iterable[{item}]", returns)
            waits = _method("async def", method, f"body: AsyncIterable[{item}]", returns)
        elif contract.reply is not None and contract.reply.stream:
            self._imports |= {"Iterator", "AsyncIterator"}
            sync = _method("def", method, argument, f"Iterator[{returns}]")
            waits = _method("def", method, argument, f"AsyncIterator[{returns}]")
        else:
            sync = _method("def", method, argument, returns)
            waits = _method("async def", method, argument, returns)
        return [*comment, sync], [*comment, waits]

    def _seen(self, annotation: str) -> str:
        """The text of an annotation inside of a Protocol, whose methods hide types of their names:
        `def list(self) -> builtins.list[Note]`."""
        if not self._hidden:
            return annotation

        def full(found: re.Match[str]) -> str:
            if found[0] not in self._hidden:
                return found[0]
            self._imports.add("builtins")
            return f"builtins.{found[0]}"

        return _WORD.sub(full, annotation)

    # -- types

    def _body(self, body: BodyContract, where: str) -> str:
        nullable = {"type": "null"} in body.schema.get("anyOf", [])
        if not body.types:
            is_text = body.schema.get("items") == {"type": "string"}
            kinds = {"null": "None", "array": "list[str]" if is_text else "list[bytes]"}
            kind = kinds.get(str(body.schema.get("type")), "bytes")
            return f"{kind} | None" if nullable else kind
        if body.types[0] == "text/plain":
            return "str | None" if nullable else "str"
        return self._type(body.schema, body.schema, where, body.types[0] == PROTOBUF)

    def _type(self, schema: Any, root: Schema, where: str, proto: bool) -> str:
        if not isinstance(schema, dict):
            return self._any()
        if "$ref" in schema:
            name = schema["$ref"].removeprefix("#/$defs/")
            inner = root.get("$defs", {}).get(name)
            return self._any() if inner is None else self._type(inner, root, name, proto)
        choices = schema.get("anyOf") or schema.get("oneOf")
        if choices:
            if "discriminator" in schema:
                return self._any()
            types = dict.fromkeys(self._type(one, root, where, proto) for one in choices)
            return self._any() if "Any" in types else " | ".join(types)
        if schema.get(WIRE) == "google.protobuf.Duration":
            self._imports.add("datetime")
            return "datetime.timedelta"
        if "enum" in schema and proto:
            self._imports.add("kind int32")
            return "int32"
        if "enum" in schema:
            return self._literal(schema["enum"])
        if "const" in schema and not proto:
            return self._literal([schema["const"]])
        kind = schema.get("type")
        if kind == "array":
            return self._list(schema, root, where, proto)
        if kind == "object":
            return self._object(schema, root, where, proto)
        return self._scalar(schema, proto)

    def _any(self) -> str:
        self._imports.add("Any")
        return "Any"

    def _literal(self, values: Iterable[Any]) -> str:
        shown = list(values)
        if not shown or not all(value is None or isinstance(value, str | int) for value in shown):
            return self._any()
        self._imports.add("Literal")
        return f"Literal[{', '.join(_quoted(value) for value in shown)}]"

    def _scalar(self, schema: Schema, proto: bool) -> str:
        kind = schema.get("type")
        if schema.get("contentEncoding") == "base64":
            return "bytes"
        named = _FORMATS.get(str(schema.get("format") or schema.get(TYPE)))
        if named and kind == "string":
            self._imports.add(named.partition(".")[0])
            return named
        simple = {"string": "str", "integer": "int", "number": "float", "boolean": "bool"}
        if isinstance(kind, str):
            found = "None" if kind == "null" else simple.get(kind)
            return found or self._any()
        if isinstance(kind, list) and proto:
            return "float" if "number" in kind else "int"
        if isinstance(kind, list):
            types = [self._scalar({**schema, "type": one}, proto) for one in kind]
            return self._any() if "Any" in types or not types else " | ".join(types)
        return self._any()

    def _list(self, schema: Schema, root: Schema, where: str, proto: bool) -> str:
        places = schema.get("prefixItems")
        if places:
            inner = [self._type(one, root, where, proto) for one in places]
            return f"tuple[{', '.join(inner)}]"
        return f"list[{self._type(schema.get('items', {}), root, where, proto)}]"

    def _object(self, schema: Schema, root: Schema, where: str, proto: bool) -> str:
        rest = schema.get("additionalProperties")
        if "properties" not in schema:
            if not isinstance(rest, dict):
                return f"dict[str, {self._any()}]"
            keys = _MAP.fullmatch(str(schema.get(WIRE, "map<string>")))
            key = _KINDS.get(keys[1], "int") if keys else "str"
            key = {"integer": "int", "number": "float"}.get(str(schema.get(KEYS)), key)
            return f"dict[{key}, {self._type(rest, root, where, proto)}]"
        if not proto and any(map(_NO_FIELD.search, schema["properties"])):
            return f"dict[str, {self._any()}]"
        known = repr(({key: one for key, one in schema.items() if key != "$defs"}, proto))
        if known in self._names:
            return self._names[known]
        name = _class(str(schema.get("title") or where.rpartition(".")[2] or where))
        title = _title(self._group)
        taken = {*self._names.values(), title, f"Async{title}"}
        number = 2
        unique = name
        while unique in taken or _RESERVED.fullmatch(unique):
            unique, number = f"{name}{number}", number + 1
        self._names[known] = unique
        made = self._record(unique, schema, root) if proto else self._struct(unique, schema, root)
        if not made:
            self._names[known] = f"dict[str, {self._any()}]"
            return self._names[known]
        self._classes[unique] = made
        return unique

    def _struct(self, name: str, schema: Schema, root: Schema) -> str:
        self._imports.add("msgspec")
        needed = schema.get("required") or []
        lines = []
        own_names = _field_names(schema, root)
        for field, inner in _fields(schema):
            type_ = self._type(inner, root, f"{name}.{field}", False)
            own = own_names[field]
            value = ""
            if field not in needed:
                value = self._default(inner)
                if value == "None" and "None" not in type_.split(" | ") and type_ != "Any":
                    type_, value = f"{type_} | msgspec.UnsetType", "msgspec.UNSET"
            if own != field:
                default = f"default={value}, " if value else ""
                value = f"msgspec.field({default}name={_quoted(field)})"
            lines.append(f"    {own}: {type_}" + (f" = {value}" if value else ""))
        body = "\n".join(lines) or "    pass"
        return f"class {name}(msgspec.Struct, kw_only=True):\n{body}"

    def _default(self, schema: Any) -> str:
        default = schema.get("default") if isinstance(schema, dict) else None
        if default == [] or default == {}:
            return "[]" if default == [] else "{}"
        if isinstance(default, float) and not math.isfinite(default):
            return "None"
        if isinstance(default, str | int | float | bool):
            return _quoted(default)
        return "None"

    def _record(self, name: str, schema: Schema, root: Schema) -> str:
        """The class of a message; "" where a record cannot have one of its fields."""
        lines = []
        own_names = _field_names(schema, root)
        for field, inner in _fields(schema):
            if not isinstance(inner, dict) or not isinstance(inner.get(NUMBER), int):
                continue  # no field of protocol buffers
            items = inner.get("items")
            kind = inner.get(WIRE) or (items.get(WIRE) if isinstance(items, dict) else None)
            if not (_WIRE_KINDS.fullmatch(str(kind)) or _MAP.fullmatch(str(kind))):
                kind = None
            type_ = self._type(inner, root, f"{name}.{field}", True)
            base = _KINDS.get(str(kind), "")
            if kind and not str(kind).startswith("map<") and not base:
                base = str(kind)
                self._imports.add(f"kind {base}")
            if base == "single":
                self._imports.add("kind single")
            if base:
                type_ = f"list[{base}]" if inner.get("type") == "array" else base
            if re.search(r"\bAny\b", type_):
                return ""
            optional = inner.get("type") != "array" and not type_.startswith("dict[")
            value = "None" if optional else ("{}" if type_.startswith("dict[") else "[]")
            shown = f"{type_} | None" if optional else type_
            lines.append(f"    {own_names[field]}: Annotated[{shown}, {inner[NUMBER]}] = {value}")
        self._imports |= {"Record", "Annotated"} if lines else {"Record"}
        body = "\n".join(lines) or "    pass"
        return f"class {name}(Record):\n{body}"


def _connect(name: str, client: str, protocol: str, prefix: str) -> str:
    """The function that connects a client."""
    return (
        f"def {name}(client: {client}) -> {protocol}:\n"
        '    """Return the services, called by `client`."""\n'
        f"    return client.service({protocol}, prefix={_quoted(prefix)})"
    )


def _import(module: str, names: list[str]) -> list[str]:
    """The lines of an import, as ruff and black lay it out."""
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= WIDTH:
        return [line]
    return [f"from {module} import (", *[f"    {name}," for name in names], ")"]


def _fields(schema: Schema) -> list[tuple[str, Any]]:
    """The properties in the order of their numbers."""

    def number(one: tuple[str, Any]) -> int:
        found = one[1].get(NUMBER) if isinstance(one[1], dict) else None
        return found if isinstance(found, int) else 0

    return sorted(schema.get("properties", {}).items(), key=number)


def _field_names(schema: Schema, root: Schema) -> dict[str, str]:
    """Return an identifier for each property: two properties never have the same one.

    No field has the name of a type: inside of its class the annotations would mean the field.
    """
    classes = {_class(name.rpartition(".")[2]) for name in root.get("$defs", {})}
    names: dict[str, str] = {}
    for field, _ in _fields(schema):
        own = _identifier(field)
        own = f"f{own}" if own.startswith("__") else own
        while own in names.values() or own in classes or _IN_ANNOTATIONS.fullmatch(own):
            own += "_"
        names[field] = own
    return names


def _method(kind: str, name: str, argument: str, returns: str) -> str:
    """A method of a Protocol, laid out as ruff and black do: at most 88 columns where that goes."""
    arguments = ["self", *([argument] if argument else []), "*", "timeout: float | None = None"]
    line = f"    {kind} {name}({', '.join(arguments)}) -> {returns}: ..."
    if len(line) <= WIDTH:
        return line
    inner = f"        {', '.join(arguments)}"
    if len(inner) <= WIDTH:
        return f"    {kind} {name}(\n{inner}\n    ) -> {returns}: ..."
    lines = "".join(f"        {one},\n" for one in arguments)
    return f"    {kind} {name}(\n{lines}    ) -> {returns}: ..."


def _quoted(value: Any) -> str:
    """A literal, with double quotes."""
    if not isinstance(value, str):
        return repr(value)
    text = repr(value)
    return f'"{text[1:-1]}"' if '"' not in value else text


def _safe(text: str) -> str:
    """Text for a docstring or a comment: on one line, whatever the contract has in it."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    return shown.replace("\\", "/").replace('"', "'").strip()

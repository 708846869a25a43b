"""The changes between two contracts of a service, and which of them break callers.

The rule is that of substitution. Every request that was valid must stay valid, and every reply must
be one that a caller of the old contract can read. So an optional field may be added to a request,
and any field to a reply. An unknown field is ignored by every reader, unless its schema forbids it.
A protobuf field is known by its number: a number that changes breaks callers.

Contracts must come from `model.parse` or from derive.py: their schemas are well formed.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from majordomus.contracts.model import BodyContract, Contract

Schema = dict[str, Any]

NUMBER: Final = "x-number"
"""The keyword of a property with its protobuf field number."""
WIRE: Final = "x-proto"
"""The keyword of a value with its protobuf type."""
TYPE: Final = "x-type"
"""The keyword of a text that is a date in MessagePack: date-time or time."""
KEYS: Final = "x-keys"
"""The keyword of an object whose keys are numbers in MessagePack: integer or number."""
_IGNORED: Final = frozenset(
    [
        "title",
        "description",
        "examples",
        "example",
        "default",
        "deprecated",
        "$comment",
        "$defs",
        "$schema",
        "$id",
    ]
) | {NUMBER}
_READ: Final = frozenset(
    [
        "type",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "prefixItems",
        "enum",
        "const",
        "anyOf",
        "oneOf",
        "$ref",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "minProperties",
        "maxProperties",
    ]
) | {WIRE}
_LEAST: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_MOST: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")


MOST_STEPS: Final = 5_000
"""Pairs of schemas that one comparison looks at."""
MOST_DEPTH: Final = 150
"""Levels of nested pairs of schemas."""
_PROTOBUF: Final = "application/protobuf"


class ContractChange(NamedTuple):
    """One change. `breaking`: whether a caller of the old contract may fail with the new one."""

    where: str
    text: str
    breaking: bool

    def __str__(self) -> str:
        return f"{self.where}: {self.text}" if self.where else self.text


def compatible(one: Contract, other: Contract) -> bool:
    """Whether workers with these contracts may serve one name: at least one of them can replace
    the other without breaking callers."""
    return not (breaks(one, other) and breaks(other, one))


def breaks(old: Contract, new: Contract) -> bool:
    """Whether a caller of `old` may fail with `new`."""
    return any(change.breaking for change in changes(old, new))


def changes(old: Contract, new: Contract) -> list[ContractChange]:
    """Return the changes from `old` to `new`, those that break callers first."""
    found = [
        *_bodies("request", old.request, new.request),
        *_bodies("reply", old.reply, new.reply),
        *_errors(old, new),
        *_topics(old, new),
    ]
    if old.idempotent and not new.idempotent:
        found.append(ContractChange("idempotent", "the service is no longer idempotent", True))
    if new.once and not old.once:
        found.append(ContractChange("once", "callers have to send ONCE now", True))
    for name in ("version", "doc", "examples", "idempotent", "once"):
        was, now = getattr(old, name), getattr(new, name)
        if was != now and not any(one.where == name for one in found):
            shown = f"{was!r} became {now!r}" if name == "version" else "changed"
            found.append(ContractChange(name, shown, False))
    unique = list(dict.fromkeys(found))
    return sorted(unique, key=lambda change: not change.breaking)


def _errors(old: Contract, new: Contract) -> list[ContractChange]:
    was, now = ({error.status: error for error in one.errors} for one in (old, new))
    found = [
        ContractChange(f"errors.{status}", "the failure is new", False)
        for status in sorted(now.keys() - was.keys())
    ]
    found += [
        ContractChange(f"errors.{status}", "the failure was removed", False)
        for status in sorted(was.keys() - now.keys())
    ]
    for status in sorted(was.keys() & now.keys()):
        before, after = was[status].detail, now[status].detail
        if before is not None and after is not None:
            problems = _Fit(after, before, source_is_new=True).problems(f"errors.{status}")
            found += [ContractChange(where, text, True) for where, text in problems]
        elif before is not None:
            found.append(ContractChange(f"errors.{status}", "its detail was removed", True))
        elif after is not None:
            found.append(ContractChange(f"errors.{status}", "it has a detail now", False))
    return found


def _topics(old: Contract, new: Contract) -> list[ContractChange]:
    was, now = ({topic.topic: topic for topic in one.publishes} for one in (old, new))
    found = [
        ContractChange(f"publishes.{name}", "its events are not published any more", True)
        for name in sorted(was.keys() - now.keys())
    ]
    found += [
        ContractChange(f"publishes.{name}", "its events are new", False)
        for name in sorted(now.keys() - was.keys())
    ]
    for name in sorted(was.keys() & now.keys()):
        sides = [BodyContract(one.schema, one.types) for one in (was[name], now[name])]
        found += _bodies(f"publishes.{name}", *sides)
    return found


def _bodies(where: str, old: BodyContract | None, new: BodyContract | None) -> list[ContractChange]:
    if old == new:
        return []
    if old is None or new is None:
        # A body without a contract is any body: to take any is wider, to return any is not.
        wider = (new is None) == (where == "request")
        text = "any body is possible now" if new is None else "the body has a type now"
        return [ContractChange(where, text, not wider)]
    found = []
    if old.stream != new.stream:
        text = "is a stream now" if new.stream else "is no stream any more"
        found.append(ContractChange(where, text, True))
    lost = [type for type in old.types if type not in new.types]
    if lost:
        found.append(ContractChange(where, f"{', '.join(lost)} is not accepted any more", True))
    elif bool(old.types) != bool(new.types):
        found.append(ContractChange(where, "the encoding changed", True))
    elif old.types[:1] != new.types[:1]:
        found.append(ContractChange(where, f"the default encoding is {new.types[0]} now", True))
    elif old.types != new.types:
        found.append(ContractChange(where, "more encodings are accepted", False))
    returned = where != "request"
    source, target = (new, old) if returned else (old, new)
    problems = _Fit(source.schema, target.schema, source_is_new=returned).problems(where)
    found += [ContractChange(at, text, True) for at, text in problems]
    by_number = _PROTOBUF in old.types  # the other encodings know a field by its name
    numbers = _numbers(where, old.schema, new.schema)
    found += [ContractChange(at, text, by_number) for at, text in numbers]
    if not found:
        found.append(ContractChange(where, "changed without effect on callers", False))
    return found


# -- does every value of one schema fit the other?


# what is said of a schema that has become tighter, and of one that has become wider
_NO_VALUE: Final = ("the value is not allowed any more", "the value is possible now")
_CERTAIN_VALUES: Final = ("only certain values are allowed", "other values are possible now")
_REQUIRED: Final = ("is required", "is not required any more")
_NEW: Final = ("is new and required", "was required and is removed")
_UNKNOWN: Final = (
    "is an unknown field, which is not allowed",
    "is new, and unknown fields were not allowed",
)
_FURTHER: Final = ("further fields are not allowed", "further fields are possible now")


class _Fit:
    """Decides whether every value that is valid by `source` is valid by `target`.

    Where it cannot decide, it reports a problem: a false alarm is cheaper than a missed break.
    The texts tell what changed from the old schema to the new one, which is `source` when
    `source_is_new`, as for replies.
    """

    def __init__(self, source: Schema, target: Schema, *, source_is_new: bool) -> None:
        self._source, self._target = source, target
        self._source_is_new = source_is_new
        self._open: set[tuple[str, str]] = set()  # the references that are being compared
        self._steps = self._depth = 0
        self._has_refs = _has_ref(source) or _has_ref(target)

    def problems(self, where: str) -> list[tuple[str, str]]:
        return self._fit(where, self._source, self._target)

    def _became(self, source: object, target: object) -> str:
        old, new = (target, source) if self._source_is_new else (source, target)
        return f"{old} became {new}"

    def _said(self, tighter: str, wider: str) -> str:
        """Return the text for what the new schema forbids, or the one for what it permits."""
        return wider if self._source_is_new else tighter

    def _fit(self, where: str, source: Any, target: Any) -> list[tuple[str, str]]:
        """Compare two schemas, within bounds: a peer may have made them."""
        self._steps += 1
        if self._steps > MOST_STEPS or self._depth > MOST_DEPTH:
            return [(where, "the schemas are too complex to be compared")]
        self._depth += 1
        try:
            return self._fit_any(where, source, target)
        finally:
            self._depth -= 1

    def _fit_any(self, where: str, source: Any, target: Any) -> list[tuple[str, str]]:
        if target is True or target == {} or (source == target and not self._has_refs):
            return []
        if isinstance(source, bool) or isinstance(target, bool):
            return [] if source is False else [(where, self._said(*_NO_VALUE))]
        refs = source.get("$ref", ""), target.get("$ref", "")
        if any(refs):
            if refs in self._open:
                return []
            if all(refs):
                self._open.add(refs)
            source, target = _resolved(self._source, source), _resolved(self._target, target)
            try:
                return self._fit(where, source, target)
            finally:
                self._open.discard(refs)
        if not _plain(source):
            return [(where, "any value is possible, and only some are allowed")]
        choices = source.get("anyOf") or source.get("oneOf")
        if choices:
            return [one for each in choices for one in self._fit(where, each, target)]
        kinds = source.get("type")
        if isinstance(kinds, list):
            rest = [{**source, "type": kind} for kind in kinds]
            return [one for each in rest for one in self._fit(where, each, target)]
        options = target.get("anyOf") or target.get("oneOf")
        if options:
            found = [self._fit(where, source, each) for each in options]
            return min(found, key=len)
        return self._fit_one(where, source, target)

    def _fit_one(self, where: str, source: Schema, target: Schema) -> list[tuple[str, str]]:
        kind, wanted = source.get("type"), target.get("type")
        allowed = wanted if isinstance(wanted, list) else [wanted]
        values = source.get("enum", [source["const"]] if "const" in source else None)
        if values is not None and ("enum" in target or "const" in target):
            known = target.get("enum", [target["const"]] if "const" in target else [])
            gone = [value for value in values if value not in known]
            said = self._said("is not allowed any more", "is possible now")
            return [(where, f"{value!r} {said}") for value in gone]
        if "enum" in target or "const" in target:
            return [(where, self._said(*_CERTAIN_VALUES))]
        fits = kind in allowed or (kind == "integer" and "number" in allowed)
        if wanted is not None and values is None and not fits:
            return [(where, self._became(_name(source), _name(target)))]
        if values is not None and wanted is not None:
            wrong = [value for value in values if _json_type(value) not in allowed]
            if wrong:
                return [(where, self._became(repr(wrong[0]), _name(target)))]
            return []
        found = []
        if source.get(WIRE) != target.get(WIRE):
            text = self._became(source.get(WIRE), target.get(WIRE))
            found.append((where, f"the wire type {text}"))
        found += self._bounds(where, source, target)
        if kind == "object":
            found += self._objects(where, source, target)
        elif kind == "array":
            found += self._arrays(where, source, target)
        for name in sorted(target.keys() - _READ - _IGNORED):
            if source.get(name) != target[name]:
                text = self._became(repr(source.get(name)), repr(target[name]))
                found.append((where, f"{name} {text}"))
        return found

    def _bounds(self, where: str, source: Schema, target: Schema) -> list[tuple[str, str]]:
        found = []
        for name in (*_LEAST, *_MOST):
            bound, given = target.get(name), source.get(name)
            if not isinstance(bound, int | float):
                continue
            low = name in _LEAST
            if not isinstance(given, int | float) or (given < bound if low else given > bound):
                wider = f"{name} was {bound} and is {'absent' if given is None else given} now"
                found.append((where, self._said(f"{name} is {bound} now", wider)))
        return found

    def _objects(self, where: str, source: Schema, target: Schema) -> list[tuple[str, str]]:
        mine, theirs = source.get("properties", {}), target.get("properties", {})
        given = source.get("required", [])
        found = []
        for name in target.get("required", []):
            if name not in given:
                text = _REQUIRED if name in mine else _NEW
                found.append((f"{where}.{name}", self._said(*text)))
        rest = target.get("additionalProperties", True)
        for name, inner in mine.items():
            if name in theirs:
                found += self._fit(f"{where}.{name}", inner, theirs[name])
            elif rest is False:
                found.append((f"{where}.{name}", self._said(*_UNKNOWN)))
            elif isinstance(rest, dict):
                found += self._fit(f"{where}.{name}", inner, rest)
        others = source.get("additionalProperties")
        if isinstance(rest, dict) and rest:
            found += self._fit(f"{where}[...]", True if others is None else others, rest)
        elif rest is False and others is not False and not mine:
            found.append((where, self._said(*_FURTHER)))
        return found

    def _arrays(self, where: str, source: Schema, target: Schema) -> list[tuple[str, str]]:
        mine, theirs = source.get("prefixItems", []), target.get("prefixItems", [])
        rest_mine, rest_theirs = source.get("items", True), target.get("items", True)
        found = []
        for number in range(max(len(mine), len(theirs))):
            item = mine[number] if number < len(mine) else rest_mine
            other = theirs[number] if number < len(theirs) else rest_theirs
            found += self._fit(f"{where}[{number}]", item, other)
        if rest_mine is not False:
            found += self._fit(f"{where}[]", rest_mine, rest_theirs)
        return found


def _resolved(root: Schema, schema: Schema) -> Any:
    """Follow references within `root`; a broken one is a schema of nothing."""
    seen: set[str] = set()
    while isinstance(schema, dict) and "$ref" in schema:
        ref = schema["$ref"]
        if ref in seen:
            return False
        seen.add(ref)
        schema = root.get("$defs", {}).get(ref.removeprefix("#/$defs/"), False)
    return schema


def _has_ref(schema: Any) -> bool:
    if isinstance(schema, dict):
        return "$ref" in schema or any(map(_has_ref, schema.values()))
    return isinstance(schema, list) and any(map(_has_ref, schema))


def _plain(schema: Schema) -> bool:
    return any(name in schema for name in ("type", "enum", "const", "anyOf", "oneOf"))


def _json_type(value: object) -> str:
    if value is None:
        return "null"
    kinds = ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "object")


def _name(schema: Schema) -> str:
    return str(schema.get("type", "a choice"))


# -- field numbers


def _numbers(where: str, old: Schema, new: Schema) -> list[tuple[str, str]]:
    """Return the fields whose protobuf numbers changed, and the numbers that were given to another
    field. Types are compared by name."""
    found: list[tuple[str, str]] = []
    was, now = _messages(where, old), _messages(where, new)
    for name in sorted(was.keys() & now.keys()):
        before, after = was[name], now[name]
        moved = [field for field in before if field in after and before[field] != after[field]]
        if moved and {*before.values()} >= {after[field] for field in moved}:
            found.append((name, f"the fields are in another order: {', '.join(moved)}"))
            continue
        for field in moved:
            text = f"its number {before[field]} became {after[field]}"
            found.append((f"{name}.{field}", text))
        by_number = {number: field for field, number in before.items()}
        for field, number in after.items():
            former = by_number.get(number, field)
            if former != field and field not in before:
                found.append((f"{name}.{field}", f"it has the number {number} of {former}"))
    return found


def _messages(where: str, schema: Schema) -> dict[str, dict[str, int]]:
    """The field numbers of each type of a schema, by the type's name."""
    found = {}
    for name, inner in [(where, schema), *schema.get("$defs", {}).items()]:
        properties = inner.get("properties", {}) if isinstance(inner, dict) else {}
        numbers = {
            key: one[NUMBER]
            for key, one in properties.items()
            if isinstance(one, dict) and isinstance(one.get(NUMBER), int)
        }
        if numbers:
            found[name] = numbers
    return found

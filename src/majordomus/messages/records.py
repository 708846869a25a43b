"""Records: dataclasses with annotated fields, encoded as protocol buffers.

    @record
    class Person:
        name: Annotated[str, 1]
        id: Annotated[int, 2]
        phones: Annotated[list[PhoneNumber], 5] = field(default_factory=list)
        email: Annotated[str | None, 3] = None

    Person.from_bytes(person.to_bytes()) == person

A record stays an ordinary dataclass. Its descriptor is made with the class, so a wrong declaration
is an error at import. If an annotation names a record that is not defined yet, the class stays
unfinished until that record is made in the same module. So two records may contain each other.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
import typing
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Self, TypeVar, dataclass_transform, overload

from majordomus.errors import ConfigurationError
from majordomus.messages import prototext
from majordomus.messages.codec import STATE, LazyField, RecordCodec, names_of, reachable
from majordomus.messages.descriptors import build_file
from majordomus.messages.fields import FieldSpec, check_unique, read_fields
from majordomus.messages.kinds import RECORD

__all__ = ["Record", "codec_of", "is_record", "make_record", "proto_of", "record", "which_oneof"]

T = TypeVar("T")


@dataclasses.dataclass(slots=True)
class _Unfinished:
    """A class with an annotation that is not defined yet, or whose own record is unfinished.

    `cls`: the dataclass.
    `name`, `package`: the names of its message and package in .proto text.
    `scope`: the local names in which its annotations are resolved, besides those of its module.
    `missing`: the undefined name, "" when all annotations are resolved.
    `made_init`: whether `@dataclass` made its `__init__`.
    `codec`: its codec, not linked yet; None until all annotations are resolved.
    """

    cls: Any
    name: str
    package: str
    scope: Mapping[str, Any]
    missing: str = ""
    made_init: bool = True
    codec: RecordCodec | None = None


_unfinished: dict[type, _Unfinished] = {}


@overload
@dataclass_transform(field_specifiers=(dataclasses.field,))
def record(cls: type[T], /) -> type[T]: ...
@overload
@dataclass_transform(field_specifiers=(dataclasses.field,))
def record(
    *, name: str | None = None, package: str | None = None, **options: bool
) -> Callable[[type[T]], type[T]]: ...
@dataclass_transform(field_specifiers=(dataclasses.field,))
def record(
    cls: type[T] | None = None,
    /,
    *,
    name: str | None = None,
    package: str | None = None,
    **options: bool,
) -> type[T] | Callable[[type[T]], type[T]]:
    """Make a class a dataclass with `to_bytes()`, `from_bytes(data)` and `to_proto()`.

    `name` and `package` are the names in .proto text, by default those of the class and its module.
    `options` go to `dataclasses.dataclass` (frozen, kw_only, order, …), but `slots` is an error.
    Raises: ConfigurationError for a declaration that protocol buffers cannot encode.
    """
    scope = sys._getframe(1).f_locals
    if cls is not None:
        made: type[T] = make_record(cls, name, package, scope, options)
        return made
    return lambda decorated: make_record(decorated, name, package, scope, options)


@dataclass_transform(field_specifiers=(dataclasses.field,))
class Record:
    """The base class that makes a class a record: `class Person(Record, frozen=True): …`.

    It does what `@record` does, with the options as keywords of the class statement. Type checkers
    see the methods of a base class, but not those that a decorator adds.
    """

    __record__: ClassVar[Any] = None

    def __init_subclass__(
        cls, *, name: str | None = None, package: str | None = None, **options: bool
    ) -> None:
        super().__init_subclass__()
        make_record(cls, name, package, sys._getframe(1).f_locals, options)

    def to_bytes(self) -> bytes:
        """Encode the record in protocol buffers' binary format: fields by tag, dicts by key.

        Raises: RecordError, which names the field whose value does not fit.
        """
        encoded: bytes = self.__record__.encode(self)
        return encoded

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview) -> Self:
        """Decode a record. Its unknown fields are kept and written again by `to_bytes`.

        Raises: RecordError, which names the field at which the bytes are wrong.
        """
        decoded: Self = cls.__record__.decode(data, cls)
        return decoded

    @classmethod
    def to_proto(cls) -> str:
        """Return .proto text, for protoc, of this record and of all records that it contains."""
        return proto_of([cls], codec_of(cls).package)

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes, for copy and pickle."""
        self.__record__.unpack(self)
        return dict(self.__dict__)


_METHODS = ("to_bytes", "from_bytes", "to_proto", "__getstate__")


def make_record(
    cls: Any,
    name: str | None,
    package: str | None,
    scope: Mapping[str, Any],
    options: Mapping[str, bool],
) -> Any:
    """Make `cls` a record. `scope`: the local names in which its annotations are resolved.

    Raises: ConfigurationError for a declaration that protocol buffers cannot encode.
    """
    if options.get("slots"):
        raise ConfigurationError(
            f"{cls.__name__}: a record cannot have slots: it decodes its fields on first access"
        )
    _make_empty_defaults(cls)
    made_init = options.get("init", True) and "__init__" not in vars(cls)
    made = dataclasses.dataclass(**options)(cls)
    _add_methods(made)
    name = made.__name__ if name is None else name
    package = package_of(made) if package is None else package
    names = ChainMap({made.__name__: made}, dict(scope))
    entry = _Unfinished(made, name, package, names, made_init=made_init)
    _unfinished[made] = entry
    try:
        _finish(entry)
    except BaseException:
        _unfinished.pop(made, None)
        raise
    return made


def make_records(
    classes: Iterable[tuple[Any, str, str]], specs_of: Callable[[Any], tuple[FieldSpec, ...]]
) -> None:
    """Make records of dataclasses whose fields are given by `specs_of`, not by annotations.

    `classes`: the class, .proto name and package of each. `specs_of` is called after all classes
    are marked as records, so they may contain each other.
    """
    declared = list(classes)
    for cls, _, _ in declared:
        _add_methods(cls)
    for cls, name, package in declared:
        specs = specs_of(cls)
        check_unique(cls, specs)
        cls.__record__ = RecordCodec(cls, name, package, specs, made_init=True)
    _link([cls.__record__ for cls, _, _ in declared])


def _add_methods(cls: Any) -> None:
    """Add the methods and attributes of a record to a dataclass."""
    for method in _METHODS:
        setattr(cls, method, vars(Record)[method])
    setattr(cls, STATE, None)
    cls.__record__ = UnfinishedCodec(cls)


def is_record(type_: Any) -> bool:
    """Whether `type_` is the class of a record."""
    return isinstance(type_, type) and type_.__dict__.get("__record__") is not None


def codec_of(cls: Any) -> RecordCodec:
    """Return the codec of a record's class.

    Raises: ConfigurationError when an annotation is not defined, or `cls` is not a record.
    """
    codec = getattr(cls, "__record__", None)
    if isinstance(codec, RecordCodec):
        return codec
    if isinstance(codec, UnfinishedCodec):
        return codec.link  # type: ignore[no-any-return]  # raises ConfigurationError
    raise ConfigurationError(f"{getattr(cls, '__name__', cls)!r} is not a record")


def which_oneof(value: Any, group: str) -> str | None:
    """Return the name of the field of OneOf `group` that is set, None when none is set.

    Raises: ConfigurationError when the class has no such OneOf.
    """
    names = [spec.name for spec in codec_of(type(value)).specs if spec.oneof == group]
    if not names:
        raise ConfigurationError(f"{type(value).__name__} has no OneOf {group!r}")
    return next((name for name in names if getattr(value, name) is not None), None)


def package_of(cls: type) -> str:
    """The module's name as a .proto package: its parts that are identifiers, without outer `_`."""
    parts = [part.strip("_") for part in cls.__module__.split(".")]
    return ".".join(part for part in parts if part.isidentifier())


def doc_of(cls: type) -> str:
    """The first line of the class's docstring; "" when dataclass generated it."""
    doc = cls.__doc__ or ""
    return "" if doc.startswith(f"{cls.__name__}(") else doc.strip().partition("\n")[0]


def proto_of(classes: Iterable[Any], package: str) -> str:
    """Return the text of one .proto file with `classes` and all records that they contain.

    Raises: ConfigurationError when two different classes have the same name.
    """
    codecs: dict[int, RecordCodec] = {}
    for cls in classes:
        codecs.update((id(codec), codec) for codec in reachable(codec_of(cls)))
    shapes = [(codec.name, codec.specs, codec.cls) for codec in codecs.values()]
    file = build_file(package, shapes, names_of(codecs.values()))
    return prototext.print_file(file, {name: doc_of(cls) for name, _, cls in shapes})


# -- making a class


class UnfinishedCodec:
    """The placeholder for the codec of an unfinished class. Every use raises ConfigurationError."""

    def __init__(self, cls: type) -> None:
        self._cls = cls

    def __getattr__(self, name: str) -> Any:
        entry = _unfinished.get(self._cls)
        missing = entry.missing if entry and entry.missing else "a record in it"
        raise ConfigurationError(f"{self._cls.__name__}: {missing} is not defined")


def _make_empty_defaults(cls: type) -> None:
    """Replace the defaults `()`, `[]` and `{}` by a factory of the field's own type.

    dataclass rejects a mutable default, and `()` would give a list field a tuple. The type is taken
    from the annotation's text, because the names in it may not be defined yet.
    """
    for name, annotation in inspect.get_annotations(cls).items():
        default = cls.__dict__.get(name)
        if default or not isinstance(default, tuple | list | dict):
            continue
        text = annotation if isinstance(annotation, str) else repr(annotation)
        made = re.search(r"\b(tuple|dict|mapping)\[", text.lower())
        factory = list if made is None else tuple if made[1] == "tuple" else dict
        setattr(cls, name, dataclasses.field(default_factory=factory))


def _finish(entry: _Unfinished) -> None:
    """Read the fields of one class, then link every class whose records are all known now."""
    cls = entry.cls
    try:
        hints = typing.get_type_hints(cls, localns=_names_for(entry), include_extras=True)
    except NameError as error:
        entry.missing = error.name or str(error)
        return
    entry.missing = ""
    specs = read_fields(cls, hints, is_record)
    entry.codec = RecordCodec(cls, entry.name, entry.package, specs, entry.made_init)
    for other in list(_unfinished.values()):
        if other.missing == cls.__name__ and other.cls.__module__ == cls.__module__:
            _finish(other)
    _link_ready()


def _names_for(entry: _Unfinished) -> Mapping[str, Any]:
    """The names in which a class's annotations are resolved, besides those of its module.

    These are its scope, and then the unfinished classes of the same module.
    """
    siblings = {
        other.cls.__name__: other.cls
        for other in _unfinished.values()
        if other.cls.__module__ == entry.cls.__module__
    }
    return {**siblings, **entry.scope}


def _link_ready() -> None:
    """Link all classes that contain only known records, together: they may contain each other."""
    ready = [entry for entry in _unfinished.values() if entry.codec and _complete(entry.cls)]
    for entry in ready:
        del _unfinished[entry.cls]
        entry.cls.__record__ = entry.codec
    _link([entry.cls.__record__ for entry in ready])


def _link(codecs: Iterable[RecordCodec]) -> None:
    """Make the closures of the codecs, then the lazy fields of their classes."""
    for codec in codecs:
        codec.link()
        for spec in codec.specs:
            setattr(codec.cls, spec.name, LazyField(codec, spec.name))


def _complete(cls: Any) -> bool:
    """Whether the fields of every record that `cls` contains, at any depth, are known."""
    seen: set[Any] = set()
    todo = [cls]
    while todo:
        at = todo.pop()
        if at in seen:
            continue
        seen.add(at)
        entry = _unfinished.get(at)
        codec = entry.codec if entry else at.__record__
        if not isinstance(codec, RecordCodec):
            return False
        todo += [spec.target for spec in codec.specs if spec.kind is RECORD]
    return True

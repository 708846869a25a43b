"""Records: annotated dataclasses that are protocol buffers on the wire.

    @record
    class Person:
        name: Annotated[str, 1]
        id: Annotated[int, 2]
        phones: Annotated[list[PhoneNumber], 5] = field(default_factory=list)
        email: Annotated[str | None, 3] = None

    Person.from_bytes(person.to_bytes()) == person

A record stays an ordinary dataclass. Its descriptor is made when the class is, so a wrong
declaration is an error at import. A name that is not defined yet leaves the class unfinished until
the record of that name is made in the same module: two records may contain each other.
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
    """A class whose annotations name something that is not there yet, or not finished itself."""

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

    `name` and `package` are those of the .proto text (default: the names of class and module);
    `options` go to `dataclasses.dataclass` (frozen, kw_only, order, …; not slots).
    Raises: ConfigurationError for a declaration that no wire can carry, naming the fields.
    """
    scope = sys._getframe(1).f_locals
    if cls is not None:
        made: type[T] = make_record(cls, name, package, scope, options)
        return made
    return lambda decorated: make_record(decorated, name, package, scope, options)


@dataclass_transform(field_specifiers=(dataclasses.field,))
class Record:
    """The same by inheritance, `class Person(Record): …`, which type checkers understand wholly: a
    decorator cannot tell them that it adds methods. Options are keywords of the class statement.
    """

    __record__: ClassVar[Any] = None

    def __init_subclass__(
        cls, *, name: str | None = None, package: str | None = None, **options: bool
    ) -> None:
        super().__init_subclass__()
        make_record(cls, name, package, sys._getframe(1).f_locals, options)

    def to_bytes(self) -> bytes:
        """The record in protocol buffers' binary form: fields by tag, maps by key.

        Raises: RecordError, which names the field whose value does not fit.
        """
        encoded: bytes = self.__record__.encode(self)
        return encoded

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview) -> Self:
        """The record that `data` is. Fields that the class does not know are kept for `to_bytes`.

        Raises: RecordError, which names the field where the bytes go wrong.
        """
        decoded: Self = cls.__record__.decode(data, cls)
        return decoded

    @classmethod
    def to_proto(cls) -> str:
        """.proto text of this record and of all that it contains, for protoc and its languages."""
        return proto_of([cls], codec_of(cls).package)

    def __getstate__(self) -> dict[str, Any]:
        """For copy and pickle: the attributes, unpacked."""
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
    """Make `cls` a record. `scope`: where its annotations find local names, besides its module."""
    if options.get("slots"):
        raise ConfigurationError(f"{cls.__name__}: a record has no slots, it reads its bytes late")
    _make_empty_defaults(cls)
    made_init = options.get("init", True) and "__init__" not in vars(cls)
    made = dataclasses.dataclass(**options)(cls)
    _equip(made)
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


def adopt(
    classes: Iterable[tuple[Any, str, str]], specs_of: Callable[[Any], tuple[FieldSpec, ...]]
) -> None:
    """Make records of dataclasses whose fields are known otherwise: (class, name, package) each.

    `specs_of` is asked when all of them are records already, so they may contain each other.
    """
    adopted = list(classes)
    for cls, _, _ in adopted:
        _equip(cls)
    for cls, name, package in adopted:
        specs = specs_of(cls)
        check_unique(cls, specs)
        cls.__record__ = RecordCodec(cls, name, package, specs, made_init=True)
    _link([cls.__record__ for cls, _, _ in adopted])


def _equip(cls: Any) -> None:
    """Give a dataclass the methods and attributes of a record."""
    for method in _METHODS:
        setattr(cls, method, vars(Record)[method])
    setattr(cls, STATE, None)
    cls.__record__ = Pending(cls)


def is_record(type_: Any) -> bool:
    """Whether `type_` is the class of a record."""
    return isinstance(type_, type) and type_.__dict__.get("__record__") is not None


def codec_of(cls: Any) -> RecordCodec:
    """The codec of a record's class. Raises ConfigurationError while a name in it is missing."""
    codec = getattr(cls, "__record__", None)
    if isinstance(codec, RecordCodec):
        return codec
    if isinstance(codec, Pending):
        return codec.link  # type: ignore[no-any-return]  # raises, with what is missing
    raise ConfigurationError(f"{getattr(cls, '__name__', cls)!r} is no record")


def which_oneof(value: Any, group: str) -> str | None:
    """The name of the field of OneOf `group` that is set, None when none is."""
    names = [spec.name for spec in codec_of(type(value)).specs if spec.oneof == group]
    if not names:
        raise ConfigurationError(f"{type(value).__name__} has no OneOf {group!r}")
    return next((name for name in names if getattr(value, name) is not None), None)


def package_of(cls: type) -> str:
    """The module's name, as far as a .proto package can have it."""
    parts = [part.strip("_") for part in cls.__module__.split(".")]
    return ".".join(part for part in parts if part.isidentifier())


def doc_of(cls: type) -> str:
    """The first line of the class's own docstring; "" for the one that dataclass makes."""
    doc = cls.__doc__ or ""
    return "" if doc.startswith(f"{cls.__name__}(") else doc.strip().partition("\n")[0]


def proto_of(classes: Iterable[Any], package: str) -> str:
    """One .proto file for several records and all that they contain.

    Raises: ConfigurationError when two different classes have one name.
    """
    codecs: dict[int, RecordCodec] = {}
    for cls in classes:
        codecs.update((id(codec), codec) for codec in reachable(codec_of(cls)))
    shapes = [(codec.name, codec.specs, codec.cls) for codec in codecs.values()]
    file = build_file(package, shapes, names_of(codecs.values()))
    return prototext.print_file(file, {name: doc_of(cls) for name, _, cls in shapes})


# -- making a class


class Pending:
    """Stands for the codec of a class that is not finished: every use says what is missing."""

    def __init__(self, cls: type) -> None:
        self._cls = cls

    def __getattr__(self, name: str) -> Any:
        entry = _unfinished.get(self._cls)
        missing = entry.missing if entry and entry.missing else "a record in it"
        raise ConfigurationError(f"{self._cls.__name__}: {missing} is not defined")


def _make_empty_defaults(cls: type) -> None:
    """`= ()`, `= []` and `= {}` all are an empty value of the field's own type, anew each time."""
    for name, annotation in inspect.get_annotations(cls).items():
        default = cls.__dict__.get(name)
        if default or not isinstance(default, tuple | list | dict):
            continue
        text = annotation if isinstance(annotation, str) else repr(annotation)
        made = re.search(r"\b(tuple|dict|mapping)\[", text.lower())
        factory = list if made is None else tuple if made[1] == "tuple" else dict
        setattr(cls, name, dataclasses.field(default_factory=factory))


def _finish(entry: _Unfinished) -> None:
    """Read the fields of one class, then link every class that now has all it needs."""
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
    """Where the annotations of a class find names: its scope, then the unfinished beside it."""
    beside = {
        other.cls.__name__: other.cls
        for other in _unfinished.values()
        if other.cls.__module__ == entry.cls.__module__
    }
    return {**beside, **entry.scope}


def _link_ready() -> None:
    """Link all classes whose records are known all the way down, at once: they may be a circle."""
    ready = [entry for entry in _unfinished.values() if entry.codec and _complete(entry.cls)]
    for entry in ready:
        del _unfinished[entry.cls]
        entry.cls.__record__ = entry.codec
    _link([entry.cls.__record__ for entry in ready])


def _link(codecs: Iterable[RecordCodec]) -> None:
    for codec in codecs:
        codec.link()
        for spec in codec.specs:
            setattr(codec.cls, spec.name, LazyField(codec, spec.name))


def _complete(cls: Any) -> bool:
    """Whether every record that `cls` reaches has its fields."""
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

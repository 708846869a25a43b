"""Values, exceptions and behaviours as data, and how they are made real.

A recipe is a tuple whose first item names it. Recipes can be pickled, so that a handler process can
make the same values as a handler in the test's own process.
"""

from __future__ import annotations

import asyncio
import enum
import http
import operator
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import strategies as st

from majordomus import Discard, Forward, Message, Redirect, Reject, Replace, Reply, SendTo, errors

Recipe = tuple[Any, ...]


class EvilBytes(bytes):
    """Bytes with overridden methods."""

    def __len__(self) -> int:
        return 10**9

    def __bytes__(self) -> bytes:
        raise SystemExit(3)

    def __iter__(self) -> Any:
        raise KeyboardInterrupt


class EvilText(str):
    """Text with overridden methods."""

    __slots__ = ()

    def encode(self, *_: Any) -> Any:
        return 5

    def __getitem__(self, _: Any) -> Any:
        return 7

    def __str__(self) -> str:
        raise GeneratorExit


class EvilList(list):  # type: ignore[type-arg]
    def __iter__(self) -> Any:
        raise StopIteration


class EvilReply(Reply):
    @property  # type: ignore[override]
    def status(self) -> Any:
        raise KeyboardInterrupt("status")

    @status.setter
    def status(self, _: Any) -> None: ...


class HasAnyFrames:
    """An object whose `frames` are what they are given, or raise."""

    def __init__(self, frames: Any) -> None:
        self.given = frames

    @property
    def frames(self) -> Any:
        if isinstance(self.given, BaseException):
            raise self.given
        return self.given


class Typed:
    """An object that is encoded by a method of its own."""

    def __init__(self, result: Any) -> None:
        self.result = result

    def to_bytes(self) -> Any:
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result

    SerializeToString = to_bytes


class Liar:
    """An object whose class cannot be asked for."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no class")

    def __repr__(self) -> str:
        raise SystemExit("no repr")


class Point(msgspec.Struct):
    x: int


class Teapot(enum.IntEnum):
    SHORT = 418


class NamelessMeta(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise RuntimeError("no name")


class NamelessError(Exception, metaclass=NamelessMeta):
    pass


class MuteError(Exception):
    """An exception whose text raises, or is no text."""

    def __str__(self) -> Any:
        found = self.args[0]
        if isinstance(found, BaseException):
            raise found
        return found

    __repr__ = __str__


class MuteStatus(errors.StatusError):
    """A StatusError whose attributes raise."""

    @property  # type: ignore[override]
    def text(self) -> Any:
        raise SystemExit("no text")

    @text.setter
    def text(self, _: Any) -> None: ...


class LyingError(Exception):
    @property  # type: ignore[misc]
    def __class__(self) -> Any:  # type: ignore[override]
        raise ValueError("no class")


BUILTIN: dict[str, Callable[..., BaseException]] = {
    kind.__name__: kind
    for kind in (
        Exception,
        ValueError,
        KeyError,
        OSError,
        TimeoutError,
        MemoryError,
        RecursionError,
        SystemExit,
        KeyboardInterrupt,
        GeneratorExit,
        StopIteration,
        StopAsyncIteration,
        asyncio.CancelledError,
        BaseException,
    )
}
STATUS_ERRORS = {kind.__name__: kind for kind in (errors.StatusError, *errors.BY_STATUS.values())}


def made(recipe: Recipe) -> Any:
    """Make a value."""
    name, *given = recipe
    return _MAKERS[name](*given)


def _error(name: str, argument: Recipe) -> BaseException:
    return BUILTIN[name](made(argument))


def _status_error(name: str, text: Recipe, status: Recipe | None) -> BaseException:
    error = STATUS_ERRORS[name](made(text))
    error.text = made(text)
    if status is not None:
        error.status = made(status)
    return error


def _noted(error: Recipe, note: Recipe) -> BaseException:
    result = made(error)
    result.__notes__ = made(note)
    result.__cause__ = result
    return result  # type: ignore[no-any-return]


def _reply(frames: Recipe, status: Recipe) -> Reply:
    reply = Reply(b"", made(status))
    reply.frames = made(frames)
    return reply


def _replied(frames: Recipe, status: Recipe) -> Reply:
    return Reply(made(frames), made(status))


async def _coroutine() -> bytes:
    return b"of a coroutine"


def _unawaited() -> Any:
    work = _coroutine()
    work.close()
    return work


_MAKERS: dict[str, Callable[..., Any]] = {
    "plain": lambda value: value,
    "list": lambda *items: [made(item) for item in items],
    "tuple": lambda *items: tuple(made(item) for item in items),
    "evil-list": lambda *items: EvilList(made(item) for item in items),
    "bytearray": bytearray,
    "memoryview": memoryview,
    "strided": lambda value: memoryview(value)[::2],
    "evil-bytes": EvilBytes,
    "evil-text": EvilText,
    "object": object,
    "liar": Liar,
    "point": Point,
    "generator": lambda *items: (made(item) for item in items),
    "coroutine": _unawaited,
    "function": lambda: operator.add,
    "message": lambda *frames: Message(list(frames)),
    "frames": lambda value: HasAnyFrames(made(value)),
    "typed": lambda value: Typed(made(value)),
    "reply": _reply,
    "replied": _replied,
    "evil-reply": lambda: EvilReply(b"x"),
    "http-status": http.HTTPStatus,
    "teapot": lambda: Teapot.SHORT,
    "error": _error,
    "status-error": _status_error,
    "mute": lambda text: MuteError(made(text)),
    "mute-status": lambda: MuteStatus("x"),
    "lying": lambda: LyingError("x"),
    "nameless": lambda: NamelessError("x"),
    "noted": _noted,
    "group": lambda *items: BaseExceptionGroup("several", [made(item) for item in items]),
    "broker-lost": lambda: errors.BrokerLost("x"),
    "record-error": lambda: errors.RecordError("R", "f", "d"),
    "bad-frame": lambda: errors.FrameError("x", position=1),
    "forward": Forward,
    "discard": Discard,
    "send-to": lambda peer: SendTo(made(peer)),
    "redirect": lambda service: Redirect(made(service)),
    "replace": lambda body: Replace(made(body)),
    "reject": lambda status, text: Reject(made(status), made(text)),
}

# ── strategies ────────────────────────────────────────────────────────────────────────────────────

_BYTES = st.binary(max_size=40)
_SURROGATES = st.sampled_from(["\udc80", "a\ud800b", "x" * 5000, ""])
_TEXT = st.one_of(st.text(max_size=20), _SURROGATES)


def plain(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Recipe]:
    return st.tuples(st.just("plain"), values)


def of(name: str, *parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Recipe]:
    return st.tuples(st.just(name), *parts)


def many(name: str, parts: st.SearchStrategy[Any], most: int = 3) -> st.SearchStrategy[Recipe]:
    return st.lists(parts, max_size=most).map(lambda items: (name, *items))


GOOD_PARTS = st.one_of(plain(_BYTES), plain(st.text(max_size=20)), of("bytearray", _BYTES))
GOOD_BODIES = st.one_of(GOOD_PARTS, plain(st.none()), many("list", GOOD_PARTS))
GOOD_STATUSES = st.one_of(plain(st.integers(1, 0xFFFF)), plain(st.just(200)))

STATUSES = st.one_of(
    GOOD_STATUSES,
    plain(st.integers(-3, 70_000)),
    plain(st.sampled_from([True, False, 2**70, -(2**70), 200.0, 404.5, float("nan"), None, "404"])),
    of("http-status", st.sampled_from([200, 404, 503])),
    of("teapot"),
    of("object"),
    of("liar"),
)
_LEAVES = st.one_of(
    GOOD_BODIES,
    plain(_TEXT),
    plain(st.one_of(st.integers(), st.floats(), st.booleans(), st.complex_numbers())),
    of("memoryview", _BYTES),
    of("strided", st.binary(min_size=2, max_size=9)),
    of("evil-bytes", _BYTES),
    of("evil-text", st.text(max_size=5)),
    of("object"),
    of("liar"),
    of("point", st.one_of(st.integers(0, 5), st.just("no number"))),
    of("coroutine"),
    of("function"),
    many("message", _BYTES),
    of("evil-reply"),
    plain(st.dictionaries(st.text(max_size=3), st.integers(), max_size=2)),
    plain(st.sets(st.integers(), max_size=2)),
)


def _simple_errors() -> st.SearchStrategy[Recipe]:
    return of("error", st.sampled_from(sorted(BUILTIN)), plain(_TEXT))


VALUES: st.SearchStrategy[Recipe] = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        many("list", inner),
        many("tuple", inner),
        many("evil-list", inner),
        many("generator", inner),
        of("frames", inner),
        of("typed", inner),
        of("reply", inner, STATUSES),
        of("replied", inner, STATUSES),
        of("frames", _simple_errors()),
        of("typed", _simple_errors()),
    ),
    max_leaves=4,
)


_ONE_ERROR = st.one_of(
    _simple_errors(),
    of("error", st.sampled_from(sorted(BUILTIN)), VALUES),
    of(
        "status-error",
        st.sampled_from(sorted(STATUS_ERRORS)),
        st.one_of(plain(_TEXT), VALUES, _simple_errors()),
        st.one_of(st.none(), STATUSES),
    ),
    of("mute", st.one_of(_simple_errors(), plain(st.integers()), of("evil-text", st.just("x")))),
    of("mute-status"),
    of("lying"),
    of("nameless"),
    of("broker-lost"),
    of("record-error"),
    of("bad-frame"),
)
ERRORS = st.one_of(
    _ONE_ERROR,
    of("noted", _ONE_ERROR, VALUES),
    st.lists(_ONE_ERROR, min_size=1, max_size=2).map(lambda items: ("group", *items)),
)
ACTIONS = st.one_of(
    of("forward"),
    of("send-to", VALUES),
    of("redirect", st.one_of(plain(st.text(max_size=5)), VALUES)),
    of("replace", VALUES),
    of("reject", STATUSES, st.one_of(plain(_TEXT), VALUES)),
    of("reply", VALUES, STATUSES),
    VALUES,
)

# ── behaviours ────────────────────────────────────────────────────────────────────────────────────

ENDS = st.one_of(of("return", VALUES), of("return", GOOD_BODIES), of("raise", ERRORS))
CANCELS = st.sampled_from(
    ["cancel-me", "cancel-me-later", "cancel-me-after", "exit-later", "exit-in-task", "wait"]
)
LATER = st.one_of(
    of("reply", VALUES),
    of("fail", STATUSES, st.one_of(plain(_TEXT), VALUES)),
    of("drop"),
    of("drop-in-cycle"),
    of("part", VALUES),
    of("in-thread", VALUES),
)
"""What is done with the promise of `reply_later`."""
BEHAVIOURS = st.fixed_dictionaries(
    {
        "parts": st.lists(st.one_of(GOOD_BODIES, VALUES), max_size=3),  # of generators
        "before": st.one_of(st.none(), st.none(), CANCELS),
        "later": st.one_of(st.none(), st.none(), st.none(), LATER),
        "end": ENDS,
    }
)
HOOKS = st.dictionaries(
    st.sampled_from(
        ["on_request", "on_reply", "on_part", "on_request_ended", "on_client_seen", "strategy"]
    ),
    st.one_of(of("return", ACTIONS), of("raise", ERRORS)),
    max_size=2,
)

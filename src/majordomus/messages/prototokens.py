"""Prototokens: .proto text as tokens, each with the line it stands on. Comments are dropped."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple, NoReturn

from majordomus.errors import ConfigurationError

__all__ = ["END", "Token", "Tokens"]

_PATTERN = re.compile(
    r"""(?P<space>\s+|//[^\n]*|/\*.*?\*/)
    |(?P<number>(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?))
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<sign>[{}()\[\]<>;:,.=+\-/])""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPES = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}
_ESCAPE = re.compile(
    rb"\\(?:[xX]([0-9a-fA-F]{1,2})|([0-7]{1,3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL
)


class Token(NamedTuple):
    """`kind` is number, word, text, sign or end."""

    kind: str
    value: str
    line: int


END = "end"


def _split(text: str, name: str) -> Iterator[Token]:
    at, line = 0, 1
    while at < len(text):
        match = _PATTERN.match(text, at)
        if match is None:
            raise ConfigurationError(f"{name}:{line}: {text[at]!r} is not expected in .proto text")
        kind = match.lastgroup or END
        if kind != "space":
            yield Token(kind, match[0], line)
        line += match[0].count("\n")
        at = match.end()
    yield Token(END, "the end of the file", line)


class Tokens:
    """The tokens of one file, read one after the other. Every error names file and line."""

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self._all = list(_split(text, name))
        self._at = 0

    @property
    def next(self) -> Token:
        """The next token, which stays."""
        return self._all[self._at]

    @property
    def after(self) -> Token:
        """The token behind the next."""
        return self._all[min(self._at + 1, len(self._all) - 1)]

    def take(self) -> Token:
        token = self._all[self._at]
        if token.kind != END:
            self._at += 1
        return token

    def fail(self, expected: str, token: Token | None = None) -> NoReturn:
        found = self.next if token is None else token
        raise ConfigurationError(
            f"{self.name}:{found.line}: {expected} expected, found {found.value}"
        )

    def skip(self, value: str) -> bool:
        """Take the next token if it is `value`."""
        if self.next.kind == "text" or self.next.value != value:
            return False
        self.take()
        return True

    def want(self, value: str) -> None:
        if not self.skip(value):
            self.fail(f"'{value}'")

    def word(self) -> str:
        token = self.take()
        if token.kind != "word":
            self.fail("a name", token)
        return token.value

    def path(self) -> str:
        """A name with dots, also in front."""
        parts = ["" if self.skip(".") else self.word()]
        if not parts[0]:
            parts.append(self.word())
        while self.skip("."):
            parts.append(self.word())
        return ".".join(parts)

    def integer(self) -> int:
        sign = -1 if self.skip("-") else 1
        token = self.take()
        try:
            octal = len(token.value) > 1 and token.value.isdigit() and token.value[0] == "0"
            return sign * int(token.value, 8 if octal else 0)
        except ValueError:
            self.fail("a whole number", token)

    def decimal(self) -> str:
        """A number with a point, `inf` or `nan`, as descriptors have it."""
        sign = "-" if self.skip("-") else ""
        token = self.take()
        if token.value in ("inf", "nan"):
            return sign + token.value
        try:
            return sign + repr(float(token.value)).removesuffix(".0")
        except ValueError:
            self.fail("a number", token)

    def data(self) -> bytes:
        """A string, its neighbours joined to it."""
        if self.next.kind != "text":
            self.fail("a string")
        parts = []
        while self.next.kind == "text":
            token = self.take()
            try:
                parts.append(_ESCAPE.sub(_unescape, token.value[1:-1].encode()))
            except ValueError:
                self.fail("a character of Unicode", token)
        return b"".join(parts)

    def text(self) -> str:
        """The same as UTF-8."""
        token = self.next
        try:
            return self.data().decode()
        except UnicodeDecodeError:
            self.fail("UTF-8", token)

    def skip_block(self) -> None:
        """Over `{ … }`, whatever is inside."""
        self.want("{")
        depth = 1
        while depth:
            token = self.take()
            if token.kind == END:
                self.fail("'}'", token)
            depth += {"{": 1, "}": -1}.get(token.value, 0) if token.kind == "sign" else 0

    def skip_statement(self) -> None:
        """Up to and over the `;`."""
        while not self.skip(";"):
            if self.next.kind == END:
                self.fail("';'")
            if self.next.value == "{" and self.next.kind == "sign":
                self.skip_block()
            else:
                self.take()

    def listed(self, read: Callable[[], None]) -> None:
        """`read` once for each item of a list with commas."""
        read()
        while self.skip(","):
            read()


def _unescape(match: re.Match[bytes]) -> bytes:
    hexadecimal, octal, short, long, other = match.groups()
    if hexadecimal is not None:
        return bytes([int(hexadecimal, 16)])
    if octal is not None:
        return bytes([int(octal, 8) & 0xFF])
    if short is not None or long is not None:
        return chr(int(short or long, 16)).encode()
    code = _ESCAPES.get(other.decode("latin-1"))
    return other if code is None else bytes([code])

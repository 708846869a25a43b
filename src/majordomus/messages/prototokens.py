"""Prototokens: splits .proto text into tokens with line numbers. Comments are dropped."""

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
    """A token of .proto text."""

    kind: str
    """number, word, text (a quoted string), sign or end."""
    value: str
    """The characters of the token; quotes and escapes are not decoded."""
    line: int
    """The line on which it starts, from 1."""


END = "end"


def _split(text: str, name: str) -> Iterator[Token]:
    at, line = 0, 1
    while at < len(text):
        match = _PATTERN.match(text, at)
        if match is None:
            raise ConfigurationError(f"{name}:{line}: unexpected {text[at]!r} in .proto text")
        kind = match.lastgroup or END
        if kind != "space":
            yield Token(kind, match[0], line)
        line += match[0].count("\n")
        at = match.end()
    yield Token(END, "the end of the file", line)


class Tokens:
    """The tokens of one file, read in order.

    Each method that reads raises ConfigurationError, with file and line, for another token.
    """

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self._all = list(_split(text, name))
        self._at = 0

    @property
    def next(self) -> Token:
        """The next token, not taken."""
        return self._all[self._at]

    @property
    def after(self) -> Token:
        """The token after the next."""
        return self._all[min(self._at + 1, len(self._all) - 1)]

    def take(self) -> Token:
        """Take the next token. The end is never taken."""
        token = self._all[self._at]
        if token.kind != END:
            self._at += 1
        return token

    def fail(self, expected: str, token: Token | None = None) -> NoReturn:
        """Raise the error for `token`, by default the next, where `expected` should be."""
        found = self.next if token is None else token
        raise ConfigurationError(
            f"{self.name}:{found.line}: {expected} expected, found {found.value}"
        )

    def skip(self, value: str) -> bool:
        """Take the next token if it is `value`; return whether it was."""
        if self.next.kind == "text" or self.next.value != value:
            return False
        self.take()
        return True

    def expect(self, value: str) -> None:
        """Take the next token, which must be `value`."""
        if not self.skip(value):
            self.fail(f"'{value}'")

    def word(self) -> str:
        """Take a name without dots."""
        token = self.take()
        if token.kind != "word":
            self.fail("a name", token)
        return token.value

    def path(self) -> str:
        """Take a name that may have dots, also a leading one."""
        parts = ["" if self.skip(".") else self.word()]
        if not parts[0]:
            parts.append(self.word())
        while self.skip("."):
            parts.append(self.word())
        return ".".join(parts)

    def integer(self) -> int:
        """Take an integer: decimal, hexadecimal or octal, maybe negative."""
        sign = -1 if self.skip("-") else 1
        token = self.take()
        try:
            octal = len(token.value) > 1 and token.value.isdigit() and token.value[0] == "0"
            return sign * int(token.value, 8 if octal else 0)
        except ValueError:
            self.fail("an integer", token)

    def decimal(self) -> str:
        """Take a floating-point number, `inf` or `nan`; return it in the form of descriptors."""
        sign = "-" if self.skip("-") else ""
        token = self.take()
        if token.value in ("inf", "nan"):
            return sign + token.value
        try:
            return sign + repr(float(token.value)).removesuffix(".0")
        except ValueError:
            self.fail("a number", token)

    def data(self) -> bytes:
        """Take a string as bytes. Adjacent strings are joined, as in C."""
        if self.next.kind != "text":
            self.fail("a string")
        parts = []
        while self.next.kind == "text":
            token = self.take()
            try:
                parts.append(_ESCAPE.sub(_unescape, token.value[1:-1].encode()))
            except ValueError:
                self.fail("a Unicode character", token)
        return b"".join(parts)

    def text(self) -> str:
        """Take a string, as `data` does, and decode it as UTF-8."""
        token = self.next
        try:
            return self.data().decode()
        except UnicodeDecodeError:
            self.fail("UTF-8", token)

    def skip_block(self) -> None:
        """Skip a block `{ … }`, with nested blocks."""
        self.expect("{")
        depth = 1
        while depth:
            token = self.take()
            if token.kind == END:
                self.fail("'}'", token)
            depth += {"{": 1, "}": -1}.get(token.value, 0) if token.kind == "sign" else 0

    def skip_statement(self) -> None:
        """Skip the rest of a statement, up to and including its `;`."""
        while not self.skip(";"):
            if self.next.kind == END:
                self.fail("';'")
            if self.next.value == "{" and self.next.kind == "sign":
                self.skip_block()
            else:
                self.take()

    def listed(self, read: Callable[[], None]) -> None:
        """Call `read` for each item of a list separated by commas."""
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

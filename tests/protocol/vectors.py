"""Read the vectors of docs/spec: fenced blocks tagged `vectors`, one message a line.

    NAME | direction | frames in hex, - = empty | key=value key=value flag

docs/spec/index.md describes the format. A line that does not follow it is an error, never skipped.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from majordomus.protocol import metadata, spec
from majordomus.protocol.spec import Dialect, Frame

SPEC = Path(__file__).parents[2] / "docs" / "spec"
DIRECTIONS = ("c>b", "b>c", "w>b", "b>w", "any")
PAGES = {
    Dialect.MDP01: "mdp-0.1.md",
    Dialect.MDP02: "mdp-0.2.md",
    Dialect.MDP02D: "mdp-0.2-delimited.md",
    Dialect.DELPHI: "delphi.md",
    Dialect.MDP03: "mdp-0.3.md",
}
NUMBERS = {name: number for number, name in spec.COMMAND_NAMES.items()}
KEYS = {
    *("service", "address", "body", "load", "worker-id", "command", "flags", "code", "id", "ttl"),
    *("broker", "sender", "error", "dialect", "envelope", "half", "hash", "read-only"),
}
_BLOCK = re.compile(r"^```vectors\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Vector(NamedTuple):
    """One line of a block. `fields` are text as written; the properties give them meaning."""

    page: str
    name: str
    direction: str
    frames: list[Frame]
    fields: dict[str, str]

    def __str__(self) -> str:
        return f"{self.page}:{self.name}:{self.direction}"

    @property
    def error(self) -> str:
        """The reason that reading must fail with; empty for a valid message."""
        return self.fields.get("error", "")

    @property
    def read_only(self) -> bool:
        """Whether we accept it from a peer, but never write it in this form."""
        return "read-only" in self.fields

    @property
    def service(self) -> bytes:
        return self.fields.get("service", "").encode()

    @property
    def address(self) -> bytes:
        return bytes.fromhex(self.fields.get("address", ""))

    @property
    def body(self) -> list[Frame]:
        return frames_of(self.fields["body"].replace(",", " ")) if "body" in self.fields else []

    @property
    def load(self) -> float | None:
        text = self.fields.get("load", "none")
        return None if text == "none" else float(text)

    def number(self, key: str) -> int:
        return int(self.fields.get(key, "0"), 0)

    @property
    def command(self) -> int:
        return NUMBERS[self.name] if self.name in NUMBERS else self.number("command")

    def map(self, key: str) -> dict[str, Any]:
        """The metadata map in field `key`; empty when the line has none."""
        return json.loads(self.fields.get(key, "{}"))

    @property
    def metadata(self) -> bytes:
        """Both maps packed as they follow a header: the broker's own, then the sender's."""
        return b"".join(
            metadata.pack(self.map(k)) for k in ("broker", "sender") if k in self.fields
        )


def frames_of(text: str) -> list[Frame]:
    return [b"" if word == "-" else bytes.fromhex(word) for word in text.split()]


def vectors(page: str, text: str | None = None) -> list[Vector]:
    """Every vector of `page`, in its order."""
    text = (SPEC / page).read_text(encoding="utf-8") if text is None else text
    lines = [line.strip() for block in _BLOCK.findall(text) for line in block.splitlines()]
    return [_vector(page, line) for line in lines if line and not line.startswith("#")]


def _vector(page: str, line: str) -> Vector:
    parts = [part.strip() for part in line.split("|")]
    if len(parts) != 4:
        raise ValueError(f"{page}: not four columns: {line}")
    name, direction, frames, fields = parts
    if direction not in DIRECTIONS:
        raise ValueError(f"{page}: no such direction: {line}")
    pairs = dict((field.partition("=")[::2]) for field in fields.split())
    if not pairs.keys() <= KEYS:
        raise ValueError(f"{page}: unknown field {set(pairs) - KEYS}: {line}")
    return Vector(page, name, direction, frames_of(frames), pairs)


def valid(page: str) -> list[Vector]:
    return [vector for vector in vectors(page) if not vector.error]


def malformed(page: str) -> list[Vector]:
    return [vector for vector in vectors(page) if vector.error]

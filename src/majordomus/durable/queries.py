"""The named statements of the folder `sql`: `-- name: append` stands before each."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Final

NAME: Final = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)

ROW: Final = re.compile(r"\((?:\?, )*\?\)")


def load(text: str) -> dict[str, str]:
    """Return name → statement."""
    _, *parts = NAME.split(text)
    return {
        name: sql.strip().rstrip(";") for name, sql in zip(parts[::2], parts[1::2], strict=True)
    }


def several(sql: str, count: int) -> str:
    """Return a statement with so many of the row of values that is in it."""
    return ROW.sub(lambda row: ", ".join([row[0]] * count), sql)


def read(name: str) -> str:
    """Return the text of a file of the folder."""
    return (files("majordomus.durable") / "sql" / name).read_text("utf-8")


SCHEMA: Final = read("schema.sql")
QUERIES: Final = load(read("queries.sql"))

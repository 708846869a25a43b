"""Rows for the tests of stores."""

from __future__ import annotations

from typing import Any

from majordomus.core.broker.durable.records import Complete, StoredOutcome, StoredRequest


def row(number: int, **fields: Any) -> StoredRequest:
    """A row; everything that a test does not name is the same for all."""
    base = StoredRequest(
        number, "ann", b"mail", b"mail", [b"body %d" % number, b""], b"\x80", 10.0, 99.0, 60.0
    )
    return base.replace(**{"due": 10.0, **fields})


def end(number: int, *, until: float = 50.0, status: int = 200) -> Complete:
    """The outcome of a row."""
    return Complete(number, 2, StoredOutcome(status, [b"reply %d" % number], b"", 20.0, until))

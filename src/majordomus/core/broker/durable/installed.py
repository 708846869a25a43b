"""The store that a machine has, if it has one.

Each part of the machine gets the one `InstalledStore` in its constructor. It reads `durable` only
for a request with the flag DURABLE, and for a name that no plain request has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from majordomus.core.broker.durable.lifecycle import DurableRequests


class InstalledStore:
    """durable: the durable requests; None while the machine has no store. Once set it stays."""

    __slots__ = ("durable",)

    def __init__(self) -> None:
        self.durable: DurableRequests | None = None

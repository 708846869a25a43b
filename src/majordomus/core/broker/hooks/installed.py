"""The hooks that a machine has, if it has any.

Each part of the machine gets the one `InstalledHooks` in its constructor and asks for `holding`
where a hook may decide. Without hooks that is a comparison with None, and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from majordomus.core.broker.hooks.holding import Holding


class InstalledHooks:
    """holding: what asks the hooks; None while the machine has none. Once set it stays."""

    __slots__ = ("holding",)

    def __init__(self) -> None:
        self.holding: Holding | None = None

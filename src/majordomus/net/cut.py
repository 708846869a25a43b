"""What stands in a message for the frames that a wire dropped, because they broke its bounds.

So the rule that refuses such a message is the same that refuses any other that is too large: it
counts and adds up.
"""

from __future__ import annotations

from typing import Self


class Cut(bytes):
    """The last frame of a message that was cut.

    It has no content; its `len()` is how many bytes were dropped.
    """

    dropped: int

    def __new__(cls, dropped: int) -> Self:
        made = super().__new__(cls)
        made.dropped = dropped
        return made

    def __len__(self) -> int:
        return self.dropped

    def __repr__(self) -> str:
        return f"Cut({self.dropped})"

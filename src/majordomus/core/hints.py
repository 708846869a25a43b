"""What will be looked at soon can be asked of memory now: a hint to the processor, which changes
nothing.

What is compiled calls the function of the same name in hints.pxd instead
(docs/adr/0008-compiled-rules.md). Plain Python has no such hint: nothing is ever so many that it
would be worth one.
"""

from __future__ import annotations

from sys import maxsize
from typing import Final

MANY: Final = maxsize
"""Of more workers, peers or services than this the caches do not hold what a request touches."""


def fetch(wanted: object) -> None:
    """`wanted` will be looked at soon."""

"""Integer functions of the rules that make no object where they are compiled.

The compiled rules call the functions of the same names in arithmetic.pxd instead
(docs/adr/0008-compiled-rules.md).
"""

from __future__ import annotations

whole = int
"""Truncate a number of seconds, steps or milliseconds to an int."""

length = len
"""The bytes of a frame."""

bits = int.bit_length
"""The bit length of a number that is not negative."""

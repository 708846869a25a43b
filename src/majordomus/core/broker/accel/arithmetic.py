"""Whole numbers of numbers that are not, where the rules reckon with them.

What is compiled calls the functions of the same names in arithmetic.pxd instead, which make no
object (docs/adr/0008-compiled-rules.md).
"""

from __future__ import annotations

whole = int
"""A number of seconds, steps or milliseconds without its fraction."""

bits = int.bit_length
"""How many bits a number takes that is not negative."""

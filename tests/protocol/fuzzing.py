"""How many examples the properties take: modest by default, 20,000 in all with FUZZ=full."""

from __future__ import annotations

import os

from hypothesis import settings

FULL = os.environ.get("FUZZ") == "full"

few = settings(max_examples=60, deadline=None)
"""For round trips, whose examples differ little."""

many = settings(max_examples=4000 if FULL else 150, deadline=None)
"""For each of the five properties of total parsers: 20,000 in the full form."""

"""Pairs and their files."""

from __future__ import annotations

import pytest

from majordomus.net.broker.security import curve
from majordomus.security.certificates import Certificate


@pytest.fixture
def pair() -> Certificate:
    return curve.make({"name": "ann", "user": "ann"})

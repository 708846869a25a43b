"""The short form of `make sanitize`: mutated peers of a router and of a dealer."""

from __future__ import annotations

import pytest

pytest.importorskip("majordomus.net.zmtp.router", reason="our own ZMTP is for Linux alone")

from tests.net.zmtp import fuzz


def test_mutated_peers_do_no_harm_and_honest_ones_are_served() -> None:
    told = fuzz.run(connections=6000, seed=20261130)
    outcomes = told["outcomes"]
    assert outcomes["open"] > 1000
    assert outcomes["dealer open"] > 30
    for reason in ("malformed", "not-zmtp", "another-mechanism", "broken-off", "refused 400"):
        assert outcomes[reason] > 10, (reason, outcomes)

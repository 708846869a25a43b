"""What one request costs the rules, in instructions: a regression that no noise can hide."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from benchmarks import instructions

from majordomus.core.registry import RULES


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(not shutil.which("valgrind"), reason="valgrind is not here")
def test_request_costs_the_rules_no_more_instructions_than_its_bound(tmp_path: Path) -> None:
    most = instructions.bound()
    if most is None:
        pytest.skip(f"no bound is set for {instructions.kind()}")
    counted = instructions.per_request(tmp_path)
    print(f"{instructions.kind()}: {counted:,.0f} instructions a request, {most:,.0f} allowed")
    assert counted <= most * (1 + instructions.TOLERANCE), (
        f"{counted:,.0f} instructions a request; {most:,.0f} were enough before. "
        "See `make instructions`, or set a new bound in benchmarks/instructions.json and say why"
    )
    assert counted >= most * 0.8, f"only {counted:,.0f}: set the lower bound ({RULES})"

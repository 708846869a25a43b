"""The bytes of a call are as many as docs/bytes.md states."""

from __future__ import annotations

import json

import pytest
from benchmarks.bytes_on_wire import DIALECTS, OUTPUT, PAGE, dialect, table

MEASURED = json.loads(OUTPUT.read_text("utf-8"))["measured"]


def figures(measured: dict[str, dict[str, dict[str, float]]]) -> list[tuple[float, float]]:
    return [(leg["request"], leg["reply"]) for leg in measured["legs"].values()]


@pytest.mark.parametrize("name", DIALECTS)
def test_call_costs_as_many_bytes_as_were_measured(name: str) -> None:
    assert figures(dialect(name, calls=5)) == figures(MEASURED[name])


def test_page_shows_the_measured_table() -> None:
    assert table(MEASURED) in PAGE.read_text("utf-8")


def test_the_common_call_is_smaller_than_with_http_and_grpc() -> None:
    sides = {name: sum(figures(one)[0]) for name, one in MEASURED.items()}
    assert sides["mdp03"] < sides["gRPC"] < sides["HTTP/1.1 JSON"]

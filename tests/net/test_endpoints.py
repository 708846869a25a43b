"""Endpoints are checked when they are given, and the error shows a correct form."""

from __future__ import annotations

import pytest

from majordomus.errors import ConfigurationError
from majordomus.net import endpoints


@pytest.mark.parametrize(
    ("given", "bound"),
    [
        ("tcp://127.0.0.1:5555", ["tcp://127.0.0.1:5555"]),
        ("tcp://*:5555", ["tcp://*:5555"]),
        ("tcp://127.0.0.1:0", ["tcp://127.0.0.1:*"]),
        ("tcp://127.0.0.1:*", ["tcp://127.0.0.1:*"]),
        ("tcp://[::1]:5555", ["tcp://[::1]:5555"]),
        ("ipc:///run/x.sock", ["ipc:///run/x.sock"]),
        ("ipc://*", ["ipc://*"]),
        (["inproc://a", "tcp://h.example:1"], ["inproc://a", "tcp://h.example:1"]),
    ],
)
def test_endpoint_that_can_be_bound_is_normalised(given: str | list[str], bound: list[str]) -> None:
    assert endpoints.to_bind(given) == bound


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "localhost:5555",
        "http://localhost:5555",
        "tcp://localhost",
        "tcp://localhost:",
        "tcp://localhost:port",
        "tcp://localhost:65536",
        "tcp://local host:1",
        "tcp://::1:5555",
        "ipc://",
        "ipc://" + "x" * 108,
        "inproc://",
    ],
)
def test_invalid_endpoint_is_refused_and_named_in_the_error(wrong: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        endpoints.to_bind(wrong)
    assert repr(wrong) in str(raised.value)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("tcp://", "after tcp:// comes host:port"),
        ("ipc://", "after ipc:// comes a path or @name"),
        ("inproc://", "after inproc:// comes a name"),
        ("ipc:///run/a\nb", "it has characters that are not printable"),
        ("ipc:///run/a\0b", "it has characters that are not printable"),
        ("ipc:///run/\udcff", "it has characters that are not printable"),
        ("tcp://127.0.0.1:\uff15\uff15", "after tcp:// comes host:port"),
    ],
)
def test_reason_says_what_is_missing_or_not_allowed(wrong: str, why: str) -> None:
    for check in (endpoints.to_bind, endpoints.to_connect):
        with pytest.raises(ConfigurationError) as raised:
            check(wrong)
        assert str(raised.value) == f"{wrong!r} is no endpoint: {why}"


@pytest.mark.parametrize(
    "wildcard", ["tcp://*:5555", "tcp://localhost:*", "tcp://localhost:0", "ipc://*"]
)
def test_wildcard_cannot_be_connected_to(wildcard: str) -> None:
    with pytest.raises(ConfigurationError, match="not connected to"):
        endpoints.to_connect(wildcard)


def test_no_endpoint_at_all_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no endpoint given"):
        endpoints.to_connect([])


def test_endpoint_of_another_type_than_text_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="not bytes"):
        endpoints.to_connect([b"tcp://localhost:1"])  # type: ignore[list-item]


@pytest.mark.parametrize("given", [5, None, b"tcp://localhost:1"])
def test_value_that_is_neither_text_nor_a_list_is_refused_by_name(given: object) -> None:
    with pytest.raises(ConfigurationError, match=f"give an endpoint .*{type(given).__name__}"):
        endpoints.to_connect(given)  # type: ignore[arg-type]


def test_unknown_dialect_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(ConfigurationError, match="mdp01, mdp02, mdp02d, delphi, mdp03"):
        endpoints.dialect("mdp04")

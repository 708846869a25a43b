"""Files, variables and flags in rising order; errors name the key, the nearest and the place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from majordomus.cli.config import KEYS, PATHS, TYPES, BrokerConfig, broker_config
from majordomus.core.broker.settings import BrokerSettings
from majordomus.errors import ConfigurationError
from majordomus.net import endpoints


def config(
    toml: str = "",
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, str | None] | None = None,
    assignments: tuple[str, ...] = (),
    bind: tuple[str, ...] = (),
    *,
    folder: Path | None = None,
) -> BrokerConfig:
    file = None
    if folder is not None:
        file = folder / "broker.toml"
        file.write_text(toml, "utf-8")
    return broker_config(file, environ or {}, flags or {}, assignments, bind)


def complaint(**given: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        config(**given)  # type: ignore[arg-type]
    return str(caught.value)


def test_nothing_said_gives_the_defaults() -> None:
    assert config() == BrokerConfig([endpoints.DEFAULT], BrokerSettings())


def test_flag_beats_variable_and_variable_beats_file(tmp_path: Path) -> None:
    toml = "[broker]\nliveness = 5\nmax_queue = 10\nmax_attempts = 7\n"
    environ = {"MAJORDOMUS_LIVENESS": "6", "MAJORDOMUS_MAX_QUEUE": "20"}
    found = config(toml, environ, {"liveness": "8", "max_ttl": None}, folder=tmp_path).settings
    assert found == BrokerSettings(liveness=8, max_queue=20, max_attempts=7)


def test_set_beats_the_flag_of_the_same_setting_and_the_last_one_wins() -> None:
    found = config(flags={"liveness": "8"}, assignments=("liveness=9", "liveness=10"))
    assert found.settings == BrokerSettings(liveness=10)


def example_value(key: str) -> tuple[object, str, str]:
    """Another value than the default: in Python, as text, and in TOML."""
    value = getattr(BrokerSettings(), key)
    if TYPES[key] == dict[str, str]:
        return {"a.b": "sticky"}, '{ "a.b" = "sticky" }', '{ "a.b" = "sticky" }'
    if isinstance(value, bool):
        return not value, str(not value).lower(), str(not value).lower()
    if isinstance(value, float) and 0 < value < 1:  # a share
        return value / 2, str(value / 2), str(value / 2)
    if isinstance(value, int | float):
        other = value - 1 if key == "max_topic" else value + 1  # that one is at its bound
        return other, str(other), str(other)
    if isinstance(value, dict):
        return {"a.b": 2.5}, '{ "a.b" = 2.5 }', '{ "a.b" = 2.5 }'
    text = "10.0.0.0/8" if key == "exempt_addresses" else "reply"
    return text, text, f'"{text}"'


@pytest.mark.parametrize("key", [key for key in KEYS if key != "bind"])
def test_every_setting_can_be_set_in_a_file_in_a_variable_and_by_set(
    key: str, tmp_path: Path
) -> None:
    value, text, toml = example_value(key)
    expected = msgspec.structs.replace(BrokerSettings(), **{key: value})
    assert expected != BrokerSettings()
    of_file = {key: str(tmp_path / str(value))} if key in PATHS else {}  # relative to the file
    in_file = msgspec.structs.replace(expected, **of_file)
    assert config(f"[broker]\n{key} = {toml}\n", folder=tmp_path).settings == in_file
    assert config(environ={f"MAJORDOMUS_{key.upper()}": text}).settings == expected
    assert config(assignments=(f"{key}={text}",)).settings == expected


def test_bind_is_a_list_in_a_file_and_parted_by_commas_or_spaces_in_a_variable(
    tmp_path: Path,
) -> None:
    two = ["tcp://127.0.0.1:1", "ipc:///tmp/x"]
    toml = '[broker]\nbind = ["tcp://127.0.0.1:1", "ipc:///tmp/x"]\n'
    assert config(toml, folder=tmp_path).bind == two
    assert config('[broker]\nbind = "tcp://127.0.0.1:1"\n', folder=tmp_path).bind == two[:1]
    assert config(environ={"MAJORDOMUS_BIND": "tcp://127.0.0.1:1, ipc:///tmp/x"}).bind == two
    assert config(bind=tuple(two)).bind == two


@pytest.mark.parametrize("key", sorted(PATHS))
def test_relative_path_in_a_file_is_relative_to_that_file_and_every_other_as_it_is(
    key: str, tmp_path: Path
) -> None:
    (tmp_path / "etc").mkdir()

    def read(value: str) -> str:
        found = config(f'[broker]\n{key} = "{value}"\n', folder=tmp_path / "etc").settings
        return str(getattr(found, key))

    assert read("sub/one.file") == str(tmp_path / "etc/sub/one.file")
    assert read("../one.file") == str(tmp_path / "etc/../one.file")
    assert read("/etc/one.file") == "/etc/one.file"
    assert read("") == ""
    assert [read(word) for word in PATHS[key]] == list(PATHS[key])
    assert getattr(config(flags={key: "one.file"}).settings, key) == "one.file"
    assert getattr(config(environ={f"MAJORDOMUS_{key.upper()}": "x"}).settings, key) == "x"


def test_bind_flag_replaces_the_file_s_list(tmp_path: Path) -> None:
    toml = '[broker]\nbind = ["tcp://127.0.0.1:1"]\n'
    assert config(toml, bind=("ipc:///tmp/x",), folder=tmp_path).bind == ["ipc:///tmp/x"]


def test_unknown_key_in_a_file_is_named_with_the_nearest_and_the_file(tmp_path: Path) -> None:
    found = complaint(toml="[broker]\nmax_quue = 5\n", folder=tmp_path)
    file = tmp_path / "broker.toml"
    assert found == f"{file}: unknown setting 'max_quue' in [broker] (did you mean max_queue?)"


def test_unknown_table_in_a_file_is_named_with_the_nearest(tmp_path: Path) -> None:
    found = complaint(toml="[brokr]\n", folder=tmp_path)
    assert (
        found == f"{tmp_path / 'broker.toml'}: unknown table or key 'brokr' (did you mean broker?)"
    )


def test_unknown_variable_is_named_with_the_nearest() -> None:
    assert complaint(environ={"MAJORDOMUS_LIVENES": "3"}) == (
        "variable MAJORDOMUS_LIVENES: unknown setting (did you mean MAJORDOMUS_LIVENESS?)"
    )


def test_unknown_key_of_set_is_named_with_the_nearest() -> None:
    assert complaint(assignments=("defualt_ttl=3",)) == (
        "--set defualt_ttl=3: unknown setting 'defualt_ttl' (did you mean default_ttl?)"
    )


def test_key_that_resembles_nothing_is_named_alone() -> None:
    assert complaint(assignments=("zzz=3",)) == "--set zzz=3: unknown setting 'zzz'"


def test_set_without_a_value_is_refused() -> None:
    assert complaint(assignments=("liveness",)) == "--set liveness: expected key=value"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"environ": {"MAJORDOMUS_LIVENESS": "many"}},
            "variable MAJORDOMUS_LIVENESS: expected a whole number, not 'many'",
        ),
        (
            {"flags": {"max_ttl": "soon"}},
            "--max-ttl: expected a number, not 'soon'",
        ),
        (
            {"assignments": ("delphi_unverified=perhaps",)},
            "--set delphi_unverified: expected true or false, not 'perhaps'",
        ),
        (
            {"assignments": ("busy_timeouts=5",)},
            "--set busy_timeouts: expected a table such as { echo = 5 }, not '5'",
        ),
        (
            {"assignments": ("busy_timeouts={",)},
            "--set busy_timeouts: expected a table such as { echo = 5 }, not '{'",
        ),
        (
            {"flags": {"liveness": "-3"}},
            "--liveness: must be finite and not negative, not -3",
        ),
        (
            {"flags": {"max_ttl": "nan"}},
            "--max-ttl: must be finite and not negative, not nan",
        ),
        (
            {"flags": {"max_attempts": "0"}},
            "--max-attempts = 0 must be from 1 to 2147483647",
        ),
        (
            {"environ": {"MAJORDOMUS_MAX_ATTEMPTS": "0"}},
            "MAJORDOMUS_MAX_ATTEMPTS = 0 must be from 1 to 2147483647",
        ),
        (
            {"assignments": ("liveness=0",)},
            "--set liveness: liveness = 0 must be from 1 to 2147483647",
        ),
        (
            {"flags": {"legacy_errors": "loud"}},
            "--legacy-errors = 'loud' is not one of: silence, reply",
        ),
        (
            {"assignments": ("exempt_addresses=10.0.0.0/8 zzz",)},
            "--set exempt_addresses: 'zzz' does not appear to be an IPv4 or IPv6 network",
        ),
        (
            {"environ": {"MAJORDOMUS_EXEMPT_ADDRESSES": "z"}},
            "MAJORDOMUS_EXEMPT_ADDRESSES: 'z' does not appear to be an IPv4 or IPv6 network",
        ),
        (
            {"bind": ("localhost:5555",)},
            "--bind: 'localhost:5555' is no endpoint: it has to start with one of tcp://, ipc://, inproc://",
        ),
    ],
)
def test_wrong_value_is_named_with_its_place(given: dict[str, object], expected: str) -> None:
    assert complaint(**given) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('liveness = "3"', "liveness: expected a whole number, not '3'"),
        ("liveness = true", "liveness: expected a whole number, not True"),
        ("name = 3", "name: expected a text, not 3"),
        ("bind = 5555", "bind: expected a list of URLs, not 5555"),
        ("bind = []", "bind: no endpoint given; one looks like tcp://127.0.0.1:5555"),
        (
            "busy_timeouts = { a = 'x' }",
            "busy_timeouts: expected a table such as { echo = 5 }, not {'a': 'x'}",
        ),
        (
            "balancings = { a = 3 }",
            "balancings: expected a table such as { echo = \"sticky\" }, not {'a': 3}",
        ),
    ],
)
def test_wrong_type_in_a_file_is_named_with_the_file(
    line: str, expected: str, tmp_path: Path
) -> None:
    found = complaint(toml=f"[broker]\n{line}\n", folder=tmp_path)
    assert found == f"{tmp_path / 'broker.toml'}: {expected}"


def test_whole_number_in_a_file_serves_for_a_duration(tmp_path: Path) -> None:
    assert config("[broker]\nmax_ttl = 5\n", folder=tmp_path).settings == BrokerSettings(
        max_ttl=5.0
    )


def test_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.toml: No such file or directory"):
        broker_config(tmp_path / "nowhere.toml", {}, {})


def test_file_that_is_not_toml_is_named_with_the_line(tmp_path: Path) -> None:
    found = complaint(toml="[broker]\nliveness = = 3\n", folder=tmp_path)
    assert found.startswith(f"{tmp_path / 'broker.toml'}: Invalid value (at line 2")


def test_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "broker.toml"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="not UTF-8 text"):
        broker_config(file, {}, {})


def test_variables_of_a_container_platform_and_of_other_commands_are_left_alone() -> None:
    environ = {
        "MAJORDOMUS_PORT": "tcp://10.0.0.1:5555",
        "MAJORDOMUS_PORT_5555_TCP_ADDR": "10.0.0.1",
        "MAJORDOMUS_SERVICE_HOST": "10.0.0.1",
        "MAJORDOMUS_SERVICE_PORT_MDP": "5555",
        "MAJORDOMUS_BROKER": "tcp://10.0.0.1:5555",
        "MAJORDOMUS_CONFIG": "x",
        "MAJORDOMUS_WIRE": "pyzmq",
        "HOME": "/",
    }
    assert config(environ=environ) == BrokerConfig([endpoints.DEFAULT], BrokerSettings())

"""Tables, JSON and what may not reach a terminal."""

from __future__ import annotations

import ast
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import majordomus
from majordomus.cli import output
from majordomus.errors import ConfigurationError


def test_table_in_a_pipe_is_aligned_not_cut_and_has_no_spaces_at_its_ends(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.emit_table(["service", "queued"], [["echo", 3], ["x" * 300, 12]])
    wide = "x" * 300
    assert capsys.readouterr().out.splitlines() == [
        f"{'SERVICE':300}  QUEUED",
        f"{'echo':300}       3",
        f"{wide}      12",
    ]


def test_names_of_peers_are_shown_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit_table(["service"], [["\x1b[2J[bold]x\n"]])
    assert capsys.readouterr().out == "SERVICE\n\\x1b[2J[bold]x\\n\n"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        ("", "-"),
        ([], "-"),
        (True, "yes"),
        (0, "0"),
        (0.42, "0.42"),
        (["a", "b"], "a, b"),
        ({"a": 1}, "{'a': 1}"),
    ],
)
def test_cell_shows_a_value_of_any_kind(value: object, shown: str) -> None:
    assert output.cell(value) == shown


def test_records_of_another_version_are_shown_with_what_they_have(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.emit_records(
        [{"new": "n", "id": "1"}, "rubbish", {"id": "2"}], ["id", "gone"], "nothing"
    )
    assert capsys.readouterr() == ("ID  NEW\n1   n\n2   -\n", "")


def test_no_records_are_said_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit_records([], ["id"], "no workers")
    output.emit_records({"not": "a list"}, ["id"], "no workers")
    assert capsys.readouterr() == ("", "no workers\nno workers\n")


def test_json_of_a_frame_is_text_where_it_is_utf8() -> None:
    assert output.frame_json("grüß".encode()) == {"text": "grüß"}
    assert output.frame_json(b"\xff\x00") == {"base64": "/wA="}


def test_json_of_one_line_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit_json({"a": ["ü", 1]}, line=True)
    written = capsys.readouterr().out
    assert written.count("\n") == 1
    assert json.loads(written) == {"a": ["ü", 1]}


def test_complaint_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.complain("two\nlines\x07")
    assert capsys.readouterr() == ("", "two lines\\x07\n")


def record(message: str, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("majordomus.broker", logging.WARNING, "", 0, message, (), None)
    made.__dict__.update(extra)
    return made


def test_json_log_has_one_object_an_event_whose_fields_cannot_overrule_ours() -> None:
    told = {"peer": b"\x00a\n", "level": "x", "held": 3, "why": 'a "b"'}
    line = output.log_format("json").format(record("x", fact=("worker-lost", told)))
    assert "\n" not in line
    seen = json.loads(line)
    assert seen.pop("time").endswith("+00:00")
    assert seen == {
        "level": "warning",
        "logger": "majordomus.broker",
        "event": "worker-lost",
        "peer": "00610a",
        "held": 3,
        "why": 'a "b"',
    }


def test_traceback_in_a_log_has_no_control_characters() -> None:
    error = ValueError("\x1b]0;owned\x07 two\nlines")
    made = record("failed")
    made.exc_info = (ValueError, error, None)
    line = output.log_format("text").format(made)
    assert all(part.isprintable() for part in line.split("\n"))
    assert "ValueError: \\x1b]0;owned\\x07 two\nlines" in line


@pytest.mark.parametrize("style", ["text", "json"])
def test_log_line_is_one_line_and_obeys_nobody(style: str) -> None:
    line = output.log_format(style).format(record("a\nb\x1b[2J\u2028c"))
    assert line.isprintable()
    assert "a\\nb" in line


def test_bytes_of_a_peer_are_escaped_for_a_terminal_alone() -> None:
    data = b"line\n\ttab \x1b]0;title\x07 \xc2\x9b31m \xff \xe2\x82\xac\n"
    shown = b"line\n\ttab \\x1b]0;title\\x07 \\x9b31m \\xff \xe2\x82\xac\n"
    assert output.for_terminal(data) == shown


ARGUMENT = re.compile(r"(?<!\?)\b[a-z_]+=(?:…|True|\(user, password\))")
"""How a sentence of the library names an argument of Python beside a flag."""


def sentences() -> Iterator[str]:
    """The texts of the library that are longer than a word, those in f-strings included."""
    for path in Path(majordomus.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        docs = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(getattr(part, "value", "x")) for part in node.values)
            elif isinstance(node, ast.Constant) and id(node) not in docs:
                yield str(node.value)


def test_command_names_flags_alone_where_the_library_names_arguments_of_python_too() -> None:
    both = {text for text in sentences() if ARGUMENT.search(text) and "--" in text}
    assert len(both) >= 5
    assert [text for text in both if ARGUMENT.search(output.for_command_line(text))] == []
    shown = {output.for_command_line(text) for text in both}
    assert "give its public key (--server-key KEY, majordomus://host:port?key=…)" in shown


def test_levels_are_set_for_all_components_or_for_one() -> None:
    names = ("majordomus", "majordomus.broker")
    before = [logging.getLogger(name).level for name in names]
    try:
        output.log_to_stderr(False, levels=["error", "broker=debug"])
        assert [logging.getLogger(name).level for name in names] == [logging.ERROR, logging.DEBUG]
    finally:
        for name, level in zip(names, before, strict=True):
            logging.getLogger(name).setLevel(level)


@pytest.mark.parametrize("given", ["loud", "kitchen=debug", "broker=", "=", "broker=DEBUG"])
def test_level_that_there_is_not_is_an_error_that_lists_them(given: str) -> None:
    with pytest.raises(ConfigurationError, match="levels: debug, info"):
        output.log_to_stderr(False, levels=[given])

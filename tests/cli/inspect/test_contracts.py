"""`majordomus describe`, `diff`, `stubs`, `call --data` and profiles."""

from __future__ import annotations

import dataclasses
import enum
import importlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest

from majordomus import Broker, Client, Conflict, Worker
from majordomus.cli import run_command
from majordomus.messages import Record, uint32


class Kind(enum.Enum):
    NOTE = "note"
    TASK = "task"


class Inner(msgspec.Struct):
    x: int
    y: float | None = None


class Draft(msgspec.Struct):
    title: str
    kind: Kind = Kind.NOTE
    inner: Inner | None = None
    many: list[Inner] = []


class Note(msgspec.Struct):
    number: int
    draft: Draft


class Point(Record):
    x: Annotated[int, 1]
    names: Annotated[list[str], 4] = ()  # type: ignore[assignment]
    size: Annotated[uint32, 5] = 0
    counts: Annotated[dict[str, int], 6] = dataclasses.field(default_factory=dict)


worker = Worker()


@worker.service("notes.put", version="1.2", examples=[Draft("x")], errors=[(Conflict, Inner)])
def put(draft: Draft) -> Note:
    """Keep a note.

    It is kept for ever.
    """
    if draft.title == "twice":
        raise Conflict("it is there", detail=Inner(1))
    return Note(1, draft)


@worker.service("notes.move", idempotent=True, publishes={"points.moved": Point, "points.*": str})
def move(point: Point) -> Point:
    return Point(point.x + 1, point.names, point.size, point.counts)


@worker.service("notes.rows")
def rows(count: int) -> Iterator[Inner]:
    for number in range(count):
        yield Inner(number)


@worker.service("notes.upper")
def upper(text: str) -> str:
    return text.upper()


@worker.service("notes.total")
def total(points: Iterator[Inner]) -> int:
    return sum(point.x for point in points)


@worker.service("notes.each")
async def each(points: AsyncIterator[Point]) -> AsyncIterator[Inner]:
    """Answer each point with its x."""
    async for point in points:
        yield Inner(point.x)


@worker.service("notes.list")
def all_notes(titles: list[str]) -> list[Note]:
    return [Note(number, Draft(title)) for number, title in enumerate(titles)]


@worker.service("echo")
def echo(request):  # type: ignore[no-untyped-def]
    return request.body


HERE = f"{__name__}:worker"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with Broker(bind="tcp://127.0.0.1:*") as broker:
        worker.redirect(broker.endpoints[0])
        with worker:
            worker.wait_ready()
            yield broker.endpoints[0]


def run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """The output of a command; of a failed one, its error line."""
    done = run_command(list(arguments))
    captured = capsys.readouterr()
    assert done == code, captured.err
    return captured.err if code and not captured.out else captured.out


def test_describe_shows_request_reply_and_failures(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = run(capsys, "describe", "notes.put", "--broker", url)
    assert shown.splitlines() == [
        "notes.put (version 1.2)",
        "  Keep a note.",
        "  ",
        "  It is kept for ever.",
        "  request: Draft (application/msgpack, application/json)",
        "    inner: Inner or null, optional",
        "    kind: Kind, optional",
        "    many: list of Inner, optional",
        "    title: string",
        "  reply: Note (application/msgpack, application/json)",
        "    draft: Draft",
        "    number: integer",
        "  409: Conflict",
    ]


def test_describe_of_a_broker_equals_that_of_the_module(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    live = run(capsys, "describe", "--json", "--broker", url)
    assert live == run(capsys, "describe", "--json", "--from", HERE)
    assert sorted(json.loads(live)["services"]) == sorted(worker.handlers)


def test_describe_prints_proto_of_one_service(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "optional uint32 size = 5;" in run(
        capsys, "describe", "notes.move", "--proto", "--broker", url
    )
    assert "name it" in run(capsys, "describe", "--proto", "--from", HERE, code=2)
    assert "no protobuf message" in run(
        capsys, "describe", "echo", "--proto", "--from", HERE, code=1
    )


def test_describe_of_an_unknown_service_is_one_line(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "describe", "no", "--broker", url, code=1) == (
        "majordomus describe: 404 no worker serves 'no'\n"
    )


@pytest.mark.parametrize(
    ("service", "data", "printed"),
    [
        (
            "notes.put",
            '{"title": "milk"}',
            '{"number":1,"draft":{"title":"milk","kind":"note","inner":null,"many":[]}}\n',
        ),
        ("notes.upper", '"milk"', '"MILK"\n'),
        ("notes.rows", "2", '{"x":0,"y":null}\n{"x":1,"y":null}\n'),
        ("echo", '"bytes"', '"bytes"\n'),
    ],
)
def test_call_encodes_and_decodes_json_by_the_contract(
    url: str, capsys: pytest.CaptureFixture[str], service: str, data: str, printed: str
) -> None:
    assert run(capsys, "call", service, "--data", data, "--broker", url) == printed


def test_call_sends_a_record_in_protocol_buffers(
    url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "body.json"
    path.write_text('{"x": 4, "names": ["a"], "counts": {"b": 2}}', "utf-8")
    shown = run(capsys, "call", "notes.move", "-d", f"@{path}", "--broker", url)
    assert json.loads(shown) == {"x": "5", "names": ["a"], "size": 0, "counts": {"b": "2"}}


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("notes.put", "--data", "{"), 2, "--data is no JSON"),
        (("notes.put", "--data", '{"title": 5}'), 1, "Expected `str`, got `int` - at `$.title`"),
        (("notes.move", "--data", '{"z": 5}'), 1, "no field named"),
        (("notes.upper", "--data", "5"), 1, "the body is text"),
        (("notes.put", "body", "--data", "5"), 2, "not both"),
        (("notes.put", "--data", "@/no/such"), 2, "No such file"),
        (("no.such", "--data", "5"), 1, "no worker serves 'no.such'"),
    ],
)
def test_wrong_data_is_one_line(
    url: str, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, text: str
) -> None:
    shown = run(capsys, "call", *arguments, "--broker", url, code=code)
    assert text in shown
    assert shown.count("\n") == 1


# -- stubs


def test_folder_in_which_stubs_cannot_be_written_is_named_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "below"
    shown = run(capsys, "stubs", "--out", str(out), "--from", HERE, code=2)
    assert shown == f"majordomus stubs: --out {out}: cannot write there: Not a directory\n"


def test_stubs_of_a_live_broker_call_it(
    url: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "made_stubs"
    run(capsys, "stubs", "--out", str(out), "--broker", url)
    first = {path.name: path.read_text("utf-8") for path in out.iterdir()}
    run(capsys, "stubs", "--out", str(out), "--from", HERE)
    assert {path.name: path.read_text("utf-8") for path in out.iterdir()} == first
    assert sorted(first) == ["notes.py", "services.py"]
    for command in (("format", "--check"), ("check", "--select", "E,F,W,I,UP")):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--isolated", str(out)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
    monkeypatch.syspath_prepend(str(tmp_path))
    notes: Any = importlib.import_module("made_stubs.notes")
    with Client(url) as client:
        made = notes.connect(client)
        reply = made.put(notes.Draft(title="milk", inner=notes.Inner(x=2)))
        assert reply == notes.Note(
            number=1, draft=notes.Draft(title="milk", inner=notes.Inner(x=2))
        )
        moved = made.move(notes.Point(x=4, counts={"a": 1}))
        assert (moved.x, moved.counts) == (5, {"a": 1})
        assert [row.x for row in made.rows(3)] == [0, 1, 2]
        assert made.upper("a") == "A"
        assert [note.draft.title for note in made.list(["a", "b"])] == ["a", "b"]
        assert made.total(notes.Inner(x=n) for n in range(100)) == 4950
        with made.each() as talk:
            talk.send(notes.Point(x=7))
            assert next(talk).x == 7
            talk.finish()
            assert list(talk) == []
        with pytest.raises(Conflict) as caught:
            made.put(notes.Draft(title="twice"))
        assert caught.value.detail == {"x": 1, "y": None}


# -- diff


def test_diff_of_equal_catalogs_is_empty(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    old = tmp_path / "old.json"
    old.write_text(run(capsys, "describe", "--json", "--from", HERE), "utf-8")
    assert run(capsys, "diff", str(old), HERE) == ""


def test_diff_ends_with_1_for_a_breaking_change(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    text = run(capsys, "describe", "--json", "--from", HERE)
    old.write_text(text, "utf-8")
    value = json.loads(text)
    value["services"]["notes.put"]["request"]["schema"]["required"].append("kind")
    value["services"]["notes.put"]["version"] = "2"
    del value["services"]["echo"]
    new.write_text(json.dumps(value), "utf-8")
    shown = run(capsys, "diff", str(old), str(new), code=1).splitlines()
    assert shown == [
        "breaking: echo: the service was removed",
        "breaking: notes.put: request.kind: is required",
        "compatible: notes.put: version: '1.2' became '2'",
    ]
    [first, *_] = json.loads(run(capsys, "diff", "--json", str(old), str(new), code=1))
    assert first["breaking"] is True
    assert "compatible: echo: the service is new" in run(capsys, "diff", str(new), str(old))


def test_module_that_ends_the_process_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "ends_the_process.py").write_text("raise SystemExit(3)\n", "utf-8")
    text = run(capsys, "describe", "--from", "ends_the_process:x", code=2)
    assert "ends_the_process cannot be imported: SystemExit: 3 (" in text
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is no catalog"),
        ("{}", "it has no services"),
        ('{"services": {"a": {"contract": 9}}}', "version 9"),
    ],
)
def test_file_that_is_no_catalog_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, reason: str
) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text, "utf-8")
    assert reason in run(capsys, "diff", str(path), str(path), code=2)
    assert "No such file" in run(capsys, "diff", str(tmp_path / "none"), str(path), code=2)
    assert "is no Worker" in run(capsys, "diff", "json:dumps", str(path), code=2)


# -- profiles and completion


def test_profile_names_a_broker(
    url: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MAJORDOMUS_PROFILES", str(tmp_path / "deep" / "profiles.toml"))
    monkeypatch.delenv("MAJORDOMUS_BROKER", raising=False)
    run(capsys, "profile", "add", "test", "--broker", url)
    run(capsys, "profile", "add", "other", "--broker", "tcp://127.0.0.1:1", "--key", "k")
    assert "notes.put" in run(capsys, "describe", "notes.put", "--profile", "test")
    assert run(capsys, "call", "echo", "x", "--profile", "test") == "x"
    assert "other" in run(capsys, "profile", "list")
    assert (tmp_path / "deep/profiles.toml").stat().st_mode & 0o77 == 0
    run(capsys, "profile", "remove", "other")
    assert "there is test" in run(capsys, "services", "--profile", "other", code=2)
    assert "letters" in run(capsys, "profile", "add", "a b", "--broker", url, code=2)
    (tmp_path / "deep/profiles.toml").write_text("[x]\nbad = 1\n", "utf-8")
    assert "and nothing else" in run(capsys, "services", "--profile", "x", code=2)


def test_services_and_fields_are_completed_from_the_broker(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.shell_completion import ShellComplete

    from majordomus.cli import COMPLETE, PROGRAM, majordomus

    completion = ShellComplete(majordomus, {}, PROGRAM, COMPLETE)
    monkeypatch.setenv("MAJORDOMUS_BROKER", url)
    offered = completion.get_completions(["call"], "notes.")
    assert [one.value for one in offered] == [
        "notes.each",
        "notes.list",
        "notes.move",
        "notes.put",
        "notes.rows",
        "notes.total",
        "notes.upper",
    ]
    offered = completion.get_completions(["call", "notes.put", "--data"], "")
    assert [one.value for one in offered] == ['{"title": }']
    monkeypatch.setenv("MAJORDOMUS_BROKER", "tcp://127.0.0.1:1")
    assert completion.get_completions(["call"], "notes.") == []


def test_change_of_a_reply_is_told_from_the_old_type_to_the_new_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    text = run(capsys, "describe", "--json", "--from", HERE)
    old.write_text(text, "utf-8")
    value = json.loads(text)
    schema = value["services"]["notes.put"]["reply"]["schema"]
    shape = schema["$defs"]["Note"] if "$ref" in schema else schema
    shape["properties"]["number"] = {"type": "string"}
    new.write_text(json.dumps(value), "utf-8")
    shown = run(capsys, "diff", str(old), str(new), code=1)
    assert "breaking: notes.put: reply.number: integer became string" in shown

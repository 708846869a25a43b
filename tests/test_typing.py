"""Every program of the pages and of examples/ passes pyright and mypy.

A page is one module, as tests/docs_runner.py runs it; a page whose blocks have file names is a
folder of modules. Pyright comes from npm (tests/typing); without it its test skips and says so.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from majordomus.contracts import catalog, stubs
from tests.cli.inspect.test_contracts import worker
from tests.cli.test_readme import BLOCK, NAMED, SAVED
from tests.docs_runner import FENCE

ROOT = Path(__file__).parents[1]
PYRIGHT = ROOT / "tests/typing/node_modules/pyright/index.js"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHOWS_THE_CORE = {"architecture"}
"""Pages whose blocks show declarations, and no program."""
PUBLIC = """
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Protocol, assert_type

import msgspec

from majordomus import AsyncClient, Client, Reply, Request
from majordomus.messages import Record


class Note(Record):
    text: Annotated[str, 1]


def handler(request: Request, note: Note, client: Client) -> None:
    reply = client.call("notes.put", note)
    assert_type(reply.frames, list[bytes])
    assert_type(reply.body, bytes)
    assert_type(request.frames, list[bytes])
    assert_type(Note.from_bytes(note.to_bytes()), Note)
    assert_type(note.text, str)


class Draft(msgspec.Struct):
    title: str


class Notes(Protocol):
    def put(self, draft: Draft) -> Note: ...
    def rows(self, count: int) -> Iterator[Note]: ...


class AsyncNotes(Protocol):
    async def put(self, draft: Draft) -> Note: ...
    def rows(self, count: int) -> AsyncIterator[Note]: ...


def typed(client: Client) -> None:
    assert_type(client.call("notes.put", Draft("x"), returns=Note), Note)
    assert_type(client.call("notes.put", Draft("x")), Reply)
    for row in client.stream("notes.rows", of=Note):
        assert_type(row, Note)
    with client.open("notes.each", of=Note) as talk:
        assert_type(next(talk), Note)
    notes = client.service(Notes)
    assert_type(notes, Notes)
    assert_type(notes.put(Draft("x")), Note)
    for event in client.subscribe("notes.*", of=Note):
        assert_type(event, Note)


async def typed_async(client: AsyncClient) -> None:
    assert_type(await client.call("notes.put", Draft("x"), returns=Note), Note)
    notes = client.service(AsyncNotes)
    assert_type(await notes.put(Draft("x")), Note)
    async for row in notes.rows(3):
        assert_type(row, Note)
    async for event in await client.subscribe("notes.*", of=Note):
        assert_type(event, Note)
"""
"""What both checkers have to know of the public API."""
CALLER = """
from typing import assert_type

from majordomus import AsyncClient, AsyncServiceConversation, Client, ServiceConversation
from stubs import notes


def call(client: Client) -> None:
    made = notes.connect(client)
    assert_type(made.put(notes.Draft(title="x")), notes.Note)
    assert_type(made.total([notes.Inner(x=1)], timeout=5), int)
    assert_type(made.each(), ServiceConversation[notes.Point, notes.Inner])
    with made.each() as talk:
        talk.send(notes.Point(x=1))
        assert_type(next(talk), notes.Inner)
    for row in made.rows(3):
        assert_type(row, notes.Inner)


async def call_async(client: AsyncClient) -> None:
    made = notes.connect_async(client)
    assert_type(await made.put(notes.Draft(title="x")), notes.Note)
    assert_type(made.each(), AsyncServiceConversation[notes.Point, notes.Inner])
    async with made.each() as talk:
        await talk.send(notes.Point(x=1))
        assert_type(await anext(talk), notes.Inner)
        async for part in talk:
            assert_type(part, notes.Inner)
"""
"""A program with the stubs of the worker of tests/cli/inspect/test_contracts.py."""


def programs(page: Path) -> dict[str, str]:
    """Name → text of the modules of a page."""
    text = page.read_text("utf-8")
    named: dict[str, str] = {}
    for language, block, after in BLOCK.findall(text):
        name = NAMED.match(block) or SAVED.match(after)
        if language == "python" and name:
            named[name[1]] = block
    if named:
        return named
    lines, language = [], ""
    for line in text.splitlines():
        fence = FENCE.match(line)
        if fence:
            language = "" if language else fence[1] or "text"
        lines.append(line if language == "python" and not fence else "")
    source = "\n".join(lines)
    return {"page.py": source} if source.strip() else {}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sub-folder for each page and each example."""
    made = tmp_path_factory.mktemp("programs")
    for page in PAGES:
        if page.stem in SHOWS_THE_CORE:
            continue
        for name, text in programs(page).items():
            (made / module(page.stem)).mkdir(exist_ok=True)
            (made / module(page.stem) / name).write_text(text, "utf-8")
    for example in (ROOT / "examples").iterdir():
        shutil.copytree(example, made / "examples" / module(example.name))
    (made / "public").mkdir()
    (made / "public/api.py").write_text(PUBLIC, "utf-8")
    (made / "stubs").mkdir()
    for name, text in stubs.modules(catalog.of_handlers(worker.handlers)).items():
        (made / f"stubs/{name}.py").write_text(text, "utf-8")
    (made / "stubs/caller.py").write_text(CALLER, "utf-8")
    return made


def module(name: str) -> str:
    """A folder's name that mypy takes for a package."""
    return name.replace("-", "_")


def test_every_block_of_a_page_is_checked(folder: Path) -> None:
    for page in PAGES:
        blocks = re.findall(r"^```python$", page.read_text("utf-8"), re.MULTILINE)
        assert not blocks or page.stem in SHOWS_THE_CORE or (folder / module(page.stem)).is_dir()


@pytest.mark.skipif(not PYRIGHT.exists(), reason="pyright is not here: npm ci in tests/typing")
def test_pyright_finds_nothing_in_pages_and_examples(folder: Path) -> None:
    config = {"include": ["."], "extraPaths": [str(ROOT / "src")], "typeCheckingMode": "standard"}
    (folder / "pyrightconfig.json").write_text(json.dumps(config), "utf-8")
    done = subprocess.run(
        ["node", str(PYRIGHT), "--outputjson", "--pythonpath", sys.executable],
        cwd=folder,
        capture_output=True,
        timeout=110,
        check=False,
    )
    found = json.loads(done.stdout)
    assert found["summary"]["filesAnalyzed"] > 20
    assert [
        f"{Path(one['file']).relative_to(folder)}:{one['range']['start']['line'] + 1}: "
        f"{one['message']}"
        for one in found["generalDiagnostics"]
        if one["severity"] == "error"
    ] == []


def test_mypy_finds_nothing_in_pages_and_examples(folder: Path) -> None:
    """Strictly, and without an exemption. Files of one page import each other by their names alone:
    such a page is a run of its own."""
    folders = sorted({path.parent for path in folder.rglob("*.py")})
    alone = [page for page in folders if imports_its_neighbours(page)]
    together = [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*.py"))
        if path.parent not in alone
    ]
    assert len(together) > 20
    assert mypy(folder, folder, *together) == []
    assert [line for page in alone for line in mypy(folder, page, ".")] == []


def imports_its_neighbours(page: Path) -> bool:
    files = list(page.glob("*.py"))
    names = "|".join(path.stem for path in files)
    found = re.compile(rf"^(from|import) ({names})\b", re.MULTILINE)
    return any(found.search(path.read_text("utf-8")) for path in files)


def mypy(folder: Path, inside: Path, *files: str) -> list[str]:
    """The errors that mypy finds. All runs share one cache."""
    cache = f"--cache-dir={folder / '.mypy_cache'}"
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--explicit-package-bases", cache, *files],
        cwd=inside,
        env=os.environ | {"MYPYPATH": f"{inside}:{ROOT / 'src'}"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.stderr == ""
    return [line for line in done.stdout.splitlines() if " error: " in line]

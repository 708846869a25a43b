"""The pages of docs/ say what the code says."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import msgspec

from majordomus.cli import COMMANDS
from majordomus.cli.run.broker import FLAGS
from majordomus.core.broker.settings import BrokerSettings
from tests.cli.shell import LIMIT, SOURCE, Shell

DOCS = SOURCE.parent / "docs"
PAGES = sorted(DOCS.glob("*.md"))


def page(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def test_generated_parts_are_up_to_date(shell: Shell) -> None:
    done = subprocess.run(
        [sys.executable, str(DOCS / "generate.py"), "--check"],
        env=shell.environment,
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b""), "run docs/generate.py"


def test_every_setting_has_its_row_and_no_other_has() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .+ \| .+ \| (.+) \|$", page("settings.md"), re.MULTILINE)
    fields = [field.name for field in msgspec.structs.fields(BrokerSettings)]
    assert [name for name, _ in rows] == fields
    assert all(what.strip() for _, what in rows)


def test_every_flag_is_a_setting() -> None:
    assert set(FLAGS) <= set(BrokerSettings.__struct_fields__)


def test_every_command_has_its_section() -> None:
    sections = re.findall(r"^## majordomus (\w+)$", page("commands.md"), re.MULTILINE)
    assert sections == list(COMMANDS)


def test_example_file_of_the_settings_page_is_one(shell: Shell) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", page("settings.md"), re.DOTALL)
    assert tomllib.loads(text)["broker"]["max_queue"] == 20000
    shell.write(
        "b.toml", text.replace("tcp://127.0.0.1:5555", "tcp://127.0.0.1:0").replace("/tmp", ".")
    )
    broker = shell.start("broker", "--config", "b.toml")
    assert broker.out.next().startswith("listening on tcp://")
    assert broker.out.next() == "listening on ipc://./majordomus.sock"
    assert broker.stop() == 0


def test_navigation_names_every_page_that_there_is() -> None:
    navigation = (DOCS.parent / "mkdocs.yml").read_text("utf-8").partition("\nnav:\n")[2]
    named = re.findall(r"- (\S+\.md)$", navigation, re.MULTILINE)
    pages = [*PAGES, *(DOCS / "spec").glob("*.md"), DOCS / "adr/index.md"]
    assert sorted(named) == sorted(str(path.relative_to(DOCS)) for path in pages)


def test_links_between_the_pages_lead_somewhere() -> None:
    assert len(PAGES) >= 5
    for path in PAGES:
        links = re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text("utf-8"))
        assert [link for link in links if not (DOCS / link).exists()] == [], path.name

"""Pages whose examples are whole programs: their files are written, their commands typed."""

from __future__ import annotations

import re

import pytest

from tests.cli.shell import SOURCE
from tests.cli.test_readme import Terminal, play, terminal

__all__ = ["terminal"]

DOCS = SOURCE.parent / "docs"


@pytest.mark.parametrize(
    ("page", "commands"), [("getting-started", 8), ("pools", 4), ("proxies", 7)]
)
def test_every_file_and_command_of_the_page_does_what_it_says(
    terminal: Terminal,
    page: str,
    commands: int,
) -> None:
    assert play((DOCS / f"{page}.md").read_text("utf-8"), terminal) == commands


RUN_ELSEWHERE = {
    "balancing": "net/test_docs.py",
    "certificates": "security/test_certificates_page.py",
    "cloudlog": "contrib/test_docs.py",
    "contracts": "testing/test_docs.py",
    "conversations": "net/client/test_conversations.py",
    "czmq": "messages/test_docs.py",
    "durable": "net/test_docs.py",
    "events": "net/client/test_events.py",
    "hooks": "net/broker/test_hooks_docs.py",
    "many": "net/test_docs.py",
    "messages": "messages/test_docs.py",
    "middleware": "net/broker/test_hooks_docs.py",
    "records": "messages/test_docs.py",
    "rights": "security/test_docs.py",
    "security": "security/test_security_page.py",
    "services": "testing/test_docs.py",
    "testing": "testing/test_docs.py",
    "tokens": "security/test_docs.py",
    "watching": "net/test_docs.py",
}
"""Page → the test file that runs it as one program."""
NO_PROGRAM = {"architecture"}
"""Pages whose blocks show declarations of the core."""


def test_every_page_with_programs_is_run_by_a_test() -> None:
    tests = SOURCE.parent / "tests"
    here = {"getting-started", "pools", "proxies"}
    shown = {
        path.stem
        for path in DOCS.glob("*.md")
        if re.search(r"^```(python|console)$", path.read_text("utf-8"), re.MULTILINE)
    }
    assert shown == here | set(RUN_ELSEWHERE) | NO_PROGRAM
    for page, test in RUN_ELSEWHERE.items():
        assert page in (tests / test).read_text("utf-8"), f"{test} does not run {page}"

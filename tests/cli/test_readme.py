"""The README is true: its files are written, its commands run in an empty folder and compared.

A `python` block is a file: its name is in the first line, or in a "Saved as `name`" after it. In a
`console` block the lines with `$` are typed in order, one that ends with `&` goes on in the
background, and the lines below are what it prints. Numbers may differ, and so may the width of
columns; port 5555 becomes a free one. Only set-up is not done again here.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from majordomus.cli import COMMANDS
from tests.cli.shell import LIMIT, SOURCE, Running, clean_environment

ROOT = SOURCE.parent
README = (ROOT / "README.md").read_text("utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```\n+(?=(.*?)$)", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"# (\S+\.py)\n")
SAVED = re.compile(r"Save(?:d| this) as `(\S+)`")
FIXED = re.compile(r"127\.0\.0\.1:(\d{4})\b")
SET_UP = re.compile(r"make |python3 -m venv |\. \.venv/bin/activate|pip install ")


class Typed(NamedTuple):
    """One command of a console block and what the README says that it prints."""

    command: str
    prints: list[str]

    @property
    def background(self) -> bool:
        return self.command.endswith("&")


def files(page: str = README) -> dict[str, str]:
    """Name → text of every file that the page shows."""
    found: dict[str, str] = {}
    for language, text, after in BLOCK.findall(page):
        if language == "python":
            name = NAMED.match(text) or SAVED.match(after)
            assert name, f"this block has no name: {text}"
            found[name[1]] = text
    return found


def typed(page: str = README) -> list[Typed]:
    """Every command of the page, in order."""
    commands: list[Typed] = []
    for language, text, _ in BLOCK.findall(page):
        if language == "console":
            for line in text.splitlines():
                if line.startswith("$ "):
                    commands.append(Typed(line[2:], []))
                else:
                    commands[-1].prints.append(line)
    return commands


def same(lines: list[str]) -> list[str]:
    """Lines without what may differ from one machine to the next."""
    return [" ".join(re.sub(r"\d+(\.\d+)?", "N", line).split()) for line in lines]


class Terminal:
    """An empty folder, and a bash for each command; `python` is the one under test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.ports = {"5555": self.port}
        programs = folder / "programs"
        programs.mkdir()
        for name, run in (("python", ""), ("majordomus", " -m majordomus.cli")):
            program = programs / name
            program.write_text(f'#!/bin/sh\nexec {sys.executable}{run} "$@"\n')
            program.chmod(0o755)
        environment = clean_environment()
        self.environment = environment | {
            "PATH": f"{programs}:{environment['PATH']}",
            # The commands' own default is port 5555 too.
            "MAJORDOMUS_BIND": f"tcp://127.0.0.1:{self.port}",
            "MAJORDOMUS_BROKER": f"tcp://127.0.0.1:{self.port}",
        }
        self.running: list[Running] = []

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(self.moved(text), "utf-8")

    def moved(self, text: str) -> str:
        return FIXED.sub(lambda found: f"127.0.0.1:{self.free(found[1])}", text)

    def free(self, port: str) -> int:
        """The port that stands for one of the page's."""
        return self.ports.setdefault(port, free_port())

    def run(self, command: str) -> list[str]:
        done = subprocess.run(
            ["bash", "-c", self.moved(command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            env=self.environment,
            timeout=LIMIT,
            check=False,
        )
        return done.stdout.decode().splitlines()

    def start(self, command: str, lines: int) -> list[str]:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {self.moved(command.removesuffix('&'))}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.folder,
            env=self.environment,
        )
        self.running.append(Running(process))
        return [self.running[-1].out.next() for _ in range(lines)]

    def end(self) -> list[int]:
        codes = [running.stop() for running in self.running]
        for running in self.running:
            running.end()
        return codes


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    made = Terminal(tmp_path)
    yield made
    for running in made.running:
        running.end()


def test_every_file_and_command_of_the_readme_does_what_the_readme_says(terminal: Terminal) -> None:
    assert play(README, terminal) >= 10


def play(page: str, terminal: Terminal) -> int:
    """Writes the page's files, types its commands, compares; returns how many there were."""
    for name, text in files(page).items():
        terminal.write(name, text)
    commands = [one for one in typed(page) if not SET_UP.match(one.command)]
    for one in commands:
        if one.background:
            printed = terminal.start(one.command, len(one.prints))
        else:
            printed = terminal.run(one.command)
        if one.prints:
            assert same(printed) == same(one.prints), one.command
    assert not any(terminal.end()), "something that ran in the background did not end well"
    return len(commands)


def test_worker_and_client_of_the_readme_have_fifteen_lines_at_most() -> None:
    first, second = list(files().values())[:2]
    lines = [line for line in (first + second).splitlines() if line.strip()]
    assert "@worker.service" in first
    assert "client.call" in second
    assert len(lines) <= 15


def test_make_targets_of_the_readme_exist() -> None:
    targets = set(re.findall(r"`?make (\w+)", README))
    assert targets == {"demo", "test", "wheel"}
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_readme_names_every_command_in_the_order_of_the_help() -> None:
    listed = re.search(r"^(`broker`.*?) are described in", README, re.MULTILINE | re.DOTALL)
    assert listed is not None
    assert re.findall(r"`(\w+)`", listed[1]) == list(COMMANDS)


def test_links_of_the_readme_and_of_contributing_lead_somewhere() -> None:
    for page in (README, (ROOT / "CONTRIBUTING.md").read_text("utf-8")):
        links = re.findall(r"\]\((?!http)([^)#]+)\)", page)
        assert links
        assert [link for link in links if not (ROOT / link).exists()] == []

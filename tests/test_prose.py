"""Everything that a person reads is plain technical English (CONTRIBUTING.md, "Words").

What is read: README.md, the pages PAGES, the help of every command, and the error texts of `src`.
An error text is each string literal (an f-string with `…` for its values) inside a call that is
raised, or inside a call of `complain`.

How it is judged:

* Length. A sentence ends at `.`, `?`, `!`, `;` or `:` before a space, or at the end of a paragraph,
  list item or table cell. Code in backticks counts as one word, a code block is not read. Help and
  errors have no sentence over 30 words. A page has at most 2 % of them.
* Riddles. RIDDLE finds a relative word as a subject without an antecedent: `who`, `whoever`,
  `what`, `whatever`, `nobody`, `somebody`, `anybody`, `everybody`, `that which`, `those
  that`, at the start of a clause (start of a sentence, after a comma, or after a word such as "and"
  or "for"). A question may begin with one: a sentence that ends with `?` is not read for riddles.
  A clause after a verb ("shows what each module does") has its antecedent in the verb and passes.
* Metaphors. METAPHOR lists words for which the field has a term, with their inflections.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest

import majordomus
from majordomus.cli import COMMANDS
from majordomus.cli import majordomus as group

SOURCE = Path(majordomus.__file__).parent
ROOT = Path(__file__).parent.parent
PAGES = (
    "README.md",
    "docs/architecture.md",
    "docs/getting-started.md",
    "docs/glossary.md",
    "docs/rules.md",
)
MOST_WORDS = 30
SHARE = 0.02

SUBJECT = r"(?:who|whoever|what|whatever|nobody|somebody|anybody|everybody|that which|those that)"
RIDDLE = re.compile(
    rf"(?:^|[,;:(—–-] |\b(?:and|or|but|for|to|of|from|by|with|against|because|than|as|is|are) )"
    rf"({SUBJECT})\b",
    re.IGNORECASE,
)
METAPHOR = re.compile(
    r"\b(doors?|gates?|fences?|rooms?|houses?|crowds?|hears?|heard|tells?|told|speaks?|spoke|spoken"
    r"|judges?|judged|wish|wishes|wished|patience|sits? down|stands? up|gives? way|goodbye|anew"
    r"|friends?|strangers?|lives? in|goes on its way)\b",
    re.IGNORECASE,
)
CODE = re.compile(r"`+[^`]+`+")
LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
END = re.compile(r"(?<=[.?!;:])[\"')*]*\s+")


class Sentence(NamedTuple):
    where: str
    text: str

    @property
    def words(self) -> int:
        return len(re.findall(r"[^\W_](?:[\w'’./-]*\w)?|…", self.text))

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


def sentences(where: str, paragraph: str) -> Iterator[Sentence]:
    text = LINK.sub(r"\1", CODE.sub("CODE", paragraph))
    text = re.sub(r"[*]{1,2}(\S[^*]*)[*]{1,2}", r"\1", " ".join(text.split()))
    yield from (Sentence(where, part) for part in END.split(text) if part.strip())


def of_page(name: str, text: str) -> Iterator[Sentence]:
    """The sentences of a Markdown page: paragraphs, headings, list items and table cells."""
    paragraph: list[str] = []
    in_code = False
    for line in [*text.splitlines(), ""]:
        fence = line.lstrip().startswith("```")
        begins = not line.strip() or fence or re.match(r"\s*([-*#|]|\d+\. )", line)
        if paragraph and (begins or in_code):
            yield from sentences(name, " ".join(paragraph))
            paragraph = []
        if fence:
            in_code = not in_code
        elif in_code or line.startswith("<!--"):
            continue
        elif line.startswith("|"):
            for cell in line.strip("|").split("|"):
                if cell.strip(" -"):
                    yield from sentences(name, cell)
        elif line.strip():
            paragraph.append(re.sub(r"^\s*(#+|[-*]|\d+\.) ", "", line))


def of_help() -> Iterator[Sentence]:
    """The help of every command, of its subcommands and of all options."""
    root = click.Context(group, info_name="majordomus")
    yield from sentences("majordomus", group.help or "")
    for name in COMMANDS:
        command = group.get_command(root, name)
        assert command is not None
        commands = [command]
        if isinstance(command, click.Group):
            commands += command.commands.values()
        for one in commands:
            yield from _help_of(f"majordomus {name}", one)
        yield from sentences(f"majordomus {name}", COMMANDS[name])


def _help_of(where: str, command: click.Command) -> Iterator[Sentence]:
    for paragraph in (command.help or "").split("\n\n"):
        if not paragraph.startswith("\b"):
            yield from sentences(where, paragraph)
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            yield from sentences(f"{where} {parameter.opts[0]}", parameter.help or "")


def of_errors(file: str, text: str) -> Iterator[Sentence]:
    """The error texts of a module."""
    for node in ast.walk(ast.parse(text)):
        raised = isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
        printed = isinstance(node, ast.Call) and ast.unparse(node.func).endswith("complain")
        call = node.exc if isinstance(node, ast.Raise) else node
        if not (raised or printed) or not isinstance(call, ast.Call):
            continue
        for argument in [*call.args, *(keyword.value for keyword in call.keywords)]:
            for literal in _literals(argument):
                if " " in literal:
                    yield from sentences(f"{file}:{call.lineno}", literal)


def _literals(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values)
    elif isinstance(node, ast.IfExp):
        yield from _literals(node.body)
        yield from _literals(node.orelse)
    elif isinstance(node, ast.BinOp):
        yield " ".join([*_literals(node.left), *_literals(node.right)])


def all_errors() -> Iterator[Sentence]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield from of_errors(path.relative_to(SOURCE).as_posix(), path.read_text("utf-8"))


def long(found: list[Sentence]) -> list[str]:
    return [f"{one.words} words: {one}" for one in found if one.words > MOST_WORDS]


def unclear(found: list[Sentence]) -> list[str]:
    """Sentences with a riddle or a metaphor, each with the word."""
    wrong = []
    for one in found:
        riddle = None if one.text.rstrip().endswith("?") else RIDDLE.search(one.text)
        if word := riddle or METAPHOR.search(one.text):
            wrong.append(f"{word[1]!r} in {one}")
    return wrong


def page(name: str) -> list[Sentence]:
    return list(of_page(name, (ROOT / name).read_text("utf-8")))


@pytest.mark.parametrize("name", PAGES)
def test_at_most_two_percent_of_a_page_s_sentences_are_long(name: str) -> None:
    found = page(name)
    assert len(found) > 30
    assert len(long(found)) <= SHARE * len(found), long(found)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_no_riddle_and_no_metaphor(name: str) -> None:
    assert unclear(page(name)) == []


def test_no_sentence_of_help_is_long() -> None:
    found = list(of_help())
    assert len(found) > 150
    assert long(found) == []


def test_help_has_no_riddle_and_no_metaphor() -> None:
    assert unclear(list(of_help())) == []


def test_no_error_text_is_long() -> None:
    found = list(all_errors())
    assert len(found) > 200
    assert long(found) == []


def test_error_texts_have_no_riddle_and_no_metaphor() -> None:
    assert unclear(list(all_errors())) == []


@pytest.mark.parametrize(
    "bad",
    [
        "Whoever can reach an endpoint can use it.",
        "What is beyond a limit is refused.",
        "The outcome is sent to the client, and who asks gets it.",
        "Nobody serves this.",
        "Against those that take without asking.",
        "That which comes is counted.",
        "The broker, who may connect, waits.",
        "The machine hears a message.",
        "The caller is told the status.",
        "A strategy judges the workers.",
        "The rooms of the broker machine.",
        "It has the patience of a door.",
    ],
)
def test_a_seeded_bad_sentence_is_found(bad: str) -> None:
    assert unclear(list(sentences("seed", bad)))


@pytest.mark.parametrize(
    "good",
    [
        "The page shows what each module does.",
        "A client that is lost is forgotten.",
        "Where is a worker's silence detected?",
        "Who may connect?",
        "Workers whose connection ended are lost.",
        "A worker, whose connection ended, is lost.",
        "Use `nobody tells` as a name.",
    ],
)
def test_a_plain_sentence_passes(good: str) -> None:
    assert unclear(list(sentences("seed", good))) == []


def test_a_seeded_long_sentence_is_found_in_each_kind_of_text() -> None:
    words = " ".join(["word"] * (MOST_WORDS + 1))
    assert long(list(of_page("seed", f"# Title\n\n- {words}.\n\n| a | {words} |\n")))[1:]
    assert long(list(of_errors("seed", f"def f():\n    raise ValueError(f'{words}')")))
    assert long(list(of_errors("seed", f"complain('{words}')")))
    assert long(list(_help_of("seed", click.Command("seed", help=words))))
    assert not long(list(of_page("seed", f"```\n{words}\n```\n")))

"""Names of topics and patterns: their tokens, which names are valid, what a pattern matches.

docs/spec/mdp-0.3.md is the page. The rule is the same for the broker's tree of subscriptions and
for the receivers of a client or a worker.
"""

from __future__ import annotations

import sys
from typing import Final

ONE: Final = b"*"
"""The token that stands for any one token."""
REST: Final = b">"
"""The last token of a pattern: one or more tokens."""
SEPARATOR: Final = b"."


def agrees(pattern: bytes, topic: bytes) -> bool:
    """Whether `pattern` matches `topic`, by the rule of the tree."""
    wanted, tokens = pattern.split(SEPARATOR), topic.split(SEPARATOR)
    if wanted[-1] == REST:
        wanted.pop()
        if len(tokens) <= len(wanted):
            return False
        tokens = tokens[: len(wanted)]
    return len(wanted) == len(tokens) and all(
        want in (ONE, token) for want, token in zip(wanted, tokens, strict=True)
    )


def name_problem(
    name: bytes, longest: int, deepest: int, *, pattern: bool, wildest: int = sys.maxsize
) -> str:
    """Return what is wrong with a topic or a pattern; empty when it is valid. `longest` is a number
    of bytes, `deepest` of tokens, `wildest` of tokens `*`."""
    what = "pattern" if pattern else "topic"
    if not name:
        return f"a {what} needs a name"
    if len(name) > longest:
        return f"a {what} has at most {longest} bytes"
    if not name.isascii():
        try:
            name.decode()
        except UnicodeDecodeError:
            return f"a {what} must be UTF-8"
    tokens = name.split(SEPARATOR)
    if len(tokens) > deepest:
        return f"a {what} has at most {deepest} tokens"
    if b"" in tokens:
        return f"a {what} has no empty token: its tokens are parted by single dots"
    if ONE not in name and REST not in name:
        return ""
    if not pattern:
        return "an event has one topic: '*' and '>' are for patterns"
    if REST in tokens[:-1]:
        return "'>' stands for the rest: it is the last token of a pattern"
    if any(len(token) > 1 and (ONE in token or REST in token) for token in tokens):
        return "'*' and '>' stand for whole tokens"
    if tokens.count(ONE) > wildest:
        return f"a pattern has at most {wildest} tokens '*'"
    return ""

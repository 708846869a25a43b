"""Subscriptions by pattern: a tree of tokens, walked token by token.

Finding the subscribers of a topic costs by its own tokens and by the patterns that match them,
however many other patterns there are. Every `*` of a pattern may double the nodes that are walked,
also where nothing matches in the end; so `name_problem` bounds the `*` of one pattern. With three
a topic of 16 tokens leads to 3,212 nodes at most. A pattern without subscribers leaves no node
behind.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Generic, TypeVar

from majordomus.core.broker.state.access_rules import full_name, shown_name
from majordomus.protocol.topics import ONE, REST, SEPARATOR

S = TypeVar("S")


class _Node(Generic[S]):
    """The patterns that begin with the tokens on the path to this node.

    parent, token: the node before it, and the token that leads here.
    children: the nodes after it, by token.
    here: the subscribers of exactly these tokens.
    """

    __slots__ = ("children", "here", "parent", "token")

    def __init__(self, parent: _Node[S] | None, token: bytes) -> None:
        self.parent = parent
        self.token = token
        self.children: dict[bytes, _Node[S]] = {}
        self.here: dict[S, None] = {}


class Topics(Generic[S]):
    """Subscribers by pattern. Subscribers are keys of dictionaries; `len` counts pairs of a pattern
    and a subscriber. Names must have passed
    `protocol.topics.name_problem`."""

    __slots__ = ("_nodes", "_pairs", "_root")

    def __init__(self) -> None:
        self._root: _Node[S] = _Node(None, b"")
        self._nodes = 0
        self._pairs = 0

    def __len__(self) -> int:
        return self._pairs

    @property
    def nodes(self) -> int:
        """The number of nodes, the root not counted."""
        return self._nodes

    def add(self, pattern: bytes, subscriber: S) -> bool:
        """Subscribe. False when `subscriber` had this pattern already."""
        node = self._root
        for token in pattern.split(SEPARATOR):
            child = node.children.get(token)
            if child is None:
                child = node.children[token] = _Node(node, token)
                self._nodes += 1
            node = child
        if subscriber in node.here:
            return False
        node.here[subscriber] = None
        self._pairs += 1
        return True

    def remove(self, pattern: bytes, subscriber: S) -> bool:
        """Unsubscribe. False when `subscriber` did not have this pattern."""
        node = self._root
        for token in pattern.split(SEPARATOR):
            child = node.children.get(token)
            if child is None:
                return False
            node = child
        if subscriber not in node.here:
            return False
        del node.here[subscriber]
        self._pairs -= 1
        while node.parent is not None and not node.here and not node.children:
            del node.parent.children[node.token]
            self._nodes -= 1
            node = node.parent
        return True

    def match(self, topic: bytes) -> Collection[S]:
        """Return the subscribers of `topic`: each once, however many of its patterns match. The
        result is valid until the next `add` or `remove`."""
        found: list[dict[S, None]] = []
        level = [self._root]
        for token in topic.split(SEPARATOR):
            below: list[_Node[S]] = []
            for node in level:
                children = node.children
                rest = children.get(REST)
                if rest is not None:
                    found.append(rest.here)
                for name in (token, ONE):
                    child = children.get(name)
                    if child is not None:
                        below.append(child)
            if not below:
                break
            level = below
        else:
            found.extend(node.here for node in level)
        if len(found) == 1:
            return found[0]
        once: dict[S, None] = {}
        for subscribers in found:
            once.update(subscribers)
        return once

    def pairs(self) -> Iterator[tuple[bytes, S]]:
        """Yield every pattern with each of its subscribers. For tests and tools: it walks the whole
        tree."""
        waiting = [(b"", child) for child in self._root.children.values()]
        while waiting:
            before, node = waiting.pop()
            pattern = before + node.token
            for subscriber in node.here:
                yield pattern, subscriber
            waiting.extend((pattern + SEPARATOR, child) for child in node.children.values())


def full_topic(prefix: bytes, called: bytes) -> bytes:
    """Return the full topic or pattern that a tenant calls `called`. A prefix is whole tokens."""
    return full_name(topic_prefix(prefix), called)


def shown_topic(prefix: bytes, topic: bytes) -> bytes:
    """Return a tenant's name of the full `topic`."""
    return shown_name(topic_prefix(prefix), topic)


def topic_prefix(prefix: bytes) -> bytes:
    """Return `prefix` as a prefix of topics: with a dot at its end."""
    return prefix if not prefix or prefix.endswith(SEPARATOR) else prefix + SEPARATOR

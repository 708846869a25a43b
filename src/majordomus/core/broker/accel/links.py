"""Changes the links and entries of rings and lists, in place.

The compiled rules call the functions of the same names in links.pxd instead
(docs/adr/0008-compiled-rules.md).
"""

from __future__ import annotations

from operator import setitem
from typing import Protocol, Self, TypeVar


class Linked(Protocol):
    """A node of a doubly linked ring, or its head."""

    before: Self
    after: Self


R = TypeVar("R", bound="Listed")


class Listed(Protocol):
    """A request with its neighbours in the list of those that hold a slot of its worker."""

    older: Self | None
    newer: Self | None


class Holder(Protocol[R]):
    """A worker with the ends of that list."""

    oldest: R | None
    newest: R | None
    holding: int


def move_before(node: Linked, other: Linked) -> None:
    """Take `node` out of the ring that it is in, and put it into the one of `other`, right before
    that."""
    before, after = node.before, node.after
    before.after = after
    after.before = before
    before = other.before
    node.before = before
    node.after = other
    before.after = node
    other.before = node


def hold(worker: Holder[R], request: R) -> None:
    """`request`, which is in no list, takes a slot of `worker`."""
    newest = request.older = worker.newest
    if newest is None:
        worker.oldest = request
    else:
        newest.newer = request
    worker.newest = request
    worker.holding += 1


def let_go(worker: Holder[R], request: R) -> None:
    """`request` gives its slot back to `worker`."""
    older, newer = request.older, request.newer
    if older is None:
        worker.oldest = newer
    else:
        older.newer = newer
        request.older = None
    if newer is None:
        worker.newest = older
    else:
        newer.older = older
        request.newer = None
    worker.holding -= 1


replace = setitem
"""``replace(ring, at, request)``: `request` takes entry `at` of `ring`, a list whose size is a
power of two. Entries are replaced in turn. Compiled, this asks memory for the requests that are
freed soon and for what then loses a reference: it is in no cache any more."""

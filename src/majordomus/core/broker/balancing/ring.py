"""The nodes of a ring of workers: a doubly linked list whose head is a node without a worker.

Moving a node (accel/links.py) costs O(1) and makes no object. This is a data structure; which ring
a worker belongs to is decided by the strategy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from majordomus.core.broker.accel import prefetch_hints as hints

if TYPE_CHECKING:
    from majordomus.core.broker.state.workers import RegisteredWorker


class RingNode:
    """A worker's node in a ring, or the head of a ring.

    owner: the strategy whose ring it is.
    worker: the worker; None in the head of a ring.
    level: the number of the ring, by what its workers hold; −1 before the first ring.
    listed: of a head: whether its level is in the strategy's heap.
    before, after: the neighbours; the node itself where it is alone.
    """

    __slots__ = ("after", "before", "level", "listed", "owner", "worker")

    def __init__(self, owner: object, worker: RegisteredWorker | None, level: int) -> None:
        self.owner = owner
        self.worker = worker
        self.level = level
        self.listed = False
        self.before: RingNode = self
        self.after: RingNode = self

    def unlink(self) -> None:
        """Leave the ring."""
        self.before.after = self.after
        self.after.before = self.before
        self.before = self.after = self

    def look_ahead(self, workers: int) -> None:
        """Ask memory for the next two workers after this one, in a ring of many `workers`.

        Each call does one step for each of them, so that every step finds what the call before it
        has fetched.
        """
        if workers <= hints.RING:
            return
        node = self.after
        if node.worker is not None:
            hints.node_peer(node)
            hints.node_id(node)
            node = node.after
        if node.worker is not None:
            hints.node_worker(node)
            hints.node_after(node)

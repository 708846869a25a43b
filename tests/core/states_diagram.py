"""Mermaid diagrams of the tables in core/broker/state/transitions.py.

``python -m tests.core.states_diagram`` rewrites what stands between the ``states`` marks of
docs/states.md and docs/durable.md; test_transitions.py holds them up to date.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path

from majordomus.core.broker.state import transitions as states

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "states.md"
PAGES = (PAGE, DOCS / "durable.md")
MARKED = re.compile(r"(<!-- states: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)

Table = Mapping[str, Mapping[IntEnum, IntEnum]]
TABLES: dict[str, tuple[Table, IntEnum]] = {
    "request": (states.REQUEST, states.HELD),
    "durable": (states.DURABLE, states.STORING),
    "worker": (states.WORKER, states.SERVING),
    "peer": (states.PEER, states.SEEN),
}
"""Each table, and the state in which its noun begins."""


def diagram(table: Table, first: IntEnum) -> str:
    """One table as a Mermaid state diagram: events between the same two states share an arrow."""
    arrows: dict[tuple[IntEnum, IntEnum], list[str]] = {}
    for event, pairs in table.items():
        for before, after in pairs.items():
            arrows.setdefault((before, after), []).append(event)
    ends = {after for _, after in arrows} - {before for before, _ in arrows}
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {first.name}"]
    lines += [
        f"    {before.name} --> {after.name}: {', '.join(events)}"
        for (before, after), events in sorted(arrows.items())
    ]
    lines += [f"    {end.name} --> [*]" for end in sorted(ends)]
    return "\n".join([*lines, "```", ""])


def generated(page: str) -> str:
    """`page` with every marked part written anew."""
    return MARKED.sub(lambda mark: mark[1] + diagram(*TABLES[mark[2]]) + mark[4], page)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(generated(page.read_text("utf-8")), "utf-8")

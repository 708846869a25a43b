"""A bar chart as SVG, in no more than it takes."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import NamedTuple

BAR, GAP, LABELS, WIDTH, TEXT = 18, 6, 250, 760, 110
COLOURS = {"ours": "#2f6f4f", "theirs": "#9aa5b1"}


class Bar(NamedTuple):
    label: str
    value: float
    low: float
    high: float
    ours: bool


class Group(NamedTuple):
    title: str
    bars: list[Bar]


def write(path: Path, title: str, unit: str, groups: list[Group], note: str = "") -> None:
    """Bars from 0, a whisker from quartile to quartile; each group has its own scale."""
    lines: list[str] = []
    y = 30
    for group in groups:
        y += 26
        lines.append(f'<text x="10" y="{y}" class="group">{escape(group.title)}</text>')
        most = max((bar.high for bar in group.bars), default=1.0) or 1.0
        for bar in group.bars:
            y += BAR + GAP
            lines += _bar(bar, y, (WIDTH - LABELS - TEXT) / most, unit)
    height = y + 36
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title, quote=True)}">'
    )
    style = (
        "<style>text{font:13px system-ui,sans-serif;fill:#1f2933}"
        ".title{font-weight:600;font-size:15px}.group{font-weight:600}"
        ".note{font-size:11px;fill:#616e7c}</style>"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "\n".join(
            (
                head,
                style,
                f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
                f'<text x="10" y="22" class="title">{escape(title)}</text>',
                *lines,
                f'<text x="10" y="{height - 10}" class="note">{escape(note)}</text>',
                "</svg>\n",
            )
        )
    )


def _bar(bar: Bar, y: int, scale: float, unit: str) -> list[str]:
    fill = f'fill="{COLOURS["ours" if bar.ours else "theirs"]}"'
    end, middle = LABELS + bar.value * scale, y + BAR / 2
    low, high = LABELS + bar.low * scale, LABELS + bar.high * scale
    return [
        f'<text x="{LABELS - 8}" y="{y + 14}" text-anchor="end">{escape(bar.label)}</text>',
        f'<rect x="{LABELS}" y="{y}" width="{max(1.0, end - LABELS):.1f}" height="{BAR}" {fill}/>',
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}" stroke="#1f2933"/>',
        f'<text x="{max(end, high) + 6:.1f}" y="{y + 14}">{bar.value:,.4g} {escape(unit)}</text>',
    ]

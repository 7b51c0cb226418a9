"""Two plots as SVG, legible on light and on dark: bars, and lines over a logarithmic axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from math import log10

COLOURS = {"c": "#8a8f98", "stoker": "#d9541e", "peer": "#3b7dd8"}
PALETTE = ("#8a8f98", "#d9541e", "#3b7dd8", "#2e9e5b", "#a259c4", "#c99a06", "#d6336c", "#12a5a5", "#7a5c3e", "#5c7cfa",
           "#e8590c", "#66a80f", "#495057", "#f06595")  # fmt: skip
STYLE = (
    "<style>text{font:13px system-ui,sans-serif;fill:#222}.grid{stroke:#8884}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}}</style>"
)


def wrapped(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    inner = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">'
        f'\n{STYLE}\n<text x="8" y="20" font-weight="bold">{escape(title)}</text>\n{inner}\n</svg>\n'
    )


def bars(title: str, values: Sequence[tuple[str, str, float]], shown: Callable[[float], str]) -> str:
    """Bars from (name, family, value), their length by the logarithm: values lie from 1 to 50."""
    if not values:
        return wrapped(760, 40, f"{title}: not measured", [])
    low = min(value for _, _, value in values) / 1.3
    span = max(log10(max(value for _, _, value in values) / low), 0.01)
    parts = []
    for number, (name, family, value) in enumerate(values):
        y, width = 34 + 22 * number, 430 * log10(value / low) / span
        parts.append(f'<text x="228" y="{y + 13}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect x="236" y="{y}" width="{width:.1f}" height="17" rx="2" fill="{COLOURS[family]}"/>')
        parts.append(f'<text x="{242 + width:.1f}" y="{y + 13}">{escape(shown(value))}</text>')
    return wrapped(760, 44 + 22 * len(values), f"{title} (logarithmic)", parts)


def lines(title: str, series: dict[str, dict[int, float]], shown: Callable[[float], str]) -> str:
    """Lines over the number of connections; both axes are logarithmic."""
    points = [(x, y) for line in series.values() for x, y in line.items()]
    if not points:
        return wrapped(760, 40, f"{title}: not measured", [])
    left, right = log10(min(x for x, _ in points)), log10(max(x for x, _ in points)) + 0.01
    low, high = log10(min(y for _, y in points)), log10(max(y for _, y in points)) + 0.01

    def at(x: float, y: float) -> tuple[float, float]:
        return 70 + 480 * (log10(x) - left) / (right - left), 390 - 340 * (log10(y) - low) / (high - low)

    parts = []
    for x in sorted({x for x, _ in points}):
        parts.append(f'<text x="{at(x, 10**low)[0]:.1f}" y="412" text-anchor="middle">{x:,}</text>')
    for step in range(5):
        value = 10 ** (low + (high - low) * step / 4)
        y = at(1, value)[1]
        parts.append(f'<line class="grid" x1="70" x2="550" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="64" y="{y + 4:.1f}" text-anchor="end">{escape(shown(value))}</text>')
    for number, (name, line) in enumerate(series.items()):
        colour = PALETTE[number % len(PALETTE)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in line.items()))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<rect x="566" y="{44 + 20 * number}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="584" y="{55 + 20 * number}">{escape(name)}</text>')
    return wrapped(760, 424, title, parts)

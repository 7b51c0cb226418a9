"""From runs to figures: costs, ratios to the baseline of the same round, medians and spreads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

Document = dict[str, Any]


def cost(run: Document) -> float:
    """Server CPU seconds for a request."""
    return float(run["cpu"]) / int(run["requests"])


def good(runs: list[Document], candidate: str) -> list[Document]:
    """The measurements of a candidate that count: answered, and without an error."""
    return [run for run in runs if run["candidate"] == candidate and not run["errors"] and run["requests"]]


def costs(workload: Document, candidate: str) -> dict[int, float]:
    """By round; where a round has more than one (the baseline's), their mean."""
    rounds: dict[int, list[float]] = {}
    for run in good(workload["runs"], candidate):
        rounds.setdefault(run["round"], []).append(cost(run))
    return {number: mean(values) for number, values in rounds.items()}


def ratios(workload: Document, candidate: str, base: str = "") -> dict[int, float]:
    """Cost by round, as a multiple of the baseline's in the same round."""
    below = costs(workload, base or workload["base"])
    return {number: value / below[number] for number, value in costs(workload, candidate).items() if below.get(number)}


@dataclass(frozen=True)
class Row:
    """A candidate in a workload: medians over the rounds. Times in seconds, memory in bytes.

    :ivar wrong: why it has no figures; then they are all 0
    """

    name: str
    wrong: str = ""
    ratio: float = 0.0
    low: float = 0.0
    high: float = 0.0
    cost: float = 0.0
    rate: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    p999: float = 0.0
    voluntary: float = 0.0
    involuntary: float = 0.0
    rss: float = 0.0
    pss: float = 0.0
    bound: bool = False
    notes: str = ""


def row(workload: Document, name: str) -> Row:
    """The figures of one candidate."""
    check = workload["checks"].get(name, {"wrong": "not checked", "notes": []})
    notes = ", ".join(check["notes"])
    if check["wrong"]:
        return Row(name, f"wrong: {check['wrong']}", notes=notes)
    runs = good(workload["runs"], name)
    if not runs:
        failed = [run for run in workload["runs"] if run["candidate"] == name]
        kinds = ", ".join(f"{count} × {kind}" for kind, count in failed[0]["errors"].items()) if failed else ""
        said = f"failed under load: {kinds}: {failed[0]['first_error']}" if failed else "not measured"
        return Row(name, said, notes=notes)

    def middle(value: Callable[[Document], float]) -> float:
        return median(value(run) for run in runs)

    multiples = list(ratios(workload, name).values()) or [0.0]
    return Row(
        name, "", median(multiples), min(multiples), max(multiples), middle(cost),
        middle(lambda run: run["requests"] / run["seconds"]), middle(lambda run: run["latency"]["p50"]),
        middle(lambda run: run["latency"]["p99"]), middle(lambda run: run["latency"]["p99.9"]),
        middle(lambda run: run["voluntary"] / run["requests"]), middle(lambda run: run["involuntary"] / run["requests"]),
        middle(lambda run: run["rss"]), middle(lambda run: run["pss"]), any(run["bound"] for run in runs), notes,
    )  # fmt: skip


def rows(workload: Document) -> list[Row]:
    """All candidates, the cheapest first, those without figures last."""
    found = [row(workload, name) for name in workload["checks"]]
    return sorted(found, key=lambda one: (bool(one.wrong), one.ratio or one.cost))


def growth(workload: Document) -> dict[str, dict[int, float]]:
    """Cost of a request by the number of connections, for each candidate."""
    found: dict[str, dict[int, float]] = {}
    for name in workload["checks"]:
        points: dict[int, list[float]] = {}
        for run in good(workload["runs"], name):
            points.setdefault(run["connections"], []).append(cost(run))
        if points:
            found[name] = {count: median(values) for count, values in sorted(points.items())}
    return found


def added(workload: Document, name: str) -> float | None:
    """Cost of a request beside idle connections, as a multiple of what it was on the same server before them."""
    runs = [run for run in good(workload["runs"], name) if run["alone"]]
    return median(cost(run) / run["alone"] for run in runs) if runs else None


def idle_bytes(workload: Document, name: str) -> float | None:
    """Resident bytes of an idle connection."""
    runs = good(workload["runs"], name)
    return median(run["idle_bytes"] for run in runs) if runs else None

"""Renders docs/results.md from the result files in docs/results/: `python docs/results.py`."""

import json
from pathlib import Path
from typing import Any

from stoker.cli.documents import code, table

HERE = Path(__file__).resolve().parent
MADE = "<!-- Made by `python docs/results.py` from docs/results/*.json: do not edit. -->"

INTRODUCTION = """\
What the long tests recorded, on the machine and at the commit that each file names. `./scripts/test --long` runs them
all and writes docs/results/long.json; with a path behind it, only those tests. Times of other machines will differ;
what must hold everywhere is asserted by the tests themselves."""

SPEEDS = {"seconds", "requests_a_second"}  # of this machine at that minute: they compare with nothing


def configuration(name: str) -> str:
    """What stands in brackets behind a test's name."""
    return name.partition("[")[2].rstrip("]")


def section(path: Path) -> str:
    """One result file as a heading, its machine, and a table for each test."""
    document = json.loads(path.read_text("utf-8"))
    machine = ", ".join(f"{name} {value}" for name, value in document["machine"].items())
    parts = [f"## {path.name}", f"{machine}."]
    groups: dict[str, dict[str, Any]] = {}
    for test, figures in document["tests"].items():
        groups.setdefault(test.partition("[")[0], {})[configuration(test)] = figures
    for test, runs in sorted(groups.items()):
        names = list(dict.fromkeys(name for figures in runs.values() for name in figures if name not in SPEEDS))
        rows = [(which or "-", *(str(runs[which].get(name, "-")) for name in names)) for which in sorted(runs)]
        parts += [f"### {code(test)}", "\n".join(table(("configuration", *names), rows)).rstrip()]
    return "\n\n".join(parts)


def documents() -> dict[Path, str]:
    """The files that are made, and what belongs in them."""
    files = sorted(path for path in (HERE / "results").glob("*.json") if path.name != "performance.json")
    sections = [section(path) for path in files]
    return {HERE / "results.md": "\n\n".join(["# Results of the long tests", MADE, INTRODUCTION, *sections]) + "\n"}


if __name__ == "__main__":
    for path, text in documents().items():
        path.write_text(text, "utf-8")

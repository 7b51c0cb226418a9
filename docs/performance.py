"""Renders docs/performance.md and its plots from docs/results/performance.json: `python docs/performance.py`."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # the package benchmarks is not installed


def documents() -> dict[Path, str]:
    """The files that are made, and what belongs in them."""
    from benchmarks import render

    return render.documents(HERE)


if __name__ == "__main__":
    for path, text in documents().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")

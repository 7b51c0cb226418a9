"""`python -m benchmarks`: what ./scripts/bench runs."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import render
from benchmarks.candidates import ROOT, candidates
from benchmarks.measure import Run, begin, progress
from benchmarks.workloads import BY_NAME

RESULTS = ROOT / "benchmarks" / "results"
PUBLISHED = ROOT / "docs" / "results" / "performance.json"


def options() -> argparse.Namespace:
    made = argparse.ArgumentParser(prog="./scripts/bench", description="Measure Stoker beside other servers and C.")
    made.add_argument("--quick", action="store_true", help="two rounds, half as long: about 3 minutes")
    made.add_argument("--only", action="append", choices=list(BY_NAME), help="only this workload; repeatable")
    made.add_argument("--candidates", metavar="A,B", help="only these; the baseline is always there")
    made.add_argument("--list", action="store_true", help="list the candidates, and why some cannot run here")
    made.add_argument("--rounds", type=int, metavar="N", help="at most so many rounds a workload (default: 5)")
    made.add_argument("--seconds", type=float, default=1.0, metavar="X", help="measure X times as long (default: 1)")
    made.add_argument(
        "--minutes",
        type=float,
        metavar="M",
        help="after so long each workload left gets one round (default: 9; quick 2)",
    )
    made.add_argument("--output", type=Path, metavar="FILE", help="default: benchmarks/results/DATE.json")
    made.add_argument("--publish", action="store_true", help="also docs/results/performance.json, and render from it")
    found = made.parse_args()
    if found.rounds is not None and found.rounds < 1:
        made.error(f"--rounds {found.rounds}: it must be 1 or more")
    if not 0.1 <= found.seconds <= 100:
        made.error(f"--seconds {found.seconds}: it must be from 0.1 to 100")
    return found


def chosen(names: str | None) -> dict[str, Any]:
    """The candidates that were named. Exits where one is not known."""
    known = candidates()
    if not names:
        return known
    wanted = [name.strip() for name in names.split(",")]
    if strange := [name for name in wanted if name not in known]:
        sys.exit(f"bench: --candidates: no candidate is called {strange[0]!r}; ./scripts/bench --list lists them")
    return {name: one for name, one in known.items() if name in wanted or name in ("C epoll", "C epoll echo")}


def main() -> int:
    given = options()
    those = chosen(given.candidates)
    if given.list:
        for one in those.values():
            print(f"{one.name}: {one.missing or 'ready'}")
        return 0
    rounds = given.rounds or (2 if given.quick else 5)
    scale = given.seconds * (0.5 if given.quick else 1)
    minutes = given.minutes or (2 if given.quick else 9)
    document = begin(those, {"rounds": rounds, "scale": scale, "minutes": minutes, "quick": given.quick})
    for one in those.values():
        if one.missing:
            progress(f"{one.name} is left out: {one.missing}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was measured is kept then too
    started = time.monotonic()
    run = Run(document, those.values(), progress, started + 60 * minutes, rounds=rounds, scale=scale)
    try:
        for name in given.only or BY_NAME:
            run.workload(BY_NAME[name])
    except KeyboardInterrupt:
        progress("interrupted: what was measured is kept")
        document["interrupted"] = True
    document["took"] = round(time.monotonic() - started)
    output = given.output or RESULTS / f"{document['date'][:19].replace(':', '')}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(render.text(document))
    page = output.with_suffix(".html")
    page.write_text(render.page(document), "utf-8")
    progress(f"{document['took']} s; results in {output}, page in {page}")
    if given.publish:
        shutil.copy(output, PUBLISHED)
        for path, text in render.documents(ROOT / "docs").items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        progress(f"rendered docs/performance.md from {PUBLISHED}")
    return 130 if document.get("interrupted") else 0


if __name__ == "__main__":
    sys.exit(main())

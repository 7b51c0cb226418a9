"""`stoker engines`: the table of engines, from their registry; with -v also what copy-on-write shares, measured."""

import argparse
import gc
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict

from stoker import cli, engines
from stoker.cli.arguments import Parser
from stoker.config import Config
from stoker.errors import BootError, ConfigError

EXAMPLES = """\
examples:
  stoker engines
  stoker engines -v               also fork a child and measure what it shares with its parent
  stoker engines -v myapp:app     the same with an application in memory, as a worker has it
  stoker engines --json           the table as one JSON document
"""
UNIT = 1 << 20


def run(words: Sequence[str]) -> int:
    """Print the table; return the exit status."""
    parser = Parser(
        prog="stoker engines",
        description="Show the engines: how a connection waits, and what that costs.",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="fork a child and measure what copy-on-write shares"
    )
    parser.add_argument("app", nargs="?", metavar="APP", help="with -v: import this application before measuring")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse(words, argparse.Namespace())
    if options.app is not None and not options.verbose:
        raise ConfigError("an application is only imported to be measured: stoker engines -v APP")
    rows = table()
    shared = copy_on_write(options.app) if options.verbose else None
    if options.json:
        cli.say(json.dumps({"engines": rows} | ({"copy_on_write": shared} if shared else {})))
        return 0
    cli.say("\n".join(lines(rows, options.verbose)))
    cli.say("connections: what a worker holds by default; descriptors: its limit of descriptors less 64")
    if shared:
        cli.say("\n" + sharing(shared))
    return 0


def table() -> list[dict[str, object]]:
    """What the registry knows of each engine, and why it cannot run here ("" where it can)."""
    return [asdict(info) | {"unavailable": engines.unavailable(name)} for name, info in engines.REGISTRY.items()]


COLUMNS = ("engine", "how it waits", "what is kept", "an application that blocks", "connections", "here")


def cells(row: dict[str, object]) -> tuple[str, ...]:
    """The line of one engine in the table."""
    return (
        str(row["name"]),
        str(row["waits"]),
        str(row["suspended"]),
        "may, in place" if row["blocking_ok"] else "needs --threads",
        f"{row['cap']:,}" if isinstance(row["cap"], int) else "descriptors",
        "no" if row["unavailable"] else "yes",
    )


def lines(rows: list[dict[str, object]], verbose: bool) -> list[str]:
    """The table; what an engine costs and why it cannot run here stand below its line."""
    grid = [COLUMNS, *(cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in grid) for column in range(len(COLUMNS))]
    written = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in grid]
    shown = written[:1]
    for row, line in zip(rows, written[1:], strict=True):
        shown.append(line)
        below = [str(row["unavailable"])] if row["unavailable"] else []
        if verbose:
            below += [str(row["costs"]), f"--threads N {'has an effect' if row['pooled'] else 'has no effect'}"]
            below += ["raw handlers may spawn and join"] if row["spawns"] else []
        shown += [f"{'':<{widths[0]}}  {text}" for text in below]
    return shown


def sharing(shared: dict[str, dict[str, int]]) -> str:
    """What was measured, in words."""
    said = ["what copy-on-write shares: a forked child of a worker, in MiB (/proc/<pid>/smaps_rollup)"]
    said.append(f"  {'':<28}{'RSS':>8}{'PSS':>8}{'USS':>8}{'shared':>8}")
    for name, row in shared.items():
        numbers = "".join(f"{row[key] / UNIT:>8.1f}" for key in ("rss", "pss", "uss", "shared"))
        said.append(f"  {name:<28}{numbers}")
    said.append("USS is the child's own memory. CPython writes into objects that it only reads (reference counts),")
    said.append("and a pass of the garbage collector touches them all: so the child's pages are copied one by one.")
    return "\n".join(said)


def rollup(pid: int | str = "self") -> dict[str, int]:
    """The memory of a process in bytes: RSS, PSS, USS (private pages) and shared pages (proc(5), smaps_rollup)."""
    found: dict[str, int] = {}
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        for line in file:
            name, _, rest = line.partition(":")
            if rest.endswith(" kB\n"):
                found[name] = int(rest[:-3]) * 1024
    return {
        "rss": found["Rss"],
        "pss": found["Pss"],
        "uss": found["Private_Clean"] + found["Private_Dirty"],
        "shared": found["Shared_Clean"] + found["Shared_Dirty"],
    }


def copy_on_write(app: str | None) -> dict[str, dict[str, int]]:
    """Fork as engine `process` does, and measure the child when it begins and after a pass of its garbage collector.

    `app` names an application to import first, so that there is something to share. Raises BootError when it cannot be
    imported, and where the kernel does not tell.
    """
    from stoker import worker

    engines.load("process")
    if app is not None:
        worker.load_application(Config(app=app))
    gc.collect()
    reading, writing = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            measured = {"child, just forked": rollup()}
            gc.collect()
            measured["child, after gc.collect()"] = rollup()
            os.write(writing, json.dumps(measured).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="ascii") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    if not answer:
        raise BootError("/proc/<pid>/smaps_rollup cannot be read here, so what a child shares cannot be measured")
    found: dict[str, dict[str, int]] = json.loads(answer)
    return found

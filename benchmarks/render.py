"""A result document as text, as a page of the documentation with plots, and as one HTML page."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

from benchmarks import svg
from benchmarks.goals import verdicts
from benchmarks.summary import Document, Row, added, growth, idle_bytes, rows

MADE = "<!-- Made by `python docs/performance.py` from docs/results/performance.json: do not edit. -->"
HEAD = ("server", "CPU × C", "least – most", "CPU a request", "requests/s", "p50", "p99", "p99.9", "switches: own, forced",
        "RSS", "PSS", "notes")  # fmt: skip
HOW = """\
Made by `./scripts/bench --publish`. Each server has one worker, access log off, and a core of its own where there are
two; the client has the other. Before anything is measured, each server must answer the workload rightly: status, body,
framing, order. A round asks every candidate once, in random order; the cost is the server's CPU time, user and system,
of all its processes, for a request, and *CPU × C* is that as a multiple of the C baseline's (benchmarks/baseline/epoll.c)
**of the same round**; what stands here is the median. Stoker answers with Date and Server and with all its limits on;
which servers leave these fields out stands in the notes. A rate where the client was the limit is marked with ≥."""

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def duration(seconds: float) -> str:
    return (
        f"{seconds * 1e6:.1f} µs"
        if seconds < 1e-3
        else f"{seconds * 1e3:.2f} ms"
        if seconds < 1
        else f"{seconds:.2f} s"
    )


def size(count: float) -> str:
    return f"{count / 1e6:.1f} MB"


def cells(one: Row) -> tuple[str, ...]:
    if one.wrong:
        return (one.name, *["–"] * 10, one.wrong + (f"; {one.notes}" if one.notes else ""))
    return (
        one.name, f"{one.ratio:.2f}", f"{one.low:.2f} – {one.high:.2f}", duration(one.cost),
        f"{'≥ ' if one.bound else ''}{one.rate:,.0f}", duration(one.p50), duration(one.p99), duration(one.p999),
        f"{one.voluntary:.3f}, {one.involuntary:.3f}", size(one.rss), size(one.pss), one.notes,
    )  # fmt: skip


def goals(document: Document) -> Table:
    return ("goal", "measured", ""), [(one.goal, one.measured, one.word) for one in verdicts(document)]


def idle(document: Document) -> Table:
    found, body = document["workloads"]["idle"], []
    for name in found["checks"]:
        each, more = idle_bytes(found, name), added(found, name)
        if each is not None and more is not None:
            body.append((name, f"{each:,.0f}", f"{more:.2f}"))
    return ("server", "bytes of an idle connection", "CPU × of the same server without them"), body


def grown(document: Document) -> Table:
    found = growth(document["workloads"]["growth"])
    points = sorted({point for line in found.values() for point in line})
    body = [
        (name, *(duration(line[point]) if point in line else "–" for point in points)) for name, line in found.items()
    ]
    return ("server", *(f"{point:,}" for point in points)), body


def sections(document: Document) -> list[tuple[str, str, Table]]:
    """Title, words and table of each part of the results."""
    found = [("Goals", "A goal that is missed is missed openly: by how much stands here.", goals(document))]
    for name, workload in document["workloads"].items():
        if name == "growth":
            words = "CPU time of a request by the number of connections, all of them active."
            found.append((f"growth: {workload['title']}", words, grown(document)))
            continue
        count = len({run["round"] for run in workload["runs"]})
        words = f"{count} round{'s' if count != 1 else ''}; the baseline is {workload['base']}."
        found.append((f"{name}: {workload['title']}", words, (HEAD, [cells(one) for one in rows(workload)])))
        if name == "idle":
            words = "PSS and CPU of the same server before the 10,000 connections and with them."
            found.append(("idle: what they cost", words, idle(document)))
    if document["system_calls"]:
        body = [(name, f"{one['calls']:.2f}", one["tool"]) for name, one in document["system_calls"].items()]
        words = "For a request with only Host, counted in a run of its own."
        found.append(("System calls", words, (("server", "calls a request", "counted by"), body)))
    if document["wrk"]:
        found.append(("Beside wrk", "The same server by our client and by wrk, one after the other.", wrk(document)))
    found.append(("Candidates", "Which they are, and which could not run here.", those(document)))
    return found


def wrk(document: Document) -> Table:
    body = []
    for one in document["wrk"]:
        ours, theirs = (run["requests"] / run["seconds"] for run in (one["ours"], one["wrk"]))
        cpu = [run["cpu"] / max(run["requests"], 1) for run in (one["ours"], one["wrk"])]
        body.append((one["candidate"], f"{ours:,.0f}", f"{theirs:,.0f}", f"{ours / theirs:.2f}", *map(duration, cpu)))
    return ("server", "requests/s, ours", "wrk", "ours / wrk", "server CPU a request, ours", "wrk"), body


def those(document: Document) -> Table:
    body = []
    for name, one in document["candidates"].items():
        version = document["versions"].get(one["package"], "")
        body.append((name, one["interface"], version, f"left out: {one['missing']}" if one["missing"] else one["note"]))
    return ("server", "interface", "version", "options, and why"), body


def origin(document: Document) -> str:
    """When, where and of what."""
    machine = ", ".join(f"{name} {value}" for name, value in document["machine"].items())
    stopped = " It was interrupted." if document.get("interrupted") else ""
    return (
        f"{document['date']}, commit {document['commit']}, {document['versions']['stoker']}; {machine}; settings: "
        f"{document['settings']}.{stopped}"
    )


def plots(document: Document) -> dict[str, str]:
    found = {}
    for name in ("host", "browser"):
        if workload := document["workloads"].get(name):
            values = [
                (one.name, document["candidates"][one.name]["family"], one.ratio) for one in rows(workload) if one.ratio
            ]
            found[name] = svg.bars(f"CPU, × C epoll: {workload['title']}", values, lambda value: f"{value:.2f}")
    if workload := document["workloads"].get("growth"):
        found["growth"] = svg.lines("CPU of a request, by active connections", growth(workload), duration)
    return found


def markdown(table: Table) -> str:
    head, body = table
    lines = [head, tuple("---" for _ in head), *body]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def text(document: Document) -> str:
    """For a terminal."""
    found = []
    for title, _, (head, body) in sections(document):
        widths = [max(len(line[place]) for line in [head, *body]) for place in range(len(head))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in [head, *body]
        ]
        found.append("\n".join([title, *lines]))
    return "\n\n".join(found)


def documents(docs: Path) -> dict[Path, str]:
    """The files that are made from docs/results/performance.json, and what belongs in them."""
    document = json.loads((docs / "results" / "performance.json").read_text("utf-8"))
    images = plots(document)
    parts = ["# Performance", MADE, HOW, f"This run: {origin(document)}"]
    for title, words, table in sections(document):
        parts += [f"## {title}", words]
        name = title.partition(":")[0]
        if name in images and not title.startswith("idle"):
            parts.append(f"![{title}](img/{name}.svg)")
        parts.append(markdown(table))
    made = {docs / "performance.md": "\n\n".join(parts) + "\n"}
    return made | {docs / "img" / f"{name}.svg": image for name, image in images.items()}


CSS = """:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;margin:1.5rem auto;max-width:76rem;padding:0 1rem}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.87rem;font-variant-numeric:tabular-nums}
td,th{padding:.25rem .6rem;border-bottom:1px solid #8885;text-align:left;white-space:nowrap}td:last-child{white-space:normal;min-width:9rem}
svg{max-width:48rem;width:100%;height:auto}h2{margin-top:2rem}"""


def page(document: Document) -> str:
    """One HTML page that needs nothing beside it."""
    images = plots(document)
    body = [f"<h1>Stoker: performance</h1><p>{escape(HOW)}</p><p>{escape(origin(document))}</p>"]
    for title, words, (head, lines) in sections(document):
        body.append(f"<h2>{escape(title)}</h2><p>{escape(words)}</p>{images.get(title.partition(':')[0], '')}")
        top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
        rest = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>" for line in lines)
        body.append(f'<div class="wide"><table><tr>{top}</tr>{rest}</table></div>')
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Stoker: performance</title><style>{CSS}</style>\n" + "\n".join(body) + "\n</html>\n"
    )

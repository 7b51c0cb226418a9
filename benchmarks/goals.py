"""The goals of the project for speed, and what a run says of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.summary import Document, added, idle_bytes, ratios, row, rows

EPOLL, URING = "stoker epoll", "stoker uring"


@dataclass(frozen=True)
class Verdict:
    """:ivar met: None where the run does not say"""

    goal: str
    measured: str
    met: bool | None

    @property
    def word(self) -> str:
        return {True: "met", False: "**missed**", None: "not measured"}[self.met]


def most(goal: str, value: float | None, limit: float, unit: str = "×") -> Verdict:
    """A figure that must not be above a limit."""
    if value is None:
        return Verdict(goal, "–", None)
    digits = 0 if unit == "bytes" else 2
    text = f"{value:,.{digits}f} {unit}"
    if value <= limit:
        return Verdict(goal, text, True)
    return Verdict(
        goal, f"{text}: above the goal by {value - limit:,.{digits}f} {unit}, {value / limit - 1:.0%}", False
    )


def ratio(document: Document, workload: str, name: str) -> float | None:
    found = document["workloads"].get(workload)
    if not found or name not in found["checks"]:
        return None
    one = row(found, name)
    return one.ratio or None


def below_peers(document: Document, workload: str, name: str, goal: str) -> Verdict:
    """Below every peer of the same interface that answers right."""
    own = ratio(document, workload, name)
    kinds = document["candidates"]
    peers = [
        one for one in rows(document["workloads"].get(workload, {"checks": {}, "runs": []}))
        if kinds[one.name]["family"] == "peer" and kinds[one.name]["interface"] == "wsgi" and one.ratio
    ]  # fmt: skip
    if own is None or not peers:
        return Verdict(goal, "–", None)
    best = peers[0]
    text = f"{own:.2f} ×; the cheapest peer, {best.name}: {best.ratio:.2f} ×"
    cheaper = [f"{one.name} ({one.ratio:.2f} ×)" for one in peers if one.ratio <= own]
    return Verdict(goal, f"{text}. Not below {', '.join(cheaper)}" if cheaper else text, not cheaper)


def paired(document: Document, goal: str) -> Verdict:
    """io_uring below our epoll, round by round."""
    found = document["workloads"].get("host")
    pairs = ratios(found, URING, EPOLL) if found else {}
    if len(pairs) < 3:
        return Verdict(goal, "–", None)
    won = sum(value < 1 for value in pairs.values())
    each = ", ".join(f"{value:.2f}" for value in pairs.values())
    return Verdict(goal, f"below in {won} of {len(pairs)} rounds ({each} × our epoll)", won >= 0.8 * len(pairs))


def pipelining(document: Document) -> Verdict:
    goal = "pipelined by 16, epoll: at least 0.6 × the baseline's rate"
    found = document["workloads"].get("pipelined")
    if not found or EPOLL not in found["checks"] or not (own := row(found, EPOLL)).rate:
        return Verdict(goal, "–", None)
    base = row(found, "C epoll")
    share = own.rate / base.rate
    text = f"{share:.2f} × ({own.rate:,.0f} of {base.rate:,.0f} a second; CPU {own.ratio:.2f} ×)"
    if own.bound or base.bound:
        text += "; the client was the limit"
    return Verdict(goal, text if share >= 0.6 else f"{text}: below the goal by {0.6 - share:.2f}", share >= 0.6)


def granian(document: Document) -> Verdict:
    goal = "interpreted, epoll WSGI: below granian's WSGI"
    own, theirs = ratio(document, "host", "stoker epoll interpreted"), ratio(document, "host", "granian")
    if own is None or theirs is None:
        return Verdict(goal, "–", None)
    text = f"{own:.2f} × against {theirs:.2f} ×"
    return Verdict(goal, text if own < theirs else f"{text}: above by {own - theirs:.2f}", own < theirs)


def idle(document: Document) -> Iterator[Verdict]:
    found = document["workloads"].get("idle", {"checks": {}, "runs": []})
    for name, limit in ((EPOLL, 1024), (URING, 1024), ("stoker greenlet", 9216), ("stoker gevent", 9216)):
        kib = limit // 1024
        yield most(f"idle connection, {name}: at most {kib} KiB", idle_bytes(found, name), limit, "bytes")
    for name in (EPOLL, URING):
        yield most(
            f"10,000 idle connections beside 64 active, {name}: at most 1.15 × of without", added(found, name), 1.15
        )


def verdicts(document: Document) -> list[Verdict]:
    """Every goal, in the order of the issue that set them."""
    found: list[Verdict] = []
    for workload, title in (("host", "only Host"), ("browser", "eleven headers")):
        found.append(
            most(f"epoll, WSGI, {title}: at most 1.20 × the C baseline's CPU", ratio(document, workload, EPOLL), 1.2)
        )
        found.append(below_peers(document, workload, EPOLL, f"epoll, WSGI, {title}: below every peer"))
    found.append(paired(document, "uring, WSGI, only Host: below our epoll in four of five paired rounds"))
    found.append(
        most("uring, WSGI, only Host: at most 1.05 × the C epoll baseline", ratio(document, "host", URING), 1.05)
    )
    for name in ("gevent", "greenlet", "generator", "asyncio", "asyncio uvloop", "poll"):
        found.append(most(f"{name}, WSGI inline: at most 1.8 ×", ratio(document, "host", f"stoker {name}"), 1.8))
    found.append(most("thread: at most 3 ×", ratio(document, "host", "stoker thread"), 3))
    found.append(pipelining(document))
    found.append(below_peers(document, "close", EPOLL, "epoll, a connection for each request: below every peer"))
    found += idle(document)
    echo = ratio(document, "echo", "stoker epoll echo, async def")
    found.append(most("raw TCP echo, `async def` on epoll: at most 1.4 × C echo", echo, 1.4))
    found.append(granian(document))
    return found

"""Measures: every candidate of a workload, once a round, in an order that chance gives."""

from __future__ import annotations

import contextlib
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks import client, process
from benchmarks.candidates import ROOT, Candidate
from benchmarks.check import check
from benchmarks.peers import PEERS_PYTHON
from benchmarks.process import NotStarted, Server
from benchmarks.workloads import SLOW, Workload

Say = Callable[[str], None]
FAILED = 2  # a candidate that fails so often in a workload is not asked again
FRESH = ("idle", "growth")  # a server for each measurement: memory and time of another would be in it


def machine() -> dict[str, Any]:
    """What was measured on."""
    cpu = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    server, driver = process.cores()
    return {
        "kernel": platform.release(), "cpu": cpu[0] if cpu else platform.machine(), "cores": os.cpu_count(),
        "server on": sorted(server), "client on": sorted(driver), "load before": os.getloadavg()[0],
        "compiler": first_line([os.environ.get("CC", "cc"), "--version"]), "python": platform.python_version(),
    }  # fmt: skip


def first_line(words: list[str]) -> str:
    with contextlib.suppress(OSError):
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
        return (done.stdout.splitlines() or [""])[0]
    return ""


def versions() -> dict[str, str]:
    """Of Stoker's environment and of the peers'."""
    from stoker import __version__, build

    found = {"stoker": f"{__version__}, {build.describe()}"}
    for name in ("gevent", "greenlet", "uvloop"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[f"{name} (Stoker's)"] = metadata.version(name)
    if PEERS_PYTHON.exists():
        script = "from importlib import metadata as m\nfor d in m.distributions(): print(d.metadata['Name'], d.version)"
        done = subprocess.run([str(PEERS_PYTHON), "-c", script], capture_output=True, text=True, check=False)
        found |= dict(sorted(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line))
    return found


def begin(candidates: dict[str, Candidate], settings: dict[str, Any]) -> dict[str, Any]:
    """A result document without results."""
    dirty = first_line(["git", "status", "--porcelain", "--untracked-files=no"])
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": first_line(["git", "rev-parse", "HEAD"]) + (" with changes" if dirty else ""),
        "machine": machine(),
        "versions": versions(),
        "settings": settings,
        "candidates": {
            one.name: {
                "family": one.family, "interface": one.interface, "engine": one.engine, "note": one.note,
                "package": one.package, "cap": one.cap, "missing": one.missing,
            }
            for one in candidates.values()
        },
        "workloads": {},
        "system_calls": {},
        "wrk": [],
    }  # fmt: skip


class Run:
    """One run, whose document grows as it goes: what an interrupt finds is whole.

    :param deadline: of time.monotonic(); from then on each workload gets one round
    """

    def __init__(
        self,
        document: dict[str, Any],
        candidates: Iterable[Candidate],
        say: Say,
        deadline: float,
        *,
        rounds: int,
        scale: float,
    ) -> None:
        self.document = document
        self.candidates = [one for one in candidates if not one.missing]
        self.say = say
        self.deadline = deadline
        self.rounds = rounds
        self.scale = scale

    def workload(self, workload: Workload) -> None:
        """Check, then measure."""
        found: dict[str, Any] = {"title": workload.title, "base": workload.base, "checks": {}, "runs": []}
        self.document["workloads"][workload.name] = found
        those = [one for one in self.candidates if workload.who(one)]
        self.say(f"{workload.name}: {workload.title}; {len(those)} candidates")
        with contextlib.ExitStack() as stack:
            servers = {one.name: server for one in those if (server := self.checked(workload, one, found, stack))}
            for number in range(min(self.rounds, workload.rounds)):
                if number and time.monotonic() > self.deadline:
                    self.say(f"{workload.name}: the time is over: {number} rounds")
                    break
                self.round(workload, number, servers, found)
            if workload.name == "host":
                self.wrk(workload, servers)
                self.count(workload, servers)

    def checked(
        self, workload: Workload, one: Candidate, found: dict[str, Any], stack: contextlib.ExitStack
    ) -> Server | None:
        """Its server, if it starts and answers right."""
        try:
            server = stack.enter_context(process.running(one))
        except NotStarted as error:
            seen, wrong = None, f"not started: {error}"
        else:
            seen = check(workload.checked, server.port)
            wrong = seen.wrong
        found["checks"][one.name] = {"wrong": wrong, "notes": seen.notes if seen else []}
        if wrong:
            self.say(f"  {one.name}: wrong: {wrong}")
            return None
        return server

    def round(self, workload: Workload, number: int, servers: dict[str, Server], found: dict[str, Any]) -> None:
        """Each once, the baseline twice: what the others are compared with."""
        order = [name for name in servers if name not in SLOW or number < 2]
        order += [workload.base] if workload.base in servers and not workload.points else []
        random.shuffle(order)
        for name in order:
            if sum(bool(one["errors"]) for one in found["runs"] if one["candidate"] == name) >= FAILED:
                continue
            for connections in workload.points or (workload.connections,):
                if connections <= servers[name].candidate.cap:
                    self.once(workload, number, servers[name], connections, found)

    def once(self, workload: Workload, number: int, server: Server, connections: int, found: dict[str, Any]) -> None:
        name = server.candidate.name
        run: dict[str, Any] = {"candidate": name, "round": number, "connections": connections}
        try:
            with (
                process.running(server.candidate) if workload.name in FRESH else contextlib.nullcontext(server) as used
            ):
                measured = client.drive(used, workload, max(0.3, workload.seconds * self.scale), connections)
            run |= measured.document()
        except (client.ClientFailed, NotStarted, OSError) as error:
            run |= {"errors": {"client": 1}, "first_error": str(error)}
        found["runs"].append(run)
        if run["errors"]:
            self.say(f"  {name}, {connections} connections: {run['errors']} {run['first_error']}")

    def wrk(self, workload: Workload, servers: dict[str, Server]) -> None:
        """The same by wrk, to say how far the two clients agree."""
        if not client.has_wrk():
            return
        for name in ("stoker epoll", "stoker thread", "granian"):
            if name not in servers:
                continue
            ours = client.drive(servers[name], workload, 1.0)
            theirs = client.drive_wrk(servers[name], workload, 1.0)
            self.document["wrk"].append({"candidate": name, "ours": ours.document(), "wrk": theirs.document()})

    def count(self, workload: Workload, servers: dict[str, Server]) -> None:
        """System calls for a request, in a run of their own, since counting slows."""
        for name, server in servers.items():
            if name in SLOW:
                continue
            try:
                calls, tool = client.system_calls(server, workload)
            except (client.ClientFailed, subprocess.TimeoutExpired, OSError) as error:
                self.say(f"  {name}: system calls not counted: {error}")
                continue
            self.document["system_calls"][name] = {"calls": calls, "tool": tool}


def progress(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)

"""Servers as processes: starting, stopping, and what /proc knows of them and of their children."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.candidates import ROOT, Candidate, environment

TICK = os.sysconf("SC_CLK_TCK")
DESCRIPTORS = 20_000
PROC = Path("/proc")


class NotStarted(Exception):
    """A server that did not come up; the text says why."""


@dataclass(frozen=True)
class Usage:
    """What a process and all its descendants have used so far. CPU is in seconds."""

    cpu: float = 0.0
    voluntary: int = 0
    involuntary: int = 0

    def __sub__(self, other: Usage) -> Usage:
        return Usage(
            self.cpu - other.cpu, self.voluntary - other.voluntary, max(0, self.involuntary - other.involuntary)
        )


def children(text: str) -> list[int]:
    """The process ids of /proc/PID/task/TID/children."""
    return [int(word) for word in text.split()]


def reaped(stat: str) -> float:
    """CPU seconds of the children that were waited for: fields 16 and 17 of /proc/PID/stat (proc(5))."""
    fields = stat[stat.rindex(")") + 2 :].split()
    return (int(fields[13]) + int(fields[14])) / TICK


def switches(status: str) -> tuple[int, int]:
    """Voluntary and involuntary context switches of /proc/PID/task/TID/status."""
    found = dict(line.split(":", 1) for line in status.splitlines() if "ctxt_switches" in line)
    return int(found["voluntary_ctxt_switches"]), int(found["nonvoluntary_ctxt_switches"])


def memory(rollup: str) -> tuple[int, int]:
    """Bytes resident, and its proportional share, of /proc/PID/smaps_rollup."""
    found = {line.split(":")[0]: line.split()[1] for line in rollup.splitlines() if line.startswith(("Rss:", "Pss:"))}
    return int(found["Rss"]) * 1024, int(found["Pss"]) * 1024


def tree(pid: int) -> list[int]:
    """A process and its living descendants."""
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        found.append(one)
        for task in tasks(one):
            with contextlib.suppress(OSError):
                todo += children((task / "children").read_text())
    return found


def tasks(pid: int) -> list[Path]:
    try:
        return list((PROC / str(pid) / "task").iterdir())
    except OSError:
        return []


def clock(pid: int) -> float:
    """CPU seconds of one process, its ended threads included: clock_getcpuclockid(3) on Linux."""
    return time.clock_gettime(~pid << 3 | 2)


def usage(pid: int) -> Usage:
    """CPU and context switches of a tree. Switches of threads that have ended are not in it."""
    cpu, voluntary, involuntary = 0.0, 0, 0
    for one in tree(pid):
        with contextlib.suppress(OSError):  # it may end meanwhile; then its parent has its time
            cpu += clock(one)
            cpu += reaped((PROC / str(one) / "stat").read_text())
        for task in tasks(one):
            with contextlib.suppress(OSError, KeyError):
                own, forced = switches((task / "status").read_text())
                voluntary += own
                involuntary += forced
    return Usage(cpu, voluntary, involuntary)


def resident(pid: int) -> tuple[int, int]:
    """Bytes resident of a tree, and its proportional share of them (what is shared after fork counts once)."""
    rss = pss = 0
    for one in tree(pid):
        with contextlib.suppress(OSError, KeyError):
            own, share = memory((PROC / str(one) / "smaps_rollup").read_text())
            rss += own
            pss += share
    return rss, pss


def cores() -> tuple[set[int], set[int]]:
    """The CPUs of the server and of the client: one each where there are two."""
    allowed = sorted(os.sched_getaffinity(0))
    return ({allowed[-1]}, {allowed[0]}) if len(allowed) > 1 else (set(allowed), set(allowed))


def prepare(cpus: set[int]) -> None:
    """In a child before exec: its CPUs, and all the descriptors it may have."""
    os.sched_setaffinity(0, cpus)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def free_port() -> int:
    """A port that nobody has, below those that the kernel gives to clients: none gets it before the server."""
    low = int((PROC / "sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in range(low - 1, 1024, -1):
        if port in _given:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _given.add(port)
            return port
    raise NotStarted("no port is free")


_given: set[int] = set()


class Server:
    """A running candidate."""

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.port = free_port()
        self.log = tempfile.TemporaryFile("w+b")
        cpus = cores()[0]
        self.process = subprocess.Popen(
            candidate.words(self.port), cwd=ROOT, env=environment(candidate.environment), stdin=subprocess.DEVNULL,
            stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=lambda: prepare(cpus),
        )  # fmt: skip

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait(self, timeout: float = 20.0) -> None:
        """Until it accepts a connection. Raises NotStarted."""
        deadline = time.monotonic() + timeout
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            if self.process.poll() is not None:
                raise NotStarted(f"it ended with status {self.process.returncode}: {self.said()}")
            if time.monotonic() > deadline:
                raise NotStarted(f"it does not listen after {timeout:.0f} s: {self.said()}")
            time.sleep(0.02)

    def said(self) -> str:
        """The last line that it printed."""
        self.log.seek(0)
        lines = self.log.read().decode("utf-8", "replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")[:300]

    def alive(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        """Ask it to end; after three seconds, kill every process of it."""
        if self.process.poll() is None:
            own = tree(self.pid)
            self.process.terminate()
            try:
                self.process.wait(3)
            except subprocess.TimeoutExpired:
                for pid in {*own, *tree(self.pid)}:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                self.process.wait(10)
        self.log.close()
        _given.discard(self.port)


@contextlib.contextmanager
def running(candidate: Candidate) -> Iterator[Server]:
    """A server for a while."""
    server = Server(candidate)
    try:
        server.wait()
        yield server
    finally:
        server.stop()

"""The workloads: what is asked of a server, and of which servers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.candidates import CAP, Candidate

# Ten times the baseline and more: two rounds, and only where their figure is asked for.
SLOW = {
    "hypercorn",
    "uvicorn",
    "gunicorn asgi",
    "gunicorn sync",
    "uwsgi",
    "gunicorn gevent",
    "gunicorn gthread",
    "gevent.pywsgi",
    "cheroot",
    "waitress",
}


@dataclass(frozen=True)
class Workload:
    """One way of asking.

    :ivar checked: what `check.check` looks at first
    :ivar rounds: how many it gets at most; what a goal hangs on gets more
    :ivar idle: connections that are held open beside those that are active
    """

    name: str
    title: str
    checked: str
    who: Callable[[Candidate], bool]
    path: str = "/"
    connections: int = 64
    pipeline: int = 1
    close: bool = False
    browser: bool = False
    body: int = 0
    idle: int = 0
    tcp: bool = False
    seconds: float = 0.6
    rounds: int = 2
    bytes: int = 0
    points: tuple[int, ...] = ()

    @property
    def base(self) -> str:
        """The candidate whose cost is 1."""
        return "C epoll echo" if self.tcp else "C epoll"


def http(one: Candidate) -> bool:
    return one.interface != "tcp"


def inline(one: Candidate) -> bool:
    """C, Stoker's engines and the WSGI servers: without ASGI, edge and the pool, which one workload shows."""
    return one.interface in ("c", "wsgi") and one.name not in ("C epoll edge", "stoker epoll edge", "stoker epoll pool")


def quick(one: Candidate) -> bool:
    return inline(one) and one.name not in SLOW and not one.serial


def many(one: Candidate) -> bool:
    return one.family != "peer" and quick(one) and one.cap >= CAP and one.engine not in ("nonblocking", "poll")


def growing(one: Candidate) -> bool:
    return one.family != "peer" and quick(one) and one.engine != "process" and one.name != "stoker epoll interpreted"


WORKLOADS = (
    Workload("host", "a request with only Host", "hello", http, seconds=0.8, rounds=5, bytes=13),
    Workload("browser", "eleven header fields of a browser", "browser", quick, browser=True, rounds=5, bytes=13),
    Workload("pipelined", "pipelined by 16", "pipelined", quick, pipeline=16, rounds=3, bytes=13),
    Workload("close", "a connection for each request", "close", inline, close=True, rounds=3, bytes=13),
    Workload("idle", "10,000 idle connections", "hello", many, idle=10_000, rounds=3, bytes=13),
    Workload("echo", "raw TCP, 64 bytes there and back", "echo", lambda one: one.interface == "tcp", tcp=True,
             rounds=3, bytes=64),
    Workload("growth", "growth with connections", "hello", growing, bytes=13, rounds=1, seconds=0.5,
             points=(1, 64, 1000, 10_000, 19_000)),
    Workload("c512", "512 connections", "hello", quick, connections=512, bytes=13),
    Workload("64k", "a response of 64 KiB", "large", quick, path="/64k", bytes=65536),
    Workload("upload", "an upload of 1 MiB", "upload", quick, path="/upload", connections=16, body=1 << 20, bytes=7),
    Workload("stream", "a response in 16 pieces of 1 KiB", "stream", quick, path="/stream", bytes=16384),
)  # fmt: skip
BY_NAME = {one.name: one for one in WORKLOADS}

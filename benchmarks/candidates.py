"""What is measured: a candidate is a server with an interface, a command, and the reason for its options."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers import PEERS, PEERS_PYTHON, Peer

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "baseline"
BASELINE = "C epoll"
CAP = 19_000  # connections: a server and its client have 20,000 descriptors each


@dataclass(frozen=True)
class Candidate:
    """A server that can be started.

    :ivar family: "c", "stoker" or "peer"
    :ivar interface: "c", "wsgi", "asgi" or "tcp"
    :ivar command: words of its command line; `{port}` stands for the port
    :ivar cap: connections that it can hold
    :ivar serial: it serves one connection at a time
    :ivar missing: why it cannot run here
    """

    name: str
    family: str
    interface: str
    command: tuple[str, ...]
    engine: str = ""
    note: str = ""
    package: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    cap: int = CAP
    serial: bool = False
    missing: str = ""

    def words(self, port: int) -> list[str]:
        return [word.format(port=port) for word in self.command]


def baselines() -> Iterator[Candidate]:
    """The C servers of benchmarks/baseline/, compiled here when their source has changed."""
    for name, file, options in (
        (BASELINE, "epoll", ()),
        ("C epoll edge", "epoll", ("--edge",)),
        ("C io_uring", "uring", ()),
    ):
        binary = BUILD / file
        missing = compiled(file)
        if file == "uring" and not missing:
            missing = refused_uring(binary)
        yield Candidate(name, "c", "c", (str(binary), "{port}", *options), missing=missing)
        if not options:
            yield Candidate(f"{name} echo", "c", "tcp", (str(binary), "{port}", "--echo"), missing=missing)


def compiled(name: str) -> str:
    """Compile one baseline if need be; why it cannot be."""
    sources = [ROOT / "benchmarks" / "baseline" / file for file in (f"{name}.c", "common.h")]
    binary = BUILD / name
    if binary.is_file() and binary.stat().st_mtime >= max(source.stat().st_mtime for source in sources):
        return ""
    BUILD.mkdir(parents=True, exist_ok=True)
    fresh = binary.with_suffix(f".{os.getpid()}")
    try:
        done = subprocess.run(
            [os.environ.get("CC", "cc"), "-O2", "-o", str(fresh), str(sources[0])],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    except OSError as error:
        return f"no C compiler: {error}"
    if done.returncode:
        return f"does not compile here: {done.stderr.strip().splitlines()[0]}"
    fresh.rename(binary)
    return ""


def refused_uring(binary: Path) -> str:
    """Why the kernel or a container refuses io_uring; the server is started on a port of the kernel's choice."""
    with subprocess.Popen([str(binary), "0"], stderr=subprocess.PIPE, text=True) as server:
        try:
            server.wait(0.2)
        except subprocess.TimeoutExpired:
            server.terminate()
            return ""
        assert server.stderr is not None
        return server.stderr.read().strip()


def refused_asgi() -> str:
    """Why this Stoker does not serve ASGI."""
    command = ["-m", "stoker", "serve", "benchmarks.apps:asgi", "--interface", "asgi", "--print-config"]
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, cwd=ROOT, env=environment({})
    )
    return done.stderr.strip() if done.returncode else ""


def environment(more: dict[str, str]) -> dict[str, str]:
    """What a server's environment is: this checkout's packages, and none of Stoker's variables."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("STOKER_")}
    inherited["PATH"] = f"{PEERS_PYTHON.parent}:{inherited.get('PATH', '/usr/bin:/bin')}"
    return {**inherited, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", **more}


def stoker(name: str, engine: str, *words: str, interface: str = "wsgi", app: str = "wsgi", **more: Any) -> Candidate:
    """Stoker on an engine."""
    from stoker import build
    from stoker.engines import REGISTRY, unavailable

    served = ("--tcp", f"benchmarks.apps:{app}") if interface == "tcp" else (f"benchmarks.apps:{app}",)
    command = (
        sys.executable, "-m", "stoker", "serve", *served, "--engine", engine, "--bind", "127.0.0.1:{port}",
        "--no-keys", "--log-level", "error", *words,
    )  # fmt: skip
    missing = unavailable(engine) if engine in REGISTRY else f"this Stoker has no engine {engine}"
    if not missing and not more.get("environment") and not build.binaries():
        missing = "Stoker is not compiled here"
    cap = (REGISTRY[engine].cap or CAP) if engine in REGISTRY else CAP
    return Candidate(
        f"stoker {name}", "stoker", interface, command, engine=engine, missing=missing, cap=min(CAP, cap), **more
    )


def stokers() -> Iterator[Candidate]:
    """Every engine with the application inline, and what else the goals name."""
    from stoker.engines import REGISTRY

    for engine in dict.fromkeys([*REGISTRY, "uring"]):
        if engine == "asyncio":
            yield stoker("asyncio", engine, "--loop", "asyncio", note="the stock event loop")
            missing = "" if importlib.util.find_spec("uvloop") else "the package uvloop is not installed"
            loop = stoker("asyncio uvloop", engine, "--loop", "uvloop")
            yield Candidate(**{**vars(loop), "missing": loop.missing or missing})
        else:
            yield stoker(engine, engine)
    yield stoker("epoll edge", "epoll", "--trigger", "edge")
    yield stoker("epoll interpreted", "epoll", environment={"STOKER_INTERPRETED": "1"}, note="STOKER_INTERPRETED=1")
    yield stoker("epoll pool", "epoll", "--threads", "4", note="the application in a pool of 4 threads")
    refused = refused_asgi()
    for name, engine, words in (
        ("epoll ASGI", "epoll", ()),
        ("uring ASGI", "uring", ()),
        ("asyncio ASGI", "asyncio", ("--loop", "asyncio")),
        ("asyncio uvloop ASGI", "asyncio", ("--loop", "uvloop")),
    ):
        one = stoker(name, engine, "--interface", "asgi", *words, interface="asgi", app="asgi")
        yield Candidate(**{**vars(one), "missing": one.missing or refused})
    for engine, app in (
        ("epoll", "echo"),
        ("epoll", "echo_steps"),
        ("uring", "echo"),
        ("generator", "echo"),
        ("asyncio", "echo"),
        ("greenlet", "echo_plain"),
        ("gevent", "echo_plain"),
        ("thread", "echo_plain"),
    ):
        style = {"echo": "async def", "echo_steps": "generator", "echo_plain": "plain function"}[app]
        yield stoker(f"{engine} echo, {style}", engine, interface="tcp", app=app)


def from_peer(peer: Peer) -> Candidate:
    return Candidate(
        peer.name, "peer", peer.interface, peer.command, note=peer.note, package=peer.package,
        cap=peer.cap, serial=peer.serial, missing=peer.missing(), environment=peer.environment,
    )  # fmt: skip


def candidates() -> dict[str, Candidate]:
    """All of them, by name, also those that cannot run here."""
    found = [*baselines(), *stokers(), *(from_peer(peer) for peer in PEERS)]
    return {one.name: one for one in found}

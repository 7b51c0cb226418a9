"""The other servers: how each is installed, started, and why with these options.

One worker process each; access log off; otherwise what its own documentation advises for speed, as long as answers stay
complete. They live in an environment of their own, .venv-peers, which ./scripts/bench makes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEERS_PYTHON = Path(os.environ.get("BENCH_PEERS", ROOT / ".venv-peers")) / "bin" / "python"
REASONS = PEERS_PYTHON.parent.parent / "reasons.json"  # package → why it could not be installed
WSGI, ASGI = "benchmarks.apps:wsgi", "benchmarks.apps:asgi"
HERE = "127.0.0.1:{port}"


@dataclass(frozen=True)
class Peer:
    """Another server.

    :ivar package: the distribution whose version is reported
    :ivar serial: it serves one connection at a time, so it closes each
    :ivar cap: connections that it can hold with these options
    """

    name: str
    package: str
    interface: str
    command: tuple[str, ...]
    note: str = ""
    cap: int = 19_000
    serial: bool = False
    environment: dict[str, str] = field(default_factory=dict)

    def missing(self) -> str:
        """Why it cannot run here."""
        if not PEERS_PYTHON.exists():
            return "not installed: ./scripts/bench installs it"
        reasons = json.loads(REASONS.read_text("utf-8")) if REASONS.is_file() else {}
        return str(reasons.get(self.package, ""))


def tool(name: str, *words: str) -> tuple[str, ...]:
    return (str(PEERS_PYTHON.parent / name), *words)


def own(name: str) -> tuple[str, ...]:
    return (str(PEERS_PYTHON), "-m", "benchmarks.start_peer", name, "{port}")


def gunicorn(*words: str, app: str = WSGI) -> tuple[str, ...]:
    return tool(
        "gunicorn", app, "--bind", HERE, "--workers", "1", "--keep-alive", "75", "--backlog", "4096",
        "--log-level", "error", *words,
    )  # fmt: skip


GRANIAN = ("--host", "127.0.0.1", "--port", "{port}", "--workers", "1", "--no-ws", "--http", "1", "--backlog", "4096",
           "--backpressure", "4096", "--no-log")  # fmt: skip
M0SERVE = ("--host", "127.0.0.1", "--port", "{port}", "--workers", "1", "--max-keepalive-requests", "0")
PEREGRINE = ("--host", "127.0.0.1", "--port", "{port}", "--workers", "1", "--backlog", "4096", "--max-connections",
             "19500", "--keep-alive", "75000", "--log-level", "error")  # fmt: skip
MOJO = {"PYTHONUNBUFFERED": "1"}

PEERS = (
    Peer("freastal", "freastal", "wsgi", own("freastal"), "it has no options beside TLS and workers"),
    Peer("peregrine", "peregrine-server", "wsgi", tool("peregrine", *PEREGRINE, "--protocol", "wsgi", WSGI),
         "room for the connections, keep-alive as long as the others'"),
    Peer("fastpysgi", "fastpysgi", "wsgi", own("fastpysgi"), "TCP_NODELAY on, as its guide for benchmarks has it"),
    Peer("bjoern", "bjoern", "wsgi", own("bjoern"), "it has no options"),
    Peer("granian", "granian", "wsgi", tool("granian", "--interface", "wsgi", *GRANIAN, "--runtime-mode", "st",
                                            "--blocking-threads", "1", WSGI),
         "HTTP/1 alone; one blocking thread, its advice where the GIL is held; the single-threaded runtime"),
    Peer("m0serve", "m0serve", "wsgi", tool("m0serve", *M0SERVE, "--protocol", "wsgi", "--blocking-threads", "0", WSGI),
         "inline (--blocking-threads 0); no limit to the requests of a connection", environment=MOJO),
    Peer("uwsgi", "uWSGI", "wsgi",
         tool("uwsgi", "--http-socket", HERE, "--module", WSGI, "--master", "--processes", "1", "--single-interpreter",
              "--disable-logging", "--die-on-term", "--need-app", "--listen", "1024"),
         "http-socket, which closes after each answer: its keep-alive serves one connection at a time",
         cap=1024, serial=True),
    Peer("gunicorn sync", "gunicorn", "wsgi", gunicorn("--worker-class", "sync"),
         "closes after each answer, by design", serial=True),
    Peer("gunicorn gthread", "gunicorn", "wsgi",
         gunicorn("--worker-class", "gthread", "--threads", "4", "--worker-connections", "4096"), "4 threads"),
    Peer("gunicorn gevent", "gunicorn", "wsgi",
         gunicorn("--worker-class", "gevent", "--worker-connections", "19500")),
    Peer("gevent.pywsgi", "gevent", "wsgi", own("gevent.pywsgi"), "no log"),
    Peer("waitress", "waitress", "wsgi",
         tool("waitress-serve", "--listen", HERE, "--threads", "4", "--connection-limit", "19500",
              "--channel-timeout", "75", "--backlog", "4096", "--asyncore-use-poll", WSGI),
         "its default of 4 threads; poll in place of select, for more than 1,024 connections"),
    Peer("cheroot", "cheroot", "wsgi",
         tool("cheroot", "--bind", HERE, "--threads", "10", "--timeout", "75", "--request-queue-size", "1024", WSGI),
         "its default of 10 threads"),
    Peer("freastal ASGI", "freastal", "asgi", own("freastal-asgi")),
    Peer("peregrine ASGI", "peregrine-server", "asgi", tool("peregrine", *PEREGRINE, "--protocol", "asgi", ASGI),
         "uvloop"),
    Peer("fastpysgi ASGI", "fastpysgi", "asgi", own("fastpysgi-asgi"), "TCP_NODELAY on"),
    Peer("granian ASGI", "granian", "asgi", tool("granian", "--interface", "asgi", *GRANIAN, "--runtime-mode", "st",
                                                 "--loop", "uvloop", ASGI),
         "uvloop; the single-threaded runtime, its advice for ASGI"),
    Peer("m0serve ASGI", "m0serve", "asgi",
         tool("m0serve", *M0SERVE, "--protocol", "asgi", "--blocking-threads", "0", ASGI), environment=MOJO),
    Peer("uvicorn", "uvicorn", "asgi",
         tool("uvicorn", ASGI, "--host", "127.0.0.1", "--port", "{port}", "--loop", "uvloop", "--http", "httptools",
              "--no-access-log", "--log-level", "error", "--timeout-keep-alive", "75", "--backlog", "4096"),
         "uvloop and httptools"),
    Peer("gunicorn asgi", "gunicorn", "asgi",
         gunicorn("--worker-class", "asgi", "--asgi-loop", "uvloop", "--worker-connections", "19500", app=ASGI),
         "uvloop"),
    Peer("hypercorn", "hypercorn", "asgi",
         tool("hypercorn", ASGI, "--bind", HERE, "--workers", "1", "--worker-class", "uvloop", "--backlog", "4096",
              "--keep-alive", "75", "--log-level", "error"), "uvloop"),
)  # fmt: skip

PATIENCE = 180  # seconds for one package

# What is installed for them, each on its own: one that does not install is reported, and the others go on.
PACKAGES = {
    "freastal": ["freastal"],
    "peregrine-server": ["peregrine-server", "uvloop"],
    "fastpysgi": ["fastpysgi"],
    "bjoern": ["bjoern"],
    "granian": ["granian[uvloop]"],
    "m0serve": ["m0serve"],
    "uWSGI": ["uWSGI"],
    "gevent": ["gevent"],
    "gunicorn": ["gunicorn", "uvloop", "gevent", "packaging"],
    "waitress": ["waitress"],
    "cheroot": ["cheroot"],
    "uvicorn": ["uvicorn", "uvloop", "httptools"],
    "hypercorn": ["hypercorn[uvloop]"],
}


def install() -> dict[str, str]:
    """Install the packages into the environment of this interpreter; the reason for each that does not install."""
    reasons = {}
    for name, packages in PACKAGES.items():
        print(f"stoker: installing {name} into .venv-peers", file=sys.stderr)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--prefer-binary", *packages]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            reasons[name] = f"pip could not install it within {PATIENCE} s"
        else:
            if not done.returncode:
                continue
            said = [line for line in done.stderr.splitlines() if "error" in line.lower()] or done.stderr.splitlines()
            reasons[name] = f"pip could not install it: {said[-1].strip() if said else 'no reason given'}"
        print(f"stoker: {name}: {reasons[name]}", file=sys.stderr)
    return reasons


def main() -> None:
    """Install once: again when what is to be installed has changed."""
    wanted = json.dumps(PACKAGES)
    stamp = Path(sys.prefix) / "installed.json"
    if stamp.is_file() and stamp.read_text("utf-8") == wanted:
        return
    (Path(sys.prefix) / REASONS.name).write_text(json.dumps(install(), indent=1) + "\n", "utf-8")
    stamp.write_text(wanted, "utf-8")


if __name__ == "__main__":  # ./scripts/bench, by the interpreter of .venv-peers
    main()

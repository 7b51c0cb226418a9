"""Runs an example by the command in its first line, on a free port."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


def commands(file: str) -> list[str]:
    """The commands that an example begins with: `file` is its path below examples/."""
    found = []
    for line in (EXAMPLES / file).read_text("utf-8").splitlines():
        if not line.startswith("# stoker "):
            break
        found.append(line.removeprefix("# "))
    assert found, f"examples/{file} does not begin with a command"
    return found


class Server:
    """An example that runs, and what it has printed."""

    def __init__(self, command: str, more: tuple[str, ...], log: Path) -> None:
        words = shlex.split(command)
        assert words.pop(0) == "stoker"
        while "--bind" in words:
            at = words.index("--bind")
            del words[at : at + 2]
        self.log = log
        self.at_end: list[Callable[[], object]] = []
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "stoker", *words, "--bind", "127.0.0.1:0", *more],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip

    @property
    def output(self) -> str:
        return self.log.read_text("utf-8")

    def says(self, text: str) -> None:
        deadline = time.monotonic() + 15
        while text not in self.output:
            assert time.monotonic() < deadline, f"{text!r} is not in {self.output}"
            time.sleep(0.01)

    def connect(self) -> socket.socket:
        client = socket.create_connection(self.address, timeout=10)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + 30
        while " is ready" not in self.output:
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.02)
        found = re.search(r"listening on \w+://([\d.]+):(\d+)$", self.output, re.MULTILINE)
        assert found, self.output
        self.address = (found[1], int(found[2]))

    def stop(self) -> None:
        """Stop gracefully; it must end with 0."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == 0, self.output


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(command: str, *more: str) -> Server:
        server = Server(command, more, tmp_path / f"log{len(servers)}")
        servers.append(server)
        server.wait_until_ready()
        return server

    yield start
    try:
        for server in servers:
            for close in server.at_end:
                close()
            if server.process.poll() is None:
                server.stop()
    finally:
        for server in servers:
            with contextlib.suppress(ProcessLookupError):
                server.process.kill()
            server.process.wait(10)

"""A real master in a process of its own, and what a test asks of it: conditions with a deadline, never a bare sleep."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FAKE = Path(__file__).parent / "fake.py"
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
PATIENCE = 15.0


def wait_for(condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """What `condition` returns, as soon as it is true."""
    deadline = time.monotonic() + patience
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {patience} s"
        time.sleep(0.01)
    return value


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return state_of(pid) != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def children(pid: int) -> list[int]:
    """All children, zombies too."""
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Server:
    """The fake server, with options as keywords; underscores as they are."""

    def __init__(self, directory: Path, **options: object) -> None:
        self.directory = directory
        self.log_path = directory / "log"
        options = {"bind": "127.0.0.1:0", "keys": "false", "graceful_timeout": "5", **options}
        words = [f"{name}={value}" for name, value in options.items()]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(FAKE), *words],
                cwd=directory,
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stderr=log,
            )
        self.pid = self.process.pid

    def log(self) -> str:
        return self.log_path.read_text("utf-8", "replace") if self.log_path.exists() else ""

    def wait_log(self, pattern: str, count: int = 1) -> list[str]:
        """Wait until the log has matches of `pattern`; return them."""

        def found() -> list[str] | None:
            matches = re.findall(pattern, self.log())
            return matches if len(matches) >= count else None

        try:
            return list(wait_for(found, f"{count} of {pattern!r} in the log"))
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None

    def ready(self, workers: int = 1) -> Server:
        self.wait_log(r"is ready", workers)
        return self

    @property
    def port(self) -> int:
        return int(self.wait_log(r"listening on http://[\w.\[\]:]+:(\d+)")[0])

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def ask(self, text: str = "hello") -> tuple[int, str]:
        """One request on a connection of its own: the worker's pid, and the rest of the answer."""
        with self.connect() as client:
            return request(client, text)

    def kill(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def workers(self) -> list[int]:
        """The children of the master that are alive."""
        return [pid for pid in children(self.pid) if alive(pid)]

    def wait(self) -> int:
        return self.process.wait(PATIENCE)

    def stop(self) -> None:
        """End whatever is left."""
        left = [self.pid, *children(self.pid)] if self.process.poll() is None else []
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(PATIENCE)


def request(client: socket.socket, text: str = "hello") -> tuple[int, str]:
    client.sendall(text.encode() + b"\n")
    answer = b""
    while not answer.endswith(b"\n"):
        data = client.recv(1000)
        assert data, f"the connection ended after {answer!r}"
        answer += data
    pid, _, rest = answer.decode().strip().partition(" ")
    return int(pid), rest


class Counting:
    """Clients that ask all the time, each request on a connection of its own, and count what goes wrong."""

    def __init__(self, server: Server, clients: int = 3) -> None:
        self.answers = 0
        self.failures: list[str] = []
        self.pids: set[int] = set()
        self._server = server
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def _ask(self) -> None:
        while not self._end.is_set():
            try:
                pid, _ = self._server.ask()
            except (OSError, AssertionError) as error:
                self.failures.append(repr(error))
            else:
                self.answers += 1
                self.pids.add(pid)

    def __enter__(self) -> Counting:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def more(self, count: int = 20) -> None:
        """Wait for so many answers more."""
        goal = self.answers + count
        wait_for(lambda: self.answers >= goal or self.failures, f"{count} answers more")


@contextlib.contextmanager
def running(directory: Path, **options: object) -> Iterator[Server]:
    server = Server(directory, **options)
    try:
        yield server
    finally:
        server.stop()

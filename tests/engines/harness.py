"""Runs an engine in a child process over a listener of its own, with any handler: what the contract tests stand on."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from stoker import engines, stats
from stoker.config import Config
from stoker.worker import Worker, prepare

CONFIGURATIONS = [
    "process", "thread", "nonblocking", "select", "poll", "epoll", "epoll-edge",
    "generator", "greenlet", "gevent", "asyncio",
]  # fmt: skip
# Where it cannot run, tests/engines/test_uring.py looks at the reason that is given instead.
URING = [] if engines.unavailable("uring") else ["uring"]
CONFIGURATIONS += URING


def options(configuration: str) -> dict[str, Any]:
    """The options of a configuration's name."""
    engine, _, trigger = configuration.partition("-")
    return {"engine": engine} | ({"trigger": trigger} if trigger else {})


class Running:
    """An engine under test: where to connect, its process, and what it says of itself."""

    def __init__(self, address: tuple[str, int], pid: int, row: Any, control: socket.socket) -> None:
        self.address = address
        self.pid = pid
        self.row = row
        self.control = control
        self.status: int | None = None

    def connect(self, timeout: float = 10.0) -> socket.socket:
        client = socket.create_connection(self.address, timeout=timeout)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def tell(self, number: int) -> None:
        """A byte from the master."""
        self.control.send(bytes([number]))

    def wait(self, timeout: float = 10.0) -> int:
        """Wait for the end of the process; its exit status."""
        deadline = time.monotonic() + timeout
        while self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > deadline:
                raise TimeoutError(f"the engine has not ended within {timeout} s")
            else:
                time.sleep(0.01)
        return self.status

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def children(self) -> list[int]:
        """The process ids of its children, zombies too."""
        found = []
        for task in os.listdir(f"/proc/{self.pid}/task"):
            with open(f"/proc/{self.pid}/task/{task}/children", encoding="ascii") as file:
                found += [int(pid) for pid in file.read().split()]
        return found

    def cpu(self) -> float:
        """Seconds of CPU time that it has used, children that have ended included."""
        with open(f"/proc/{self.pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")


class Listening:
    """A listening socket as an engine is given it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.server = sock.getsockname()
        self.address = f"tcp://{self.server[0]}:{self.server[1]}"

    def fileno(self) -> int:
        return self.sock.fileno()

    def close(self) -> None:
        self.sock.close()

    def refuse_new(self) -> bool:
        return False


def until(condition: Callable[[], Any], timeout: float = 10.0, what: str = "condition") -> Any:
    """Wait for a condition, with a deadline."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come true within {timeout} s")
        time.sleep(0.005)
    return value


@contextlib.contextmanager
def running(
    configuration: str,
    make_handler: Callable[[Worker], Callable[[Any], Any]],
    setup: Callable[[Worker], None] | None = None,
    **more: Any,
) -> Iterator[Running]:
    """An engine that serves ``make_handler(worker)(connection)`` on a loopback port."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    listener.setblocking(False)
    address = listener.getsockname()
    board = stats.Board(1)
    row = board.row(0)
    ours, theirs = socket.socketpair()
    http = any(name in more for name in ("threads", "max_requests", "on_overload"))  # not for a raw handler, or not all
    target = {"app" if http else "tcp": "tests:handler"}
    config = Config(**(target | options(configuration) | more))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of fork beside threads, those of xdist
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            ours.close()
            warnings.simplefilter("default")  # pytest has imported more than gevent likes to see, and it says so
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            prepare(config)
            worker = Worker(config, [Listening(listener)], row, theirs)
            if setup is not None:
                setup(worker)
            worker.handler = make_handler(worker)
            worker.attach()
            if config.threads:
                from stoker.pool import Pool

                worker.pool = Pool(config.threads)
            worker.engine = engines.load(config.engine)(worker)
            worker.engine.run()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    theirs.close()
    listener.close()
    engine = Running(address, pid, row, ours)
    try:
        until(lambda: row.state == stats.READY or engine_died(engine), 20, "the engine's start")
        yield engine
    finally:
        if engine.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        ours.close()


def engine_died(engine: Running) -> bool:
    pid, status = os.waitpid(engine.pid, os.WNOHANG)
    if pid:
        engine.status = os.waitstatus_to_exitcode(status)
        raise RuntimeError(f"the engine ended at its start with {engine.status}")
    return False

"""Handlers and clients that several contract tests use."""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Generator
from typing import Any

from tests.engines.harness import URING

from stoker.connection import BUSY, CALL, DONE, IDLE, RECV, WAITING, WOKEN, Connection
from stoker.worker import Worker

Steps = Generator[int, Any, None]
POOLED = ("nonblocking", "select", "poll", "epoll", "epoll-edge", "generator", "greenlet", "asyncio", *URING)
PRECISE = 0.025  # seconds that a deadline may be late
DATA = hashlib.shake_128(b"stoker").digest(1 << 22)
BLOCKING = ("process", "thread")  # a receive looks at its deadline once a second


def echo(worker: Worker) -> Callable[[Connection], Steps]:
    """Bytes come back."""

    def handler(connection: Connection) -> Steps:
        while True:
            connection.rest = WAITING
            data = yield RECV
            connection.rest = BUSY
            if not data:
                break
            connection.write(data)
        yield DONE

    return handler


def idle_echo(worker: Worker) -> Callable[[Connection], Steps]:
    """Between two messages the connection is idle, as HTTP's is, and may be closed to make room.

    The word ``busy`` makes it one that may not be closed, ``idle`` undoes that.
    """

    def handler(connection: Connection) -> Steps:
        busy = False
        while True:
            connection.rest = BUSY if busy else IDLE
            connection.since = connection.clock.now
            connection.deadline = connection.clock.now + 60
            data = yield RECV
            connection.rest = BUSY
            if not data:
                connection.linger = False
                break
            busy = data == b"busy" or (busy and data != b"idle")
            worker.count_request()
            connection.write(data)
        yield DONE

    return handler


class Job:
    """A job of one function; what it returns is kept."""

    def __init__(self, function: Callable[[], Any], dedicated: bool = False, cancel: Callable[[], Any] | None = None):
        self.function = function
        self.dedicated = dedicated
        self.cancelled = cancel
        self.result: Any = None

    def run(self) -> None:
        self.result = self.function()

    def cancel(self) -> None:
        if self.cancelled is not None:
            self.cancelled()


def call(connection: Connection, job: Job) -> Generator[int, Any, Any]:
    """Run a job; its result."""
    connection.job = job
    answer = yield CALL
    assert answer is None
    return job.result


def answer_name(answer: Any) -> Any:
    """An answer as a report can carry it."""
    if answer is WOKEN:
        return "WOKEN"
    return answer.decode() if isinstance(answer, bytes) else answer


def original(module: str, name: str) -> Any:
    """A function of the standard library as it was before gevent: for threads that are threads."""
    if "gevent.monkey" in sys.modules:
        return sys.modules["gevent.monkey"].get_original(module, name)
    return getattr(__import__(module), name)


def in_thread(function: Callable[[], Any]) -> None:
    """Run a function on a real thread of the kernel's."""
    original("_thread", "start_new_thread")(function, ())


def pause(seconds: float) -> None:
    """Really sleep, the whole thread."""
    original("time", "sleep")(seconds)


def exactly(client: socket.socket, count: int) -> bytes:
    """Read so many bytes; fewer if the stream ends."""
    pieces = []
    while count and (data := client.recv(min(count, 1 << 20))):
        pieces.append(data)
        count -= len(data)
    return b"".join(pieces)


def everything(client: socket.socket) -> bytes:
    """Read to the end of the stream."""
    return exactly(client, 1 << 40)


def ended(client: socket.socket) -> bool:
    """Read one byte: is it the end, orderly or not?"""
    try:
        return not client.recv(1)
    except ConnectionResetError:
        return True


def silent(client: socket.socket, seconds: float = 0.2) -> bool:
    """Nothing comes, not even the end."""
    before = client.gettimeout()
    client.settimeout(seconds)
    try:
        client.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return True
    finally:
        client.settimeout(before)
    return False


def reset(client: socket.socket) -> None:
    """Close with a RST."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def small_buffers(connection: Connection, size: int = 8192) -> None:
    """Make the kernel keep little of what is sent, so that a slow reader is felt."""
    sock = socket.socket(fileno=connection.fd)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
    sock.detach()


def slow_client(address: tuple[str, int], size: int = 8192) -> socket.socket:
    """A client whose kernel receives little ahead."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    client.settimeout(10)
    client.connect(address)
    return client


def best_of(measure: Callable[[], float], enough: float) -> float:
    """The smallest of a few measurements: what the engine takes, not what its neighbours on the machine take."""
    best = float("inf")
    for _ in range(12):
        best = min(best, measure())
        if best <= enough:
            break
    return best


def timed(function: Callable[[], Any]) -> float:
    start = time.monotonic()
    function()
    return time.monotonic() - start


def open_file(path: object) -> int:
    return os.open(str(path), os.O_RDONLY | os.O_CLOEXEC)

"""The system calls of the hot path in plain Python: for what is never compiled, and for an interpreted run.

In compiled modules inline functions of connection.pxd stand in their place, with the same names and meanings.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Generator
from time import monotonic
from typing import Any, Final

__all__ = [
    "CHUNK", "accept_now", "address_of", "epoll_change", "epoll_events", "epoll_free", "epoll_look", "event_bits",
    "event_fd", "monotonic", "recv_now", "resume", "send_now",
]  # fmt: skip

CHUNK: Final = 65536  # bytes asked for in one receive
_DONE = 4


def recv_now(fd: int) -> bytes | None:
    """Receive once: bytes, ``b""`` at the end of the stream, ``None`` if there is nothing yet. Raises OSError."""
    try:
        return os.read(fd, CHUNK)
    except BlockingIOError:
        return None


def recv_wait(fd: int) -> bytes | None:
    """Receive once from a blocking socket; ``None`` when SO_RCVTIMEO has passed. Raises OSError."""
    return recv_now(fd)


def send_now(fd: int, data: bytes, offset: int) -> int:
    """Send once from ``offset``; the number of bytes taken, -1 if the kernel is full. Raises OSError."""
    try:
        return os.write(fd, memoryview(data)[offset:] if offset else data)
    except BlockingIOError:
        return -1


def accept_now(listener: socket.socket) -> tuple[int, Any] | None:
    """Accept once: a non-blocking descriptor and the peer's address; ``None`` if nobody waits. Raises OSError."""
    try:
        sock, peer = listener.accept()
    except BlockingIOError:
        return None
    sock.setblocking(False)
    return sock.detach(), peer


def address_of(cells: memoryview[float]) -> memoryview[float]:
    """Where the numbers of a row are: a pointer in compiled modules."""
    return cells


def epoll_events(most: int) -> list[tuple[int, int]]:
    """Room for what epoll tells: a C array in compiled modules."""
    return []


def epoll_free(events: list[tuple[int, int]]) -> None:
    """Give the room back."""


def epoll_look(epoll: select.epoll, fd: int, events: list[tuple[int, int]], most: int, timeout: float) -> int:
    """Wait ``timeout`` seconds at most (0: only look); how many events there are. Raises OSError."""
    events[:] = epoll.poll(timeout, most)
    return len(events)


def event_fd(events: list[tuple[int, int]], index: int) -> int:
    """Which descriptor an event is of."""
    return events[index][0]


def event_bits(events: list[tuple[int, int]], index: int) -> int:
    """What is told of it."""
    return events[index][1]


def epoll_change(epoll: select.epoll, fd: int, operation: int, descriptor: int, events: int) -> None:
    """epoll_ctl(2): 1 adds, 2 removes, 3 changes. Raises OSError."""
    if operation == 1:
        epoll.register(descriptor, events)
    elif operation == 2:
        epoll.unregister(descriptor)
    else:
        epoll.modify(descriptor, events)


def resume(generator: Generator[int, Any, None], value: object) -> int:
    """Resume a handler with an answer; what it asks for next, DONE if it returned. Lets its exceptions through."""
    try:
        return generator.send(value)
    except StopIteration:
        return _DONE

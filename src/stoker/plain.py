"""The system calls of the hot path in plain Python: for what is never compiled, and for an interpreted run.

In compiled modules inline functions of connection.pxd stand in their place, with the same names and meanings.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any, Final

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


def resume(generator: Generator[int, Any, None], value: object) -> int:
    """Resume a handler with an answer; what it asks for next, DONE if it returned. Lets its exceptions through."""
    try:
        return generator.send(value)
    except StopIteration:
        return _DONE

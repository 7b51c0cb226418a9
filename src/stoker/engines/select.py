"""select(2): three bit maps, one bit for each descriptor, copied into the kernel and back at every call.

The maps have FD_SETSIZE = 1,024 bits, so a descriptor of 1,024 or more cannot be watched at all: C writes past the
map's end, Python raises ValueError. It is the *number* that counts, not how many are watched: a worker that has 1,000
files open has room for 24 connections. And every call costs time for all that is watched, as with poll(2).

select also tells less than poll: there is no bit for "the peer has reset the connection". Who waits for nothing but
that (an application's job is out, a handler sleeps) is asked by a write of no bytes now and then.
"""

from __future__ import annotations

import errno
import fcntl
import select
import socket
import time
from typing import Any

from stoker import log
from stoker.connection import Service
from stoker.engines import FD_SETSIZE
from stoker.engines.base import HUP, IN, OUT, peer_has_reset
from stoker.engines.readiness import Poller, ReadinessLoop
from stoker.errors import BootError

_PROBE = 0.1  # seconds between two looks at those that wait for nothing but a reset


class SelectPoller(Poller):
    """The sets for select(2), changed as connections change and never built anew. Level-triggered.

    ``add`` raises ValueError for a descriptor that select cannot watch.
    """

    def __init__(self) -> None:
        super().__init__()
        self._reading: set[int] = set()
        self._writing: set[int] = set()
        self._paused: set[int] = set()  # in neither
        self._probed = 0.0

    def add(self, fd: int, events: int) -> None:
        if fd >= FD_SETSIZE:
            raise ValueError(f"select(2) cannot watch descriptor {fd}: it must be below {FD_SETSIZE}")
        if self._has(fd):
            raise FileExistsError(errno.EEXIST, f"descriptor {fd} is registered already")
        self._put(fd, events)

    def change(self, fd: int, events: int) -> None:
        self.remove(fd)
        self._put(fd, events)

    def remove(self, fd: int) -> None:
        if not self._has(fd):
            raise FileNotFoundError(errno.ENOENT, f"descriptor {fd} is not registered")
        self._reading.discard(fd)
        self._writing.discard(fd)
        self._paused.discard(fd)

    def wait(self, timeout: float) -> list[tuple[int, int]]:
        if self._paused:
            timeout = min(timeout, _PROBE)
        readable, writable, _ = select.select(self._reading, self._writing, (), timeout)
        found = [(fd, IN) for fd in readable]
        if writable:
            found += [(fd, OUT) for fd in writable]
        if self._paused and time.monotonic() >= self._probed + _PROBE:
            self._probed = time.monotonic()
            found += [(fd, HUP) for fd in self._paused if peer_has_reset(fd)]
        return found

    def close(self) -> None:
        self._reading.clear()
        self._writing.clear()
        self._paused.clear()

    def _has(self, fd: int) -> bool:
        return fd in self._reading or fd in self._writing or fd in self._paused

    def _put(self, fd: int, events: int) -> None:
        if events & IN:
            self._reading.add(fd)
        if events & OUT:
            self._writing.add(fd)
        if not events & (IN | OUT):
            self._paused.add(fd)


class SelectEngine(ReadinessLoop):
    """``--engine select``. A connection whose descriptor is past FD_SETSIZE is refused at the door."""

    lowest_refused = FD_SETSIZE

    def __init__(self, service: Service) -> None:
        super().__init__(service, SelectPoller())
        for listener in service.listeners:
            if listener.fileno() >= FD_SETSIZE:
                self._move(listener)
        for fd in (self.bell, *service.watched):
            if fd >= FD_SETSIZE:
                raise BootError(_full(f"the worker's own descriptor {fd} cannot be watched"))

    @staticmethod
    def _move(listener: Any) -> None:
        """Give a listener that came with a high number (``fd://2000``) one that select can watch. Raises BootError."""
        sock: socket.socket = listener.sock
        fd = fcntl.fcntl(sock, fcntl.F_DUPFD_CLOEXEC, 3)
        moved = socket.socket(fileno=fd)
        if fd >= FD_SETSIZE:
            moved.close()
            raise BootError(_full(f"the listener's descriptor {sock.fileno()} cannot be watched"))
        log.info(f"a listener moves from descriptor {sock.fileno()} to {fd}, which select can watch")
        sock.close()
        listener.sock = moved


def _full(what: str) -> str:
    return (
        f"engine select: {what}, it must be below {FD_SETSIZE}, and no lower one is free: the application holds "
        f"too many files open (use --engine poll or epoll)"
    )

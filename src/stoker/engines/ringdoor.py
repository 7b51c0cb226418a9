"""What engine uring has in front of its connections: who is told of its few other descriptors, and who comes in."""

from __future__ import annotations

import os
import socket
from collections import deque
from typing import Any, Final

from stoker.connection import Connection, Service
from stoker.engines.accept import Door
from stoker.engines.readiness import Poller
from stoker.net.ring import Ring

# The kinds of requests that are no connection's, as engine uring numbers them all: the lowest three bits of a tag.
CANCEL: Final = 4
ACCEPT: Final = 5
POLL: Final = 6


class RingPoller(Poller):
    """Readiness of the few descriptors that are no connections (the bell, pipes, listeners), told once each time."""

    def __init__(self, ring: Ring) -> None:
        super().__init__()
        self._ring = ring
        self._tags: dict[int, int] = {}
        self._generation = 0

    def add(self, fd: int, events: int) -> None:
        """Watch; not again until it has fired. It fires at once if there is something already."""
        if fd in self._tags:
            raise FileExistsError(f"descriptor {fd} is registered already")
        self._generation = (self._generation + 1) & 0xFFFFFFFF
        self._tags[fd] = self._generation << 32 | fd << 3 | POLL
        self._ring.poll(fd, self._tags[fd], events, False)

    def change(self, fd: int, events: int) -> None:
        self.remove(fd)
        self.add(fd, events)

    def remove(self, fd: int) -> None:
        tag = self._tags.pop(fd, None)
        if tag is not None:  # else it has fired
            self._ring.cancel(tag, CANCEL)

    def watches(self, fd: int) -> bool:
        """Whether a descriptor is watched, so that it has not fired."""
        return fd in self._tags

    def fired(self, fd: int, tag: int) -> bool:
        """Whether a completion is of what is watched now; if so, it is watched no longer."""
        if self._tags.get(fd) != tag:
            return False
        del self._tags[fd]
        return True

    def wait(self, timeout: float) -> list[tuple[int, int]]:
        """Enter the ring. What has completed is more than readiness: the engine takes it out of the ring itself."""
        self._ring.enter(timeout)
        return []

    def close(self) -> None:
        self._ring.close()


class RingDoor(Door):
    """A door in front of which the kernel may have accepted already.

    :ivar early: the descriptors of those, oldest first, with their listener, by its id()
    :ivar self_accepting: the id() of listeners whose queue the kernel empties by itself
    """

    def __init__(self, service: Service, connections: set[Connection], cap: int) -> None:
        super().__init__(service, connections, cap)
        self.early: dict[int, tuple[Any, deque[int]]] = {}
        self.self_accepting: set[int] = set()

    def put(self, listener: Any, fd: int) -> None:
        """The kernel has accepted a connection."""
        self.early.setdefault(id(listener), (listener, deque()))[1].append(fd)

    def waiting(self) -> int:
        """How many the kernel has accepted too early."""
        return sum(len(fds) for _, fds in self.early.values())

    def waits(self, listener: Any) -> bool:
        return id(listener) in self.early or (listener.fileno() >= 0 and super().waits(listener))

    def fetch(self, listener: Any) -> tuple[int, Any] | None:
        while id(listener) in self.early:
            waiting = self.early[id(listener)][1]
            fd = waiting.popleft()
            if not waiting:
                del self.early[id(listener)]
            # Named by hand, an address family spares the socket three calls that ask for it.
            sock = socket.socket(listener.sock.family, socket.SOCK_STREAM, 0, fileno=fd)
            try:
                return fd, sock.getpeername()
            except OSError:
                os.close(fd)  # reset before it could be served
            finally:
                sock.detach()
        if id(listener) in self.self_accepting:
            return None
        return super().fetch(listener)

    def close(self) -> None:
        for _, waiting in self.early.values():
            for fd in waiting:
                os.close(fd)
        self.early.clear()
        super().close()

"""epoll(7): the kernel keeps the list of what is watched, and tells of what has become ready.

Level trigger tells as long as something is ready. Edge trigger tells once, when it becomes ready: then one must accept
and receive until the kernel has nothing more, or a client waits for ever for an answer to what was left in the socket.
"""

from __future__ import annotations

import select

from stoker.connection import Service
from stoker.engines.readiness import ReadinessLoop

_EDGE = select.EPOLLET | select.EPOLLRDHUP
_EVENTS = 512  # taken in one call


class EpollPoller:
    """One epoll object.

    :param edge: tell of changes only (EPOLLET), with EPOLLRDHUP, so that a short read has surely emptied the socket
    """

    def __init__(self, edge: bool) -> None:
        self.edge = edge
        self._flags = _EDGE if edge else 0
        self._epoll = select.epoll()

    def fileno(self) -> int:
        """The epoll object is a descriptor itself, readable when it has events: so it can be nested in another loop."""
        return self._epoll.fileno()

    def add(self, fd: int, events: int) -> None:
        self._epoll.register(fd, events | self._flags)

    def change(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events | self._flags)

    def remove(self, fd: int) -> None:
        self._epoll.unregister(fd)

    def wait(self, timeout: float) -> list[tuple[int, int]]:
        return self._epoll.poll(timeout, _EVENTS)

    def close(self) -> None:
        self._epoll.close()


class EpollEngine(ReadinessLoop):
    """``--engine epoll``, ``--trigger level|edge``."""

    def __init__(self, service: Service) -> None:
        super().__init__(service, EpollPoller(service.config.trigger == "edge"))

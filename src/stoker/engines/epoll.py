"""epoll(7): the kernel keeps the list of what is watched, and tells of what has become ready.

Level trigger tells as long as something is ready. Edge trigger tells once, when it becomes ready: then one must accept
and receive until the kernel has nothing more, or a client waits for ever for an answer to what was left in the socket.
"""

from __future__ import annotations

import select

from stoker.connection import Service
from stoker.engines.readiness import Poller, ReadinessLoop

try:
    import cython
except ImportError:
    from stoker import nocython as cython

if not cython.compiled:
    from stoker.plain import epoll_change, epoll_events, epoll_free, epoll_look, event_bits, event_fd

_EDGE = select.EPOLLET | select.EPOLLRDHUP
_EVENTS = 512  # taken in one call
_ADD, _REMOVE, _CHANGE = 1, 2, 3  # EPOLL_CTL_ADD and so on


class EpollPoller(Poller):
    """One epoll object.

    :param edge: tell of changes only (EPOLLET), with EPOLLRDHUP, so that a short read has surely emptied the socket
    """

    def __init__(self, edge: bool) -> None:
        super().__init__(edge)
        self._flags = _EDGE if edge else 0
        self._epoll = select.epoll()
        self._fd = self._epoll.fileno()
        self._events = epoll_events(_EVENTS)

    def fileno(self) -> int:
        """The epoll object is a descriptor itself, readable when it has events: so it can be nested in another loop."""
        return self._fd

    def add(self, fd: int, events: int) -> None:
        epoll_change(self._epoll, self._fd, _ADD, fd, events | self._flags)

    def change(self, fd: int, events: int) -> None:
        epoll_change(self._epoll, self._fd, _CHANGE, fd, events | self._flags)

    def remove(self, fd: int) -> None:
        epoll_change(self._epoll, self._fd, _REMOVE, fd, 0)

    def wait(self, timeout: float) -> list[tuple[int, int]]:
        return self._epoll.poll(timeout, _EVENTS)

    def collect(self, timeout: float) -> int:
        return epoll_look(self._epoll, self._fd, self._events, _EVENTS, timeout)

    def fd_of(self, index: int) -> int:
        return event_fd(self._events, index)

    def bits_of(self, index: int) -> int:
        return event_bits(self._events, index)

    def close(self) -> None:
        if not self._epoll.closed:
            self._epoll.close()
            epoll_free(self._events)


class EpollEngine(ReadinessLoop):
    """``--engine epoll``, ``--trigger level|edge``."""

    def __init__(self, service: Service) -> None:
        super().__init__(service, EpollPoller(service.config.trigger == "edge"))

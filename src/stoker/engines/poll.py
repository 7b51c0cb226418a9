"""poll(2): the program keeps the list of what is watched, and hands all of it to the kernel at every call.

There is no highest descriptor as with select(2), but the cost is the same in kind: a turn costs time for every
connection, busy or not, since the kernel looks at each and returns the whole list, and the list is searched for what
has become ready. With ten connections that is nothing; with ten thousand idle ones it is all that the server does.
"""

from __future__ import annotations

import errno
import select

from stoker.connection import Service
from stoker.engines.readiness import Poller, ReadinessLoop


class PollPoller(Poller):
    """One list of descriptors for poll(2). Level-triggered: what is ready is told until it is dealt with."""

    def __init__(self) -> None:
        super().__init__()
        self._poll = select.poll()
        self._watched: set[int] = set()  # poll objects take a second registration in silence

    def add(self, fd: int, events: int) -> None:
        if fd in self._watched:
            raise FileExistsError(errno.EEXIST, f"descriptor {fd} is registered already")
        self._poll.register(fd, events)
        self._watched.add(fd)

    def change(self, fd: int, events: int) -> None:
        self._poll.modify(fd, events)

    def remove(self, fd: int) -> None:
        self._poll.unregister(fd)
        self._watched.remove(fd)

    def wait(self, timeout: float) -> list[tuple[int, int]]:
        return self._poll.poll(timeout * 1000)  # milliseconds, rounded up: a timer is never looked at too early

    def close(self) -> None:
        self._watched.clear()


class PollEngine(ReadinessLoop):
    """``--engine poll``."""

    def __init__(self, service: Service) -> None:
        super().__init__(service, PollPoller())

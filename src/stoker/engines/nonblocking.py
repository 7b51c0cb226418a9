"""No readiness call at all: every socket is non-blocking, and each is tried in turn.

This is what one can do with nothing but O_NONBLOCK (fcntl(2)): try accept, try each connection, and take EAGAIN for
"not yet". So a turn costs a system call for every connection, ready or not, and the question "is anything ready?" is
never answered by waiting: either the loop spins and burns a core (``--spin``), or it pauses and is late by the length
of the pause. Here the pause starts at 50 µs when nothing happens, doubles up to 10 ms, and is dropped as soon as
something does.

To try costs; to wait for nothing costs nothing. That is what select(2), poll(2) and epoll(7) are for.
"""

from __future__ import annotations

import errno
import time

from stoker.connection import Service
from stoker.engines.base import HUP, IN, OUT, peer_has_reset
from stoker.engines.readiness import Poller, ReadinessLoop

_SHORTEST = 0.00005  # seconds
_LONGEST = 0.01
_PROBE = 0.1  # seconds between two looks at those that wait for nothing but a reset


class NonblockingPoller(Poller):
    """Says of every descriptor that it may be ready for what it is watched for. The loop finds out by trying.

    :param spin: never pause
    """

    def __init__(self, spin: bool) -> None:
        super().__init__()
        self.spin = spin
        self.loop: ReadinessLoop | None = None  # whose progress ends the pause
        self._watched: dict[int, int] = {}
        self._perhaps: list[tuple[int, int]] | None = []  # the answer of `wait`; None when it must be made anew
        self._paused: list[int] = []
        self._probed = 0.0
        self._pause = 0.0
        self._seen = 0

    def add(self, fd: int, events: int) -> None:
        if fd in self._watched:
            raise FileExistsError(errno.EEXIST, f"descriptor {fd} is registered already")
        self._watched[fd] = events
        self._perhaps = None

    def change(self, fd: int, events: int) -> None:
        if fd not in self._watched:
            raise FileNotFoundError(errno.ENOENT, f"descriptor {fd} is not registered")
        self._watched[fd] = events
        self._perhaps = None

    def remove(self, fd: int) -> None:
        if fd not in self._watched:
            raise FileNotFoundError(errno.ENOENT, f"descriptor {fd} is not registered")
        del self._watched[fd]
        self._perhaps = None

    def wait(self, timeout: float) -> list[tuple[int, int]]:
        if not self.spin:
            self._idle(timeout)
        if self._perhaps is None:
            self._perhaps = [item for item in self._watched.items() if item[1]]
            self._paused = [fd for fd, events in self._watched.items() if not events & (IN | OUT)]
        if self._paused and time.monotonic() >= self._probed + _PROBE:
            self._probed = time.monotonic()
            return self._perhaps + [(fd, HUP) for fd in self._paused if peer_has_reset(fd)]
        return self._perhaps

    def close(self) -> None:
        self._watched.clear()

    def _idle(self, timeout: float) -> None:
        """Pause, the longer the longer nothing has happened: no handler has had an answer, no byte has gone out."""
        progress = self.loop.progress if self.loop is not None else 0
        if progress != self._seen:
            self._seen = progress
            self._pause = 0.0
        elif timeout > 0:
            self._pause = min(self._pause * 2 or _SHORTEST, _LONGEST)
            time.sleep(min(self._pause, timeout))


class NonblockingEngine(ReadinessLoop):
    """``--engine nonblocking``, ``--spin``."""

    def __init__(self, service: Service) -> None:
        poller = NonblockingPoller(service.config.spin)
        super().__init__(service, poller)
        poller.loop = self

"""Deadlines of many connections, kept lazily.

A deadline moves with every request and hardly ever comes. So a connection is filed once, under the earliest deadline it
has had; when that comes up and the real one lies later, it is filed again. A request costs one comparison.

Connections that come up at about the same time share one list, so that an idle one costs a pointer and not an entry of
a heap. How far "about" goes depends on how far away it is.
"""

from __future__ import annotations

from heapq import heappop, heappush

from stoker.connection import INFINITY, Connection

try:
    import cython
except ImportError:
    from stoker import nocython as cython

if not cython.compiled:
    from math import ceil

    from stoker.plain import monotonic

_NEAR = 2.0  # seconds from now that are still near
_FINE = 1024.0  # steps in a second, for what is near: a sleep shall not be much longer than it was asked to be
_COARSE = 8.0  # ... and for what is not: so much later a client may be told that it was too slow


class Timers:
    """The deadlines of one loop, in seconds of ``time.monotonic()``."""

    def __init__(self) -> None:
        self._heap: list[float] = []
        self._due: dict[float, list[Connection]] = {}
        self._next = INFINITY

    def file(self, connection: Connection, when: float) -> None:
        """Have ``connection`` come up at ``when``, or an eighth of a second later if that is far away."""
        if when >= connection.filed:
            return
        steps = _FINE if when < monotonic() + _NEAR else _COARSE
        step = ceil(when * steps) / steps
        if step < connection.filed:
            connection.filed = step
            filed = self._due.get(step)
            if filed is None:
                self._due[step] = [connection]
                heappush(self._heap, step)
                self._next = self._heap[0]
            else:
                filed.append(connection)

    def next(self) -> float:
        """When the first entry comes up; INFINITY if there is none."""
        return self._next

    def due(self, now: float) -> list[Connection]:
        """Take out what has come up by ``now``; a connection closed (``fd`` < 0) or refiled since is passed over."""
        due: list[Connection] = []
        while self._heap and self._heap[0] <= now:
            step = heappop(self._heap)
            for connection in self._due.pop(step):
                if connection.filed == step:
                    connection.filed = INFINITY
                    if connection.fd >= 0:
                        due.append(connection)
        self._next = self._heap[0] if self._heap else INFINITY
        return due

"""Deadlines of many connections, kept lazily.

A deadline moves with every request and hardly ever comes. So a connection is filed in the heap once, under the earliest
deadline it has had; when that comes up and the real one lies later, it is filed again. A request costs one comparison.
"""

from __future__ import annotations

from heapq import heappop, heappush

from stoker.connection import INFINITY, Connection


class Timers:
    """The deadlines of one loop, in seconds of ``time.monotonic()``."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Connection]] = []
        self._serial = 0

    def file(self, connection: Connection, when: float) -> None:
        """Have ``connection`` come up at ``when`` or before."""
        if when < connection.filed:
            connection.filed = when
            self._serial += 1
            heappush(self._heap, (when, self._serial, connection))

    def next(self) -> float:
        """When the first entry comes up; INFINITY if there is none."""
        return self._heap[0][0] if self._heap else INFINITY

    def due(self, now: float) -> list[Connection]:
        """Take out what has come up by ``now``; a connection closed (``fd`` < 0) or refiled since is passed over."""
        due: list[Connection] = []
        heap = self._heap
        while heap and heap[0][0] <= now:
            when, _, connection = heappop(heap)
            if connection.filed == when:
                connection.filed = INFINITY
                if connection.fd >= 0:
                    due.append(connection)
        return due

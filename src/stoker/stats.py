"""Counters and states in memory that the master and its workers share.

A board is an anonymous shared mapping (mmap(2), MAP_SHARED | MAP_ANONYMOUS) made before fork(2), so there is no file,
no name and nothing to clean up: it is gone with the last process that has it. It is cut into rows of float64 cells.
**One process writes a row** (the master clears it while no worker owns it), so no lock is needed; a reader may see
one cell new and another old, but never half a number, for an aligned 8-byte store is whole on every machine that
Stoker runs on.

A hot path uses ``put``, ``add`` and ``count``, which are a store in memory where this is compiled.
"""

import itertools
import mmap
from collections.abc import Iterator

try:
    import cython
except ImportError:
    from stoker import nocython as cython

if not cython.compiled:
    from stoker.plain import address_of

PID, STATE, TURN, BUSY, CONNECTIONS, ACCEPTED, REQUESTS, REFUSED, IDLE_SINCE, REQUEST_SINCE, ERRORS = range(11)

WIDTH = 16  # cells in a row: two cache lines of 64 bytes, so that two writers never share one
_BYTES = WIDTH * 8

# The values of `state`, in the order of a worker's life.
STARTING, READY, RETIRING, DRAINING, ENDING = range(5)
STATES = ("starting", "ready", "retiring", "draining", "ending")


def _cell(index: int, text: str) -> property:
    """An attribute that is the cell `index` of the row."""

    def read(row: "Row") -> float:
        return row.cells[index]

    def write(row: "Row", value: float) -> None:
        row.cells[index] = value

    return property(read, write, doc=text)


class Row:
    """What one process says of itself. Every cell is a float, 0.0 until it is written."""

    __slots__ = ("cells", "counter", "index", "numbers")

    def __init__(self, cells: "memoryview[float]", index: int) -> None:
        self.cells = cells
        self.index = index
        self.counter = itertools.count(1)
        self.numbers = address_of(cells)

    pid = _cell(PID, "The process that owns the row; 0: nobody does.")
    state = _cell(STATE, "STARTING, READY, RETIRING, DRAINING or ENDING.")
    turn = _cell(TURN, "When the loop last turned, in seconds of time.monotonic(); 0 until it has begun.")
    busy = _cell(BUSY, "How many application calls run where they hold the loop up, now.")
    connections = _cell(CONNECTIONS, "How many connections are open now.")
    accepted = _cell(ACCEPTED, "How many connections were ever accepted.")
    requests = _cell(REQUESTS, "How many requests were ever begun.")
    refused = _cell(REFUSED, "How many connections were turned away because of a limit.")
    idle_since = _cell(IDLE_SINCE, "Since when no request has been in work, time.monotonic(); 0: one is.")
    request_since = _cell(
        REQUEST_SINCE, "Since when the oldest request in work has been, time.monotonic(); 0: none is."
    )
    errors = _cell(ERRORS, "How many requests ended with a 500 or were broken off by a fault of the application.")

    def put(self, index: int, value: float) -> None:
        """Set the cell ``index``."""
        self.numbers[index] = value

    def add(self, index: int, value: float) -> None:
        """Add to the cell ``index``; by one thread."""
        self.numbers[index] += value

    def count(self) -> int:
        """One request more, by any thread; which it was."""
        number = next(self.counter)
        self.numbers[REQUESTS] = number
        return number

    def clear(self) -> None:
        """Set every cell to zero."""
        self.cells[:] = _ZEROS


class Board:
    """A table of rows in shared memory.

    :param rows: how many; a row that nobody has written to costs no memory (the kernel gives pages at the first write)
    :raises ValueError: when `rows` is less than 1
    :raises OSError: when the kernel has no memory for it
    """

    def __init__(self, rows: int) -> None:
        if rows < 1:
            raise ValueError(f"a board needs at least one row, not {rows}")
        self._cells = memoryview(mmap.mmap(-1, rows * _BYTES)).cast("d")
        self._rows = rows

    def __len__(self) -> int:
        return self._rows

    def row(self, index: int) -> Row:
        """The row of this number, from 0. Raises IndexError."""
        if not 0 <= index < self._rows:
            raise IndexError(f"row {index} of a board of {self._rows}")
        return Row(self._cells[index * WIDTH : (index + 1) * WIDTH], index)

    def __iter__(self) -> Iterator[Row]:
        return (self.row(index) for index in range(self._rows))


_ZEROS = memoryview(bytes(_BYTES)).cast("d")

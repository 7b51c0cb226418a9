"""Statistics for people: what the key `s` shows, from the board."""

import time
from collections.abc import Iterable, Sequence

from stoker.stats import ACCEPTED, ERRORS, READY, REFUSED, REQUESTS, STATES, WIDTH, Row
from stoker.supervisor.process import Worker

_COUNTERS = (ACCEPTED, REQUESTS, REFUSED, ERRORS)


class Totals:
    """What the workers that are gone have counted."""

    def __init__(self) -> None:
        self._cells = [0.0] * WIDTH

    def add(self, row: Row) -> None:
        """Take over the counters of a worker that has ended."""
        for cell in _COUNTERS:
            self._cells[cell] += row.cells[cell]

    def sum(self, rows: Iterable[Row]) -> dict[str, int]:
        """All that was ever counted, with the rows of the living."""
        cells = list(self._cells)
        for row in rows:
            for cell in _COUNTERS:
                cells[cell] += row.cells[cell]
        names = ("accepted", "requests", "refused", "errors")
        return {name: int(cells[cell]) for name, cell in zip(names, _COUNTERS, strict=True)}


def lines(workers: Sequence[Worker], totals: Totals) -> list[str]:
    """One line for everything, one for each worker."""
    now = time.monotonic()
    total = totals.sum(worker.row for worker in workers)
    connections = int(sum(worker.row.connections for worker in workers))
    head = (
        f"{_count(len(workers), 'worker')}, {_count(connections, 'connection')} open; since the start "
        f"{total['accepted']} accepted, {total['refused']} refused, {_count(total['requests'], 'request')}, "
        f"{_count(total['errors'], 'error')}"
    )
    return [head, *(_line(worker, now) for worker in sorted(workers, key=lambda worker: worker.number))]


def _line(worker: Worker, now: float) -> str:
    row = worker.row
    parts = [
        f"{worker}: {state(worker)} for {now - worker.born:.0f} s",
        _count(int(row.connections), "connection"),
        _count(int(row.requests), "request"),
    ]
    if row.request_since > 0:
        parts.append(f"the oldest under way for {now - row.request_since:.1f} s")
    if row.errors:
        parts.append(_count(int(row.errors), "error"))
    return ", ".join(parts)


def state(worker: Worker) -> str:
    """What a worker says of its state; one that has not begun to say anything is what the master knows of it."""
    number = int(worker.row.state)
    if number == 0 and worker.ready:
        number = READY
    return STATES[number]


def _count(number: int, name: str) -> str:
    return f"{number} {name}" if number == 1 else f"{number} {name}s"

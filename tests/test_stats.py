"""The board: cells by attribute, rows apart, shared across fork."""

import os
import time

import pytest

from stoker import stats
from stoker.stats import Board


def test_every_cell_is_zero_then_holds_what_was_written() -> None:
    row = Board(3).row(1)
    names = [
        "pid",
        "state",
        "turn",
        "busy",
        "connections",
        "accepted",
        "requests",
        "refused",
        "idle_since",
        "request_since",
        "errors",
    ]
    assert [getattr(row, name) for name in names] == [0.0] * len(names)
    for number, name in enumerate(names, 1):
        setattr(row, name, number)
    assert [getattr(row, name) for name in names] == [float(number) for number in range(1, len(names) + 1)]
    assert row.cells[stats.REQUESTS] == row.requests
    row.requests += 5
    assert row.requests == 12.0
    row.clear()
    assert list(row.cells) == [0.0] * stats.WIDTH


def test_rows_do_not_touch_each_other() -> None:
    board = Board(3)
    for index, row in enumerate(board):
        row.cells[:] = memoryview(bytes(stats.WIDTH * 8)).cast("d")
        row.cells[0] = row.cells[stats.WIDTH - 1] = index + 1
    assert [(row.cells[0], row.cells[stats.WIDTH - 1]) for row in board] == [(1, 1), (2, 2), (3, 3)]
    assert len(board) == 3


@pytest.mark.parametrize("index", [-1, 2])
def test_a_row_that_is_not_there(index: int) -> None:
    with pytest.raises(IndexError, match=f"row {index} of a board of 2"):
        Board(2).row(index)


def test_an_empty_board_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        Board(0)


def test_a_misspelt_cell_is_an_error() -> None:
    with pytest.raises(AttributeError):
        Board(1).row(0).conections = 1  # type: ignore[attr-defined]


def test_a_childs_writes_are_seen_by_its_parent() -> None:
    board = Board(2)
    row = board.row(1)
    pid = os.fork()
    if not pid:
        board.row(1).pid = os.getpid()
        board.row(1).turn = time.monotonic()
        os._exit(0)
    assert os.waitpid(pid, 0) == (pid, 0)
    assert row.pid == pid
    assert 0 < row.turn <= time.monotonic()

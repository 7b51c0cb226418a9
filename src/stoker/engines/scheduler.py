"""A scheduler of plain generators over epoll(7).

The classic first coroutine in Python is a generator that stops at each ``yield``, and another one that goes on with it
by ``next``. A scheduler is the third party that this lacks: tasks yield to *it* and say what they wait for, and it
resumes each when that has come. No task needs to know another one, and one that waits for a socket costs nothing.

A task is a generator that yields one of four traps and is resumed with the trap's answer:

====================  ==============================================  ==============================================
``READ, fd, until``   the descriptor has something to read            its events, or None when ``until`` has passed
``WRITE, fd, until``  the descriptor has room                         the same
``SLEEP, fd, until``  ``until`` has passed, or ``fd`` has failed      the same; ``fd`` may be -1
``TURN, -1, 0.0``     everybody else has had a turn                   None
====================  ==============================================  ==============================================

``until`` is in seconds of ``time.monotonic()``. Whatever a task waits for, ``resume`` answers it early.

Fairness: in each turn a task takes at most one step, so a task that is always ready delays the others by one step.
"""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Callable, Generator
from heapq import heappop, heappush
from typing import Any, Final

from stoker import log
from stoker.connection import INFINITY
from stoker.engines.base import IN, OUT

READ: Final = 0
WRITE: Final = 1
SLEEP: Final = 2
TURN: Final = 3

Trap = tuple[int, int, float]
Steps = Generator[Trap, Any, None]

_INTEREST = (IN, OUT, 0, 0)  # by trap: what epoll is asked for; a failure is told in any case
_EVENTS = 512


class Task:
    """A generator that a scheduler runs.

    :ivar done: it has ended
    :ivar fd: the descriptor that it waits for; -1: none
    :ivar until: when it comes back at the latest
    """

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.done = False
        self.fd = -1
        self.until = INFINITY
        self.queued = False  # it is ready: `answer` waits for it
        self.answer: Any = None
        self.filed = INFINITY  # its earliest place among the sleepers
        self.joiners: list[Task] = []


class Scheduler:
    """Runs tasks until it is told to stop."""

    def __init__(self, tick: Callable[[], None]) -> None:
        self.tick = tick
        self.tasks: set[Task] = set()
        self.current: Task | None = None
        self._epoll = select.epoll()
        self._interest: dict[int, int] = {}  # what epoll watches a descriptor for
        self._waiting: dict[int, Task] = {}
        self._ready: deque[Task] = deque()
        self._sleepers: list[tuple[float, int, Task]] = []
        self._serial = 0

    def spawn(self, steps: Steps) -> Task:
        """Run a generator as a task; its first step is in the next turn."""
        task = Task(steps)
        self.tasks.add(task)
        self.resume(task, None)
        return task

    def join(self, task: Task) -> Steps:
        """Wait for the end of a task: ``yield from scheduler.join(task)``."""
        if self.current is not None:
            while not task.done:
                task.joiners.append(self.current)
                yield SLEEP, -1, INFINITY

    def resume(self, task: Task, answer: object) -> None:
        """Have a task go on in the next turn, whatever it waits for."""
        if not task.queued and not task.done:
            task.queued = True
            task.answer = answer
            if task.fd >= 0:
                del self._waiting[task.fd]
                task.fd = -1
            task.until = INFINITY
            self._ready.append(task)

    def kill(self, task: Task) -> None:
        """End a task now: its ``finally`` runs. Not for the task that is running, which can simply return."""
        if not task.done:
            self.resume(task, None)  # it waits for nothing any more
            self._end(task)

    def forget(self, fd: int) -> None:
        """A descriptor is about to be closed."""
        if fd in self._interest:
            del self._interest[fd]
            self._epoll.unregister(fd)

    def turn(self) -> None:
        """Wait until something is ready, and give each task that is ready one step."""
        timeout = 0.0
        if not self._ready:
            timeout = max(0.0, self._sleepers[0][0] - time.monotonic()) if self._sleepers else -1.0
        for fd, events in self._epoll.poll(timeout, _EVENTS):
            waiting = self._waiting.get(fd)
            if waiting is not None:
                self.resume(waiting, events)
            else:
                self._watch(fd, 0)  # nobody waits for it: do not ask again
                if events & ~(IN | OUT):
                    self.forget(fd)  # a failure is told for ever, asked for or not
        self.tick()
        now = time.monotonic()
        while self._sleepers and self._sleepers[0][0] <= now:
            self._come_up(*heappop(self._sleepers), now)
        for _ in range(len(self._ready)):
            self._step(self._ready.popleft())

    def close(self) -> None:
        """End all tasks and give the epoll object back."""
        for task in list(self.tasks):
            self.kill(task)
        self._epoll.close()

    def _step(self, task: Task) -> None:
        """Resume a task, and note what it waits for next."""
        if task.done:
            return
        task.queued = False
        answer, task.answer = task.answer, None
        self.current = task
        try:
            trap, fd, until = task.steps.send(answer)
        except StopIteration:
            self._end(task)
            return
        except Exception:
            log.exception("a task failed")
            self._end(task)
            return
        finally:
            self.current = None
        if trap == TURN:
            self.resume(task, None)
            return
        if fd >= 0:
            task.fd = fd
            self._waiting[fd] = task
            if self._interest.get(fd) != _INTEREST[trap]:
                self._watch(fd, _INTEREST[trap])
        task.until = until
        if until < task.filed:
            self._file(task, until)

    def _watch(self, fd: int, events: int) -> None:
        """Ask epoll about a descriptor. It stays registered: a task that waits for the same again costs no call."""
        if fd in self._interest:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._interest[fd] = events

    def _file(self, task: Task, when: float) -> None:
        task.filed = when
        self._serial += 1
        heappush(self._sleepers, (when, self._serial, task))

    def _come_up(self, when: float, _: int, task: Task, now: float) -> None:
        """A time has come up; perhaps one that its task has long put off."""
        if task.done or task.filed != when:
            return
        task.filed = INFINITY
        if task.until <= now:
            self.resume(task, None)
        elif task.until < INFINITY:
            self._file(task, task.until)

    def _end(self, task: Task) -> None:
        task.done = True
        self.tasks.discard(task)
        try:
            task.steps.close()
        except Exception:
            log.exception("a task failed while it was being closed")
        for joiner in task.joiners:
            self.resume(joiner, None)

"""A process per connection: fork(2), and the child serves the connection from its first byte to its last.

The oldest model, and the one with the strongest walls: what a connection breaks (memory, a crash, an endless loop)
breaks in a process that nobody else lives in. It costs a fork for each connection, and nothing that the application
keeps in memory is shared with the next one: the pages are copied when they are written (copy on write).

The parent accepts, closes its copy of the socket, and runs no other thread, since fork copies only the thread that
calls it, with the locks of all. It tells children what to do by signals, which are what worker and master use between
them: SIGTERM drain, SIGHUP retire, SIGINT end now. Each child counts in a row of shared memory.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections import deque
from types import FrameType

from stoker import log, stats
from stoker.connection import STOPPING, Connection, Service
from stoker.engines.acceptloop import AcceptLoop
from stoker.engines.child import HEARD, address, run_child

_LAST_WORDS = 2.0  # seconds that a child which has to end now is given for its `finally`, before SIGKILL
_ORPHANS_WORDS = 0.3  # the same when the master has died
_SUMMING = 0.1  # seconds between two sums over all children


class Child:
    """A child as its parent sees it.

    :ivar asked: told to go, to make room
    """

    __slots__ = ("asked", "connection", "pid", "row")

    def __init__(self, pid: int, connection: Connection, row: stats.Row) -> None:
        self.pid = pid
        self.connection = connection
        self.row = row
        self.asked = False


class ProcessEngine(AcceptLoop):
    """``--engine process``: the parent's side."""

    orphan_time = 0.4  # a child per connection, and no master: that must not stay

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self.pid = os.getpid()
        self.board = stats.Board(service.cap)
        self.free = deque(self.board)
        self.children: dict[int, Child] = {}
        self.requests = 0.0  # of children that have ended
        self.errors = 0.0
        self._summed = 0.0
        self._last_words = _LAST_WORDS
        self.door.make_room = self._make_room

    def run(self) -> None:
        signal.signal(signal.SIGCHLD, _nothing)  # that there is a handler makes the wakeup descriptor speak
        sys.stdout.flush()  # or each child would print again what the application printed when it was imported
        sys.stderr.flush()
        gc.collect()
        gc.freeze()  # a collection in a child writes to no object of ours, so their pages stay shared
        super().run()

    def begin(self, connection: Connection) -> None:
        row = self.free.popleft()
        self.connections.add(connection)
        self.row.connections = len(self.connections)
        # Until it has its own handlers a child would write a signal's number to the pipe that it shares with us.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
        try:
            pid = os.fork()
        except OSError as error:
            self.door.say(f"cannot fork: {error.strerror}: a connection is closed (--max-connections, ulimit -u)")
            self.row.refused += 1
            self.free.append(row)
            self.ended(connection)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            return
        if pid == 0:
            run_child(self, connection, row, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(connection.fd)
        connection.fd = -1
        self.children[pid] = Child(pid, connection, row)

    def signalled(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self.reap()
        elif number == signal.SIGUSR1:
            self.tell(number)

    def turned(self) -> None:
        if self.clock.now >= self._summed + _SUMMING:
            self._summed = self.clock.now
            children = self.children.values()
            self.service.requests_are(int(self.requests + sum(child.row.requests for child in children)))
            self.row.errors = self.errors + sum(child.row.errors for child in children)

    def changed(self) -> None:
        if self.service.phase < STOPPING:
            self.tell(signal.SIGHUP)
        super().changed()

    def forget(self, fd: int) -> None:
        """What ends while a worker lives is the stream from its master."""
        self._last_words = _ORPHANS_WORDS
        super().forget(fd)

    def rouse(self, fresh: bool = False) -> None:
        if not fresh:  # a child keeps the time itself
            self.tell(signal.SIGTERM)

    def tell(self, number: int) -> None:
        """Send a signal to every child."""
        for pid in self.children:
            os.kill(pid, number)  # always ours: a child that has ended keeps its number until it is reaped

    def reap(self) -> None:
        """Take note of the children that have ended. One that is the application's own is left to the application."""
        while self.children:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None:
                return
            if found.si_pid not in self.children:
                for pid in list(self.children):
                    self._reap(pid)
                return
            self._reap(found.si_pid)

    def _reap(self, pid: int) -> None:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if not ended:
            return
        child = self.children.pop(pid)
        if status and not child.connection.failure:
            how = f"ended with status {os.WEXITSTATUS(status)}"
            if os.WIFSIGNALED(status):
                how = f"was ended by {signal.Signals(os.WTERMSIG(status)).name}"
            log.error(f"the process {pid} of {address(child.connection)} {how}")
        self.requests += child.row.requests
        self.errors += child.row.errors
        child.row.clear()
        self.free.append(child.row)
        self.ended(child.connection)

    def abort(self, reason: str) -> None:
        for child in self.children.values():
            child.connection.failure = reason
        self.tell(signal.SIGINT)
        self._await_end(self._last_words)
        self.tell(signal.SIGKILL)
        self._await_end(1.0)

    def _await_end(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        self.reap()
        while self.children and time.monotonic() < deadline:
            time.sleep(0.005)
            self.reap()

    def _make_room(self) -> bool:
        """Ask the child that has been idle longest to go. One that has just become busy goes after its answer."""
        idle = [
            (since, pid) for pid, child in self.children.items() if (since := child.row.idle_since) and not child.asked
        ]
        if not idle:
            return False
        pid = min(idle)[1]
        self.children[pid].asked = True
        os.kill(pid, signal.SIGTERM)
        return True


def _nothing(number: int, frame: FrameType | None) -> None:
    """The loop does the work, when the wakeup descriptor speaks."""

"""generator: the accept loop, the timers and the connections are plain generators in one scheduler.

No ``async``, no ``await``, no callbacks: every part of the server is a loop that reads from top to bottom and yields
where it has to wait. ``scheduler.py`` says what may be yielded.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Callable, Generator
from typing import Any

from stoker import log
from stoker.connection import (
    AWAY,
    BUSY,
    CALL,
    DONE,
    DRAIN,
    IDLE,
    INFINITY,
    RECV,
    WOKEN,
    Connection,
    Service,
    shutdown,
)
from stoker.connection import SLEEP as SLEEP_UNTIL
from stoker.engines.base import TICK, Engine, close_handler
from stoker.engines.blocking import watch_progress
from stoker.engines.scheduler import READ, SLEEP, TURN, WRITE, Scheduler, Steps, Task, Trap
from stoker.plain import recv_now, resume

_LINGER = 2.0  # seconds after its last byte that a peer is given to close its own end
_LINGER_MAX = 10.0  # ... and in all


class GeneratorEngine(Engine):
    """``--engine generator``."""

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self.write_timeout: float = service.config.write_timeout
        self.scheduler = Scheduler(self.tick)
        self.tasks: dict[Connection, Task] = {}
        self.acceptors: list[Task] = []
        self.keeper: Task | None = None
        self.listening = False
        self.bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.rung = False
        self.woken: deque[Connection] = deque()  # filled by wake(), from any thread
        self.finished: deque[Task] = deque()  # whose jobs have ended, from pool threads

    def run(self) -> None:
        self.tick()
        main = self.scheduler.spawn(self.main())
        try:
            while not main.done:
                self.scheduler.turn()
        finally:
            self.scheduler.close()
            self.door.close()
            os.close(self.bell)

    def tick(self) -> None:
        """Look at the clock, and show the master that the loop turns."""
        self.clock.now = self.row.turn = time.monotonic()

    # The tasks of the server itself.

    def main(self) -> Steps:
        """Start the others; over when the housekeeper has seen the service stop."""
        self.scheduler.spawn(self.hear_the_bell())
        for fd, function in self.service.watched.items():
            self.scheduler.spawn(self.watch(fd, function))
        self.listen(True)
        self.keeper = self.scheduler.spawn(self.keep_house())
        self.service.ready()
        yield from self.scheduler.join(self.keeper)

    def accept(self, listener: Any) -> Steps:
        """Take what comes at a listener, and start a task for each."""
        while self.listening:
            yield READ, listener.fileno(), INFINITY
            self.take(listener)
        self.scheduler.forget(listener.fileno())

    def watch(self, fd: int, function: Callable[[], None]) -> Steps:
        """Call a function each time that a descriptor is readable."""
        while fd in self.service.watched:
            yield READ, fd, INFINITY
            function()

    def hear_the_bell(self) -> Steps:
        """Resume the tasks that other threads have named."""
        while True:
            yield READ, self.bell, INFINITY
            os.eventfd_read(self.bell)
            self.rung = False
            for _ in range(len(self.finished)):
                self.scheduler.resume(self.finished.popleft(), None)
            for _ in range(len(self.woken)):
                connection = self.woken.popleft()
                if connection.wakeable and connection.woken and connection.ask in (RECV, DRAIN, SLEEP_UNTIL):
                    self.scheduler.resume(self.tasks[connection], WOKEN)

    def keep_house(self) -> Steps:
        """What has to be looked at now and then: closed doors, refused clients, the way to the end."""
        while True:
            self.door.tick()
            if not self.listening and self.service.listeners and self.door.open():
                self.listen(True)
            if self.service.phase and self.stopped():
                return
            now = time.monotonic()
            when = now + (0.05 if self.service.phase else TICK)
            if not self.listening:
                when = min(when, max(now + 0.001, self.door.opens_at()))
            yield SLEEP, -1, when

    # A connection.

    def serve(self, connection: Connection) -> Steps:
        """Run a connection's handler to its end: do what it asks for, and wait where that takes time."""
        value: object = None
        try:
            while True:
                ask = connection.ask = resume(connection.generator, value)
                if ask == CALL:
                    yield from self.call(connection)
                    value = None
                elif ask == DONE:
                    break
                else:
                    value = yield from self.perform(connection, ask)
                    if value is WOKEN:
                        connection.woken = False
            connection.generator.close()
            yield from self.send(connection, 0)
            yield from self.linger(connection)
        except OSError as error:
            close_handler(connection, error.strerror or str(error), log.exception)
        except Exception:
            log.exception("a connection handler failed")
            close_handler(connection, "the handler failed", log.exception)
        finally:
            self.finish(connection)  # a kill comes as GeneratorExit, which is no Exception

    def perform(self, connection: Connection, ask: int) -> Generator[Trap, Any, object]:
        """Do what RECV, DRAIN or SLEEP asks for, and answer."""
        if (yield from self.send(connection, connection.low if ask == DRAIN else 0)) is WOKEN:
            return WOKEN
        if connection.woken and connection.wakeable:
            return WOKEN
        if ask == RECV:
            return (yield from self.receive(connection))
        if ask == SLEEP_UNTIL:
            return (yield from self.sleep(connection))
        return (yield TURN, -1, 0.0)

    def finish(self, connection: Connection) -> None:
        """Forget a connection."""
        if connection.fd < 0:
            return
        close_handler(connection, "killed", log.exception)
        self.scheduler.forget(connection.fd)
        del self.tasks[connection]
        self.ended(connection)
        if self.keeper is not None and (self.service.phase or not self.listening):
            self.scheduler.resume(self.keeper, None)  # a stop may be over, a full house have room again

    def receive(self, connection: Connection) -> Generator[Trap, Any, object]:
        """Wait for bytes; WOKEN, or None at the deadline. The deadline comes first, or a drip would outrun it."""
        while connection.deadline > self.clock.now:
            if (yield READ, connection.fd, connection.deadline) is WOKEN:
                return WOKEN
            if connection.deadline <= self.clock.now and connection.rest != IDLE:
                return None
            data = recv_now(connection.fd)
            if data is not None:
                return data
        if connection.rest == IDLE:
            return recv_now(connection.fd)  # what came at the last moment is still read
        return None

    def send(self, connection: Connection, low: int) -> Generator[Trap, Any, object]:
        """Send until at most ``low`` bytes are queued; WOKEN if woken before. Raises WriteStalled, OSError."""
        while connection.size and not connection.flush() and connection.size > low:
            left = watch_progress(connection, self.write_timeout)
            if (yield WRITE, connection.fd, time.monotonic() + left) is WOKEN:
                return WOKEN
        connection.stalled = INFINITY
        return None

    def sleep(self, connection: Connection) -> Generator[Trap, Any, object]:
        """Wait for the deadline, or to be woken. Raises OSError if the peer resets the connection meanwhile."""
        while connection.deadline > self.clock.now:
            answer = yield SLEEP, connection.fd, connection.deadline
            if answer is WOKEN:
                return WOKEN
            if answer is not None:
                raise ConnectionResetError(104, "the client reset the connection")
        return None

    def call(self, connection: Connection) -> Generator[Trap, Any, None]:
        """Run a job: here, or on a thread that rings when it has done."""
        job = connection.job
        task = self.tasks[connection]
        if self.service.pool is None and not job.dedicated:
            job.run()
            connection.job = None
            self.tick()
            return
        connection.ask = AWAY
        ended: list[bool] = []

        def done() -> None:
            ended.append(True)
            self.finished.append(task)
            self.ring()

        try:
            self.service.start_job(job, done)
        except RuntimeError as error:
            log.error("no new thread can be started: a connection is closed (--max-connections, ulimit -u)")
            raise OSError("no thread") from error
        fd = connection.fd
        while not ended:
            answer = yield SLEEP, fd, INFINITY
            if answer is not None:
                fd = -1
                self.reset(connection)
        connection.job = None
        if connection.gone:
            raise ConnectionResetError(104, connection.failure or "the client reset the connection")

    def linger(self, connection: Connection) -> Generator[Trap, Any, None]:
        """Close our end and throw away what still comes, within bounds.

        Bytes on their way to a closed socket would reset the connection, and take the answer with them (RFC 9112, 9.6).
        """
        if not connection.linger:
            return
        connection.rest = BUSY
        shutdown(connection.fd, socket.SHUT_WR)
        end = time.monotonic() + _LINGER_MAX
        until = end - _LINGER_MAX + _LINGER
        while time.monotonic() < until:
            data = recv_now(connection.fd)
            if data == b"":
                return
            if data is not None:
                until = min(time.monotonic() + _LINGER, end)
            yield READ, connection.fd, until  # also when there is more: the others have their turn

    def reset(self, connection: Connection) -> None:
        """The peer is gone, or must go, while a job is out: tell the job, and wait until it has ended."""
        connection.gone = True
        connection.job.cancel()

    def ring(self) -> None:
        """Have the bell's task run. From any thread."""
        if not self.rung:
            self.rung = True
            os.eventfd_write(self.bell, 1)

    def wake(self, connection: Connection) -> None:
        """What ``connection.wake()`` calls, from any thread."""
        self.woken.append(connection)
        self.ring()

    # What every engine has.

    def changed(self) -> None:
        super().changed()
        if self.keeper is not None:
            self.scheduler.resume(self.keeper, None)

    def listen(self, on: bool) -> None:
        if on == self.listening:
            return
        self.listening = on
        if on:
            self.acceptors = [self.scheduler.spawn(self.accept(listener)) for listener in self.service.listeners]
            return
        for task, listener in zip(self.acceptors, self.service.listeners, strict=True):
            if task is not self.scheduler.current:
                self.scheduler.kill(task)
                self.scheduler.forget(listener.fileno())

    def forget(self, fd: int) -> None:
        self.scheduler.forget(fd)

    def begin(self, connection: Connection) -> None:
        self.accepted(connection)
        connection.waker = self.wake
        self.tasks[connection] = self.scheduler.spawn(self.serve(connection))

    def abort(self, reason: str) -> None:
        for connection, task in list(self.tasks.items()):
            connection.failure = connection.failure or reason
            if connection.job is not None:
                self.reset(connection)
            else:
                self.scheduler.kill(task)
                self.finish(connection)  # if it had not begun, no ``finally`` has done it

    # Tasks that are no connections.

    def spawn(self, steps: Generator[float, None, None]) -> Task:
        """Run ``steps`` as a task: each value is when to come back, in seconds of the clock. Returns the task."""

        def task() -> Steps:
            try:
                for until in steps:
                    yield SLEEP, -1, until
            finally:
                steps.close()

        return self.scheduler.spawn(task())

    def current(self) -> Task | None:
        """The task that runs now, for ``rouse_task``."""
        return self.scheduler.current

    def rouse_task(self, task: Task) -> None:
        """Have a task that sleeps come back now."""
        self.scheduler.resume(task, None)

"""The loop of all engines that are told which descriptors are ready: nonblocking, select, poll, epoll, asyncio.

A poller says who is ready; this loop does what the handlers ask for. Level trigger: one receive an event, the answer
sent at once, and the kernel told only of changes. Edge trigger: an edge is told once, so ``readable`` remembers it
until a receive has found the socket empty.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from typing import Any

from stoker import log
from stoker.connection import (
    AWAY,
    BUSY,
    CALL,
    CHUNK,
    DONE,
    DRAIN,
    IDLE,
    INFINITY,
    RECV,
    SLEEP,
    WOKEN,
    Connection,
    Service,
    shutdown,
)
from stoker.engines.base import ERR, HUP, IN, OUT, RDHUP, TICK, Engine, close_handler
from stoker.engines.timers import Timers
from stoker.stats import TURN

try:
    import cython
except ImportError:
    from stoker import nocython as cython

if not cython.compiled:
    from stoker.plain import monotonic, recv_now, resume

_OFF = -1  # not registered at all

_LINGER = 2.0  # seconds after its last byte that a peer is given to close its own end
_LINGER_MAX = 10.0  # ... and in all
_LINGER_READS = 16  # receives in one turn from a peer that is still sending


class Poller:
    """How the kernel is asked. ``add`` of a descriptor that is there, or ``change`` of one that is not, raises.

    :ivar edge: events are told once
    :ivar found: what the last ``collect`` has found
    """

    def __init__(self, edge: bool = False) -> None:
        self.edge = edge
        self.found: list[tuple[int, int]] = []

    def add(self, fd: int, events: int) -> None:
        raise NotImplementedError

    def change(self, fd: int, events: int) -> None:
        raise NotImplementedError

    def remove(self, fd: int) -> None:
        raise NotImplementedError

    def wait(self, timeout: float) -> list[tuple[int, int]]:
        """Ready descriptors and their events, after at most ``timeout`` seconds (0: only look)."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    # The same without a list, for a poller that has C arrays.

    def collect(self, timeout: float) -> int:
        """Wait as ``wait`` does; how many descriptors are ready."""
        self.found = self.wait(timeout)
        return len(self.found)

    def fd_of(self, index: int) -> int:
        return self.found[index][0]

    def bits_of(self, index: int) -> int:
        return self.found[index][1]


class ReadinessLoop(Engine):
    """Runs handlers over a poller, on one thread."""

    def __init__(self, service: Service, poller: Poller) -> None:
        super().__init__(service)
        self.poller = poller
        self.edge = poller.edge
        self.timers = Timers()
        self.by_fd: list[Connection | None] = []  # at the place of its descriptor
        self.write_timeout: float = service.config.write_timeout
        self.ready: deque[Connection] = deque()  # answered DRAIN: one block a turn, so that nobody is starved
        self.woken: deque[Connection] = deque()  # filled by wake(), from any thread
        self.finished: deque[Connection] = deque()  # jobs that have ended, from pool threads
        self.listening: dict[int, Any] = {}
        self.again: list[Any] = []  # edge trigger: listeners left before their queue was empty
        self.bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.rung = False
        self.waker = self.wake  # made once: a bound method for each connection would be one object more
        self.progress = 0  # counts what has been done for connections, for a poller that paces itself by it

    # The loop.

    def run(self) -> None:
        self.start()
        self.service.ready()
        try:
            while not self.turn(self.timeout()):
                pass
        finally:
            self.close()

    def start(self) -> None:
        """Register what is there from the beginning."""
        self.tick()
        self.poller.add(self.bell, IN)
        for fd in self.service.watched:
            self.poller.add(fd, IN)
        self.listen(True)

    def close(self) -> None:
        """Give back the loop's own descriptors."""
        self.door.close()
        self.poller.close()
        os.close(self.bell)

    def tick(self) -> None:
        """Look at the clock, and show the master that the loop turns."""
        now = monotonic()
        self.clock.now = now
        self.row.put(TURN, now)

    def timeout(self) -> float:
        """How long the next wait may be, in seconds."""
        if self.ready or self.woken or self.finished or self.again:
            return 0.0
        if not self.listening and self.service.listeners:
            when = min(self.timers.next(), self.door.opens_at())
        else:
            when = self.timers.next()
        if self.service.phase:
            when = min(when, self.clock.now + 0.05)
        return max(0.0, min(when - monotonic(), TICK))

    def turn(self, timeout: float) -> bool:
        """Wait once and serve what is ready; True when the service has stopped."""
        count = self.poller.collect(timeout)
        self.tick()
        others = None
        for index in range(count):
            fd = self.poller.fd_of(index)
            connection = self.by_fd[fd] if fd < len(self.by_fd) else None
            if connection is not None:
                self.event(connection, self.poller.bits_of(index))
            elif others is None:
                others = [fd]
            else:
                others.append(fd)
        # Listeners come last: a descriptor closed above could be given again, and a late event would hit the wrong one.
        if others is not None or self.again:
            self.others(others or [])
        if self.finished or self.woken or self.ready:
            self.queues()
        if self.timers.next() <= self.clock.now:
            for connection in self.timers.due(self.clock.now):
                self.expired(connection)
        self.door.tick()
        if not self.listening and self.service.listeners and self.door.open():
            self.listen(True)
        return self.service.phase != 0 and self.stopped()

    def others(self, fds: list[int]) -> None:
        """Events of what is no connection."""
        listeners, self.again = self.again, []
        for fd in fds:
            if fd == self.bell:
                # In this order: who rings in between has its entry served below, and the next one rings again.
                try:
                    os.eventfd_read(self.bell)
                except BlockingIOError:
                    pass  # a poller that does not ask says "perhaps"
                self.rung = False
            elif fd in self.listening:
                listeners.append(self.listening[fd])
            else:
                watched = self.service.watched.get(fd)
                if watched is not None:
                    watched()
        for listener in listeners:
            if listener in self.service.listeners:
                self.take(listener)

    def queues(self) -> None:
        """What other threads and the last turn left to do; what is added meanwhile waits for the next turn."""
        for _ in range(len(self.finished)):
            connection = self.finished.popleft()
            connection.job = None
            if connection.gone:
                self.fail(connection, "the client reset the connection")
            elif connection.fd >= 0:
                self.advance(connection, None)
        for _ in range(len(self.woken)):
            connection = self.woken.popleft()
            if connection.fd >= 0 and connection.woken and connection.ask in (RECV, DRAIN, SLEEP):
                self.answer_woken(connection)
        for _ in range(len(self.ready)):
            connection = self.ready.popleft()
            if connection.fd >= 0 and connection.stalled == INFINITY:
                if connection.ask == DRAIN:
                    self.advance(connection, None)
                elif connection.ask == RECV:
                    self.receive(connection)
                elif connection.ask == DONE:
                    self.linger(connection)

    def ring(self) -> None:
        """Have the loop turn. From any thread."""
        if not self.rung:
            self.rung = True
            os.eventfd_write(self.bell, 1)

    def wake(self, connection: Connection) -> None:
        """What ``connection.wake()`` calls, from any thread."""
        self.woken.append(connection)
        self.ring()

    def forget(self, fd: int) -> None:
        self.poller.remove(fd)

    # Accepting.

    def listen(self, on: bool) -> None:
        if on:
            for listener in self.service.listeners:
                if listener.fileno() not in self.listening:
                    self.listening[listener.fileno()] = listener
                    self.poller.add(listener.fileno(), IN)
        else:
            for fd in self.listening:
                self.poller.remove(fd)
            self.listening.clear()
            self.again.clear()

    def take(self, listener: Any) -> bool:
        """Take what waits; what is left of it comes next turn, which under edge trigger nobody else would tell."""
        empty = Engine.take(self, listener)  # a compiled method knows no super()
        if self.edge and not empty and self.door.open():
            self.again.append(listener)
        return empty

    def begin(self, connection: Connection) -> None:
        self.accepted(connection)
        if connection.fd >= len(self.by_fd):
            self.by_fd += [None] * (connection.fd - len(self.by_fd) + 64)
        self.by_fd[connection.fd] = connection
        connection.waker = self.waker
        connection.want = _OFF
        if self.edge:
            connection.want = IN | OUT
            connection.readable = True  # data may have come before the registration
            self.poller.add(connection.fd, IN | OUT)
        self.advance(connection, None)

    # One connection.

    def event(self, connection: Connection, bits: int) -> None:
        """The kernel has something to say of a connection."""
        ask = connection.ask
        if bits & IN or bits & RDHUP:
            connection.readable = True
            if bits & RDHUP:
                connection.ended = True
        if ask == AWAY:  # a job is out: hands off
            if bits & (HUP | ERR):
                self.reset(connection)
            elif not self.edge:
                self.want(connection, 0)
            return
        if connection.size and (bits & OUT or bits & (HUP | ERR)):
            self.go_on(connection)
            return
        if ask == RECV:
            if connection.stalled == INFINITY:
                self.receive(connection)
        elif bits & (HUP | ERR):
            if ask == DONE:
                self.finish(connection)
            else:
                self.fail(connection, "the client reset the connection")
        elif ask == DONE:
            if not connection.size:
                self.linger(connection)
        elif not self.edge and bits & IN:
            self.want(connection, OUT if connection.size else 0)

    def receive(self, connection: Connection) -> None:
        """Answer a RECV, if there is something for it. The deadline comes first, or a drip would outrun it."""
        if connection.deadline <= self.clock.now and connection.rest != IDLE:
            self.advance(connection, None)
            return
        try:
            data = recv_now(connection.fd)
        except OSError as error:
            self.fail(connection, error.strerror or "receive failed")
            return
        if data is None:
            connection.readable = False
            if connection.deadline <= self.clock.now:
                self.advance(connection, None)
            else:
                self.park(connection)
            return
        if len(data) < CHUNK and data and not connection.ended:
            connection.readable = False  # an edge comes with the next byte; the end of the stream tells itself by RDHUP
        self.advance(connection, data)

    def advance(self, connection: Connection, value: object) -> None:
        """Resume a handler with an answer and do what it asks for, as far as that goes without waiting."""
        self.progress += 1
        while True:
            try:
                ask = resume(connection.generator, value)
            except Exception:
                log.exception("a connection handler failed")
                self.fail(connection, "the handler failed")
                return
            connection.ask = ask
            value = None
            if connection.size:
                try:
                    full = not connection.flush()
                except OSError as error:
                    self.fail(connection, error.strerror or "send failed")
                    return
                if full and ask != CALL and (ask != DRAIN or connection.size > connection.low):
                    self.stall(connection)
                    return
            if ask == CALL:
                if self.call(connection):
                    continue
                return
            if self.settle(connection):
                return
            value = WOKEN

    def settle(self, connection: Connection) -> bool:
        """The queue is as short as the operation wants it: park, or False if the answer is WOKEN."""
        ask = connection.ask
        connection.stalled = INFINITY
        if connection.woken and connection.wakeable and ask != DONE:
            connection.woken = False
            return False
        if ask == RECV:
            if self.edge and connection.readable:
                self.ready.append(connection)  # no edge will come for what is there already
            else:
                self.park(connection)
        elif ask == SLEEP:
            self.park(connection)
        elif ask == DRAIN:
            self.ready.append(connection)
        else:
            self.begin_linger(connection)
        return True

    def park(self, connection: Connection) -> None:
        """Wait for what the operation needs, or for its deadline."""
        if connection.ask == RECV:
            self.want(connection, IN)
        else:
            self.want(connection, 0)
        if connection.deadline < connection.filed:
            self.timers.file(connection, connection.deadline)

    def stall(self, connection: Connection) -> None:
        """The kernel is full: wait for room, and for progress within the write timeout."""
        taken = connection.taken()
        if connection.stalled == INFINITY or taken != connection.progress:
            connection.progress = taken
            connection.stalled = self.clock.now + self.write_timeout
            if connection.stalled < connection.filed:
                self.timers.file(connection, connection.stalled)
        self.want(connection, OUT)
        if connection.ask == SLEEP and connection.deadline < connection.filed:
            self.timers.file(connection, connection.deadline)

    def go_on(self, connection: Connection) -> None:
        """There may be room in the kernel again."""
        sent = connection.sent
        try:
            emptied = connection.flush()
        except OSError as error:
            self.fail(connection, error.strerror or "send failed")
            return
        self.progress += connection.sent != sent
        if not emptied and (connection.ask != DRAIN or connection.size > connection.low):
            self.stall(connection)
        elif not self.settle(connection):
            self.advance(connection, WOKEN)

    def answer_woken(self, connection: Connection) -> None:
        if connection.wakeable:
            connection.woken = False
            connection.stalled = INFINITY
            self.advance(connection, WOKEN)

    def expired(self, connection: Connection) -> None:
        """A deadline has come up; perhaps one that has moved since."""
        now = self.clock.now
        ask = connection.ask
        if connection.stalled <= now:
            if connection.taken() != connection.progress:
                self.stall(connection)
            else:
                self.fail(connection, "the client took nothing for the whole write timeout")
        elif connection.stalled < INFINITY:
            self.timers.file(connection, connection.stalled)
        elif ask == DONE and connection.deadline <= now:
            self.finish(connection)
        elif ask == RECV and connection.deadline <= now:
            self.receive(connection)  # what came at the last moment to an idle connection is still read
        elif ask == SLEEP and connection.deadline <= now:
            self.advance(connection, None)
        elif ask in (RECV, SLEEP, DONE):
            self.timers.file(connection, connection.deadline)

    def call(self, connection: Connection) -> bool:
        """Run the job; True if it has ended (it ran here)."""
        pool = self.service.pool
        job = connection.job
        if pool is None and not job.dedicated:
            try:
                job.run()
            except Exception:  # a job must not raise; if one does, its connection must not take the others with it
                log.exception("a job failed")
                self.fail(connection, "the job failed")
                return False
            self.tick()
            connection.job = None
            return True
        connection.ask = AWAY
        try:
            self.service.start_job(job, lambda: self.job_done(connection))
        except RuntimeError:
            log.error("no new thread can be started: a connection is closed (--max-connections, ulimit -u)")
            connection.job = None
            self.fail(connection, "no thread")
        return False

    def job_done(self, connection: Connection) -> None:
        """Called by the thread that ran the job."""
        self.finished.append(connection)
        self.ring()

    # Ends.

    def reset(self, connection: Connection) -> None:
        """The peer is gone while a job is out: tell the job, and look away until it has ended."""
        connection.gone = True
        self.want(connection, _OFF)
        if connection.job is not None:
            connection.job.cancel()

    def fail(self, connection: Connection, reason: str) -> None:
        """End a connection that failed, by way of its handler's ``finally``."""
        if connection.ask == AWAY and connection.job is not None:
            connection.gone = True
            connection.failure = reason
            self.want(connection, _OFF)
            connection.job.cancel()
            return
        close_handler(connection, reason, log.exception)
        self.finish(connection)

    def abort(self, reason: str) -> None:
        for connection in list(self.connections):
            self.fail(connection, reason)

    def begin_linger(self, connection: Connection) -> None:
        """All is sent; wait for the peer's end.

        Bytes on their way to a closed socket would reset the connection, and take the answer with them (RFC 9112, 9.6).
        """
        if not connection.linger:
            self.finish(connection)
            return
        connection.rest = BUSY
        shutdown(connection.fd, socket.SHUT_WR)
        connection.progress = self.clock.now + _LINGER_MAX
        connection.deadline = self.clock.now + _LINGER
        connection.filed = INFINITY
        self.timers.file(connection, connection.deadline)
        self.want(connection, IN)
        self.linger(connection)

    def linger(self, connection: Connection) -> None:
        """Throw away what still comes, until its end or the deadline; in portions, for the others' sake."""
        for _ in range(_LINGER_READS):
            try:
                data = recv_now(connection.fd)
            except OSError:
                data = b""
            if data is None:
                return
            if not data:
                self.finish(connection)
                return
            connection.deadline = min(self.clock.now + _LINGER, connection.progress)
        if self.edge:
            self.ready.append(connection)  # no edge will come for what is there already

    def finish(self, connection: Connection) -> None:
        """Forget a connection."""
        if connection.fd >= 0:
            self.want(connection, _OFF)
            self.by_fd[connection.fd] = None
            connection.ask = DONE
            self.ended(connection)

    def want(self, connection: Connection, events: int) -> None:
        """Tell the kernel what to watch a connection for, if that has changed."""
        if events == connection.want:
            return
        if events == _OFF:
            self.poller.remove(connection.fd)
        elif connection.want == _OFF:
            self.poller.add(connection.fd, events)
        elif self.edge:
            return
        else:
            self.poller.change(connection.fd, events)
        connection.want = events

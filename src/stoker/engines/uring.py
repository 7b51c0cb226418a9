"""io_uring(7): the kernel is not asked who is ready, it is told what to do, and says what is done.

One receive stands for the whole life of a connection, one accept for that of a listener; sends are queued, and one
system call a turn hands them all over and waits. The loop around that is the readiness loop's: the same queues, timers,
bell and ends. What differs is that the kernel holds things of ours while it works:

- a descriptor is closed when the last request that names it has completed, so that none can reach the next connection
  with its number; each request carries the generation of its line besides, and what is of another one is thrown away;
- the bytes of a send are kept until it has completed, and nothing is sent past them (``connection.sending``);
- what has been received before the handler asks for it lies in ``connection.inbox``, up to a limit, past which
  the receive is cancelled until the handler has caught up. Before a job goes out it is cancelled as well: the job's
  hands are on the socket.

A send that is not over within a turn is *late*: from then on the connection is stalled as on every other engine.
"""

from __future__ import annotations

import errno
import os
from typing import Any

from stoker import log
from stoker.connection import (
    AWAY,
    CALL,
    DONE,
    DRAIN,
    IDLE,
    INFINITY,
    RECV,
    RUNNING,
    SLEEP,
    WOKEN,
    Connection,
    Service,
)
from stoker.engines.accept import EXHAUSTED, PASSING
from stoker.engines.base import ERR, HUP, IN, OUT
from stoker.engines.readiness import _LINGER, ReadinessLoop
from stoker.engines.ringdoor import ACCEPT, CANCEL, POLL, RingDoor, RingPoller
from stoker.net.ring import BUFFERED, MORE, Ring

try:
    import cython
except ImportError:
    from stoker import nocython as cython

if not cython.compiled:
    from stoker.plain import resume

# The kinds of requests: the lowest three bits of a tag; then 29 bits of descriptor, then 32 of generation.
_RECEIVE = 0
_SEND = 1
_ROOM = 2  # poll: room for a part of a file, which no request of io_uring's sends
_GONE = 3  # poll: a reset, where no receive would tell

_READ_AHEAD = 65536  # bytes received for a handler that asks for none, above which the receive is cancelled
_MARGIN = 256  # with less room than this the kernel may not accept by itself: it would accept past the cap
# What ended a request without a word about the connection: it is made again when it is needed.
_AGAIN = (errno.ECANCELED, errno.ENOBUFS, errno.EAGAIN, errno.EINTR)
_LAST_WAITS = 100  # turns of 10 ms that cancelled requests are given at the end


class Line:
    """What the engine and the kernel know of a descriptor: one for each number, used by connection after connection.

    :ivar generation: of the connection; part of each request's tag
    :ivar connection: whose it is; None when it has ended and requests of its are still out, or after that
    :ivar turn: in which the send was submitted
    :ivar held: the bytes that the kernel is sending
    :ivar ahead: bytes in the connection's inbox
    :ivar receiving: a receive is out
    :ivar stopping: ... and being cancelled
    :ivar flying: a send is out
    :ivar full: a part of a file waits for room
    :ivar room: a poll for room is out
    :ivar watched: a poll for a reset is out
    :ivar once: its receives are single ones, since jobs take turns with them
    :ivar ended: the end of the stream has been received
    :ivar calling: a job goes out as soon as receive and send have ended
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.generation = 0
        self.turn = 0
        self.connection: Any = None
        self.held: Any = None
        self.ahead = 0
        self.receiving = False
        self.stopping = False
        self.flying = False
        self.full = False
        self.room = False
        self.watched = False
        self.once = False
        self.ended = False
        self.calling = False

    def tag(self, kind: int) -> int:
        return (self.generation << 32) | (self.fd << 3) | kind


class UringEngine(ReadinessLoop):
    """``--engine uring``."""

    def __init__(self, service: Service) -> None:
        self.kernel = Ring()
        self.polls = RingPoller(self.kernel)
        ReadinessLoop.__init__(self, service, self.polls)
        self.door = self.entry = RingDoor(service, self.connections, service.cap)
        self.lines: list[Any] = []  # by descriptor
        self.flights: list[Line] = []  # sends submitted since the last look at who is late
        self.turns = 0
        self.once = service.pool is not None  # every request is a job, before which a receive would be cancelled
        # The kernel wakes one of those that accept by themselves, be it busy or not. So where workers share a
        # listener each is told of it, and accepts when it has time.
        self.alone: bool = service.config.workers == 1 or service.config.reuse_port
        self.accepts: dict[int, Any] = {}  # listeners by the tag of their accept
        self.serial = 0
        self.leaving = 0  # lines without a connection whose requests have not all completed

    def close(self) -> None:
        for _ in range(_LAST_WAITS):
            if not self.leaving and not self.accepts:
                break
            self.kernel.enter(0.01)
            self.complete()
        ReadinessLoop.close(self)

    def turn(self, timeout: float) -> bool:
        self.turns = (self.turns + 1) & 0xFFFFFFFF
        flights, self.flights = self.flights, []
        self.kernel.enter(timeout)
        self.tick()
        others = self.complete()
        for line in flights:
            if line.flying and line.turn != self.turns and line.connection is not None:
                self.late(line.connection)
        if others or self.again:
            self.others(others)
            self.watch_again(others)
        if self.entry.early and self.door.open():
            for listener, _ in list(self.entry.early.values()):
                self.take(listener)
        if self.finished or self.woken or self.ready:
            self.queues()
        if self.timers.next() <= self.clock.now:
            for connection in self.timers.due(self.clock.now):
                self.expired(connection)
        self.door.tick()
        if not self.listening and self.service.listeners and self.door.open():
            self.listen(True)
        return self.service.phase != RUNNING and self.stopped()

    def timeout(self) -> float:
        if self.entry.early:
            wait = 0.0 if self.door.open() else self.door.opens_at() - self.clock.now
            return max(0.0, min(ReadinessLoop.timeout(self), wait))
        return ReadinessLoop.timeout(self)

    def complete(self) -> list[int]:
        """Take what has completed; the descriptors that are no connections' and are ready."""
        others: list[int] = []
        ring: Ring = self.kernel
        for _ in range(ring.ready()):
            if self.flights:
                ring.hurry(self.clock.now)  # an application that takes its time must not keep others' answers back
            ring.next()
            kind = ring.tag & 7
            fd = (ring.tag >> 3) & 0x1FFFFFFF
            if kind <= _GONE:
                line: Line = self.lines[fd]
                if line.generation != ring.tag >> 32:  # cannot be, since a descriptor outlives its requests; if it is:
                    if ring.flags & BUFFERED:
                        ring.recycle()
                elif kind == _RECEIVE:
                    self.received(line)
                elif kind == _SEND:
                    self.sent(line)
                elif kind == _ROOM:
                    line.room = ring.flags & MORE != 0
                    self.has_room(line, ring.result)
                else:
                    line.watched = ring.flags & MORE != 0
                    self.gone(line, ring.result)
            elif kind == ACCEPT:
                self.newcomer(ring.tag, ring.result, bool(ring.flags & MORE))
            elif kind == POLL and self.polls.fired(fd, ring.tag):
                others.append(fd)
        return others

    # Accepting.

    def listen(self, on: bool) -> None:
        if on:
            for listener in self.service.listeners:
                if listener.fileno() not in self.listening:
                    self.listening[listener.fileno()] = listener
                    self.attend(listener)
            return
        for fd in self.listening:
            self.poller.remove(fd)
        for tag, listener in self.accepts.items():
            if id(listener) in self.entry.self_accepting:
                self.kernel.cancel(tag, CANCEL)
                self.entry.self_accepting.discard(id(listener))
        self.listening.clear()
        self.again.clear()
        self.kernel.submit()  # before a listener is closed, and its number given to something else

    def attend(self, listener: Any) -> None:
        """Have the kernel accept by itself, or near the cap, and where that will not do, say who waits."""
        if any(listener is other for other in self.accepts.values()):
            return  # one that is being cancelled: its last completion comes back here
        room = self.door.cap - len(self.connections) - self.entry.waiting()
        if self.alone and room > _MARGIN and self.service.phase == RUNNING:
            self.serial = (self.serial + 1) & 0xFFFFFFFF
            tag = (self.serial << 32) | (listener.fileno() << 3) | ACCEPT
            self.accepts[tag] = listener
            self.entry.self_accepting.add(id(listener))
            self.kernel.accept(listener.fileno(), tag)
        else:
            self.poller.add(listener.fileno(), IN)

    def newcomer(self, tag: int, result: int, more: bool) -> None:
        """An accept has completed: somebody is there, or it has ended."""
        listener = self.accepts[tag]
        if not more:
            del self.accepts[tag]
            self.entry.self_accepting.discard(id(listener))
        if result >= 0:
            self.entry.put(listener, result)
            if len(self.connections) + self.entry.waiting() + _MARGIN >= self.door.cap:
                self.listen(False)
        elif -result in EXHAUSTED:
            self.door.pause(OSError(-result, os.strerror(-result)))
            self.listen(False)
        elif -result not in PASSING and result != -errno.ECANCELED:
            self.alone = False  # not on this kernel, or not with this listener
        if not more and listener.fileno() in self.listening:
            self.attend(listener)

    def watch_again(self, fds: list[int]) -> None:
        """What has been told of is told of once more when it is ready once more."""
        for fd in fds:
            if fd in self.listening and not self.polls.watches(fd):  # a new phase, just begun, watches all anew
                self.attend(self.listening[fd])
            elif fd == self.bell or fd in self.service.watched:
                self.poller.add(fd, IN)

    def take(self, listener: Any) -> bool:
        empty = ReadinessLoop.take(self, listener)
        if id(listener) in self.entry.early and self.door.open():
            self.again.append(listener)
        return empty

    def begin(self, connection: Connection) -> None:
        self.accepted(connection)
        connection.waker = self.waker
        lines = self.lines
        while len(lines) <= connection.fd:
            lines.append(None)
        line = lines[connection.fd]
        if line is None:
            line = lines[connection.fd] = Line(connection.fd)
        line.generation = (line.generation + 1) & 0xFFFFFFFF
        line.connection = connection
        line.ahead = 0
        line.once = self.once
        line.ended = line.calling = line.full = False
        self.advance(connection, None)

    def changed(self) -> None:
        ReadinessLoop.changed(self)
        if self.listening:  # a stop empties the queues itself
            self.listen(False)
            self.listen(True)

    def stopped(self) -> bool:
        if not ReadinessLoop.stopped(self):
            return False
        return self.clock.now >= self.service.end_at or not (self.accepts or self.entry.early)

    # One connection: what has completed.

    def received(self, line: Line) -> None:
        """A receive has brought something, or has ended."""
        ring: Ring = self.kernel
        connection = line.connection
        if not ring.flags & MORE:
            line.receiving = line.stopping = False
        if ring.result <= 0 or connection is None:
            result = ring.result
            if ring.flags & BUFFERED:
                ring.recycle()
            if connection is None:
                self.release(line)
            else:
                self.received_none(line, result)
        elif connection.ask == DONE:
            ring.recycle()
            if not connection.size:
                connection.deadline = min(self.clock.now + _LINGER, connection.progress)
                self.arm(line)
        elif connection.ask != RECV or connection.stalled < INFINITY or connection.inbox:
            self.keep(line)
        elif connection.deadline > self.clock.now or connection.rest == IDLE:
            self.advance(connection, ring.data())
        else:
            self.keep(line)
            self.receive(connection)

    def keep(self, line: Line) -> None:
        """Something has come that nobody asks for yet. Too much of that, and the peer has to wait."""
        connection = line.connection
        data = self.kernel.data()
        if connection.inbox:
            connection.inbox.append(data)
            line.ahead += len(data)
        else:
            connection.inbox = [data]
            line.ahead = len(data)
        if line.calling:
            self.go_out(line)
        elif line.ahead > _READ_AHEAD and line.receiving and not line.stopping:
            line.stopping = True
            self.kernel.cancel(line.tag(_RECEIVE), CANCEL)

    def received_none(self, line: Line, result: int) -> None:
        """A receive has ended: at the end of the stream, with an error, cancelled, or because no buffer was free."""
        connection = line.connection
        ask = connection.ask
        if result == 0:
            line.ended = True
        if line.calling:
            self.go_out(line)
        elif result < 0 and -result not in _AGAIN:
            if ask == DONE:
                self.finish(connection)
            elif ask == AWAY:
                self.reset(connection)
            else:
                self.fail(connection, os.strerror(-result))
        elif ask == DONE:
            if not connection.size:
                self.linger(connection)
        elif ask != RECV:
            if not line.receiving:
                self.watch(line)
        elif connection.stalled == INFINITY:
            self.receive(connection)

    def sent(self, line: Line) -> None:
        """A send has ended; it may have sent a part."""
        result = self.kernel.result
        held = line.held
        line.held = None
        line.flying = False
        connection = line.connection
        if connection is None:
            self.release(line)
            return
        connection.sending = False
        if result >= 0:
            connection.took(held, result)
        if line.calling:
            self.go_out(line)
        elif result >= 0 or -result in _AGAIN:
            if connection.size or connection.stalled < INFINITY:
                self.go_on(connection)
        else:
            self.fail(connection, os.strerror(-result))

    def has_room(self, line: Line, result: int) -> None:
        """The poll for room tells of something."""
        connection = line.connection
        if connection is None:
            self.release(line)
        elif result > 0 and result & (OUT | HUP | ERR) and line.full:
            line.full = False
            if connection.ask != AWAY:
                self.go_on(connection)

    def gone(self, line: Line, result: int) -> None:
        """The poll for a reset tells of something; perhaps only that the peer has ended its side."""
        connection = line.connection
        if connection is None:
            self.release(line)
        elif result < 0 or not result & (HUP | ERR) or line.calling:
            return
        elif connection.ask == AWAY:
            if not connection.gone:
                self.reset(connection)
        elif connection.ask == DONE:
            self.finish(connection)
        elif not line.receiving:  # else that will tell, after what has come before
            self.fail(connection, "the client reset the connection")

    # One connection: what its handler asks for.

    def advance(self, connection: Connection, value: object) -> None:
        line: Line = self.lines[connection.fd]
        while True:
            try:
                ask = resume(connection.generator, value)
            except Exception:
                log.exception("a connection handler failed")
                self.fail(connection, "the handler failed")
                return
            connection.ask = ask
            value = None
            if ask == CALL:
                if self.call(connection):
                    continue
                return
            if connection.size:
                self.transmit(line)
                if connection.fd < 0:
                    return
                if connection.size and self.holds(line, ask):
                    return
            if self.settle(connection):
                return
            value = WOKEN

    def holds(self, line: Line, ask: int) -> bool:
        """Whether the operation waits for the queue. A send of this turn holds only DRAIN and DONE up."""
        connection = line.connection
        late = line.full or line.turn != self.turns
        if not late and ask in (RECV, SLEEP):
            return False
        if ask == DRAIN and late and connection.size <= connection.low:
            return False
        if late:
            self.stall(connection)
        else:
            connection.stalled = self.clock.now + self.write_timeout  # `turn` looks at it again
            connection.progress = -1.0
        return True

    def late(self, connection: Connection) -> None:
        """A send has not ended within a turn."""
        if connection.ask == DRAIN and connection.size <= connection.low:
            if not self.settle(connection):
                self.advance(connection, WOKEN)
        elif connection.ask != AWAY:
            self.stall(connection)

    def transmit(self, line: Line) -> None:
        """Submit the next piece of the outgoing queue, unless one is out."""
        connection = line.connection
        if line.flying or line.full:
            return
        piece = connection.head()
        if type(piece) is bytes:
            line.held = piece
            line.flying = connection.sending = True
            line.turn = self.turns
            self.flights.append(line)
            self.kernel.send(line.fd, line.tag(_SEND), piece, connection.head_offset())
            return
        try:
            full = not connection.flush()
        except OSError as error:
            self.fail(connection, error.strerror or "send failed")
            return
        if full:
            line.full = True
            if not line.room:
                line.room = True
                self.kernel.poll(line.fd, line.tag(_ROOM), OUT, True)

    def go_on(self, connection: Connection) -> None:
        line: Line = self.lines[connection.fd]
        ask = connection.ask
        if connection.size:
            self.transmit(line)
            if connection.fd < 0:
                return
        if connection.stalled == INFINITY:
            return  # nothing waits for it
        if connection.size and (ask != DRAIN or connection.size > connection.low):
            self.stall(connection)
        elif not self.settle(connection):
            self.advance(connection, WOKEN)

    def receive(self, connection: Connection) -> None:
        line: Line = self.lines[connection.fd]
        if connection.deadline <= self.clock.now and connection.rest != IDLE:
            self.advance(connection, None)
        elif connection.inbox:
            data = connection.inbox.pop(0)
            line.ahead -= len(data)
            self.advance(connection, data)
        elif line.ended:
            self.advance(connection, b"")
        elif connection.deadline <= self.clock.now:
            self.advance(connection, None)
        else:
            self.park(connection)

    def park(self, connection: Connection) -> None:
        line: Line = self.lines[connection.fd]
        if connection.ask == RECV:
            if connection.inbox or line.ended:
                self.ready.append(connection)
                return
            self.arm(line)
        elif not line.receiving:
            self.watch(line)
        if connection.deadline < connection.filed:
            self.timers.file(connection, connection.deadline)

    def want(self, connection: Connection, events: int) -> None:
        if events == IN:
            self.arm(self.lines[connection.fd])

    def arm(self, line: Line) -> None:
        """Have the kernel receive. Where it is being told to stop, this is said again when it has."""
        if not line.receiving and not line.ended:
            line.receiving = True
            self.kernel.recv(line.fd, line.tag(_RECEIVE), not line.once)

    def watch(self, line: Line) -> None:
        """Have a reset told."""
        if not line.watched:
            line.watched = True
            self.kernel.poll(line.fd, line.tag(_GONE), 0, True)

    def call(self, connection: Connection) -> bool:
        line: Line = self.lines[connection.fd]
        if self.service.pool is None and not connection.job.dedicated:
            self.flush_now(connection)
            return bool(ReadinessLoop.call(self, connection))
        connection.ask = AWAY
        line.once = True
        line.calling = True
        if line.receiving and not line.stopping:
            line.stopping = True
            self.kernel.cancel(line.tag(_RECEIVE), CANCEL)
        if line.flying:
            self.kernel.cancel(line.tag(_SEND), CANCEL)
        self.go_out(line)
        return False

    def go_out(self, line: Line) -> None:
        """Send the job out, if the kernel's hands are off the connection."""
        connection = line.connection
        if line.receiving or line.flying:
            return
        line.calling = line.full = False
        self.flush_now(connection)
        self.watch(line)
        ReadinessLoop.call(self, connection)

    def flush_now(self, connection: Connection) -> None:
        """Send before the job what can be sent."""
        try:
            connection.flush()
        except OSError:
            pass  # the job, or the next send, finds the same

    # Ends.

    def linger(self, connection: Connection) -> None:
        line: Line = self.lines[connection.fd]
        connection.inbox = None
        if line.ended:
            self.finish(connection)
        else:
            self.arm(line)

    def finish(self, connection: Connection) -> None:
        if connection.fd < 0:
            return
        line: Line = self.lines[connection.fd]
        connection.ask = DONE
        connection.inbox = None
        line.connection = None
        for out, kind in (
            (line.receiving and not line.stopping, _RECEIVE),
            (line.flying, _SEND),
            (line.room, _ROOM),
            (line.watched, _GONE),
        ):
            if out:
                self.kernel.cancel(line.tag(kind), CANCEL)
        self.ended(connection)

    def close_descriptor(self, fd: int) -> None:
        self.leaving += 1
        self.release(self.lines[fd])

    def release(self, line: Line) -> None:
        """Close the descriptor of a connection that has ended, when no request names it any more."""
        if not (line.receiving or line.flying or line.room or line.watched):
            self.leaving -= 1
            os.close(line.fd)

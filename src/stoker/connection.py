"""What a handler and an engine know of each other: five operations, and the connection they are about.

A handler is a generator. It yields what it wants done, never how, and is resumed with the answer:

==========  =====================================================  =====================================================
operation   asks for                                               is answered with
==========  =====================================================  =====================================================
``RECV``    send what is queued, then give me bytes                bytes; ``b""`` at the end of the stream; ``WOKEN``;
                                                                   ``None`` when ``deadline`` has passed
``DRAIN``   come back when at most ``low`` bytes are queued        ``None``, or ``WOKEN``
``SLEEP``   come back at ``deadline``                              ``None``, or ``WOKEN``
``CALL``    run ``job`` where blocking is allowed                  ``None``; the job holds its own result
``DONE``    send what is queued, then a lingering close            never resumed
==========  =====================================================  =====================================================

Failure is never an answer: on a reset, a write that makes no progress, or a stop, the engine sets ``failure`` and
closes the generator, so that every ``finally`` runs.

The outgoing queue belongs to whoever runs: the handler between two operations, the engine while it waits, the job of a
CALL while that is out. Only ``wake()`` may be called by anybody, at any time, from any thread.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
import termios
from collections.abc import Callable, Generator
from typing import Any, Final, Protocol

try:
    import cython
except ImportError:
    from stoker import nocython as cython

if not cython.compiled:
    from stoker.plain import send_now
    from stoker.stats import Row

RECV: Final = 0
DRAIN: Final = 1
SLEEP: Final = 2
CALL: Final = 3
DONE: Final = 4
AWAY: Final = 5  # what `connection.ask` says while a job is out: the engine's hands are off

INFINITY: Final = float("inf")
HIGH: Final = 65536  # bytes: above this the outgoing queue is long, and a handler yields DRAIN before it writes more
CHUNK: Final = 65536  # bytes asked for in one receive; a shorter one has emptied the socket

# How a connection rests, which decides what a stop and a full house may do with it.
BUSY: Final = 0  # something is under way
WAITING: Final = 1  # a raw handler waits for its peer: a stop ends it
IDLE: Final = 2  # HTTP, between requests: a stop ends it, and so does the need for room
FRESH: Final = 3  # HTTP, before the first byte of the first request: as IDLE, but a stop gives it a moment
FIRST_BYTE: Final = 1.0  # seconds after a stop in which a FRESH connection may still bring its first request


class _Woken:
    def __repr__(self) -> str:
        return "WOKEN"


WOKEN: Final = _Woken()

Handler = Generator[int, Any, None]


class Job(Protocol):
    """What CALL runs. ``run`` must not raise; ``cancel`` may be called by the engine's thread while it runs."""

    dedicated: bool  # lives as long as its connection: not a job for a pool, but for a thread of its own

    def run(self) -> None: ...
    def cancel(self) -> None: ...


class BlockingIO(Protocol):
    """The waiting that code may do which runs where blocking is allowed (a job, a blocking engine)."""

    def recv(self, connection: Connection) -> bytes | _Woken | None:
        """Bytes; ``b""`` at the end; ``None`` when ``connection.deadline`` passed; ``WOKEN``. Raises OSError."""

    def room(self, connection: Connection) -> bool:
        """Wait until the kernel may take more; True when woken instead. Raises ``WriteStalled``, OSError."""

    def sleep(self, connection: Connection) -> _Woken | None:
        """Wait until ``connection.deadline``; ``WOKEN`` if woken before. Raises OSError if the peer resets."""

    def call(self, connection: Connection) -> None:
        """Run ``connection.job``; come back when it has ended."""

    def give_way(self) -> None:
        """Let other connections have a turn, where they need that."""


class WriteStalled(OSError):
    """No byte of the outgoing queue went out for the whole of ``--write-timeout``."""

    def __init__(self) -> None:
        super().__init__(errno.ETIMEDOUT, "the client took nothing for the whole write timeout")


class Clock:
    """``now``, in seconds of ``time.monotonic()``, as of the engine's last look."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now


class FileSlice:
    """A part of an open file in the outgoing queue, sent by sendfile(2).

    ``fd`` belongs to the slice and is closed with it. ``offset`` and ``count`` are bytes.
    """

    def __init__(self, fd: int, offset: int, count: int) -> None:
        self.fd = fd
        self.offset = offset
        self.count = count

    def send(self, to: int) -> int:
        """Send once; the number of bytes taken, -1 if the kernel is full. Raises OSError; EIO if the file shrank."""
        try:
            sent = os.sendfile(to, self.fd, self.offset, min(self.count, 1 << 20))
        except BlockingIOError:
            return -1
        if sent == 0:
            raise OSError(errno.EIO, "the file is shorter than when its size was announced")
        self.offset += sent
        self.count -= sent
        return sent

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def shutdown(fd: int, how: int) -> None:
    """shutdown(2) by descriptor; an end that is gone already is no error."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=fd)  # the given family spares three getsockopt
    try:
        sock.shutdown(how)
    except OSError:
        pass
    finally:
        sock.detach()


class Connection:
    """One accepted connection, shared by its handler and its engine.

    :ivar fd: descriptor of the socket, owned by the engine
    :ivar peer: the client's address as accept(2) gave it
    :ivar listener: the listener that it came by
    :ivar clock: where the handler reads the time
    :ivar deadline: absolute, in seconds of the clock; moved by the handler alone
    :ivar job: what CALL is to run
    :ivar low: what DRAIN calls a short queue, in bytes
    :ivar rest: BUSY, WAITING, IDLE or FRESH
    :ivar since: when it became IDLE, in seconds of the clock
    :ivar wakeable: the handler takes ``WOKEN`` for an answer; set once, before the first operation that needs it
    :ivar linger: the close is to wait for the peer's own (RFC 9112, 9.6); False where no byte can be on its way
    :ivar gone: the peer reset the connection while a job was out
    :ivar failure: why the engine closed the generator; empty if it did not
    :ivar size: bytes queued
    :ivar sent: bytes handed to the kernel so far
    :ivar sending: the engine has given the kernel a piece whose sending is not over: nothing may be sent past it
    :ivar inbox: what the engine has received before it was asked for, oldest first; None or empty if nothing
    """

    def __init__(self, fd: int, peer: Any, listener: Any, clock: Clock) -> None:
        self.fd = fd
        self.peer = peer
        self.listener = listener
        self.clock = clock
        self.deadline = INFINITY
        self.job: Any = None
        self.low = HIGH
        self.rest = BUSY
        self.since = 0.0
        self.wakeable = False
        self.linger = True
        self.gone = False
        self.failure = ""
        self.size = 0
        self.sent = 0
        self.sending = False
        self.inbox: list[bytes] | None = None
        self._first: Any = None
        self._offset = 0
        self._more: list[Any] | None = None
        # The engine's own.
        self.io: Any = None
        self.generator: Any = None
        self.ask = AWAY
        self.want = 0
        self.filed = INFINITY
        self.stalled = INFINITY  # the write deadline; INFINITY while nothing is stuck
        self.progress = 0.0  # the value of `taken()` when `stalled` was set; while lingering, when that ends
        self.readable = False  # under edge trigger: told once, so remembered
        self.ended = False  # under edge trigger: the peer's end has been told, though bytes before it may be unread
        self.woken = False
        self.waker: Callable[[Connection], None] | None = None

    def write(self, data: bytes) -> None:
        """Queue bytes. No system call; the bytes must not change afterwards."""
        if not data:
            return
        if self._first is None:
            self._first = data
        elif self._more is None:
            self._more = [data]
        else:
            self._more.append(data)
        self.size += len(data)

    def send_file(self, part: FileSlice) -> None:
        """Queue a part of a file; its descriptor is closed when it has been sent, or the connection ends."""
        if part.count <= 0:
            part.close()
            return
        if self._first is None:
            self._first = part
        elif self._more is None:
            self._more = [part]
        else:
            self._more.append(part)
        self.size += part.count

    def flush(self) -> bool:
        """Send until the queue is empty (True) or the kernel takes no more (False). Raises OSError."""
        if self.sending:
            return False
        if self._more and self._offset == 0:
            self._more.insert(0, self._first)
            self._next()  # what is short goes with what follows it
        while self._first is not None:
            if type(self._first) is bytes:
                count = send_now(self.fd, self._first, self._offset)
                if count < 0:
                    return False
                self._offset += count
                ended = self._offset >= len(self._first)
            else:
                count = self._first.send(self.fd)
                if count < 0:
                    return False
                ended = self._first.count == 0
                if ended:
                    self._first.close()
            self.sent += count
            self.size -= count
            if ended:
                self._next()
        return True

    def head(self) -> Any:
        """The next piece of the queue, for an engine whose kernel sends it by itself: bytes, a FileSlice, or None."""
        if self._more and self._offset == 0:
            self._more.insert(0, self._first)
            self._next()
        return self._first

    def head_offset(self) -> int:
        """How many bytes of the next piece are sent already."""
        return self._offset

    def took(self, piece: bytes, count: int) -> None:
        """The kernel has sent ``count`` bytes of ``piece``, which ``head`` gave; perhaps it was discarded since."""
        if piece is self._first:
            self.sent += count
            self.size -= count
            self._offset += count
            if self._offset >= len(piece):
                self._next()

    def taken(self) -> int:
        """How many bytes the peer's kernel has taken.

        A full send buffer tells of room when a third of it is free, which may be megabytes: too coarse to tell a client
        that reads slowly from one that does not read.
        """
        try:
            return self.sent - int.from_bytes(fcntl.ioctl(self.fd, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        except OSError:
            return self.sent

    def drain(self, low: int) -> bool:
        """Where blocking is allowed: send until at most ``low`` bytes are queued; True if woken before.

        Raises WriteStalled, OSError.
        """
        while not self.flush():
            if self.size <= low:
                break
            if self.io.room(self):
                return True
        self.stalled = INFINITY
        return False

    def perform(self, ask: int) -> object:
        """Where blocking is allowed: do what RECV, DRAIN or SLEEP asks for, and answer. Raises OSError."""
        if self.size and self.drain(self.low if ask == DRAIN else 0):
            return WOKEN
        if self.woken and self.wakeable:
            self.woken = False
            return WOKEN
        if ask == RECV:
            return self.io.recv(self)
        if ask == SLEEP:
            return self.io.sleep(self)
        self.io.give_way()
        return None

    def _next(self) -> None:
        """Take the next of the queue; neighbouring short pieces are joined, so that they go in one send."""
        self._offset = 0
        more = self._more
        if not more:
            self._first = self._more = None
        elif len(more) == 1 or type(more[0]) is not bytes:
            self._first = more.pop(0)
        else:
            count = total = 0
            for piece in more:
                if type(piece) is not bytes or (count and total + len(piece) > HIGH):
                    break
                count += 1
                total += len(piece)
            self._first = b"".join(more[:count]) if count > 1 else more[0]
            del more[:count]

    def discard(self) -> None:
        """Throw the outgoing queue away and close the files in it."""
        for piece in (self._first, *(self._more or ())):
            if type(piece) is FileSlice:
                piece.close()
        self._first = self._more = None
        self._offset = self.size = 0

    def wake(self) -> None:
        """Answer the pending RECV, DRAIN or SLEEP with ``WOKEN``, or the next one. From any thread; calls coalesce."""
        self.woken = True
        waker = self.waker
        if waker is not None:
            waker(self)


# The phases of a worker's life, in the order in which they come.
RUNNING: Final = 0
RETIRING: Final = 1  # takes nothing new; answers the next request of each connection with Connection: close
STOPPING: Final = 2  # empties the accept queue, answers what was read in full, ends what rests
ENDING: Final = 3  # ends everything now


class Service:
    """What an engine is given to run: the worker, seen from below.

    :ivar listeners: what to accept from
    :ivar watched: descriptors whose readability the engine reports by a call in its own loop
    :ivar row: the worker's cells in shared memory
    :ivar phase: RUNNING, RETIRING, STOPPING or ENDING
    :ivar end_at: when the graceful timeout is over
    :ivar full_answer: what a client is told under ``--on-overload 503``
    :ivar pool: runs jobs on threads, or None
    :ivar cap: how many connections there may be
    :ivar quota: after how many requests ``requests_are`` wants to know; 0: never
    :ivar signals: those that reach ``obey`` through a watched descriptor
    :ivar handler: makes a handler for a connection
    """

    def __init__(self, config: Any, clock: Clock, listeners: list[Any], row: Row) -> None:
        self.config = config
        self.clock = clock
        self.listeners = listeners
        self.watched: dict[int, Callable[[], None]] = {}
        self.row = row
        self.phase = RUNNING
        self.end_at = INFINITY
        self.full_answer = b""
        self.pool: Any = None
        self.cap = 0
        self.quota = 0
        self.signals: tuple[int, ...] = ()
        self.handler: Callable[[Connection], Handler]

    def start_job(self, job: Job, done: Callable[[], None]) -> None:
        """Run a job on a thread of the pool, or on one of its own; ``done`` is called by that thread."""
        raise NotImplementedError

    def obey(self, data: bytes) -> None:
        """Act on bytes that are signal numbers."""
        raise NotImplementedError

    def ready(self) -> None:
        """The engine is about to accept."""
        raise NotImplementedError

    def count_request(self) -> None:
        """A request is over. From any thread."""
        count = self.row.count()
        if 0 < self.quota <= count:
            self.requests_are(count)

    def requests_are(self, count: int) -> None:
        """So many requests are over; said by an engine whose processes count for themselves."""
        raise NotImplementedError

    def become_child(self, row: Any, name: str, engine: Any) -> None:
        """In a process forked off for one connection: let go of what is the worker's, and count in ``row``."""
        raise NotImplementedError

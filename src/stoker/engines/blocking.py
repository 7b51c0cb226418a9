"""The loop of all engines in which a connection waits by blocking, each in a process, thread or greenlet of its own.

How waiting is done is the ``io`` given: a thread blocks in the kernel, a greenlet switches to its hub.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from typing import TYPE_CHECKING

from stoker import log
from stoker.connection import (
    CALL,
    DONE,
    IDLE,
    INFINITY,
    WOKEN,
    Connection,
    WriteStalled,
    shutdown,
)
from stoker.engines.base import close_handler

try:
    import cython
except ImportError:
    from stoker import nocython as cython

if not cython.compiled:
    from stoker.plain import monotonic, recv_now, recv_wait, resume

if TYPE_CHECKING:
    from stoker.connection import BlockingIO, _Woken

_LINGER = 2.0  # seconds after its last byte that a peer is given to close its own end
_LINGER_MAX = 10.0  # ... and in all
_RECEIVE = (1).to_bytes(8, "little") + bytes(8)  # a struct timeval: 1 s in recv(2) between two looks at the deadline
_SEND = bytes(8) + (1000).to_bytes(8, "little")  # 1 ms: a send takes what there is room for, waiting is poll's


def serve(connection: Connection, io: BlockingIO) -> None:
    """Run a handler to its end. Closes the handler, never the descriptor."""
    connection.io = io
    clock = connection.clock
    clock.now = monotonic()
    value: object = None
    try:
        while True:
            ask = resume(connection.generator, value)
            value = None
            if ask == CALL:
                io.call(connection)
            elif ask == DONE:
                while connection.size and connection.drain(0):
                    connection.woken = False
                break
            else:
                value = connection.perform(ask)
            clock.now = monotonic()
        linger(connection, io)
        connection.generator.close()
    except OSError as error:
        close_handler(connection, error.strerror or str(error), log.exception)
    except Exception:
        log.exception("a connection handler failed")
        close_handler(connection, "the handler failed", log.exception)
    except BaseException:  # a kill; the handler's ``finally`` runs all the same
        close_handler(connection, "killed", log.exception)
        raise


def watch_progress(connection: Connection, timeout: float) -> float:
    """Seconds left for the next byte to go out. Raises WriteStalled when there are none."""
    now = monotonic()
    taken = connection.taken()
    if connection.stalled == INFINITY or taken != connection.progress:
        connection.progress = taken
        connection.stalled = now + timeout
    if connection.stalled <= now:
        raise WriteStalled
    return connection.stalled - now


def linger(connection: Connection, io: BlockingIO) -> None:
    """Close our end and throw away what still comes (RFC 9112, 9.6), within bounds."""
    if not connection.linger:
        return
    shutdown(connection.fd, socket.SHUT_WR)
    connection.rest = 0
    connection.wakeable = False
    until = monotonic() + _LINGER_MAX
    while True:
        connection.deadline = min(monotonic() + _LINGER, until)
        data = io.recv(connection)
        if not isinstance(data, bytes) or not data:
            return


class PollIO:
    """Waiting by poll(2) on a non-blocking socket, with a descriptor to be woken by. For threads: pools and engines."""

    def __init__(self, write_timeout: float) -> None:
        self.write_timeout = write_timeout
        self.bell = -1
        self.lock = (
            threading.Lock()
        )  # the bell must not be closed, and its number given again, under somebody who rings

    def recv(self, connection: Connection) -> bytes | _Woken | None:
        while True:
            if connection.rest != IDLE and monotonic() >= connection.deadline:
                return None
            if connection.inbox:
                return connection.inbox.pop(0)
            data = recv_now(connection.fd)
            if data is not None:
                return data
            left = connection.deadline - monotonic()
            if left <= 0:
                return None
            if self._wait(connection, select.POLLIN, left):
                return WOKEN

    def room(self, connection: Connection) -> bool:
        return self._wait(connection, select.POLLOUT, watch_progress(connection, self.write_timeout))

    def sleep(self, connection: Connection) -> _Woken | None:
        while (left := connection.deadline - monotonic()) > 0:
            if self._wait(connection, 0, left):
                return WOKEN
        return None

    def call(self, connection: Connection) -> None:
        connection.job.run()
        connection.job = None

    def give_way(self) -> None:
        """The kernel sees to that: it takes turns with threads and processes."""

    def _wait(self, connection: Connection, events: int, seconds: float) -> bool:
        """Poll once; True if woken."""
        poll = select.poll()
        poll.register(connection.fd, events)
        if connection.wakeable:
            if self.bell < 0:
                self.bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
                connection.waker = self.wake
            poll.register(self.bell, select.POLLIN)
            if connection.woken:  # woken before there was a bell to ring
                connection.woken = False
                return True
        for fd, bits in poll.poll(min(seconds, 3600.0) * 1000):
            if fd == self.bell:
                os.eventfd_read(self.bell)
                connection.woken = False
                return True
            if not events and bits:
                raise ConnectionResetError(104, "the client reset the connection")
        return False

    def wake(self, connection: Connection) -> None:
        """What ``connection.wake()`` calls."""
        with self.lock:
            if self.bell >= 0:
                os.eventfd_write(self.bell, 1)

    def close(self) -> None:
        """Give the bell back."""
        with self.lock:
            if self.bell >= 0:
                os.close(self.bell)
                self.bell = -1


class SocketIO(PollIO):
    """Waiting in recv(2) itself, on a blocking socket whose receive timeout ticks once a second.

    One system call a receive instead of two. A handler that declares itself wakeable is served by poll(2) from then on.
    """

    def __init__(self, connection: Connection, write_timeout: float) -> None:
        super().__init__(write_timeout)
        self.blocking = True
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=connection.fd)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _RECEIVE)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _SEND)
            sock.setblocking(True)
        finally:
            sock.detach()

    def recv(self, connection: Connection) -> bytes | _Woken | None:
        if self.blocking and connection.wakeable:
            self.blocking = False
            os.set_blocking(connection.fd, False)
        if not self.blocking:
            return PollIO.recv(self, connection)
        while True:
            if connection.rest != IDLE and monotonic() >= connection.deadline:
                return None
            data = recv_wait(connection.fd)
            if data is not None:
                return data
            if monotonic() >= connection.deadline:
                return None

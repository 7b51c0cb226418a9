"""The child of engine ``process``: it serves one connection and ends.

Its main thread runs the connection; what the worker wants reaches it as signals. Their handlers run between any two
steps of that thread, as Python's do, so they do little: they note the phase, and end a wait by closing the socket's
receiving side. Only SIGINT, "now", breaks into whatever is running.

A child must never outlive its worker. The end of a pipe would tell it so only while it waits; blocked in the
application it would not look. So the kernel is asked to kill it with its parent: prctl(2), PR_SET_PDEATHSIG.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import time
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from stoker import log, stats
from stoker.connection import (
    BUSY,
    ENDING,
    FIRST_BYTE,
    FRESH,
    IDLE,
    STOPPING,
    WAITING,
    Connection,
    Service,
    _Woken,
    shutdown,
)
from stoker.engines.base import LATE
from stoker.engines.blocking import SocketIO, serve
from stoker.errors import Ended

if TYPE_CHECKING:
    from stoker.engines.process import ProcessEngine

_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None, use_errno=True).prctl

# What a worker's signals mean to its children as well.
HEARD = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1)


class ChildIO(SocketIO):
    """Waiting in a child, which shows the parent since when it has been idle."""

    def __init__(self, connection: Connection, service: Service, row: stats.Row) -> None:
        super().__init__(connection, service.config.write_timeout)
        self.service = service
        self.row = row

    def recv(self, connection: Connection) -> bytes | _Woken | None:
        if connection.rest == WAITING and self.service.phase >= STOPPING:
            shutdown(connection.fd, socket.SHUT_RD)  # the stop came while it was busy, or not yet born
        if connection.rest < IDLE:
            return super().recv(connection)
        self.row.idle_since = time.monotonic()
        try:
            return super().recv(connection)
        finally:
            self.row.idle_since = 0.0


class Life:
    """What a child is to the service instead of an engine: it serves one connection, and is told of signals.

    :ivar worker: the worker's row, where the reason for an end can be seen
    """

    def __init__(self, connection: Connection, service: Service, worker: stats.Row) -> None:
        self.connection = connection
        self.service = service
        self.worker = worker

    def changed(self) -> None:
        """The phase has changed. Called by a signal handler, between any two steps of the child's work."""
        connection = self.connection
        if self.service.phase == ENDING:
            late = self.worker.state in (stats.RETIRING, stats.DRAINING)
            connection.failure = connection.failure or (LATE if late else "the server is stopping")
            shutdown(connection.fd, socket.SHUT_RDWR)  # in case that somebody catches what comes now
            raise Ended
        if self.service.phase == STOPPING and connection.rest == FRESH:
            connection.deadline = min(connection.deadline, time.monotonic() + FIRST_BYTE)
        elif self.service.phase == STOPPING and connection.rest != BUSY:
            shutdown(connection.fd, socket.SHUT_RD)

    def signalled(self, number: int) -> None:
        """No other signal concerns a child."""


def run_child(engine: ProcessEngine, connection: Connection, row: stats.Row, mask: Any) -> NoReturn:
    """The life of a child, from fork to exit.

    :param mask: the signals that were blocked before fork
    """
    status = 1
    try:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != engine.pid:  # it died before the kernel was asked
            os._exit(status)
        row.pid = os.getpid()
        service = engine.service
        engine.door.close()
        service.become_child(row, address(connection), Life(connection, service, engine.row))
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in HEARD:
            signal.signal(number, lambda number, frame: _obey(service, number, frame))
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        connection.generator = service.handler(connection)
        io = ChildIO(connection, service, row)
        serve(connection, io)
        signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
        status = 0
    except Ended:
        status = 0
    except BaseException:
        log.exception("the process of a connection failed")
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)  # not by way of the parent's atexit functions, nor of its stack


def _obey(service: Service, number: int, frame: FrameType | None) -> None:
    service.obey(bytes([number]))


def address(connection: Connection) -> str:
    """The client's address, for titles and the log."""
    peer = connection.peer
    return f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else connection.listener.address

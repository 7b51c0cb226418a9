"""How a greenlet of engine gevent waits for its connection: by a watcher of libev that stays for its whole life."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gevent
from gevent import monkey

from stoker.connection import IDLE, INFINITY, WOKEN, Connection, _Woken
from stoker.engines.base import IN, OUT
from stoker.engines.blocking import serve, watch_progress

try:
    import cython
except ImportError:
    from stoker import nocython as cython

if not cython.compiled:
    from stoker.plain import monotonic, recv_now

if TYPE_CHECKING:
    from stoker.engines.gevent import GeventEngine

READ, WRITE = 1, 2  # as libev calls them
_PROBE = 1.0  # seconds between two looks for a reset while a handler sleeps over unread bytes
_poll = monkey.get_original("select", "poll")


def is_dead(fd: int) -> bool:
    """Whether the connection is over in both directions: reset, as a rule."""
    poll = _poll()
    poll.register(fd, 0)
    return bool(poll.poll(0))


class WatcherIO:
    """Waiting of one connection: its greenlet switches to the hub, its watcher switches back.

    What is on the C stack when it waits is copied, and kept as long as it waits: so what waits most is a chain of few
    and compiled calls.

    :ivar greenlet: the connection's own, one of gevent's: applications may kill or link it
    """

    def __init__(self, engine: GeventEngine, connection: Connection) -> None:
        self.engine = engine
        self.connection = connection
        self.switch = engine.hub_switch
        self.reader: Any = None
        self.reading = False  # the reader is started
        self.writer: Any = None
        self.waiting: Any = None  # the greenlet that has switched away
        self.events = 0  # what it waits for; 0: time, or a job
        self.until = INFINITY
        self.greenlet = gevent.Greenlet(self.run)

    def run(self) -> None:
        """The life of the connection, in its greenlet."""
        connection = self.connection
        if connection.fd < 0:  # a stop came before the greenlet's first turn
            return
        connection.waker = self.wake
        try:
            serve(connection, self)
        finally:
            self.close()
            self.engine.ended(connection)

    def recv(self, connection: Connection) -> bytes | _Woken | None:
        """Wait first: a watcher that stays tells at once, and a client that never pauses starves nobody."""
        while True:
            now = monotonic()
            if connection.deadline <= now and connection.rest != IDLE:
                return None
            if connection.deadline > now and self._wait(IN, connection.deadline):
                return WOKEN
            data = recv_now(connection.fd)
            if data is not None:
                return data
            if connection.deadline <= monotonic():
                return None

    def room(self, connection: Connection) -> bool:
        left = watch_progress(connection, self.engine.write_timeout)
        return self._wait(OUT, monotonic() + left)

    def sleep(self, connection: Connection) -> _Woken | None:
        while connection.deadline > monotonic():
            if self._wait(0, connection.deadline):
                return WOKEN
            self._look()
        return None

    def call(self, connection: Connection) -> None:
        """A job runs here, since it may switch; or on a thread (``--no-patch``), and the greenlet waits."""
        job = connection.job
        if self.engine.patched or (self.engine.service.pool is None and not job.dedicated):
            job.run()
        else:
            self._call_thread(connection, job)
        connection.job = None

    def give_way(self) -> None:
        gevent.sleep(0)

    def wake(self, connection: Connection) -> None:
        """What ``connection.wake()`` calls, from any thread."""
        self.engine.woken.append(self)
        self.engine.bell.send()

    def resume(self, answer: object) -> None:
        """Go on with the greenlet that waits. Called in the hub."""
        waiting, self.waiting = self.waiting, None
        if waiting is not None:
            waiting.switch(answer)

    def close(self) -> None:
        """Give the watchers back; before the descriptor is closed."""
        for watcher in (self.reader, self.writer):
            if watcher is not None:
                watcher.stop()
                watcher.close()

    def _wait(self, events: int, until: float) -> bool:
        """Switch away until the events are there, or the time; True if woken."""
        connection = self.connection
        if connection.woken and connection.wakeable:
            connection.woken = False
            return True
        if self.waiting is not None:
            raise RuntimeError("a greenlet waits on this connection already; others may use its post()")
        if events == OUT:
            if self.writer is None:
                self.writer = self.engine.loop.io(connection.fd, WRITE)
            self.writer.start(self._writable)
        elif not self.reading:
            if events or self.reader is None:
                self._read()
            else:
                until = min(until, monotonic() + _PROBE)
        self.events = events
        self.until = until
        if until < connection.filed:
            self.engine.file(connection, until)
        self.waiting = gevent.getcurrent()
        try:
            return self.switch() is WOKEN
        finally:
            self.waiting = None
            if events == OUT:
                self.writer.stop()

    def _read(self) -> None:
        """Start the watcher, or have one."""
        if self.reader is None:
            self.reader = self.engine.loop.io(self.connection.fd, READ)
        self.reader.start(self._readable)
        self.reading = True

    def _readable(self) -> None:
        """The watcher's callback, in the hub. Where nobody wants to read it is stopped, or it fires for ever."""
        if self.waiting is not None and self.events == IN:
            self.resume(None)
            return
        self.reader.stop()
        self.reading = False
        if self.waiting is not None and self.events == 0:
            self.resume(None)  # to look whether this is a reset

    def _writable(self) -> None:
        self.resume(None)

    def _look(self) -> None:
        if not self.reading and is_dead(self.connection.fd):
            raise ConnectionResetError(104, "the client reset the connection")

    def _call_thread(self, connection: Connection, job: Any) -> None:
        """Have a thread run a job. The connection must stay as long as the job is out, even if it is to be killed."""
        ended: list[bool] = []
        engine = self.engine
        killed: BaseException | None = None
        wakeable, connection.wakeable = connection.wakeable, False
        connection.io, io = None, connection.io

        def done() -> None:
            ended.append(True)
            engine.finished.append(self)
            engine.bell.send()

        engine.service.start_job(job, done)
        while not ended:
            try:
                self._wait(0, INFINITY)
                if not ended:
                    self._look()
            except (OSError, gevent.GreenletExit) as error:
                killed = error
                if not connection.gone:
                    connection.gone = True
                    job.cancel()
        connection.io = io
        connection.wakeable = wakeable
        if killed is not None:
            raise killed

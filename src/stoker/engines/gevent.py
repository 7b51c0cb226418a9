"""gevent: each connection is a greenlet on gevent's hub, with a persistent watcher of its own.

``gevent.socket`` starts and stops a watcher, and makes a timer, for every receive: that costs as much as serving a
request. Here the watcher of a connection is started once and stays: it switches to the greenlet that waits, and the
greenlet switches back to the hub. Deadlines are kept in one heap behind one timer.

With ``--patch`` (the default) the standard library has been patched before anything else was imported, so whatever
blocks in the application switches as well.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator
from typing import Any

import gevent
from gevent import monkey
from gevent.event import Event

from stoker import log
from stoker.connection import BUSY, IDLE, INFINITY, WOKEN, Connection, Service, _Woken
from stoker.engines.base import IN, OUT, TICK, Engine
from stoker.engines.blocking import serve, watch_progress
from stoker.engines.timers import Timers
from stoker.plain import recv_now

_READ, _WRITE = 1, 2  # as libev calls them
_ACCEPTS = 64  # accepted before others have their turn
_PATIENCE = 1.0  # seconds in which a killed greenlet may come to its end
_PROBE = 1.0  # seconds between two looks for a reset while a handler sleeps over unread bytes
_poll = monkey.get_original("select", "poll")
_close = monkey.get_original("os", "close")  # gevent's own closes a socket only after the hub's next turn


def _nothing() -> None:
    """What the hub calls in a turn that is taken for its own sake."""


def is_dead(fd: int) -> bool:
    """Whether the connection is over in both directions: reset, as a rule."""
    poll = _poll()
    poll.register(fd, 0)
    return bool(poll.poll(0))


class WatcherIO:
    """Waiting of one connection: its greenlet switches to the hub, its watcher switches back."""

    def __init__(self, engine: GeventEngine, connection: Connection) -> None:
        self.engine = engine
        self.connection = connection
        self.reader = engine.loop.io(connection.fd, _READ)
        self.writer: Any = None
        self.waiting: Any = None  # the greenlet that has switched away
        self.events = 0  # what it waits for; 0: time, or a job
        self.until = INFINITY
        self.reader.start(self._readable)

    def recv(self, connection: Connection) -> bytes | _Woken | None:
        """Wait first: a watcher that stays tells at once, and a client that never pauses starves nobody."""
        while True:
            now = time.monotonic()
            if connection.deadline <= now and connection.rest != IDLE:
                return None
            if connection.deadline > now and self._wait(IN, connection.deadline):
                return WOKEN
            data = recv_now(connection.fd)
            if data is not None:
                return data
            if connection.deadline <= time.monotonic():
                return None

    def room(self, connection: Connection) -> bool:
        left = watch_progress(connection, self.engine.write_timeout)
        return self._wait(OUT, time.monotonic() + left)

    def sleep(self, connection: Connection) -> _Woken | None:
        while connection.deadline > time.monotonic():
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
                self.writer = self.engine.loop.io(connection.fd, _WRITE)
            self.writer.start(self._writable)
        elif not self.reader.active:
            if events:
                self.reader.start(self._readable)
            else:
                until = min(until, time.monotonic() + _PROBE)
        self.events = events
        self.until = until
        if until < connection.filed:
            self.engine.file(connection, until)
        self.waiting = gevent.getcurrent()
        try:
            return self.engine.hub.switch() is WOKEN
        finally:
            self.waiting = None
            if events == OUT:
                self.writer.stop()

    def _readable(self) -> None:
        """The watcher's callback, in the hub. Where nobody wants to read it is stopped, or it fires for ever."""
        if self.waiting is not None and self.events == IN:
            self.resume(None)
            return
        self.reader.stop()
        if self.waiting is not None and self.events == 0:
            self.resume(None)  # to look whether this is a reset

    def _writable(self) -> None:
        self.resume(None)

    def _look(self) -> None:
        if not self.reader.active and is_dead(self.connection.fd):
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


class GeventEngine(Engine):
    """``--engine gevent``, ``--patch/--no-patch``. The main greenlet accepts and keeps the time."""

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self.hub = gevent.get_hub()
        self.loop = self.hub.loop
        self.main = gevent.getcurrent()
        self.timers = Timers()
        self.bell = self.loop.async_()
        self.woken: deque[WatcherIO] = deque()  # filled by wake(), from any thread
        self.finished: deque[WatcherIO] = deque()  # jobs that have ended, from pool threads
        self.patched: bool = service.config.patch
        self.write_timeout: float = service.config.write_timeout
        self.watchers: dict[int, Any] = {}
        self.listening: dict[int, Any] = {}
        self.events: deque[int] = deque()
        self.greenlets: dict[Connection, Any] = {}
        self.tasks: set[Any] = set()
        self.asleep: dict[Any, Event] = {}
        self.waiting = False  # the main greenlet has switched away
        self.planned = 0.0  # when its timer comes
        self.given_up_at = INFINITY

    def run(self) -> None:
        self.bell.start(self._on_bell)
        for fd in self.service.watched:
            self._watch(fd)
        self.clock.now = self.row.turn = time.monotonic()
        self.listen(True)
        self.service.ready()
        try:
            while not self._turn():
                self._pause()
        finally:
            self._close()

    def _turn(self) -> bool:
        """What the main greenlet does when it is woken; True when the service has stopped."""
        self.clock.now = self.row.turn = time.monotonic()
        while self.events:
            fd = self.events.popleft()
            listener = self.listening.get(fd)
            if listener is not None:
                self.take(listener)
                self.loop.run_callback(_nothing)  # a turn soon, for gevent to close what the door has refused
            elif fd in self.service.watched:
                self.service.watched[fd]()
        for connection in self.timers.due(self.clock.now):
            self._expired(connection)
        self.door.tick()
        if not self.listening and self.service.listeners and self.door.open():
            self.listen(True)
        if not self.service.phase:
            return False
        if self.clock.now >= self.given_up_at and self.connections:
            log.warning(f"{len(self.connections)} greenlet(s) did not end when killed: the worker ends without them")
            self.connections.clear()
        return self.stopped()

    def _pause(self) -> None:
        """Wait for an event or the next deadline."""
        when = min(self.timers.next(), self.clock.now + (0.05 if self.service.phase else TICK))
        if not self.listening and self.service.listeners:
            when = min(when, self.door.opens_at())
        self.planned = when
        timer = self.loop.timer(max(0.0, when - time.monotonic()))
        timer.start(self._to_main, update=True)
        self.waiting = True
        self.hub.switch()
        timer.stop()
        timer.close()

    def _to_main(self) -> None:
        if self.waiting:
            self.waiting = False
            self.main.switch()

    def _on_event(self, fd: int) -> None:
        if fd not in self.events:
            self.events.append(fd)
        self._to_main()

    def _on_bell(self) -> None:
        """Other threads have something to say. Called in the hub."""
        for _ in range(len(self.finished)):
            self.finished.popleft().resume(None)
        for _ in range(len(self.woken)):
            io = self.woken.popleft()
            connection = io.connection
            if io.waiting is not None and connection.woken and connection.wakeable:
                connection.woken = False
                io.resume(WOKEN)

    def file(self, connection: Connection, when: float) -> None:
        """Have a deadline come up in time."""
        self.timers.file(connection, when)
        if when < self.planned and self.waiting:
            self.loop.run_callback(self._to_main)
            self.planned = when

    def _expired(self, connection: Connection) -> None:
        """A deadline has come up; perhaps one that has moved since."""
        io = connection.io
        if not isinstance(io, WatcherIO) or io.waiting is None:
            return
        if io.until <= self.clock.now:
            self.loop.run_callback(io.resume, None)
        else:
            self.timers.file(connection, io.until)

    def _watch(self, fd: int) -> None:
        watcher = self.watchers[fd] = self.loop.io(fd, _READ)
        watcher.start(self._on_event, fd)

    def _unwatch(self, fd: int) -> None:
        watcher = self.watchers.pop(fd)
        watcher.stop()
        watcher.close()

    def _close(self) -> None:
        for task in list(self.tasks):
            task.kill(block=False)
        if self.tasks:
            gevent.joinall(list(self.tasks), timeout=_PATIENCE)
        for fd in list(self.watchers):
            self._unwatch(fd)
        self.bell.stop()
        self.door.close()

    # What every engine has.

    def listen(self, on: bool) -> None:
        if on:
            for listener in self.service.listeners:
                if listener.fileno() not in self.listening:
                    self.listening[listener.fileno()] = listener
                    self._watch(listener.fileno())
        else:
            for fd in self.listening:
                self._unwatch(fd)
            self.listening.clear()

    def forget(self, fd: int) -> None:
        self._unwatch(fd)

    def take(self, listener: Any) -> bool:
        for _ in range(_ACCEPTS):
            connection = self.door.accept(listener)
            if connection is None:
                if not self.door.open():
                    self.listen(False)
                return self.door.empty
            self.accepted(connection)
            self.greenlets[connection] = gevent.spawn(self._serve, connection)
        return False

    def ended(self, connection: Connection) -> None:
        fd, connection.fd = connection.fd, -1
        super().ended(connection)
        if fd >= 0:
            _close(fd)

    def _serve(self, connection: Connection) -> None:
        """The life of one connection, in its greenlet."""
        io = WatcherIO(self, connection)
        connection.waker = io.wake
        try:
            serve(connection, io)
        finally:
            io.close()
            self.greenlets.pop(connection, None)
            self.ended(connection)
            if self.service.phase or not self.listening:
                self._to_main_soon()

    def _to_main_soon(self) -> None:
        """Have the main greenlet look: a stop may be over, or a full house have room again."""
        self.loop.run_callback(self._to_main)

    def abort(self, reason: str) -> None:
        """Kill the greenlets: GreenletExit is raised where they wait, and every ``finally`` runs."""
        if self.given_up_at == INFINITY:
            self.given_up_at = time.monotonic() + _PATIENCE
        for connection in list(self.connections):
            connection.failure = connection.failure or reason
            connection.rest = BUSY
            greenlet = self.greenlets.get(connection)
            if greenlet is None:
                continue
            greenlet.kill(block=False)
            if connection.waker is None:  # it has never run, and will not
                del self.greenlets[connection]
                self.ended(connection)

    def throw_soon(self, greenlet: Any, error: type[BaseException], still: Callable[[], bool]) -> None:
        """Raise an error where a greenlet waits, if ``still`` says so by then. To be called by a signal's handler."""

        def throw() -> None:
            if still():
                greenlet.throw(error)

        self.loop.run_callback(throw)

    # Tasks, and waiting of what is no connection.

    def spawn(self, steps: Generator[float, None, None]) -> Any:
        """Run ``steps`` as a task: each value is when to come back, in seconds of the clock. Returns the task."""

        def run() -> None:
            try:
                for until in steps:
                    self.sleep_until(until)
            except Exception:
                log.exception("a task failed")
            finally:
                steps.close()
                self.tasks.discard(gevent.getcurrent())

        task = gevent.spawn(run)
        self.tasks.add(task)
        return task

    def current(self) -> Any:
        """What runs now, for ``rouse_task``."""
        return gevent.getcurrent()

    def rouse_task(self, task: Any) -> None:
        """Have a task that sleeps come back now."""
        if task in self.asleep:
            self.asleep[task].set()

    def sleep(self, seconds: float) -> None:
        """Wait, wherever that is called."""
        gevent.sleep(max(0.0, seconds))

    def sleep_until(self, when: float) -> None:
        """Wait until ``when``; a task may come back before."""
        current = gevent.getcurrent()
        event = self.asleep[current] = Event()
        try:
            event.wait(max(0.0, when - time.monotonic()) if when < INFINITY else None)
        finally:
            del self.asleep[current]

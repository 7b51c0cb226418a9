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
from stoker.connection import BUSY, INFINITY, WOKEN, Connection, Service
from stoker.engines.base import TICK, Engine, close_handler
from stoker.engines.timers import Timers
from stoker.engines.watcher import READ, WatcherIO

_PATIENCE = 1.0  # seconds in which a killed greenlet may come to its end
_close = monkey.get_original("os", "close")  # gevent's own closes a socket only after the hub's next turn


def _nothing() -> None:
    """What the hub calls in a turn that is taken for its own sake."""


class GeventEngine(Engine):
    """``--engine gevent``, ``--patch/--no-patch``. The main greenlet accepts and keeps the time."""

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self.hub = gevent.get_hub()
        self.loop = self.hub.loop
        self.hub_switch: Any = self.hub.switch
        self.main = gevent.getcurrent()
        self.timers = Timers()
        self.bell = self.loop.async_()
        self.woken: deque[WatcherIO] = deque()  # filled by wake(), from any thread
        self.finished: deque[WatcherIO] = deque()  # jobs that have ended, from pool threads
        self.patched: bool = service.config.patch
        self.write_timeout: float = service.config.write_timeout
        self.watchers: dict[int, Any] = {}
        self.listening: dict[int, Any] = {}
        self.lives: dict[Connection, WatcherIO] = {}
        self.events: deque[int] = deque()
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
        watcher = self.watchers[fd] = self.loop.io(fd, READ)
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

    def begin(self, connection: Connection) -> None:
        self.accepted(connection)
        io = WatcherIO(self, connection)
        self.lives[connection] = io
        io.greenlet.start()

    def ended(self, connection: Connection) -> None:
        fd, connection.fd = connection.fd, -1
        Engine.ended(self, connection)
        if fd >= 0:
            _close(fd)
        self.lives.pop(connection, None)
        if self.service.phase or not self.listening:
            self.loop.run_callback(self._to_main)  # a stop may be over, or a full house have room again

    def abort(self, reason: str) -> None:
        """Kill the greenlets: GreenletExit is raised where they wait, and every ``finally`` runs."""
        if self.given_up_at == INFINITY:
            self.given_up_at = time.monotonic() + _PATIENCE
        for connection in list(self.connections):
            connection.failure = connection.failure or reason
            connection.rest = BUSY
            io = self.lives.get(connection)
            if io is None:
                continue
            io.greenlet.kill(block=False)
            if connection.waker is None:  # it has never run, and will not
                close_handler(connection, reason, log.exception)
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

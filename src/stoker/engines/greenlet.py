"""greenlet: each connection is a greenlet on a hub of our own, over any poller.

A greenlet is a stack that can be left in the middle and gone back to: ``switch`` leaves one for another, as
``yield`` leaves a generator, but from any depth of calls. So a connection's handler, run in a greenlet, is to the
readiness loop a generator like any other, and the application below it may wait as well, with no ``yield`` of its own:

- the hub (the greenlet that runs the loop) resumes a connection by ``send``, which switches to its greenlet;
- what has to wait there switches back to the hub and takes the operation along, as ``yield`` would.

A connection stays registered with the poller all its life, and the kernel is told of changes only.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator
from heapq import heappop, heappush
from typing import Any

import greenlet

from stoker import log
from stoker.connection import (
    CALL,
    DONE,
    DRAIN,
    INFINITY,
    RECV,
    SLEEP,
    WOKEN,
    Connection,
    Handler,
    Service,
    _Woken,
)
from stoker.engines import FD_SETSIZE
from stoker.engines.epoll import EpollPoller
from stoker.engines.readiness import Poller, ReadinessLoop

try:
    import cython
except ImportError:
    from stoker import nocython as cython

if not cython.compiled:
    from stoker.plain import resume


class _Thrown:
    """An answer that is an error, to be raised where the greenlet waits."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error


# A greenlet that knows whose it is: `life` is the connection's _Life, None when that has ended.
_Stack: Any = type("_Stack", (greenlet.greenlet,), {"__slots__": ("life",)})


class _Life:
    """A handler in a greenlet: to the loop it is a generator, to what runs in it a stack that may wait anywhere.

    What is on the C stack when it waits is copied, and kept as long as it waits. So nothing interpreted is between the
    start of the greenlet and the switch, and the handler's own wait is taken up where the greenlet starts.
    """

    def __init__(self, engine: GreenletEngine, connection: Connection, handler: Handler) -> None:
        self.engine = engine
        self.connection = connection
        self.handler = handler
        self.closing = False
        self.greenlet: Any = _Stack(self._run, engine.hub)
        self.greenlet.life = self

    # What the loop calls.

    def send(self, value: Any) -> int:
        """Go on in the greenlet; what it asks for next, DONE when it has ended."""
        ask: int = self.greenlet.switch(value)
        return ask

    def close(self) -> None:
        """Have what waits in the greenlet fail, and the handler closed."""
        self.closing = True
        if self.greenlet:  # begun and not dead
            self.greenlet.throw(greenlet.GreenletExit)
        self.handler.close()

    # What runs in the greenlet.

    def wait(self, ask: int) -> Any:
        """Have the hub do an operation. Raises ConnectionResetError if the connection ends meanwhile."""
        if not self.closing:
            try:
                value = self.engine.to_hub(ask)
                if isinstance(value, _Thrown):
                    raise value.error
                return value
            except greenlet.GreenletExit:
                pass
        raise ConnectionResetError(104, self.connection.failure or "the connection has ended")

    def _run(self, value: object) -> int:
        """Run the handler: ask the hub for what it asks for. A job runs here, unless it wants a thread."""
        connection = self.connection
        engine = self.engine
        try:
            while not self.closing:
                ask = resume(self.handler, value)
                value = None
                if ask == DONE:
                    break
                if ask == CALL and engine.service.pool is None and not connection.job.dedicated:
                    connection.job.run()
                    connection.job = None
                elif not self.closing:
                    value = engine.to_hub(ask)
        except greenlet.GreenletExit:
            pass
        finally:
            self.greenlet.life = None
            self.handler.close()
        return DONE


class HubIO:
    """Waiting by a switch to the hub: for jobs, and for applications that run inline."""

    def __init__(self, engine: GreenletEngine) -> None:
        self.engine = engine

    def _wait(self, connection: Connection, ask: int) -> Any:
        life: _Life | None = getattr(greenlet.getcurrent(), "life", None)
        if life is None or life.connection is not connection:
            raise RuntimeError("a connection waits in its own greenlet only; others may use its post()")
        return life.wait(ask)

    def recv(self, connection: Connection) -> bytes | _Woken | None:
        data: bytes | _Woken | None = self._wait(connection, RECV)
        return data

    def room(self, connection: Connection) -> bool:
        low = connection.low
        connection.low = connection.size - 1  # some room is enough
        try:
            return self._wait(connection, DRAIN) is WOKEN
        finally:
            connection.low = low

    def sleep(self, connection: Connection) -> _Woken | None:
        woken: _Woken | None = self._wait(connection, SLEEP)
        return woken

    def call(self, connection: Connection) -> None:
        connection.job.run()
        connection.job = None

    def give_way(self) -> None:
        """Wait for nothing but the next turn."""
        self.engine.sleep(0.0)


class GreenletEngine(ReadinessLoop):
    """``--engine greenlet``, ``--poller auto|select|poll|epoll``.

    Beside connections it runs tasks, which are greenlets without a connection: ``spawn``.
    """

    def __init__(self, service: Service) -> None:
        poller = make_poller(service.config.poller)
        super().__init__(service, poller)
        if service.config.poller == "select":
            self.door.lowest_refused = FD_SETSIZE
        self.hub = greenlet.getcurrent()
        self.io = HubIO(self)
        self.to_hub: Any = self.hub.switch
        self.tasks: set[Any] = set()
        self.runnable: deque[Any] = deque()
        self.thrown: deque[tuple[Any, type[BaseException], Callable[[], bool]]] = deque()
        self.sleepers: list[tuple[float, int, Any]] = []
        self._serial = 0

    def accepted(self, connection: Connection) -> None:
        ReadinessLoop.accepted(self, connection)
        connection.generator = _Life(self, connection, connection.generator)
        if self.service.pool is None:
            connection.io = self.io

    def throw_soon(self, waiting: Any, error: type[BaseException], still: Callable[[], bool]) -> None:
        """Raise an error where a greenlet waits, if ``still`` says so by then. To be called by a signal's handler."""
        self.thrown.append((waiting, error, still))
        self.ring()

    # Tasks.

    def spawn(self, steps: Generator[float, None, None]) -> Any:
        """Run ``steps`` as a task: each value is when to come back, in seconds of the clock. Returns the task."""

        def run() -> None:
            try:
                for until in steps:
                    self.sleep_until(until)
            except greenlet.GreenletExit:
                pass
            except Exception:
                log.exception("a task failed")
            finally:
                steps.close()
                self.tasks.discard(greenlet.getcurrent())

        task = greenlet.greenlet(run, self.hub)
        self.tasks.add(task)
        self.runnable.append(task)
        return task

    def current(self) -> Any:
        """What runs now, for ``rouse_task``."""
        return greenlet.getcurrent()

    def rouse_task(self, task: Any) -> None:
        """Have a task that sleeps come back now."""
        self.runnable.append(task)

    def sleep(self, seconds: float) -> None:
        """Wait, wherever that is called: in a connection's greenlet, or a task's. Raises RuntimeError in the hub."""
        until = time.monotonic() + seconds
        self.sleep_until(until)
        while time.monotonic() < until:
            self.sleep_until(until)

    def sleep_until(self, when: float) -> None:
        """Wait until ``when``; a task may come back before."""
        current = greenlet.getcurrent()
        if current is self.hub:
            raise RuntimeError("the hub of engine greenlet itself cannot wait")
        life: _Life | None = getattr(current, "life", None)
        if life is None:
            if when < INFINITY:
                self._serial += 1
                heappush(self.sleepers, (when, self._serial, current))
            self.hub.switch(None)
            return
        connection = life.connection
        before = connection.deadline, connection.wakeable
        connection.deadline, connection.wakeable = when, False
        try:
            life.wait(SLEEP)
        finally:
            connection.deadline, connection.wakeable = before

    def timeout(self) -> float:
        if self.runnable:
            return 0.0
        timeout = ReadinessLoop.timeout(self)
        if self.sleepers:
            return max(0.0, min(timeout, self.sleepers[0][0] - time.monotonic()))
        return timeout

    def turn(self, timeout: float) -> bool:
        stop = ReadinessLoop.turn(self, timeout)
        while self.sleepers and self.sleepers[0][0] <= self.clock.now:
            self.runnable.append(heappop(self.sleepers)[2])
        while self.thrown:
            waiting, error, still = self.thrown.popleft()
            thrown: _Life | None = getattr(waiting, "life", None)
            if thrown is not None and still():
                self.advance(thrown.connection, _Thrown(error))
        for _ in range(len(self.runnable)):
            task = self.runnable.popleft()
            life: _Life | None = getattr(task, "life", None)
            if life is not None:
                if life.connection.ask == SLEEP:
                    self.advance(life.connection, None)
            elif not task.dead:
                task.switch()
        return stop

    def close(self) -> None:
        for task in list(self.tasks):
            task.throw(greenlet.GreenletExit)
        super().close()


def make_poller(name: str) -> Poller:
    """The poller of a name; ``auto`` is epoll."""
    if name == "select":
        from stoker.engines.select import SelectPoller

        return SelectPoller()
    if name == "poll":
        from stoker.engines.poll import PollPoller

        return PollPoller()
    return EpollPoller(edge=False)

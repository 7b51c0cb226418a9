"""`sleep`, `spawn` and `join`: waiting that needs no connection, in raw handlers, tasks and applications."""

from __future__ import annotations

import math
import time
from _thread import get_ident
from collections.abc import Callable, Generator
from contextvars import copy_context
from typing import Any

from stoker import log
from stoker.apps.operations import Operation, Process, Steps, current, drive, explain, style_of
from stoker.connection import INFINITY
from stoker.errors import StokerError


def sleep(seconds: float) -> Any:
    """Wait, in any handler on any engine: a plain function calls it, a generator yields it, a coroutine awaits it.

    Elsewhere (in a WSGI application) it is a call. Others are served meanwhile on greenlet and gevent, as where a
    request has a thread or a process of its own. Raises ValueError for what is no time to wait.
    """
    if not seconds >= 0 or math.isinf(seconds):
        raise ValueError(f"sleep({seconds!r}): seconds, zero or more, are needed")
    owner = current.get()
    if owner is not None and owner.thread == get_ident():
        return owner.sleep(seconds)
    engine = _engine_here()
    if engine is not None and hasattr(engine, "sleep_until"):
        engine.sleep(seconds)
    else:
        time.sleep(seconds)
    return None


def spawn(function: Any, *args: Any, **kwargs: Any) -> Task:
    """Run `function(*args, **kwargs)` beside everything else, as a task of the engine; `join` waits for its end.

    It may be a generator function, an `async def`, or (on greenlet and gevent) a plain function. Raises StokerError on
    an engine without tasks.
    """
    service = Process.service
    if service is None:
        raise StokerError("spawn() works in a worker that serves, and there is none")
    name = service.config.engine
    if not service.info.spawns:
        raise StokerError(f"engine {name!r} has no spawn(): use --engine generator, greenlet or gevent")
    style = style_of(function)
    if style == "neither":
        raise TypeError(f"spawn({function!r}): an async generator is nothing to run")
    if name == "generator" and style == "plain":
        raise StokerError(
            f"engine 'generator' spawns generators and coroutines; {function!r} is a plain function, which could not "
            "wait there: use --engine greenlet or gevent, or write it as a generator"
        )
    engine = _engine_here()
    if engine is None:
        raise StokerError(
            f"spawn() was called on another thread than that of engine {name!r}; a plain handler has one of its own on "
            "engine 'generator': write it as a generator, or use --engine greenlet or gevent"
        )
    task = Task(function, args, kwargs, style, engine)
    task.handle = engine.spawn(task.steps())
    return task


def join(task: Task) -> Any:
    """Wait for the end of a spawned task; its result, or its error raised. Called, yielded or awaited as `sleep` is."""
    if not isinstance(task, Task):
        raise TypeError(f"join() needs what spawn() returned, not {type(task).__name__}")
    owner = current.get()
    if owner is not None and owner.thread == get_ident():
        return owner.join(task)
    return task.wait()


def _engine_here() -> Any:
    """The worker's engine, if this is its thread (or a greenlet of gevent's, whose thread has many idents)."""
    service = Process.service
    if service is None or service.engine is None:
        return None
    if get_ident() == Process.thread or (service.config.engine == "gevent" and service.config.patch):
        return service.engine
    return None


class Task:
    """A function that was spawned.

    :ivar done: it has ended
    """

    def __init__(self, function: Any, args: Any, kwargs: Any, style: str, engine: Any) -> None:
        self.done = False
        self.thread = get_ident()
        self.handle: Any = None
        self.watchers: list[Callable[[], None]] = []  # called at the end
        self.error: BaseException | None = None
        self._style = style
        self._engine = engine
        self._call = (function, args, kwargs)
        self._context = copy_context()
        self._value: Any = None

    def result(self) -> Any:
        """What the function returned; raises what it raised."""
        if self.error is not None:
            raise self.error
        return self._value

    def wait(self) -> Any:
        """Block until the end, where the engine can do that by switching. Raises StokerError elsewhere."""
        if not hasattr(self._engine, "sleep_until"):
            raise StokerError("join() must be yielded or awaited on engine 'generator'")
        me = self._engine.current()
        while not self.done:
            self.watchers.append(lambda: self._engine.rouse_task(me))
            self._engine.sleep_until(INFINITY)
        return self.result()

    def steps(self) -> Generator[float, Any, None]:
        """What the engine runs: each value is the time to come back."""
        function, args, kwargs = self._call
        self._context.run(current.set, self)
        self.thread = get_ident()  # under gevent each greenlet has one of its own
        try:
            if self._style == "plain":
                self._value = self._context.run(function, *args, **kwargs)
            else:
                self._value = yield from drive(self, self._context.run(function, *args, **kwargs), self._context)
        except Exception as error:
            explain(error)
            self.error = error
            if not self.watchers:
                log.exception(f"a spawned task failed: {function!r}")
        finally:
            self.done = True
            for watcher in self.watchers:
                watcher()

    # What `sleep` and `join` are in here.

    def sleep(self, seconds: float) -> Any:
        if self._style == "plain":
            return self._engine.sleep(seconds)
        return Operation("sleep", self._sleep(time.monotonic() + seconds), self)

    def join(self, task: Task) -> Any:
        if task is self:
            raise RuntimeError("a task cannot wait for its own end")
        if self._style == "plain":
            return task.wait()
        return Operation("join", self._join(task), self)

    def awaited(self, operation: Operation) -> Steps:
        return (yield operation)

    @staticmethod
    def _sleep(until: float) -> Steps:
        yield until
        while time.monotonic() < until:
            yield until

    def _join(self, task: Task) -> Steps:
        me = self._engine.current()
        while not task.done:
            task.watchers.append(lambda: self._engine.rouse_task(me))
            yield INFINITY
        return task.result()

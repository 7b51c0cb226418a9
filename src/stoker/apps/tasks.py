"""An `async def` handler on engine asyncio: a Task, which may await whatever asyncio has.

Its connection belongs to the engine all the same. An operation that the Task awaits is a future; the connection's own
generator performs it and sets the result. So one Task may receive while another sends.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextvars import copy_context
from typing import Any

from stoker import log
from stoker.apps.operations import Conn, Operation, Steps, current
from stoker.apps.waiting import Task
from stoker.connection import INFINITY, SLEEP, Connection, Handler

_RECEIVING = ("recv", "recv_line")
_AT_ONCE = ("send", "sendfile", "close")  # their steps may be begun here and ended by the connection's generator


class _Cancelled(Exception):
    """Nobody waits for the operation any more."""


class TaskConn(Conn):
    """The connection of a Task. Other Tasks that the handler starts may use it as well."""

    def __init__(self, connection: Connection, service: Any) -> None:
        super().__init__(connection, service)
        self.loop = asyncio.get_running_loop()
        self.requests: deque[tuple[Operation, asyncio.Future[Any]]] = deque()
        self.serving: list[asyncio.Future[Any]] = []  # the operation under way, and one performed while it waits
        self.receiving = False

    def do(self, name: str, steps: Steps) -> Any:
        return Operation(name, steps, self)

    def awaited(self, operation: Operation) -> Steps:
        steps = operation.begin()
        if asyncio.get_running_loop() is not self.loop:
            raise RuntimeError("a connection belongs to the event loop of its handler; others may use conn.post() only")
        if operation.name == "sleep":
            return (yield from asyncio.sleep(next(steps)).__await__())
        if self._over and not self.closed:
            raise ConnectionResetError(104, self.connection.failure or "the connection is over")
        over = self._ended or self.closed
        if operation.name in _AT_ONCE or over or (operation.name == "recv" and self._buffer):
            try:
                next(steps)  # most often there is nothing to wait for, and over receives never wait
            except StopIteration as end:
                if self.connection.size:
                    self.connection.wake()  # what was queued goes out with the next turn
                return end.value
        future = self.loop.create_future()
        future.add_done_callback(self._settled)
        self.requests.append((operation, future))
        self.connection.wake()
        return (yield from future)

    def sleep(self, seconds: float) -> Any:
        return Operation("sleep", iter_once(seconds), self)

    def join(self, task: Task) -> Any:
        raise RuntimeError("there is nothing to join on engine 'asyncio', which has Tasks of its own: await them")

    def attend(self) -> Steps:
        """Besides taking posts: perform what other Tasks ask for while one receives, and notice a cancellation."""
        yield from super().attend()
        if self.receiving and len(self.serving) == 1:
            while self.requests:
                yield from self.fulfil(*self.requests.popleft())
        if self.serving and self.serving[-1].cancelled():
            raise _Cancelled

    def fulfil(self, operation: Operation, future: asyncio.Future[Any]) -> Steps:
        """Perform an operation, and set its future's result."""
        receives = operation.name in _RECEIVING
        if future.done():
            return
        if receives and self.receiving:
            future.set_exception(RuntimeError(f"{operation.name}(): another Task is receiving already"))
            return
        self.serving.append(future)
        self.receiving = self.receiving or receives
        if receives and self.requests:
            self.connection.wake()  # so that the receive looks at them: their own wake-up has been answered
        value: Any = b""
        try:
            value = yield from operation.steps
        except _Cancelled:
            return
        except Exception as error:
            self.error = error if isinstance(error, TimeoutError) else self.error
            if not future.done():
                future.set_exception(error)
            return
        finally:
            self.serving.pop()
            if receives:
                self.receiving = False
        if not future.done():
            future.set_result(value)
        elif receives:
            self._buffer = value + self._buffer  # cancelled at the last moment: the next one receives it

    def give_up(self) -> None:
        """The connection is over: nothing that still waits will come."""
        self.over()
        for future in (*self.serving, *(future for _, future in self.requests)):
            future.cancel()

    def _settled(self, future: asyncio.Future[Any]) -> None:
        if future.cancelled():
            self.connection.wake()


def iter_once(value: Any) -> Steps:
    """Steps that hold a value."""
    yield value


def serve(connection: Connection, site: Any) -> Handler:
    """Run the handler as a Task, and perform what it awaits of its connection."""
    conn = TaskConn(connection, site.service)
    context = copy_context()
    context.run(current.set, conn)
    task = conn.loop.create_task(site.function(conn), context=context)
    task.add_done_callback(lambda ended: finished(ended, conn, site))
    try:
        while not task.done() or conn.requests:
            if conn.requests:
                yield from conn.fulfil(*conn.requests.popleft())
            else:
                connection.deadline = INFINITY
                yield SLEEP
                yield from conn.attend()
    finally:
        conn.give_up()
        if not conn.closed:  # a handler that has closed it may go on without it
            task.cancel()


def finished(task: asyncio.Task[Any], conn: TaskConn, site: Any) -> None:
    """The handler has ended: say so if it failed, and have its connection closed."""
    if not task.cancelled() and (error := task.exception()) is not None:
        try:
            raise error
        except Exception:
            site.failed(conn, error)
        except BaseException:
            log.exception("a handler failed")
    conn.connection.wake()

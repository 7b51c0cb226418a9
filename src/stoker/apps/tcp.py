"""Raw TCP handlers, in three styles.

A handler is called with a `Conn` for each connection, whose end is the handler's return::

    def handle(conn):                   def handle(conn):                   async def handle(conn):
        while data := conn.recv():          while data := (yield conn.recv()):  while data := await conn.recv():
            conn.send(data)                     yield conn.send(data)               await conn.send(data)

The plain function may block. Where the engine cannot have that, it gets a thread for the life of its connection. The
other two wait in the engine's own way, on every engine; on asyncio a coroutine is a Task, and may await anything.
"""

from __future__ import annotations

import inspect
import socket
from _thread import get_ident
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from stoker import log
from stoker.apps.operations import (
    BlockingConn,
    Conn,
    Operation,
    SteppedConn,
    current,
    drive,
    explain,
    style_of,
)
from stoker.apps.waiting import Task, join, sleep, spawn
from stoker.connection import CALL, BlockingIO, Connection, Handler, shutdown
from stoker.errors import BootError

__all__ = ["Conn", "Operation", "Site", "Task", "join", "site", "sleep", "spawn"]


_IN_PLACE = ("process", "thread", "greenlet", "gevent")  # a plain function can wait here without a thread for that


class Site:
    """What the connections of a raw handler share.

    :param make_io: makes what a plain handler waits by on a thread of its own
    """

    def __init__(self, service: Any, function: Any, make_io: Callable[[], Any]) -> None:
        self.service = service
        self.function = function
        self.make_io = make_io
        self.style = style_of(function)
        if self.style == "neither":
            raise BootError(f"{function!r} is an async generator; a handler is a function, a generator or an async def")

    def handler(self, connection: Connection) -> Handler:
        """A handler for a new connection."""
        connection.wakeable = True
        if self.style == "plain":
            return self._plain(connection)
        if self.style == "async" and self.service.config.engine == "asyncio":
            from stoker.apps.tasks import serve

            return serve(connection, self)
        return self._stepped(connection)

    def _plain(self, connection: Connection) -> Handler:
        connection.job = PlainJob(connection, self)
        yield CALL

    def _stepped(self, connection: Connection) -> Handler:
        conn = SteppedConn(connection, self.service)
        context = copy_context()
        context.run(current.set, conn)
        try:
            yield from drive(conn, context.run(self.function, conn), context)
        except Exception as error:
            self.failed(conn, error)
        finally:
            conn.over()

    def failed(self, conn: Conn, error: BaseException) -> None:
        """Say that a handler has raised. A client that left, or was too slow, is no failure of the handler's."""
        if error is conn.error:
            log.debug(f"{conn.peer}: the handler ends: {error}")
            return
        explain(error)
        self.service.row.errors += 1
        log.exception(f"the handler {getattr(self.function, '__qualname__', self.function)!r} failed")


class PlainJob:
    """A plain function on its way: in place where that may wait, on a thread of its own elsewhere."""

    def __init__(self, connection: Connection, site: Site) -> None:
        self.dedicated = site.service.config.engine not in _IN_PLACE
        self.connection = connection
        self.site = site

    def run(self) -> None:
        connection = self.connection
        site = self.site
        conn = BlockingConn(connection, site.service)
        conn.thread = get_ident()
        waker = connection.waker
        own: Any = None
        if connection.io is None:
            own = connection.io = site.make_io()
        try:
            copy_context().run(self._run, conn)
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            site.failed(conn, error)
        finally:
            conn.over()
            if own is not None:
                connection.waker = waker
                connection.io = None
                own.close()

    def _run(self, conn: BlockingConn) -> None:
        current.set(conn)
        result = self.site.function(conn)
        if inspect.isgenerator(result) or inspect.iscoroutine(result):
            result.close()
            raise TypeError(
                f"the handler returned a {type(result).__name__} instead of serving: it must be seen to be one "
                "before it is called (inspect.isgeneratorfunction, inspect.iscoroutinefunction)"
            )

    def cancel(self) -> None:
        """End the waiting of the thread: its next receive finds the end of the stream, its next send a reset."""
        shutdown(self.connection.fd, socket.SHUT_RDWR)


def site(service: Any, function: Any, make_io: Callable[[], BlockingIO]) -> Site:
    """The site of a worker. Raises BootError for what cannot be a handler."""
    return Site(service, function, make_io)

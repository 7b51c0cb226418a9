"""What a raw TCP handler may do with its connection.

Each operation is written once, as *steps*: a generator that yields what the engine is to do (`stoker.connection`) and
returns the operation's result. How the steps are run is the handler's style. A plain function blocks until they are
done; in a generator and in an `async def` the call makes an `Operation`, which is performed where it is yielded or
awaited.
"""

from __future__ import annotations

import errno
import inspect
import os
import socket
import stat
import time
from _thread import allocate_lock, get_ident
from collections import deque
from collections.abc import Generator
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from stoker import log
from stoker.connection import (
    BUSY,
    DRAIN,
    HIGH,
    INFINITY,
    RECV,
    SLEEP,
    STOPPING,
    WAITING,
    WOKEN,
    Connection,
    FileSlice,
    WriteStalled,
    shutdown,
)
from stoker.errors import ProtocolError, StokerError

if TYPE_CHECKING:
    from stoker.apps.waiting import Task

LINE = 65536  # bytes: the longest line by default
POSTED = 1 << 20  # bytes queued for a client, above which nothing more is posted to it

Steps = Generator[Any, Any, Any]


class Owner(Protocol):
    """A handler or a task that is running: what `sleep` and `join` are for it."""

    thread: int

    def sleep(self, seconds: float) -> Any: ...
    def join(self, task: Task) -> Any: ...
    def awaited(self, operation: Operation) -> Steps: ...


current: ContextVar[Owner | None] = ContextVar("stoker.current", default=None)


class Process:
    """The worker that this process is, for functions that are called from anywhere."""

    service: Any = None
    thread = 0


def serve_for(service: Any) -> None:
    """Say which worker `sleep` and `spawn` belong to."""
    Process.service = service
    Process.thread = get_ident()


class Operation:
    """Something that a handler wants done: yield it in a generator, await it in an `async def`."""

    __slots__ = ("begun", "name", "owner", "steps")

    def __init__(self, name: str, steps: Steps, owner: Owner) -> None:
        self.name = name
        self.steps = steps
        self.owner = owner
        self.begun = False

    def __await__(self) -> Steps:
        return self.owner.awaited(self)

    def __repr__(self) -> str:
        return f"<operation {self.name}>"

    def __del__(self) -> None:
        if not self.begun:
            log.error(f"{self.name}() was called, but neither yielded nor awaited: it has done nothing")

    def begin(self) -> Steps:
        """The steps, to be run now. Raises RuntimeError if they have been before."""
        if self.begun:
            raise RuntimeError(f"{self.name}(): an operation can be yielded or awaited once only")
        self.begun = True
        return self.steps


class Conn:
    """A connection, to its handler. The handler alone may use it; others, on whatever thread, may `post`.

    In a plain function every method blocks until it is done. In a generator its result comes from `yield`, in an
    `async def` from `await`.

    :ivar closed: the handler has called `close`
    :ivar peer: the client's address as accept(2) gave it: (host, port, …), or a path for a unix socket
    """

    def __init__(self, connection: Connection, service: Any) -> None:
        self.peer = connection.peer
        self.thread = get_ident()
        self.connection = connection
        self.service = service
        self.error: BaseException | None = None  # the failure of the connection that the handler was told of
        self._buffer = b""
        self._posts: deque[bytes] = deque()
        self._posted = 0  # bytes in them
        self._lock = allocate_lock()
        self._ended = False
        self.closed = False
        self._over = False

    # What a handler calls.

    @property
    def local(self) -> Any:
        """Our own address of this connection, as getsockname(2) gives it."""
        sock = socket.socket(fileno=self.connection.fd)
        try:
            return sock.getsockname()
        finally:
            sock.detach()

    def recv(self, n: int = 65536, timeout: float | None = None) -> Any:
        """Receive 1 to `n` bytes; `b""` when the client has ended its side, or the server stops.

        Raises TimeoutError when nothing has come for `timeout` seconds; ConnectionResetError (see `send`).
        """
        if n < 1:
            raise ValueError(f"recv({n}): at least one byte must be asked for")
        return self.do("recv", self._recv(n, timeout))

    def recv_line(self, limit: int = LINE, timeout: float | None = None) -> Any:
        r"""Receive up to and with the next `\n`; what is left at the end of the stream comes as it is, then `b""`.

        Raises ProtocolError for a line of more than `limit` bytes; TimeoutError when it is not there after `timeout`
        seconds: what has come of it is kept for the next call.
        """
        if limit < 1:
            raise ValueError(f"recv_line({limit}): a line has at least one byte")
        return self.do("recv_line", self._recv_line(limit, timeout))

    def send(self, data: bytes | bytearray | memoryview) -> Any:
        """Queue all of `data`, and come back when the queue is short: a client that reads slowly holds its handler up.

        A client that has left is, to a plain function, ConnectionResetError here and in every other method; a
        generator or coroutine is closed where it waits, so that its `finally` runs.
        """
        return self.do("send", self._send(as_bytes("send", data)))

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> Any:
        """Send a part of a regular file by sendfile(2); returns how many bytes that is.

        :param file: anything with a `fileno()`; it may be closed when this has returned
        :param offset: where the part begins, in bytes
        :param count: how many bytes; None: up to the file's end

        Raises ValueError if that part is not in the file, or the file is no regular one.
        """
        return self.do("sendfile", self._sendfile(file, offset, count))

    def close(self) -> Any:
        """Send what is queued and end our side of the connection; after that `recv` gives `b""`.

        A handler that returns has the same done for it.
        """
        return self.do("close", self._close())

    # What anybody may call.

    def post(self, data: bytes | bytearray | memoryview) -> bool:
        """Send `data` to the client from outside the handler: from another handler, or from any thread.

        It never waits: it goes out when the handler waits for something, which may be at once. False if it was not
        taken, because the connection is over or 1 MiB is queued already for a client that does not read.
        """
        piece = as_bytes("post", data)
        with self._lock:
            if self._over or self.closed or self._posted + self.connection.size > POSTED:
                return False
            self._posts.append(piece)
            self._posted += len(piece)
        self.connection.wake()
        return True

    # How it is done: by style, see the subclasses.

    def do(self, name: str, steps: Steps) -> Any:
        """Run an operation's steps, or make an Operation of them."""
        raise NotImplementedError

    def awaited(self, operation: Operation) -> Steps:
        """What `await` of an operation does."""
        return (yield operation)

    def sleep(self, seconds: float) -> Any:
        """`stoker.sleep` in this handler."""
        return self.do("sleep", self._sleep(time.monotonic() + seconds))

    def join(self, task: Task) -> Any:
        """`stoker.join` in this handler."""
        return self.do("join", self._join(task))

    def check_owner(self) -> None:
        """Raises RuntimeError where this is not the handler's own code: only one may receive and send at a time."""
        if current.get() is not self or get_ident() != self.thread:
            raise RuntimeError("a connection belongs to its handler: others, and tasks, may use conn.post() only")

    def over(self) -> None:
        """The handler has ended."""
        self._over = True
        self._posts.clear()

    # The steps.

    def attend(self) -> Steps:
        """What a wake-up is for."""
        with self._lock:
            while self._posts:
                piece = self._posts.popleft()
                self._posted -= len(piece)
                self.connection.write(piece)
        return
        yield

    def _receive(self, deadline: float) -> Steps:
        connection = self.connection
        if self._ended or self.closed:
            return b""
        connection.deadline = deadline
        connection.rest = WAITING
        if self.service.phase >= STOPPING:
            shutdown(connection.fd, socket.SHUT_RD)  # what has arrived is still read, then comes the end
        try:
            while (data := (yield RECV)) is WOKEN:
                yield from self.attend()
        finally:
            connection.rest = BUSY
        if data is None:
            raise TimeoutError(errno.ETIMEDOUT, "nothing was received in time")
        self._ended = not data
        return data

    def _recv(self, n: int, timeout: float | None) -> Steps:
        data: bytes = self._buffer or (yield from self._receive(_deadline(timeout)))
        self._buffer = data[n:]
        return data[:n]

    def _recv_line(self, limit: int, timeout: float | None) -> Steps:
        deadline = _deadline(timeout)
        looked = 0
        while (end := self._buffer.find(b"\n", looked, limit)) < 0:
            looked = len(self._buffer)
            if looked >= limit:
                raise ProtocolError(400, f"a line of more than {limit} bytes")
            more = yield from self._receive(deadline)
            if not more:
                end = looked
                break
            self._buffer += more
        line, self._buffer = self._buffer[: end + 1], self._buffer[end + 1 :]
        return line

    def _drain(self, low: int) -> Steps:
        connection = self.connection
        connection.low = low
        try:
            while connection.size > low:
                if (yield DRAIN) is WOKEN:
                    yield from self.attend()
        finally:
            connection.low = HIGH

    def _send(self, data: bytes) -> Steps:
        self._check_open()
        self.connection.write(data)
        yield from self._drain(HIGH)

    def _sendfile(self, file: Any, offset: int, count: int | None) -> Steps:
        self._check_open()
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("sendfile() needs a regular file; send what others give by send()")
        if count is None:
            count = max(0, status.st_size - offset)
        if offset < 0 or count < 0 or offset + count > status.st_size:
            raise ValueError(f"sendfile(): bytes {offset} to {offset + count} of a file of {status.st_size} bytes")
        self.connection.send_file(FileSlice(os.dup(file.fileno()), offset, count))
        yield from self._drain(HIGH)
        return count

    def _close(self) -> Steps:
        if not self.closed:
            self.closed = True
            self._buffer = b""
            yield from self._drain(0)
            shutdown(self.connection.fd, socket.SHUT_WR)

    def _sleep(self, until: float) -> Steps:
        self.connection.deadline = until
        while (yield SLEEP) is WOKEN:
            yield from self.attend()

    def _join(self, task: Task) -> Steps:
        while not task.done:
            task.watchers.append(self.connection.wake)
            self.connection.deadline = INFINITY
            yield SLEEP
            yield from self.attend()
        return task.result()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("the connection was closed by its own handler")


class BlockingConn(Conn):
    """The connection of a plain function."""

    def do(self, name: str, steps: Steps) -> Any:
        self.check_owner()
        connection = self.connection
        answer: object = None
        result: Any = None
        try:
            while True:
                ask = steps.send(answer)
                if connection.gone:
                    raise ConnectionResetError(errno.ECONNRESET, connection.failure or "the client has left")
                answer = connection.perform(ask)
        except StopIteration as end:
            result = end.value
        except BrokenPipeError as error:
            self.error = ConnectionResetError(errno.ECONNRESET, "the client has left")
            raise self.error from error
        except (ConnectionError, TimeoutError, WriteStalled, ProtocolError) as error:
            self.error = error
            raise
        finally:
            steps.close()
        try:
            connection.flush()
        except OSError as error:
            self.error = ConnectionResetError(errno.ECONNRESET, "the client has left")
            raise self.error from error
        return result


class SteppedConn(Conn):
    """The connection of a generator or coroutine."""

    def do(self, name: str, steps: Steps) -> Any:
        self.check_owner()
        return Operation(name, steps, self)


def drive(owner: Any, steps: Any, context: Context) -> Steps:
    """Run a handler's generator or coroutine to its end, performing its operations; its result."""
    value: object = None
    error: BaseException | None = None
    try:
        while True:
            try:
                asked = context.run(steps.send, value) if error is None else context.run(steps.throw, error)
            except StopIteration as end:
                return end.value
            value = error = None
            try:
                if type(asked) is not Operation or asked.owner is not owner:
                    raise foreign(asked)
                value = yield from asked.begin()
            except Exception as raised:
                error = raised
                if isinstance(raised, TimeoutError | ProtocolError):
                    owner.error = raised
    finally:
        context.run(steps.close)


def foreign(asked: object) -> Exception:
    """The error for what a handler yields or awaits that is no operation of its own."""
    if isinstance(asked, Operation):
        return RuntimeError(f"{asked.name}(): this operation is another handler's")
    if hasattr(asked, "_asyncio_future_blocking") or asked is None:
        engine = Process.service.config.engine
        return StokerError(
            f"something of asyncio was awaited, which engine {engine!r} does not run: await conn.* and stoker.sleep, "
            "or use --engine asyncio with an async def"
        )
    if inspect.iscoroutine(asked):
        asked.close()
    return TypeError(
        f"a handler waits for conn.recv() and its like, stoker.sleep and stoker.join, not for {type(asked).__name__}"
    )


def explain(error: BaseException) -> None:
    """Add to an error of asyncio's what it means here."""
    if isinstance(error, RuntimeError) and "no running event loop" in str(error) and Process.service is not None:
        error.add_note(
            f"engine {Process.service.config.engine!r} runs no event loop of asyncio: await conn.* and stoker.sleep, "
            "or use --engine asyncio"
        )


def style_of(function: Any) -> str:
    """How a handler is written: "plain", "generator", "async", or "neither" for an async generator."""
    for candidate in (function, getattr(function, "__call__", None)):  # noqa: B004 - an object may have an async __call__
        if inspect.iscoroutinefunction(candidate):
            return "async"
        if inspect.isgeneratorfunction(candidate):
            return "generator"
        if inspect.isasyncgenfunction(candidate):
            return "neither"
    return "plain"


def as_bytes(name: str, data: Any) -> bytes:
    """The bytes of what is to be sent. Raises TypeError."""
    if type(data) is bytes:
        return data
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    raise TypeError(f"{name}() needs bytes, not {type(data).__name__}")


def _deadline(timeout: float | None) -> float:
    return INFINITY if timeout is None else time.monotonic() + timeout

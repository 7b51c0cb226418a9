"""WSGI (PEP 3333): the environ, ``start_response``, ``wsgi.input``, and a response on its way."""

from __future__ import annotations

import os
import stat
import sys
import time
from contextvars import copy_context
from typing import Any
from urllib.parse import unquote_to_bytes

from stoker import log
from stoker.apps.http import Site
from stoker.connection import HIGH, Connection, FileSlice
from stoker.errors import ApplicationError, StokerError
from stoker.http.response import CONTINUE, refusal

_KEYS: dict[bytes, str] = {b"content-type": "CONTENT_TYPE", b"content-length": "CONTENT_LENGTH"}
_KEYS_MAX = 2000


class RequestTimeout(BaseException):
    """The application had more than ``--request-timeout`` for a request. No Exception, lest an app swallow it."""


class BodyError(StokerError, OSError):
    """The body cannot be read to its end: it is malformed, too large, too slow, or the client left."""


class Errors:
    """``wsgi.errors``: lines for the server's log."""

    def __init__(self) -> None:
        self._rest = ""

    def write(self, text: str) -> int:
        lines = (self._rest + text).split("\n")
        self._rest = lines.pop()
        for line in lines:
            log.error(line)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if self._rest:
            rest, self._rest = self._rest, ""
            log.error(rest)


class FileWrapper:
    """``wsgi.file_wrapper``: a file as a response, sent by sendfile(2) where it is a regular file."""

    def __init__(self, file: Any, block_size: int = 65536) -> None:
        self.file = file
        self.block_size = block_size
        if hasattr(file, "close"):
            self.close = file.close

    def __iter__(self) -> FileWrapper:
        return self

    def __next__(self) -> bytes:
        data: bytes = self.file.read(self.block_size)
        if not data:
            raise StopIteration
        return data

    def part(self) -> FileSlice | None:
        """The rest of the file, by a descriptor of its own; None if it is no regular file. Raises OSError."""
        try:
            fd = self.file.fileno()
            status = os.fstat(fd)
            offset = self.file.tell()
        except (AttributeError, OSError, ValueError):
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        return FileSlice(os.dup(fd), offset, max(0, status.st_size - offset))


class Input:
    """``wsgi.input`` where blocking is allowed: the body as it comes, never a byte past it."""

    def __init__(self, exchange: WSGIExchange) -> None:
        self._exchange = exchange
        self._buffer = b""

    def _more(self) -> bool:
        """Have at least one more byte in the buffer; False at the end. Raises BodyError."""
        piece = self._exchange.body_piece()
        self._buffer += piece
        return bool(piece)

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            pieces = [self._buffer]
            while piece := self._exchange.body_piece():
                pieces.append(piece)
            self._buffer = b""
            return b"".join(pieces)
        pieces = []
        have = len(self._buffer)
        if have < size:
            pieces.append(self._buffer)
            self._buffer = b""
            while have < size and (piece := self._exchange.body_piece()):
                pieces.append(piece)
                have += len(piece)
            self._buffer = b"".join(pieces)
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def readline(self, size: int | None = -1) -> bytes:
        limit = sys.maxsize if size is None or size < 0 else size
        start = 0
        while (end := self._buffer.find(b"\n", start, limit)) < 0 and len(self._buffer) < limit:
            start = len(self._buffer)
            if not self._more():
                break
        end = min(limit, len(self._buffer) if end < 0 else end + 1)
        data, self._buffer = self._buffer[:end], self._buffer[end:]
        return data

    def readlines(self, hint: int | None = None) -> list[bytes]:
        lines = []
        total = 0
        for line in self:
            lines.append(line)
            total += len(line)
            if hint is not None and 0 < hint <= total:
                break
        return lines

    def __iter__(self) -> Input:
        return self

    def __next__(self) -> bytes:
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    def close(self) -> None:
        self._buffer = b""


class WSGISite(Site):
    """What the WSGI connections of a worker share, beside what all HTTP connections do.

    :param threads: other requests run in this process at the same time, on other threads
    :param processes: ... in other processes
    :param inline: application code runs on the loop's own thread, which the master is told of
    """

    application: Any
    threads: bool
    processes: bool
    inline: bool
    root_path: str
    watch: Any = None

    def environ(self, connection: Connection) -> dict[str, Any]:
        """What the environs of all requests on a connection have in common."""
        peer = connection.peer
        host, port = connection.listener.server
        environ = {
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.multithread": self.threads,
            "wsgi.multiprocess": self.processes,
            "wsgi.run_once": False,
            "wsgi.input_terminated": True,
            "wsgi.file_wrapper": FileWrapper,
            "SERVER_SOFTWARE": "stoker",
            "SERVER_NAME": str(host),
            "SERVER_PORT": str(port),
            "SCRIPT_NAME": self.root_path,
            "REMOTE_ADDR": "",
        }
        if isinstance(peer, tuple):
            environ["REMOTE_ADDR"] = peer[0]
            environ["REMOTE_PORT"] = str(peer[1])
        return environ


def key_of(name: bytes) -> str:
    """The environ's key for a field, remembered for the names that come often."""
    key = _KEYS.get(name)
    if key is None:
        key = "HTTP_" + name.decode("latin-1").upper().replace("-", "_")
        if len(_KEYS) < _KEYS_MAX:
            _KEYS[name] = key
    return key


class WSGIExchange:
    """One connection's requests to a WSGI application, one after the other."""

    dedicated = False

    def __init__(self, connection: Connection, parser: Any, writer: Any, site: WSGISite) -> None:
        self.connection = connection
        self.parser = parser
        self.writer = writer
        self.site = site
        self.base = site.environ(connection)
        self.fields: Any = None  # the list that `template` was made of
        self.template: dict[str, Any] = self.base
        self.continued = True
        self.failed = False
        self.open = False
        self.result: Any = None
        self.iterator: Any = None
        self.input: Any = None
        self.refused: tuple[int, str] | None = None
        self.errors: Any = None
        self.environ: dict[str, Any] = {}
        self.context: Any = None
        self.status_line = ""
        self.response_headers: Any = []
        self.arrived = self.called = self.returned = 0.0

    # A request.

    def begin(self, body: Any) -> None:
        parser = self.parser
        self.open = True
        self.failed = False
        self.refused = None
        self.continued = body is not None or not parser.expect_continue
        self.input = Input(self) if body is None else body
        self.errors = Errors()
        if parser.fields is not self.fields:
            self.template = self._template()
            self.fields = parser.fields
        environ = self.template.copy()
        environ["REQUEST_METHOD"] = parser.method
        environ["SERVER_PROTOCOL"] = "HTTP/1.1" if parser.minor else "HTTP/1.0"
        environ["RAW_URI"] = environ["REQUEST_URI"] = parser.target.decode("latin-1")
        environ["QUERY_STRING"] = parser.query.decode("latin-1")
        path = parser.path
        if b"%" in path:
            path = unquote_to_bytes(path)
        info: str = path.decode("latin-1")
        root = self.site.root_path
        if root and (info == root or info.startswith(root + "/")):
            info = info[len(root) :]
        environ["PATH_INFO"] = info
        environ["wsgi.input"] = self.input
        environ["wsgi.errors"] = self.errors
        if parser.scheme:
            environ["HTTP_HOST"] = parser.host.decode("latin-1")
        self.environ = environ
        self.context = copy_context()
        if self.site.access is not None:
            self.arrived = self.connection.clock.now
            self.called = self.returned = 0.0

    def _template(self) -> dict[str, Any]:
        """The environ of a header block; a client sends the same one again and again."""
        environ = self.base.copy()
        for name, value in self.parser.fields:
            key = key_of(name)
            text = value.decode("latin-1")
            if key in environ and key.startswith("HTTP_"):
                text = f"{environ[key]}{'; ' if key == 'HTTP_COOKIE' else ', '}{text}"
            environ[key] = text
        return environ

    def answer(self) -> bool:
        return bool(self.context.run(self._guarded, self._answer))

    def go_on(self) -> bool:
        return bool(self.context.run(self._guarded, self._go_on))

    def run(self) -> None:
        if self.connection.io is None:
            self.connection.io = self.site.make_io()
        try:
            self.context.run(self._guarded, self._run)
        finally:
            self._close_result()

    def cancel(self) -> None:
        """Nothing but ``connection.gone``, which ``run`` looks at: a thread cannot be made to let go of a call."""

    def _run(self) -> bool:
        if self._answer():
            while True:
                self._drain()  # each block goes out before the next is asked for (PEP 3333)
                if not self._go_on():
                    break
        if self.connection.size > HIGH:
            self._drain()
        return False

    def _guarded(self, step: Any) -> bool:
        """Run application code: what it raises ends the response, never the server."""
        site = self.site
        watch = site.watch
        if self.called == 0.0 and site.access is not None:
            self.called = time.monotonic()
        if site.inline:
            site.service.row.busy += 1
        if watch is not None:
            watch.begin(self)
        try:
            return bool(step())
        except (Exception, RequestTimeout, SystemExit, KeyboardInterrupt) as error:
            self._failed(error)
            return False
        finally:
            if watch is not None:
                watch.end(self)
            if site.inline:
                site.service.row.busy -= 1
            if site.access is not None:
                self.returned = time.monotonic()

    def _answer(self) -> bool:
        result = self.result = self.site.application(self.environ, self.start_response)
        writer = self.writer
        if type(result) is list and len(result) == 1 and writer.started and not writer.sent_head:
            body = result[0]
            if type(body) is bytes:
                self._head_checks()
                self.connection.write(writer.one(body, self.site.date.now()))
                self._ended()
                return False
        if type(result) is FileWrapper and writer.started and self._send_file(result):
            return False
        self.iterator = iter(result)
        return True

    def _go_on(self) -> bool:
        try:
            block = next(self.iterator)
        except StopIteration:
            if not self.writer.started:
                raise ApplicationError("the application returned without a call of start_response") from None
            if self.writer.sent_head:
                self.connection.write(self.writer.end())
            else:
                self._head_checks()
                self.connection.write(self.writer.one(b"", self.site.date.now()))
            self._ended()
            return False
        self._block(block)
        writer = self.writer
        if writer.excess or (writer.sent_head and not writer.body_allowed):
            self.connection.write(writer.end())
            self._ended()
            return False
        return True

    def _block(self, block: Any) -> None:
        """Queue one block of the body, with the head before the first."""
        writer = self.writer
        if type(block) is not bytes:
            if not isinstance(block, bytes):
                raise ApplicationError(f"a block of the response is a {type(block).__name__}, not bytes")
            block = bytes(block)
        if not writer.started:
            raise ApplicationError("the application gave a block of the body before it called start_response")
        if not block:
            return
        if writer.sent_head:
            self.connection.write(writer.frame(block))
        else:
            self._head_checks()
            self.connection.write(writer.head(self.site.date.now()) + writer.frame(block))

    def _head_checks(self) -> None:
        """Before the head goes out: a body whose 100 Continue was never sent cannot be told from the next request."""
        if not self.continued and not self.parser.complete:
            self.writer.keep_alive = False

    def _send_file(self, wrapper: FileWrapper) -> bool:
        part = wrapper.part()
        if part is None:
            return False
        writer = self.writer
        try:
            if not writer.sent_head:
                self._head_checks()
                if writer.length < 0:
                    writer.start(self.status_line, [*self.response_headers, ("Content-Length", str(part.count))])
                self.connection.write(writer.head(self.site.date.now()))
            before, part.count, after = writer.file(part.count)
        except BaseException:
            part.close()
            raise
        self.connection.write(before)
        self.connection.send_file(part)
        self.connection.write(after + writer.end())
        self._ended()
        return True

    def _ended(self) -> None:
        """The response is whole, as far as the application goes."""
        writer = self.writer
        if writer.excess:
            log.error(
                f"{self._what()}: the application gave more than its Content-Length of {writer.length}; it was cut"
            )
        elif writer.short:
            log.error(
                f"{self._what()}: the application gave {writer.sent} bytes, its Content-Length said {writer.length}; "
                "the connection is closed"
            )
        self._close_result()

    def start_response(self, status: Any, headers: Any, exc_info: Any = None) -> Any:
        """PEP 3333's callable. Raises ApplicationError for what may not go on the wire, or a second call."""
        writer = self.writer
        if exc_info is not None:
            try:
                if writer.sent_head:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif writer.started:
            raise ApplicationError("start_response was called twice without exc_info")
        writer.start(status, headers)
        self.status_line = status
        self.response_headers = headers
        return self.write

    def write(self, data: Any) -> None:
        """PEP 3333's imperative way. Blocks where that is allowed; inline, what the kernel does not take is kept."""
        self._block(data)
        if self.connection.io is not None:
            self._drain()
        else:
            try:
                self.connection.flush()
            except OSError:
                self.failed = True
                raise

    def body_piece(self) -> bytes:
        """The next piece of the body, waited for; b"" at its end. Raises BodyError."""
        connection = self.connection
        parser = self.parser
        site = self.site
        if not self.continued:
            self.continued = True
            connection.write(CONTINUE)
            self._drain()
        while True:
            piece: bytes | None = parser.body()
            if piece is None:
                self._refuse(parser.error.status, parser.error.reason)
            if piece or parser.complete:
                return piece or b""
            connection.deadline = time.monotonic() + site.body_timeout
            data = connection.io.recv(connection)
            if data is None:
                self._refuse(408, "the body did not come in time")
            if not data:
                self._refuse(400, "the body is incomplete")
            parser.feed(data)

    def _refuse(self, status: int, reason: str) -> None:
        self.refused = (status, reason)
        raise BodyError(reason)

    def _failed(self, error: BaseException) -> None:
        """The application raised, or the client is gone."""
        writer = self.writer
        connection = self.connection
        writer.keep_alive = False
        if self.failed or connection.gone:
            self.failed = True
            connection.discard()
            log.debug(f"{self._what()}: the response broke off: {error}")
        else:
            status, reason = self.refused or (500, "the application failed")
            if isinstance(error, RequestTimeout):
                status, reason = 503, "the application took too long"
            elif self.refused is None or not isinstance(error, BodyError):
                log.exception(f"{self._what()} failed")
            else:
                log.debug(f"{self._what()}: {status} {reason}")
            if writer.sent_head:
                self.failed = True
            else:
                writer.status = status
                connection.write(refusal(status, reason, self.site.date.now(), self.site.server))
        self._close_result()

    def _drain(self) -> None:
        """Block until the queue is short. What fails here is the client's end, not the application's fault."""
        try:
            self.connection.drain(HIGH)
            if self.connection.gone:
                raise ConnectionResetError(104, "the client reset the connection")
        except OSError:
            self.failed = True
            raise

    def _close_result(self) -> None:
        result, self.result, self.iterator = self.result, None, None
        close = getattr(result, "close", None)
        if close is not None:
            try:
                close()
            except Exception:
                log.exception(f"{self._what()}: close() of the response failed")

    def _what(self) -> str:
        return f"{self.parser.method} {self.parser.target.decode('latin-1')}"

    def end(self, failure: str) -> None:
        if not self.open:
            return
        self.open = False
        if self.result is not None:
            self.context.run(self._close_result)
        if self.input is not None:
            self.input.close()
        if self.errors is not None:
            self.errors.flush()
        self.site.service.count_request()
        if self.site.access is not None:
            self._log_access(failure)
        self.environ = {}
        self.context = self.input = self.errors = None

    def _log_access(self, failure: str) -> None:
        parser, writer = self.parser, self.writer
        now = time.monotonic()
        called = self.called or now
        returned = self.returned or now
        self.site.access.record(
            log.AccessEntry(
                peer=self.connection.peer,
                method=parser.method,
                target=parser.target,
                query=parser.query,
                minor=parser.minor,
                status=writer.status,
                sent=writer.sent,
                request_fields=parser.fields,
                response_headers=self.response_headers,
                environ=self.environ,
                started=time.time() - (now - self.arrived),
                waiting=max(0.0, called - self.arrived),
                application=max(0.0, returned - called),
                writing=max(0.0, now - returned),
            )
        )

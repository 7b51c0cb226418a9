"""WSGI (PEP 3333): the environ, ``start_response``, and a response on its way."""

from __future__ import annotations

import socket
import sys
import time
from contextvars import Context, copy_context
from io import BytesIO
from typing import Any
from urllib.parse import unquote_to_bytes

from stoker import log, stats
from stoker.apps.http import Exchange, Rate, Site
from stoker.apps.streams import BodyError, Errors, FileWrapper, Input
from stoker.connection import HIGH, Connection, Service, shutdown
from stoker.errors import ApplicationError, Ended, RequestTimeout
from stoker.http.request import RequestParser
from stoker.http.response import CONTINUE, ResponseWriter, refusal

try:
    import cython
except ImportError:
    from stoker import nocython as cython

_KEYS: dict[bytes, str] = {b"content-type": "CONTENT_TYPE", b"content-length": "CONTENT_LENGTH"}
_KEYS_MAX = 2000
_ANSWER, _GO_ON, _RUN = range(3)  # the steps of a request that application code has a part in
_BUSY = stats.BUSY
_GONE = 499  # what the access log says of a request whose client left before there was a status


class WSGISite(Site):
    """What the WSGI connections of a worker share, beside what all HTTP connections do.

    :ivar application: the WSGI application
    :ivar threads: other requests run in this process at the same time, on other threads
    :ivar processes: ... in other processes
    :ivar inline: application code runs on the loop's own thread, which the master is told of
    :ivar root_path: where the application is mounted
    :ivar watch: the Watchdog of ``--request-timeout``, or None
    """

    def __init__(self, service: Service, blocking: bool, exchange: Any, make_io: Any, access: Any = None) -> None:
        Site.__init__(self, service, blocking, exchange, make_io, access)
        self.application: Any = None
        self.threads = self.processes = self.inline = False
        self.root_path = ""
        self.watch: Any = None

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
            "SCRIPT_NAME": self.root_path.encode().decode("latin-1"),
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


if not cython.compiled:

    def within(context: Context, exchange: WSGIExchange, which: int) -> bool:
        """Take a step in a context of contextvars."""
        return context.run(exchange.step, which)


def kills() -> tuple[type[BaseException], ...]:
    """What ends a process or a greenlet from outside: it is no failure of the application and goes on to the engine."""
    greenlet = sys.modules.get("greenlet")
    return (Ended,) if greenlet is None else (Ended, greenlet.GreenletExit)


class WSGIExchange(Exchange):
    """One connection's requests to a WSGI application, one after the other.

    The times, in seconds, are only kept for an access log or ``--request-timeout``: ``arrived`` and ``called`` are
    moments of ``time.monotonic()``, ``application`` and ``receiving`` what the application took and waited for.
    """

    def __init__(self, connection: Connection, parser: RequestParser, writer: ResponseWriter, site: WSGISite) -> None:
        Exchange.__init__(self, connection, parser, writer, site)
        self.site = site
        self.base = site.environ(connection)
        self.script_name: str = self.base["SCRIPT_NAME"]
        self.fields: Any = None  # the list that `template` was made of
        self.template: dict[str, Any] = self.base
        self.target: Any = None  # the request line that `template` has, too
        self.method = ""
        self.version = -1
        self.starter: Any = None
        self.continued = True
        self.open = False
        self.result: Any = None
        self.iterator: Any = None
        self.input: Any = None
        self.refused: tuple[int, str] | None = None
        self.errors: Any = None
        self.environ: Any = None
        self.context: Any = None
        self.status_line = ""
        self.response_headers: Any = ()
        self.rate: Any = None
        self.inside = False  # application code runs now
        self.overdue = 0.0  # when the watchdog first threw RequestTimeout at it
        self.again = 0.0  # when it is to do so again
        self.timed = site.access is not None or site.watch is not None
        self.called = self.mark = 0.0
        self.application = self.receiving = 0.0

    # A request.

    def begin(self, body: Any) -> None:
        parser = self.parser
        self.open = True
        self.failed = False
        self.overdue = 0.0
        self.refused = self.rate = None
        self.continued = body is not None or not parser.expect_continue
        self.input = Input(self.body_piece) if body is None else body
        self.response_headers = ()
        if self.starter is None:
            self.starter = self.start_response
            self.errors = Errors()
        if parser.fields is not self.fields:
            self.template = self._template()
            self.fields = parser.fields
            self.target = None
        if parser.target is not self.target or parser.method is not self.method or parser.minor != self.version:
            self._request_line()
        environ = self.template.copy()
        environ["wsgi.input"] = self.input
        environ["wsgi.errors"] = self.errors
        self.environ = environ
        self.context = copy_context()
        if self.timed:
            self.called = self.application = self.receiving = 0.0

    def _request_line(self) -> None:
        """Put the request line into the template; most clients of an API say the same one again and again."""
        parser = self.parser
        template = self.template
        template["REQUEST_METHOD"] = self.method = parser.method
        template["SERVER_PROTOCOL"] = "HTTP/1.1" if parser.minor else "HTTP/1.0"
        template["RAW_URI"] = template["REQUEST_URI"] = parser.target.decode("latin-1")
        template["QUERY_STRING"] = parser.query.decode("latin-1")
        template["PATH_INFO"] = self._path_info(parser.path)
        self.target = parser.target
        self.version = parser.minor
        if parser.scheme:
            template["HTTP_HOST"] = parser.host.decode("latin-1")
            self.fields = None  # this Host is not that of the fields: the template is good for one request

    def _path_info(self, path: bytes) -> str:
        """The path below ``--root-path``, percent-decoded, its bytes as latin-1 (PEP 3333, "Unicode Issues").

        A proxy may have cut the root path off before us, so a path that does not begin with it stays whole.
        ``OPTIONS *`` names no path: CGI has "" for that (RFC 3875, 4.1.5).
        """
        if path == b"*":
            return ""
        info = (unquote_to_bytes(path) if b"%" in path else path).decode("latin-1")
        root = self.script_name
        if root and (info == root or info.startswith(root + "/")):
            return info[len(root) :]
        return info

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
        return within(self.context, self, _ANSWER)

    def go_on(self) -> bool:
        return within(self.context, self, _GO_ON)

    def run(self) -> None:
        if self.connection.io is None:
            self.connection.io = self.site.make_io()
        within(self.context, self, _RUN)

    def cancel(self) -> None:
        """Nothing but ``connection.gone``, which ``run`` looks at: a thread cannot be made to let go of a call."""

    def _run(self) -> bool:
        more = self._answer()
        while more:
            self._drain()  # each block goes out before the next is asked for (PEP 3333)
            more = self._go_on()
        if self.connection.size > HIGH:
            self._drain()
        return False

    # Application code runs between _enter and _leave, and nothing else does: RequestTimeout may come up at any place
    # there, so also between two lines that belong together.

    def step(self, which: int) -> bool:
        """Run a step with application code in it: what that raises ends the response, never the server."""
        try:
            if which == _ANSWER:
                return self._answer()
            return self._go_on() if which == _GO_ON else self._run()
        except BaseException as error:
            self._left()
            if isinstance(error, kills()):
                self.failed = True
                self._close_result()
                raise
            self._failed(error)
            return False

    def _enter(self) -> None:
        """Application code begins to run, or goes on. From the last line on RequestTimeout may be thrown."""
        site = self.site
        if self.timed:
            self.mark = time.monotonic()
            if self.called == 0.0:
                self.called = self.mark
        if site.inline:
            site.service.row.add(_BUSY, 1)
        self.inside = True
        if site.watch is not None:
            site.watch.begin(self)

    def _leave(self) -> None:
        """Application code has ended, or waits for the client: that time is not its own. May be called again."""
        if not self.inside:
            return
        site = self.site
        if site.watch is not None:
            site.watch.end(self)
        self.inside = False
        if site.inline:
            site.service.row.add(_BUSY, -1)
        if self.timed:
            self.application += time.monotonic() - self.mark

    def _left(self) -> None:
        """Application code has raised something. RequestTimeout may still come at the last moment: too late."""
        while self.inside:
            try:
                self._leave()
            except RequestTimeout:
                pass

    # The response.

    def _answer(self) -> bool:
        """Call the application; False if the whole response is queued."""
        self._enter()
        result = self.result = self.site.application(self.environ, self.starter)
        self._leave()
        writer = self.writer
        if (type(result) is list or type(result) is tuple) and writer.started and not writer.sent_head:
            body = result[0] if len(result) == 1 else _joined(result)
            if type(body) is bytes:
                self._head_checks()
                self.connection.write(writer.one(body, self.site.date.now()))
                self._ended()
                return False
        if type(result) is FileWrapper and writer.started and self._send_file(result):
            return False
        self._enter()
        self.iterator = iter(result)
        self._leave()
        return True

    def _go_on(self) -> bool:
        """Queue the next block; False when the response is whole."""
        self._enter()
        try:
            block = next(self.iterator)
        except StopIteration:
            self._leave()
            if not self.writer.started:
                raise ApplicationError("the application returned without a call of start_response") from None
            if self.writer.sent_head:
                self.connection.write(self.writer.end())
            else:
                self._head_checks()
                self.connection.write(self.writer.one(b"", self.site.date.now()))
            self._ended()
            return False
        self._leave()
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
        if not isinstance(block, bytes):
            raise ApplicationError(f"a block of the response is a {type(block).__name__}, not bytes")
        if not writer.started:
            raise ApplicationError("the application gave a block of the body before it called start_response")
        if not block:
            return
        if writer.sent_head:
            self.connection.write(writer.frame(block))
        else:
            self._head_checks()
            head = writer.head(self.site.date.now())
            self.connection.write(head + writer.frame(block))

    def _head_checks(self) -> None:
        """Before the head goes out: a body whose 100 Continue was never sent cannot be told from the next request."""
        if not self.continued and not self.parser.complete:
            self.writer.keep_alive = False

    def _send_file(self, wrapper: FileWrapper) -> bool:
        """Queue the rest of a regular file; False if it is none."""
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
                f"{self.what()}: the application gave more than its Content-Length of {writer.length}; it was cut"
            )
        elif writer.short:
            log.error(
                f"{self.what()}: the application gave {writer.sent} bytes, its Content-Length said {writer.length}; "
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
        self._leave()
        try:
            self._block(data)
            if self.connection.io is not None:
                self._drain()
            else:
                self.connection.flush()
        except OSError:
            self.failed = True
            raise
        finally:
            self._enter()

    # Waiting for the client, where blocking is allowed.

    def body_piece(self) -> bytes:
        """The next piece of the body, waited for; b"" at its end. Raises BodyError."""
        if self.refused is not None:
            raise BodyError(self.refused[1])
        self._leave()
        try:
            return self._piece()
        except BodyError:
            raise
        except OSError as error:
            self.failed = True
            raise BodyError(error.strerror or "the client is gone") from error
        finally:
            self._enter()

    def _piece(self) -> bytes:
        connection = self.connection
        parser = self.parser
        if not self.continued:
            self.continued = True
            if not self.writer.sent_head and not parser.buffered():  # else it is late, or nobody waits for it
                connection.write(CONTINUE)
                self._drain()
        if self.rate is None:
            self.rate = Rate(self.site.min_rate)
        connection.deadline = time.monotonic() + self.site.body_timeout
        while True:
            piece: bytes | None = parser.body()
            if piece is None:
                assert parser.error is not None
                self._refuse(parser.error.status, parser.error.reason)
            if piece or parser.complete:
                self.rate.total += len(piece or b"")
                return piece or b""
            if self.rate.too_slow():
                self._refuse(408, "the body comes too slowly")
            started = time.monotonic()
            data = connection.io.recv(connection)
            waited = time.monotonic() - started
            self.rate.seconds += waited
            self.receiving += waited
            if data is None:
                self._refuse(408, "the body did not come in time")
            if not data:
                self._refuse(400, "the body is incomplete")
            parser.feed(data)

    def _refuse(self, status: int, reason: str) -> None:
        self.refused = (status, reason)
        self.writer.keep_alive = False
        raise BodyError(reason)

    def _drain(self) -> None:
        """Block until the queue is short. What fails here is the client's end, not the application's fault."""
        try:
            self.connection.drain(HIGH)
            if self.connection.gone:
                raise ConnectionResetError(104, "the client reset the connection")
        except OSError:
            self.failed = True
            raise

    # Ends.

    def _failed(self, error: BaseException) -> None:
        """The application raised, or the client is gone."""
        writer = self.writer
        connection = self.connection
        writer.keep_alive = False
        if self.failed or connection.gone:
            self.failed = True
            connection.discard()
            log.debug(f"{self.what()}: the response broke off: {error}")
        else:
            status, reason = 500, "the application failed"
            if isinstance(error, RequestTimeout) or self.overdue:
                status, reason = 503, "the application took too long"
            elif self.refused is not None and isinstance(error, BodyError):
                status, reason = self.refused
                log.debug(f"{self.what()}: {status} {reason}")
            else:
                log.exception(f"{self.what()} failed")
            if status >= 500:
                self.site.service.row.errors += 1
            if writer.sent_head:
                self.failed = True
            else:
                self._answer_error(status, reason)
        self._close_result()

    def _answer_error(self, status: int, reason: str) -> None:
        """Queue an answer of our own in place of the application's."""
        text = refusal(status, reason, self.site.date.now(), self.site.server, self.parser.method == "HEAD")
        self.writer.status = status
        self.writer.sent = len(text.partition(b"\r\n\r\n")[2])
        self.connection.write(text)

    def give_up(self) -> None:
        """The process is about to be killed: tell the client, if that can still be done."""
        connection = self.connection
        self.site.service.row.errors += 1
        try:
            if not self.writer.sent_head:
                self._answer_error(503, "the application took too long")
            connection.flush()
            shutdown(connection.fd, socket.SHUT_WR)
        except OSError as error:
            log.debug(f"{self.what()}: the client could not be told: {error}")
        self.application += time.monotonic() - self.mark
        self.site.service.count_request()
        if self.site.access is not None:
            self._log_access()

    def _close_result(self) -> None:
        """Close what the application returned (PEP 3333, "Specification Details"), once."""
        result, self.result, self.iterator = self.result, None, None
        close = getattr(result, "close", None)
        if close is not None:
            try:
                self._enter()
                close()
                self._leave()
            except (Exception, RequestTimeout):
                self._left()
                log.exception(f"{self.what()}: close() of the response failed")

    def what(self) -> str:
        """The request, for the log."""
        return f"{self.parser.method} {self.parser.target.decode('latin-1')}"

    def end(self, failure: str) -> None:
        if not self.open:
            return
        self.open = False
        if self.result is not None:
            self.context.run(self._close_result)
        if type(self.input) is not BytesIO:
            self.input.close()
        if self.errors.rest:
            self.errors.flush()
        self.site.service.count_request()
        if self.site.access is not None:
            self._log_access()
        self.environ = self.context = self.input = None

    def close(self) -> None:
        self.starter = None  # it refers to this

    def _log_access(self) -> None:
        parser, writer = self.parser, self.writer
        now = time.monotonic()
        called = self.called or now
        self.site.access.record(
            log.AccessEntry(
                peer=self.connection.peer,
                method=parser.method,
                target=parser.target,
                query=parser.query,
                minor=parser.minor,
                status=writer.status or _GONE,
                sent=writer.sent,
                request_fields=parser.fields,
                response_headers=self.response_headers,
                environ=self.environ,
                started=time.time() - (now - self.arrived),
                waiting=max(0.0, called - self.arrived) + self.receiving,
                application=self.application,
                writing=max(0.0, now - called - self.application - self.receiving),
            )
        )


def _joined(blocks: Any) -> Any:
    """A response of a few blocks as one; None if it is long, or holds what is no bytes."""
    total = 0
    for block in blocks:
        if type(block) is not bytes:
            return None
        total += len(block)
    return b"".join(blocks) if total <= HIGH else None

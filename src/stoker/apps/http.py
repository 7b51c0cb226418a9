"""The handler of HTTP/1.1: one generator per connection, the same under every engine.

The parser is pulled, not iterated, so that a body feeds the same parser. Where the application runs inline, the common
response is a plain call and the handler yields only where something must be waited for. Where it may block (a thread, a
process, a pool), a request is one job: the call, the iteration and ``close()`` stay on one thread, because contextvars
and thread-locals of frameworks must stay in one place.
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
from io import BufferedReader, BytesIO
from typing import Any

from stoker import log
from stoker.connection import (
    BUSY,
    CALL,
    DRAIN,
    FIRST_BYTE,
    FRESH,
    HIGH,
    IDLE,
    RECV,
    RUNNING,
    STOPPING,
    Connection,
    Handler,
    Service,
    shutdown,
)
from stoker.errors import ProtocolError
from stoker.http.body import Limits
from stoker.http.request import REFUSED, REQUEST, RequestParser
from stoker.http.response import CONTINUE, ResponseWriter, http_date, refusal

try:
    import cython
except ImportError:
    from stoker import nocython as cython

if not cython.compiled:
    from stoker.plain import monotonic

SPOOL = 65536  # bytes of a body that are kept in memory; the rest goes to a file
_UNREAD = 1 << 20  # bytes of a body nobody read that are thrown away to keep the connection
_RATE_GRACE = 5.0  # seconds before --min-rate is asked of a body
_REST = (
    1.0  # seconds between two requests after which a connection gives its exchange up: kilobytes, cheap to make anew
)
_WARM = 256  # exchanges above which a connection that has had but one request gives it up at once
_BURST = 64  # pipelined requests answered before others have their turn


class Date:
    """The Date field's value, made once a second."""

    def __init__(self) -> None:
        self._until = 0.0
        self._text = b""

    def now(self) -> bytes:
        moment = monotonic()
        if moment >= self._until:
            now = time.time()
            self._text = http_date(int(now))
            self._until = moment + 1.0 - now % 1.0
        return self._text


class Exchange:
    """An application's side of one connection, used for one request after the other.

    :ivar arrived: when the first bytes of the request came, in seconds of the connection's clock
    :ivar failed: the response broke off: nothing more may be sent
    :ivar kept: its connection has proved to come back
    """

    def __init__(self, connection: Connection, parser: RequestParser, writer: ResponseWriter, site: Site) -> None:
        self.dedicated = False
        self.connection = connection
        self.parser = parser
        self.writer = writer
        self.arrived = 0.0
        self.failed = False
        self.kept = False

    def begin(self, body: Any) -> None:
        """Take the request that the parser holds, and its body (None: read it from the connection)."""
        raise NotImplementedError

    def answer(self) -> bool:
        """Inline: call the application; False if the whole response is queued already."""
        raise NotImplementedError

    def go_on(self) -> bool:
        """Inline: queue the next block; False after the last."""
        raise NotImplementedError

    def run(self) -> None:
        """Where blocking is allowed: the whole request."""
        raise NotImplementedError

    def cancel(self) -> None:
        """The client is gone while ``run`` is out."""

    def end(self, failure: str) -> None:
        """The request is over: release what it holds, write the access line. May be called again."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of what refers back to this."""
        raise NotImplementedError


class Site:
    """What all HTTP connections of a worker share.

    :param blocking: connections may block in place (process, thread, patched gevent)
    :param exchange: makes an Exchange for a connection
    :param make_io: makes the BlockingIO by which a job of the pool waits
    :param access: an AccessLog, or None
    """

    def __init__(self, service: Service, blocking: bool, exchange: Any, make_io: Any, access: Any = None) -> None:
        config = service.config
        self.make_io = make_io
        self.service = service
        self.blocking = blocking
        self.pool = service.pool is not None
        self.calls = blocking or self.pool
        self.exchange = exchange
        self.access = access
        self.limits = Limits(
            request_line=config.limit_request_line,
            fields=config.limit_request_fields,
            field_size=config.limit_request_field_size,
            head=config.limit_request_head,
            body=config.limit_request_body,
        )
        self.refuse_underscores: bool = config.header_map == "refuse"
        self.header_timeout: float = config.header_timeout
        self.body_timeout: float = config.body_timeout
        self.keep_alive: float = config.keep_alive
        self.min_rate: float = config.min_rate
        self.server = b"stoker" if config.server_header else b""
        self.date = Date()
        self.warm = 0  # exchanges that there are
        self.dropped: set[bytes] = set()

    def handler(self, connection: Connection) -> Handler:
        """A handler for a new connection."""
        handler: Handler = serve(connection, self)
        return handler

    def open(self, connection: Connection) -> Exchange:
        """An exchange for a connection."""
        self.warm += 1
        parser = RequestParser(self.limits, self.refuse_underscores)
        exchange: Exchange = self.exchange(connection, parser, ResponseWriter(self.server), self)
        return exchange

    def reads_first(self, parser: RequestParser) -> bool:
        """Whether the body is read whole before the application is called.

        That is wherever waiting for it would cost a thread, or everybody. In a pool an unsent 100 Continue is worth a
        thread: the application may not want the body at all.
        """
        return not self.blocking and not (self.pool and parser.expect_continue)

    def keeps(self, parser: RequestParser) -> bool:
        """Whether the connection is kept after the next response, as far as client and server wish."""
        return parser.keep_alive and self.service.phase == RUNNING and self.keep_alive > 0

    def drop(self, names: list[bytes]) -> None:
        """Say once of each field that it is left out because its name holds an underscore."""
        for name in names:
            if name not in self.dropped and len(self.dropped) < 1000:
                self.dropped.add(name)
                log.warning(
                    f"the field {name.decode('latin-1')!r} is left out: with its underscore it could pass for another "
                    "(--header-map refuse answers 400)"
                )


@cython.locals(
    connection=Connection, site=Site, parser=RequestParser, writer=ResponseWriter, exchange=Exchange,
    begun=cython.bint, served=cython.bint, until=cython.double, more=cython.int, burst=cython.int,
)  # fmt: skip
def serve(connection: Connection, site: Site) -> Handler:
    """Serve HTTP on a connection until either side ends it."""
    parser: Any = None
    writer: Any = None
    exchange: Any = None
    begun = served = False
    try:
        while True:
            begun = expect(connection, site, parser, begun, served)
            until = connection.deadline
            if exchange is not None and not begun and not cool(connection, site, exchange):
                exchange = parser = writer = data = None
            data = yield RECV
            if data is None and connection.deadline < until:
                release(site, exchange, "")
                exchange = parser = writer = data = None
                continue
            if not data:
                give_up(connection, site, parser, data)
                return
            if exchange is None:
                exchange = site.open(connection)
                parser, writer = exchange.parser, exchange.writer
            feed(connection, exchange, data, begun)
            burst = 0
            while (more := parser.next()) == REQUEST:
                exchange.kept = served  # one that comes back is worth keeping warm
                begun, served = False, True
                writer.begin(parser.method, parser.minor, site.keeps(parser))
                site.drop(parser.dropped)
                if parser.length == 0:
                    exchange.begin(BytesIO())
                else:
                    body = (yield from read_body(connection, site, parser)) if site.reads_first(parser) else False
                    if body is None:
                        return
                    exchange.begin(body or None)
                if site.calls:
                    connection.job = exchange
                    yield CALL
                elif exchange.answer():
                    while exchange.go_on():
                        yield DRAIN
                if site.access is not None:
                    connection.low = 0  # the time of writing ends when the kernel has the last byte
                    yield DRAIN
                exchange.end("")
                if not parser.complete and writer.keep_alive:
                    yield from skip_body(connection, site, parser, writer)
                if closes(connection, parser, exchange):
                    return
                burst += 1
                if connection.size > HIGH or burst % _BURST == 0:
                    yield DRAIN
            if more == REFUSED:
                refuse(connection, site, parser, parser.error)
                return
    finally:
        release(site, exchange, connection.failure)


def expect(connection: Connection, site: Site, parser: RequestParser | None, begun: bool, served: bool) -> bool:
    """Set rest and deadline for the bytes to come; whether a head has begun.

    The deadline of a head is set once, when it begins: one that moved with each byte would never fire against a drip.
    """
    now = connection.clock.now
    stopping = site.service.phase >= STOPPING
    if parser is not None and parser.started:
        if not begun:
            connection.rest = BUSY
            connection.deadline = now + site.header_timeout
        return True
    if connection.rest != IDLE:  # else only its exchange has been let go
        connection.since = now
    connection.rest = IDLE if served else FRESH
    if served:
        connection.deadline = connection.since + site.keep_alive
        if stopping:
            shutdown(connection.fd, socket.SHUT_RD)  # what has arrived is still read, then comes the end
    else:
        connection.deadline = now + (min(FIRST_BYTE, site.header_timeout) if stopping else site.header_timeout)
    return False


def feed(connection: Connection, exchange: Exchange, data: bytes, begun: bool) -> None:
    """Bytes have come, the first of a request or more of it."""
    if not begun:
        exchange.arrived = connection.clock.now
    exchange.parser.feed(data)
    connection.rest = BUSY


def cool(connection: Connection, site: Site, exchange: Exchange) -> bool:
    """An exchange goes into the time between two requests: False if it is let go at once, else there is a deadline."""
    if exchange.parser.buffered():
        return True
    if site.warm > _WARM and not exchange.kept:
        release(site, exchange, "")
        return False
    connection.deadline = min(connection.deadline, connection.clock.now + _REST)
    return True


def release(site: Site, exchange: Exchange | None, failure: str) -> None:
    """Let an exchange go; the next request of its connection makes another."""
    if exchange is not None:
        exchange.end(failure)
        exchange.close()
        site.warm -= 1


def closes(connection: Connection, parser: RequestParser, exchange: Exchange) -> bool:
    """Whether the connection ends after this response."""
    connection.low = HIGH
    if not exchange.failed and exchange.writer.keep_alive:
        return False
    # Whoever asked for the close sends nothing more, so that there is nothing to wait for.
    last = not parser.keep_alive and parser.complete and parser.buffered() == 0
    connection.linger = not (last or exchange.failed)
    return True


def give_up(connection: Connection, site: Site, parser: RequestParser | None, data: bytes | None) -> None:
    """No more bytes: in time (None), or at all (b""). Silence, unless a part of a head was there."""
    if parser is None or not parser.started:
        connection.linger = False
    elif data is None:
        refuse(connection, site, parser, ProtocolError(408, "the request did not come in time"))
    else:
        refuse(connection, site, parser, ProtocolError(400, "the request is incomplete"))


def refuse(connection: Connection, site: Site, parser: RequestParser, error: ProtocolError | None) -> None:
    """Queue a refusal, without its body if it answers a HEAD; the connection is closed after it."""
    assert error is not None
    connection.rest = BUSY
    if error.status == 500:
        site.service.row.errors += 1
    log.debug(f"{peer_text(connection)}: {error.status} {error.reason}")
    text = refusal(error.status, error.reason, site.date.now(), site.server, parser.method == "HEAD")
    connection.write(text)


def read_body(connection: Connection, site: Site, parser: Any) -> Any:
    """Read a whole body, in memory up to ``SPOOL`` bytes, else to a file. None: it was refused, or the client left."""
    if parser.expect_continue and not parser.buffered():
        connection.write(CONTINUE)
    spool = Spool()
    rate = Rate(site.min_rate)
    start = connection.clock.now
    connection.deadline = start + site.body_timeout
    try:
        while True:
            piece = parser.body()
            if piece is None:
                refuse(connection, site, parser, parser.error)
                return None
            if piece:
                rate.total += len(piece)
                if not spool.write(piece):
                    refuse(connection, site, parser, ProtocolError(500, "the body cannot be stored"))
                    return None
                connection.deadline = connection.clock.now + site.body_timeout
            if parser.complete:
                return spool.give()
            if piece:
                continue
            rate.seconds = connection.clock.now - start
            if rate.too_slow():
                refuse(connection, site, parser, ProtocolError(408, "the body comes too slowly"))
                return None
            data = yield RECV
            if data is None:
                refuse(connection, site, parser, ProtocolError(408, "the body did not come in time"))
                return None
            if not data:
                refuse(connection, site, parser, ProtocolError(400, "the body is incomplete"))
                return None
            parser.feed(data)
    finally:
        spool.close()


class Rate:
    """Whether a body has fallen below ``--min-rate``.

    :param least: bytes a second; 0: nothing is too slow
    :ivar total: bytes that have come
    :ivar seconds: how long they were waited for
    """

    def __init__(self, least: float) -> None:
        self.least = least
        self.total = 0
        self.seconds = 0.0

    def too_slow(self) -> bool:
        """Whether to give up; not within the first seconds."""
        return self.least > 0 and self.seconds > _RATE_GRACE and self.total < self.least * self.seconds


def skip_body(connection: Connection, site: Site, parser: RequestParser, writer: ResponseWriter) -> Any:
    """Throw away a body that the application did not read; if it is long, give the connection up instead."""
    total = 0
    connection.deadline = connection.clock.now + site.body_timeout
    while not parser.complete:
        piece = parser.body()
        if piece is not None:
            total += len(piece)
        if piece is None or parser.length > _UNREAD or total > _UNREAD:
            writer.keep_alive = False
            return
        if not piece and not parser.complete:
            data = yield RECV
            if not data:
                writer.keep_alive = False
                return
            parser.feed(data)


class Spool:
    """A body on its way to the application: memory first, then a file without a name."""

    def __init__(self) -> None:
        self.file: Any = BytesIO()
        self.size = 0
        self.on_disk = False

    def write(self, data: bytes) -> bool:
        """Append; False (and a line in the log) if the disk does not take it."""
        self.size += len(data)
        try:
            if not self.on_disk and self.size > SPOOL:
                self.on_disk = True
                disk = tempfile.TemporaryFile(buffering=0, prefix="stoker-")  # noqa: SIM115 - it outlives this call
                former, self.file = self.file.getvalue(), disk
                self._put(former)
            self._put(data)
        except OSError as error:
            log.exception(f"a request's body cannot be stored on the disk ($TMPDIR): {error.strerror}")
            return False
        return True

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self.file.write(view) :]

    def give(self) -> Any:
        """The whole body as a file at its beginning, which belongs to the caller from now."""
        file, self.file = self.file, None
        file.seek(0)
        return BufferedReader(file) if self.on_disk else file

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None


def peer_text(connection: Connection) -> str:
    """The client's address for the log."""
    peer = connection.peer
    if isinstance(peer, tuple):
        return f"{peer[0]}:{peer[1]}"
    return "unix" if not peer else os.fsdecode(peer) if isinstance(peer, bytes) else str(peer)

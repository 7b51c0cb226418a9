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
from typing import Any, Protocol

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
from stoker.http.request import REFUSED, REQUEST, Limits, RequestParser
from stoker.http.response import CONTINUE, ResponseWriter, http_date, refusal

SPOOL = 65536  # bytes of a body that are kept in memory; the rest goes to a file
_UNREAD = 1 << 20  # bytes of a body nobody read that are thrown away to keep the connection
_RATE_GRACE = 5.0  # seconds before --min-rate is asked of a body
_BURST = 64  # pipelined requests answered before others have their turn


class Date:
    """The Date field's value, made once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = b""

    def now(self) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._text = http_date(second)
            self._second = second
        return self._text


class Exchange(Protocol):
    """An application's side of one connection, used for one request after the other."""

    dedicated: bool
    arrived: float  # when the first bytes of the request came, in seconds of the connection's clock
    failed: bool  # the response broke off: nothing more may be sent

    def begin(self, body: Any) -> None:
        """Take the request that the parser holds, and its body (None: read it from the connection)."""

    def answer(self) -> bool:
        """Inline: call the application; False if the whole response is queued already."""

    def go_on(self) -> bool:
        """Inline: queue the next block; False after the last."""

    def run(self) -> None:
        """Where blocking is allowed: the whole request."""

    def cancel(self) -> None:
        """The client is gone while ``run`` is out."""

    def end(self, failure: str) -> None:
        """The request is over: release what it holds, write the access line. May be called again."""


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
        self.dropped: set[bytes] = set()

    def handler(self, connection: Connection) -> Handler:
        """A handler for a new connection."""
        return serve(connection, self)

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


def serve(connection: Connection, site: Site) -> Handler:
    """Serve HTTP on a connection until either side ends it."""
    parser = RequestParser(site.limits, site.refuse_underscores)
    writer = ResponseWriter(site.server)
    exchange: Exchange = site.exchange(connection, parser, writer, site)
    begun = served = False
    try:
        while True:
            begun = expect(connection, site, parser, begun, served)
            data = yield RECV
            if not data:
                give_up(connection, site, parser, data)
                return
            if not begun:
                exchange.arrived = connection.clock.now
            parser.feed(data)
            connection.rest = BUSY
            burst = 0
            while (more := parser.next()) == REQUEST:
                served = True
                begun = False
                writer.begin(parser.method, parser.minor, site.keeps(parser))
                if parser.dropped:
                    site.drop(parser.dropped)
                if parser.length == 0:
                    exchange.begin(BytesIO())
                elif site.reads_first(parser):
                    body = yield from read_body(connection, site, parser)
                    if body is None:
                        return
                    exchange.begin(body)
                else:
                    exchange.begin(None)
                if site.calls:
                    connection.job = exchange
                    yield CALL
                elif exchange.answer():
                    while exchange.go_on():
                        yield DRAIN
                if site.access is not None:
                    connection.low = 0  # the time of writing ends when the kernel has the last byte
                    yield DRAIN
                    connection.low = HIGH
                exchange.end("")
                if not parser.complete and writer.keep_alive:
                    yield from skip_body(connection, site, parser, writer)
                if exchange.failed or not writer.keep_alive:
                    # Whoever asked for the close sends nothing more, so that there is nothing to wait for.
                    more_may_come = parser.keep_alive or not parser.complete or parser.buffered() > 0
                    connection.linger = more_may_come and not exchange.failed
                    return
                burst += 1
                if connection.size > HIGH or burst >= _BURST:
                    burst = 0
                    yield DRAIN
            if more == REFUSED:
                refuse(connection, site, parser, parser.error)
                return
    finally:
        exchange.end(connection.failure)


def expect(connection: Connection, site: Site, parser: RequestParser, begun: bool, served: bool) -> bool:
    """Set rest and deadline for the bytes to come; whether a head has begun.

    The deadline of a head is set once, when it begins: one that moved with each byte would never fire against a drip.
    """
    now = connection.clock.now
    stopping = site.service.phase >= STOPPING
    if parser.started:
        if not begun:
            connection.rest = BUSY
            connection.deadline = now + site.header_timeout
        return True
    connection.rest = IDLE if served else FRESH
    connection.since = now
    if served:
        connection.deadline = now + site.keep_alive
        if stopping:
            shutdown(connection.fd, socket.SHUT_RD)  # what has arrived is still read, then comes the end
    else:
        connection.deadline = now + (min(FIRST_BYTE, site.header_timeout) if stopping else site.header_timeout)
    return False


def give_up(connection: Connection, site: Site, parser: RequestParser, data: bytes | None) -> None:
    """No more bytes: in time (None), or at all (b""). Silence, unless a part of a head was there."""
    if not parser.started:
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

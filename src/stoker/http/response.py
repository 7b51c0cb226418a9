"""Responses into bytes: what an application hands over is checked and framed (RFC 9112 section 6).

`ResponseWriter` is used again for each response of a connection. An application may not split a response, send two
lengths or control the connection; what it may not do raises ApplicationError, before a byte of it is on the wire.
"""

from __future__ import annotations

import re
import time
from typing import Final

from stoker.errors import ApplicationError
from stoker.http import grammar

try:
    import cython
except ImportError:
    from stoker import nocython as cython

if not cython.compiled:
    from stoker.http.scan import token, value

#: The interim response to ``Expect: 100-continue`` (RFC 9110 section 15.2.1).
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

CLOSE = b"Connection: close\r\n"
KEEP_ALIVE = b"Connection: keep-alive\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
NOTHING = b""

#: The fields that only a server may send (PEP 3333, "Other HTTP Features"; RFC 9110 section 7.6.1).
HOP_BY_HOP: Final = frozenset(
    {
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"trailers",
        b"transfer-encoding",
        b"upgrade",
    }
)
WATCHED = HOP_BY_HOP | {b"connection", b"content-length", b"date", b"server"}

#: A Content-Length with more digits than this is no length of anything.
LENGTH_DIGITS: Final = 18

_status = re.compile("([2-5][0-9][0-9]) [\t\x20-\x7e\x80-\xff]*").fullmatch
_STATUS_LINES: dict[str, tuple[int, bytes]] = {}
_MANY: Final = 256  # status lines that are kept: an application may make up reasons without end

_PHRASES: Final = {
    400: "Bad Request",
    408: "Request Timeout",
    413: "Content Too Large",
    414: "URI Too Long",
    417: "Expectation Failed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def http_date(seconds: int) -> bytes:
    """Return a time, in seconds since 1970, as IMF-fixdate (RFC 9110 section 5.6.7), whatever the locale."""
    then = time.gmtime(seconds)
    day, month = _DAYS[then.tm_wday], _MONTHS[then.tm_mon - 1]
    clock = f"{then.tm_hour:02}:{then.tm_min:02}:{then.tm_sec:02}"
    return f"{day}, {then.tm_mday:02} {month} {then.tm_year:04} {clock} GMT".encode("ascii")


def refusal(status: int, reason: str, date: bytes, server: bytes, head_only: bool = False) -> bytes:
    """Return a whole response that says why there is no other; the connection is closed after it.

    `head_only` leaves out the body, for an answer to HEAD. An empty `server` leaves out the Server field.
    """
    phrase = _PHRASES.get(status, "Error")
    body = f"{status} {phrase}: {reason}\n".encode("utf-8", "replace")
    head = (
        b"HTTP/1.1 %d %s\r\n" % (status, phrase.encode("ascii")),
        b"Server: " + server + b"\r\n" if server else b"",
        b"Date: " + date + b"\r\nContent-Type: text/plain; charset=utf-8\r\n",
        b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body),
    )
    return b"".join(head) + (b"" if head_only else body)


class ResponseWriter:
    """The responses of one connection, one after another: `begin`, `start`, then `one`, or `head`, `frame`..., `end`.

    `status`; `length`, the Content-Length that the application declared, or -1; `keep_alive`, which becomes False when
    the application or the framing wants it; `body_allowed`, False for HEAD, 204 and 304; `started` and `sent_head`;
    `sent`, bytes of the body framed so far; `excess`: the body was cut at its Content-Length; `short`: it ended before.
    """

    def __init__(self, server: bytes = b"stoker") -> None:
        """Take the value of the Server field; ``b""`` for none. Raises ValueError if it cannot be one."""
        if value(server, 0, len(server)) != len(server):
            raise ValueError(f"{server!r} may not be the value of the Server field")
        self.server = b"Server: " + server + b"\r\n" if server else b""
        self.head_only = False
        self.minor = 1
        self.keep_alive = False
        self.started = False
        self.sent_head = False
        self.status = 0
        self.length = -1
        self.sent = 0
        self.excess = False
        self.short = False
        self.body_allowed = True
        self.chunked = False
        self.over = False  # the response has ended: what comes later may not be taken for the next one
        self.line = b""  # the status line
        self.block = b""  # the application's fields
        self.own_date = False  # the application sent Date, Server
        self.own_server = False
        self.close = False  # the application sent Connection: close
        self.declared = -1
        # The memos: what was checked last, and the head that was made of it last.
        self.last_headers: list[object] | None = None
        self.last_length = -1
        self.last_length_line = b""
        self.last_head = b""
        self.head_line = b""
        self.head_block = b""
        self.head_date = b""
        self.head_framing = b""
        self.head_connection = b""

    def begin(self, method: str, minor: int, keep_alive: bool) -> None:
        """Prepare for the response to a request: its method, its minor version, whether the connection may live on."""
        self.head_only = method == "HEAD"
        self.minor = minor
        self.keep_alive = keep_alive
        self.started = False
        self.sent_head = False
        self.status = 0
        self.length = -1
        self.sent = 0
        self.excess = False
        self.short = False
        self.body_allowed = True
        self.chunked = False
        self.over = False

    def start(self, status: object, headers: object) -> None:
        """Take the status and the fields of ``start_response``; again, as long as the head was not sent.

        Raises ApplicationError for what PEP 3333 or HTTP forbids.
        """
        if self.sent_head:
            raise ApplicationError("start_response was called after the head of the response had been sent")
        self.started = False
        self.status_line(status)
        if self.last_headers is None or headers != self.last_headers:
            self.last_headers = None
            self.check_headers(headers)
            self.last_headers = list(headers) if isinstance(headers, list) else None
        self.length = self.declared
        if self.status == 204:
            self.length = -1  # RFC 9110 section 8.6: it has none; many applications say 0
        self.body_allowed = not self.head_only and self.status not in (204, 304)
        if self.close:
            self.keep_alive = False
        self.started = True

    def status_line(self, status: object) -> None:
        """Take the status, such as ``"200 OK"``."""
        if type(status) is not str:
            if not isinstance(status, str):
                raise ApplicationError(f"the status is {status!r}, not a str such as '200 OK'")
            status = "".join((status,))
        entry = _STATUS_LINES.get(status)
        if entry is None:
            if _status(status) is None:
                text = (
                    f"{status!r:.100} may not be a status: three digits from 200 to 599, a space, a reason on one line"
                )
                raise ApplicationError(text)
            entry = (int(status[:3]), f"HTTP/1.1 {status}\r\n".encode("latin-1"))
            if len(_STATUS_LINES) < _MANY:
                _STATUS_LINES[status] = entry
        self.status = entry[0]
        self.line = entry[1]

    def check_headers(self, headers: object) -> None:
        """Check the fields of the application, and make `block` of those that go out as they are."""
        self.own_date = self.own_server = self.close = False
        self.declared = -1
        if not isinstance(headers, list):
            raise ApplicationError(f"the response headers are a {type(headers).__name__}, not a list")
        parts: list[bytes] = []
        for item in headers:
            if not isinstance(item, tuple) or len(item) != 2:
                raise ApplicationError(f"a response header is {item!r:.100}, not a tuple (name, value)")
            name = _encoded(item[0], "name")
            content = _encoded(item[1], "value")
            if not name or token(name, 0, len(name)) != len(name):
                raise ApplicationError(f"{item[0]!r:.100} may not be the name of a response header")
            if value(content, 0, len(content)) != len(content):
                raise ApplicationError(
                    f"the value of the response header {item[0]} holds a control character: {item[1]!r:.100}"
                )
            lower = name.lower()
            if lower in WATCHED and not self.watched(lower, content):
                continue
            parts += (name, b": ", content, b"\r\n")
        self.block = b"".join(parts)

    def watched(self, name: bytes, content: bytes) -> bool:
        """Deal with a field that the server has to do with. True: it goes out as it is."""
        if name == b"date":
            self.own_date = True
            return True
        if name == b"server":
            self.own_server = True
            return True
        if name == b"content-length":
            if not content.isdigit() or len(content) > LENGTH_DIGITS:
                raise ApplicationError(f"the Content-Length of the response is {content!r:.100}, not a number")
            if self.declared >= 0:
                raise ApplicationError("the response has more than one Content-Length")
            self.declared = int(content)
            return False
        if name == b"connection":
            for option in grammar.members(content.lower()):
                if option == b"close":
                    self.close = True
                elif option != b"keep-alive":  # taken, as it asks for nothing; often set for event streams
                    raise ApplicationError(f"the response header Connection: {content!r:.100} is the server's to send")
            return False
        text = name.decode("ascii")
        raise ApplicationError(f"the response header {text} is hop-by-hop: the server sends it, not the application")

    def assemble(self, date: bytes, framing: bytes) -> bytes:
        """Return the head: the same object as the last time if it would be made of the same parts."""
        if not self.keep_alive:
            connection = CLOSE
        elif self.minor == 0:
            connection = KEEP_ALIVE
        else:
            connection = NOTHING
        self.sent_head = True
        if (
            self.line is self.head_line
            and self.block is self.head_block
            and date is self.head_date
            and framing is self.head_framing
            and connection is self.head_connection
        ):
            return self.last_head
        parts = [self.line]
        if not self.own_server:
            parts.append(self.server)
        if not self.own_date:
            parts += (b"Date: ", date, b"\r\n")
        parts += (self.block, framing, connection, b"\r\n")
        self.last_head = b"".join(parts)
        self.head_line = self.line
        self.head_block = self.block
        self.head_date = date
        self.head_framing = framing
        self.head_connection = connection
        return self.last_head

    def length_line(self, length: int) -> bytes:
        """Return the Content-Length field; nothing for -1."""
        if length < 0:
            return NOTHING
        if length != self.last_length:
            self.last_length = length
            self.last_length_line = b"Content-Length: %d\r\n" % length
        return self.last_length_line

    def one(self, body: object, date: bytes) -> bytes:
        """Return a whole response whose whole body is `body`. `date` is that of `http_date`.

        Content-Length is added where it may be: not to 204 and 304, and to the answer to a HEAD only from a body.
        Raises ApplicationError if `start` was not called, or for a body that is not bytes.
        """
        self.must_be_started()
        block = _block(body)
        self.over = True
        length = self.length
        size = len(block)
        if not self.body_allowed:
            if size > 0 and length < 0 and self.status not in (204, 304):
                length = size
            return self.assemble(date, self.length_line(length))
        if length < 0:
            length = size
        elif size > length:
            self.excess = True
            block = block[:length]
            size = length
        elif size < length:
            self.short = True
            self.keep_alive = False
        self.sent = size
        head = self.assemble(date, self.length_line(length))
        return head + block if size else head

    def head(self, date: bytes) -> bytes:
        """Return the head of a streamed response: chunked without Content-Length, or closed by its end in HTTP/1.0.

        Raises ApplicationError if `start` was not called.
        """
        self.must_be_started()
        if self.length < 0 and self.body_allowed:
            if self.minor == 1:
                self.chunked = True
                return self.assemble(date, CHUNKED)
            self.keep_alive = False
        return self.assemble(date, self.length_line(self.length))

    def must_be_started(self) -> None:
        """Raise ApplicationError when the application has not called start_response, or not with success."""
        if not self.started:
            raise ApplicationError("the application returned a body without calling start_response")
        if self.sent_head:
            raise RuntimeError("the head of this response has been sent")

    def allowed(self, count: int) -> int:
        """Count `count` more bytes of the body; return how many of them may go out."""
        if not self.sent_head:
            raise RuntimeError("the head of this response has not been sent")
        if self.over:
            raise ApplicationError("the application wrote to a response that had ended")
        if not self.body_allowed:
            return 0
        if 0 <= self.length < self.sent + count:
            self.excess = True
            count = self.length - self.sent
        self.sent += count
        return count

    def frame(self, data: object) -> bytes:
        """Return one block of the body as it goes on the wire, cut where the declared Content-Length ends.

        Raises ApplicationError for a block that is not bytes, or comes after the end.
        """
        block = _block(data)
        size = len(block)
        count = self.allowed(size)
        if self.chunked and count:
            return b"".join((b"%x\r\n" % count, block, b"\r\n"))
        return block if count == size else block[:count]

    def file(self, count: int) -> tuple[bytes, int, bytes]:
        """Frame `count` bytes that go from a file by sendfile: what to send before, how many of them, what after."""
        count = self.allowed(count)
        if self.chunked and count:
            return b"%x\r\n" % count, count, b"\r\n"
        return b"", count, b""

    def end(self) -> bytes:
        """Return what ends the body, once; if it was shorter than declared, the connection must be closed."""
        if not self.sent_head:
            raise RuntimeError("the head of this response has not been sent")
        if self.over:
            return b""
        self.over = True
        if self.chunked:
            return b"0\r\n\r\n"
        if self.body_allowed and self.sent < self.length:
            self.short = True
            self.keep_alive = False
        return b""


def _encoded(text: object, what: str) -> bytes:
    """Return a header's name or value as latin-1, as PEP 3333 has it."""
    if not isinstance(text, str):
        raise ApplicationError(f"the {what} of a response header is {text!r:.100}, not a str")
    try:
        return str.encode(text, "latin-1")
    except UnicodeEncodeError:
        reason = (
            f"the {what} of a response header is not latin-1: {text!a:.100}; encode it as the field asks (RFC 8187)"
        )
        raise ApplicationError(reason) from None


def _block(data: object) -> bytes:
    """Return a block of a body as an object that is bytes and nothing else."""
    if type(data) is bytes:
        return data
    if isinstance(data, bytes):
        return b"".join((data,))
    raise ApplicationError(f"the application returned a {type(data).__name__} in the body, not bytes")

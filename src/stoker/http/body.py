"""The received bytes of a connection, and what heads and bodies have in common: lines, fields, limits; then the bodies.

`Reader` holds the bytes that were fed and not yet consumed in two places: `data` from `at` on, and `tail`, which
collects what was fed while the end of a line was missing. The tail becomes the data only when a line end has come (or
too much has), so a head that drips in byte by byte costs a few steps per byte, not a copy of all that came before.

**A line is judged when its end is in hand or when it is too long, not earlier**; only the first byte of a request line,
and the line ends before it and after a chunk, are judged at once. So the outcome depends on the bytes and not on how
they were cut into packets; the tests hold the parser to that.
"""

from __future__ import annotations

from typing import Final

from stoker.errors import ProtocolError
from stoker.http import grammar
from stoker.http.scan import HUGE

try:
    import cython
except ImportError:
    from stoker import nocython as cython

if not cython.compiled:
    from stoker.http.scan import chunk_size, line_end, lowered, token, trimmed, value

    # What is expected next; compiled, these are an enum of body.pxd.
    LINE = 0  # a request line
    FIELDS = 1  # the fields of a head
    DATA = 2  # a body of known length
    SIZE = 3  # a chunk-size line
    CHUNK = 4  # the data of a chunk
    CLOSE = 5  # the line end after the data of a chunk
    TRAILERS = 6  # the trailer section
    WAIT, WHOLE, BAD = 0, 1, -1  # how reading a line or a section ended

    HTAB, LF, CR, SP, COLON, UNDERSCORE = 9, 10, 13, 32, 58, 95

CONTROL = grammar.CONTROL
NOT_IN_TRAILERS = grammar.NOT_IN_TRAILERS

#: Bytes of a chunk-size line with its extensions, without CRLF.
CHUNK_LINE: Final = 1024
#: Bytes by which the chunk-size lines of a body may outgrow its data (see `Reader.size_line`).
CHUNK_EXCESS: Final = 16384

chunk_line = CHUNK_LINE
chunk_excess = CHUNK_EXCESS


class Limits:
    """What a client may send. All in bytes but `fields`, which counts.

    `request_line` and `field_size` bound one line without its CRLF, `head` a whole head (or trailer section) with all
    line ends, `fields` the field lines of a head (or trailer section), `body` a body as decoded.
    Raises ValueError for a negative limit; one of 2**58 or more means the byte below that.
    """

    __slots__ = ("body", "field_size", "fields", "head", "request_line")

    def __init__(
        self,
        *,
        request_line: int = 8190,
        fields: int = 100,
        field_size: int = 8190,
        head: int = 65536,
        body: int = 1 << 30,
    ) -> None:
        if min(request_line, fields, field_size, head, body) < 0:
            raise ValueError(f"a limit is negative: {request_line=} {fields=} {field_size=} {head=} {body=}")
        self.request_line = min(request_line, HUGE - 1)
        self.fields = min(fields, HUGE - 1)
        self.field_size = min(field_size, HUGE - 1)
        self.head = min(head, HUGE - 1)
        self.body = min(body, HUGE - 1)  # so that every chunk size that is cut to HUGE is refused


class Reader:
    """The bytes of one connection, and the body that is being read from them.

    After a head with a body, `body()` is called until `complete`; `trailers` are whole then.
    """

    def __init__(self, limits: Limits, refuse_underscores: bool = False) -> None:
        self.limits = limits
        self.refuse_underscores = refuse_underscores
        self.data = b""
        self.at = 0
        self.size = 0
        self.tail: bytearray | None = None
        self.ripe = False  # the tail holds a line end
        self.room = -1  # the tail may grow to this before it is looked at, if no line end comes
        self.block = -1  # where in `data` the field lines of this head begin; -1: not all of them are in `data`
        self.phase = LINE
        self.used = 0  # bytes of this head or trailer section in whole lines
        self.count = 0  # field lines of this head or trailer section
        self.section: list[tuple[bytes, bytes]] = []  # where field lines go
        self.dropped: list[bytes] = []
        self.trailers: list[tuple[bytes, bytes]] = []
        self.error: ProtocolError | None = None
        self.complete = True
        self.left = 0  # bytes of the body, or of the chunk, still to come
        self.received = 0  # bytes of the chunks announced so far
        self.excess = 0  # bytes of chunk-size lines out of proportion

    def feed(self, data: bytes) -> None:
        """Take bytes that were received; never ``b""``.

        Meant to be called when `next` said MORE or `body` gave ``b""``. At other times it is right but copies.
        """
        if self.tail is not None:
            self.tail += data
            if not self.ripe:
                self.ripe = b"\n" in data
        elif self.at == self.size:
            self.data = data
            self.at = 0
            self.size = len(data)
            self.room = -1
            self.block = -1
        else:
            self.tail = bytearray(self.data[self.at :])
            self.tail += data
            self.ripe = b"\n" in data
            self.data = b""
            self.at = 0
            self.size = 0

    def buffered(self) -> int:
        """Return how many bytes were fed and not yet consumed."""
        waiting = self.size - self.at
        return waiting if self.tail is None else waiting + len(self.tail)

    def join(self) -> bool:
        """Make the tail the data. False: there is no point yet, as the line in hand has not ended."""
        tail = self.tail
        if tail is None:
            return True
        if not self.ripe and len(tail) <= self.room:
            return False
        self.data = bytes(tail)
        self.at = 0
        self.size = len(tail)
        self.tail = None
        self.room = -1
        self.block = -1
        return True

    def refuse(self, status: int, reason: str) -> int:
        """Note that the client broke the protocol; nothing more is read. Return BAD."""
        self.error = ProtocolError(status, reason)
        return BAD

    def bound(self) -> int:
        """Return how long the line that is expected may be, without its CRLF."""
        limits = self.limits
        if self.phase == LINE:
            return min(limits.request_line, limits.head - 2)
        if self.phase == SIZE:
            return chunk_line
        return min(limits.field_size, limits.head - self.used - 2)

    def too_long(self) -> int:
        """Refuse the line in hand for its length. Return BAD."""
        limits = self.limits
        if self.phase == LINE:
            return self.refuse(414, f"the request line is longer than {max(self.bound(), 0)} bytes")
        if self.phase == SIZE:
            return self.refuse(400, f"a chunk-size line is longer than {CHUNK_LINE} bytes")
        what = "the trailer section" if self.phase == TRAILERS else "the head"
        if limits.field_size > limits.head - self.used - 2:
            return self.refuse(431, f"{what} is longer than {limits.head} bytes")
        return self.refuse(431, f"a field line in {what} is longer than {limits.field_size} bytes")

    def wait(self, start: int) -> int:
        """Leave the line that begins at `start` until more of it has come. Return WAIT, or BAD if it is too long."""
        bound = self.bound()
        if self.size - start > bound + 1:  # one more than allowed may be the CR
            return self.too_long()
        self.room = bound + 1
        self.at = start
        if start == self.size:  # an idle connection holds no buffer
            self.data = b""
            self.at = 0
            self.size = 0
        return WAIT

    def judge(self, start: int, stop: int) -> int:
        """Say whether the line that begins at `start`, and goes beyond `stop`, is in hand and not too long.

        Return WHOLE, WAIT or BAD.
        """
        raw = self.data
        end = line_end(raw, stop, self.size)
        if end < 0:
            return self.wait(start)
        return self.too_long() if end - start - 1 > self.bound() else WHOLE

    def fault(self, start: int, stop: int, reason: str) -> int:
        """Deal with the line that begins at `start` and is wrong, or not there yet, at `stop`. Return WAIT or BAD."""
        answer = self.judge(start, stop)
        return self.refuse(400, reason) if answer == WHOLE else answer

    def bad_name(self, start: int, stop: int) -> int:
        """Deal with a field line whose name is not a token with a colon right after it."""
        raw = self.data
        byte = raw[stop] if stop < self.size else 0
        if stop > start:
            reason = "white space between a field name and its colon" if byte in (SP, HTAB) else "a bad field name"
        elif byte in (SP, HTAB):
            reason = "a field line is folded or begins with white space"
        else:
            reason = "an empty field name" if byte == COLON else "a bad field name"
        return self.fault(start, stop, reason)

    def field_lines(self) -> int:
        """Read field lines into `section`, up to the empty line. Return WHOLE, WAIT or BAD."""
        raw = self.data
        end = self.size
        at = self.at
        limits = self.limits
        section = self.section
        special = NOT_IN_TRAILERS if self.phase == TRAILERS else CONTROL
        while True:
            start = at
            if start == end:
                return self.wait(start)
            stop = token(raw, start, end)
            if stop == start:
                return self.empty_line(start) if raw[start] == CR else self.bad_name(start, stop)
            if stop == end or raw[stop] != COLON:
                return self.bad_name(start, stop)
            colon = stop
            stop = value(raw, colon + 1, end)
            if stop + 1 >= end or raw[stop] != CR or raw[stop + 1] != LF:
                return self.fault(start, stop, "a control character, or a CR or LF alone, in a field value")
            used = self.used + stop + 2 - start
            if stop - start > limits.field_size or used > limits.head:
                return self.too_long()
            self.used = used
            self.count += 1
            if self.count > limits.fields:
                return self.refuse(431, f"more than {limits.fields} fields")
            at = stop + 2
            self.at = at
            name = lowered(raw, start, colon)
            content = trimmed(raw, colon + 1, stop)
            if UNDERSCORE in name:
                if self.refuse_underscores:
                    return self.refuse(400, "an underscore in a field name")
                self.dropped.append(name)
                continue
            if name in special and self.control(name, content) == BAD:
                return BAD
            section.append((name, content))

    def empty_line(self, start: int) -> int:
        """Deal with a line that begins with CR, at `start`: the end of a section, if LF follows."""
        raw = self.data
        if start + 1 == self.size or raw[start + 1] != LF:
            return self.fault(start, start, "a CR that no LF follows")
        if self.used + 2 > self.limits.head:
            return self.too_long()
        self.at = start + 2
        return WHOLE

    def control(self, name: bytes, content: bytes) -> int:
        """Look at a field that decides about the message. In a trailer section there is none. Return WHOLE or BAD."""
        return self.refuse(400, f"the field {name.decode('ascii')} in a trailer section")

    def begin_body(self, length: int) -> None:
        """Be ready for the body of the head just read: `length` bytes, or chunked if that is -1."""
        self.left = length
        self.complete = length == 0
        if self.trailers:
            self.trailers = []
        if length > 0:
            self.phase = DATA
        elif length == 0:
            self.phase = LINE
        else:
            self.phase = SIZE
            self.left = 0
            self.received = 0
            self.excess = 0

    def body(self) -> bytes | None:
        """Return what can be had of the body now, decoded.

        ``b""``: all of it was had (`complete`), or more must be fed. None: the body is refused, `error` says why.
        """
        if self.error is not None:
            return None
        if self.complete or not self.join():
            return b""
        if self.phase != DATA:
            return self.chunks()
        if self.size - self.at < self.left:
            return self.take(self.size - self.at)
        data = self.take(self.left)
        self.finish_body()
        return data

    def take(self, count: int) -> bytes:
        """Consume `count` bytes of the body, which are there."""
        self.left -= count
        at = self.at
        self.at = at + count
        data = self.data
        if count == self.size:
            return data
        raw = data
        return raw[at : at + count]

    def finish_body(self) -> None:
        """Note that the body has been read to its end."""
        self.complete = True
        self.phase = LINE

    def chunks(self) -> bytes | None:
        """Return what can be had now of a chunked body (RFC 9112 section 7.1)."""
        pieces = []
        while True:
            if self.phase == CHUNK:
                if self.size - self.at < self.left:
                    pieces.append(self.take(self.size - self.at))
                    break
                pieces.append(self.take(self.left))
                self.phase = CLOSE
            if self.phase == CLOSE and self.close_chunk() != WHOLE:
                break
            if self.phase == SIZE and self.size_line() != WHOLE:
                break
            if self.phase == TRAILERS:
                if self.field_lines() == WHOLE:
                    self.finish_body()
                break
        return None if self.error is not None else b"".join(pieces)

    def close_chunk(self) -> int:
        """Read the CRLF after the data of a chunk. Return WHOLE, WAIT or BAD."""
        raw = self.data
        at = self.at
        if at == self.size:
            return WAIT
        if raw[at] != CR or (at + 1 < self.size and raw[at + 1] != LF):
            return self.refuse(400, "no CRLF after the data of a chunk")
        if at + 1 == self.size:
            self.room = 0
            return WAIT
        self.at = at + 2
        self.phase = SIZE
        return WHOLE

    def size_line(self) -> int:
        """Read a chunk-size line. Return WHOLE, WAIT or BAD.

        Extensions are read strictly and ignored. A client could send few bytes of body with an endless stream of them;
        so a chunk has 16 bytes of line free, and two more for each byte of its data, and what a body's lines are longer
        than that may come to `CHUNK_EXCESS`.
        """
        data = self.data
        raw = data
        at = self.at
        line = line_end(raw, at, self.size) - 1
        if line < -1:
            return self.wait(at)
        if line - at > chunk_line:
            return self.too_long()
        if line < at or raw[line] != CR:
            return self.refuse(400, "a chunk-size line does not end with CRLF")
        size = chunk_size(raw, at, line)
        if size < 0:
            match = grammar.is_extended_size(data, at, line)
            if match is None:
                return self.refuse(400, "a bad chunk-size line")
            size = chunk_size(raw, at, match.end(1))
        self.excess = max(self.excess + line + 2 - at - 16 - 2 * size, 0)
        if self.excess > chunk_excess:
            return self.refuse(400, "too many bytes of chunk extensions")
        if size > self.limits.body - self.received:
            return self.refuse(413, f"the body is longer than {self.limits.body} bytes")
        self.received += size
        self.left = size
        self.at = line + 2
        self.phase = CHUNK
        if size == 0:
            self.phase = TRAILERS
            self.section = self.trailers = []
            self.dropped = list(self.dropped)  # the list may belong to the memo of the last head
            self.used = 0
            self.count = 0
        return WHOLE

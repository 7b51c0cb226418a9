"""Reads what a server answers: HTTP/1.1 responses, or the echo of what was sent to it.

Every connection of a run receives into the one buffer of its reader; what must wait there for more bytes is kept in the
connection and put back before the next receive. A head that is byte for byte the one before it means the same, so
it is read once and then compared.
"""

from __future__ import annotations

try:
    import cython
except ImportError:
    from stoker import nocython as cython

from stoker.load import head as heads
from stoker.load.head import FramingError
from stoker.load.histogram import Histogram

if not cython.compiled:
    from stoker.load.calls import find, matches, repeats, saved

BUFFER = 131072  # bytes that are received at once, at most
LONGEST_HEAD = 65536  # bytes
LONGEST_LINE = 4096  # bytes of the line of a chunk's size, or of a trailer field

# What of an answer is expected next.
HEAD = 0
BODY = 1  # `left` bytes of it
CHUNK_SIZE = 2
CHUNK = 3  # `left` bytes of its data
CHUNK_END = 4
TRAILERS = 5
UNTIL_CLOSE = 6
ECHO = 7  # raw TCP: `left` bytes of the message

NOTHING = heads.NOTHING
LENGTH = heads.LENGTH
CHUNKED = heads.CHUNKED

LINE_END = b"\r\n"
HEAD_END = b"\r\n\r\n"
BEGINNING = b"HTTP/1."


class Link:
    """One place among the connections of a run: whichever connection holds it at the moment.

    :param first: what its first answer begins with, HEAD or ECHO
    """

    def __init__(self, first: int) -> None:
        self.fd = -1
        self.connected = False  # the kernel has taken bytes for it
        self.mask = 0  # what epoll watches for
        self.flying = False  # requests are under way
        self.offset = 0  # how much of the batch of requests is sent
        self.limit = 0  # how much of it is to be sent
        self.cut = 0  # the errno of a failed send
        self.pending = 0  # answers that are awaited
        self.begun = 0  # when the batch was sent, in nanoseconds
        self.due = 0  # when it ought to have been sent
        self.first = first
        self.state = first
        self.left = 0
        self.length = 0  # bytes of the body so far
        self.last = False  # the server closes after this answer
        self.status = 0
        self.kept = b""  # bytes that wait for more

    def renew(self, fd: int) -> None:
        """Take a new connection, or none (-1)."""
        self.fd = fd
        self.connected = False
        self.mask = 0
        self.cut = 0
        self.state = self.first
        self.left = 0
        self.last = False
        self.kept = b""


class Answers:
    """The reader of a run, and what it counts.

    :param echo: the message that is echoed, b"" for HTTP
    :param bodiless: every request is a HEAD
    :param expect: the status that every answer must have; 0: any below 400
    :param expect_bytes: the length that every body must have; -1: any
    """

    def __init__(self, echo: bytes, bodiless: bool, expect: int, expect_bytes: int) -> None:
        if not cython.compiled:
            self.buffer = bytearray(BUFFER)  # compiled, an array of C
        self.echo = echo
        self.echoed = len(echo)
        self.bodiless = bodiless
        self.expect = expect
        self.expect_bytes = expect_bytes
        self.memo = b""
        self.memo_size = 0
        self.memo_status = 0
        self.memo_framing = 0
        self.memo_length = 0
        self.memo_last = False
        self.moment = 0  # nanoseconds of CLOCK_MONOTONIC, as of the last look at it
        self.answered_at = 0
        self.sent = 0
        self.requests = 0
        self.wrong_status = 0
        self.wrong_body = 0
        self.wrong_status_detail = ""
        self.wrong_body_detail = ""
        self.histogram = Histogram()

    def new_link(self) -> Link:
        """A place for a connection."""
        return Link(ECHO if self.echo else HEAD)

    def read(self, link: Link, end: int) -> None:
        """Read the buffer up to `end`. Raises FramingError; what was answered before the fault is counted."""
        at = 0
        while at < end:
            if link.pending == 0:
                raise FramingError(f"{end - at} bytes that nothing was asked for: {saved(self.buffer, at, end)[:40]!r}")
            state = link.state
            if state == HEAD:
                at = self.head(link, at, end)
            elif state in (BODY, CHUNK):
                take = min(end - at, link.left)
                at += take
                link.left -= take
                link.length += take
                if link.left == 0:
                    if state == BODY:
                        self.answered(link)
                    else:
                        link.state = CHUNK_END
            elif state == ECHO:
                at = self.echoing(link, at, end)
            elif state == UNTIL_CLOSE:
                link.length += end - at
                at = end
            else:
                at = self.line(link, at, end)

    def head(self, link: Link, at: int, end: int) -> int:
        """Read a head; the place after it, or `end` when it is not whole."""
        if self.memo_size and matches(self.buffer, at, end, self.memo):
            at += self.memo_size
        else:
            stop = find(self.buffer, at, end, HEAD_END)
            if stop < 0:
                self.unfinished(link, at, end)
                return end
            raw = saved(self.buffer, at, stop + 4)
            found = heads.parse(raw, self.bodiless)
            self.memo = raw
            self.memo_size = len(raw)
            self.memo_status = found.status
            self.memo_framing = found.framing
            self.memo_length = found.length
            self.memo_last = found.last
            at = stop + 4
        if self.memo_status < 200:  # an interim response: the answer is still to come (RFC 9110 section 15.2)
            return at
        link.status = self.memo_status
        link.last = self.memo_last
        link.length = 0
        if self.memo_framing == LENGTH:
            link.left = self.memo_length
            link.state = BODY
        elif self.memo_framing == NOTHING:
            self.answered(link)
        elif self.memo_framing == CHUNKED:
            link.state = CHUNK_SIZE
        else:
            link.state = UNTIL_CLOSE
        return at

    def unfinished(self, link: Link, at: int, end: int) -> None:
        """Keep the part of a head that is here, if a head it can become."""
        part = saved(self.buffer, at, end)
        if part[:7] != BEGINNING[: len(part)]:
            raise FramingError(f"this is no response of HTTP/1.1: {part[:80]!r}")
        if b"\n\n" in part:
            raise FramingError("the lines of the head end with LF alone")
        if len(part) > LONGEST_HEAD:
            raise FramingError(f"a head longer than {LONGEST_HEAD} bytes")
        link.kept = part

    def line(self, link: Link, at: int, end: int) -> int:
        """Read the size of a chunk, the end of its data, or a trailer field; the place after it, or `end`."""
        if link.state == CHUNK_END:
            if end - at < 2:
                link.kept = saved(self.buffer, at, end)
                return end
            if not matches(self.buffer, at, end, LINE_END):
                raise FramingError(f"a chunk's data goes on after its size: {saved(self.buffer, at, end)[:40]!r}")
            link.state = CHUNK_SIZE
            return at + 2
        stop = find(self.buffer, at, end, LINE_END)
        if stop < 0 or stop - at > LONGEST_LINE:
            if end - at > LONGEST_LINE:
                raise FramingError(f"a line longer than {LONGEST_LINE} bytes within the chunks")
            link.kept = saved(self.buffer, at, end)
            return end
        if link.state == CHUNK_SIZE:
            link.left = heads.chunk_size(saved(self.buffer, at, stop))
            link.state = CHUNK if link.left else TRAILERS
        elif stop == at:
            self.answered(link)
        else:
            heads.trailer(saved(self.buffer, at, stop))
        return stop + 2

    def echoing(self, link: Link, at: int, end: int) -> int:
        """Compare what has come back with what was sent; the place after it."""
        if link.left == 0:
            link.left = self.echoed
        take = min(end - at, link.left)
        place = self.echoed - link.left
        if not repeats(self.buffer, at, take, self.echo, place):
            raise FramingError(f"the echo differs from what was sent, within {take} bytes after byte {place}")
        link.left -= take
        if link.left == 0:
            link.length = self.echoed
            self.answered(link)
        return at + take

    def answered(self, link: Link) -> None:
        """Count an answer that is whole."""
        self.requests += 1
        self.answered_at = self.moment
        self.histogram.record(self.moment - link.due)
        link.pending -= 1
        link.state = link.first
        if link.last and link.pending:  # what was sent behind it gets no answer here, so it is sent again elsewhere
            self.sent -= link.pending
            link.pending = 0
        if link.first == ECHO:
            return
        if link.status != self.expect if self.expect else link.status >= 400:
            self.wrong_status += 1
            if not self.wrong_status_detail:
                self.wrong_status_detail = f"an answer with status {link.status}"
        if self.expect_bytes >= 0 and link.length != self.expect_bytes:
            self.wrong_body += 1
            if not self.wrong_body_detail:
                self.wrong_body_detail = f"a body of {link.length} bytes, where {self.expect_bytes} were expected"

    def ending(self, link: Link) -> bool:
        """The stream has ended: whether that was the end of an answer. Raises FramingError in the middle of one."""
        if link.state == UNTIL_CLOSE:
            self.answered(link)
            return True
        if link.state != link.first or link.kept or link.left:
            raise FramingError("the stream ended in the middle of an answer")
        return False
